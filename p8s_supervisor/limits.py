"""How much of its host the container may use, and what of that kubelet can give to pods."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import typing

MIB = 1 << 20
# For what runs beside the pods: etcd, containerd and its shims, kubelet, the sidecar. Idle it is
# 170 MiB, in a soak with 20 pods 240 MiB.
OWN_MEMORY = 256 * MIB
# A start with less was seen to run out of memory.
LEAST_MEMORY = 768 * MIB
CGROUPS = pathlib.Path("/sys/fs/cgroup")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """The container's limits beside what the host has.

    Attributes:
        memory: in bytes; None where there is no limit below the host's own.
        host_memory: in bytes.
        processors: None where there is no limit below the host's own.
        host_processors: that the container sees.
    """

    memory: int | None
    host_memory: int
    processors: float | None
    host_processors: int


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
    # Without a limit version 2 says `max`, version 1 -1 or, of memory, a number beyond any host's.
    bytes_ = int(memory) if memory.isdigit() else host_memory
    processors = int(quota) / int(period) if quota.isdigit() else float(host_processors)
    return Limits(
        memory=bytes_ if bytes_ < host_memory else None,
        host_memory=host_memory,
        processors=processors if processors < host_processors else None,
        host_processors=host_processors,
    )


def _read(file: pathlib.Path) -> str:
    return file.read_text().strip() if file.exists() else ""


def reserve(limits: Limits) -> dict[str, typing.Any]:
    """What kubelet has to be told: it sees the host's memory and processors.

    With it a pod that asks for too much waits, one that takes too much is ended before anything of
    the cluster is, and kubelet evicts while there is still something left.

    Returns:
        Fields of KubeletConfiguration; none where there is no limit.
    """
    reserved = {}
    if limits.memory is not None:
        beyond = limits.host_memory - limits.memory + OWN_MEMORY
        reserved["memory"] = f"{beyond // MIB}Mi"
    if limits.processors is not None:
        reserved["cpu"] = f"{round(1000 * (limits.host_processors - limits.processors))}m"
    return {"systemReserved": reserved} if reserved else {}


def find_lack(limits: Limits) -> str | None:
    """Why a start is likely to run out of memory; None where it is not."""
    if limits.memory is None or limits.memory >= LEAST_MEMORY:
        return None
    return (
        f"the container may use {limits.memory // MIB} MiB of memory; a cluster needs "
        f"{LEAST_MEMORY // MIB} MiB and what its workloads take: docker run --memory=…"
    )
