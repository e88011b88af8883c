"""Measures what each add-on costs: seconds until it can be used, memory, and bytes of the image.

usage: python -m tests.bench.addons [--runs=3] [--settle=20] [--output=build/bench-addons.json] [--write]
"""

from __future__ import annotations

import argparse
import collections
import collections.abc
import dataclasses
import json
import pathlib
import re
import statistics
import time
import typing

import requests

from p8s_supervisor import catalogue, wait
from tests.bench import cgroups
from tests.cluster import nodes

PAGE = pathlib.Path(__file__).parents[2] / "docs/addons.md"
MARKED = re.compile(r"(?<=<!-- costs -->\n).*(?=<!-- /costs -->)", re.DOTALL)
SIDECAR = "p8s_supervisor.sidecar"
# For an add-on to be usable, and to be gone.
SECONDS = 120.0


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one add-on takes.

    Attributes:
        seconds: from the request that enables it until it can be used.
        memory: of its processes and of the sidecar's part, in bytes; without pages of files, which
            the kernel takes back when it needs them.
        size: of its programs and manifests in the image, in bytes.
    """

    seconds: float
    memory: float
    size: float


Samples = dict[str, list[Cost]]


@dataclasses.dataclass(frozen=True)
class Process:
    """A process with its own memory, in bytes."""

    name: str
    memory: int


def summarize(samples: Samples) -> dict[str, Cost]:
    """The median of each figure of each add-on."""
    return {
        name: Cost(
            seconds=statistics.median(cost.seconds for cost in costs),
            memory=statistics.median(cost.memory for cost in costs),
            size=statistics.median(cost.size for cost in costs),
        )
        for name, costs in samples.items()
    }


def table(costs: collections.abc.Mapping[str, Cost]) -> str:
    """The figures in Markdown."""
    lines = ["| add-on | usable after | memory | image |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {cost.seconds:.1f} s | {cost.memory / 2**20:.0f} MiB | {tell_size(cost.size)} |"
        for name, cost in costs.items()
    ]
    return "\n".join(lines) + "\n"


def tell_size(size: float) -> str:
    """Bytes of an image, as docker tells them; none where all of it is in the package."""
    return f"{size / 1e6:.0f} MB" if size else "none"


def replace(page: str, made: str) -> str:
    """A page with another table between its marks.

    Raises:
        ValueError: it does not have the marks.
    """
    if not MARKED.search(page):
        raise ValueError("the page has no <!-- costs --> and <!-- /costs -->")
    return MARKED.sub(lambda _: made, page)


def list_memory(
    usage: cgroups.Usage, proc: pathlib.Path = pathlib.Path("/proc")
) -> dict[int, Process]:
    """A cluster's processes, by their ids."""
    found = {}
    for pid in usage.processes():
        try:
            words = (proc / str(pid) / "cmdline").read_text().split("\0")
            rollup = (proc / str(pid) / "smaps_rollup").read_text()
        except OSError:
            continue  # it has ended
        kib = re.search(r"^Pss_Anon: +(\d+) kB$", rollup, re.MULTILINE)
        if kib:
            name = SIDECAR if SIDECAR in words else pathlib.Path(words[0]).name
            found[pid] = Process(name=name, memory=int(kib[1]) * 1024)
    return found


def subtract(after: dict[int, Process], before: dict[int, Process]) -> int:
    """Bytes of the processes that have begun since, and of what the sidecar has more.

    One of the same name as one that has ended is that one, started again: kubelet, for `metrics`.
    """
    ended = collections.Counter(one.name for pid, one in before.items() if pid not in after)
    total = 0
    for pid, process in after.items():
        if pid in before:
            grown = process.memory - before[pid].memory
            total += max(0, grown) if process.name == SIDECAR else 0
        elif ended[process.name]:
            ended[process.name] -= 1
        else:
            total += process.memory
    return total


def find_size(node: nodes.Node, name: str) -> int:
    """Bytes of an add-on's programs in the image, and of what it brings beside the package."""
    files = [f"/usr/local/bin/{program}" for program in catalogue.TABLE[name].programs]
    files.append(f"/usr/share/p8s/add-ons/{name}")
    told = node.execute("du", "--bytes", "--summarize", *files, check=False)  # not all have both
    return sum(int(line.split()[0]) for line in told.splitlines())


def enable(node: nodes.Node, name: str) -> float:
    """Seconds until an add-on can be used.

    Raises:
        AssertionError: it could not be applied.
        WaitTimeoutError: it cannot be used in time; with the reason.
    """
    begun = time.monotonic()
    answer = requests.post(node.url(f"/addons/{name}"), timeout=SECONDS)
    assert answer.ok, answer.text

    def look() -> str | None:
        found = {one["name"]: one for one in node.get("/addons").json()["addons"]}
        return None if found[name]["usable"] else found[name]["reason"] or "no reason"

    wait.until(look, awaited=f"{name} to be usable", seconds=SECONDS, interval=0.05)
    return time.monotonic() - begun


def measure(samples: Samples, *, image: str, settle: float) -> None:
    """Every add-on of the table once, one after the other in one new cluster."""
    with nodes.run("--add-ons=none", image=image) as node:
        node.await_ready()
        usage = cgroups.find(node)
        for name in catalogue.TABLE:
            time.sleep(settle)
            before = list_memory(usage)
            seconds = enable(node, name)
            time.sleep(settle)
            cost = Cost(seconds, subtract(list_memory(usage), before), find_size(node, name))
            samples.setdefault(name, []).append(cost)
            answer = requests.delete(node.url(f"/addons/{name}"), timeout=SECONDS)
            assert answer.ok, answer.text


def main() -> None:
    """Measure, print, and write the JSON and, if asked to, the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--settle", type=float, default=20, help="seconds before memory is read")
    parser.add_argument("--image", default=nodes.FULL_IMAGE)
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path("build/bench-addons.json")
    )
    parser.add_argument("--write", action="store_true", help=f"the table into {PAGE.name}")
    chosen = parser.parse_args()
    if chosen.runs < 1:
        parser.error("--runs: at least one")
    samples: Samples = {}
    for run in range(1, chosen.runs + 1):
        measure(samples, image=chosen.image, settle=chosen.settle)
        told = ", ".join(f"{name} {costs[-1].seconds:.1f} s" for name, costs in samples.items())
        print(f"run {run} of {chosen.runs}: {told}", flush=True)
    made = table(summarize(samples))
    print(made, end="")
    results: dict[str, typing.Any] = {
        "image": chosen.image,
        "samples": {
            name: [dataclasses.asdict(cost) for cost in costs] for name, costs in samples.items()
        },
    }
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {chosen.output}")
    if chosen.write:
        PAGE.write_text(replace(PAGE.read_text(), made))
        print(f"written to {PAGE}")


if __name__ == "__main__":
    main()
