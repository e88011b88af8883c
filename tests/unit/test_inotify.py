"""What is said where the host's inotify instances are used up."""

from __future__ import annotations

import ctypes
import errno

import pytest

from p8s_supervisor import inotify


class Library:
    """libc, whose calls fail."""

    def inotify_init1(self, _: int) -> int:
        return -1


@pytest.mark.parametrize(
    ("number", "told"),
    [(errno.EMFILE, True), (errno.ENOSYS, False)],
    ids=["none left", "no such call"],
)
def test_only_a_limit_that_is_reached_is_told(
    monkeypatch: pytest.MonkeyPatch, number: int, *, told: bool
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Library())
    monkeypatch.setattr(ctypes, "get_errno", lambda: number)
    found = inotify.find_lack()
    assert (found is not None) == told
    if found is not None:
        limit = inotify.LIMIT.read_text().strip()
        assert f"its limit is {limit} for a user" in found


def test_one_that_is_had_is_given_back() -> None:
    most = int(inotify.LIMIT.read_text())
    assert not any(inotify.find_lack() for _ in range(most + 1))
