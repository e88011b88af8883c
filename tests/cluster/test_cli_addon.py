"""`p8s addon` as its users have it: a process, the real engine, and a cluster that is started again."""

from __future__ import annotations

import json
import pathlib
import typing

import pytest

from tests.cluster import test_cli, test_manifests

Listed = dict[str, dict[str, typing.Any]]


@pytest.fixture(scope="module")
def p8s(
    tmp_path_factory: pytest.TempPathFactory, kubectl_program: pathlib.Path
) -> test_cli.Command:
    return test_cli.Command(tmp_path_factory.mktemp("addon") / "config", kubectl_program)


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The directory of an add-on of the user's own, which is called mine."""
    return tmp_path_factory.mktemp("mine")


@pytest.fixture(scope="module")
def run(p8s: test_cli.Command, mine: pathlib.Path) -> typing.Iterator[list[str]]:
    """How the cluster of these tests is started; it runs."""
    with test_cli.named(p8s) as name:
        volume = f"--volume={mine}:/etc/p8s/add-ons/mine:ro"
        started = ["run", f"--name={name}", "--detach", "--no-check", "--drain=none", volume]
        p8s(*started)
        yield started


@pytest.fixture(scope="module")
def name(run: list[str]) -> str:
    """The option that names the cluster."""
    return run[1]


def list_add_ons(p8s: test_cli.Command, name: str) -> Listed:
    found = json.loads(p8s("addon", "list", name, "-o", "json"))
    return {one["name"]: one for one in found}


def list_enabled(p8s: test_cli.Command, name: str) -> set[str]:
    return {found for found, entry in list_add_ons(p8s, name).items() if entry["enabled"]}


def test_an_unknown_one_is_told_with_those_that_there_are(p8s: test_cli.Command, name: str) -> None:
    done = p8s.attempt("addon", "disable", name, "storrage", "storage", "metrix")
    assert done.returncode == 2, done.stderr
    known = "storage, metrics, loadbalancer, ingress, registry, mine"
    assert f"storrage, metrix: not of {known}\n" in done.stderr
    assert list_enabled(p8s, name) == {"storage"}


def test_one_that_this_image_does_not_have(p8s: test_cli.Command, name: str) -> None:
    done = p8s.attempt("addon", "enable", name, "metrics")
    assert done.returncode == 1
    assert "this image does not have metrics: use p8s:full" in done.stderr
    assert "metrics" not in list_enabled(p8s, name)


def test_one_of_the_users_own_that_is_refused_and_mended(
    p8s: test_cli.Command, name: str, mine: pathlib.Path
) -> None:
    config_map = test_manifests.config_map
    (mine / "10-fine.yaml").write_text(test_manifests.dump(config_map("fine")))
    (mine / "20-no.yaml").write_text(test_manifests.dump(test_manifests.NO_CONTAINERS))
    reason = '20-no.yaml: Deployment empty: Deployment.apps "empty" is invalid: [spec.selector: '
    done = p8s.attempt("addon", "enable", name, "mine")
    assert done.returncode == 1
    assert reason in done.stderr
    assert reason in list_add_ons(p8s, name)["mine"]["reason"]
    assert json.loads(p8s("status", name, "-o", "json"))["state"] == "degraded"
    assert "fine" in p8s("exec", name, "kubectl", "get", "configmap", "fine")

    (mine / "20-no.yaml").write_text(test_manifests.dump(config_map("mended")))
    told = p8s("addon", "enable", name, "mine")
    assert told == "applied ConfigMap fine\napplied ConfigMap mended\nmine is usable\n"
    told = p8s("addon", "disable", name, "mine")
    assert told == "deleted ConfigMap mended\ndeleted ConfigMap fine\nmine is disabled\n"
    left = p8s("exec", name, "kubectl", "get", "configmaps", "-o=name")
    assert left == "configmap/kube-root-ca.crt\n"


def test_what_is_switched_stays_so_over_a_restart(
    p8s: test_cli.Command, name: str, run: list[str]
) -> None:
    assert p8s("addon", "enable", name, "storage", "loadbalancer").endswith(
        "storage is usable\nloadbalancer is usable\n"
    )
    get = ("exec", name, "kubectl", "get", "--output=name")
    assert p8s(*get, "storageclasses") == "storageclass.storage.k8s.io/standard\n"

    told = p8s("addon", "disable", name, "storage")
    assert "deleted StorageClass standard\n" in told
    assert "deleted Namespace p8s-storage\n" in told
    assert told.endswith("storage is disabled\n")
    assert p8s(*get, "storageclasses") == ""
    kinds = "namespaces,clusterroles,clusterrolebindings,pods"
    assert "p8s-storage" not in p8s(*get, kinds, "--all-namespaces")

    p8s("stop", name)
    p8s(*run)
    assert list_enabled(p8s, name) == {"loadbalancer"}
    assert list_add_ons(p8s, name)["loadbalancer"]["usable"], "/ready has waited for it"
    assert p8s(*get, "storageclasses") == ""
    assert p8s("addon", "disable", name, "loadbalancer").endswith("loadbalancer is disabled\n")
    assert list_enabled(p8s, name) == set()
