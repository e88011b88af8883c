"""How long a fault lasts: from the blow to /ready green again, and the report of it."""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import os
import pathlib
import statistics
import time

import requests

from tests.cluster import nodes

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "1"))
POLL_SECONDS = 0.02
# Green for so long is green for good.
STEADY_SECONDS = 1.0
LONGEST_SECONDS = 90.0


@dataclasses.dataclass(frozen=True)
class Recovery:
    """What /ready said after a fault, in seconds from it.

    Attributes:
        red: when it first was not green; None where that was never seen.
        green: when it turned green for good, and what was hit was there again.
    """

    red: float | None
    green: float


def is_green(node: nodes.Node) -> str | None:
    """Why /ready is not green."""
    try:
        answer = requests.get(node.url("/ready"), timeout=15)
    except requests.RequestException as error:
        return f"no answer: {error}"
    return None if answer.status_code == 200 else answer.text


def await_recovery(
    node: nodes.Node,
    *,
    since: float,
    evidence: collections.abc.Callable[[], str | None],
) -> Recovery:
    """Poll /ready until it is green for good.

    Args:
        node: the cluster.
        since: the fault's moment, on the monotonic clock.
        evidence: why it cannot be said that the fault has passed, whatever /ready says.

    Raises:
        AssertionError: it does not turn green; the last reason is told.
    """
    red: float | None = None
    green: float | None = None
    proven: float | None = None
    reason = ""
    while (now := time.monotonic() - since) < LONGEST_SECONDS:
        said = is_green(node)
        if said is not None:
            reason, green = said, None
            red = now if red is None else red
        elif green is None:
            green = time.monotonic() - since
        elif proven is None:
            if not (reason := evidence() or ""):
                proven = time.monotonic() - since
        elif now - max(green, proven) >= STEADY_SECONDS:
            return Recovery(red, max(green, proven))
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"not green for good after {LONGEST_SECONDS:g} s: {reason}\n{node.logs()}")


class Report:
    """The times of every fault of a run."""

    def __init__(self) -> None:
        self._found: dict[str, list[Recovery]] = {}

    def add(self, fault: str, recovery: Recovery) -> None:
        self._found.setdefault(fault, []).append(recovery)

    def render(self) -> str:
        """A table in Markdown."""
        lines = [
            "| fault | rounds | median | worst | longest green before red |",
            "|---|---|---|---|---|",
        ]
        for fault, found in self._found.items():
            times = [each.green for each in found]
            stale = [each.red for each in found if each.red is not None]
            told = f"{max(stale):.2f} s" if stale else "never red"
            lines.append(
                f"| {fault} | {len(times)} | {statistics.median(times):.2f} s | "
                f"{max(times):.2f} s | {told} |"
            )
        return "\n".join(lines) + "\n"

    def write(self, file: pathlib.Path) -> None:
        """FILE.json and FILE.md; nothing where nothing was measured."""
        if not self._found:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        raw = {
            name: [dataclasses.asdict(each) for each in found]
            for name, found in self._found.items()
        }
        file.with_suffix(".json").write_text(json.dumps(raw, indent=2) + "\n")
        file.with_suffix(".md").write_text(self.render())
