"""Workloads and their network, through kubectl on the host.

Limits are in test_limits_pods.py, streams through kubectl in test_streams.py.
"""

from __future__ import annotations

import re
import time
import typing

import pytest
import requests

from tests.cluster import conftest, nodes, pods


def fetch(admin: nodes.Kubectl, pod: str, url: str) -> str:
    """What a URL answers to a pod."""
    return admin("exec", pod, "--", *pods.python(pods.FETCH, url)).strip()


def await_service(cluster: nodes.Node, admin: nodes.Kubectl, name: str) -> None:
    """Wait until kube-proxy has a service's endpoints: a moment after the pods' readiness."""
    address = admin.get("service", name)["spec"]["clusterIP"]
    script = f"""
import time, urllib.error, urllib.request
deadline = time.monotonic() + 3
while True:
    try:
        urllib.request.urlopen("http://{address}/", timeout=3)
        break
    except urllib.error.URLError:
        if time.monotonic() > deadline: raise
        time.sleep(0.05)
"""
    cluster.execute("python3", "-c", script)


def resolve(admin: nodes.Kubectl, pod: str, name: str) -> str:
    """The address that a name has in a pod."""
    script = "import socket, sys; print(socket.gethostbyname(sys.argv[1]))"
    return admin("exec", pod, "--", *pods.python(script, name)).strip()


def test_versions_are_the_components_own(cluster: nodes.Node, admin: nodes.Kubectl) -> None:
    import json

    told = json.loads(admin("version", "--output=json"))
    versions = cluster.status()["versions"]
    assert told["serverVersion"]["gitVersion"] == versions["kubernetes"]
    assert told["clientVersion"]["gitVersion"] == versions["kubernetes"]
    assert re.fullmatch(r"v1\.\d+\.\d+", versions["kubernetes"])
    assert told["serverVersion"]["minor"] == versions["kubernetes"].split(".")[1]
    node = admin.get("nodes")["items"][0]["status"]["nodeInfo"]
    assert node["kubeletVersion"] == versions["kubernetes"]
    assert node["containerRuntimeVersion"] == f"containerd://{versions['containerd']}"


def test_everything_of_the_system_is_a_pod_that_one_can_see(admin: nodes.Kubectl) -> None:
    items = admin.get("pods", "--namespace=kube-system")["items"]
    found = {pod["metadata"]["name"]: pod for pod in items}
    names = {re.sub(r"-[a-z0-9]{8,10}-[a-z0-9]{5}$|-[a-z0-9]{5}$", "", name) for name in found}
    assert names == {
        "coredns",
        "kube-apiserver-p8s",
        "kube-controller-manager-p8s",
        "kube-proxy",
        "kube-scheduler-p8s",
    }
    statuses = [status for pod in items for status in pod["status"]["containerStatuses"]]
    assert [status["name"] for status in statuses if not status["ready"]] == []
    assert [status["name"] for status in statuses if status["restartCount"]] == []


def test_kubectl_create_deployment_runs_a_pod(admin: nodes.Kubectl, namespace: str) -> None:
    admin("create", "deployment", "pause", "--image=p8s.local/pause:1")
    admin("rollout", "status", "deployment/pause", "--timeout=30s")


def test_logs_and_exec(admin: nodes.Kubectl, namespace: str) -> None:
    script = "import sys, time; print('to stdout'); print('to stderr', file=sys.stderr); sys.stdout.flush(); time.sleep(600)"
    admin.apply(pods.pod("talker", pods.python(script)))
    admin.await_ready("pod/talker")
    assert set(admin("logs", "talker").splitlines()) == {"to stdout", "to stderr"}
    assert admin("exec", "talker", "--", "sh", "-c", "echo $((6 * 7))").strip() == "42"
    failed = admin.attempt("exec", "talker", "--", "sh", "-c", "exit 7")
    assert failed.returncode == 7


@pytest.fixture(scope="module")
def network(
    cluster: nodes.Node, make_kubectl: conftest.MakeKubectl
) -> typing.Iterator[nodes.Kubectl]:
    """A namespace with a client, a Deployment and a pod behind Services, and a pod with a hostPort."""
    found, name = make_kubectl(cluster), nodes.unique("test")
    found("create", "namespace", name)
    found("config", "set-context", "--current", f"--namespace={name}")
    single = pods.service("single")
    single["spec"]["type"] = "NodePort"
    found.apply(
        pods.sleeper("client"),
        pods.web_deployment("web", replicas=2),
        pods.service("web"),
        pods.web_pod("single", ports=[{"containerPort": 8080, "hostPort": 18080}]),
        single,
    )
    found("rollout", "status", "deployment/web", "--timeout=60s")
    found.await_ready("pod/client", "pod/single")
    for service in ("web", "single"):
        await_service(cluster, found, service)
    yield found
    found("delete", "namespace", name, "--wait=false")


def read_namespace(kubectl: nodes.Kubectl) -> str:
    return str(kubectl.get("pod", "client")["metadata"]["namespace"])


def test_a_service_is_reached_by_its_name(network: nodes.Kubectl) -> None:
    namespace = read_namespace(network)
    for name in ("web", f"web.{namespace}", f"web.{namespace}.svc.cluster.local"):
        assert fetch(network, "client", f"http://{name}/").startswith("web ")
    client = network.get("pod", "client")["status"]["podIP"]
    assert fetch(network, "client", "http://web/") == f"web {client}", "the source address is kept"
    service = network.get("service", "web")["spec"]["clusterIP"]
    assert service.startswith("192.168.254.")
    assert client.startswith("192.168.253.")


def test_hairpin_a_pod_reaches_itself_through_its_service(network: nodes.Kubectl) -> None:
    # Not by its short name: that is the pod's own in its /etc/hosts.
    url = f"http://single.{read_namespace(network)}/"
    assert fetch(network, "single", url).startswith("single ")


def test_host_port_on_the_node(cluster: nodes.Node, network: nodes.Kubectl) -> None:
    url = f"http://{cluster.address}:18080/"
    assert requests.get(url, timeout=5).text.startswith("single "), "from the host"
    assert fetch(network, "client", url).startswith("single "), "from another pod"
    assert fetch(network, "single", url).startswith("single "), "from the pod itself"


def test_node_port_on_the_node(cluster: nodes.Node, network: nodes.Kubectl) -> None:
    port = network.get("service", "single")["spec"]["ports"][0]["nodePort"]
    answer = requests.get(f"http://{cluster.address}:{port}/", timeout=5)
    assert answer.text.startswith("single ")


def test_an_address_of_no_service_answers_nothing(network: nodes.Kubectl) -> None:
    """It does not leave the node: on some networks anything outside is answered by a proxy."""
    done = network.attempt(
        "exec", "client", "--", *pods.python(pods.FETCH, "http://192.168.254.250/")
    )
    assert done.returncode == 1
    assert re.search("Connection refused|timed out", done.stderr)


def test_names_resolve_in_pods(network: nodes.Kubectl) -> None:
    assert resolve(network, "client", "kubernetes.default") == "192.168.254.1"
    assert resolve(network, "client", "kube-dns.kube-system.svc.cluster.local") == "192.168.254.2"
    script = "import socket; socket.gethostbyname('no-such-name.default.svc.cluster.local')"
    failed = network.attempt("exec", "client", "--", *pods.python(script))
    assert "Name or service not known" in failed.stderr, "an answer, not a time-out"


def test_a_configmap_and_a_secret_are_mounted_and_follow(
    admin: nodes.Kubectl, namespace: str
) -> None:
    admin("create", "configmap", "settings", "--from-literal=colour=green")
    admin("create", "secret", "generic", "hidden", "--from-literal=word=swordfish")
    reader = pods.sleeper("reader")
    reader["spec"]["volumes"] += [
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "hidden", "secret": {"secretName": "hidden"}},
    ]
    reader["spec"]["containers"][0]["volumeMounts"] += [
        {"name": "settings", "mountPath": "/tmp/settings"},
        {"name": "hidden", "mountPath": "/tmp/hidden"},
    ]
    admin.apply(reader)
    admin.await_ready("pod/reader")
    read = ("exec", "reader", "--", "cat", "/tmp/settings/colour", "/tmp/hidden/word")
    assert admin(*read) == "greenswordfish"


@pytest.mark.parametrize("kind", ["Job", "StatefulSet", "DaemonSet"])
def test_controllers_run_pods(admin: nodes.Kubectl, namespace: str, kind: str) -> None:
    if kind == "Job":
        spec = pods.pod_spec(["true"]) | {"restartPolicy": "Never"}
        admin.apply(
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"name": "sum"},
                "spec": {"template": {"spec": spec}},
            }
        )
        admin("wait", "--for=condition=Complete", "job/sum", "--timeout=60s")
        return
    workload = pods.web_deployment("web", replicas=1)
    workload["kind"] = kind
    if kind == "DaemonSet":
        del workload["spec"]["replicas"]
    else:
        workload["spec"]["serviceName"] = "web"
    admin.apply(workload)
    admin("rollout", "status", f"{kind.lower()}/web", "--timeout=60s")


@pytest.mark.real_time
def test_a_deleted_pod_is_gone_within_its_grace(admin: nodes.Kubectl, namespace: str) -> None:
    admin.apply(pods.sleeper("brief"))
    admin.await_ready("pod/brief")
    begun = time.monotonic()
    admin("delete", "pod", "brief")
    # sleep, as process 1, ignores SIGTERM. kubelet makes the grace of one second two, its least, and
    # waits for up to three of its looks at the runtime, one a second: terminating, stopped, cleaned up.
    assert 1.9 < time.monotonic() - begun < 2 + 3 + 1
