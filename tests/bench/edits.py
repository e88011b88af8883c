"""Measures the way from an edit to a new pod: by the registry add-on, and by `p8s load`.

The image has 200 MB in a layer that stays, and a small one that is edited. Each edit is built, brought
into the cluster and rolled out; the end is a Ready pod of the new image.

usage: python -m tests.bench.edits [--runs=7] [--output=build/bench-edits.json]
"""

from __future__ import annotations

import argparse
import collections.abc
import contextlib
import dataclasses
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import time

from p8s_supervisor import kube
from tests.bench import __main__ as bench
from tests.bench import workloads
from tests.cluster import nodes, registry

PROGRAM = str(pathlib.Path(sys.executable).with_name("p8s"))
KEPT_BYTES = 200 * 10**6
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
DOCKERFILE = """\
FROM scratch
COPY pause /
COPY kept /
COPY edited /
ENTRYPOINT ["/pause"]
"""
READY_SECONDS = 120.0


@dataclasses.dataclass(frozen=True)
class Way:
    """A way into the cluster.

    Attributes:
        name: of the deployment, too.
        repository: of its images, as pods name it.
        bring: brings a built image into the cluster, or where the cluster pulls it.
    """

    name: str
    repository: str
    bring: collections.abc.Callable[[str], object]


def write_folder(folder: pathlib.Path) -> None:
    """The Dockerfile, a program that sleeps, and what stays: half of it can be compressed."""
    (folder / "Dockerfile").write_text(DOCKERFILE)
    layer = next(iter(registry.make_image("any")[1].values()))
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        tar.extractall(folder, filter="tar")
    half = KEPT_BYTES // 2
    (folder / "kept").write_bytes(os.urandom(half) + bytes(half))


def edit(samples: bench.Samples, way: Way, folder: pathlib.Path, client: kube.Client) -> None:
    """One edit, until a pod of it is Ready."""
    tag = f"{time.time_ns()}"
    (folder / "edited").write_text(tag)
    image = f"{way.repository}:{tag}"
    marks = [time.monotonic()]
    nodes.docker("build", "--quiet", f"--tag={image}", str(folder))
    marks.append(time.monotonic())
    way.bring(image)
    marks.append(time.monotonic())
    client.apply(make_deployment(way.name, image))
    await_image(client, way.name, image)
    marks.append(time.monotonic())
    nodes.docker("image", "rm", image)
    bench.note(samples, f"{way.name}: edit to new pod Ready", marks[-1] - marks[0])
    for at, part in enumerate(("build", way.name, "pod")):
        bench.note(samples, f"{way.name}: of which {part}", marks[at + 1] - marks[at])


def make_deployment(name: str, image: str) -> kube.Object:
    """A deployment whose old pod ends at once."""
    container = {"name": "main", "image": image, "imagePullPolicy": "IfNotPresent"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"edits": name}},
            "template": {
                "metadata": {"labels": {"edits": name}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
            },
        },
    }


def await_image(client: kube.Client, name: str, image: str) -> None:
    """Wait until a pod of an image is Ready.

    Raises:
        AssertionError: none is in time.
    """
    end = time.monotonic() + READY_SECONDS
    while True:
        pods = client.get("/api/v1/namespaces/default/pods", labelSelector=f"edits={name}")["items"]
        found = [pod for pod in pods if pod["spec"]["containers"][0]["image"] == image]
        told = [one for pod in found for one in pod["status"].get("containerStatuses", [])]
        if any(one["ready"] for one in told):
            return
        assert time.monotonic() < end, f"{image}: {told}"
        time.sleep(workloads.POLL_SECONDS)


@contextlib.contextmanager
def run_cluster() -> collections.abc.Iterator[tuple[nodes.Node, list[Way]]]:
    """A cluster with a registry, and both ways into it; their images are gone at the end."""
    port, name = nodes.free_port(), nodes.unique("p8s-test")
    with nodes.run(
        "--add-ons=registry",
        f"--registry-mirrors=localhost:{port}=http://127.0.0.1:5000",
        options=[f"--publish=127.0.0.1:{port}:5000"],
        image=nodes.FULL_IMAGE,
    ) as node:
        node.await_ready()

        def push(image: str) -> None:
            nodes.docker("push", "--quiet", image)

        def load(image: str) -> None:
            command = [PROGRAM, "load", f"--name={node.name}", image]
            subprocess.run(command, check=True, capture_output=True)

        yield node, [Way("push", f"localhost:{port}/{name}", push), Way("load", name, load)]


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path("build/bench-edits.json")
    )
    chosen = parser.parse_args()
    if chosen.runs < 1:
        parser.error("--runs: at least one")
    samples: bench.Samples = {}
    with tempfile.TemporaryDirectory() as directory, run_cluster() as (node, ways):
        folder = pathlib.Path(directory)
        write_folder(folder)
        with workloads.connect(node.get("/kubeconfig").text) as client:
            for way in ways:  # not counted: all of the image goes
                edit({}, way, folder, client)
            for _ in range(chosen.runs):
                for way in ways:
                    edit(samples, way, folder, client)
    summaries = bench.summarize(samples)
    print(bench.table(summaries))
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    results = {name: dataclasses.asdict(figures) for name, figures in summaries.items()}
    chosen.output.write_text(json.dumps({"seconds": results, "samples": samples}, indent=2) + "\n")
    print(f"written to {chosen.output}")


if __name__ == "__main__":
    main()
