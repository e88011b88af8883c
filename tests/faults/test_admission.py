"""What users do to their own cluster: blocking webhooks, missing images, pods that do not end."""

from __future__ import annotations

import contextlib
import secrets
import time
import typing

import requests

from p8s_supervisor import wait
from tests.cluster import conftest, nodes, pods

DRAIN_SECONDS = 4.0
# After the drain: kubelet, the other containers with their grace of 5 s, containerd, etcd, docker.
AFTER_SECONDS = 10.0
# Accepts connections and never answers.
SILENT = """
import socket, time
server = socket.create_server(("", 8443))
time.sleep(100000)
"""


def webhook(
    name: str, service: str, *, seconds: int, rule: dict[str, typing.Any], **more: typing.Any
) -> dict[str, typing.Any]:
    """A validating webhook without whose answer nothing that its rule matches is done."""
    hook = {
        "name": f"{name}.example.com",
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": seconds,
        "clientConfig": {"service": {"name": service, "namespace": "work"}},
        "rules": [{"apiGroups": ["*"], "apiVersions": ["*"]} | rule],
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [hook | more],
    }


EVERYTHING = webhook(
    "everything", "nobody", seconds=10, rule={"operations": ["*"], "resources": ["*/*"]}
)
SLOW = webhook(
    "slow",
    "silent",
    seconds=30,
    rule={"operations": ["DELETE"], "resources": ["pods"]},
    namespaceSelector={"matchLabels": {"kubernetes.io/metadata.name": "work"}},
)


@contextlib.contextmanager
def network() -> typing.Iterator[tuple[str, tuple[str, str]]]:
    """A docker network, and two addresses in it."""
    third = secrets.randbelow(256)
    with nodes.network(f"--subnet=10.213.{third}.0/24") as name:
        yield name, (f"10.213.{third}.10", f"10.213.{third}.20")


def missing(node: nodes.Node) -> dict[str, str]:
    try:
        answer = node.get("/ready")
    except requests.ConnectionError as error:
        return {"p8s": str(error)}
    return {} if answer.status_code == 200 else answer.json()["missing"]


def stop(node: nodes.Node, how: str) -> float:
    """Stop it; how long that took, in seconds."""
    began = time.monotonic()
    if how == "POST /stop":
        assert node.post("/stop").status_code == 202
    else:
        nodes.docker("stop", "--time=60", node.name)
    assert node.wait() == 0
    return time.monotonic() - began


def test_a_webhook_that_blocks_everything_blocks_neither_stop_nor_start(
    make_kubectl: conftest.MakeKubectl,
) -> None:
    with nodes.volume() as state, network() as (name, addresses):
        options = [f"--volume={state}:/var/lib/p8s", f"--network={name}"]
        setting = f"--drain-timeout={DRAIN_SECONDS:g}s"
        with nodes.run(setting, options=[*options, f"--ip={addresses[0]}"]) as node:
            node.await_ready()
            kubectl = make_kubectl(node)
            kubectl("create", "namespace", "work")
            in_work = ("--namespace=work", "apply", "--filename=-")
            silent = pods.pod("silent", pods.python(SILENT))
            for manifest in (
                silent,
                pods.service("silent", port=443, target=8443),
                pods.web_deployment("web", replicas=3),
            ):
                kubectl(*in_work, stdin=manifest)
            kubectl("--namespace=work", "rollout", "status", "deployment/web", "--timeout=60s")
            kubectl("--namespace=work", "wait", "--for=condition=Ready", "pod/silent")
            kubectl.apply(SLOW)
            began = time.monotonic()
            answer = node.post("/reset/work")
            assert answer.status_code in (503, 504)
            assert "slow.example.com" in answer.json()["detail"]
            assert time.monotonic() - began < 10
            # The Deployment is gone as asked, before the webhook held up its pods.
            kubectl(*in_work, stdin=pods.web_deployment("web", replicas=3))
            kubectl("--namespace=work", "rollout", "status", "deployment/web", "--timeout=60s")
            kubectl.apply(EVERYTHING)
            answer = node.post("/apply")
            assert answer.status_code == 502
            assert 'failed calling webhook "everything.example.com"' in answer.json()["detail"]

            assert stop(node, "POST /stop") < DRAIN_SECONDS + AFTER_SECONDS
            assert "slow.example.com (ValidatingWebhookConfiguration slow)" in node.logs()

        # Another container at another address.
        with nodes.run(setting, options=[*options, f"--ip={addresses[1]}"]) as node:
            wait.until(
                lambda: None if "admission" in missing(node) else str(missing(node)),
                awaited="what admission refuses",
                seconds=nodes.START_SECONDS,
            )
            found = missing(node)
            refusal = 'failed calling webhook "everything.example.com"'
            assert refusal in found["admission"]
            assert refusal in found["system/30-coredns.yaml"]
            assert node.status()["state"] == "starting"
            story = node.logs()
            assert story.count("it goes on as far as it can") == 1
            assert story.count("system/30-coredns.yaml is not applied: ") == 1
            kubectl = make_kubectl(node)
            kubectl("delete", "validatingwebhookconfiguration", "everything", "slow")
            node.await_ready(seconds=40)
            assert "system/30-coredns.yaml is applied now" in node.logs()
            kubectl("--namespace=work", "rollout", "status", "deployment/web", "--timeout=60s")
            assert stop(node, "docker stop") < DRAIN_SECONDS + AFTER_SECONDS


MISSING_IMAGE = "p8s.local/not-there:1"


def broken_pod(name: str) -> pods.Manifest:
    found = pods.pod(name, ["true"])
    found["spec"]["containers"][0] |= {"image": MISSING_IMAGE, "imagePullPolicy": "IfNotPresent"}
    return found


def stubborn(name: str, **spec: typing.Any) -> pods.Manifest:
    """A Deployment of one pod that ignores SIGTERM and may take an hour to end."""
    found = pods.web_deployment(name, replicas=1)
    template = found["spec"]["template"]
    ignore = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(100000)"
    template["spec"] = pods.pod_spec(pods.python(ignore))
    template["spec"] |= {"terminationGracePeriodSeconds": 3600} | spec
    return found


def test_images_that_are_missing_and_pods_that_do_not_end(
    make_kubectl: conftest.MakeKubectl,
) -> None:
    with nodes.run(f"--drain-timeout={DRAIN_SECONDS:g}s") as node:
        node.await_ready()
        kubectl = make_kubectl(node)
        hanging = stubborn("hanging")
        hook = {"preStop": {"exec": {"command": ["sleep", "100000"]}}}
        hanging["spec"]["template"]["spec"]["containers"][0]["lifecycle"] = hook
        held = pods.web_deployment("held", replicas=1)
        held["spec"]["template"]["metadata"]["finalizers"] = ["example.com/never"]
        budget = {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "held"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "held"}}},
        }
        kubectl.apply(broken_pod("user"), stubborn("deaf"), hanging, held, budget)
        for name in ("deaf", "hanging", "held"):
            kubectl("rollout", "status", f"deployment/{name}", "--timeout=60s")
        assert node.get("/ready").status_code == 200  # a user's pod is the user's

        system = broken_pod("system")
        system["metadata"]["namespace"] = "kube-system"
        kubectl.apply(system)

        def is_told() -> str | None:
            why = missing(node).get("pod/system", "")
            # ErrImagePull, or ImagePullBackOff some seconds later.
            return None if "ImagePull" in why and MISSING_IMAGE in why else why or "green"

        wait.until(is_told, awaited="the missing image", seconds=60, interval=0.5)
        assert missing(node).keys() == {"pod/system"}
        # Both of the node's own images are imported at each start.
        for image in ("p8s.local/node:1", "p8s.local/pause:1"):
            node.execute("ctr", "--namespace=k8s.io", "images", "rm", image)
        assert stop(node, "docker stop") < DRAIN_SECONDS + AFTER_SECONDS
        story = node.logs()
        assert "still there: default/deaf" in story
        assert "default/held" not in story.partition("stop drain:")[2]

        def is_the_rest_there() -> str | None:
            found = missing(node)
            if found.keys() != {"pod/system"}:
                return str(found)
            # The last of the others may hold a moment before the start is over.
            return "it starts" if node.status()["state"] == "starting" else is_told()

        nodes.docker("start", node.name)
        wait.until(
            is_the_rest_there,
            awaited="the start of the rest",
            seconds=nodes.START_SECONDS,
            interval=0.2,
        )
        assert node.status()["state"] == "not ready"
        kubectl("wait", "--for=condition=Ready", "pod", "--selector=app=deaf", "--timeout=60s")
        kubectl("delete", "pod", "system", "--namespace=kube-system", "--now")
        node.await_ready(seconds=20)
