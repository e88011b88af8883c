"""The running containers as processes: children of containerd's shims, seen through /proc."""

from __future__ import annotations

import collections.abc
import os
import pathlib
import signal
import time

SHIM = "containerd-shim"  # /proc cuts a process' name after 15 bytes


def _stat(entry: pathlib.Path) -> tuple[str, str, int] | None:
    """Name, state and parent of a process; None where it is gone (proc_pid_stat(5))."""
    try:
        text = (entry / "stat").read_text()
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


def first_processes(proc: pathlib.Path = pathlib.Path("/proc")) -> dict[int, str]:
    """The first process of each running container: its id → its name."""
    alive = list_processes(proc)
    shims = {pid for pid, (name, _) in alive.items() if name.startswith(SHIM)}
    return {
        pid: name
        for pid, (name, parent) in alive.items()
        if parent in shims and not name.startswith(SHIM)
    }


def end(pids: collections.abc.Iterable[int], *, seconds: float) -> list[int]:
    """SIGTERM, a bounded wait, then SIGKILL for what is left.

    Args:
        pids: processes of containers.
        seconds: between the two signals, at most.

    Returns:
        Those that had to be killed.
    """
    left = set(pids)
    _signal(left, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left &= set(list_processes())
    _signal(left, signal.SIGKILL)
    return sorted(left)


def _signal(pids: set[int], number: signal.Signals) -> None:
    for pid in list(pids):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pids.discard(pid)
