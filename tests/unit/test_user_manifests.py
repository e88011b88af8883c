"""The user's directory: which files count, what is wrong in them, what is applied first."""

from __future__ import annotations

import pathlib
import typing

import pytest

from p8s_supervisor import applying, commands, errors, kube, user_manifests
from tests import fakes

CONFIG_MAP = "{apiVersion: v1, kind: ConfigMap, metadata: {name: %s}}\n"


def write(top: pathlib.Path, files: dict[str, str]) -> pathlib.Path:
    for name, text in files.items():
        file = top / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return top


def test_files_are_read_in_order_and_others_left_aside(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubectl = fakes.Commands({"kubectl": CONFIG_MAP % "built"})
    monkeypatch.setattr(commands, "run", kubectl)
    top = write(
        tmp_path / "mine",
        {
            "b.yaml": CONFIG_MAP % "b1" + "---\n---\n" + CONFIG_MAP % "b2",
            "a.json": '{"apiVersion": "v1", "kind": "List", "items": ['
            '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}]}',
            "c/d.yml": CONFIG_MAP % "d",
            "e/kustomization.yaml": "",
            "e/base/x.yaml": "no: manifest",
            "notes.txt": "",
            ".git/config.yaml": "no: manifest",
        },
    )
    (top / "c/loop").symlink_to(top)
    items, broken = user_manifests.read(top)
    assert broken == {}
    assert [(item.file, item.manifest["metadata"]["name"]) for item in items] == [
        ("a.json", "a"),
        ("b.yaml", "b1"),
        ("b.yaml", "b2"),
        ("c/d.yml", "d"),
        ("e/kustomization.yaml", "built"),
    ]
    assert kubectl.calls == [(["kubectl", "kustomize", str(top / "e")], None)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("a: [1\n", "not YAML: line 2: did not find", id="no YAML"),
        pytest.param("token: hunter2\n\tx", "not YAML: line 2: ", id="the line is not shown"),
        pytest.param("a: \x07", "not YAML", id="no text"),
        pytest.param("just words", "document 1: not an object", id="no mapping"),
        pytest.param("{kind: Pod}", "document 1: Pod None: it has no apiVersion", id="no version"),
        pytest.param("{apiVersion: v1}", "document 1: None None: it has no kind", id="no kind"),
        pytest.param(
            "{apiVersion: v1, kind: Pod, metadata: {generateName: x}}",
            "document 1: Pod None: it has no metadata.name",
            id="no name",
        ),
        pytest.param(
            "{apiVersion: v1, kind: Pod, metadata: {name: ../x}}",
            "document 1: Pod ../x: metadata.name is '../x'",
            id="a name that is a path",
        ),
        pytest.param(
            "{apiVersion: v1, kind: Pod, metadata: {name: 3}}",
            "document 1: Pod 3: metadata.name is 3",
            id="a number",
        ),
        pytest.param(
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: x}, data: {day: 2026-01-01}}",
            "document 1: ConfigMap x: it has a value that JSON lacks",
            id="a date",
        ),
        pytest.param(
            CONFIG_MAP % "good" + "---\n[]\n---\n3\n",
            "document 2: not an object; document 3: not an object",
            id="two",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: pathlib.Path, text: str, reason: str) -> None:
    items, broken = user_manifests.read(write(tmp_path, {"x.yaml": text}))
    assert broken.keys() == {"x.yaml"}
    assert broken["x.yaml"].startswith(reason)
    assert "hunter2" not in broken["x.yaml"]
    assert len(items) == ("good" in text)


def test_a_kustomization_that_fails_and_files_that_cannot_be_read(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = errors.CommandError("kubectl kustomize", code=1, output="no such\n file")
    monkeypatch.setattr(commands, "run", fakes.Commands({"kubectl": failure}))
    top = write(tmp_path, {"k/Kustomization": ""})
    (top / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    (top / "gone.yaml").symlink_to("nowhere")
    _, broken = user_manifests.read(top)
    assert broken.keys() == {"k/Kustomization", "bytes.yaml", "gone.yaml"}
    assert broken["k/Kustomization"] == "`kubectl kustomize` ended with 1: no such file"
    assert broken["gone.yaml"] == "not a file"


class Client(kube.Client):
    """Records what is applied, and by which manager."""

    def __init__(self) -> None:
        self.applied: list[tuple[str, str]] = []

    def apply(
        self, manifest: kube.Object, *, seconds: float = 5, manager: str = kube.FIELD_MANAGER
    ) -> None:
        self.applied.append((manifest["metadata"]["name"], manager))


def apply(root: pathlib.Path, *arguments: str) -> tuple[Client, dict[str, str], list[str]]:
    story: list[str] = []
    client = Client()
    run = fakes.make_context(root, *arguments, client=client, story=story)
    run.refused[user_manifests.PREFIX] = "they are not applied yet"
    run.silent_files = {"a.yaml"}
    user_manifests.apply(run, client, seconds=30, longest=10)
    return client, run.refused, story


def test_what_others_need_comes_first_and_what_was_silent_last(tmp_path: pathlib.Path) -> None:
    write(
        tmp_path / "etc/p8s/manifests",
        {
            "a.yaml": CONFIG_MAP % "a",
            "b.yaml": CONFIG_MAP % "b" + "---\n{}",
            "c.yaml": "{apiVersion: v1, kind: Namespace, metadata: {name: c}}",
        },
    )
    client, refused, story = apply(tmp_path)
    assert client.applied == [(name, "p8s-manifests") for name in ("c", "b", "a")]
    assert refused == {"manifests/b.yaml": "document 2: None None: it has no apiVersion"}
    assert story[0].endswith("3 objects of 3 files applied, 1 files refused")


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        pytest.param([], {}, id="the default need not be there"),
        pytest.param(
            ["--manifests=/srv"],
            {"manifests/.": "ROOT/srv: there is no such directory in the node"},
            id="one that is asked for must",
        ),
    ],
)
def test_without_a_directory(
    tmp_path: pathlib.Path, arguments: list[str], refused: dict[str, typing.Any]
) -> None:
    client, found, _ = apply(tmp_path, *arguments)
    assert client.applied == []
    assert {name: why.replace(str(tmp_path), "ROOT") for name, why in found.items()} == refused


def test_an_item_is_named_as_kubectl_has_it() -> None:
    manifest = {"kind": "Pod", "metadata": {"name": "x", "namespace": "y"}}
    assert str(applying.Item(file="", manifest=manifest)) == "Pod y/x"
