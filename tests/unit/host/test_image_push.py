"""A push of the engine to `p8s load`: what it need not send, what comes of it, and who gets in."""

from __future__ import annotations

import collections.abc
import gzip
import hashlib
import io
import json
import re
import socket
import tarfile

import pytest
import requests

from p8s_supervisor import errors
from p8s_supervisor.host import clusters, docker_host, image_push

MIB = 1024 * 1024
LOW, TOP = b"low" * 1000, b"top" * 1000
SECRET = "the engine's ID"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


CONFIG = json.dumps({"rootfs": {"diff_ids": [digest_of(LOW), digest_of(TOP)]}}).encode()
IMAGE = clusters.Image(
    identity=digest_of(CONFIG),
    size=100 * MIB,
    architecture="amd64",
    tags=("app:1",),
    layers=(digest_of(LOW), digest_of(TOP)),
)
NAME = "docker.io/library/app:1"
WANTED = image_push.Wanted(name=NAME, image=IMAGE, missing=10)


class Engine(docker_host.Engine):
    """An engine with one image.

    Attributes:
        pushed: what it sends: layers, with None for one that is there by its digest, and the configuration.
        sizes: of the image's layers, the highest first.
        local: whether it is on this host.
    """

    def __init__(self, *pushed: bytes, sizes: tuple[int, ...] = (10, 90 * MIB)) -> None:
        self.pushed = pushed
        self.sizes = list(sizes)
        self.local = True
        self.found: list[bool] = []  # by HEAD, in turn

    def identity(self) -> str:
        return SECRET

    def is_local(self) -> bool:
        return self.local

    def list_layer_sizes(self, name: str) -> list[int]:
        assert name == NAME
        return self.sizes

    def push_image(self, name: str, repository: str) -> None:
        """As dockerd does it: layers and configuration, then the manifest that names all of them."""
        host, _, path = repository.partition("/")
        base = f"http://{host}/v2"
        assert requests.get(f"{base}/", timeout=5).status_code == 200
        for content in self.pushed:
            digest = digest_of(content)
            there = requests.head(f"{base}/{path}/blobs/{digest}", timeout=5).status_code
            self.found.append(there == 200)
            begun = requests.post(f"{base}/{path}/blobs/uploads/", timeout=5)
            assert begun.status_code == 202
            upload = f"http://{host}{begun.headers['Location']}"
            chunks = iter([content[:500], content[500:]])  # as in a transfer without a length
            sent = requests.patch(upload, data=chunks, timeout=5)
            assert (sent.status_code, sent.headers["Range"]) == (202, f"0-{len(content) - 1}")
            done = requests.put(f"{upload}?digest={digest.replace(':', '%3A')}", timeout=5)
            assert (done.status_code, done.headers["Docker-Content-Digest"]) == (201, digest)
        layers = [{"digest": digest_of(gzip.compress(layer, mtime=0))} for layer in (LOW, TOP)]
        manifest = json.dumps({"layers": layers}).encode()
        done = requests.put(f"{base}/{path}/manifests/1", data=manifest, timeout=5)
        assert (done.status_code, done.headers["Docker-Content-Digest"]) == (
            201,
            digest_of(manifest),
        )


def unpack(packed: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        return {
            entry.name: content.read()
            for entry in archive
            if (content := archive.extractfile(entry)) is not None
        }


def test_what_is_missing_and_the_configuration_make_an_archive() -> None:
    low, top = (gzip.compress(layer, mtime=0) for layer in (LOW, TOP))
    engine = Engine(low, top, CONFIG)
    told: list[int] = []
    made = unpack(image_push.fetch(engine, WANTED, {digest_of(LOW)}, told=told.append))
    entry = {
        "Config": digest_of(CONFIG),
        "RepoTags": [NAME],
        "Layers": [digest_of(low), digest_of(top)],
    }
    assert json.loads(made.pop("manifest.json")) == [entry]
    assert made == {digest_of(CONFIG): CONFIG, digest_of(top): top}
    assert sum(told) == len(low) + len(top) + len(CONFIG)


def test_every_layer_need_not_be_sent_and_the_configuration_must() -> None:
    engine = Engine(gzip.compress(TOP, mtime=0), CONFIG)
    image_push.fetch(engine, WANTED, {digest_of(LOW)})
    assert engine.found == [True, False]


@pytest.mark.parametrize(
    "pushed",
    [
        pytest.param((CONFIG,), id="a layer that the engine took to be there"),
        pytest.param((gzip.compress(TOP, mtime=0),), id="no configuration"),
        pytest.param((), id="nothing"),
    ],
)
def test_what_does_not_come_is_missed(pushed: tuple[bytes, ...]) -> None:
    with pytest.raises(errors.P8sError, match=r"did not push all of docker\.io/library/app:1"):
        image_push.fetch(Engine(*pushed), WANTED, {digest_of(LOW)})


def test_an_upload_that_is_too_large_is_taken_and_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    low, top = (gzip.compress(layer, mtime=0) for layer in (LOW, TOP))
    monkeypatch.setattr(image_push, "MOST_KEPT", max(len(top), len(CONFIG)))
    large = b"large" * 1000
    assert image_push.fetch(Engine(large, top, CONFIG), WANTED, {digest_of(LOW)})
    monkeypatch.setattr(image_push, "MOST_KEPT", len(CONFIG))
    with pytest.raises(errors.P8sError):
        image_push.fetch(Engine(low, large, CONFIG), WANTED, set())


@pytest.mark.parametrize(
    ("present", "sizes", "local", "missing"),
    [
        pytest.param([LOW], (10, 90 * MIB), True, 10, id="a small layer is missing"),
        pytest.param([LOW, TOP], (10, 90 * MIB), True, 0, id="the configuration alone"),
        pytest.param([LOW], (0, 10, 90 * MIB), True, 10, id="steps without a layer"),
        pytest.param([], (10, 90 * MIB), True, None, id="all is missing"),
        pytest.param([TOP], (10, 90 * MIB), True, None, id="what is below is missing"),
        pytest.param([LOW], (17 * MIB, 83 * MIB), True, None, id="a large layer is missing"),
        pytest.param([LOW], (10, 90 * MIB), False, None, id="an engine elsewhere"),
    ],
)
def test_when_it_is_pushed(
    present: list[bytes], sizes: tuple[int, ...], local: bool, missing: int | None
) -> None:
    engine = Engine(sizes=sizes)
    engine.local = local
    found = image_push.choose(engine, NAME, IMAGE, set(map(digest_of, present)))
    assert (found.missing if found else None) == missing


@pytest.mark.parametrize("size", [20 * MIB, 2000 * MIB], ids=["a small image", "a huge image"])
def test_an_image_whose_layers_are_not_worth_it(size: int) -> None:
    image = clusters.Image(
        identity="sha256:1", size=size, architecture="amd64", tags=(), layers=IMAGE.layers
    )
    assert image_push.choose(Engine(), NAME, image, {digest_of(LOW)}) is None


@pytest.fixture
def registry() -> collections.abc.Iterator[image_push.Registry]:
    with image_push.Registry(SECRET, IMAGE.identity, lambda _: None) as made:
        yield made


def test_the_repository_is_the_same_each_time_and_no_one_guesses_it(
    registry: image_push.Registry,
) -> None:
    with image_push.Registry(SECRET, "sha256:2", lambda _: None) as other:
        ports = {made.repository.partition("/")[0] for made in (registry, other)}
        assert len(ports) == 2, "another load at the same time has another port"
        assert other.name == registry.name
    assert re.fullmatch(r"127\.0\.0\.1:\d+/p8s/[0-9a-f]{32}", registry.repository)
    assert SECRET not in registry.name


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/_catalog"),
        ("HEAD", f"/v2/p8s/other/blobs/{digest_of(LOW)}"),
        ("POST", "/v2/p8s/other/blobs/uploads/"),
        ("PATCH", "/v2/p8s/other/blobs/uploads/0"),
        ("PUT", f"/v2/p8s/other/blobs/uploads/0?digest={digest_of(LOW)}"),
        ("PUT", "/v2/p8s/other/manifests/1"),
        ("PUT", "/"),
    ],
)
def test_who_does_not_know_the_repository_gets_nowhere(
    registry: image_push.Registry, method: str, path: str
) -> None:
    registry.begin()
    host = registry.repository.partition("/")[0]
    answer = requests.request(method, f"http://{host}{path}", data=b"x", timeout=5)
    assert answer.status_code == 404
    with pytest.raises(errors.P8sError):
        registry.make_archive(WANTED, set())


def test_it_listens_no_longer_than_the_push() -> None:
    with image_push.Registry(SECRET, IMAGE.identity, lambda _: None) as made:
        host, _, port = made.repository.partition("/")[0].partition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5)
