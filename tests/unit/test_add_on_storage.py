"""The add-on storage: its manifests."""

from __future__ import annotations

import pathlib
import typing

import pytest

from p8s_supervisor import catalogue, manifests
from tests import fakes

COMPONENT = pathlib.Path(__file__).parents[2] / "image" / "components" / "storage"
Object = dict[str, typing.Any]


@pytest.fixture
def objects() -> dict[str, Object]:
    """Its objects, by kind: there is one of each."""
    values = manifests.values(fakes.make_plan(pathlib.Path("/")))
    found = [
        document
        for documents in manifests.add_on_by_file("storage", values).values()
        for document in documents
    ]
    by_kind = {document["kind"]: document for document in found}
    assert len(by_kind) == len(found)
    return by_kind


@pytest.fixture
def pod(objects: dict[str, Object]) -> Object:
    """The provisioner's pod's spec."""
    return typing.cast("Object", objects["Deployment"]["spec"]["template"]["spec"])


def test_the_catalogue_knows_its_program(pod: Object) -> None:
    (name,) = catalogue.TABLE["storage"].programs
    (container,) = pod["containers"]
    assert container["command"][0] == f"/usr/local/bin/{name}"


def test_the_class_is_the_default_and_waits_for_a_pod(objects: dict[str, Object]) -> None:
    made = objects["StorageClass"]
    annotations = made["metadata"]["annotations"]
    assert annotations["storageclass.kubernetes.io/is-default-class"] == "true"
    assert (made["volumeBindingMode"], made["reclaimPolicy"]) == ("WaitForFirstConsumer", "Delete")
    assert made["provisioner"] in (COMPONENT / "main.go").read_text()


def test_volumes_have_the_same_path_in_the_pod_and_in_the_node(pod: Object) -> None:
    """What a PersistentVolume says is read by kubelet, in the node."""
    state = fakes.make_plan(pathlib.Path("/")).paths.state
    (container,) = pod["containers"]
    paths = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == paths
    assert paths["volumes"] == container["command"][1] == f"{state}/storage"


def test_there_is_never_a_second_one(objects: dict[str, Object]) -> None:
    spec = objects["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_the_account_may_change_nothing_but_volumes(objects: dict[str, Object]) -> None:
    writes = {
        resource
        for rule in objects["ClusterRole"]["rules"]
        for resource in rule["resources"]
        if set(rule["verbs"]) - {"get", "list", "watch"}
    }
    assert writes == {"persistentvolumes", "events"}
