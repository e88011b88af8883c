"""A cluster that begins with the seed is the same as one that begins empty."""

from __future__ import annotations

import json
import re
import typing

import pytest

from p8s_supervisor import wait
from tests.cluster import conftest, nodes

# The only setting that takes the seed out of use and changes next to nothing else.
COLD = "--verbosity=2"
Objects = dict[tuple[str, str, str], typing.Any]

# Written all the while, and named anew by each component's life.
PASSING = ("events", "events.events.k8s.io", "leases.coordination.k8s.io")


@pytest.fixture(scope="module")
def cold() -> typing.Iterator[nodes.Node]:
    with nodes.run(COLD) as node:
        node.await_ready()
        yield node


# What differs between any two clusters, or from one moment to the next.
CHANGING = {
    "addresses",
    "ca.crt",
    "client-ca-file",
    "controller-revision-hash",
    "creationTimestamp",
    "endpoints",
    "endpoints.kubernetes.io/last-change-trigger-time",
    "generateName",
    "generation",
    "kubernetes.io/config.hash",
    "kubernetes.io/config.mirror",
    "kubernetes.io/config.seen",
    "managedFields",
    "p8s/awaited",
    "pod-template-hash",
    "podIP",
    "requestheader-client-ca-file",
    "resourceVersion",
    "since",
    "status",
    "subsets",
    "trustBundle",
    "uid",
}


def stable_name(kind: str, name: str) -> str:
    """A name without its random part."""
    if kind in ("Pod", "ReplicaSet", "EndpointSlice", "ControllerRevision", "PodMetrics"):
        return re.sub(r"(-[a-f0-9]{8,10})?-[a-z0-9]{5,10}$", "", name)
    return re.sub(r":[A-Za-z0-9_-]{20,}$", "", name)  # a trust bundle's hash


def normalize(value: typing.Any, *, verbosity: str) -> typing.Any:
    """An object without what differs between any two clusters."""
    if isinstance(value, dict):
        kept = {
            key: normalize(item, verbosity=verbosity)
            for key, item in value.items()
            if key not in CHANGING
        }
        return {key: item for key, item in kept.items() if item != {}}
    if isinstance(value, list):
        return [normalize(item, verbosity=verbosity) for item in value]
    if isinstance(value, str):
        value = value.replace(f"--v={verbosity}", "--v=N")
        return re.sub(
            r"kube-api-access-[a-z0-9]{5}|(coredns|kube-proxy|provisioner)-[a-z0-9-]+",
            "NAME",
            value,
        )
    return value


def read(kubectl: nodes.Kubectl, *, node: nodes.Node, verbosity: str) -> Objects:
    """All objects of a cluster, normalized."""
    kinds = [
        kind
        for kind in kubectl("api-resources", "--verbs=list", "--output=name").split()
        if kind not in PASSING
    ]
    found: Objects = {}
    address = node.address
    for item in kubectl.get(",".join(kinds), "--all-namespaces")["items"]:
        metadata = item.pop("metadata")
        name = stable_name(item["kind"], metadata.pop("name"))
        if item["kind"] == "IPAddress":
            name = str(item["spec"]["parentRef"]["name"])
        key = (item["apiVersion"] + "/" + item["kind"], metadata.get("namespace", ""), name)
        body = {"metadata": metadata, **item}
        for reference in metadata.get("ownerReferences", []):
            reference["name"] = stable_name(reference["kind"], reference["name"])
        text = json.dumps(body).replace(address, "NODE")
        found[key] = normalize(json.loads(text), verbosity=verbosity)
    return found


def test_both_ways_make_the_same_objects(
    cluster: nodes.Node, cold: nodes.Node, make_kubectl: conftest.MakeKubectl
) -> None:
    seeded = phase_seconds(cluster, "apiserver")
    assert seeded < phase_seconds(cold, "apiserver"), "one begins with the seed, the other empty"
    first, second = make_kubectl(cluster), make_kubectl(cold)
    # Other tests make namespaces in `cluster`.
    own = {"", "default", "kube-node-lease", "kube-public", "kube-system", "p8s-storage"}

    def look() -> str | None:
        one = {
            key: body
            for key, body in read(first, node=cluster, verbosity="1").items()
            if key[1] in own and not key[2].startswith(("test-", "p8s-test"))
        }
        other = read(second, node=cold, verbosity="2")
        if one.keys() != other.keys():
            return f"in one alone: {sorted(one.keys() ^ other.keys())}"
        different = [(one[key], other[key]) for key in one if one[key] != other[key]]
        return json.dumps(different, indent=1) if different else None

    # Controllers complete what they began: both clusters are some seconds old.
    wait.until(look, awaited="the same objects in both clusters", seconds=30, interval=1)


def phase_seconds(node: nodes.Node, name: str) -> float:
    phases = {phase["name"]: phase["duration"] for phase in node.status()["phases"]}
    return float(phases[name])


def test_the_seed_holds_no_key_and_no_certificate(cluster: nodes.Node) -> None:
    script = """
import base64, json
seed = json.load(open("/usr/share/p8s/seed.json"))
values = [base64.b64decode(value) for value in seed["entries"].values()]
print(json.dumps([len(values), sum(b"-----BEGIN" in value for value in values)]))
"""
    entries, secrets = json.loads(cluster.execute("python3", "-c", script))
    assert entries > 200
    assert secrets == 0


def test_objects_are_as_old_as_the_cluster(
    cluster: nodes.Node, make_kubectl: conftest.MakeKubectl
) -> None:
    started = cluster.inspect("{{.State.StartedAt}}")[:19]
    created = {
        item["metadata"]["creationTimestamp"][:19]
        for item in make_kubectl(cluster).get("namespace,clusterrole,node", "--all-namespaces")[
            "items"
        ]
        if not item["metadata"]["name"].startswith("test-")
    }
    assert min(created) >= started
