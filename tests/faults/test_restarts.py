"""What is started again: the container by `docker restart`, and by the keeper what was given up."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import subprocess
import time
import typing

import pytest

from p8s_supervisor import wait
from tests.cluster import nodes
from tests.faults import conftest, measure, test_container, victims, writer

# The stop is in it.
RESTART_SECONDS = 40.0
# So many restarts find another address.
MOVES = min(measure.ROUNDS, 3)
KEPT = "/run/p8s/kept"
# Of the keeper, before the cause is mended.
ATTEMPTS = min(measure.ROUNDS, 2)


@contextlib.contextmanager
def network() -> typing.Iterator[tuple[str, list[str]]]:
    """A docker network, and containers that have its first addresses.

    docker gives a container the lowest free address: one that is restarted after one of them is
    gone has another one.
    """
    prefix = nodes.unique("p8s-test-holder")
    holders = [f"{prefix}-{number}" for number in range(MOVES)]
    with nodes.network() as name:
        try:
            for holder in holders:
                nodes.docker(
                    "run", "--detach", f"--name={holder}", f"--network={name}",
                    "--entrypoint=sleep", nodes.IMAGE, "3600",
                )  # fmt: skip
            yield name, holders
        finally:
            nodes.docker("rm", "--force", "--volumes", *holders, check=False)


@pytest.fixture(scope="module")
def holders() -> list[str]:
    """Containers to remove, so that the cluster's next address is another one."""
    return []


@pytest.fixture(scope="module")
def workload(
    make_kubectl: conftest.MakeKubectl,
    tmp_path_factory: pytest.TempPathFactory,
    holders: list[str],
) -> typing.Iterator[conftest.Workload]:
    """One cluster for all of them."""
    with network() as (name, made), nodes.run(options=[f"--network={name}"]) as node:
        holders += made
        node.await_ready()
        folder = tmp_path_factory.mktemp("workload")
        found = conftest.Workload(node, make_kubectl(node), nodes.unique("faults"), folder)
        found.deploy()
        yield found


@pytest.mark.skipif(measure.ROUNDS < 2, reason="FAULT_ROUNDS is 1")
@pytest.mark.timeout(120 + 60 * measure.ROUNDS)
def test_docker_restart(
    workload: conftest.Workload,
    holders: list[str],
    report: measure.Report,
    chance: random.Random,
) -> None:
    """In order, with another address as long as there is one."""
    node = workload.node
    with writer.writing(workload.target, workload.namespace):
        for _ in range(measure.ROUNDS):
            time.sleep(chance.uniform(0.5, 5.0 if measure.ROUNDS > 1 else 1.0))
            address, stops = node.address, conftest.count_stops(node)
            moves = bool(holders)
            if moves:
                nodes.docker("rm", "--force", "--volumes", holders.pop())
            report.add("docker restart, the stop in it", restart(node))
            assert conftest.count_stops(node) == stops + 1
            assert (node.address != address) == moves
            test_container.check_address(workload)
            workload.await_answers()


def restart(node: nodes.Node) -> measure.Recovery:
    """`docker restart`, measured from its beginning on."""
    before, begun = conftest.started_at(node), time.monotonic()
    command = ["docker", "restart", "--time=60", node.name]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as restarting:
        recovery = measure.await_recovery(
            node,
            since=begun,
            evidence=lambda: None if conftest.started_at(node) != before else "not restarted yet",
        )
    assert restarting.returncode == 0
    assert recovery.green < RESTART_SECONDS
    return recovery


# --- the keeper


@dataclasses.dataclass(frozen=True)
class Broken:
    """What a process cannot start with.

    Attributes:
        name: the process.
        file: which of its files is broken.
        content: what is in it.
    """

    name: str
    file: str
    content: str


BROKEN = (
    Broken("etcd", "/etc/kubernetes/pki/etcd-server.crt", "cut off"),
    Broken("containerd", "/etc/containerd/config.toml", "version = [garbage"),
    Broken("kubelet", "/etc/kubernetes/kubelet.yaml", "kind: Nothing"),
)
CASES = {"all at once": BROKEN} | (
    {one.name: (one,) for one in BROKEN} if measure.ROUNDS > 1 else {}
)


@contextlib.contextmanager
def breaking(node: nodes.Node, broken: tuple[Broken, ...]) -> typing.Iterator[None]:
    """Broken files for as long as the block runs."""
    for one in broken:
        script = 'cat "$1" >"$2" && printf %s "$3" >"$1"'
        node.execute("sh", "-ec", script, "sh", one.file, f"{KEPT}-{one.name}", one.content)
    try:
        yield
    finally:
        for one in broken:
            script = 'cat "$2" >"$1" && rm "$2"'
            node.execute("sh", "-ec", script, "sh", one.file, f"{KEPT}-{one.name}")


@pytest.mark.skipif(measure.ROUNDS < 2, reason="FAULT_ROUNDS is 1")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("case", CASES)
def test_what_is_given_up_comes_back_once_its_cause_is_mended(
    case: str, workload: conftest.Workload, report: measure.Report
) -> None:
    node, broken = workload.node, CASES[case]
    names = {one.name for one in broken}
    told = [f"{name}: supervisord gave it up (Exited too quickly" for name in names]
    seen: set[str] = set()

    def look() -> str | None:
        answer = node.get("/ready")
        assert answer.status_code == 503, "green without them"
        missing = answer.json()["missing"]
        # "fatal" until the keeper's next look, then "backoff" again; not in the moment of an attempt.
        seen.update(name for name in names if "Exited too quickly" in missing.get(name, ""))
        journal = node.get("/events?follow=false").text
        left = [line for line in told if journal.count(line) < ATTEMPTS]
        return f"not tried {ATTEMPTS} times: {left}; {missing}" if left else None

    before = node.logs()
    with writer.writing(workload.target, workload.namespace):
        with breaking(node, broken):
            for name in names:
                victims.kill(victims.find_one(node, victims.COMPONENTS[name]))
            wait.until(
                lambda: None if node.get("/ready").status_code == 503 else "green",
                awaited="/ready to turn red",
                seconds=5,
                interval=measure.POLL_SECONDS,
            )
            wait.until(look, awaited="the keeper's attempts", seconds=60, interval=0.2)
        begun = time.monotonic()
        recovery = measure.await_recovery(node, since=begun, evidence=lambda: None)
        workload.await_answers()
    report.add(f"given up: {case}, from when it is mended", recovery)
    assert seen == names
    assert recovery.green < 20
    new = node.logs().removeprefix(before)
    assert all(line in new for line in told), new
