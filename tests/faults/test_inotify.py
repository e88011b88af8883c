"""A host whose inotify instances are used up."""

from __future__ import annotations

import contextlib
import ctypes
import os
import typing

from p8s_supervisor import inotify
from tests.cluster import nodes


@contextlib.contextmanager
def used_up() -> typing.Iterator[None]:
    """Hold all instances that root can still have."""
    library, held = ctypes.CDLL(None), list[int]()
    try:
        for _ in range(int(inotify.LIMIT.read_text()) + 1):
            instance = library.inotify_init1(os.O_CLOEXEC)
            if instance < 0:
                break
            held.append(instance)
        else:
            raise AssertionError("there is no end of them")
        yield
    finally:
        for instance in held:
            os.close(instance)


def test_a_start_that_lacks_them_says_so() -> None:
    assert inotify.find_lack() is None
    with used_up(), nodes.run("--start-timeout=20s") as node:
        assert node.wait() == 1
        assert "hint: on the host, sudo sysctl -w fs.inotify.max_user_instances=" in node.logs()
