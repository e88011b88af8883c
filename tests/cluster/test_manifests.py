"""The user's own manifests: a directory that is applied when the cluster is ready."""

from __future__ import annotations

import json
import pathlib
import typing

import pytest
import requests
import yaml

from p8s_supervisor import wait
from tests.cluster import conftest, nodes, pods

DIRECTORY = "/etc/p8s/manifests"
DEFINITION = pods.definition("example.com", kind="Widget", plural="widgets")
WIDGET = {
    "apiVersion": "example.com/v1",
    "kind": "Widget",
    "metadata": {"name": "first", "namespace": "shop"},
    "size": 3,
}
NO_CONTAINERS = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "empty"},
    "spec": {"replicas": 1},
}
PASSWORD = "correct-horse-battery"


def config_map(name: str, **data: str) -> dict[str, typing.Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def dump(*documents: object) -> str:
    return yaml.safe_dump_all(documents)


# The widget's kind and namespace come in a later file.
FILES = {
    "10-widget.yaml": dump(WIDGET),
    "20-shop.yml": dump(
        DEFINITION, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
    ),
    "30-no-yaml.yaml": f"password: {PASSWORD}\nkind: [ConfigMap\n",
    "40-no-kind.yaml": dump(config_map("beside"), {"apiVersion": "v1", "metadata": {"name": "x"}}),
    "50-refused.yaml": dump(NO_CONTAINERS, config_map("after")),
    "60-secret.yaml": dump(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "door"},
            "data": {"key": PASSWORD},
        }
    ),
    "deep/er/list.json": json.dumps(
        {"apiVersion": "v1", "kind": "List", "items": [config_map("one"), config_map("two")]}
    ),
    "kustomized/kustomization.yaml": "namePrefix: my-\nresources: [base.yaml]\n",
    "kustomized/base.yaml": dump(config_map("base")),
    "lost/kustomization.yaml": "resources: [nowhere.yaml]\n",
    "README.md": "no manifest",
    ".hidden.yaml": "no manifest either",
}
BROKEN = {
    "manifests/30-no-yaml.yaml": "not YAML: line 3",
    "manifests/40-no-kind.yaml": "document 2: None x: it has no kind",
    "manifests/50-refused.yaml": 'Deployment empty: Deployment.apps "empty" is invalid',
    "manifests/60-secret.yaml": "Secret door: ",
    "manifests/lost/kustomization.yaml": "nowhere.yaml",
}


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> pathlib.Path:
    """The user's directory on the host."""
    for name, text in FILES.items():
        file = tmp_path / "mine" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "mine"


def await_degraded(node: nodes.Node) -> None:
    """The cluster is whole, and not all that was asked for is applied."""

    def look() -> str | None:
        try:
            status = node.status()
        except requests.ConnectionError as error:
            return str(error)
        return None if status["state"] == "degraded" else str(status["missing"])

    wait.until(look, awaited="degraded", seconds=nodes.START_SECONDS, interval=0.2)


def missing(node: nodes.Node) -> dict[str, str]:
    answer = node.get("/ready")
    return {} if answer.status_code == 200 else answer.json()["missing"]


def test_what_can_be_applied_is_and_the_rest_is_named_until_it_is_right(
    directory: pathlib.Path, make_kubectl: conftest.MakeKubectl
) -> None:
    with nodes.run(options=[f"--volume={directory}:{DIRECTORY}:ro"]) as node:
        await_degraded(node)
        found = missing(node)
        assert found.keys() == BROKEN.keys()
        assert {name: why for name, why in BROKEN.items() if why not in found[name]} == {}
        kubectl = make_kubectl(node)
        listed = kubectl.get("configmaps")["items"]
        names = {item["metadata"]["name"] for item in listed}
        assert names == {"beside", "after", "one", "two", "my-base", "kube-root-ca.crt"}
        assert kubectl.get("widgets", "first", "--namespace=shop")["size"] == 3
        story = node.logs()
        for name in BROKEN:
            assert story.count(f"{name} is not applied: ") == 1
        assert " ready: " not in story
        told = story + node.get("/status").text + node.get("/events?follow=false").text
        assert PASSWORD not in told

        answer = node.post("/apply")
        assert answer.status_code == 502
        assert all(name in answer.json()["detail"] for name in BROKEN)

        # It heals by itself, without /apply.
        for name in ("30-no-yaml.yaml", "40-no-kind.yaml", "50-refused.yaml", "60-secret.yaml"):
            (directory / name).write_text(dump(config_map(f"repaired-{name[:2]}")))
        (directory / "lost/nowhere.yaml").write_text(dump(config_map("found")))
        node.await_ready(seconds=45)
        assert node.status()["state"] == "ready"
        assert kubectl.get("configmap", "found", "repaired-30", "repaired-50")["items"]
        wait.until(
            lambda: None if node.logs().count(" ready: ") == 1 else "not told",
            awaited="the line that says so",
            seconds=7,
        )

        kubectl("delete", "configmap", "found")
        assert "ConfigMap found" in node.post("/apply").json()["applied"]
        assert kubectl.get("configmap", "found")["kind"] == "ConfigMap"
