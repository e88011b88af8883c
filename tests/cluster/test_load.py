"""`p8s load` from the engine and from archives; only what is missing is sent."""

from __future__ import annotations

import io
import json
import pathlib
import subprocess
import sys
import tarfile
import typing

import pytest

from tests.cluster import conftest, nodes

MIB = 1024 * 1024
# Less than a static binary has.
LARGE = 20 * MIB


def run_load(node: nodes.Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-c", "from p8s_supervisor.host import cli; cli.main()"),
            *("load", f"--name={node.name}", *arguments),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def load(node: nodes.Node, *arguments: str) -> list[dict[str, typing.Any]]:
    done = run_load(node, "--output=json", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return typing.cast("list[dict[str, typing.Any]]", json.loads(done.stdout))


class Images:
    """Images with one large layer and a small one over it, built here without a registry."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder, self.repository = folder, nodes.unique("p8s-test")
        conftest.copy_out("/usr/local/bin/etcd", folder / "etcd")
        (folder / "Dockerfile").write_text("FROM scratch\nCOPY etcd /\nCOPY small /\n")

    def build(self, tag: str, content: str) -> str:
        (self._folder / "small").write_text(content)
        name = f"{self.repository}:{tag}"
        nodes.docker("build", "--quiet", f"--tag={name}", str(self._folder))
        return name

    def remove(self) -> None:
        for name in nodes.docker(
            "images", "--quiet", "--no-trunc", f"--filter=reference={self.repository}"
        ).split():
            nodes.docker("rmi", "--force", name, check=False)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[Images]:
    made = Images(tmp_path_factory.mktemp("image"))
    yield made
    made.remove()


def run_pod(admin: nodes.Kubectl, image: str, name: str = "loaded") -> str:
    admin(
        *("run", name, f"--image={image}", "--image-pull-policy=Never", "--restart=Never"),
        *("--command", "--", "/etcd", "--version"),
    )
    admin("wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    return admin("logs", name)


@pytest.mark.usefixtures("namespace")
def test_an_image_that_only_the_engine_has_runs(
    cluster: nodes.Node, admin: nodes.Kubectl, images: Images
) -> None:
    name = images.build("1", "one")
    [first] = load(cluster, name)
    assert first["names"] == [f"docker.io/library/{name}"]
    assert first["sent"] > LARGE
    assert first["skipped"] == 0
    assert "etcd Version" in run_pod(admin, name)


def test_of_a_changed_image_only_the_changed_layer_is_sent(
    cluster: nodes.Node, images: Images
) -> None:
    load(cluster, images.build("2", "one"))
    [changed] = load(cluster, images.build("2", "two"))
    assert changed["sent"] < MIB
    assert changed["skipped"] > LARGE
    [again] = load(cluster, images.build("2", "two"))
    assert again["sent"] < MIB


def test_several_images_share_what_was_sent(cluster: nodes.Node, images: Images) -> None:
    names = [images.build("3", "three"), images.build("4", "four")]
    found = load(cluster, *names)
    assert [one["names"] for one in found] == [[f"docker.io/library/{name}"] for name in names]
    assert found[1]["sent"] < MIB


@pytest.mark.usefixtures("namespace")
def test_an_archive(
    cluster: nodes.Node, admin: nodes.Kubectl, images: Images, tmp_path: pathlib.Path
) -> None:
    name, archive = images.build("5", "five"), tmp_path / "image.tar"
    nodes.docker("save", f"--output={archive}", name)
    [found] = load(cluster, f"--archive={archive}")
    assert found["names"] == [f"docker.io/library/{name}"]
    assert "etcd Version" in run_pod(admin, name)
    [again] = load(cluster, f"--archive={archive}")
    assert again["sent"] < MIB
    assert again["skipped"] > LARGE


def test_an_archive_of_the_form_before_docker_25(
    cluster: nodes.Node, images: Images, tmp_path: pathlib.Path
) -> None:
    name = images.build("8", "eight")
    load(cluster, name)
    written, older = tmp_path / "written.tar", tmp_path / "older.tar"
    nodes.docker("save", f"--output={written}", name)
    tag = f"{images.repository}:older"
    with tarfile.open(written) as source, tarfile.open(older, "w") as target:
        [image] = json.load(read(source, "manifest.json"))
        names = {image["Config"]: "config.json"}
        names |= {layer: f"{n}/layer.tar" for n, layer in enumerate(image["Layers"])}
        for before, after in names.items():
            entry = source.getmember(before)
            content = read(source, before)
            entry.name = after
            target.addfile(entry, content)
        manifest = json.dumps(
            [
                {
                    "Config": "config.json",
                    "RepoTags": [tag],
                    "Layers": [names[layer] for layer in image["Layers"]],
                }
            ]
        ).encode()
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(manifest)
        target.addfile(entry, io.BytesIO(manifest))
    [found] = load(cluster, f"--archive={older}")
    assert found["names"] == [f"docker.io/library/{tag}"]
    assert found["sent"] < MIB


def read(archive: tarfile.TarFile, name: str) -> typing.IO[bytes]:
    content = archive.extractfile(name)
    assert content is not None
    return content


def test_a_table_for_people(cluster: nodes.Node, images: Images) -> None:
    done = run_load(cluster, images.build("6", "six"))
    assert done.returncode == 0, done.stderr
    heading, row = done.stdout.splitlines()
    assert heading.split() == ["IMAGE", "SENT", "ALREADY", "THERE"]
    assert row.startswith(f"docker.io/library/{images.repository}:6 ")
    assert done.stderr == ""


def test_every_image_that_the_engine_has_not_is_named(cluster: nodes.Node) -> None:
    done = run_load(cluster, "p8s.local/none:1", "p8s.local/none:2")
    assert done.returncode == 1
    assert "no image p8s.local/none:1" in done.stderr
    assert "no image p8s.local/none:2" in done.stderr
    assert "hint: " in done.stderr


def test_an_image_without_a_name_is_refused(cluster: nodes.Node, images: Images) -> None:
    identity = nodes.docker("inspect", "--format={{.Id}}", images.build("7", "seven")).strip()
    done = run_load(cluster, identity)
    assert done.returncode == 1
    assert "docker tag" in done.stderr


def test_what_is_no_archive_is_refused(cluster: nodes.Node, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "no.tar"
    file.write_bytes(b"nothing of that kind" * 1000)
    done = run_load(cluster, f"--archive={file}")
    assert done.returncode == 1
    assert "not a whole image archive" in done.stderr
    assert "docker save" in done.stderr


def test_a_cluster_that_is_not_there(cluster: nodes.Node) -> None:
    missing = nodes.Node("p8s-test-missing", cluster.http_port, cluster.api_port)
    done = run_load(missing, "any")
    assert done.returncode == 1
    assert "there is no cluster p8s-test-missing" in done.stderr
