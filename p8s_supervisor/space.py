"""Room on the node's file systems: what is left, and what needs how much."""

from __future__ import annotations

import os
import pathlib

MIB = 2**20
# etcd's database grows, and kubelet and containerd keep files of some KB: below this the next write
# may be the one that fails.
LOW_BYTES = 16 * MIB
# etcd's first two log files (64 MB each, reserved at once) and its database.
NEW_BYTES = 160 * MIB
LOW_INODES = 100


def find_lack(path: pathlib.Path, *, needed: int = LOW_BYTES) -> str | None:
    """Why there is not enough room in a file system; None where there is.

    Args:
        path: any file or directory in it.
        needed: bytes.
    """
    found = os.statvfs(path)
    free = found.f_bfree * found.f_frsize
    if free < needed:
        return f"no space left: {free / MIB:.0f} MiB free in {path}, {needed / MIB:.0f} MiB needed"
    if found.f_files and found.f_ffree < LOW_INODES:
        return f"no space left: {found.f_ffree} inodes free in {path}, {LOW_INODES} needed"
    return None


def size(path: pathlib.Path) -> int:
    """Bytes of a file system, used or not."""
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize


def free(path: pathlib.Path) -> int:
    """Bytes that are free in a file system."""
    found = os.statvfs(path)
    return found.f_bfree * found.f_frsize
