"""An etcd that was killed at its birth: a log without an entry, with which it never elects itself."""

from __future__ import annotations

import pathlib
import shutil
import struct
import typing

from p8s_supervisor import paths

# The first log that etcd makes: number and first index are 0.
FIRST_LOG = f"{0:016x}-{0:016x}.wal"
# Source: etcd, server/storage/wal: EntryType; decodeFrameSize: the low 56 bits are the record's
# length, the top bit says that bits 56 to 58 are the number of bytes of padding.
ENTRY = 2
LENGTH_MASK = (1 << 56) - 1


def clear(places: paths.Paths) -> bool:
    """Remove etcd's data where nothing was ever written to it, before etcd is started.

    Between making its log and writing the first entry, its own membership, etcd is a member of
    nothing; started again, it waits for a leader for good.

    Returns:
        Whether it was so.
    """
    logs = places.etcd_data / "member" / "wal"
    found = sorted(logs.glob("*.wal")) if logs.is_dir() else []
    if [file.name for file in found] != [FIRST_LOG] or _has_entry(found[0]):
        return False
    shutil.rmtree(places.etcd_data)
    return True


def _has_entry(log: pathlib.Path) -> bool:
    """Whether there is an entry in it; what cannot be read counts as one, and is left to etcd."""
    with log.open("rb") as stream:
        while (kind := _read_kind(stream)) is not None:
            if kind not in (1, 3, 4, 5):  # metadata, state, checksum, snapshot
                return True
    return False


def _read_kind(stream: typing.BinaryIO) -> int | None:
    """The next record's type; `ENTRY` for one that is cut off; None at the end."""
    head = stream.read(8)
    if len(head) < 8 or not any(head):
        return None
    (field,) = struct.unpack("<q", head)
    length = field & LENGTH_MASK
    padding = (field >> 56) & 0x7 if field < 0 else 0
    record = stream.read(min(length + padding, 1 << 20))
    # Protobuf: field 1, a number, is the type.
    if len(record) < length + padding or record[:1] != b"\x08":
        return ENTRY
    return record[1]
