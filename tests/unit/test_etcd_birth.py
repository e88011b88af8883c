"""etcd's data is removed where its log has no entry, and in no other case."""

from __future__ import annotations

import pathlib
import struct

import pytest

from p8s_supervisor import etcd_birth, paths

REST = bytes(64)  # the log is made larger than it is filled


def record(kind: int, data: bytes = b"") -> bytes:
    """As etcd writes it: length with padding in the top byte, then protobuf."""
    content = bytes([0x08, kind, 0x10, 0x00, 0x1A, len(data)]) + data
    padding = -len(content) % 8
    length = len(content) | ((0x80 | padding) << 56 if padding else 0)
    return struct.pack("<Q", length) + content + bytes(padding)


BIRTH = record(4) + record(1, b"metadata") + record(5) + record(4)
LOGS: dict[str, tuple[dict[str, bytes], bool]] = {
    "born and killed": ({etcd_birth.FIRST_LOG: BIRTH + REST}, True),
    "its state but no entry": ({etcd_birth.FIRST_LOG: BIRTH + record(3, b"x") + REST}, True),
    "empty": ({etcd_birth.FIRST_LOG: b""}, True),
    "an entry": ({etcd_birth.FIRST_LOG: BIRTH + record(2, b"e") + record(3) + REST}, False),
    "an entry cut off": ({etcd_birth.FIRST_LOG: BIRTH + record(2, b"entry")[:12]}, False),
    "not a log": ({etcd_birth.FIRST_LOG: b"something else altogether"}, False),
    "a later log": ({"0000000000000001-00000000000003e8.wal": BIRTH}, False),
    "two logs": (
        {etcd_birth.FIRST_LOG: BIRTH, "0000000000000001-00000000000003e8.wal": BIRTH},
        False,
    ),
    "no log": ({}, False),
}


@pytest.mark.parametrize("case", LOGS)
def test_only_what_never_held_anything_is_removed(case: str, tmp_path: pathlib.Path) -> None:
    logs, cleared = LOGS[case]
    places = paths.Paths(tmp_path)
    directory = places.etcd_data / "member/wal"
    directory.mkdir(parents=True)
    for name, content in logs.items():
        (directory / name).write_bytes(content)
    assert etcd_birth.clear(places) is cleared
    assert places.etcd_data.exists() is not cleared


def test_a_new_volume_has_none(tmp_path: pathlib.Path) -> None:
    assert etcd_birth.clear(paths.Paths(tmp_path)) is False
