"""A component is killed while a client writes: it comes back, and nothing is lost."""

from __future__ import annotations

import collections.abc
import functools
import random
import signal
import time

import pytest

from p8s_supervisor import wait
from tests.cluster import nodes
from tests.faults import conftest, measure, test_container, victims, writer

# The target of issue 7, for the median; a test bounds each single one.
LONGEST_SECONDS = 20.0
STOPPED_SECONDS = 30.0 if measure.ROUNDS > 1 else 4.0

Find = collections.abc.Callable[[nodes.Node], victims.Process]


def component(name: str) -> Find:
    return lambda node: victims.find_one(node, victims.COMPONENTS[name])


def shim_of(name: str) -> Find:
    return lambda node: victims.find_shim(node, victims.COMPONENTS[name])


def shim_of_a_workload(node: nodes.Node) -> victims.Process:
    """The shim of one of the web pods, or of the pod of its own."""
    parents = {found.parent for found in victims.find(node, conftest.WORKLOAD)}
    return next(found for found in victims.list_processes(node) if found.pid in parents)


VICTIMS: dict[str, Find] = {
    **{name: component(name) for name in victims.COMPONENTS},
    "a shim of a workload": shim_of_a_workload,
    "the shim of kube-apiserver": shim_of("kube-apiserver"),
    "the shim of coredns": shim_of("coredns"),
}
# They go the way of kube-controller-manager and of a workload's shim.
LEFT_OUT = {"kube-scheduler", "the shim of coredns"} if measure.ROUNDS < 2 else set()


@pytest.mark.timeout(60 + 60 * measure.ROUNDS)
@pytest.mark.parametrize("victim", [name for name in VICTIMS if name not in LEFT_OUT])
def test_sigkill(
    victim: str, workload: conftest.Workload, report: measure.Report, chance: random.Random
) -> None:
    node, find = workload.node, VICTIMS[victim]
    with writer.writing(workload.target, workload.namespace):
        for _ in range(measure.ROUNDS):
            time.sleep(chance.uniform(0.2, 3.0 if measure.ROUNDS > 1 else 0.5))
            before = victims.list_processes(node)
            killed = find(node)
            # With a shim its containers end, a moment later.
            ended = [one for one in before if killed.pid in (one.pid, one.parent)]
            begun = time.monotonic()
            victims.kill(killed)
            recovery = measure.await_recovery(
                node, since=begun, evidence=functools.partial(find_left, node, ended)
            )
            report.add(f"SIGKILL of {victim}", recovery)
            assert recovery.green < LONGEST_SECONDS
            workload.await_answers()


def find_left(node: nodes.Node, ended: list[victims.Process]) -> str | None:
    """Those of some processes that still run, or that nothing has taken the place of."""
    found = victims.list_processes(node)
    left = [one for one in ended if one.pid in {other.pid for other in found}]
    if left:
        return f"still there: {left}"
    names = {one.command.split()[0] for one in found}
    missing = [one.command for one in ended if one.command.split()[0] not in names]
    return f"not there again: {missing}" if missing else None


@pytest.mark.timeout(60 + 90 * measure.ROUNDS)
@pytest.mark.parametrize("victim", ["etcd", "kube-apiserver"])
def test_sigstop(victim: str, workload: conftest.Workload, report: measure.Report) -> None:
    """Stopped for half a minute, it is missed; let go on, nothing is lost."""
    node = workload.node
    stopped = VICTIMS[victim](node)
    with writer.writing(workload.target, workload.namespace):
        time.sleep(0.5)
        victims.kill(stopped, signal.SIGSTOP)
        begun = time.monotonic()
        try:
            wait.until(
                lambda: None if measure.is_green(node) else "green",
                awaited="/ready to turn red",
                seconds=5,
                interval=measure.POLL_SECONDS,
            )
            red = time.monotonic() - begun
            seen: set[str] = set()
            while time.monotonic() - begun < STOPPED_SECONDS:
                reason = measure.is_green(node)
                assert reason is not None, f"green without {victim}"
                seen.add(reason)
                time.sleep(0.5)
            name = victim.removeprefix("kube-")
            assert all(f'"{name}"' in reason for reason in seen), seen
        finally:
            victims.kill(stopped, signal.SIGCONT)
        again = measure.await_recovery(node, since=time.monotonic(), evidence=lambda: None)
        fault = f"SIGSTOP of {victim} for {STOPPED_SECONDS:g} s, from SIGCONT on"
        report.add(fault, measure.Recovery(red, again.green))
        workload.await_answers()
        assert VICTIMS[victim](node).pid == stopped.pid, "it was not left alone"


def test_the_sidecar_is_killed_in_a_stop(workload: conftest.Workload) -> None:
    """The next one goes on with it. The last test of this cluster."""
    node = workload.node
    node.post("/stop")
    node.execute("sh", "-c", test_container.KILL_SIDECAR, check=False)
    assert node.wait() == 0
    assert node.logs().rstrip().endswith("stopped")
