"""Waiting, on a fake clock."""

from __future__ import annotations

import pytest

from p8s_supervisor import errors, wait
from tests import fakes


@pytest.mark.parametrize(
    ("reasons", "sleeps"),
    [
        pytest.param([None], [], id="holds at once"),
        pytest.param(["no", "still no", None], [0.5, 0.5], id="holds at the third look"),
    ],
)
def test_until_returns_once_the_condition_holds(
    reasons: list[str | None], sleeps: list[float]
) -> None:
    clock = fakes.Clock(7.0)
    answers = iter(reasons)
    wait.until(lambda: next(answers), awaited="the port", seconds=10, interval=0.5, clock=clock)
    assert clock.sleeps == sleeps
    assert list(answers) == []


@pytest.mark.parametrize(
    ("seconds", "looks"),
    [
        pytest.param(2, 5, id="two seconds"),
        pytest.param(0, 1, id="no time at all is one look"),
    ],
)
def test_until_gives_up_at_the_deadline_with_the_last_reason(seconds: float, looks: int) -> None:
    clock = fakes.Clock(1000.0)
    seen: list[str] = []

    def probe() -> str:
        seen.append(f"reason {len(seen) + 1}")
        return seen[-1]

    with pytest.raises(errors.WaitTimeoutError) as caught:
        wait.until(probe, awaited="etcd's port", seconds=seconds, interval=0.5, clock=clock)
    assert len(seen) == looks
    assert (caught.value.awaited, caught.value.reason) == ("etcd's port", f"reason {looks}")
    assert str(caught.value) == (
        f"etcd's port: not within {seconds} s; last reason: reason {looks}"
    )
    assert clock.now == 1000.0 + seconds


def test_a_stop_ends_the_wait_before_the_next_look() -> None:
    looks: list[str] = []

    def probe() -> str:
        looks.append("no")
        return "no"

    with pytest.raises(errors.CancelledError) as caught:
        wait.until(
            probe,
            awaited="readiness",
            seconds=10,
            cancelled=lambda: len(looks) == 2,
            clock=fakes.Clock(),
        )
    assert looks == ["no", "no"]
    assert caught.value.message == "readiness: given up, the cluster is being stopped"


def test_what_the_probe_raises_is_not_swallowed() -> None:
    def probe() -> str:
        raise errors.ComponentFailedError("etcd", "no disk")

    with pytest.raises(errors.ComponentFailedError, match="no disk"):
        wait.until(probe, awaited="etcd", seconds=10, clock=fakes.Clock())
