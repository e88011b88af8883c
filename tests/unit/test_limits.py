"""The container's limits, from fake cgroups of both versions, and what kubelet is told of them."""

from __future__ import annotations

import os
import pathlib
import typing

import pytest

from p8s_supervisor import errors, limits

GIB = 1 << 30
HOST = {
    "meminfo": f"MemTotal: {8 << 20} kB\nMemFree: 1 kB",
    "sys/kernel/pid_max": "32768",
    "sys/kernel/threads-max": "100000",
}
V1 = {
    "memory/memory.limit_in_bytes": str(GIB),
    "cpu/cpu.cfs_quota_us": "150000",
    "cpu/cpu.cfs_period_us": "100000",
    "pids/pids.max": "2048",
}
V1_NONE = {
    "memory/memory.limit_in_bytes": "9223372036854771712",
    "cpu/cpu.cfs_quota_us": "-1",
    "pids/pids.max": "max",
}
V2 = {"memory.max": str(GIB), "cpu.max": "50000 100000", "pids.max": "4096"}
V2_NONE = {"memory.max": "max", "cpu.max": "max 100000", "pids.max": "max"}
MORE = {"memory.max": str(64 * GIB), "cpu.max": "900000 100000", "pids.max": "40000"}
NONE = (None, None, None)
CASES: dict[str, tuple[dict[str, str], tuple[int | None, float | None, int | None]]] = {
    "version 1": (V1, (GIB, 1.5, 2048)),
    "version 1, none": (V1_NONE, NONE),
    "version 2": (V2, (GIB, 0.5, 4096)),
    "version 2, none": (V2_NONE, NONE),
    "more than the host has": (MORE, NONE),
    "no such controllers": ({}, NONE),
}


@pytest.mark.parametrize("case", CASES)
def test_limits_are_found(
    case: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    written, expected = CASES[case]
    for name, text in (HOST | written).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    found = limits.find(tmp_path, tmp_path)
    assert (found.memory, found.processors, found.pids) == expected
    assert (found.host_memory, found.host_processors, found.host_pids) == (8 * GIB, 4, 32768)


def make(
    memory: int | None = None, processors: float | None = None, pids: int | None = None
) -> limits.Limits:
    return limits.Limits(
        memory=memory,
        host_memory=8 * GIB,
        processors=processors,
        host_processors=4,
        pids=pids,
        host_pids=32768,
    )


FITS: dict[str, tuple[limits.Limits, dict[str, typing.Any]]] = {
    "no limit": (make(), {}),
    "memory": (make(memory=2 * GIB), {"systemReserved": {"memory": "6400Mi"}}),
    "processors": (make(processors=1.5), {"systemReserved": {"cpu": "2500m"}}),
    "pids": (make(pids=2048), {"systemReserved": {"pid": "31744"}, "podPidsLimit": 512}),
    "many pids": (make(pids=30000), {"systemReserved": {"pid": "17768"}, "podPidsLimit": 1000}),
}


@pytest.mark.parametrize("case", FITS)
def test_what_kubelet_is_told(case: str) -> None:
    found, told = FITS[case]
    config = {"kind": "KubeletConfiguration", "podPidsLimit": 1000}
    assert limits.fit(config, found) == config | told


def test_too_little_memory_is_told() -> None:
    assert limits.find_lack(make()) is None
    assert limits.find_lack(make(768 << 20)) is None
    told = limits.find_lack(make(512 << 20))
    assert told is not None
    assert "may use 512 MiB" in told
    assert "768 MiB" in told
    with pytest.raises(
        errors.P8sError, match="may use 447 MiB of memory: too little for any start"
    ):
        limits.find_lack(make(447 << 20))


ROOMS = {
    "a small volume": (500 << 20, "10Mi"),
    "a CI machine's": (20 * GIB, "409Mi"),
    "a laptop's": (500 * GIB, "1024Mi"),
}


@pytest.mark.parametrize("case", ROOMS)
def test_kubelet_evicts_for_little_room_and_not_for_a_share_of_a_large_disk(case: str) -> None:
    disk, room = ROOMS[case]
    assert limits.eviction_room(disk) == {"nodefs.available": room, "imagefs.available": room}
