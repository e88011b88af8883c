"""The add-on metrics, enabled in a cluster whose pods run already: figures, autoscalers, trust, removal."""

from __future__ import annotations

import dataclasses
import json
import time
import typing

import pytest
import requests

from p8s_supervisor import wait
from tests.cluster import conftest, nodes, pods

# From the request that enables it until every pod that ran then has figures.
FIGURES_SECONDS = 20.0
# How much older the figures are that this minor's kubelet has. See docs/versions.md.
OLDER_SECONDS = {"1.35": 30.0}
# For an autoscaler to see another load: metrics-server looks every 10 s, at a new pod twice.
SCALE_SECONDS = 35.0
# For kube-apiserver to look at its APIService again, and for a request.
SECONDS = 10.0
GROUP = "v1beta1.metrics.k8s.io"
# While this file is in the node, each pod of `busy` takes all the CPU that it may.
LOAD = "/run/load/on"
MEBIBYTES = 64

SPIN = f"""
import os, time
held = b"x" * ({MEBIBYTES} << 20)
while True:
    if os.path.exists("/load/on"):
        sum(range(10_000))
    else:
        time.sleep(0.1)
"""

# What the Service answers to who shows no credentials.
KNOCK = """
import ssl, sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=5, context=ssl._create_unverified_context()).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


@dataclasses.dataclass(frozen=True)
class Enabled:
    """A cluster with the add-on.

    Attributes:
        seconds: from the request that enabled it until all figures were there.
        older: how many seconds later than elsewhere figures may come.
        ran: the pods that ran at the request.
        before: the objects that there were, see `list_objects`.
        nodes: `kubectl top nodes` then, a line's words by its name.
        pods: `kubectl top pods` then, in all namespaces.
    """

    node: nodes.Node
    kubectl: nodes.Kubectl
    seconds: float
    older: float
    ran: set[str]
    before: set[str]
    nodes: dict[str, list[str]]
    pods: dict[str, list[str]]


def look(node: nodes.Node) -> dict[str, typing.Any]:
    """What GET /addons says of it."""
    listed = node.get("/addons").json()["addons"]
    return next(one for one in listed if one["name"] == "metrics")


def enable(node: nodes.Node) -> None:
    answer = requests.post(node.url("/addons/metrics"), timeout=60)
    assert answer.status_code == 200, answer.text
    assert "Deployment p8s-metrics/metrics-server" in answer.json()["applied"]


def await_usable(node: nodes.Node) -> None:
    def find_reason() -> str | None:
        found = look(node)
        return None if found["usable"] else str(found["reason"])

    wait.until(find_reason, awaited="the add-on to be usable", seconds=SECONDS)


def top(kubectl: nodes.Kubectl, *what: str) -> dict[str, list[str]]:
    """`kubectl top`, the words behind each name; nothing where it says that there are no figures."""
    done = kubectl.attempt("top", *what, "--no-headers")
    if done.returncode != 0:
        return {}
    # With all namespaces, theirs are first.
    lines = [line.split() for line in done.stdout.splitlines()]
    at = 1 if "--all-namespaces" in what else 0
    return {words[at]: words[at + 1 :] for words in lines}


def list_objects(kubectl: nodes.Kubectl) -> set[str]:
    """The kinds and names of the objects of those kinds that it brings outside its namespace."""
    kinds = "apiservices,namespaces,clusterroles,clusterrolebindings,rolebindings"
    return set(kubectl("get", kinds, "--all-namespaces", "--output=name").split())


def read_number(word: str) -> int:
    """The number of a quantity, such as 200m, 70Mi or 12%."""
    return int(word.rstrip("mMi%"))


def busy() -> list[pods.Manifest]:
    """A Deployment that is busy when it is told to, and its autoscaler."""
    spec = pods.pod_spec(
        pods.python(SPIN), resources={"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}}
    )
    spec["containers"][0]["volumeMounts"].append({"name": "load", "mountPath": "/load"})
    place = {"path": LOAD.rpartition("/")[0], "type": "Directory"}
    spec["volumes"].append({"name": "load", "hostPath": place})
    deployment = pods.web_deployment("busy", replicas=1)
    deployment["spec"]["template"]["spec"] = spec
    scaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "busy"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "busy"},
            "minReplicas": 1,
            "maxReplicas": 2,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": 50},
                    },
                }
            ],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        },
    }
    return [deployment, scaler]


@pytest.fixture(scope="module")
def enabled(make_kubectl: conftest.MakeKubectl) -> typing.Iterator[Enabled]:
    """See `Enabled`. Autoscalers look every second: what is waited for is the figures."""
    period = "--extra-config=kube-controller-manager.horizontal-pod-autoscaler-sync-period=1s"
    with nodes.run("--add-ons=none", period, image=nodes.FULL_IMAGE) as node:
        node.await_ready()
        kubectl = make_kubectl(node)
        node.execute("install", "-D", "/dev/null", LOAD)
        kubectl.apply(*busy(), pods.sleeper("idle"))
        kubectl("rollout", "status", "deployment/busy", "--timeout=60s")
        kubectl.await_ready("pod/idle")
        running = kubectl.get("pods", "--all-namespaces", "--field-selector=status.phase=Running")
        ran = {pod["metadata"]["name"] for pod in running["items"]}
        before = list_objects(kubectl)
        begun = time.monotonic()
        enable(node)
        found: dict[str, dict[str, list[str]]] = {}

        def find_missing() -> str | None:
            found["nodes"] = top(kubectl, "nodes")
            found["pods"] = top(kubectl, "pods", "--all-namespaces")
            missing = ran - found["pods"].keys()
            return f"no figures of {missing}" if missing or not found["nodes"] else None

        wait.until(find_missing, awaited="figures", seconds=3 * FIGURES_SECONDS, interval=0.2)
        seconds = time.monotonic() - begun
        await_usable(node)
        yield Enabled(
            node=node,
            kubectl=kubectl,
            seconds=seconds,
            older=OLDER_SECONDS.get(node.minor, 0.0),
            ran=ran,
            before=before,
            nodes=found["nodes"],
            pods=found["pods"],
        )


def await_replicas(enabled: Enabled, wanted: int) -> None:
    def look_at_it() -> str | None:
        found = enabled.kubectl.get("deployment", "busy")["spec"]["replicas"]
        return None if found == wanted else enabled.kubectl("describe", "hpa", "busy")

    seconds = SCALE_SECONDS + enabled.older
    wait.until(look_at_it, awaited=f"{wanted} replicas", seconds=seconds, interval=0.2)


@pytest.fixture(scope="module")
def scaled_up(enabled: Enabled) -> Enabled:
    """The autoscaler has made a second pod, and the load has ended."""
    await_replicas(enabled, 2)
    enabled.node.execute("rm", LOAD)
    return enabled


def test_figures_are_there_soon_after_enabling(enabled: Enabled) -> None:
    assert enabled.seconds <= FIGURES_SECONDS + enabled.older


def test_figures_of_pods_are_right(enabled: Enabled) -> None:
    (name,) = [pod for pod in enabled.ran if pod.startswith("busy-")]
    cpu, memory = map(read_number, enabled.pods[name])
    assert 100 <= cpu <= 220  # it may take 200m, and takes what a busy machine leaves it of that
    assert MEBIBYTES <= memory <= MEBIBYTES + 32
    cpu, memory = map(read_number, enabled.pods["idle"])
    assert cpu <= 5
    assert memory <= 8


def test_figures_of_the_node_are_right(enabled: Enabled) -> None:
    (words,) = enabled.nodes.values()
    cpu, cpu_percent, memory, memory_percent = map(read_number, words)
    assert cpu >= sum(read_number(words[0]) for words in enabled.pods.values()) * 0.8
    assert memory >= sum(read_number(words[1]) for words in enabled.pods.values()) * 0.8
    (node,) = enabled.kubectl.get("nodes")["items"]
    cores = int(node["status"]["allocatable"]["cpu"])
    assert cpu <= cores * 1000 * 1.05
    assert cpu_percent == pytest.approx(cpu / cores / 10, abs=1)
    total = int(node["status"]["allocatable"]["memory"].removesuffix("Ki")) / 1024
    assert memory_percent == pytest.approx(memory / total * 100, abs=1)


def test_an_autoscaler_scales_up_under_load(scaled_up: Enabled) -> None:
    (metric,) = scaled_up.kubectl.get("hpa", "busy")["status"]["currentMetrics"]
    assert metric["resource"]["current"]["averageUtilization"] > 50


def test_who_may_view_a_namespace_sees_its_pods_figures_alone(enabled: Enabled) -> None:
    kubectl = enabled.kubectl
    kubectl("create", "rolebinding", "ann", "--clusterrole=view", "--user=ann")
    assert "idle" in kubectl("top", "pods", "--as=ann", "--namespace=default")
    for what in (("nodes",), ("pods", "--namespace=kube-system")):
        refused = kubectl.attempt("top", *what, "--as=ann")
        assert "(Forbidden)" in refused.stderr


def test_metrics_server_answers_nobody_without_credentials(enabled: Enabled) -> None:
    url = "https://metrics-server.p8s-metrics.svc/apis/metrics.k8s.io/v1beta1/nodes"
    told = enabled.kubectl("exec", "idle", "--", *pods.python(KNOCK, url))
    assert told.strip() in ("401", "403")


def test_its_certificate_is_verified(enabled: Enabled) -> None:
    """With another CA kube-apiserver passes nothing on; applied again, it does."""
    other = enabled.node.execute("base64", "--wrap=0", "/etc/kubernetes/pki/etcd-ca.crt").strip()
    patch = json.dumps({"spec": {"caBundle": other}})
    enabled.kubectl("patch", "apiservice", GROUP, "--type=merge", f"--patch={patch}")

    def find_distrust() -> str | None:
        found = look(enabled.node)
        return None if "x509" in found["reason"] and not found["usable"] else str(found)

    wait.until(find_distrust, awaited="a refusal of the certificate", seconds=SECONDS)
    enable(enabled.node)
    await_usable(enabled.node)


def test_an_autoscaler_scales_down_after_the_load(scaled_up: Enabled) -> None:
    await_replicas(scaled_up, 1)


def test_disabling_leaves_nothing(enabled: Enabled) -> None:
    """Its namespace goes too: the API, without which none can be deleted, goes before it."""
    answer = requests.delete(enabled.node.url("/addons/metrics"), timeout=60)
    assert answer.status_code == 200, answer.text
    kubectl = enabled.kubectl
    left = list_objects(kubectl) - enabled.before
    assert not [name for name in left if "metrics" in name]
    assert "Metrics API not available" in kubectl.attempt("top", "nodes").stderr
    assert not look(enabled.node)["enabled"]
