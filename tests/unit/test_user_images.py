"""The directory with image archives: what is loaded, when again, and what is told."""

from __future__ import annotations

import json
import os
import pathlib
import typing

import pytest

from p8s_supervisor import context, errors, images, user_images
from tests import fakes

BROKEN = errors.RequestError("not an image archive: no manifest in it", status=400)
FULL = errors.RequestError("the disk is full", status=507)


class Node:
    """The node's images: what is asked for, by content, and what comes of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.there: set[str] = set()
        self.loaded: list[str] = []
        self.failures: dict[str, Exception] = {}
        monkeypatch.setattr(images, "list_images", self.list_images)
        monkeypatch.setattr(images, "load", self.load)

    def list_images(self, _: context.Context) -> dict[str, typing.Any]:
        return {"images": [{"name": name} for name in sorted(self.there)], "blobs": []}

    def load(self, _: context.Context, stream: typing.IO[bytes]) -> list[str]:
        content = stream.read().decode()
        self.loaded.append(content)
        if content in self.failures:
            raise self.failures[content]
        self.there.add(content)
        return [content]


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(monkeypatch)


@pytest.fixture
def story() -> list[str]:
    return []


@pytest.fixture
def run(tmp_path: pathlib.Path, story: list[str]) -> context.Context:
    made = fakes.make_context(tmp_path, story=story)
    user_images.directory(made).mkdir(parents=True)
    made.refused[user_images.PREFIX] = "they are not loaded yet"
    return made


def write(run: context.Context, **archives: str) -> None:
    for name, content in archives.items():
        (user_images.directory(run) / f"{name}.tar").write_text(content)


def test_archives_are_loaded_in_order_and_other_files_left_aside(
    run: context.Context, node: Node
) -> None:
    write(run, b="two", a="one")
    for name in ("README.md", ".hidden.tar"):
        (user_images.directory(run) / name).write_text("no archive")
    (user_images.directory(run) / "c.tar.gz").write_text("three")
    user_images.load(run)
    assert node.loaded == ["one", "two", "three"]
    assert run.refused == {}


def test_what_an_earlier_start_has_loaded_is_left_alone(run: context.Context, node: Node) -> None:
    write(run, a="one", b="two")
    user_images.load(run)
    user_images.load(run)
    assert node.loaded == ["one", "two"]
    node.there.remove("two")  # the garbage collector's
    user_images.load(run)
    assert node.loaded == ["one", "two", "two"]
    write(run, a="another")
    os.utime(user_images.directory(run) / "a.tar", ns=(1, 1))
    user_images.load(run)
    assert node.loaded[3:] == ["another"]


def test_an_archive_that_is_none_is_named_once_and_read_once(
    run: context.Context, node: Node, story: list[str]
) -> None:
    node.failures["broken"] = BROKEN
    write(run, a="broken", b="two")
    for _ in range(3):
        user_images.load(run)
    assert node.loaded == ["broken", "two"]
    assert run.refused == {"images/a.tar": BROKEN.message}
    assert story == [f"images/a.tar is not loaded: {BROKEN.message}"]
    write(run, a="mended")
    user_images.load(run)
    assert run.refused == {}


def test_what_may_work_later_is_tried_again(run: context.Context, node: Node) -> None:
    node.failures["one"] = FULL
    write(run, a="one")
    user_images.load(run)
    assert run.refused == {"images/a.tar": FULL.message}
    node.failures.clear()
    user_images.load(run)
    assert (node.loaded, run.refused) == (["one", "one"], {})


def test_a_record_that_is_damaged_is_made_anew(run: context.Context, node: Node) -> None:
    run.plan.paths.loaded_images.write_text("{")
    write(run, a="one")
    user_images.load(run)
    assert json.loads(run.plan.paths.loaded_images.read_text())["a.tar"]["names"] == ["one"]


def test_containerd_that_does_not_answer_is_told(
    run: context.Context, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def list_images(_: context.Context) -> typing.NoReturn:
        raise errors.RequestError("containerd does not answer", status=503)

    monkeypatch.setattr(images, "list_images", list_images)
    user_images.load(run)
    assert run.refused == {"images/.": "containerd does not answer"}


@pytest.mark.parametrize(
    ("arguments", "is_there", "asked"),
    [
        pytest.param([], False, False, id="nobody asks for any"),
        pytest.param([], True, True, id="there is a directory"),
        pytest.param(["--images=/srv/none"], False, True, id="a setting names one"),
    ],
)
def test_is_asked(
    tmp_path: pathlib.Path, arguments: list[str], is_there: bool, asked: bool
) -> None:
    run = fakes.make_context(tmp_path, *arguments)
    if is_there:
        user_images.directory(run).mkdir(parents=True)
    assert user_images.is_asked(run) is asked
    user_images.load(run) if not is_there else None
    told = f"{tmp_path}/srv/none: there is no such directory in the node"
    assert run.refused == ({"images/.": told} if arguments else {})
