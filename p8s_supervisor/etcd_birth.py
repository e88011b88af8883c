"""An etcd that was killed at its birth: a log without an entry, with which it never elects itself."""

from __future__ import annotations

import shutil

from p8s_supervisor import etcd_files, paths

# The first log that etcd makes: number and first index are 0.
FIRST_LOG = f"{0:016x}-{0:016x}.wal"


def clear(places: paths.Paths) -> bool:
    """Remove etcd's data where nothing was ever written to it, before etcd is started.

    Between making its log and writing the first entry, its own membership, etcd is a member of
    nothing; started again, it waits for a leader for good.

    Returns:
        Whether it was so.
    """
    logs = places.etcd_data / "member" / "wal"
    found = sorted(logs.glob("*.wal")) if logs.is_dir() else []
    if [file.name for file in found] != [FIRST_LOG] or etcd_files.has_entry(found[0]):
        return False
    shutil.rmtree(places.etcd_data)
    return True
