"""The scripts that the image's build runs."""

from __future__ import annotations

import collections.abc
import hashlib
import json
import pathlib
import runpy
import tarfile
import typing

import pytest

from p8s_supervisor import manifests

OCI = pathlib.Path(__file__).parents[2] / "image/oci"
# What a static program is to the script: bytes.
PAUSE = b"\x7fELF pause"
MODES = {"dev", "etc", "proc", "root", "run", "sys", "usr", "var"}


def load(script: str) -> dict[str, typing.Any]:
    return runpy.run_path(str(OCI / script), run_name="loaded")


@pytest.fixture
def archive(tmp_path: pathlib.Path) -> pathlib.Path:
    """The archive of the node's images."""
    (tmp_path / "pause").write_bytes(PAUSE)
    made = tmp_path / "images.tar"
    load("make_images.py")["main"](str(tmp_path / "pause"), "arm64", str(made))
    return made


def read(archive: pathlib.Path) -> dict[str, bytes]:
    """The archive's files."""
    found = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
    return found


def find_blob(
    files: collections.abc.Mapping[str, bytes], descriptor: dict[str, typing.Any]
) -> bytes:
    """What a descriptor stands for; its size and digest must be right."""
    algorithm, _, digest = descriptor["digest"].partition(":")
    content = files[f"blobs/{algorithm}/{digest}"]
    assert (algorithm, len(content)) == ("sha256", descriptor["size"])
    assert hashlib.sha256(content).hexdigest() == digest
    return content


def test_the_archive_is_the_same_at_each_build(
    archive: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    again = tmp_path / "again.tar"
    load("make_images.py")["main"](str(tmp_path / "pause"), "arm64", str(again))
    assert again.read_bytes() == archive.read_bytes()


def test_the_archive_is_a_whole_oci_layout(archive: pathlib.Path) -> None:
    files = read(archive)
    index = json.loads(files["index.json"])
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    seen = {"oci-layout", "index.json"}
    names = []
    for descriptor in index["manifests"]:
        names.append(descriptor["annotations"]["io.containerd.image.name"])
        manifest = json.loads(find_blob(files, descriptor))
        config = json.loads(find_blob(files, manifest["config"]))
        layers = [find_blob(files, layer) for layer in manifest["layers"]]
        assert config["rootfs"]["diff_ids"] == [
            f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers
        ]
        assert (config["os"], config["architecture"]) == ("linux", "arm64")
        parts = [descriptor, manifest["config"], *manifest["layers"]]
        seen |= {"blobs/" + part["digest"].replace(":", "/") for part in parts}
    assert names == ["p8s.local/pause:1", manifests.NODE_IMAGE]
    assert set(files) == seen


def open_layer(archive: pathlib.Path, name: str, target: pathlib.Path) -> tarfile.TarFile:
    files = read(archive)
    for descriptor in json.loads(files["index.json"])["manifests"]:
        if descriptor["annotations"]["io.containerd.image.name"] == name:
            (layer,) = json.loads(find_blob(files, descriptor))["layers"]
            target.write_bytes(find_blob(files, layer))
    return tarfile.open(target)


def test_the_pause_image_is_one_program(archive: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with open_layer(archive, "p8s.local/pause:1", tmp_path / "layer") as layer:
        (member,) = layer.getmembers()
        file = layer.extractfile(member)
        assert file is not None
        assert (member.name, member.mode, file.read()) == ("pause", 0o755, PAUSE)


def test_the_node_image_is_an_empty_root_of_a_merged_usr(
    archive: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with open_layer(archive, "p8s.local/node:1", tmp_path / "layer") as layer:
        members = layer.getmembers()
    directories = {member.name: member.mode for member in members if member.isdir()}
    links = {member.name: member.linkname for member in members if member.issym()}
    assert directories == dict.fromkeys(MODES, 0o755) | {"tmp": 0o1777}
    assert links == {
        "bin": "usr/bin",
        "lib": "usr/lib",
        "lib64": "usr/lib64",
        "sbin": "usr/sbin",
        "var/run": "/run",
    }
    assert len(members) == len(directories) + len(links)


def test_versions_are_gathered_as_each_project_writes_them(tmp_path: pathlib.Path) -> None:
    for directory, versions in (
        ("one", {"kubernetes": "v1.37.2\n", "etcd": "v3.6.16\n"}),
        ("two", {"python": "3.13.5\n", "crun": " 1.21 \n"}),
    ):
        (tmp_path / directory).mkdir()
        for name, text in versions.items():
            (tmp_path / directory / name).write_text(text)
    output = tmp_path / "usr/share/versions.json"
    load("write_versions.py")["main"](output, [tmp_path / "one", tmp_path / "two"])
    assert json.loads(output.read_text()) == {
        "kubernetes": "v1.37.2",
        "etcd": "3.6.16",
        "python": "3.13.5",
        "crun": "1.21",
    }
    assert (
        output.read_text()
        == json.dumps(json.loads(output.read_text()), indent=2, sort_keys=True) + "\n"
    )
