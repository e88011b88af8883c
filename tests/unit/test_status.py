"""The timeline on a fake clock, and the container's start from /proc."""

from __future__ import annotations

import pathlib

import pytest

from p8s_supervisor import status
from tests import fakes


def test_phases_are_measured_from_the_start_of_the_container() -> None:
    clock = fakes.Clock(100.0)
    timeline = status.Timeline(origin=98.0, clock=clock)
    with timeline.phase("setup") as phase:
        assert timeline.phases() == [status.Phase("setup", 2.0, None)]
        clock.now = 103.0
    with timeline.phase("processes"):
        clock.now = 103.5
    assert phase.duration == 3.0
    assert timeline.phases() == [
        status.Phase("setup", 2.0, 3.0),
        status.Phase("processes", 5.0, 0.5),
    ]
    assert timeline.now() == 5.5


@pytest.mark.parametrize(
    ("moments", "expected"),
    [
        pytest.param([(2.0, 1002.0), (9.0, 1009.0)], 1000.0, id="a clock that is left alone"),
        pytest.param([(2.0, 1002.0), (9.0, 5009.0)], 1000.0, id="a clock that is set forward"),
        pytest.param([(2.0, 1002.0), (9.0, 509.0)], 500.0, id="a clock that is set back"),
    ],
)
def test_the_moment_of_the_start_is_never_later_than_it_was(
    moments: list[tuple[float, float]], expected: float
) -> None:
    (first, first_wall), (second, second_wall) = moments
    clock, wall_clock = fakes.Clock(first), fakes.Clock(first_wall)
    timeline = status.Timeline(origin=0.0, clock=clock, wall_clock=wall_clock)
    assert timeline.started_at() == 1000.0
    clock.now, wall_clock.now = second, second_wall
    assert timeline.started_at() == expected


def test_a_phase_that_raises_keeps_its_duration() -> None:
    clock = fakes.Clock()
    timeline = status.Timeline(origin=0.0, clock=clock)

    def fail() -> None:
        with timeline.phase("setup"):
            clock.now = 4.0
            raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        fail()
    assert timeline.phases() == [status.Phase("setup", 0.0, 4.0)]


def test_a_condition_is_noted_when_it_turns_true_and_anew_after_it_fell() -> None:
    clock = fakes.Clock()
    timeline = status.Timeline(origin=0.0, clock=clock)
    seen = []
    for now, holds in ((1.0, False), (2.0, True), (3.0, True), (4.0, False), (5.0, True)):
        clock.now = now
        timeline.mark("node", holds=holds)
        seen.append(timeline.turned_true())
    assert seen == [{}, {"node": 2.0}, {"node": 2.0}, {}, {"node": 5.0}]


def test_what_is_gone_is_forgotten() -> None:
    timeline = status.Timeline(origin=0.0, clock=fakes.Clock())
    for name in ("node", "pod/old", "pod/new"):
        timeline.mark(name, holds=True)
    timeline.forget(lambda name: name == "pod/old")
    assert set(timeline.turned_true()) == {"node", "pod/new"}


def test_what_the_timeline_gives_is_a_copy() -> None:
    timeline = status.Timeline(origin=0.0, clock=fakes.Clock())
    timeline.mark("node", holds=True)
    timeline.turned_true().clear()
    timeline.phases().append(status.Phase("x", 0.0))
    assert (timeline.turned_true(), timeline.phases()) == ({"node": 0.0}, [])


@pytest.mark.parametrize(
    ("stat", "seconds"),
    [
        pytest.param(
            "1 (supervisord) S 0 1 1 0 -1 4194560 10 20 0 0 3 4 0 0 20 0 1 0 123456 7 8",
            1234.56,
            id="plain name",
        ),
        pytest.param(
            "1 (a) S (b) S 0 1 1 0 -1 4194560 10 20 0 0 3 4 0 0 20 0 1 0 50 7 8",
            0.5,
            id="name with blanks and parentheses",
        ),
    ],
)
def test_container_start_reads_the_22nd_field(
    tmp_path: pathlib.Path, stat: str, seconds: float
) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "stat").write_text(stat)
    assert status.container_start(tmp_path) == seconds


def test_a_moment_of_the_timeline_on_the_wall_clock() -> None:
    timeline = status.Timeline(origin=10.0, clock=lambda: 15.0, wall_clock=lambda: 1005.0)
    assert timeline.started_at() == 1000.0
    assert timeline.epoch_of(12.5) == 1002.5


def test_the_start_of_a_process_that_is_gone(tmp_path: pathlib.Path) -> None:
    with pytest.raises(OSError, match="7"):
        status.process_start(7, tmp_path)


def test_the_real_clock_and_the_real_proc_agree() -> None:
    start = status.container_start()
    assert status.Timeline(origin=start).now() >= 0
    assert start >= 0
