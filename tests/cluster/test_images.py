"""Images that are streamed into the node; into one whose disk is full, in tests/faults/test_disk.py."""

from __future__ import annotations

import gzip
import io
import json
import pathlib
import subprocess
import tarfile
import typing

import pytest
import requests

from tests.cluster import nodes

Files = dict[str, bytes]
# A shell and what it needs, out of the node's image: no other one is sure to be there.
DOCKERFILE = r"""
FROM {base} AS parts
RUN set -e; programs="/bin/sh /bin/cat /bin/sleep"; \
    for file in $programs $(ldd $programs | grep -o '/[^ :]* ' | sort -u); do \
        mkdir -p /out$(dirname $file); cp -L $file /out$file; \
    done
FROM scratch
COPY --from=parts /out /
RUN echo {word} > /word
CMD ["sh", "-c", "cat /word; exec sleep 600"]
"""


class Saved(typing.NamedTuple):
    """An image of the docker engine and its archive."""

    name: str
    word: str
    files: Files
    content: bytes

    @property
    def full_name(self) -> str:
        return f"docker.io/library/{self.name}"


def read_tar(content: bytes) -> Files:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {
            member.name: file.read()
            for member in tar
            if (file := tar.extractfile(member)) is not None
        }


def make_tar(files: Files) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture(scope="module")
def saved() -> typing.Iterator[Saved]:
    """An image of two layers that only the docker engine has."""
    word = nodes.unique("word")
    name = f"{nodes.unique('p8s-test')}:1"
    text = DOCKERFILE.format(base=nodes.IMAGE, word=word)
    subprocess.run(
        ["docker", "build", "--quiet", f"--tag={name}", "-"],
        input=text.encode(),
        check=True,
        capture_output=True,
    )
    try:
        content = subprocess.run(["docker", "save", name], check=True, capture_output=True).stdout
        yield Saved(name, word, read_tar(content), content)
    finally:
        nodes.docker("rmi", "--force", name)


def load(node: nodes.Node, content: bytes) -> requests.Response:
    return requests.post(node.url("/images"), data=content, timeout=120)


def list_images(node: nodes.Node) -> dict[str, typing.Any]:
    return typing.cast("dict[str, typing.Any]", node.get("/images").json())


def names_in(node: nodes.Node) -> set[str]:
    return {image["name"] for image in list_images(node)["images"]}


def layers_of(saved: Saved) -> list[str]:
    """The files of the layers, the lowest first."""
    layers: list[str] = json.loads(saved.files["manifest.json"])[0]["Layers"]
    return layers


def run_pod(admin: nodes.Kubectl, name: str, image: str) -> str:
    """The output of a pod that may not pull."""
    admin("run", name, f"--image={image}", "--image-pull-policy=Never", "--restart=Never")
    admin.await_ready(f"pod/{name}")
    return admin("logs", name).strip()


def remove(node: nodes.Node, *names: str) -> None:
    """Forget images, and collect what only they had."""
    node.execute("ctr", "--namespace=k8s.io", "images", "rm", "--sync", *names, check=False)


def make_older(saved: Saved, name: str) -> Files:
    """The archive as docker wrote it before 25: no layout, layers in directories."""
    (entry,) = json.loads(saved.files["manifest.json"])
    layers = {
        f"{number}/layer.tar": saved.files[path] for number, path in enumerate(layers_of(saved))
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": list(layers)}]
    config = saved.files[entry["Config"]]
    return {**layers, "config.json": config, "manifest.json": json.dumps(manifest).encode()}


def test_what_docker_saves_runs(
    cluster: nodes.Node, admin: nodes.Kubectl, namespace: str, saved: Saved
) -> None:
    assert saved.full_name not in names_in(cluster)
    answer = load(cluster, saved.content)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"images": [saved.full_name]}
    # At once: CRI knows it when the answer is there.
    assert run_pod(admin, "saved", saved.name) == saved.word
    found = list_images(cluster)
    assert saved.full_name in {image["name"] for image in found["images"]}
    digests = {"sha256:" + path.rpartition("/")[2] for path in layers_of(saved)}
    assert digests <= set(found["blobs"])


def test_layers_that_the_node_has_may_be_left_out(
    cluster: nodes.Node, admin: nodes.Kubectl, namespace: str, saved: Saved
) -> None:
    assert load(cluster, saved.content).status_code == 200
    blobs = list_images(cluster)["blobs"]
    present = [path for path in layers_of(saved) if f"sha256:{path.rpartition('/')[2]}" in blobs]
    assert present == layers_of(saved)
    less = make_tar({name: data for name, data in saved.files.items() if name not in present})
    assert len(less) < 100_000 < len(saved.content)
    answer = load(cluster, less)
    assert answer.json() == {"images": [saved.full_name]}, answer.text
    assert run_pod(admin, "less", saved.name) == saved.word


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "without the layers"])
def test_the_older_form_runs(
    *, cluster: nodes.Node, admin: nodes.Kubectl, namespace: str, saved: Saved, whole: bool
) -> None:
    name = f"{nodes.unique('older')}:1"
    files = make_older(saved, name)
    if not whole:
        assert load(cluster, saved.content).status_code == 200
        files = {path: data for path, data in files.items() if not path.endswith("layer.tar")}
    answer = load(cluster, gzip.compress(make_tar(files), compresslevel=1))
    assert answer.json() == {"images": [f"docker.io/library/{name}"]}, answer.text
    assert run_pod(admin, "older", name) == saved.word


def test_a_name_moves_to_what_is_loaded_last(
    cluster: nodes.Node, admin: nodes.Kubectl, namespace: str, saved: Saved
) -> None:
    name = f"{nodes.unique('moving')}:1"
    assert load(cluster, make_tar(make_older(saved, name))).status_code == 200
    files = make_older(saved, name)
    config = json.loads(files["config.json"])
    config["config"]["Cmd"] = ["sh", "-c", "echo another; exec sleep 600"]
    files["config.json"] = json.dumps(config).encode()
    less = {path: data for path, data in files.items() if not path.endswith("layer.tar")}
    assert load(cluster, make_tar(less)).status_code == 200
    assert run_pod(admin, "moved", name) == "another"


def break_(saved: Saved, how: str) -> tuple[bytes, str]:
    """A broken archive, and what is said of it."""
    files = make_older(saved, "broken:1")
    if how == "cut off":
        return saved.content[: len(saved.content) // 2], "unexpected end of data"
    if how == "no archive":
        return b"hello\n" * 1000, "invalid header"
    if how == "nothing":
        return b"", "empty file"
    if how == "another architecture":
        config = json.loads(files["config.json"]) | {"architecture": "s390x"}
        files["config.json"] = json.dumps(config).encode()
        return make_tar(files), "broken:1 is for linux/s390x, and this node is linux/"
    if how == "a damaged layer":
        files["1/layer.tar"] = files["1/layer.tar"].replace(
            saved.word.encode(), b"x" * len(saved.word)
        )
        return make_tar(files), "a layer of docker.io/library/broken:1 is damaged"
    config = json.loads(files["config.json"])
    config["rootfs"]["diff_ids"][0] = f"sha256:{'0' * 64}"
    files["config.json"] = json.dumps(config).encode()
    del files["0/layer.tar"]
    return make_tar(files), "neither in it nor in the node: sha256:000"


@pytest.mark.parametrize(
    "how",
    [
        "cut off",
        "no archive",
        "nothing",
        "another architecture",
        "a damaged layer",
        "a layer that nobody has",
    ],
)
def test_what_cannot_be_loaded_is_told_and_leaves_nothing(
    cluster: nodes.Node, saved: Saved, how: str
) -> None:
    remove(cluster, saved.full_name)
    before = list_images(cluster)
    content, reason = break_(saved, how)
    answer = load(cluster, content)
    problem = answer.json()
    assert answer.status_code == 400, answer.text
    assert reason in problem["detail"]
    assert problem["hint"]
    after = list_images(cluster)
    assert after["images"] == before["images"]
    assert set(after["blobs"]) <= set(before["blobs"])
    assert cluster.execute("ctr", "--namespace=k8s.io", "content", "active").split() == [
        "REF",
        "SIZE",
        "AGE",
    ]


def test_the_archive_is_read_as_it_comes(
    cluster: nodes.Node, saved: Saved, tmp_path: pathlib.Path
) -> None:
    """Of unknown length, as `docker save | curl -T -` sends it."""
    file = tmp_path / "saved.tar"
    file.write_bytes(saved.content)

    def parts() -> typing.Iterator[bytes]:
        with file.open("rb") as content:
            while part := content.read(1 << 20):
                yield part

    answer = requests.post(cluster.url("/images"), data=parts(), timeout=120)
    assert answer.json() == {"images": [saved.full_name]}, answer.text
