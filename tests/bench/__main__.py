"""Measures fresh starts, stops, restarts, idle memory and CPU, and the image's size.

usage: python -m tests.bench [--runs=7] [--idle=60] [--output=build/bench.json]
"""

from __future__ import annotations

import argparse
import collections.abc
import dataclasses
import json
import pathlib
import statistics
import time
import typing

from tests.bench import cgroups
from tests.cluster import nodes

Samples = dict[str, list[float]]


@dataclasses.dataclass(frozen=True)
class Summary:
    """One measure's median, minimum and maximum, in seconds."""

    median: float
    minimum: float
    maximum: float
    runs: int


def summarize(samples: Samples) -> dict[str, Summary]:
    """The figures of each measure."""
    return {
        name: Summary(statistics.median(values), min(values), max(values), len(values))
        for name, values in samples.items()
    }


def note(samples: Samples, name: str, seconds: float) -> None:
    samples.setdefault(name, []).append(round(seconds, 3))


def note_status(samples: Samples, prefix: str, node: nodes.Node) -> None:
    """The phases of a start, and when each condition of readiness turned true."""
    status = node.status()
    for phase in status["phases"]:
        note(samples, f"{prefix} phase {phase['name']}", phase["duration"])
    for condition, moment in status["conditions"].items():
        if not condition.startswith("pod/"):  # named anew at each start
            note(samples, f"{prefix} condition {condition}", moment)


def measure_life(samples: Samples) -> None:
    """A fresh start, with the seed and without, a restart with its data, and a stop."""
    begun = time.monotonic()
    with nodes.run("--cluster-domain=cold.local") as node:
        note(samples, "cold start: docker run to ready", node.await_ready() - begun)
        note_status(samples, "cold start", node)
    begun = time.monotonic()
    with nodes.run() as node:
        note(samples, "start: docker run to ready", node.await_ready() - begun)
        note_status(samples, "start", node)
        begun = time.monotonic()
        node.post("/stop")
        assert node.wait() == 0, node.logs()
        note(samples, "stop: POST /stop to the container's end", time.monotonic() - begun)
        begun = time.monotonic()
        nodes.docker("start", node.name)
        note(samples, "restart: docker start to ready", node.await_ready() - begun)
        note_status(samples, "restart", node)


def measure_idle(seconds: float) -> dict[str, float]:
    """Memory and CPU of a cluster that nobody uses.

    Args:
        seconds: first waited for after ready, then measured over.
    """
    with nodes.run() as node:
        node.await_ready()
        time.sleep(seconds)
        usage = cgroups.find(node)
        before, begun = usage.cpu_seconds(), time.monotonic()
        memory = usage.working_set()
        time.sleep(seconds)
        cpu = (usage.cpu_seconds() - before) / (time.monotonic() - begun)
        return {"memory_mib": round(memory / 2**20, 1), "cpu_percent": round(100 * cpu, 2)}


def table(summaries: collections.abc.Mapping[str, Summary]) -> str:
    """The summaries as text."""
    width = max(map(len, summaries))
    lines = [f"{'':{width}}  median     min     max  runs"]
    lines += [
        f"{name:{width}} {figures.median:7.2f} {figures.minimum:7.2f} {figures.maximum:7.2f}"
        f" {figures.runs:5d}"
        for name, figures in summaries.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--idle", type=float, default=60, help="seconds; 0: not measured")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("build/bench.json"))
    chosen = parser.parse_args()
    if chosen.runs < 1:
        parser.error("--runs: at least one")
    samples: Samples = {}
    with nodes.run() as node:  # not counted: it warms the page cache
        node.await_ready()
    for run in range(1, chosen.runs + 1):
        measure_life(samples)
        print(
            f"run {run} of {chosen.runs}: {samples['start: docker run to ready'][-1]} s", flush=True
        )
    summaries = summarize(samples)
    size = int(nodes.docker("image", "inspect", "--format={{.Size}}", nodes.IMAGE))
    results: dict[str, typing.Any] = {
        "image": {"name": nodes.IMAGE, "bytes_on_disk": size},
        "seconds": {name: dataclasses.asdict(figures) for name, figures in summaries.items()},
        "samples": samples,
    }
    print(table(summaries))
    print(f"image: {size / 1e6:.0f} MB on disk")
    if chosen.idle:
        results["idle"] = measure_idle(chosen.idle)
        print(
            f"idle: {results['idle']['memory_mib']} MiB of memory (working set), "
            f"{results['idle']['cpu_percent']} % of one core, over {chosen.idle:g} s"
        )
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {chosen.output}")


if __name__ == "__main__":
    main()
