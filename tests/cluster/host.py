"""What a container could leave behind on its host, as a picture to compare."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import time

from p8s_supervisor import wait
from tests.cluster import nodes

# Set by kubelet on real nodes, and without a namespace: a container that sets them sets the host's.
SYSCTLS = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/ip_forward",
    "net/netfilter/nf_conntrack_max",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)


def _lines(*command: str) -> set[str]:
    if shutil.which(command[0]) is None:
        return set()  # what no tool of this host can show
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {line for line in done.stdout.splitlines() if line and line[0] not in "#:*"}


def _cgroups() -> set[str]:
    """Without those of pods in containers that run: in a cluster of other tests pods come and go."""
    running = nodes.docker("ps", "--quiet", "--no-trunc").split()
    return {
        directory
        for directory, _, _ in os.walk("/sys/fs/cgroup")
        if any(part in directory for part in ("/docker", "kubepods", "p8s"))
        and not ("kubepods" in directory and any(name in directory for name in running))
    }


def _sysctls() -> set[str]:
    files = {name: pathlib.Path("/proc/sys") / name for name in SYSCTLS}
    return {f"{name}={file.read_text().strip()}" for name, file in files.items() if file.exists()}


def picture() -> dict[str, set[str]]:
    """Mounts, cgroups, interfaces, packet rules, loop devices, volumes, containers, sysctls."""
    mounts = pathlib.Path("/proc/self/mounts").read_text().splitlines()
    return {
        "mounts": {" ".join(line.split()[:3]) for line in mounts},
        "cgroups": _cgroups(),
        "interfaces": {entry.name for entry in pathlib.Path("/sys/class/net").iterdir()},
        "rules": _lines("iptables-save") | _lines("nft", "--stateless", "list", "ruleset"),
        "loop devices": _lines("losetup", "--all"),
        "volumes": set(nodes.docker("volume", "ls", "--quiet").split()),
        "containers": set(nodes.docker("ps", "--all", "--quiet").split()),
        "networks": set(nodes.docker("network", "ls", "--quiet").split()),
        "sysctls": _sysctls(),
    }


def processes(node: nodes.Node) -> dict[str, str]:
    """The host's process ids of a running container's processes, its shim among them."""
    found = {}
    for line in nodes.docker("top", node.name, "-eo", "pid,comm").splitlines()[1:]:
        pid, name = line.split(None, 1)
        found[pid] = name
    main = node.inspect("{{.State.Pid}}")
    shim = pathlib.Path(f"/proc/{main}/stat").read_text().rpartition(")")[2].split()[1]
    return found | {shim: "containerd-shim"}


def difference(before: dict[str, set[str]], *, seconds: float = 5) -> dict[str, set[str]]:
    """What is there now and was not there before, or the other way round.

    The engine tidies up a moment after a container has ended: it is given that long.
    """
    deadline = time.monotonic() + seconds
    while True:
        now = picture()
        changed = {kind: before[kind] ^ now[kind] for kind in before if before[kind] != now[kind]}
        if not changed or time.monotonic() > deadline:
            return changed
        time.sleep(0.2)


def await_end(processes: dict[str, str], *, seconds: float = 5) -> None:
    """Wait until none of the processes is left; the engine ends the shim as the last."""

    def look() -> str | None:
        left = {pid: name for pid, name in processes.items() if _is_alive(pid, name)}
        return f"still there: {left}" if left else None

    wait.until(look, awaited="the end of the container's processes", seconds=seconds)


def _is_alive(pid: str, name: str) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == name[:15]
    except OSError:
        return False
