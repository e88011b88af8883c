"""The running containers as processes: children of containerd's shims, seen through /proc."""

from __future__ import annotations

import collections.abc
import dataclasses
import os
import pathlib
import re
import signal
import time

SHIM = "containerd-shim"  # /proc cuts a process' name after 15 bytes
# A child of a shim too: ended while it deletes a container, it leaves that frozen (cgroup v1).
RUNTIME = "crun"
# Source: pkg/kubelet/cm/pod_container_manager_linux.go, podContainerNamePrefix (cgroupfs driver).
_POD_CGROUP = re.compile(r"/kubepods/(?:\w+/)?pod([-0-9a-f]+)/")


@dataclasses.dataclass(frozen=True)
class Container:
    """A running container.

    Attributes:
        pid: its first process.
        name: that process' name, cut after 15 bytes.
        pod_uid: its pod's UID; of a static pod, the hash of its manifest; empty where unknown.
    """

    pid: int
    name: str
    pod_uid: str


def _stat(entry: pathlib.Path) -> tuple[str, str, int] | None:
    """Name, state and parent of a process; None where it is gone (proc_pid_stat(5))."""
    try:
        text = (entry / "stat").read_text(errors="replace")
    except OSError:
        return None
    name = text[text.index("(") + 1 : text.rindex(")")]
    state, parent = text[text.rindex(")") + 2 :].split()[:2]
    return name, state, int(parent)


def list_processes(proc: pathlib.Path = pathlib.Path("/proc")) -> dict[int, tuple[str, int]]:
    """Process id → name and parent, of all processes that are not zombies."""
    found = {}
    for entry in proc.iterdir():
        if entry.name.isdigit():
            stat = _stat(entry)
            if stat is not None and stat[1] not in "ZX":
                found[int(entry.name)] = (stat[0], stat[2])
    return found


def first_processes(proc: pathlib.Path = pathlib.Path("/proc")) -> list[Container]:
    """The running containers, pods' sandboxes among them."""
    alive = list_processes(proc)
    shims = {pid for pid, (name, _) in alive.items() if name.startswith(SHIM)}
    return [
        Container(pid, name, _pod_uid(proc / str(pid)))
        for pid, (name, parent) in alive.items()
        if parent in shims and name != RUNTIME and not name.startswith(SHIM)
    ]


def _pod_uid(entry: pathlib.Path) -> str:
    """The pod that a process belongs to, from kubelet's names of cgroups; empty where none."""
    try:
        found = _POD_CGROUP.search((entry / "cgroup").read_text())
    except OSError:
        return ""
    return found[1] if found else ""


def end(graces: collections.abc.Mapping[int, float]) -> list[int]:
    """SIGTERM, a bounded wait, then SIGKILL for what is left.

    Args:
        graces: for each first process of a container the seconds between the two signals.

    Returns:
        Those that had to be killed.
    """
    left, begun = set(graces), time.monotonic()
    killed: set[int] = set()
    _signal(left, signal.SIGTERM)
    while left:
        time.sleep(0.02)
        left &= set(list_processes())
        passed = time.monotonic() - begun
        overdue = {pid for pid in left if passed >= graces[pid]}
        _signal(overdue, signal.SIGKILL)
        killed |= overdue
        left -= overdue
    return sorted(killed)


def _signal(pids: set[int], number: signal.Signals) -> None:
    for pid in list(pids):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pids.discard(pid)
