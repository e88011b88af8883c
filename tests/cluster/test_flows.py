"""What a user asks of a running cluster: its events, logs, the manifests again, an empty namespace."""

from __future__ import annotations

import json
import time
import typing

import pytest
import requests

from p8s_supervisor import logs, report, reset
from tests.cluster import nodes, pods

# A reset waits for pods; with a second's grace each it takes a few.
RESET_SECONDS = 60
WIDGETS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.flows.example"},
    "spec": {
        "group": "flows.example",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object"}},
            }
        ],
    },
}
# An aggregated API without a server.
BROKEN_API = {
    "apiVersion": "apiregistration.k8s.io/v1",
    "kind": "APIService",
    "metadata": {"name": "v1.broken.example"},
    "spec": {
        "group": "broken.example",
        "version": "v1",
        "groupPriorityMinimum": 1000,
        "versionPriority": 10,
        "insecureSkipTLSVerify": True,
        "service": {"name": "none", "namespace": "default"},
    },
}


def post(cluster: nodes.Node, path: str) -> requests.Response:
    return requests.post(cluster.url(path), timeout=RESET_SECONDS)


class Event(typing.NamedTuple):
    id: int
    kind: str
    data: dict[str, typing.Any]


def parse_events(lines: typing.Iterable[str]) -> typing.Iterator[Event]:
    """Server-sent events."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield Event(int(fields["id"]), fields["event"], json.loads(fields["data"]))
            fields = {}


def read_events(cluster: nodes.Node, *, after: int = 0) -> list[Event]:
    """What is recorded so far."""
    headers = {"Last-Event-ID": str(after)} if after else {}
    answer = cluster.get("/events?follow=false", **headers)
    assert answer.status_code == 200, answer.text
    return list(parse_events(answer.text.splitlines()))


def last_id(cluster: nodes.Node) -> int:
    return read_events(cluster)[-1].id


# --- events


def test_the_journal_tells_the_start(cluster: nodes.Node) -> None:
    seen = read_events(cluster)
    assert [event.id for event in seen] == sorted({event.id for event in seen})
    phases = [
        event.data["phase"]
        for event in seen
        if event.kind == "phase" and event.data["state"] == "ended"
    ]
    assert phases == [phase["name"] for phase in cluster.status()["phases"]]
    conditions = [event.data["condition"] for event in seen if event.kind == "condition"]
    assert {"etcd", "apiserver", "node", "cluster-dns"} <= set(conditions)
    kinds = [event.kind for event in seen]
    assert kinds.index("ready") > kinds.index("condition") > kinds.index("phase")
    times = [event.data["time"] for event in seen]
    assert times == sorted(times)
    assert abs(times[-1] - time.time()) < 3600


def test_a_warning_of_kubernetes_comes_to_who_follows(
    cluster: nodes.Node, admin: nodes.Kubectl, namespace: str
) -> None:
    headers = {"Last-Event-ID": str(last_id(cluster))}
    with requests.get(cluster.url("/events"), headers=headers, stream=True, timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        pod = pods.pod("missing", ["sleep"])
        pod["spec"]["containers"][0]["image"] = "nowhere.local/none:1"
        admin.apply(pod)
        lines = answer.iter_lines(chunk_size=1, decode_unicode=True)
        told = next(event for event in parse_events(lines) if event.kind == "warning")
    assert told.data["object"] == {"kind": "Pod", "namespace": namespace, "name": "missing"}
    assert "nowhere.local/none:1" in told.data["message"]
    assert told.data["reason"] == "ErrImageNeverPull"


# --- logs


def test_every_component_has_its_log_as_it_was_written(cluster: nodes.Node) -> None:
    components = cluster.get("/logs").json()["components"]
    assert components == [*logs.PROCESSES, *logs.PODS]
    for component in components:
        answer = cluster.get(f"/logs/{component}?tail=3")
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert 1 <= len(answer.text.splitlines()) <= 3, component
        assert " stderr F " not in answer.text
        whole = cluster.get(f"/logs/{component}").text
        assert len(whole) >= len(answer.text)
    assert "ready: Kubernetes" in cluster.get("/logs/sidecar").text
    assert cluster.get("/logs/sidecar").text.splitlines()[0] in cluster.logs()


@pytest.mark.parametrize(
    "component",
    [
        pytest.param("supervisord", id="a file that is no component's"),
        pytest.param("..%2f..%2f..%2fetc%2fpasswd", id="a way out"),
        pytest.param("%2a", id="a pattern"),
        pytest.param("audit", id="a log that is not written"),
    ],
)
def test_no_other_file_is_shown(cluster: nodes.Node, component: str) -> None:
    answer = cluster.get(f"/logs/{component}")
    assert answer.status_code == 404
    assert "root:" not in answer.text


def test_clients_that_leave_make_room_for_others(cluster: nodes.Node) -> None:
    for _ in range(12):
        begun = time.monotonic()
        while True:
            address = cluster.url("/logs/coredns?follow=true&tail=0")
            with requests.get(address, stream=True, timeout=10) as answer:
                if answer.status_code == 200:
                    break
            assert time.monotonic() - begun < 10, answer.text
            time.sleep(0.2)


# --- apply


def test_apply_brings_back_what_was_deleted_and_changed(
    cluster: nodes.Node, admin: nodes.Kubectl
) -> None:
    system = "--namespace=kube-system"
    before = admin.get(system, "configmap", "coredns")["data"]
    admin("delete", system, "service/kube-dns", "configmap/coredns")
    admin("patch", system, "deployment/coredns", '--patch={"spec":{"replicas":0}}')
    answer = post(cluster, "/apply")
    assert answer.status_code == 200, answer.text
    assert {
        "ConfigMap kube-system/coredns",
        "Service kube-system/kube-dns",
        "Deployment kube-system/coredns",
        "ClusterRole system:coredns",
    } <= set(answer.json()["applied"])
    assert admin.get(system, "configmap", "coredns")["data"] == before
    cluster.await_ready()


# --- reset


def test_a_reset_leaves_a_namespace_as_it_was_made(
    cluster: nodes.Node, admin: nodes.Kubectl, namespace: str
) -> None:
    admin.apply(WIDGETS, BROKEN_API)
    admin("wait", "--for=condition=Established", "crd/widgets.flows.example", "--timeout=30s")
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    admin.apply(
        pods.web_deployment("web", replicas=2),
        pods.service("web"),
        pods.sleeper("alone"),
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secret"}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "claim"},
            "spec": claim,
        },
        {"apiVersion": "flows.example/v1", "kind": "Widget", "metadata": {"name": "widget"}},
    )
    admin("wait", "--for=condition=Available", "deployment/web", "--timeout=60s")
    answer = post(cluster, f"/reset/{namespace}")
    admin("delete", "apiservice", "v1.broken.example")
    assert answer.status_code == 200, answer.text
    assert answer.json()["namespace"] == namespace
    assert {
        "deployments/web",
        "services/web",
        "pods/alone",
        "secrets/secret",
        "serviceaccounts/robot",
        "persistentvolumeclaims/claim",
        "widgets.flows.example/widget",
    } <= set(answer.json()["deleted"])
    kinds = "all,configmaps,secrets,serviceaccounts,persistentvolumeclaims,endpointslices,widgets"
    left = {f"{item['kind']} {item['metadata']['name']}" for item in admin.get(kinds)["items"]}
    admin("delete", "crd", "widgets.flows.example")
    assert left == {"ConfigMap kube-root-ca.crt", "ServiceAccount default"}
    # It can be used again at once.
    admin.apply(pods.sleeper("again"))
    admin.await_ready("pod/again")


def test_a_reset_of_default_keeps_the_apiservers_own(
    cluster: nodes.Node, admin: nodes.Kubectl
) -> None:
    name = nodes.unique("flows")
    admin("create", "configmap", name, "--namespace=default")
    kept = admin.get("service", "kubernetes", "--namespace=default")["metadata"]["uid"]
    answer = post(cluster, "/reset/default")
    assert answer.status_code == 200, answer.text
    assert f"configmaps/{name}" in answer.json()["deleted"]
    assert admin.get("service", "kubernetes", "--namespace=default")["metadata"]["uid"] == kept
    assert cluster.get("/ready").status_code == 200


def test_a_reset_that_a_webhook_refuses_is_answered_soon(
    cluster: nodes.Node, admin: nodes.Kubectl, namespace: str
) -> None:
    """Its service is not there: the apiserver refuses at once, as for a webhook that says no."""
    hook = {
        "name": "guard.flows.example",
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"name": "nobody", "namespace": namespace}},
        "rules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["DELETE"]}
            | {"resources": ["pods"]}
        ],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
    }
    pod = pods.sleeper("guarded")
    pod["spec"]["terminationGracePeriodSeconds"] = 30  # Kubernetes' own; not waited for
    admin.apply(pod, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secret"}})
    admin.apply(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": namespace},
            "webhooks": [hook],
        }
    )
    try:
        began = time.monotonic()
        answer = post(cluster, f"/reset/{namespace}")
        took = time.monotonic() - began
    finally:
        admin("delete", "validatingwebhookconfiguration", namespace)
    assert answer.status_code == 502, answer.text
    assert "pods/guarded (" in answer.json()["detail"]
    assert 'failed calling webhook "guard.flows.example"' in answer.json()["detail"]
    assert "validatingwebhookconfiguration" in answer.json()["hint"]
    assert took < reset.REFUSED_SECONDS + 3
    assert admin.get("secrets")["items"] == [], "what nobody refuses is deleted"
    admin("delete", "pod", "guarded", "--now")


@pytest.mark.parametrize(
    ("namespace", "status"),
    [
        pytest.param("kube-system", 403, id="kube-system"),
        pytest.param("kube-node-lease", 403, id="kube-node-lease"),
        pytest.param("none-such", 404, id="no such namespace"),
        pytest.param("..%2fkube-system", 404, id="a way out"),
    ],
)
def test_what_cannot_be_reset_is_refused(cluster: nodes.Node, namespace: str, status: int) -> None:
    assert post(cluster, f"/reset/{namespace}").status_code == status
    assert cluster.get("/ready").status_code == 200


# --- metrics


def test_pupernetes_names_have_the_same_figures(cluster: nodes.Node) -> None:
    samples = {
        line.split(" ")[0].partition("{")[0]: float(line.split(" ")[-1])
        for line in cluster.get("/metrics").text.splitlines()
        if not line.startswith("#")
    }
    for theirs, ours in report.PUPERNETES_METRICS.items():
        assert samples[theirs] == samples[ours]
    assert samples["pupernetes_ready"] == 1
    assert samples["pupernetes_kubelet_api_pods_running"] >= 5
    assert (
        samples["pupernetes_kubelet_logs_pods_running"]
        == samples["pupernetes_kubelet_api_pods_running"]
    )
