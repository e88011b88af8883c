"""The engine is stopped, killed and started again under a cluster, and the machine with it."""

from __future__ import annotations

import collections.abc
import dataclasses
import random
import time
import typing
from concurrent import futures

import pytest
import requests

from p8s_supervisor import wait
from tests.cluster import host, nodes
from tests.faults import conftest, engines, measure, writer

# A connection that is just being made when the engine goes has no owner yet who could close it.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"
)

LONGEST_SECONDS = 30.0
# What a cluster without its engine is watched for.
AWAY_SECONDS = 10.0 if measure.ROUNDS > 1 else 2.0
OBSTACLE = engines.find_obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))
often = pytest.mark.skipif(measure.ROUNDS < 2, reason="FAULT_ROUNDS is 1")

OPTIONS = ["--restart=always", "--stop-timeout=30"]
FAULTS: dict[str, collections.abc.Callable[[engines.Engine], None]] = {
    "SIGKILL of dockerd and containerd": lambda engine: engine.stop(
        "KILL", "dockerd", "containerd"
    ),
    "SIGTERM of dockerd": lambda engine: engine.stop("TERM", "dockerd"),
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[engines.Engine]:
    """An engine with the image; nothing of it is left on the machine."""
    before = host.picture()
    with engines.run(tmp_path_factory.mktemp("engine")) as made:
        made.load(nodes.IMAGE)
        yield made
    assert host.difference(before) == {}


@pytest.fixture(scope="module")
def workload(
    engine: engines.Engine,
    make_kubectl: conftest.MakeKubectl,
    tmp_path_factory: pytest.TempPathFactory,
) -> typing.Iterator[conftest.Workload]:
    """A cluster that is to run always, with its state in a volume."""
    with engine.inside(), nodes.volume() as state:
        options = [*OPTIONS, f"--volume={state}:/var/lib/p8s"]
        with nodes.run(options=options) as node:
            node.await_ready()
            folder = tmp_path_factory.mktemp("workload")
            made = conftest.Workload(node, make_kubectl(node), nodes.unique("faults"), folder)
            made.deploy()
            yield made


def start(engine: engines.Engine, node: nodes.Node, before: str) -> measure.Recovery:
    """Start the engine, measured until the cluster, which it starts again, is ready."""
    begun = time.monotonic()
    with futures.ThreadPoolExecutor(1) as pool:
        starting = pool.submit(engine.start)

        def look() -> str | None:
            if not starting.done():
                return "the engine does not answer yet"
            return None if conftest.started_at(node) != before else "not started again"

        recovery = measure.await_recovery(node, since=begun, evidence=look)
        starting.result()
    assert recovery.green < LONGEST_SECONDS
    return recovery


@pytest.mark.timeout(120 + 60 * measure.ROUNDS)
@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=often if "TERM" in fault else ()) for fault in FAULTS]
)
def test_the_cluster_comes_back_with_the_engine(
    fault: str,
    engine: engines.Engine,
    workload: conftest.Workload,
    report: measure.Report,
    chance: random.Random,
) -> None:
    node = workload.node
    with engine.inside(), writer.writing(workload.target, workload.namespace):
        for _ in range(measure.ROUNDS):
            time.sleep(chance.uniform(0.5, 5.0 if measure.ROUNDS > 1 else 1.0))
            before, stops = conftest.started_at(node), conftest.count_stops(node)
            FAULTS[fault](engine)
            report.add(f"{fault}, from the engine's start on", start(engine, node, before))
            # An engine that finds a container running, and may not leave it so, stops it first.
            assert conftest.count_stops(node) == stops + 1
            workload.await_answers()


@often
@pytest.mark.timeout(180)
def test_with_live_restore_the_cluster_goes_on(
    engine: engines.Engine, workload: conftest.Workload
) -> None:
    """At the container's own address; a port of loopback is published by a process of dockerd's."""
    node = workload.node
    with engine.inside():
        before = conftest.started_at(node)
        engine.set_live_restore(on=True)
        target = dataclasses.replace(workload.target, server=f"https://{node.address}:6443")
        try:
            with writer.writing(target, workload.namespace) as scribe:
                for signal, daemons in (("TERM", ["dockerd"]), ("KILL", ["dockerd", "containerd"])):
                    address = node.address
                    engine.stop(signal, *daemons)
                    watch(address)
                    engine.start()
                    assert conftest.started_at(node) == before
                    wait.until(
                        lambda: measure.is_green(node), awaited="the published port", seconds=20
                    )
            assert scribe.ledger.in_doubt == 0, "a write was refused while dockerd was away"
            assert node.execute("echo", "still there") == "still there\n"
            workload.await_answers()
        finally:
            engine.set_live_restore(on=False)


def watch(address: str) -> None:
    """A cluster is ready all the while.

    Args:
        address: the container's.
    """
    end = time.monotonic() + AWAY_SECONDS
    while time.monotonic() < end:
        answer = requests.get(f"http://{address}:8989/ready", timeout=10)
        assert answer.status_code == 200, answer.text
        time.sleep(0.1)


@often
@pytest.mark.timeout(120 + 60 * measure.ROUNDS)
def test_the_machine_crashes(
    engine: engines.Engine,
    workload: conftest.Workload,
    report: measure.Report,
    chance: random.Random,
) -> None:
    """Everything ends at once; what was in memory is lost, the network's addresses too."""
    node = workload.node
    for _ in range(measure.ROUNDS):
        with engine.inside():
            scribe = writer.Writer(workload.target, workload.namespace)
            scribe.start()
            time.sleep(chance.uniform(0.5, 5.0))
            before = conftest.started_at(node)
            engine.crash()
            scribe.stop()
        with engine.inside():  # another network, though it looks the same
            fault = "crash of the machine, from the engine's start on"
            report.add(fault, start(engine, node, before))
            writer.verify(workload.target, workload.namespace, scribe)
            workload.await_answers()
