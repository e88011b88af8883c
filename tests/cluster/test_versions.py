"""A state volume goes on with the same or the next minor of Kubernetes, and with no other."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import typing

import pytest

from p8s_supervisor import wait
from tests.cluster import conftest, nodes, pods

STATE = "/var/lib/p8s"
NAMESPACE = "kept"
# A refused start ends the container this soon.
REFUSED_SECONDS = 20.0
# Made anew by the next start, or named anew.
PASSING = ("events", "endpoints", "endpointslices", "pods", "leases", "controllerrevisions")
OBJECTS: list[dict[str, typing.Any]] = [
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "words"}, "data": {"a": "swordfish"}},
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "words"}, "stringData": {"a": "b"}},
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}},
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}],
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": NAMESPACE}],
    },
    {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    },
    {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web"},
        "spec": {
            "minReplicas": 2,
            "maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        },
    },
    {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "web"},
        "spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}},
    },
    {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "yearly"},
        "spec": {
            "schedule": "0 0 1 1 *",
            "jobTemplate": {
                "spec": {
                    "template": {"spec": pods.pod_spec(["true"]) | {"restartPolicy": "Never"}}
                }
            },
        },
    },
    pods.web_deployment("web", replicas=2),
    pods.service("web"),
    pods.web_pod("alone"),
]  # fmt: skip
DEFINITION = pods.definition("kept.test", kind="Box", plural="boxes")
BOX = {"apiVersion": "kept.test/v1", "kind": "Box", "metadata": {"name": "one"}, "size": 5}


def read_version(image: str) -> str | None:
    """The Kubernetes in an image of p8s, such as v1.37.2; None where there is no such image."""
    told = nodes.docker(
        *("run", "--rm", "--pull=never", "--entrypoint=cat", image),
        "/usr/share/p8s/versions.json",
        check=False,
    )
    return str(json.loads(told)["kubernetes"]) if told else None


def read_minor(version: str) -> int:
    return int(version.split(".")[1])


@pytest.fixture(scope="module")
def own() -> str:
    """The Kubernetes of the image that is tested."""
    version = read_version(nodes.IMAGE)
    assert version is not None
    return version


@pytest.fixture(scope="module")
def previous(own: str) -> str | None:
    """An image with the minor before: of $P8S_IMAGES, or by its tag; None where there is none."""
    wanted = read_minor(own) - 1
    for image in (*os.environ.get("P8S_IMAGES", "").split(), f"p8s:1.{wanted}"):
        version = read_version(image)
        if version is not None and read_minor(version) == wanted:
            return image
    return None


@dataclasses.dataclass
class Written:
    """A volume with a cluster that was stopped in order.

    Attributes:
        volume: its name.
        image: that wrote it.
        objects: what was in `NAMESPACE`.
        authority: the cluster's CA.
    """

    volume: str
    image: str
    objects: dict[str, typing.Any]
    authority: str

    @property
    def options(self) -> list[str]:
        return [f"--volume={self.volume}:{STATE}"]


@pytest.fixture(scope="module")
def written(previous: str | None, make_kubectl: conftest.MakeKubectl) -> typing.Iterator[Written]:
    """By the minor before, where there is an image of it; else by the image that is tested."""
    image = previous or nodes.IMAGE
    with nodes.volume() as volume:
        with nodes.run(image=image, options=[f"--volume={volume}:{STATE}"]) as node:
            node.await_ready()
            kubectl = make_kubectl(node)
            kubectl("create", "namespace", NAMESPACE)
            kubectl("config", "set-context", "--current", f"--namespace={NAMESPACE}")
            kubectl.apply(*OBJECTS, DEFINITION)
            kubectl("wait", "--for=condition=Established", "crd/boxes.kept.test", "--timeout=30s")
            kubectl.apply(BOX)
            kubectl("rollout", "status", "deployment/web", "--timeout=60s")
            kubectl.await_ready("pod/alone")
            made = Written(volume, image, read_objects(kubectl), kubectl.read_ca())
            nodes.docker("stop", "--time=60", node.name)
            assert node.inspect("{{.State.ExitCode}}") == "0", node.logs()
        yield made


def read_objects(kubectl: nodes.Kubectl) -> dict[str, typing.Any]:
    """Everything in the namespace that a start keeps: what it is asked to be, and its UID."""
    kinds = kubectl("api-resources", "--verbs=list", "--namespaced", "--output=name").split()
    asked = ",".join(kind for kind in kinds if kind.partition(".")[0] not in PASSING)
    found = {}
    for item in [*kubectl.get(asked)["items"], kubectl.get("pod", "alone")]:
        metadata = item.pop("metadata")
        item.pop("status", None)
        found[f"{item['kind']}/{metadata['name']}"] = item | {"uid": metadata["uid"]}
    return found


def find_other(kubectl: nodes.Kubectl, before: dict[str, typing.Any]) -> dict[str, typing.Any]:
    """What is not as it was."""
    now = read_objects(kubectl)
    return {
        name: {"before": before.get(name), "now": now.get(name)}
        for name in before | now
        if before.get(name) != now.get(name)
    }


def in_volume(volume: str, command: str) -> str:
    """Run a command in a throw-away container, in the volume's directory."""
    return nodes.docker(
        *("run", "--rm", "--entrypoint=sh", f"--volume={volume}:/v", "--workdir=/v"),
        *(nodes.IMAGE, "-ec", command),
    )


def read_files(volume: str) -> dict[str, str]:
    """Path → kind, inode, time of change and content of all that is in a volume."""
    look = "find . -printf '%p %y %i %m %T@\\n'; find . -type f -exec sha256sum {} +"
    found: dict[str, str] = {}
    for line in in_volume(volume, look).splitlines():
        checksum = re.fullmatch(r"([0-9a-f]{64})  (.*)", line)
        path, told = (checksum[2], checksum[1]) if checksum else line.split(" ", 1)
        found[path] = f"{found.get(path, '')} {told}"
    return found


def refuse(written: Written, image: str, *settings: str, code: int = 1) -> str:
    """A start that is refused, and what its log says; the volume is as it was."""
    before = read_files(written.volume)
    with nodes.run(*settings, image=image, options=written.options) as node:
        assert node.wait(seconds=REFUSED_SECONDS) == code, node.logs()
        log = node.logs()
    assert read_files(written.volume) == before
    assert len(before) > 100
    assert "Traceback" not in log
    return log


# First: the others write into the record.
def test_the_next_minor_goes_on_with_everything(
    own: str, previous: str | None, written: Written, make_kubectl: conftest.MakeKubectl
) -> None:
    if previous is None:
        minor = f"1.{read_minor(own) - 1}"
        pytest.skip(f"there is no image of Kubernetes {minor}: make image KUBERNETES={minor}")
    with nodes.run(options=written.options) as node:
        node.await_ready()
        was = read_version(previous)
        assert f"Kubernetes {was} ran the cluster in this volume; {own} goes on" in node.logs()
        kubectl = make_kubectl(node)
        kubectl("config", "set-context", "--current", f"--namespace={NAMESPACE}")
        told = kubectl.get("nodes")["items"][0]["status"]["nodeInfo"]
        assert told["kubeletVersion"] == node.status()["versions"]["kubernetes"] == own
        assert find_other(kubectl, written.objects) == {}
        assert kubectl.read_ca() == written.authority
        address = kubectl.get("service", "web")["spec"]["clusterIP"]
        wait.until(
            lambda: find_silent(node, f"http://{address}"),
            awaited="the Deployment behind its Service",
            seconds=30,
            interval=0.2,
        )
        kubectl.await_ready("pod/alone")
        # What is made now, by controllers whose roles may be new.
        kubectl.apply(pods.web_deployment("later", replicas=1))
        kubectl("rollout", "status", "deployment/later", "--timeout=60s")
        kubectl("delete", "deployment/later")
        assert kubectl("auth", "can-i", "get", "configmaps", f"--as=system:serviceaccount:{NAMESPACE}:robot").strip() == "yes"  # fmt: skip
        nodes.docker("stop", "--time=60", node.name)
        assert node.inspect("{{.State.ExitCode}}") == "0", node.logs()
    log = refuse(written, previous)
    assert f"last run with Kubernetes {own}; this image has {was}: an older minor cannot" in log
    assert f"hint: use an image with Kubernetes 1.{read_minor(own)} " in log


def find_silent(node: nodes.Node, url: str) -> str | None:
    said = node.execute(*pods.python(pods.FETCH, url), check=False)
    return None if said.startswith("web ") else f"{url} says {said!r}"


def test_other_settings_than_the_volume_was_made_with_are_refused(written: Written) -> None:
    log = refuse(written, nodes.IMAGE, "--pod-cidr=10.77.0.0/24", code=2)
    assert "the cluster in this volume was made with '192.168.253.0/24'" in log


@pytest.mark.parametrize(
    ("step", "told", "mend"),
    [
        pytest.param(1, "an older minor cannot read what a newer one wrote", 1, id="newer"),
        pytest.param(-2, "Kubernetes is upgraded by one minor at a time", -1, id="much-older"),
    ],
)
def test_a_volume_of_another_minor_is_refused_and_left_as_it_is(
    *, own: str, written: Written, step: int, told: str, mend: int
) -> None:
    """The record says who wrote the volume; there is no image of a minor to come."""
    minor = read_minor(own)
    other = f"v1.{minor + step}.0"
    change = f's/"kubernetes": ".*"/"kubernetes": "{other}"/'
    in_volume(written.volume, f"sed -i '{change}' cluster.json")
    log = refuse(written, nodes.IMAGE)
    assert f"with Kubernetes {other}; this image has {own}: {told}" in log
    assert f"(p8s:1.{minor + mend})" in log
    assert "nothing was changed" in log
