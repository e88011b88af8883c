"""The container's limits, from fake cgroups of both versions, and what kubelet is told of them."""

from __future__ import annotations

import os
import pathlib
import typing

import pytest

from p8s_supervisor import limits

HOST_KIB = 8 << 20
GIB = 1 << 30
V1 = {"memory/memory.limit_in_bytes": str(GIB), "cpu/cpu.cfs_quota_us": "150000",
      "cpu/cpu.cfs_period_us": "100000"}  # fmt: skip
CASES: dict[str, tuple[dict[str, str], int | None, float | None]] = {
    "version 1": (V1, GIB, 1.5),
    "version 1, none": (
        {"memory/memory.limit_in_bytes": "9223372036854771712", "cpu/cpu.cfs_quota_us": "-1"},
        None,
        None,
    ),
    "version 2": ({"memory.max": str(GIB), "cpu.max": "50000 100000"}, GIB, 0.5),
    "version 2, none": ({"memory.max": "max", "cpu.max": "max 100000"}, None, None),
    "more than the host has": (
        {"memory.max": str(64 * GIB), "cpu.max": "900000 100000"},
        None,
        None,
    ),
    "no such controllers": ({}, None, None),
}


@pytest.mark.parametrize("case", CASES)
def test_limits_are_found(
    case: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    written, memory, processors = CASES[case]
    (tmp_path / "meminfo").write_text(f"MemTotal: {HOST_KIB} kB\nMemFree: 1 kB\n")
    for name, text in written.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    found = limits.find(tmp_path, tmp_path)
    assert (found.memory, found.processors) == (memory, processors)
    assert (found.host_memory, found.host_processors) == (8 * GIB, 4)


def make(memory: int | None, processors: float | None) -> limits.Limits:
    return limits.Limits(
        memory=memory, host_memory=8 * GIB, processors=processors, host_processors=4
    )


@pytest.mark.parametrize(
    ("memory", "processors", "told"),
    [
        pytest.param(None, None, {}, id="no limit"),
        pytest.param(2 * GIB, None, {"systemReserved": {"memory": "6400Mi"}}, id="memory"),
        pytest.param(None, 1.5, {"systemReserved": {"cpu": "2500m"}}, id="processors"),
    ],
)
def test_what_is_reserved(
    memory: int | None, processors: float | None, told: dict[str, typing.Any]
) -> None:
    assert limits.reserve(make(memory, processors)) == told


def test_too_little_memory_is_told() -> None:
    assert limits.find_lack(make(None, None)) is None
    assert limits.find_lack(make(768 << 20, None)) is None
    told = limits.find_lack(make(512 << 20, None))
    assert told is not None
    assert "may use 512 MiB" in told
    assert "768 MiB" in told
