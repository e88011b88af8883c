"""docker compose: the volume outlives every container, and the next one goes on at another address."""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import dataclasses
import json
import pathlib
import time
import typing

import requests

from p8s_supervisor import kube, wait
from tests.bench import workloads
from tests.cluster import host, nodes, pods
from tests.cluster import test_compose as projects

FILE = projects.ROOT / "docker-compose.yml"
# Another container of the same network, which takes the address that the cluster had.
HOLDER = """
services:
  holder:
    image: ${P8S_IMAGE}
    entrypoint: [sleep, infinity]
    stop_signal: SIGKILL
    tmpfs: [/var/lib/p8s]
"""
# Of each task that runs: what containerd knows of its container.
RUNNING = """
for id in $(ctr --namespace k8s.io tasks ls 2>/dev/null | awk '$3 == "RUNNING" { print $1 }'); do
  ctr --namespace k8s.io containers info $id 2>/dev/null
done
"""
NAMESPACED = "/api/v1/namespaces/default"
# Two of the Deployment, and the one without a controller.
OWN_PODS = 3


@dataclasses.dataclass(frozen=True)
class Project:
    """A project of compose with the repository's own file."""

    name: str
    files: tuple[pathlib.Path, ...]
    ports: tuple[int, int]

    def __call__(self, *arguments: str) -> str:
        return projects.compose(self.name, *arguments, files=self.files, ports=self.ports).stdout

    @property
    def node(self) -> nodes.Node:
        """The cluster's container, as it is now."""
        return nodes.Node(self("ps", "--quiet", "p8s").strip(), *self.ports)

    def kubeconfig(self) -> str:
        """An administrator's."""
        return requests.get(f"http://127.0.0.1:{self.ports[0]}/kubeconfig", timeout=10).text


@contextlib.contextmanager
def project(*more: pathlib.Path) -> collections.abc.Iterator[Project]:
    """A project that is gone in the end, its volume too."""
    made = Project(nodes.unique("p8s-test"), (FILE, *more), (nodes.free_port(), nodes.free_port()))
    try:
        yield made
    finally:
        projects.compose(
            made.name, "down", "--volumes", files=made.files, ports=made.ports, check=False
        )


def write_objects(client: kube.Client) -> dict[str, str]:
    """A ConfigMap, workloads and a Service.

    Returns:
        The UIDs of what must be the same ever after: path → UID.
    """
    body: dict[str, typing.Any] = {"metadata": {"name": "kept"}, "data": {"word": "swordfish"}}
    client.request("POST", f"{NAMESPACED}/configmaps", body=body)
    deployments = "/apis/apps/v1/namespaces/default/deployments"
    client.request("POST", deployments, body=pods.web_deployment("web", replicas=2))
    client.request("POST", f"{NAMESPACED}/services", body=pods.service("web"))
    client.request("POST", f"{NAMESPACED}/pods", body=pods.web_pod("alone"))
    kept = (
        f"{NAMESPACED}/configmaps/kept",
        f"{deployments}/web",
        f"{NAMESPACED}/services/web",
        f"{NAMESPACED}/pods/alone",
    )
    return {path: client.get(path)["metadata"]["uid"] for path in kept}


def running_containers(node: nodes.Node) -> collections.Counter[tuple[str, str]]:
    """Containers that run, by their pod's UID and their name; a sandbox has none."""
    decoder, text = json.JSONDecoder(), node.execute("sh", "-c", RUNNING).strip()
    found: collections.Counter[tuple[str, str]] = collections.Counter()
    while text:
        container, end = decoder.raw_decode(text)
        labels = container["Labels"]
        uid, name = labels["io.kubernetes.pod.uid"], labels.get("io.kubernetes.container.name", "")
        found[uid, name] += 1
        text = text[end:].lstrip()
    return found


def find_fault(client: kube.Client, node: nodes.Node) -> str | None:
    """What is not as it must be: each pod's containers once, and no others."""
    wanted: collections.Counter[tuple[str, str]] = collections.Counter()
    found_pods = client.get("/api/v1/pods")["items"]
    own = [pod for pod in found_pods if pod["metadata"]["namespace"] == "default"]
    if len(own) != OWN_PODS:
        return f"{len(own)} pods of {OWN_PODS} in the namespace default"
    for pod in found_pods:
        name, statuses = pod["metadata"]["name"], pod["status"].get("containerStatuses", [])
        if not statuses or not all(status["ready"] for status in statuses):
            return f"{name} is not ready"
        # A static pod's UID in containerd is the one that kubelet gave it, not the API's.
        annotations = pod["metadata"].get("annotations", {})
        uid = annotations.get("kubernetes.io/config.hash", pod["metadata"]["uid"])
        for container in ("", *(status["name"] for status in statuses)):
            wanted[uid, container] += 1
    found = running_containers(node)
    return None if found == wanted else f"containers: {found - wanted} more, {wanted - found} less"


def assert_whole(made: Project, kubeconfig: str, uids: dict[str, str]) -> None:
    """Everything that was there is there, and what follows the address has followed it."""
    node = made.node
    with workloads.connect(kubeconfig) as client:
        assert {path: client.get(path)["metadata"]["uid"] for path in uids} == uids
        assert client.get(f"{NAMESPACED}/configmaps/kept")["data"] == {"word": "swordfish"}
        addresses = client.get("/api/v1/nodes/p8s")["status"]["addresses"]
        assert {"type": "InternalIP", "address": node.address} in addresses
        slices = f"/apis/discovery.k8s.io/v1{NAMESPACED.removeprefix('/api/v1')}/endpointslices"
        endpoints = client.get(f"{slices}/kubernetes")["endpoints"]
        assert [each["addresses"] for each in endpoints] == [[node.address]]
        wait.until(
            lambda: find_fault(client, node), awaited="every pod, once", seconds=60, interval=0.3
        )
        items = client.get(f"{NAMESPACED}/pods")["items"]
        pod_addresses = [pod["status"]["podIP"] for pod in items]
        assert len(set(pod_addresses)) == len(pod_addresses) == OWN_PODS
        service = client.get(f"{NAMESPACED}/services/web")["spec"]["clusterIP"]
    await_answer(node, service)


def await_answer(node: nodes.Node, service: str) -> None:
    """Wait until a Service answers; kube-proxy has its endpoints a moment after the pods are ready."""
    deadline = time.monotonic() + 5
    fetch = pods.python(pods.FETCH, f"http://{service}/")
    while not node.execute(*fetch, check=False).startswith("web "):
        assert time.monotonic() < deadline, f"{service} does not answer"


def test_down_and_up_and_recreated(tmp_path: pathlib.Path) -> None:
    """Each time at another address."""
    holder = tmp_path / "holder.yml"
    holder.write_text(HOLDER)
    before = host.picture()
    with project(holder) as made:
        made("up", "--detach", "--wait", "p8s")
        first, kubeconfig = made.node.address, made.kubeconfig()
        with workloads.connect(kubeconfig) as client:
            uids = write_objects(client)
        assert_whole(made, kubeconfig, uids)

        made("down")
        assert host.difference(before, kept={f"{made.name}_state"}) == {}
        made("up", "--detach", "holder")
        made("up", "--detach", "--wait", "p8s")
        second = made.node.address
        assert second != first
        assert_whole(made, kubeconfig, uids)

        made("rm", "--stop", "--force", "holder")  # its address is the next one's
        made("up", "--detach", "--wait", "--force-recreate", "p8s")
        assert made.node.address != second
        assert_whole(made, kubeconfig, uids)
        made("down", "--volumes")
        assert host.difference(before) == {}
