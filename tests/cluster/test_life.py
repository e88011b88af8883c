"""From the first moment to the last: starts, stops, failures, restarts, and what is left."""

from __future__ import annotations

import pathlib
import re
import subprocess
import time
import typing

import pytest
import requests

from p8s_supervisor import manifests, wait
from tests.cluster import conftest, host, nodes, pods

# The stop's own promise to whoever waits for it.
STOP_BOUND = 10.0


def test_an_honest_start_and_what_it_tells(make_kubectl: conftest.MakeKubectl) -> None:
    """/ready is red until everything is there, names what is missing, and the log tells the story."""
    with nodes.run() as node:
        missing: set[str] = set()
        answers: set[int] = set()
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
        assert answers == {200, 503}
        assert missing & {"apiserver", "setup"}, missing
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
        assert moments[0] < 3, "from the container's start, not from some later point"
        lines = [line for _, line in story]
        for phase in phases:
            assert any(line.startswith(f"{phase}: done in ") for line in lines)
        assert any(line.startswith("ready: Kubernetes v1.") for line in lines)
        assert any("/kubeconfig" in line for line in lines)


def test_ready_turns_red_again(make_kubectl: conftest.MakeKubectl) -> None:
    with nodes.run() as node:
        node.await_ready()
        kubectl = make_kubectl(node)
        kubectl("scale", "deployment/coredns", "--namespace=kube-system", "--replicas=0")
        deadline = time.monotonic() + 20
        while (answer := node.get("/ready")).status_code == 200:
            assert time.monotonic() < deadline, "still green without coredns"
        missing = answer.json()["missing"]
        assert [name for name in missing if name == "cluster-dns" or name.startswith("pod/coredns")]
        assert "p8s_ready 0.0" in node.get("/metrics").text
        kubectl("scale", "deployment/coredns", "--namespace=kube-system", "--replicas=1")
        node.await_ready(seconds=30)


STOPS: dict[str, typing.Callable[[nodes.Node], object]] = {
    "post": lambda node: node.post("/stop"),
    "sigterm": lambda node: nodes.docker("kill", "--signal=TERM", node.name),
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
        assert re.search(r"stop: (POST /stop from |SIGTERM|SIGINT)", logs)
        assert logs.rstrip().endswith("stopped"), logs
        assert "draining 2 pods" in logs
        host.await_end(running)
        assert host.difference(before) == {}


def test_the_run_timeout_stops_with_0() -> None:
    with nodes.run("--run-timeout=15s") as node:
        node.await_ready()
        assert node.wait() == 0
        assert "the run timeout of 15 s" in node.logs()


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


def test_state_outlives_the_container(make_kubectl: conftest.MakeKubectl) -> None:
    """The same volume in a new container, at another address: objects and workloads are there."""
    volume = nodes.unique("p8s-test")
    options = [f"--volume={volume}:/var/lib/p8s"]
    try:
        with nodes.run(options=options) as node:
            node.await_ready()
            first_address = node.address
            kubectl = make_kubectl(node)
            kubectl("create", "configmap", "kept", "--from-literal=word=swordfish")
            kubectl.apply(pods.web_deployment("web", replicas=2), pods.web_pod("alone"))
            kubectl("rollout", "status", "deployment/web", "--timeout=60s")
            kubectl.await_ready("pod/alone")
            uid = kubectl.get("pod", "alone")["metadata"]["uid"]
            authority = kubectl.read_ca()
            node.post("/stop")
            assert node.wait() == 0
            # Its address is taken by another container: the new one gets a new one.
            with holding_address(first_address):
                node.remove()
                with nodes.run(options=options) as second:
                    second.await_ready()
                    assert second.address != first_address
                    kubectl = make_kubectl(second)
                    assert kubectl.get("configmap", "kept")["data"] == {"word": "swordfish"}
                    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
                    kubectl.await_ready("pod/alone")
                    assert kubectl.get("pod", "alone")["metadata"]["uid"] == uid
                    assert kubectl.read_ca() == authority
                    addresses = kubectl.get("node", "p8s")["status"]["addresses"]
                    assert {"type": "InternalIP", "address": second.address} in addresses
                    endpoints = kubectl.get("endpointslices", "kubernetes")["endpoints"]
                    assert endpoints[0]["addresses"] == [second.address]
    finally:
        nodes.docker("volume", "rm", "--force", volume)


class holding_address:  # noqa: N801 — used as a context manager
    """A container that takes an address for as long as the block runs."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._name = nodes.unique("p8s-test-holder")

    def __enter__(self) -> None:
        # A stopped container gives its address back; docker hands the lowest free one out next.
        nodes.docker(
            "run", "--detach", f"--name={self._name}", "--entrypoint=sleep", nodes.IMAGE, "600"
        )
        held = nodes.docker(
            "inspect", "--format={{.NetworkSettings.IPAddress}}", self._name
        ).strip()
        assert held == self._address

    def __exit__(self, *_: object) -> None:
        nodes.docker("rm", "--force", "--volumes", self._name)


def test_a_restart_of_the_same_container(make_kubectl: conftest.MakeKubectl) -> None:
    with nodes.run() as node:
        node.await_ready()
        kubectl = make_kubectl(node)
        kubectl("create", "configmap", "kept", "--from-literal=word=swordfish")
        kubectl.apply(pods.web_deployment("web", replicas=1))
        kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        nodes.docker("restart", "--time=60", node.name)
        node.await_ready()
        kubectl = make_kubectl(node)
        assert kubectl.get("configmap", "kept")["data"] == {"word": "swordfish"}
        # Not `rollout status`: it believes what the Deployment said of itself before the restart.
        wait.until(
            lambda: find_waiting(kubectl), awaited="every pod to run", seconds=60, interval=0.2
        )


def find_waiting(kubectl: nodes.Kubectl) -> str | None:
    """The pods that do not run; None where all do, and there is one besides the system's."""
    pods_ = kubectl.get("pods", "--all-namespaces")["items"]
    waiting = [
        f"{pod['metadata']['name']}: {pod['status']['phase']}"
        for pod in pods_
        if pod["status"]["phase"] != "Running"
    ]
    if all(pod["metadata"]["namespace"] == "kube-system" for pod in pods_):
        waiting.append("no pod of the Deployment yet")
    return ", ".join(waiting) or None


@pytest.mark.parametrize("seconds", [0.5, 0.8, 1.5, 2.6])
def test_a_kill_during_the_first_start_is_no_obstacle(
    make_kubectl: conftest.MakeKubectl, seconds: float
) -> None:
    """Before, while and after etcd is given the seed: the next start completes what is there."""
    with nodes.run() as node:
        time.sleep(seconds)
        nodes.docker("kill", "--signal=KILL", node.name)
        nodes.docker("start", node.name)
        node.await_ready()
        make_kubectl(node)("get", "serviceaccount", "default", "--namespace=default")


BAD_SETTINGS: dict[str, tuple[list[str], list[str]]] = {
    "unknown flag": (["--nodename=x"], ["--nodename: no such setting; did you mean --node-name?"]),
    "not a range": (["--pod-cidr=10.0.0.0"], ["pod_cidr = '10.0.0.0' (from flag)"]),
    "overlap": (["--pod-cidr=192.168.254.0/25"], ["overlap"]),
    "not a port": (["--api-port=70000"], ["not a port from 1 to 65535"]),
    "a port of the node's": (
        ["--api-port=10250"],
        ["a component of the node listens on that port"],
    ),
    "not a duration": (["--run-timeout=soon"], ["not a duration such as 90s, 5m or 1h30m"]),
    "not a name": (["--node-name=My_Node"], ["not a DNS name"]),
    "no such choice": (["--drain=some"], ["not one of: pods, none"]),
    "a missing value": (["--node-name"], ["a value is missing"]),
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


def test_a_static_pod_that_fails_fails_the_start(tmp_path: typing.Any) -> None:
    """kube-apiserver's own manifest, with another command in it."""
    manifest = pathlib.Path(manifests.__file__).with_suffix("") / "static-pods/kube-apiserver.yaml"
    broken = tmp_path / manifest.name
    command = 'command: [sh, -c, "echo the disk is made of cheese; exit 3"]'
    broken.write_text(manifest.read_text().replace("command: $KUBE_APISERVER", command))
    inside = (
        f"/usr/local/lib/python3.13/dist-packages/p8s_supervisor/{'/'.join(manifest.parts[-3:])}"
    )
    with nodes.run(options=[f"--volume={broken}:{inside}:ro"]) as node:
        assert node.wait(seconds=60) == 1
        logs = node.logs()
        assert "the start failed: kube-apiserver failed: it keeps ending" in logs
        assert "| the disk is made of cheese" in logs


@pytest.mark.parametrize("component", ["etcd", "containerd", "kubelet"])
def test_a_component_that_fails_fails_the_start(component: str, tmp_path: typing.Any) -> None:
    """A real program that ends at once in the component's place."""
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho the disk is made of cheese >&2\nexit 3\n")
    broken.chmod(0o755)
    before = host.picture()
    with nodes.run(options=[f"--volume={broken}:/usr/local/bin/{component}:ro"]) as node:
        assert node.wait(seconds=60) == 1
        logs = node.logs()
        assert f"the start failed: {component} failed: " in logs
        assert "| the disk is made of cheese" in logs
    assert host.difference(before) == {}


def test_other_settings_than_the_volume_was_made_with_are_refused(
    make_kubectl: conftest.MakeKubectl,
) -> None:
    volume = nodes.unique("p8s-test")
    options = [f"--volume={volume}:/var/lib/p8s"]
    try:
        with nodes.run(options=options) as node:
            node.await_ready()
            make_kubectl(node)("create", "configmap", "kept")
            node.post("/stop")
            assert node.wait() == 0
        with nodes.run("--pod-cidr=10.77.0.0/24", options=options) as other:
            assert other.wait() == 2
            assert "the cluster in this volume was made with '192.168.253.0/24'" in other.logs()
        with nodes.run(options=options) as again:
            again.await_ready()
            make_kubectl(again)("get", "configmap", "kept")
    finally:
        nodes.docker("volume", "rm", "--force", volume)
