"""The container is killed, or its PID 1: it comes back with everything, at any address."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
import typing

import pytest
import requests

from p8s_supervisor import wait
from tests.cluster import nodes
from tests.faults import conftest, measure, writer

LONGEST_SECONDS = 30.0


@contextlib.contextmanager
def taking_address(address: str) -> typing.Iterator[None]:
    """A container that has an address for as long as the block runs."""
    name = nodes.unique("p8s-test-holder")
    try:
        # docker hands out the lowest free address, which need not be this one: those below it too.
        for number in range(10):
            nodes.docker(
                "run", "--detach", f"--name={name}-{number}", "--entrypoint=sleep",
                nodes.IMAGE, "600",
            )  # fmt: skip
            held = nodes.docker(
                "inspect", "--format={{.NetworkSettings.IPAddress}}", f"{name}-{number}"
            )
            if held.strip() == address:
                break
        else:
            raise AssertionError(f"{address} is not to be had")
        yield
    finally:
        held_by = nodes.docker("ps", "--all", "--quiet", f"--filter=name=^{name}-").split()
        nodes.docker("rm", "--force", "--volumes", *held_by)


def start(node: nodes.Node, report: measure.Report, fault: str) -> None:
    """`docker start`, measured until /ready."""
    begun = time.monotonic()
    nodes.docker("start", node.name)
    recovery = measure.await_recovery(node, since=begun, evidence=lambda: None)
    report.add(fault, recovery)
    assert recovery.green < LONGEST_SECONDS


@pytest.mark.timeout(120 + 60 * measure.ROUNDS)
def test_docker_kill_and_docker_start(
    workload: conftest.Workload, report: measure.Report, chance: random.Random
) -> None:
    """In every other round at another address."""
    node = workload.node
    with writer.writing(workload.target, workload.namespace):
        for number in range(measure.ROUNDS):
            time.sleep(chance.uniform(0.5, 5.0 if measure.ROUNDS > 1 else 1.0))
            before = node.address
            nodes.docker("kill", "--signal=KILL", node.name)
            elsewhere = number % 2 == 0
            with taking_address(before) if elsewhere else contextlib.nullcontext():
                start(node, report, "docker kill, docker start")
                assert (node.address != before) or not elsewhere
            check_address(workload)
            workload.await_answers()


def check_address(workload: conftest.Workload) -> None:
    """Node, endpoints and what pods are told are the container's address of now."""
    address, kubectl = workload.node.address, workload.kubectl
    found = kubectl.get("node", "p8s")["status"]["addresses"]
    assert {"type": "InternalIP", "address": address} in found
    slices = kubectl.get("endpointslices", "kubernetes", "--namespace=default")
    assert slices["endpoints"][0]["addresses"] == [address]
    assert kubectl("exec", "alone", "--", "printenv", "HOST_IP").strip() == address


@pytest.mark.skipif(measure.ROUNDS < 2, reason="FAULT_ROUNDS is 1: test_life.py has two moments")
@pytest.mark.timeout(60 + 60 * measure.ROUNDS)
def test_a_kill_in_the_first_start(
    make_kubectl: conftest.MakeKubectl, report: measure.Report, chance: random.Random
) -> None:
    for _ in range(measure.ROUNDS):
        with nodes.run() as node:
            time.sleep(chance.uniform(0.1, 4.5))
            nodes.docker("kill", "--signal=KILL", node.name)
            start(node, report, "docker kill in the first start, docker start")
            make_kubectl(node)("get", "serviceaccount", "default", "--namespace=default")


@pytest.mark.timeout(60 + 60 * measure.ROUNDS)
def test_the_sidecar_is_killed_in_the_first_start(
    make_kubectl: conftest.MakeKubectl, report: measure.Report, chance: random.Random
) -> None:
    """It begins again, and does not stop what it has started already."""
    for _ in range(measure.ROUNDS):
        with nodes.run() as node:
            time.sleep(chance.uniform(0.6, 4.0))
            begun = time.monotonic()
            node.execute("sh", "-c", KILL_SIDECAR)
            recovery = measure.await_recovery(node, since=begun, evidence=lambda: None)
            report.add("SIGKILL of the sidecar in the first start", recovery)
            make_kubectl(node)("get", "serviceaccount", "default", "--namespace=default")
            restarts = node.count_restarts()
            del restarts["sidecar"]
            assert restarts
            assert {name: count for name, count in restarts.items() if count} == {}, node.logs()


# The image has no pkill.
KILL_SIDECAR = """
for file in /proc/[0-9]*/cmdline; do
  case "$(tr '\\0' ' ' <"$file" 2>/dev/null)" in
    "/usr/bin/python3 -P -s -m p8s_supervisor.sidecar "*) kill -KILL "$(basename "${file%/*}")";;
  esac
done
"""


def test_pid_1_is_killed() -> None:
    """The container ends with an error; the engine starts it again where it was told to."""
    with nodes.run(options=["--restart=always"]) as node:
        node.await_ready()
        started = node.inspect("{{.State.StartedAt}}")
        os.kill(int(node.inspect("{{.State.Pid}}")), signal.SIGKILL)
        wait.until(
            lambda: None if node.inspect("{{.State.StartedAt}}") != started else "not yet",
            awaited="another start",
            seconds=20,
        )
        assert int(node.inspect("{{.RestartCount}}")) == 1
        node.await_ready()
    with nodes.run() as node:
        wait.until(lambda: _answers(node), awaited="the sidecar", seconds=20)
        os.kill(int(node.inspect("{{.State.Pid}}")), signal.SIGKILL)
        assert node.wait() == 137


def _answers(node: nodes.Node) -> str | None:
    try:
        return None if node.get("/livez").ok else "not well"
    except requests.RequestException as error:
        return str(error)
