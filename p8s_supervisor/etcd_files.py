"""How far etcd's two files go: its write-ahead log, and the database that the log was applied to.

Read while etcd does not run, and only as far as that needs. What cannot be made out is left to etcd,
which checks every byte of the log itself.
Sources: go.etcd.io/etcd/server/v3/storage/wal/decoder.go, go.etcd.io/bbolt/internal/common.
"""

from __future__ import annotations

import mmap
import pathlib
import struct
import typing

_ENTRY = 2  # a record's type
_OF_THE_LOG = (1, 3, 4, 5)  # metadata, state, checksum, snapshot
_MAGIC = 0xED0CDAED
_LEAF = 0x02
_PAGE, _ELEMENT = struct.Struct("<QHHI"), struct.Struct("<IIII")
_META = struct.Struct("<IIIIQQQQQ")


class UnreadableError(Exception):
    """A file is not as it is expected to be."""


# --- the log


def find_log_end(directory: pathlib.Path) -> int | None:
    """The index of the last entry in the log; None where there is no log.

    Raises:
        OSError: it cannot be read.
    """
    files = sorted(directory.glob("*.wal"))
    if not files:
        return None
    # SEQUENCE-INDEX.wal, both in hexadecimal: the file begins with the entry of that index.
    _, _, first = files[-1].stem.partition("-")
    last = max(0, int(first, 16) - 1) if first else 0
    if not files[-1].stat().st_size:
        return last
    with files[-1].open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for start, end in reversed(_list_records(data)[0]):
            record = _read_fields(data[start:end])
            if record.get(1) == _ENTRY:
                entry = _read_fields(record.get(3, b""))
                return int(entry.get(3, 0))
    return last


def has_entry(log: pathlib.Path) -> bool:
    """Whether there is an entry in a file of the log; what cannot be made out counts as one.

    Raises:
        OSError: it cannot be read.
    """
    if not log.stat().st_size:
        return False
    with log.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        records, at = _list_records(data)
        rest = data[at : at + 8]
        return (len(rest) == 8 and any(rest)) or any(
            _read_fields(data[start:end]).get(1) not in _OF_THE_LOG for start, end in records
        )


def _list_records(data: mmap.mmap) -> tuple[list[tuple[int, int]], int]:
    """Where each record begins and ends, up to the first that is not whole, and where that is."""
    found, at, size = [], 0, len(data)
    unpack = struct.Struct("<q").unpack_from
    while at + 8 <= size:
        (frame,) = unpack(data, at)
        # The highest byte has the padding, where there is one.
        length = frame & ((1 << 56) - 1)
        padding = (frame >> 56) & 7 if frame < 0 else 0
        end = at + 8 + length
        if not length or end + padding > size:
            break
        found.append((at + 8, end))
        at = end + padding
    return found, at


def _read_fields(message: bytes) -> dict[int, typing.Any]:
    """A protobuf message's numbers and byte strings, by their field's number; the rest is not read."""
    found: dict[int, typing.Any] = {}
    at = 0
    try:
        while at < len(message):
            key, at = _read_varint(message, at)
            if key & 7 == 0:
                found[key >> 3], at = _read_varint(message, at)
            elif key & 7 == 2:
                length, at = _read_varint(message, at)
                found[key >> 3], at = message[at : at + length], at + length
            else:
                break
    except IndexError:
        return {}  # torn: etcd finds the same by the checksum
    return found


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at


# --- the database


def find_database_end(file: pathlib.Path) -> int | None:
    """The index of the last entry of the log that the database has; None where it does not say.

    Raises:
        OSError: it cannot be read.
    """
    if not file.exists() or not file.stat().st_size:
        return None
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            page_size, root = _find_root(data)
            bucket = _get(data, root * page_size, b"meta")
            (inner,) = struct.unpack_from("<Q", bucket)
            # A small bucket lies in its value, after root and sequence.
            value = (
                _get(data, inner * page_size, b"consistent_index")
                if inner
                else _get(bucket, 16, b"consistent_index")
            )
            return int.from_bytes(value[:8], "big")
        except (UnreadableError, struct.error):
            return None


def _find_root(data: mmap.mmap) -> tuple[int, int]:
    """The page size and the root page, by the newer of the two meta pages that is whole."""
    found = []
    sizes = {_META.unpack_from(data, 16)[2], mmap.PAGESIZE}
    for offset in {0, *sizes}:
        if offset + 16 + _META.size > len(data):
            continue
        magic, _, size, _, root, _, _, _, transaction = _META.unpack_from(data, offset + 16)
        (checksum,) = struct.unpack_from("<Q", data, offset + 16 + _META.size)
        if magic == _MAGIC and checksum == _fnv(data[offset + 16 : offset + 16 + _META.size]):
            found.append((transaction, size, root))
    if not found:
        raise UnreadableError
    _, size, root = max(found)
    return size, root


def _fnv(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & (2**64 - 1)
    return value


def _get(data: bytes | mmap.mmap, page: int, key: bytes) -> bytes:
    """A key's value in a page that is a leaf.

    Raises:
        UnreadableError: it is none, or has no such key.
    """
    view = memoryview(data)
    _, flags, count, _ = _PAGE.unpack_from(view, page)
    if not flags & _LEAF:
        raise UnreadableError
    for number in range(count):
        at = page + _PAGE.size + number * _ELEMENT.size
        _, position, key_size, value_size = _ELEMENT.unpack_from(view, at)
        begin = at + position
        if bytes(view[begin : begin + key_size]) == key:
            return bytes(view[begin + key_size : begin + key_size + value_size])
    raise UnreadableError
