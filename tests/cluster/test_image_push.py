"""What `p8s load` gets of an image that the engine pushes to it, by the real engine."""

from __future__ import annotations

import gzip
import io
import json
import os
import pathlib
import tarfile
import typing

import pytest

from p8s_supervisor.host import clusters, docker_host, image_push
from tests.cluster import nodes

MIB = 1024 * 1024
# What the engine compresses at the first push; the rest is found at once.
LARGE = os.urandom(MIB) + bytes(40 * MIB)


class Images:
    """Images of a large layer and a small one over it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder, self.repository = folder, nodes.unique("p8s-test")
        (folder / "large").write_bytes(LARGE)
        (folder / "Dockerfile").write_text("FROM scratch\nCOPY large /\nENV A=b\nCOPY small /\n")

    def build(self, content: str) -> str:
        """An image with a small layer of its own; its name."""
        (self._folder / "small").write_text(content)
        name = f"docker.io/library/{self.repository}:{content}"
        nodes.docker("build", "--quiet", f"--tag={name}", str(self._folder))
        return name


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[Images]:
    made = Images(tmp_path_factory.mktemp("images"))
    yield made
    names = nodes.docker("images", "--quiet", f"--filter=reference={made.repository}").split()
    nodes.docker("rmi", "--force", *names, check=False)


@pytest.fixture(scope="module")
def engine() -> docker_host.Engine:
    return docker_host.connect()


def find(engine: docker_host.Engine, name: str) -> clusters.Image:
    found = engine.find_image(name)
    assert found is not None
    return found


def fetch(engine: docker_host.Engine, name: str) -> tuple[bytes, list[int]]:
    """The archive of an image whose lowest layer is there, and what the engine sent for it."""
    image = find(engine, name)
    present = {image.layers[0]}
    wanted = image_push.choose(engine, name, image, present)
    assert wanted is not None
    assert wanted.missing < 100
    told: list[int] = []
    return image_push.fetch(engine, wanted, present, told=told.append), told


def test_only_what_is_missing_comes_and_no_name_is_left(
    engine: docker_host.Engine, images: Images
) -> None:
    name = images.build("one")
    packed, told = fetch(engine, name)
    assert len(packed) < 100 * 1024
    assert sum(told) > MIB, "the engine had to compress the large layer"
    image = find(engine, name)
    assert image.tags == (f"{images.repository}:one",)
    assert nodes.docker("inspect", "--format={{len .RepoDigests}}", name) == "0\n"
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        (entry,) = json.loads(read(archive, "manifest.json"))
        assert (entry["Config"], entry["RepoTags"]) == (image.identity, [name])
        layer = gzip.decompress(read(archive, entry["Layers"][1]))
        assert entry["Layers"][0] not in archive.getnames()
    with tarfile.open(fileobj=io.BytesIO(layer)) as inner:
        assert read(inner, "small") == b"one"


def test_the_engine_remembers_what_it_has_compressed(
    engine: docker_host.Engine, images: Images
) -> None:
    fetch(engine, images.build("two"))
    _, told = fetch(engine, images.build("three"))
    assert sum(told) < 100 * 1024


def read(archive: tarfile.TarFile, name: str) -> bytes:
    content = archive.extractfile(name)
    assert content is not None
    return content.read()
