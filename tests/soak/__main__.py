"""Keeps a cluster busy, samples what it uses, and says what grew.

usage: python -m tests.soak [--minutes=30] [--csv=build/soak.csv] [--docs=docs] [--again]
"""

from __future__ import annotations

import argparse
import csv
import pathlib
import sys
import tempfile
import threading
import time

from tests.cluster import nodes
from tests.soak import churn, measures, plot, samples

SAMPLE_SECONDS = 10.0
# Before the first sample: components give memory back 15 s after their start.
SETTLE_SECONDS = 60.0
# In the end: kubelet forgets dead pods within a minute, Go gives memory back within minutes, and
# kube-apiserver has etcd drop revisions five to ten minutes after they were replaced.
LEFT_SECONDS = 660.0
WARM_UP = 1 / 3

# What components keep in memory after an hour of work is more than before the first: caches, and
# heaps that Go makes no smaller; plot.PAGE has what profiles say. Their logs fill up until they are
# rotated, at 10 MB.
KUBERNETES = (
    "kubelet",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
)
OTHERS = tuple(
    name for name in samples.COMPONENTS if name not in (*KUBERNETES, "kube-apiserver", "etcd")
)
MEASURES = (
    # Of everything: kube-apiserver's and kubelet's, below, and some MB of each other.
    measures.Measure(name="memory", unit="MB", slack=100, left=250, per_event=0.003),
    measures.Measure(name="kernel memory", unit="MB", slack=25, left=40),
    measures.Measure(name="etcd (memory)", unit="MB", slack=10, left=40, per_event=0.003),
    measures.Measure(name="kube-apiserver (memory)", unit="MB", slack=50, left=130),
    *(
        measures.Measure(name=f"{name} (memory)", unit="MB", slack=20, left=40)
        for name in KUBERNETES
    ),
    *(measures.Measure(name=f"{name} (memory)", unit="MB", slack=5, left=20) for name in OTHERS),
    measures.Measure(name="volume (disk)", unit="MB", left=60, per_event=0.0025),
    measures.Measure(name="container (disk)", unit="MB", slack=30, left=90),
    # The file keeps its size; what is in use shrinks when etcd is compacted, every five minutes.
    measures.Measure(name="etcd (file)", unit="MB", slack=5, left=60, per_event=0.0025),
    measures.Measure(name="etcd (in use)", unit="MB", slack=10, left=10, per_event=0.0025),
    measures.Measure(name="file descriptors", unit="", slack=10, left=20),
    measures.Measure(name="threads", unit="", slack=5, left=20),
    measures.Measure(name="processes of pods", unit="", slack=2),
    measures.Measure(name="cgroups", unit="", slack=2),
    measures.Measure(name="mounts", unit="", slack=5),
    # More than 1,500 are made in an hour. Dead ones go once a minute: between 25 and 60 are there.
    measures.Measure(name="containers", unit="", slack=30),
    measures.Measure(name="snapshots", unit="", slack=30),
    measures.Measure(name="veths", unit="", slack=1),
    measures.Measure(name="packet rules", unit="", slack=10),
    measures.Measure(name="connections tracked", unit="", slack=50, left=200),
)
CHARTS = {
    "memory, MB": ("memory", "kernel memory"),
    "memory by component, MB": tuple(f"{name} (memory)" for name in samples.COMPONENTS),
    "disk, MB": ("volume (disk)", "container (disk)", "etcd (file)", "etcd (in use)"),
    "events": ("events",),
    "file descriptors": ("file descriptors",),
    "threads": ("threads",),
    "cgroups and mounts": ("cgroups", "mounts"),
    "of containerd, and the network": ("containers", "snapshots", "veths", "processes of pods"),
    "connections tracked": ("connections tracked",),
    "packet rules": ("packet rules",),
}


def soak(
    node: nodes.Node, work: churn.Churn, minutes: float
) -> tuple[list[measures.Sample], measures.Sample, measures.Sample]:
    """Churn for so long.

    Returns:
        The samples, the one before and the one after.
    """
    sampler = samples.find(node)
    time.sleep(SETTLE_SECONDS)
    before = measures.Sample(minutes=-1, values=sampler.look())
    work.set_up()
    stop = threading.Event()
    worker = threading.Thread(target=work.keep_going, args=(stop,))
    begun = time.monotonic()
    worker.start()
    found = []
    try:
        while (now := (time.monotonic() - begun) / 60) < minutes:
            found.append(measures.Sample(minutes=now, values=sampler.look()))
            if (answer := node.get("/ready")).status_code != 200:
                work.problems.append(f"not ready at minute {now:.1f}: {answer.text}")
            if len(found) % 30 == 0:
                print(f"minute {now:.0f}: {describe(found[-1])}", flush=True)
            time.sleep(max(0, begun + len(found) * SAMPLE_SECONDS - time.monotonic()))
    finally:
        stop.set()
        worker.join()
    work.tear_down()
    time.sleep(LEFT_SECONDS)
    after = measures.Sample(minutes=(time.monotonic() - begun) / 60, values=sampler.look())
    return found, before, after


def describe(sample: measures.Sample) -> str:
    """A line for whoever watches."""
    names = ("memory", "volume (disk)", "file descriptors", "threads", "cgroups", "containers")
    return ", ".join(f"{name} {sample.values[name]:.0f}" for name in names)


def write_csv(file: pathlib.Path, found: list[measures.Sample]) -> None:
    """A row for each sample."""
    names = sorted({name for sample in found for name in sample.values})
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["minutes", *names])
        for sample in found:
            figures = [round(sample.values.get(name, 0), 2) for name in names]
            writer.writerow([round(sample.minutes, 2), *figures])


def read_csv(file: pathlib.Path) -> list[measures.Sample]:
    """What `write_csv` wrote."""
    with file.open(newline="") as stream:
        rows = [{name: float(text) for name, text in row.items()} for row in csv.DictReader(stream)]
    return [measures.Sample(minutes=row.pop("minutes"), values=row) for row in rows]


def make_kubectl(node: nodes.Node, directory: pathlib.Path) -> nodes.Kubectl:
    """The node's own kubectl, for the host, as an administrator."""
    program, kubeconfig = directory / "kubectl", directory / "config"
    nodes.docker("cp", f"{node.name}:/usr/local/bin/hyperkube", str(program))
    kubeconfig.touch(mode=0o600)
    kubeconfig.write_text(node.get("/kubeconfig").text)
    return nodes.Kubectl(program, kubeconfig)


def run(minutes: float, file: pathlib.Path) -> list[str]:
    """Soak a cluster of its own and write the samples, the one before and the one after among them.

    Returns:
        What went wrong meanwhile.
    """
    with nodes.run() as node, tempfile.TemporaryDirectory() as directory:
        node.await_ready()
        work = churn.Churn(make_kubectl(node, pathlib.Path(directory)))
        found, before, after = soak(node, work, minutes)
    write_csv(file, [before, *found, after])
    print(f"{work.rounds} rounds, {len(found)} samples: {file}")
    return work.problems


def report(found: list[measures.Sample], docs: pathlib.Path) -> list[str]:
    """Draw and write the page, and say what grew.

    Args:
        found: the sample before, those of the run, the sample after.
        docs: the directory of the page.
    """
    before, *busy, after = found
    (docs / "soak.svg").write_text(plot.draw(CHARTS, found))
    minutes = busy[-1].minutes
    during = [sample for sample in busy if sample.minutes >= WARM_UP * minutes]
    verdicts = [
        measures.judge(measure, before=before, during=during, after=after) for measure in MEASURES
    ]
    plot.write_page(docs / "soak.md", verdicts, minutes=minutes)
    return [f"{each.measure.name}: {told}" for each in verdicts for told in each.problems]


def main() -> int:
    """Run, write, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--csv", type=pathlib.Path, default=pathlib.Path("build/soak.csv"))
    parser.add_argument("--docs", type=pathlib.Path, default=pathlib.Path("docs"))
    parser.add_argument("--again", action="store_true", help="judge the samples of the last run")
    chosen = parser.parse_args()
    problems = [] if chosen.again else run(chosen.minutes, chosen.csv)
    problems += report(read_csv(chosen.csv), chosen.docs)
    print("\n".join(problems) or "nothing grows")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
