"""Measures p8s beside other ways to a cluster: on one machine, in one run, in turns.

One end for all: the cluster's resolver answers at its service address, then a pod is Ready. What a
cluster runs is on the machine before its clock starts.

usage: python -m tests.bench.peers [--runs=3] [--pods=100] [--output=build/bench-peers.json]
"""

from __future__ import annotations

import argparse
import collections.abc
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time
import typing

from p8s_supervisor import errors, kube, wait
from tests.bench import clusters, workloads

OURS = "p8s"
# With the few of the system's own this is below kubelet's default of 110 pods a node.
PODS = 100
# One with kubeadm's own pods is about 9; a tool's first run pulls its images.
DNS_SECONDS = 600
QUESTION = "kubernetes.default.svc.cluster.local"

Samples = dict[str, dict[str, list[float]]]
"""Measure → peer → seconds of each run."""
Medians = dict[str, dict[str, float]]


def measure(cluster: clusters.Cluster, *, pods: int) -> collections.abc.Iterator[tuple[str, float]]:
    """Start a prepared cluster and give each measure's name with its seconds.

    Args:
        cluster: not yet started.
        pods: how many are created at once; 0: none.
    """
    begun = cluster.start()
    answered = await_dns(cluster) - begun
    yield "start to DNS answers", answered
    # A tool takes the image only now, when it has a cluster: the clock stands still for that.
    cluster.finish()
    with workloads.connect(cluster.kubeconfig()) as client:
        resumed = time.monotonic()
        await_account(client)
        running = workloads.Pods(client)
        running.time_one("first")
        yield "start to the first pod Ready", answered + time.monotonic() - resumed
        running.remove()
        if pods:
            yield f"{pods} pods created to all Ready", running.time_many(pods)


def await_dns(cluster: clusters.Cluster) -> float:
    """The moment when the resolver answers whoever asks in the node, on the monotonic clock.

    Raises:
        AssertionError: the start failed.
        WaitTimeoutError: it does not answer.
    """
    pid = 0

    def look_for_node() -> str | None:
        nonlocal pid
        cluster.check()
        pid = clusters.pid_of(cluster.container)
        return None if pid else "there is no such container"

    wait.until(look_for_node, awaited=cluster.container, seconds=DNS_SECONDS)
    enter = ["nsenter", f"--net=/proc/{pid}/ns/net"]
    ask = [sys.executable, "-m", "tests.bench.ask", cluster.dns_server, QUESTION]
    sudo = ["sudo"] if os.geteuid() else []
    with subprocess.Popen([*sudo, *enter, *ask], stdout=subprocess.PIPE, text=True) as asker:

        def look() -> str | None:
            cluster.check()
            return "no answer" if asker.poll() is None else None

        try:
            wait.until(look, awaited=f"{cluster.container}'s DNS", seconds=DNS_SECONDS)
        finally:
            asker.terminate()
        assert asker.stdout is not None
        return float(asker.stdout.read())


def await_account(client: kube.Client) -> None:
    """Wait for the service account that every pod of a namespace has."""

    def look() -> str | None:
        try:
            client.get("/api/v1/namespaces/default/serviceaccounts/default")
        except errors.KubeError as error:
            return str(error)
        return None

    wait.until(look, awaited="the default service account", seconds=60)


def summarize(samples: Samples) -> Medians:
    """The median of each measure of each peer."""
    return {
        measure: {peer: statistics.median(values) for peer, values in peers.items()}
        for measure, peers in samples.items()
    }


def compare(medians: Medians) -> Medians:
    """How many times as long as ours each peer takes."""
    return {
        measure: {peer: value / peers[OURS] for peer, value in peers.items()}
        for measure, peers in medians.items()
    }


def table(medians: Medians) -> str:
    """Seconds, and for each peer the ratio to ours, as text."""
    ratios = compare(medians)
    names = list(dict.fromkeys(peer for peers in medians.values() for peer in peers))
    width = max(map(len, medians))
    # A column of seconds, and for all but ours one of ratios.
    lines = [f"{'':{width}}" + "".join(f"{name:>10}{'':9}" for name in names).rstrip()]
    for measure_, peers in medians.items():
        cells = ""
        for name in names:
            ratio = "" if name == OURS else f"({ratios[measure_][name]:.2f}x)"
            cells += f"{peers[name]:9.2f}s{ratio:>9}"
        lines.append(f"{measure_:{width}}{cells}".rstrip())
    return "\n".join(lines)


def take_turns(
    ways: collections.abc.Mapping[str, clusters.Way], *, runs: int, pods: int
) -> Samples:
    """Every peer once in each round; a first round, without pods, is not counted.

    It warms the page cache for each, and has tools pull what they need.
    """
    samples: Samples = {}
    for run in range(runs + 1):
        for name, way in ways.items():
            with way() as cluster:
                for measure_, seconds in measure(cluster, pods=pods if run else 0):
                    print(f"run {run}: {name}: {measure_}: {seconds:.2f} s", flush=True)
                    if run:
                        peers = samples.setdefault(measure_, {})
                        peers.setdefault(name, []).append(round(seconds, 3))
    return samples


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--pods", type=int, default=PODS, help="created at once; 0: not measured")
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path("build/bench-peers.json")
    )
    chosen = parser.parse_args()
    if chosen.runs < 1:
        parser.error("--runs: at least one")
    clusters.build_kubeadm()
    # As Ctrl-C: what was made is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    samples = take_turns(clusters.find_ways(), runs=chosen.runs, pods=chosen.pods)
    medians = summarize(samples)
    print(table(medians))
    results: dict[str, typing.Any] = {
        "samples": samples,
        "medians": medians,
        "ratios": compare(medians),
    }
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {chosen.output}")


if __name__ == "__main__":
    main()
