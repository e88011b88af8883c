"""From the first moment to the last: starts, stops, failures, restarts, and what is left."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import re
import subprocess
import time
import typing

import pytest
import requests

from p8s_supervisor import wait
from tests.cluster import conftest, host, nodes, pods

# The stop's own promise to whoever waits for it.
STOP_BOUND = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """A start as somebody sees it who asks all the while.

    Attributes:
        node: the cluster, which is ready.
        answers: the status codes of /ready.
        missing: what it named.
        healthy_after: when docker knew of its end, in seconds from then.
    """

    node: nodes.Node
    answers: set[int]
    missing: set[str]
    healthy_after: float


@pytest.fixture(scope="module")
def start() -> typing.Iterator[Start]:
    with nodes.run() as node:
        answers: set[int] = set()
        missing: set[str] = set()
        while 200 not in answers:
            try:
                answer = node.get("/ready")
            except requests.ConnectionError:
                assert node.is_running(), node.logs()
                continue
            answers.add(answer.status_code)
            if answer.status_code == 503:
                assert answer.headers["Content-Type"] == "application/problem+json"
                found = answer.json()["missing"]
                assert all(found.values()), "each with a reason"
                missing |= set(found)
                assert node.get("/livez").status_code == 200
        ready = time.monotonic()
        wait.until(
            lambda: None if node.inspect("{{.State.Health.Status}}") == "healthy" else "not yet",
            awaited="docker's word that it is healthy",
            seconds=5,
        )
        healthy_after = time.monotonic() - ready
        yield Start(node=node, answers=answers, missing=missing, healthy_after=healthy_after)


def test_an_honest_start_and_what_it_tells(
    start: Start, make_kubectl: conftest.MakeKubectl
) -> None:
    """/ready is red until everything is there, names what is missing, and the log tells the story."""
    node = start.node
    assert start.answers == {200, 503}
    assert start.missing & {"apiserver", "setup"}, start.missing
    kubectl = make_kubectl(node)
    assert "Ready" in kubectl("get", "nodes", "--no-headers").split()
    kubectl("get", "serviceaccount", "default", "--namespace=default")
    status = node.status()
    assert (status["state"], status["missing"]) == ("ready", {})
    phases = [phase["name"] for phase in status["phases"]]
    assert phases == [
        "setup",
        "processes",
        "apiserver",
        "controllers",
        "manifests",
        "readiness",
    ]
    assert all(phase["duration"] > 0 for phase in status["phases"])
    assert set(status["conditions"]) >= {"apiserver", "node", "cluster-dns", "kubelet"}
    assert {"etcd", "containerd", "kubelet", "sidecar"} <= {
        component["name"] for component in status["components"]
    }
    story = re.findall(r"^p8s \[ *(\d+\.\d\d)s\] (.*)$", node.logs(), re.MULTILINE)
    moments = [float(moment) for moment, _ in story]
    assert moments == sorted(moments)
    assert moments[0] < moments[-1] / 4, "from the container's start, not from some other point"
    lines = [line for _, line in story]
    for phase in phases:
        assert any(line.startswith(f"{phase}: done in ") for line in lines)
    assert any(line.startswith("ready: Kubernetes v1.") for line in lines)
    assert any("/kubeconfig" in line for line in lines)


def test_docker_knows_of_the_end_of_a_start(start: Start) -> None:
    """Without waiting for the start it would look every two seconds."""
    assert start.healthy_after < 1


def test_two_clusters_have_no_uid_in_common(
    start: Start, cluster: nodes.Node, make_kubectl: conftest.MakeKubectl
) -> None:
    """Both began with the seed."""
    kinds = "namespaces,serviceaccounts,clusterroles,pods,deployments,nodes"
    uids = [
        {
            item["metadata"]["uid"]
            for item in make_kubectl(node).get(kinds, "--all-namespaces")["items"]
        }
        for node in (cluster, start.node)
    ]
    assert len(uids[0]) > 100
    assert uids[0] & uids[1] == set()


def test_ready_turns_red_again(start: Start, make_kubectl: conftest.MakeKubectl) -> None:
    node, kubectl = start.node, make_kubectl(start.node)
    kubectl("scale", "deployment/coredns", "--namespace=kube-system", "--replicas=0")
    deadline = time.monotonic() + 20
    while (answer := node.get("/ready")).status_code == 200:
        assert time.monotonic() < deadline, "still green without coredns"
    missing = answer.json()["missing"]
    assert [name for name in missing if name == "cluster-dns" or name.startswith("pod/coredns")]
    assert "p8s_ready 0.0" in node.get("/metrics").text
    kubectl("scale", "deployment/coredns", "--namespace=kube-system", "--replicas=1")
    node.await_ready(seconds=30)


# SIGTERM, and with it docker stop, is in test_cli.py and test_versions.py.
STOPS: dict[str, typing.Callable[[nodes.Node], object]] = {
    "post": lambda node: node.post("/stop"),
    "sigint": lambda node: nodes.docker("kill", "--signal=INT", node.name),
}


@pytest.mark.parametrize("way", STOPS)
def test_each_way_to_stop_ends_with_0_and_leaves_nothing(
    way: str, make_kubectl: conftest.MakeKubectl
) -> None:
    before = host.picture()
    with nodes.run(options=["--rm"]) as node:
        node.await_ready()
        kubectl = make_kubectl(node)
        kubectl.apply(
            pods.web_deployment("web", replicas=2),
            pods.web_pod("port", ports=[{"containerPort": 8080, "hostPort": 18080}]),
        )
        kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        kubectl.await_ready("pod/port")
        running = host.processes(node)
        assert {"etcd", "containerd", "kubelet", "coredns"} <= set(running.values())
        with (
            subprocess.Popen(
                ["docker", "logs", "--follow", node.name], stdout=subprocess.PIPE, text=True
            ) as followed,
            subprocess.Popen(
                ["docker", "wait", node.name], stdout=subprocess.PIPE, text=True
            ) as waiting,
        ):
            begun = time.monotonic()
            STOPS[way](node)
            code, _ = waiting.communicate(timeout=nodes.STOP_SECONDS)
            took = time.monotonic() - begun
            logs, _ = followed.communicate(timeout=10)
        assert int(code) == 0, logs
        assert took < STOP_BOUND
        assert re.search(r"stop: (POST /stop from |SIGINT)", logs)
        assert logs.rstrip().endswith("stopped"), logs
        assert "draining 2 pods" in logs
        host.await_end(running)
        assert host.difference(before) == {}


def test_a_stop_during_the_start_is_a_stop() -> None:
    with nodes.run() as node:
        while True:  # as soon as there is anybody to ask
            try:
                node.post("/stop")
                break
            except requests.ConnectionError:
                assert node.is_running(), node.logs()
        assert node.wait(seconds=STOP_BOUND) == 0, node.logs()
        assert "the start failed" not in node.logs()


@pytest.mark.parametrize("seconds", [0.8, 1.5])
def test_a_kill_during_the_first_start_is_no_obstacle(
    make_kubectl: conftest.MakeKubectl, seconds: float
) -> None:
    """About when etcd is given the seed; what comes later is in tests/faults/test_left.py."""
    with nodes.run() as node:
        time.sleep(seconds)
        nodes.docker("kill", "--signal=KILL", node.name)
        nodes.docker("start", node.name)
        node.await_ready()
        make_kubectl(node)("get", "serviceaccount", "default", "--namespace=default")


# What else can be wrong is in tests/unit/test_settings.py and test_parsers.py.
BAD_SETTINGS: dict[str, tuple[list[str], list[str]]] = {
    "unknown flag": (["--nodename=x"], ["--nodename: no such setting; did you mean --node-name?"]),
    "several at once": (
        ["--drain=some", "--api-port=x", "--what"],
        ["not one of: pods, none", "not a port", "a value is missing"],
    ),
    "a range of docker's network": (
        ["--pod-cidr=172.16.0.0/12"],
        ["overlaps the container's network"],
    ),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_a_wrong_setting_ends_the_start_at_once_with_2(case: str) -> None:
    settings, told = BAD_SETTINGS[case]
    begun = time.monotonic()
    done = subprocess.run(
        ["docker", "run", "--rm", "--privileged", nodes.IMAGE, *settings],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 2, output
    assert [line for line in told if line not in output] == [], output
    assert "hint: " in output
    assert time.monotonic() - begun < 10


def test_a_wrong_variable_and_a_wrong_file(tmp_path: typing.Any) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("drain: sometimes\nnode_nam: x\n")
    done = subprocess.run(
        [
            "docker", "run", "--rm", "--privileged", "--env=P8S_VERBOSITY=loud",
            f"--volume={file}:/etc/p8s/config.yaml:ro", nodes.IMAGE,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    for told in (
        "drain = 'sometimes' (from /etc/p8s/config.yaml)",
        "node_nam: no such setting; did you mean node_name?",
        "verbosity = 'loud' (from environment)",
    ):
        assert told in done.stderr


def test_help_names_every_setting() -> None:
    told = nodes.docker("run", "--rm", nodes.IMAGE, "--help")
    assert "--service-cidr=…  P8S_SERVICE_CIDR" in told


def test_without_privileges_it_says_what_to_do() -> None:
    done = subprocess.run(
        ["docker", "run", "--rm", nodes.IMAGE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "hint: docker run --privileged" in done.stderr


def test_a_component_that_fails_fails_the_start(tmp_path: pathlib.Path) -> None:
    """A real program that ends at once in the component's place; a static pod is in test_wrong_config.py."""
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho the disk is made of cheese >&2\nexit 3\n")
    broken.chmod(0o755)
    before = host.picture()
    with contextlib.ExitStack() as stack:
        # Side by side: most of it is supervisord's pauses.
        started = {
            component: stack.enter_context(
                nodes.run(options=[f"--volume={broken}:/usr/local/bin/{component}:ro"])
            )
            for component in ("etcd", "containerd", "kubelet")
        }
        for component, node in started.items():
            assert node.wait(seconds=60) == 1
            logs = node.logs()
            assert f"the start failed: {component} failed: " in logs
            assert "| the disk is made of cheese" in logs
    assert host.difference(before) == {}
