"""What a soak's samples are judged by: slopes, and what is left."""

from __future__ import annotations

import collections.abc

import pytest

from tests.soak import measures


def sample(minutes: float, value: float, events: float = 0) -> measures.Sample:
    return measures.Sample(minutes=minutes, values={"memory": value, "events": events})


def test_a_slope_is_not_moved_by_outliers() -> None:
    points = [(hour / 10, 100 + hour) for hour in range(20)]
    assert measures.slope(points) == pytest.approx(10)
    points[3], points[12] = (0.3, 900), (1.2, 0)
    assert measures.slope(points) == pytest.approx(10)


Shape = collections.abc.Callable[[int], float]
SHAPES: dict[str, tuple[Shape, float, list[str]]] = {
    "flat": (lambda minute: 100, 100, []),
    "a saw": (lambda minute: 100 + minute % 5, 100, []),
    "growing": (lambda minute: 100 + minute, 100, ["grows by 60.0 MB an hour, 13.0 are allowed"]),
    "shrinking": (lambda minute: 200 - minute, 100, []),
    "left": (lambda minute: 100, 106, ["6.0 MB are left, 5 are allowed"]),
}


@pytest.mark.parametrize("case", SHAPES)
def test_a_measure_is_judged(case: str) -> None:
    shape, after, problems = SHAPES[case]
    verdict = measures.judge(
        measures.Measure(name="memory", unit="MB", left=5),
        before=sample(-1, 100),
        during=[sample(minute, shape(minute)) for minute in range(61)],
        after=sample(62, after),
    )
    assert list(verdict.problems) == problems


def test_what_events_take_is_no_growth() -> None:
    verdict = measures.judge(
        measures.Measure(name="memory", unit="MB", per_event=0.5),
        before=sample(-1, 100),
        during=[sample(minute, 100 + minute, 2 * minute) for minute in range(61)],
        after=sample(62, 100),
    )
    assert (verdict.slope, verdict.problems) == (0, ())
