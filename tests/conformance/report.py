"""docs/conformance.md: the part of it that a run writes, one section for each Kubernetes minor."""

from __future__ import annotations

import collections.abc
import pathlib
import platform

from tests.conformance import results

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs/conformance.md"
# A failure's text is long: what was expected stands in its first lines.
MESSAGE_CHARACTERS = 300


def render(
    version: str,
    verdict: results.Verdict,
    found: results.Results,
    known: collections.abc.Mapping[str, results.Known],
) -> str:
    """A version's section, as Markdown."""
    single = sum(map(len, (verdict.passed, verdict.failed, verdict.skipped, verdict.missing)))
    total = single + len(verdict.named)
    minutes = sum(each.seconds for each in found.values()) / 60
    share = 100 * len(verdict.passed) / max(single, 1)
    lines = [
        f"## Kubernetes {version}",
        "",
        f"**{len(verdict.passed)} of {single}** that one node can run pass ({share:.1f} %).",
        "",
        "| | tests |",
        "|---|--:|",
        f"| [Conformance] in e2e.test | {total} |",
        f"| passed | {len(verdict.passed)} |",
        f"| failed | {len(verdict.failed)} |",
        f"| skipped by themselves | {len(verdict.skipped)} |",
        f"| not run yet | {len(verdict.missing)} |",
        f"| that need more than one node, or an outside registry | {len(verdict.named)} |",
        "",
        f"The tests' own times add up to {minutes:.0f} minutes. Linux {platform.release()}.",
    ]
    lines += _table("failed", "why", {test: _why(found[test]) for test in verdict.failed})
    lines += _table("skipped", "why", {test: _why(found[test]) for test in verdict.skipped})
    needs = {test: f"{known[test].needs}: {known[test].cause}" for test in verdict.named}
    lines += _table("not counted", "needs", needs)
    return "\n".join(lines) + "\n"


def _why(result: results.Result) -> str:
    text = " ".join(result.message.split())
    return text if len(text) <= MESSAGE_CHARACTERS else f"{text[:MESSAGE_CHARACTERS]} …"


def _table(head: str, second: str, rows: collections.abc.Mapping[str, str]) -> list[str]:
    if not rows:
        return []

    def cell(text: str) -> str:
        return text.replace("|", "\\|").replace("<", "&lt;")

    lines = [f"| {cell(test)} | {cell(text)} |" for test, text in rows.items()]
    return ["", f"| {head} | {second} |", "|---|---|", *lines]


def put(document: str, minor: str, section: str) -> str:
    """The document with this minor's section in the place of its last one, or at the end."""
    begin, end = f"<!-- {minor} -->\n", f"<!-- end of {minor} -->\n"
    written = f"{begin}{section}{end}"
    if begin in document and end in document:
        before, _, rest = document.partition(begin)
        return before + written + rest.partition(end)[2]
    return f"{document.rstrip()}\n\n{written}"
