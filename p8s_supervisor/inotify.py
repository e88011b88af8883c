"""inotify's instances, of which the host gives all processes of one user so many together."""

from __future__ import annotations

import errno
import os
import pathlib

LIMIT = pathlib.Path("/proc/sys/fs/inotify/max_user_instances")


def find_lack() -> str | None:
    """Why components fail that want an instance: none is left; else None.

    containerd runs without, lacks its service for kubelet then, and neither names the cause.
    """
    import ctypes  # late: only a failure asks

    library = ctypes.CDLL(None, use_errno=True)
    instance = library.inotify_init1(os.O_CLOEXEC)
    if instance >= 0:
        os.close(instance)
        return None
    if ctypes.get_errno() != errno.EMFILE:
        return None
    return (
        f"the host has no inotify instance left: its limit is {LIMIT.read_text().strip()} for a user in all"
        " containers together; hint: on the host, sudo sysctl -w fs.inotify.max_user_instances=1024"
    )
