"""The faults' measure: what it takes for a recovery, and how it reports it."""

from __future__ import annotations

import collections.abc
import json
import pathlib

import pytest

from tests import fakes
from tests.cluster import nodes
from tests.faults import measure

NODE = nodes.Node("none", 1, 2)


def recover(
    monkeypatch: pytest.MonkeyPatch,
    said: collections.abc.Callable[[float], str | None],
    evidence: collections.abc.Callable[[float], str | None] = lambda _: None,
) -> measure.Recovery:
    """What is measured of a node that says `said` at each moment after the fault."""
    clock = fakes.Clock()
    monkeypatch.setattr(measure, "time", clock)
    monkeypatch.setattr(measure, "is_green", lambda _: said(clock.now))
    monkeypatch.setattr(nodes.Node, "logs", lambda _: "")
    return measure.await_recovery(NODE, since=0.0, evidence=lambda: evidence(clock.now))


def between(*pairs: tuple[float, float]) -> collections.abc.Callable[[float], str | None]:
    """Red in these spans."""
    return lambda now: "red" if any(begin <= now < end for begin, end in pairs) else None


def test_red_then_green(monkeypatch: pytest.MonkeyPatch) -> None:
    found = recover(monkeypatch, between((0.5, 3.0)))
    assert found.red == pytest.approx(0.5, abs=0.03)
    assert found.green == pytest.approx(3.0, abs=0.03)


def test_a_short_green_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert recover(monkeypatch, between((0.1, 1.0), (1.5, 4.0))).green == pytest.approx(4, abs=0.03)


def test_a_green_without_evidence_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was killed is still ending: red may come later."""
    found = recover(
        monkeypatch, between((5.0, 6.0)), lambda now: None if now > 7 else "still there"
    )
    assert found.green == pytest.approx(7.0, abs=0.05)


def test_one_that_stays_red_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="not green for good after 90 s: red"):
        recover(monkeypatch, between((0.0, 1000.0)))


def test_the_report(tmp_path: pathlib.Path) -> None:
    report = measure.Report()
    report.write(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
    for red, green in ((0.25, 1.0), (None, 3.0), (0.5, 2.0)):
        report.add("a kill", measure.Recovery(red, green))
    report.write(tmp_path / "faults")
    assert "| a kill | 3 | 2.00 s | 3.00 s | 0.50 s |\n" in (tmp_path / "faults.md").read_text()
    assert json.loads((tmp_path / "faults.json").read_text())["a kill"][1] == {
        "red": None,
        "green": 3.0,
    }
