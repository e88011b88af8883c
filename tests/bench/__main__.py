"""Measures starts, stops, restarts, pods, writes, idle memory and CPU, and the image's size.

usage: python -m tests.bench [--runs=7] [--starts=0] [--idle=60] [--output=build/bench.json]
"""

from __future__ import annotations

import argparse
import collections.abc
import contextlib
import dataclasses
import json
import pathlib
import statistics
import subprocess
import tarfile
import tempfile
import time
import typing

from tests.bench import cgroups, workloads
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
    samples.setdefault(name, []).append(round(seconds, 4))


def note_status(samples: Samples, prefix: str, node: nodes.Node) -> None:
    """The phases of a start, and when each condition of readiness turned true."""
    status = node.status()
    for phase in status["phases"]:
        note(samples, f"{prefix} phase {phase['name']}", phase["duration"])
    for condition, moment in status["conditions"].items():
        if not condition.startswith("pod/"):  # named anew at each start
            note(samples, f"{prefix} condition {condition}", moment)


def measure_starts(samples: Samples, starts: int) -> None:
    """Fresh starts in a row, and nothing else: is one of them slow?"""
    for _ in range(starts):
        begun = time.monotonic()
        with nodes.run() as node:
            note(samples, "starts in a row: docker run to ready", node.await_ready() - begun)


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
        with connect(node) as made:
            note(samples, "pod: created to Ready, at once after ready", made.time_one("first"))
            made.remove()
        note(samples, "stop: POST /stop to the container's end", stop(node))
        begun = time.monotonic()
        nodes.docker("start", node.name)
        note(samples, "restart: docker start to ready", node.await_ready() - begun)
        note_status(samples, "restart", node)


@contextlib.contextmanager
def connect(node: nodes.Node) -> collections.abc.Iterator[workloads.Pods]:
    """For pods, which end when they are asked to."""
    with workloads.connect(node.get("/kubeconfig").text) as client:
        yield workloads.Pods(client)


def stop(node: nodes.Node) -> float:
    """Seconds from POST /stop until the container has ended."""
    begun = time.monotonic()
    node.post("/stop")
    assert node.wait() == 0, node.logs()
    return time.monotonic() - begun


def measure_pods(samples: Samples) -> None:
    """One pod in a cluster that has settled, 100 at once, and a stop with 30 that heed SIGTERM."""
    with nodes.run() as node:
        node.await_ready()
        time.sleep(20)
        with connect(node) as made:
            for index in range(5):
                note(samples, "pod: created to Ready", made.time_one(f"one-{index}"))
            made.remove()
            note(samples, "100 pods: created to Ready", made.time_many(100))
    with nodes.run() as node:
        node.await_ready()
        with connect(node) as made:
            made.time_many(30)
            note(samples, "stop with 30 pods: POST /stop to the container's end", stop(node))


def measure_writes(samples: Samples, writes: int = 200) -> None:
    """ConfigMaps written one after the other, with fsync and without."""
    for fsync in ("always", "never"):
        with nodes.run(f"--etcd-fsync={fsync}") as node:
            node.await_ready()
            with workloads.connect(node.get("/kubeconfig").text) as client:
                for index in range(writes):
                    body = {"metadata": {"name": f"written-{index}"}, "data": {"value": "x" * 100}}
                    begun = time.monotonic()
                    client.request("POST", "/api/v1/namespaces/default/configmaps", body=body)
                    note(samples, f"write, etcd-fsync={fsync}", time.monotonic() - begun)


def compressed_size(image: str) -> int:
    """Bytes that a registry would hold: each layer compressed by gzip -6, as docker pushes it."""
    with tempfile.TemporaryDirectory() as directory:
        archive = pathlib.Path(directory, "image.tar")
        nodes.docker("save", f"--output={archive}", image)
        total = 0
        with tarfile.open(archive) as tar:
            listed = tar.extractfile("manifest.json")
            assert listed is not None
            for layer in json.load(listed)[0]["Layers"]:
                file = tar.extractfile(layer)
                assert file is not None
                packed = subprocess.run(
                    ["gzip", "-6"], input=file.read(), capture_output=True, check=True
                )
                total += len(packed.stdout)
        return total


def measure_idle(seconds: float) -> dict[str, typing.Any]:
    """Memory and CPU of a cluster that nobody uses, and each component's share of memory.

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
        return {
            "memory_mb": round(memory / 1e6, 1),
            "cpu_percent": round(100 * cpu, 2),
            "pss_mib": cgroups.memory_by_component(usage),
        }


def table(summaries: collections.abc.Mapping[str, Summary]) -> str:
    """The summaries as text."""
    width = max(map(len, summaries))
    lines = [f"{'':{width}}  median     min     max  runs"]
    lines += [
        f"{name:{width}} {figures.median:7.3f} {figures.minimum:7.3f} {figures.maximum:7.3f}"
        f" {figures.runs:5d}"
        for name, figures in summaries.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--starts", type=int, default=0, help="more fresh starts, in a row")
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
    measure_starts(samples, chosen.starts)
    measure_pods(samples)
    measure_writes(samples)
    summaries = summarize(samples)
    size = int(nodes.docker("image", "inspect", "--format={{.Size}}", nodes.IMAGE))
    compressed = compressed_size(nodes.IMAGE)
    results: dict[str, typing.Any] = {
        "image": {"name": nodes.IMAGE, "bytes_on_disk": size, "bytes_gzip": compressed},
        "seconds": {name: dataclasses.asdict(figures) for name, figures in summaries.items()},
        "samples": samples,
    }
    print(table(summaries))
    print(f"image: {size / 1e6:.0f} MB on disk, {compressed / 1e6:.0f} MB compressed (gzip -6)")
    if chosen.idle:
        results["idle"] = measure_idle(chosen.idle)
        print(
            f"idle: {results['idle']['memory_mb']} MB of memory (working set), "
            f"{results['idle']['cpu_percent']} % of one core, over {chosen.idle:g} s"
        )
        shares = results["idle"]["pss_mib"].items()
        print("memory by component (PSS, MiB):", ", ".join(f"{name} {n}" for name, n in shares))
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {chosen.output}")


if __name__ == "__main__":
    main()
