"""How much of its host the container may use, and what of that kubelet can give to pods."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import typing

from p8s_supervisor import errors

MIB = 1 << 20
# For what runs beside the pods: etcd, containerd and its shims, kubelet, the sidecar. Idle it is
# 170 MiB, in a soak with 20 pods 240 MiB.
OWN_MEMORY = 256 * MIB
# With less a cluster was seen to run out of memory: with 512 MiB a minute after a start that went
# well, with 384 in the start.
LEAST_MEMORY = 768 * MIB
HOPELESS_MEMORY = 448 * MIB
# kubelet evicts pods for room on the disk below a fiftieth of it, and on a large disk below this.
MOST_ROOM = 1024 * MIB
CGROUPS = pathlib.Path("/sys/fs/cgroup")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """The container's limits beside what the host has.

    Attributes:
        memory: in bytes; None where there is no limit below the host's own.
        host_memory: in bytes.
        processors: None where there is no limit below the host's own.
        host_processors: that the container sees.
        pids: processes and threads; None where there is no limit below the host's own.
        host_pids: as kubelet finds it.
    """

    memory: int | None
    host_memory: int
    processors: float | None
    host_processors: int
    pids: int | None
    host_pids: int


def find(cgroups: pathlib.Path = CGROUPS, proc: pathlib.Path = pathlib.Path("/proc")) -> Limits:
    """Read them from the container's own cgroup, of version 1 or 2, which is its root."""
    fields = dict(
        line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines() if ":" in line
    )
    host_memory = int(fields["MemTotal"].split()[0]) * 1024
    host_processors = os.cpu_count() or 1
    memory = _read(cgroups / "memory.max") or _read(cgroups / "memory/memory.limit_in_bytes")
    quota, _, period = _read(cgroups / "cpu.max").partition(" ")
    if not quota:
        quota = _read(cgroups / "cpu/cpu.cfs_quota_us")
        period = _read(cgroups / "cpu/cpu.cfs_period_us")
    pids = _read(cgroups / "pids.max") or _read(cgroups / "pids/pids.max")
    # Source: pkg/kubelet/stats/pidlimit/pidlimit_linux.go
    host_pids = min(int(_read(proc / f"sys/kernel/{name}")) for name in ("pid_max", "threads-max"))
    # Without a limit version 2 says `max`, version 1 -1 or, of memory, a number beyond any host's.
    bytes_ = int(memory) if memory.isdigit() else host_memory
    processors = int(quota) / int(period) if quota.isdigit() else float(host_processors)
    return Limits(
        memory=bytes_ if bytes_ < host_memory else None,
        host_memory=host_memory,
        processors=processors if processors < host_processors else None,
        host_processors=host_processors,
        pids=int(pids) if pids.isdigit() and int(pids) < host_pids else None,
        host_pids=host_pids,
    )


def _read(file: pathlib.Path) -> str:
    return file.read_text().strip() if file.exists() else ""


def fit(config: dict[str, typing.Any], limits: Limits) -> dict[str, typing.Any]:
    """Tell kubelet, which sees what the host has.

    With it a pod that asks for too much waits, one that takes too much is ended before anything of
    the cluster is, and kubelet evicts while there is still something left.

    Args:
        config: KubeletConfiguration.
        limits: the container's.

    Returns:
        The configuration, changed where there is a limit.
    """
    reserved = {}
    fitted = dict(config)
    if limits.memory is not None:
        beyond = limits.host_memory - limits.memory + OWN_MEMORY
        reserved["memory"] = f"{beyond // MIB}Mi"
    if limits.processors is not None:
        reserved["cpu"] = f"{round(1000 * (limits.host_processors - limits.processors))}m"
    if limits.pids is not None:
        # Half is for what runs beside the pods: each pod has a shim of a dozen threads. The control
        # plane is among the pods: no pod alone may take what is left.
        reserved["pid"] = str(limits.host_pids - limits.pids // 2)
        fitted["podPidsLimit"] = min(config["podPidsLimit"], limits.pids // 4)
    return fitted | ({"systemReserved": reserved} if reserved else {})


def eviction_room(disk: int) -> dict[str, str]:
    """kubelet's thresholds for room on a disk of so many bytes.

    A share alone is too much of a laptop's disk: 2 % are ten GB, and many a one has less left.
    """
    room = f"{min(disk // 50, MOST_ROOM) // MIB}Mi"
    return {"nodefs.available": room, "imagefs.available": room}


def find_lack(limits: Limits) -> str | None:
    """Why a cluster is likely to run out of memory; None where it is not.

    Raises:
        P8sError: not even a start would have enough.
    """
    if limits.memory is None or limits.memory >= LEAST_MEMORY:
        return None
    told = f"the container may use {limits.memory // MIB} MiB of memory"
    needed = f"{LEAST_MEMORY // MIB} MiB and what its workloads take"
    if limits.memory < HOPELESS_MEMORY:
        raise errors.P8sError(
            f"{told}: too little for any start",
            hint=f"a cluster needs {needed}: docker run --memory=…",
        )
    return f"{told}; a cluster needs {needed}: docker run --memory=…"
