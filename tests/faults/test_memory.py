"""Limits on the container: what they cost falls on the pod that wants too much, not on the cluster."""

from __future__ import annotations

import collections.abc
import contextlib
import typing

import pytest

from p8s_supervisor import kube, wait
from tests.bench import workloads
from tests.cluster import nodes, pods

OPTIONS = ("--memory=1g", "--memory-swap=1g", "--cpus=1", "--pids-limit=2048")
PODS = "/api/v1/namespaces/default/pods"
MIB = 1 << 20
EAT_MEMORY = """
import time
held = []
while True:
    held.append(bytearray(20 << 20))
    time.sleep(0.1)
"""
# Says how many threads it got before the kernel refused.
EAT_THREADS = """
import threading, time
found = 0
try:
    while found < 4000:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        found += 1
except RuntimeError:
    print(found, flush=True)
    time.sleep(2)
"""


@pytest.fixture(scope="module")
def limited() -> collections.abc.Iterator[nodes.Node]:
    """A cluster in a container with limits, and a pod of its own in it."""
    with nodes.run(options=OPTIONS) as node:
        node.await_ready()
        with connect(node) as client:
            client.request("POST", PODS, body=pods.web_pod("web"))
            await_pod(client, "web", lambda pod: pod["status"]["phase"] == "Running")
        yield node


@contextlib.contextmanager
def connect(node: nodes.Node) -> collections.abc.Iterator[kube.Client]:
    """An administrator."""
    with workloads.connect(node.get("/kubeconfig").text) as client:
        yield client


def await_pod(
    client: kube.Client, name: str, holds: collections.abc.Callable[[kube.Object], bool]
) -> kube.Object:
    """Wait until something holds of a pod, and give it."""
    found: dict[str, typing.Any] = {}

    def look() -> str | None:
        found.update(client.get(f"{PODS}/{name}"))
        return None if holds(found) else str(found["status"])

    wait.until(look, awaited=name, seconds=60, interval=0.2)
    return found


def run_to_end(client: kube.Client, name: str, script: str) -> kube.Object:
    """Run a script in a pod until it has ended."""
    pod = pods.pod(name, pods.python(script))
    pod["spec"]["restartPolicy"] = "Never"
    client.request("POST", PODS, body=pod)
    return await_pod(client, name, lambda pod: pod["status"]["phase"] in ("Failed", "Succeeded"))


def count_restarts(node: nodes.Node, client: kube.Client) -> dict[str, int]:
    """Of each component and of each pod, by its name."""
    found = node.count_restarts()
    for pod in client.get("/api/v1/pods")["items"]:
        [status] = pod["status"].get("containerStatuses") or [{"restartCount": 0}]
        found[pod["metadata"]["name"]] = status["restartCount"]
    return found


@contextlib.contextmanager
def untouched(node: nodes.Node, client: kube.Client) -> collections.abc.Iterator[None]:
    """The cluster is ready after it, or is at once, and nothing has begun anew meanwhile."""
    before = count_restarts(node, client)
    assert "web" in before
    yield
    node.await_ready(seconds=15)
    after = count_restarts(node, client)
    told = node.get("/events?follow=false").text
    assert after == dict.fromkeys(after, 0) | before, told
    assert client.get(f"{PODS}/web")["status"]["phase"] == "Running"


@pytest.mark.real_time
def test_a_start_within_limits_has_nothing_begin_anew(limited: nodes.Node) -> None:
    with connect(limited) as client:
        assert set(count_restarts(limited, client).values()) == {0}


def test_what_pods_may_ask_for_is_what_there_is(limited: nodes.Node) -> None:
    with connect(limited) as client:
        told = client.get("/api/v1/nodes/p8s")["status"]["allocatable"]
        memory = int(told["memory"].removesuffix("Ki")) * 1024
        assert 512 * MIB < memory < 1024 * MIB - 256 * MIB
        assert told["cpu"] == "1"
        greedy = pods.pod("greedy", ["true"], resources={"requests": {"memory": "900Mi"}})
        client.request("POST", PODS, body=greedy)

        def is_refused(pod: kube.Object) -> bool:
            conditions = pod["status"].get("conditions", [])
            return any("Insufficient memory" in entry.get("message", "") for entry in conditions)

        await_pod(client, "greedy", is_refused)
        client.delete(f"{PODS}/greedy")


def test_a_pod_that_makes_threads_without_end_is_refused(limited: nodes.Node) -> None:
    """Before the one that eats memory: for a while after that the node takes no such pod."""
    with connect(limited) as client, untouched(limited, client):
        pod = run_to_end(client, "threads", EAT_THREADS)
        assert pod["status"]["phase"] == "Succeeded", pod["status"]
        told = client.request("GET", f"{PODS}/threads/log")
        assert 0 < int(told) < 2048 // 4


def test_a_pod_that_eats_memory_is_what_ends(limited: nodes.Node) -> None:
    with connect(limited) as client:
        with untouched(limited, client):
            status = run_to_end(client, "eater", EAT_MEMORY)["status"]
            ended = [
                (entry["state"].get("terminated") or {}).get("reason")
                for entry in status.get("containerStatuses", [])
            ]
            # Whichever is quicker: kubelet, or the kernel at the limit that kubelet gave the pods.
            assert status.get("reason") == "Evicted" or ended == ["OOMKilled"], status
        if status.get("reason") == "Evicted":
            wait.until(lambda: find_told(limited), awaited="the journal", seconds=15, interval=0.5)


def find_told(node: nodes.Node) -> str | None:
    """Whether the journal says why the pod ended."""
    told = node.get("/events?follow=false").text
    return None if "low on resource: memory" in told else "it says nothing of the eviction"


def test_too_little_memory_is_refused_at_once() -> None:
    with nodes.run(options=["--memory=384m", "--memory-swap=384m"]) as node:
        assert node.wait(seconds=10) == 1
        assert "the container may use 384 MiB of memory: too little for any start" in node.logs()
        assert "hint: a cluster needs 768 MiB" in node.logs()
        assert "Traceback" not in node.logs()


def test_little_memory_is_told() -> None:
    with nodes.run(options=["--memory=512m", "--memory-swap=512m"]) as node:
        node.await_story(
            "the container may use 512 MiB of memory; a cluster needs 768 MiB", seconds=10
        )


def test_the_least_memory_is_enough_for_a_start() -> None:
    with nodes.run(options=["--memory=768m", "--memory-swap=768m"]) as node:
        node.await_ready()


@pytest.mark.real_time
def test_half_a_core_is_enough_for_a_start() -> None:
    """It is slow, and nothing is ended for being slow: to begin anew would make it slower still."""
    with nodes.run("--start-timeout=300s", options=["--cpus=0.5"]) as node:
        node.await_ready(seconds=300)
        restarts = node.count_restarts()
        assert restarts["kube-apiserver-p8s"] == 0, restarts
