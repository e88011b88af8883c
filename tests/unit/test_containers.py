"""Containers as processes: from a fake /proc, and real children that are ended."""

from __future__ import annotations

import collections.abc
import pathlib
import subprocess
import time
import typing

import pytest

from p8s_supervisor import containers

SHIM = "containerd-shim"  # what /proc shows of containerd-shim-runc-v2


UID = "0b5d3a52-7d0f-4b3a-9a3e-0123456789ab"
HASH = "4f1e0c9d2b7a6f5e4d3c2b1a09876543"  # what a static pod has for a UID
CGROUPS = {
    21: f"4:memory:/kubepods/besteffort/pod{UID}/0123abcd\n0::/\n",
    22: f"0::/kubepods/burstable/pod{HASH}/0123abcd\n",
    32: f"9:name=systemd:/kubepods/pod{UID}/0123abcd\n",
    40: "0::/docker/0123abcd\n",
}


def make_proc(root: pathlib.Path, stats: collections.abc.Mapping[int, bytes]) -> pathlib.Path:
    """A /proc with these processes, and the other things that are in one."""
    for pid, stat in stats.items():
        (root / str(pid)).mkdir()
        (root / str(pid) / "stat").write_bytes(stat)
        (root / str(pid) / "cgroup").write_text(CGROUPS.get(pid, "0::/\n"))
    (root / "net").mkdir()
    (root / "uptime").write_text("1 1")
    (root / "99999").mkdir()  # a process that ended after the directory was listed
    return root


def stat(pid: int, name: str, parent: int, *, state: str = "S") -> bytes:
    return f"{pid} ({name}) {state} {parent} {pid} {pid} 0 -1 4194560 1 2 0 0".encode()


NODE = {
    1: stat(1, "supervisord", 0),
    10: stat(10, "containerd", 1),
    20: stat(20, SHIM, 1),
    21: stat(21, "pause", 20),
    22: stat(22, "kube-apiserver", 20),
    23: stat(23, "worker", 22),
    30: stat(30, SHIM, 1),
    31: stat(31, "pause", 30, state="Z"),
    32: stat(32, "sh) S (x", 30),
    33: stat(33, SHIM, 30),
    34: stat(34, "dead", 20, state="X"),
    # Deletes a container, or has not become one yet.
    35: stat(35, "crun", 20),
}


def test_list_processes_leaves_out_what_has_ended(tmp_path: pathlib.Path) -> None:
    assert containers.list_processes(make_proc(tmp_path, NODE)) == {
        1: ("supervisord", 0),
        10: ("containerd", 1),
        20: (SHIM, 1),
        21: ("pause", 20),
        22: ("kube-apiserver", 20),
        23: ("worker", 22),
        30: (SHIM, 1),
        32: ("sh) S (x", 30),
        33: (SHIM, 30),
        35: ("crun", 20),
    }


def test_first_processes_are_the_children_of_shims(tmp_path: pathlib.Path) -> None:
    assert containers.first_processes(make_proc(tmp_path, NODE)) == [
        containers.Container(21, "pause", UID),
        containers.Container(22, "kube-apiserver", HASH),
        containers.Container(32, "sh) S (x", UID),
    ]


@pytest.mark.parametrize(
    ("cgroup", "uid"),
    [
        pytest.param(f"0::/kubepods/pod{UID}/x\n", UID, id="guaranteed"),
        pytest.param(f"0::/kubepods/burstable/pod{UID}/x\n", UID, id="burstable"),
        pytest.param(f"0::/kubepods/pod{HASH}/x\n", HASH, id="static"),
        pytest.param(f"0::/docker/1/kubepods/pod{UID}/x\n", UID, id="below the container's own"),
        pytest.param(f"0::/docker/pod{UID}/x\n", "", id="no cgroup of kubelet"),
        pytest.param("0::/\n", "", id="the root"),
        pytest.param("", "", id="no cgroup"),
    ],
)
def test_the_pod_of_a_container_is_read_from_its_cgroup(
    tmp_path: pathlib.Path, cgroup: str, uid: str
) -> None:
    proc = make_proc(tmp_path, {20: NODE[20], 21: NODE[21]})
    (proc / "21/cgroup").write_text(cgroup)
    assert containers.first_processes(proc) == [containers.Container(21, "pause", uid)]


def test_a_container_that_ends_meanwhile_is_no_trouble(tmp_path: pathlib.Path) -> None:
    proc = make_proc(tmp_path, {20: NODE[20], 21: NODE[21]})
    (proc / "21/cgroup").unlink()
    assert containers.first_processes(proc) == [containers.Container(21, "pause", "")]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"caf\xe9", id="not UTF-8"),
        pytest.param("naïveté-naïvet".encode()[:15] + b"\xc3", id="cut within a character"),
    ],
)
def test_a_process_with_an_odd_name_hides_no_other(tmp_path: pathlib.Path, name: bytes) -> None:
    odd = {40: b"40 (" + name + b") S 30 40 40 0 -1 4194560 1 2 0 0"}
    found = containers.first_processes(make_proc(tmp_path, NODE | odd))
    assert [container.pid for container in found] == [21, 22, 32, 40]


Start = collections.abc.Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def start() -> typing.Iterator[Start]:
    """Starts a bash with a script that says `ready` once it is; kills what is left at the end."""
    started: list[subprocess.Popen[str]] = []

    def begin(script: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


OBEDIENT = "echo ready; exec sleep 300"
SLOW = "trap 'sleep 0.3; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
DEAF = "trap '' TERM; echo ready; exec sleep 300"


@pytest.mark.parametrize(
    ("scripts", "codes", "killed"),
    [
        pytest.param([(OBEDIENT, 10)], [-15], [], id="one that ends at SIGTERM"),
        pytest.param([(SLOW, 10)], [5], [], id="one that tidies up first"),
        pytest.param([(DEAF, 0.2)], [-9], [0], id="one that ignores SIGTERM is killed"),
        pytest.param(
            [(DEAF, 0.2), (OBEDIENT, 0.2), (DEAF, 0.2)],
            [-9, -15, -9],
            [0, 2],
            id="only the deaf are killed",
        ),
        pytest.param([(SLOW, 0.05), (SLOW, 10)], [-9, 5], [0], id="each has a grace of its own"),
        pytest.param([(DEAF, 0)], [-9], [0], id="no time at all"),
        pytest.param([], [], [], id="nothing to end"),
    ],
)
def test_end(
    start: Start, scripts: list[tuple[str, float]], codes: list[int], killed: list[int]
) -> None:
    processes = [start(script) for script, _ in scripts]
    graces = {process.pid: grace for process, (_, grace) in zip(processes, scripts, strict=True)}
    began = time.monotonic()
    found = containers.end(graces)
    assert time.monotonic() - began < 10
    assert found == sorted(processes[index].pid for index in killed)
    assert [process.wait(timeout=10) for process in processes] == codes


def test_end_of_what_is_gone_already(start: Start) -> None:
    process = start("echo ready")
    process.wait(timeout=10)
    assert containers.end({process.pid: 10}) == []
