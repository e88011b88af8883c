"""What tests came to: read from JUnit, kept between runs, judged."""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import pathlib
import re
import typing
from xml.etree import ElementTree

import yaml

KNOWN = pathlib.Path(__file__).with_name("known.yaml")
NEEDS = ("two nodes", "an outside registry")
# What a spec's state comes to; one that is in neither was interrupted, and has yet to run.
STATES = {"passed": "passed", "failed": "failed", "panicked": "failed", "timedout": "failed"}
# What ginkgo says of the test that ran when the time of all of them was over; another "timedout" is the test's own.
BROKEN_OFF = "[TIMEDOUT] A suite timeout occurred"
_LEAF = re.compile(r"^\[It\] ")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """How a test ended.

    Attributes:
        state: passed, failed or skipped.
        seconds: how long it took.
        message: why it failed, or skipped itself.
    """

    state: str
    seconds: float
    message: str = ""


Results = dict[str, Result]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
    """A test that cannot pass on one node without a way out.

    Attributes:
        needs: one of `NEEDS`.
        cause: what it asks for.
    """

    needs: str
    cause: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """All tests, by what they came to.

    Attributes:
        passed, failed, skipped, missing: names of tests that a single node can run.
        named: those of known.yaml.
        stale: what known.yaml names and what passes all the same, or is no test.
    """

    passed: tuple[str, ...]
    failed: tuple[str, ...]
    skipped: tuple[str, ...]
    missing: tuple[str, ...]
    named: tuple[str, ...]
    stale: tuple[str, ...]


def read_junit(text: str) -> Results:
    """The tests that were run; what the run left out, or broke off, is not among them."""
    found = {}
    for case in ElementTree.fromstring(text).iter("testcase"):  # noqa: S314 - a file of our own
        if not _LEAF.match(case.get("name", "")):
            continue
        state = STATES.get(case.get("status", ""))
        skipped = case.find("skipped")
        message = ""
        if skipped is not None:
            # "skipped" alone: not chosen. With a reason: the test looked, and skipped itself.
            message = skipped.get("message", "").removeprefix("skipped").removeprefix(" - ")
            state = "skipped" if message and message != "pending" else None
        for kind in ("failure", "error"):
            failure = case.find(kind)
            if failure is not None:
                message = (failure.text or failure.get("message") or "").strip()
        if state is not None and not message.startswith(BROKEN_OFF):
            name = _LEAF.sub("", case.get("name", ""))
            seconds = round(float(case.get("time", "0")), 1)
            found[name] = Result(state=state, seconds=seconds, message=message)
    return found


class Store:
    """Results in a file, those of one image of ours.

    Args:
        file: where they are kept.
        image: the image's ID: results of another one are forgotten.
    """

    def __init__(self, file: pathlib.Path, *, image: str) -> None:
        self._file, self._image = file, image
        self.results: Results = {}
        if file.exists():
            kept = json.loads(file.read_text())
            if kept["image"] == image:
                self.results = {name: Result(**each) for name, each in kept["tests"].items()}

    def add(self, results: Results) -> None:
        """Keep more results; the last one of a test counts."""
        self.results |= results
        self._file.parent.mkdir(parents=True, exist_ok=True)
        tests = {name: dataclasses.asdict(each) for name, each in sorted(self.results.items())}
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps({"image": self._image, "tests": tests}, indent=1) + "\n")
        partial.replace(self._file)


def read_known(text: str) -> dict[str, Known]:
    """known.yaml, checked.

    Raises:
        ValueError: an entry that does not say what it needs, or why.
    """
    entries = typing.cast("list[dict[str, str]]", yaml.safe_load(text) or [])
    found = {}
    for entry in entries:
        if set(entry) != {"test", "needs", "cause"} or entry["needs"] not in NEEDS:
            raise ValueError(f"test, needs ({' or '.join(NEEDS)}) and cause are wanted: {entry}")
        found[entry["test"]] = Known(needs=entry["needs"], cause=entry["cause"].strip())
    return found


def judge(
    tests: collections.abc.Iterable[str],
    results: Results,
    known: collections.abc.Mapping[str, Known],
) -> Verdict:
    """Sort all tests by what they came to."""
    tests = sorted(tests)

    def those(state: str | None) -> tuple[str, ...]:
        return tuple(
            test
            for test in tests
            if test not in known and (results[test].state if test in results else None) == state
        )

    def is_stale(test: str) -> bool:
        return test not in tests or (test in results and results[test].state == "passed")

    return Verdict(
        passed=those("passed"),
        failed=those("failed"),
        skipped=those("skipped"),
        missing=those(None),
        named=tuple(test for test in tests if test in known),
        stale=tuple(test for test in sorted(known) if is_stale(test)),
    )
