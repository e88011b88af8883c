"""Waiting for a condition: polled to a deadline, the clock given from outside."""

from __future__ import annotations

import collections.abc
import time
import typing

from p8s_supervisor import errors

Probe = collections.abc.Callable[[], str | None]
"""Looks once: None where the condition holds, else the reason why it does not."""


class Clock(typing.Protocol):
    """What `until` needs of time."""

    def monotonic(self) -> float:
        """Seconds since some fixed point."""

    def sleep(self, seconds: float, /) -> None:
        """Return after that many seconds."""


def until(
    probe: Probe,
    *,
    awaited: str,
    seconds: float,
    interval: float = 0.05,
    cancelled: collections.abc.Callable[[], bool] = lambda: False,
    clock: Clock = time,
) -> None:
    """Poll until the probe gives no reason any more.

    Args:
        probe: see `Probe`. What it raises is not caught.
        awaited: what is waited for, as an error would say it.
        seconds: the deadline, from now.
        interval: seconds between two looks.
        cancelled: looked at before each probe.
        clock: time, or a fake in tests.

    Raises:
        WaitTimeoutError: the deadline passed; it carries the last reason.
        CancelledError: `cancelled` said so.
    """
    deadline = clock.monotonic() + seconds
    while True:
        if cancelled():
            raise errors.CancelledError(f"{awaited}: given up, the cluster is being stopped")
        reason = probe()
        if reason is None:
            return
        if clock.monotonic() >= deadline:
            raise errors.WaitTimeoutError(awaited, seconds=seconds, reason=reason)
        clock.sleep(interval)
