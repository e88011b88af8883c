"""How far etcd's files go, read from files of etcd's own and from what is made of them."""

from __future__ import annotations

import pathlib
import struct

import pytest

from p8s_supervisor import etcd_files

METADATA, ENTRY, STATE = 1, 2, 3
MAGIC = 0xED0CDAED
PAGE = 4096
ZEROS = bytes(PAGE)
FIRST = "0000000000000000-0000000000000000.wal"
LATER = "0000000000000003-00000000000003e8.wal"


def field(number: int, value: int | bytes) -> bytes:
    """One field of a protobuf message."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def record(kind: int, data: bytes) -> bytes:
    """As etcd writes it: length, with the padding to eight bytes in the highest one."""
    message = field(1, kind) + field(2, 0xFFFFFFFF) + field(3, data)
    padding = -len(message) % 8
    length = len(message) | ((0x80 | padding) << 56 if padding else 0)
    return struct.pack("<Q", length) + message + bytes(padding)


def entry(index: int, data: bytes = b"x" * 300) -> bytes:
    return record(ENTRY, field(1, 0) + field(2, 2) + field(3, index) + field(4, data))


WHOLE = record(METADATA, b"m") + entry(1) + entry(2) + entry(3, b"") + record(STATE, b"s")


@pytest.mark.parametrize(
    ("files", "end"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({FIRST: WHOLE + ZEROS}, 3, id="whole"),
        pytest.param({FIRST: WHOLE}, 3, id="whole, without the reserved rest"),
        pytest.param({FIRST: WHOLE + entry(300)[:-40] + ZEROS[:8]}, 3, id="torn at the end"),
        pytest.param({FIRST: WHOLE + entry(300)[:5]}, 3, id="torn in a length"),
        pytest.param({FIRST: record(METADATA, b"m") + entry(1)[:99]}, 0, id="cut in the first"),
        pytest.param({FIRST: b""}, 0, id="empty"),
        pytest.param({FIRST: b"\xff" * 5000}, 0, id="garbage"),
        pytest.param({FIRST: WHOLE, LATER: entry(1000) + entry(1001) + ZEROS}, 1001, id="two files"),
        pytest.param({FIRST: WHOLE, LATER: record(METADATA, b"m") + ZEROS}, 999, id="a new file"),
        pytest.param({FIRST: WHOLE + ZEROS, FIRST + ".broken": entry(9), "0.tmp": ZEROS}, 3, id="others"),
    ],
)  # fmt: skip
def test_the_end_of_a_log(tmp_path: pathlib.Path, files: dict[str, bytes], end: int | None) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert etcd_files.find_log_end(tmp_path) == end


# --- the database


def meta(number: int, *, root: int, transaction: int, checksum: int | None = None) -> bytes:
    """One of the two meta pages."""
    text = struct.pack("<IIIIQQQQQ", MAGIC, 2, PAGE, 0, root, 0, 0, 9, transaction)
    right = etcd_files._fnv(text) if checksum is None else checksum
    return page(number, 0x04, text + struct.pack("<Q", right))


def page(number: int, flags: int, content: bytes, *, count: int = 1) -> bytes:
    return (struct.pack("<QHHI", number, flags, count, 0) + content).ljust(PAGE, b"\0")


def leaf(number: int, values: dict[bytes, bytes]) -> bytes:
    """A page of keys and values, as bbolt lays them out."""
    heads, bodies = b"", b""
    for place, (key, value) in enumerate(values.items()):
        position = 16 * (len(values) - place) + len(bodies)
        heads += struct.pack("<IIII", 1, position, len(key), len(value))
        bodies += key + value
    return struct.pack("<QHHI", number, 0x02, len(values), 0) + heads + bodies


def as_page(content: bytes) -> bytes:
    return content.ljust(PAGE, b"\0")


INDEX = {b"confState": b"{}", b"consistent_index": struct.pack(">Q", 340)}
INLINE = {b"key": bytes(16), b"meta": struct.pack("<QQ", 0, 0) + leaf(0, INDEX)}
APART = {b"key": bytes(16), b"meta": struct.pack("<QQ", 3, 0)}
OLD = {b"meta": struct.pack("<QQ", 0, 0) + leaf(0, {b"consistent_index": bytes(8)})}
NEWER = meta(1, root=2, transaction=8)


@pytest.mark.parametrize(
    ("pages", "end"),
    [
        pytest.param(
            [meta(0, root=3, transaction=7), NEWER, as_page(leaf(2, INLINE)), as_page(leaf(3, OLD))],
            340,
            id="the newer of the two; a bucket in its value",
        ),
        pytest.param(
            [meta(0, root=3, transaction=9), NEWER, as_page(leaf(2, INLINE)), as_page(leaf(3, OLD))],
            0,
            id="the other is newer",
        ),
        pytest.param(
            [
                meta(0, root=3, transaction=9, checksum=1),
                NEWER,
                as_page(leaf(2, INLINE)),
                as_page(leaf(3, OLD)),
            ],
            340,
            id="the newer one is torn",
        ),
        pytest.param(
            [ZEROS, NEWER, as_page(leaf(2, APART)), as_page(leaf(3, INDEX))],
            340,
            id="a bucket with a page of its own",
        ),
        pytest.param([ZEROS, NEWER, page(2, 0x01, b"")], None, id="a tree of several pages"),
        pytest.param([ZEROS, NEWER, as_page(leaf(2, {b"key": b""}))], None, id="no such bucket"),
        pytest.param([ZEROS, NEWER], None, id="cut off"),
        pytest.param([b"\xaa" * PAGE * 3], None, id="garbage"),
        pytest.param([ZEROS], None, id="zeros"),
        pytest.param([b"x"], None, id="one byte"),
        pytest.param([], None, id="empty"),
    ],
)  # fmt: skip
def test_the_end_of_a_database(tmp_path: pathlib.Path, pages: list[bytes], end: int | None) -> None:
    (tmp_path / "db").write_bytes(b"".join(pages))
    assert etcd_files.find_database_end(tmp_path / "db") == end


def test_no_database_says_nothing(tmp_path: pathlib.Path) -> None:
    assert etcd_files.find_database_end(tmp_path / "db") is None
