"""`p8s load` without an engine and without a cluster: what is sent, and what is said."""

from __future__ import annotations

import collections.abc
import hashlib
import io
import json
import pathlib
import tarfile
import typing

import pytest
from click import testing

from p8s_supervisor import errors
from p8s_supervisor.host import (
    cli_load,
    cli_options,
    client,
    clusters,
    docker_host,
    image_push,
)
from tests import fakes

LAYER, CONFIG = b"layer" * 10_000, b'{"rootfs": {}}'


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def pack() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in (
            (f"blobs/{digest_of(LAYER).replace(':', '/')}", LAYER),
            (f"blobs/{digest_of(CONFIG).replace(':', '/')}", CONFIG),
            ("index.json", b"{}"),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


class Api(client.Client):
    """A cluster's API.

    Attributes:
        known: what `images` gives.
        refusals: what `load` raises in turn, before it takes one.
        loaded: the archives that came.
    """

    def __init__(self, *present: bytes, refusals: collections.abc.Iterable[Exception] = ()) -> None:
        self.known: dict[str, typing.Any] = {"images": [], "blobs": list(map(digest_of, present))}
        self.refusals = list(refusals)
        self.loaded: list[bytes] = []

    def images(self) -> dict[str, typing.Any]:
        return self.known

    def load(self, content: collections.abc.Iterable[bytes]) -> list[str]:
        self.loaded.append(b"".join(content))
        if self.refusals:
            raise self.refusals.pop(0)
        return ["docker.io/library/app:1"]


class Engine(docker_host.Engine):
    """An engine with images.

    Attributes:
        exported: the names that were asked for.
    """

    def __init__(self, **images: str) -> None:
        self._images = {name.replace("_", ":"): identity for name, identity in images.items()}
        self.exported: list[str] = []

    def find_image(self, name: str) -> clusters.Image | None:
        if name not in self._images:
            return None
        tags = [tag for tag, identity in self._images.items() if identity == self._images[name]]
        return clusters.Image(
            identity=self._images[name],
            size=len(LAYER),
            architecture="amd64",
            tags=tuple(tag for tag in tags if ":" in tag),
        )

    def export_image(self, name: str) -> collections.abc.Iterator[bytes]:
        self.exported.append(name)
        packed = pack()
        yield packed[:1000]
        yield packed[1000:]


def run(
    monkeypatch: pytest.MonkeyPatch, api: Api, engine: Engine, *arguments: str
) -> testing.Result:
    monkeypatch.setattr(cli_options, "reach", lambda _: api)
    monkeypatch.setattr(docker_host, "connect", lambda **_: engine)
    return testing.CliRunner().invoke(cli_load.load, arguments)


def test_what_the_cluster_has_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(app_1="sha256:c1")
    done = run(monkeypatch, api := Api(LAYER), engine, "app:1", "--output=json")
    assert done.exit_code == 0, done.output
    [one] = json.loads(done.stdout)
    assert one["skipped"] == len(LAYER)
    assert one["sent"] == len(api.loaded[0]) < len(LAYER)
    assert engine.exported == ["docker.io/library/app:1"]


def test_an_image_that_the_cluster_has_is_not_even_exported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api, engine = Api(), Engine(app_1="sha256:c1")
    api.known["images"] = [
        {"name": "docker.io/library/app:1", "digest": "sha256:m1", "config": "sha256:c1"}
    ]
    done = run(monkeypatch, api, engine, "app:1", "--output=json")
    assert json.loads(done.stdout) == [
        {"names": ["docker.io/library/app:1"], "sent": 0, "skipped": len(LAYER)}
    ]
    assert (engine.exported, api.loaded) == ([], [])


def test_the_second_image_is_sent_without_what_the_first_brought(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine(app_1="sha256:c1", app_2="sha256:c2")
    done = run(monkeypatch, Api(), engine, "app:1", "app:2", "--output=json")
    assert [one["skipped"] for one in json.loads(done.stdout)] == [0, len(LAYER)]


def test_what_was_removed_meanwhile_is_sent_after_all(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = errors.RequestError("layers are neither in it nor in the node", status=400)
    api = Api(LAYER, refusals=[missing])
    done = run(monkeypatch, api, Engine(app_1="sha256:c1"), "app:1", "--output=json")
    assert json.loads(done.stdout)[0]["skipped"] == 0
    assert [LAYER in archive for archive in api.loaded] == [False, True]


@pytest.mark.parametrize(
    ("present", "status", "times"),
    [
        pytest.param((), 400, 1, id="all of it was sent"),
        pytest.param((LAYER,), 503, 1, id="the node is not ready"),
        pytest.param((LAYER,), 0, 1, id="nothing answers"),
        pytest.param((LAYER,), 400, 2, id="refused twice"),
    ],
)
def test_a_refusal_is_told(
    monkeypatch: pytest.MonkeyPatch, present: tuple[bytes, ...], status: int, times: int
) -> None:
    refusal = errors.RequestError("no", status=status)
    api = Api(*present, refusals=[refusal, refusal])
    done = run(monkeypatch, api, Engine(app_1="sha256:c1"), "app:1")
    assert done.exception is refusal
    assert len(api.loaded) == times


@pytest.mark.parametrize(
    ("fetched", "refusals", "sent", "exported"),
    [
        pytest.param(b"pushed", 0, [b"pushed"], 0, id="pushed"),
        pytest.param(errors.P8sError("out of reach"), 0, [pack()], 1, id="no push"),
        pytest.param(b"pushed", 1, [b"pushed", pack()], 1, id="refused by the node"),
    ],
)
def test_where_little_has_changed_the_engine_pushes(
    monkeypatch: pytest.MonkeyPatch,
    fetched: bytes | errors.P8sError,
    refusals: int,
    sent: list[bytes],
    exported: int,
) -> None:
    def fetch(*_: object, **__: object) -> bytes:
        if isinstance(fetched, bytes):
            return fetched
        raise fetched

    def choose(_: object, name: str, image: clusters.Image, __: object) -> image_push.Wanted:
        return image_push.Wanted(name=name, image=image, missing=1000)

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(image_push, "choose", choose)
    monkeypatch.setattr(image_push, "fetch", fetch)
    api = Api(refusals=[errors.RequestError("no", status=400)] * refusals)
    engine = Engine(app_1="sha256:c1")
    done = run(monkeypatch, api, engine, "app:1", "--output=json")
    [one] = json.loads(done.stdout)
    assert [archive[:100] for archive in api.loaded] == [archive[:100] for archive in sent]
    assert len(engine.exported) == exported
    if not exported:
        assert (one["sent"], one["skipped"]) == (len(b"pushed"), len(LAYER) - 1000)


def test_in_a_ci_job_nothing_is_pushed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr(image_push, "choose", fakes.forbid)
    engine = Engine(app_1="sha256:c1")
    assert run(monkeypatch, Api(), engine, "app:1").exit_code == 0
    assert len(engine.exported) == 1


def test_every_name_that_is_wrong_is_told_and_nothing_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine(app_1="sha256:c1", c0ffee="sha256:c0ffee00")
    done = run(monkeypatch, api := Api(), engine, "app:1", "other:1", "c0ffee")
    assert isinstance(done.exception, errors.P8sError)
    assert "no image other:1" in done.exception.message
    assert "docker tag c0ffee NAME:TAG" in done.exception.message
    assert api.loaded == []


def test_an_archive(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "app.tar"
    file.write_bytes(pack())
    done = run(monkeypatch, Api(LAYER), Engine(), f"--archive={file}")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[1].split() == [
        *("docker.io/library/app:1", "3", "KiB", "49", "KiB")
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param([], "name an image", id="nothing"),
        pytest.param(["--archive=/nonexistent"], "does not exist", id="no such archive"),
    ],
)
def test_wrong_arguments(monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str) -> None:
    done = run(monkeypatch, Api(), Engine(), *arguments)
    assert done.exit_code == 2
    assert told in done.output
