"""What is measured, how flat it must be, and what a run's samples say of it."""

from __future__ import annotations

import collections.abc
import dataclasses
import statistics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure:
    """A figure that must not grow.

    Attributes:
        name: as the CSV's column.
        unit: of the figure.
        growth: how much more of it an hour of churn may bring, as a share of its median.
        slack: so much growth in an hour is always allowed, in its unit: small figures jump.
        left: how much more there may be in the end, when everything is deleted, than before.
        per_event: so much of it each event takes: Kubernetes keeps them for an hour, so that their
            number grows for longer than a short run lasts.
    """

    name: str
    unit: str
    growth: float = 0.1
    slack: float = 0
    left: float = 0
    per_event: float = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """Everything measured at one moment.

    Attributes:
        minutes: since the churn began; negative before.
        values: measure → figure.
    """

    minutes: float
    values: collections.abc.Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of one measure.

    Attributes:
        measure: which.
        before: settled, before the churn.
        median: during the churn, after the warm-up.
        slope: growth in an hour, over the same time, without that of events.
        after: settled, after the churn.
        problems: what is wrong, in sentences.
    """

    measure: Measure
    before: float
    median: float
    slope: float
    after: float
    problems: tuple[str, ...]


def slope(points: collections.abc.Sequence[tuple[float, float]]) -> float:
    """The median of the slopes between all pairs of points (Theil-Sen): outliers do not move it.

    Args:
        points: x and y; at least two different x.
    """
    pairs = ((a, b) for index, a in enumerate(points) for b in points[index + 1 :] if a[0] != b[0])
    return statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs)


def judge(
    measure: Measure,
    *,
    before: Sample,
    during: collections.abc.Sequence[Sample],
    after: Sample,
) -> Verdict:
    """Compare one measure's samples with its bounds.

    Args:
        measure: which.
        before: settled, before the churn.
        during: after the warm-up.
        after: settled, when everything is deleted.
    """
    name = measure.name
    points = [
        (
            sample.minutes / 60,
            sample.values[name] - measure.per_event * sample.values.get("events", 0),
        )
        for sample in during
    ]
    median = statistics.median(sample.values[name] for sample in during)
    grows = slope(points)
    problems = []
    allowed = max(measure.growth * median, measure.slack)
    if grows > allowed:
        problems.append(f"grows by {grows:.1f} {measure.unit} an hour, {allowed:.1f} are allowed")
    left = after.values[name] - before.values[name]
    if left > measure.left:
        problems.append(f"{left:.1f} {measure.unit} are left, {measure.left:g} are allowed")
    return Verdict(
        measure=measure,
        before=before.values[name],
        median=median,
        slope=grows,
        after=after.values[name],
        problems=tuple(problems),
    )
