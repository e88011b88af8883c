"""Runs Kubernetes' own [Conformance] tests on a cluster of the image, and writes docs/conformance.md.

What has a result (build/conformance/VERSION.json) for this very image is not run again: a run that was broken
off, or that had only an hour, goes on where it was.

usage: python -m tests.conformance [--minutes=55] [--fresh | --retry] [--match=TEXT] [--restarted]

Exit code: 0, every test that one node can run passes; 1, one fails; 3, some have not run yet.
"""

from __future__ import annotations

import argparse
import collections.abc
import pathlib
import signal
import sys
import time

from tests.cluster import nodes
from tests.conformance import images, report, results, suite

BUILD = images.ROOT / "build/conformance"
# Together they are no more than what the tests themselves put on a node at once.
PROCESSES = 4
BATCH = 100
LONGEST_MINUTES = 180.0


def main() -> None:
    """Build, run, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=0, help="no longer than this; 0: to the end"
    )
    parser.add_argument("--processes", type=int, default=PROCESSES, help="tests at once")
    parser.add_argument("--match", default="", help="only tests that have this in their name")
    parser.add_argument("--fresh", action="store_true", help="forget all results")
    parser.add_argument("--retry", action="store_true", help="run what failed again")
    parser.add_argument("--restarted", action="store_true", help="on a cluster that was restarted")
    parser.add_argument("--build", action="store_true", help="build, and run nothing")
    chosen = parser.parse_args()
    # As Ctrl-C: what was made is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    version = images.read_version()
    built = images.build(version)
    if chosen.build:
        return
    deadline = time.monotonic() + 60 * (chosen.minutes or LONGEST_MINUTES)
    store = open_store(version, fresh=chosen.fresh)
    tests = suite.list_tests(version)
    known = results.read_known(results.KNOWN.read_text())
    left = choose(tests, store.results, retry=chosen.retry, match=chosen.match)
    if left:
        with nodes.run() as node:
            prepare(node, built, restarted=chosen.restarted)
            run(left, node, built, version, store, processes=chosen.processes, deadline=deadline)
        print(
            f"conformance: {_log(version).relative_to(pathlib.Path.cwd())} has what the tests said"
        )
    verdict = results.judge(tests, store.results, known)
    minor = ".".join(version.split(".")[:2])
    section = report.render(version, verdict, store.results, known)
    report.DOCUMENT.write_text(report.put(report.DOCUMENT.read_text(), minor, section))
    print(section)
    sys.exit(conclude(verdict))


def open_store(version: str, *, fresh: bool) -> results.Store:
    """The results that there are for the image."""
    file = BUILD / f"{version}.json"
    if fresh:
        file.unlink(missing_ok=True)
    identity = nodes.docker("image", "inspect", "--format={{.Id}}", nodes.IMAGE).strip()
    return results.Store(file, image=identity)


def choose(
    tests: collections.abc.Iterable[str], found: results.Results, *, retry: bool, match: str
) -> list[str]:
    """What is left to run."""

    def is_left(test: str) -> bool:
        return test not in found or (retry and found[test].state == "failed")

    return [test for test in tests if match in test and is_left(test)]


def prepare(
    node: nodes.Node, built: collections.abc.Sequence[images.Image], *, restarted: bool
) -> None:
    """Have a new cluster ready, with the tests' images in it, and start it once more if so wished."""
    node.await_ready()
    images.load(node, built)
    if restarted:
        nodes.docker("restart", "--time=60", node.name)
        node.await_ready()


def run(
    tests: collections.abc.Sequence[str],
    node: nodes.Node,
    built: collections.abc.Sequence[images.Image],
    version: str,
    store: results.Store,
    *,
    processes: int,
    deadline: float,
) -> None:
    """Run tests batch by batch, each batch's results kept at once."""
    done = 0
    with (
        images.run_registry(node, version, built),
        suite.attach(node, version, log=_log(version)) as attached,
    ):
        for batch in suite.split(tests, size=BATCH):
            minutes = (deadline - time.monotonic()) / 60
            if minutes < 1:
                print("conformance: the time is over")
                return
            begun = time.monotonic()
            found = attached.run(batch, processes=processes, minutes=minutes)
            store.add(found)
            done += len(batch)
            _tell(done, len(tests), found, time.monotonic() - begun)


def _log(version: str) -> pathlib.Path:
    return BUILD / f"{version}.log"


def _tell(done: int, total: int, found: results.Results, seconds: float) -> None:
    print(f"conformance: {done} of {total}; the last batch took {seconds:.0f} s", flush=True)
    for test, result in found.items():
        if result.state != "passed":
            print(f"  {result.state}: {test}: {' '.join(result.message.split())[:200]}", flush=True)


def conclude(verdict: results.Verdict) -> int:
    """The exit code."""
    for test in verdict.stale:
        print(f"conformance: known.yaml names what passes, or is no test: {test}")
    if verdict.failed or verdict.skipped or verdict.stale:
        return 1
    if verdict.missing:
        print(f"conformance: {len(verdict.missing)} have not run yet: run it again")
        return 3
    return 0


if __name__ == "__main__":
    main()
