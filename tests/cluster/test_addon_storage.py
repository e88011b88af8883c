"""The add-on storage: data over each way in which a node can begin again, and claims that get none."""

from __future__ import annotations

import dataclasses
import json
import time
import typing

import pytest
import requests

from p8s_supervisor import wait
from tests.cluster import conftest, nodes, pods

STORAGE = "/var/lib/p8s/storage"
PROVISIONER = "--namespace=p8s-storage"
# For what is to happen without anybody's help.
SECONDS = 20.0
# From a claim and its pod to a pod that runs; it takes one or two.
CLAIM_SECONDS = 10.0
# What nobody has: of a provisioner that was killed, and of somebody who put something there.
EMPTY, FOREIGN = f"{STORAGE}/pvc-0_default_gone", f"{STORAGE}/pvc-1_default_foreign"
# Each start of the pod adds a line.
COUNT = "echo started >> /data/starts; exec sleep infinity"
# As a database does it: files that only their user may see, in a directory that is sticky.
WRITE = "umask 077; mkdir -m 1777 /data/own; echo kept > /data/own/value; exec sleep infinity"


@dataclasses.dataclass(frozen=True)
class Kept:
    """The last of the nodes that had one volume.

    Attributes:
        starts: what the pod's own file said after each of the nodes' starts.
        volumes: the directories of volumes then.
    """

    node: nodes.Node
    kubectl: nodes.Kubectl
    starts: dict[str, int]
    volumes: dict[str, set[str]]


def claim(name: str, **spec: typing.Any) -> pods.Manifest:
    """A claim of the default class for 1Gi."""
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": wanted | spec,
    }


def user(name: str, script: str = "exec sleep infinity", **spec: typing.Any) -> pods.Manifest:
    """A pod with the claim of its name at /data."""
    made = pods.pod(name, ["sh", "-c", script])
    mount(made["spec"], name)
    made["spec"]["volumes"].append({"name": name, "persistentVolumeClaim": {"claimName": name}})
    made["spec"] |= spec
    return made


def mount(spec: dict[str, typing.Any], volume: str, path: str = "/data") -> None:
    spec["containers"][0]["volumeMounts"].append({"name": volume, "mountPath": path})


def store() -> pods.Manifest:
    """A StatefulSet with two volumes, of which one stays empty."""
    spec = pods.pod_spec(["sh", "-c", COUNT])
    mount(spec, "data")
    mount(spec, "cache", "/cache")
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "store"},
        "spec": {
            "serviceName": "store",
            "selector": {"matchLabels": {"app": "store"}},
            "template": {"metadata": {"labels": {"app": "store"}}, "spec": spec},
            "volumeClaimTemplates": [claim("data"), claim("cache")],
        },
    }


def list_directories(node: nodes.Node) -> set[str]:
    """The directories of volumes, without those of no volume."""
    found = set(node.execute("find", STORAGE, "-mindepth", "1", "-maxdepth", "1").split())
    return found - {EMPTY, FOREIGN}


def find_directory(node: nodes.Node, name: str) -> str:
    """A claim's directory."""
    (found,) = (path for path in list_directories(node) if path.endswith(f"_default_{name}"))
    return found


def count_starts(node: nodes.Node, at_least: int) -> int:
    """How often the StatefulSet's pod has started on its volume, once it is as often as that."""
    found = 0

    def look() -> str | None:
        nonlocal found
        lines = node.execute(
            "sh", "-c", f"cat {STORAGE}/*_default_data-store-0/starts", check=False
        )
        found = len(lines.split())
        return None if found >= at_least else f"{found} of {at_least} starts"

    wait.until(look, awaited="the pod's start", seconds=3 * SECONDS, interval=0.1)
    return found


def is_there(node: nodes.Node, path: str) -> bool:
    return bool(node.execute("find", path, "-maxdepth", "0", check=False))


def await_gone(node: nodes.Node, path: str) -> None:
    wait.until(
        lambda: f"{path} is still there" if is_there(node, path) else None,
        awaited="the end of a volume",
        seconds=SECONDS,
        interval=0.1,
    )


def await_event(kubectl: nodes.Kubectl, name: str, words: str) -> None:
    """Wait for a warning about a claim."""

    def look() -> str | None:
        events = kubectl(
            "events", f"--for=persistentvolumeclaim/{name}", "--types=Warning", "--no-headers"
        )
        return None if words in events else events or "no warning"

    wait.until(look, awaited="a warning", seconds=SECONDS, interval=0.2)


def restart_provisioner(kubectl: nodes.Kubectl) -> None:
    kubectl("delete", "pod", PROVISIONER, "--selector=k8s-app=provisioner")
    kubectl("rollout", "status", "deployment/provisioner", PROVISIONER, f"--timeout={SECONDS:g}s")


@pytest.fixture(scope="module")
def kept(make_kubectl: conftest.MakeKubectl) -> typing.Iterator[Kept]:
    """See `Kept`."""
    starts: dict[str, int] = {}
    volumes: dict[str, set[str]] = {}
    with nodes.volume() as state:
        options = [f"--volume={state}:/var/lib/p8s"]
        with nodes.run("--add-ons=storage", options=options) as node:
            node.await_ready()
            make_kubectl(node).apply(store())

            def look_after(what: str) -> None:
                starts[what] = count_starts(node, len(starts) + 1)
                volumes[what] = list_directories(node)

            look_after("start")
            node.execute("mkdir", EMPTY, FOREIGN)
            node.execute("touch", f"{FOREIGN}/file")
            nodes.docker("restart", "-t60", node.name)
            look_after("restart")
            nodes.docker("kill", node.name)
            nodes.docker("start", node.name)
            look_after("kill")
        with nodes.run("--add-ons=storage", options=options) as node:
            node.await_ready()
            look_after("new container")
            yield Kept(node=node, kubectl=make_kubectl(node), starts=starts, volumes=volumes)


@pytest.mark.parametrize("what", ["restart", "kill", "new container"])
def test_data_is_there_after(kept: Kept, what: str) -> None:
    order = list(kept.starts)
    assert kept.starts[what] == order.index(what) + 1  # with each earlier line, and no pod twice
    assert kept.volumes[what] == kept.volumes["start"]
    assert len(kept.volumes[what]) == 2


def test_empty_directories_that_no_volume_has_are_swept_away(kept: Kept) -> None:
    assert not is_there(kept.node, EMPTY)
    assert is_there(kept.node, f"{FOREIGN}/file")
    assert kept.node.execute("stat", "--format=%a", STORAGE).strip() == "700"


def test_a_claim_takes_a_moment_and_goes_with_what_is_in_it(kept: Kept) -> None:
    """A user's own files too, in a directory that is there already: its first try was killed."""
    kept.kubectl.apply(claim("own"))
    uid = kept.kubectl.get("pvc", "own")["metadata"]["uid"]
    directory = f"{STORAGE}/pvc-{uid}_default_own"
    kept.node.execute("mkdir", directory)
    begun = time.monotonic()
    kept.kubectl.apply(user("own", WRITE, securityContext={"runAsUser": 1000, "fsGroup": 2000}))
    kept.kubectl.await_ready("pod/own")
    assert time.monotonic() - begun <= CLAIM_SECONDS
    assert find_directory(kept.node, "own") == directory
    told = kept.node.execute("stat", "--format=%u:%g %a", f"{directory}/own/value")
    assert told.split() == ["1000:2000", "600"]
    kept.kubectl("delete", "pod/own", "pvc/own")
    await_gone(kept.node, directory)


def test_a_volume_that_is_deleted_before_its_claim_leaves_nothing(kept: Kept) -> None:
    once = claim("first", accessModes=["ReadWriteOncePod"])
    kept.kubectl.apply(once, user("first"))
    kept.kubectl.await_ready("pod/first")
    directory = find_directory(kept.node, "first")
    volume = kept.kubectl.get("pvc", "first")["spec"]["volumeName"]
    kept.kubectl("delete", "pv", volume, "--wait=false")
    assert is_there(kept.node, directory)
    kept.kubectl("delete", "pod/first", "pvc/first")
    await_gone(kept.node, directory)
    kept.kubectl("wait", "--for=delete", f"pv/{volume}", f"--timeout={SECONDS:g}s")


REFUSED: dict[str, tuple[dict[str, typing.Any], str]] = {
    "many": ({"accessModes": ["ReadWriteMany"]}, "only supports ReadWriteOnce"),
    "block": ({"volumeMode": "Block"}, "does not support block volume"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_cannot_give_is_told_by_an_event(kept: Kept, name: str) -> None:
    spec, words = REFUSED[name]
    waiting = user(name)
    if name == "block":
        (container,) = waiting["spec"]["containers"]
        container["volumeMounts"].pop()
        container["volumeDevices"] = [{"name": name, "devicePath": "/dev/xvda"}]
    kept.kubectl.apply(claim(name, **spec), waiting)
    await_event(kept.kubectl, name, words)
    kept.kubectl("delete", f"pod/{name}", f"pvc/{name}", "--wait=false")


def test_expansion_and_more_than_a_quota_are_refused(kept: Kept) -> None:
    larger = json.dumps({"spec": {"resources": {"requests": {"storage": "2Gi"}}}})
    refused = kept.kubectl.attempt("patch", "pvc", "data-store-0", f"--patch={larger}")
    assert "must support resize" in refused.stderr
    kept.kubectl("create", "quota", "small", "--hard=requests.storage=2500Mi")
    kept.kubectl("wait", "quota/small", "--for=jsonpath={.status.used}", f"--timeout={SECONDS:g}s")
    refused = kept.kubectl.attempt("create", "--filename=-", stdin=claim("third"))
    assert "exceeded quota: small" in refused.stderr
    kept.kubectl("delete", "quota", "small")


def test_volumes_outlive_the_add_on(kept: Kept) -> None:
    """Those in use stay in use; what is deleted meanwhile goes when it is there again."""
    kept.kubectl.apply(claim("left"), user("left"))
    kept.kubectl.await_ready("pod/left")
    before = list_directories(kept.node)
    url = kept.node.url("/addons/storage")
    answer = requests.delete(url, timeout=60)
    assert answer.status_code == 200, answer.text
    assert not kept.kubectl.get("storageclass")["items"]
    kept.kubectl("delete", "pod/left", "pvc/left")
    kept.kubectl("delete", "pod/store-0")
    count_starts(kept.node, len(kept.starts) + 1)
    assert list_directories(kept.node) == before
    directory = find_directory(kept.node, "left")
    answer = requests.post(url, timeout=60)
    assert answer.status_code == 200, answer.text
    await_gone(kept.node, directory)


def test_a_full_disk_is_told_by_an_event_and_waited_out(kept: Kept) -> None:
    """The last of this node: what it mounts over the other volumes stays there."""
    kept.node.execute("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", STORAGE)
    restart_provisioner(kept.kubectl)
    kept.node.execute("sh", "-c", f"cat /dev/zero > {STORAGE}/full", check=False)
    kept.kubectl.apply(claim("late"), user("late"))
    await_event(kept.kubectl, "late", "no space left on device")
    kept.node.execute("rm", f"{STORAGE}/full")
    kept.kubectl.await_ready("pod/late")
