"""Files: whole or not there, with their mode."""

from __future__ import annotations

import os
import pathlib
import typing

import pytest

from p8s_supervisor import files


@pytest.fixture
def open_umask() -> typing.Iterator[None]:
    """A umask that forbids nothing, and the old one afterwards."""
    old = os.umask(0)
    yield
    os.umask(old)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param("naïve\n", b"na\xc3\xafve\n", id="text"),
        pytest.param(b"\x00\xff", b"\x00\xff", id="bytes"),
        pytest.param("", b"", id="empty"),
    ],
)
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_write_gives_content_and_mode_and_leaves_nothing_else(
    tmp_path: pathlib.Path, content: str | bytes, expected: bytes, mode: int
) -> None:
    target = tmp_path / "a" / "b" / "file"
    files.write(target, content, mode=mode)
    assert target.read_bytes() == expected
    assert target.stat().st_mode & 0o7777 == mode
    assert [entry.name for entry in target.parent.iterdir()] == ["file"]


def test_the_mode_does_not_follow_the_umask(tmp_path: pathlib.Path) -> None:
    old = os.umask(0o077)
    try:
        files.write(tmp_path / "file", "x", mode=0o644)
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


@pytest.mark.usefixtures("open_umask")
def test_a_secret_is_never_readable_by_others_not_even_while_it_is_written(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    fsync = os.fsync

    def look(descriptor: int) -> None:
        seen.append([oct(entry.stat().st_mode & 0o777) for entry in tmp_path.iterdir()])
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    files.write(tmp_path / "key", "secret", mode=0o600, durable=True)
    assert seen == [["0o600"]]


def test_only_what_has_to_be_durable_is_synced_and_before_it_has_its_name(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    synced: list[tuple[bytes, bool]] = []

    def look(descriptor: int) -> None:
        content = pathlib.Path(f"/proc/self/fd/{descriptor}").read_bytes()
        synced.append((content, target.exists()))

    monkeypatch.setattr(os, "fsync", look)
    files.write(target, "kept", durable=True)
    files.write(target, "made anew")
    assert synced == [(b"kept", False)]
    assert target.read_text() == "made anew"


def test_write_replaces_content_and_mode(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "file"
    files.write(target, "a long first content", mode=0o644)
    files.write(target, "second", mode=0o600)
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("second", 0o600)


def test_who_has_the_old_file_open_still_reads_the_old_content(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "file"
    files.write(target, "first")
    with target.open() as opened:
        files.write(target, "second")
        assert opened.read() == "first"


def test_the_old_content_stays_when_the_new_one_cannot_be_written(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    files.write(target, "first")

    def refuse(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="no space left"):
        files.write(target, "second", durable=True)
    assert target.read_text() == "first"


def test_what_a_killed_write_left_behind_is_no_obstacle(tmp_path: pathlib.Path) -> None:
    leftover = tmp_path / ".file.new"
    leftover.write_text("half")
    leftover.chmod(0o644)
    files.write(tmp_path / "file", "whole", mode=0o600)
    assert (tmp_path / "file").read_text() == "whole"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert not leftover.exists()


def test_write_once_keeps_the_first_content(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "exit-code"
    files.write_once(target, "2")
    files.write_once(target, "1")
    assert target.read_text() == "2"


@pytest.mark.parametrize(
    ("content", "lines", "expected"),
    [
        pytest.param(b"1\n2\n3\n", 2, ["2", "3"], id="the last ones"),
        pytest.param(b"1\n2", 20, ["1", "2"], id="fewer than asked, no end of line"),
        pytest.param(b"a\xffb\n", 20, ["a\ufffdb"], id="not UTF-8"),
        pytest.param(b"", 20, [], id="empty"),
        pytest.param(b"1\n\n", 20, ["1", ""], id="an empty line is a line"),
    ],
)
def test_tail(tmp_path: pathlib.Path, content: bytes, lines: int, expected: list[str]) -> None:
    (tmp_path / "log").write_bytes(content)
    assert files.tail(tmp_path / "log", lines=lines) == expected


@pytest.mark.parametrize("name", ["missing", "."])
def test_tail_of_what_cannot_be_read_is_empty(tmp_path: pathlib.Path, name: str) -> None:
    assert files.tail(tmp_path / name) == []
