"""A state volume that is full, and an etcd that is: writes are refused, not lost, and it heals."""

from __future__ import annotations

import contextlib
import subprocess
import time
import typing

import pytest
import requests

from p8s_supervisor import kube, wait
from tests.bench import workloads
from tests.cluster import nodes, pods, test_images, test_plugin
from tests.faults import measure, writer

if typing.TYPE_CHECKING:
    import pathlib

STATE = "/var/lib/p8s"
# Three log files of 64 MB each, the database, layers: what a cluster has, and some room.
SIZE = "500m"
# Below kube-apiserver's limit of 1 MiB for an object.
LARGE = 900_000
# To the last page, whatever the cluster itself writes meanwhile: dd ends by the error that is wanted.
FILL = f"! dd if=/dev/zero of={STATE}/filler bs=64k status=none"


@contextlib.contextmanager
def small_volume(size: str = SIZE) -> typing.Iterator[str]:
    """A volume of its own file system, in memory."""
    options = ("type=tmpfs", "device=tmpfs", f"o=size={size}")
    with nodes.volume(*(f"--opt={option}" for option in options)) as name:
        # A tmpfs is there as long as a container has it.
        keeper = nodes.docker(
            "run", "--detach", f"--volume={name}:{STATE}", "--entrypoint=sleep", nodes.IMAGE, "3600"
        ).strip()
        try:
            yield name
        finally:
            nodes.docker("rm", "--force", keeper)


def connect(node: nodes.Node, folder: pathlib.Path, namespace: str = "default") -> writer.Client:
    target = writer.read_target(node.get("/kubeconfig").text, folder)
    return writer.Client(target, namespace)


def large(name: str, letter: str = "x") -> writer.Answer:
    return {"metadata": {"name": name}, "data": {"large": letter * LARGE}}


def write_until_refused(client: writer.Client, prefix: str, *, most: int = 60) -> list[str]:
    """Make large ConfigMaps until one is refused; gives those that were acknowledged."""
    made: list[str] = []
    for number in range(most):
        try:
            client.call("POST", body=large(f"{prefix}-{number}"))
        except requests.RequestException:
            return made
        made.append(f"{prefix}-{number}")
    raise AssertionError(f"{most} writes of {LARGE} bytes were all taken")


def overwrite(client: writer.Client, name: str) -> None:
    """Fill etcd with revisions of one object; raises as soon as one is refused."""
    for number in range(80):
        client.call("PUT", name, large(name, letter=chr(97 + number % 26)))


def fill_for_good(node: nodes.Node, client: writer.Client) -> list[str]:
    """Make objects until clearing away is not enough; gives those that were acknowledged."""
    made: list[str] = []
    for fill in range(5):
        made += write_until_refused(client, f"many-{fill}")
        deadline = time.monotonic() + 20
        while node.logs().count("etcd: defragmented") <= fill:
            assert time.monotonic() < deadline, node.logs()
            time.sleep(0.5)
        time.sleep(1)  # the alarm is taken back right after it
        if node.get("/ready").status_code == 503:
            return made
    raise AssertionError(node.logs())


def list_large(client: writer.Client) -> set[str]:
    return {
        item["metadata"]["name"]
        for item in client.call("GET")["items"]
        if item.get("data", {}).get("large") == "x" * LARGE
    }


def save_image() -> bytes:
    """An archive of a small image, which is not left in the engine."""
    name = f"{nodes.unique('p8s-test')}:1"
    test_plugin.import_image(name)
    try:
        return subprocess.run(["docker", "save", name], capture_output=True, check=True).stdout
    finally:
        nodes.docker("rmi", name)


def test_a_full_disk_refuses_and_loses_nothing(
    tmp_path: pathlib.Path,
) -> None:
    with small_volume() as volume, nodes.run(options=[f"--volume={volume}:{STATE}"]) as node:
        node.await_ready()
        writing = writer.Writer(connect_target(node, tmp_path), "default")
        writing.start()
        client = connect(node, tmp_path)
        made = [client.call("POST", body=large("before"))["metadata"]["name"]]
        archive, images = save_image(), test_images.list_images(node)
        node.execute("sh", "-c", FILL)
        assert '"disk": "no space left' in node.get("/ready").text
        assert "no space left" in node.status()["missing"]["disk"]
        answer = test_images.load(node, archive)
        assert answer.status_code == 507, answer.text
        assert "the disk is full" in answer.json()["detail"]
        made += write_until_refused(client, "full")
        node.await_story("disk: no space left", seconds=15)
        # A full disk ends etcd, and kube-apiserver without it leaves every request open.
        began = time.monotonic()
        assert "disk" in node.status()["missing"]
        assert time.monotonic() - began < 8  # 2 for etcd, 4 for the look, 2 for the rest
        assert node.is_running()

        node.execute("rm", f"{STATE}/filler")
        freed = time.monotonic()
        seconds = node.await_ready(seconds=30) - freed
        node.await_story("disk: well again", seconds=15)
        found = test_images.list_images(node)
        assert found["images"] == images["images"]
        assert set(found["blobs"]) <= set(images["blobs"])
        connect(node, tmp_path).call("POST", body=large("after"))
        writing.stop()
        assert writing.ledger.acknowledged > 0
        assert writing.ledger.compare(connect(node, tmp_path).list_states()) == []
        assert {*made, "after"} <= list_large(connect(node, tmp_path))
        print(f"ready {seconds:.1f} s after there was room again")
        assert seconds < 15

        node.execute("sh", "-c", FILL)
        nodes.docker("kill", "--signal=KILL", node.name)
        refuse_a_start(volume)
        nodes.docker(
            "run", "--rm", f"--volume={volume}:/v", "--entrypoint=rm", nodes.IMAGE, "/v/filler"
        )
        nodes.docker("start", node.name)
        node.await_ready()
        assert {*made, "after"} <= list_large(connect(node, tmp_path))


def test_a_nearly_full_disk_costs_nothing_and_a_full_one_what_takes_most() -> None:
    """kubelet evicts below a fiftieth: 20 MiB of a disk this small.

    It looks at what a pod's volumes take once a minute or two, and before it has looked, no pod has taken
    more than another: it may then evict the modest one first. So it looks more often here, and is waited for.
    """
    writes = ["sh", "-c", "head -c 200M /dev/zero >/data/file; sleep 3600"]
    greedy = pods.pod("greedy", writes)
    greedy["spec"]["containers"][0]["volumeMounts"].append({"name": "data", "mountPath": "/data"})
    greedy["spec"]["volumes"].append({"name": "data", "emptyDir": {}})
    with (
        small_volume("1g") as volume,
        nodes.run(
            "--extra-config=kubelet.volumeStatsAggPeriod=3s", options=[f"--volume={volume}:{STATE}"]
        ) as node,
    ):
        node.await_ready()
        with workloads.connect(node.get("/kubeconfig").text) as client:
            for pod in (greedy, pods.sleeper("modest")):
                client.request("POST", "/api/v1/namespaces/default/pods", body=pod)
            await_use(client, "greedy", mebibytes=200)
            leave_free(node, 60)
            time.sleep(15)  # longer than kubelet takes to look
            assert read_phases(client) == {"greedy": ("Running", ""), "modest": ("Running", "")}
            leave_free(node, 17)
            expected = {"greedy": ("Failed", "Evicted"), "modest": ("Running", "")}
            wait.until(
                lambda: None if read_phases(client) == expected else str(read_phases(client)),
                awaited="the eviction",
                seconds=45,
                interval=0.5,
            )
            node.await_ready(seconds=10)
            assert "low on resource: ephemeral-storage" in node.get("/events?follow=false").text


def find_free(node: nodes.Node) -> int:
    """MiB that are free in the state volume."""
    return int(node.execute("df", "--output=avail", "-m", STATE).split()[-1])


def await_use(client: kube.Client, pod: str, *, mebibytes: int) -> None:
    """Wait until kubelet knows that a pod of the namespace default takes that much of the disk."""

    def look() -> str | None:
        summary = client.get("/api/v1/nodes/p8s/proxy/stats/summary")
        used = {
            found["podRef"]["name"]: found.get("ephemeral-storage", {}).get("usedBytes", 0)
            for found in summary["pods"]
        }
        return None if used.get(pod, 0) >= mebibytes << 20 else str(used)

    wait.until(look, awaited=f"{mebibytes} MiB of {pod}", seconds=30, interval=0.5)


def leave_free(node: nodes.Node, mebibytes: int) -> None:
    taken = find_free(node) - mebibytes
    node.execute("sh", "-c", f"head -c {taken}M /dev/zero >>{STATE}/filler")


def read_phases(client: kube.Client) -> dict[str, tuple[str, str]]:
    """Name → phase and reason, of the pods in the namespace default."""
    return {
        pod["metadata"]["name"]: (pod["status"]["phase"], pod["status"].get("reason", ""))
        for pod in client.get("/api/v1/namespaces/default/pods")["items"]
    }


def connect_target(node: nodes.Node, folder: pathlib.Path) -> writer.Target:
    return writer.read_target(node.get("/kubeconfig").text, folder)


def refuse_a_start(volume: str) -> None:
    """A start on a full disk says so, and where, at once."""
    began = time.monotonic()
    with nodes.run(options=[f"--volume={volume}:{STATE}"]) as node:
        assert node.wait() == 1
        log = node.logs()
        assert f"no space left: 0 MiB free in {STATE}" in log
        assert "hint: " in log
        assert "Traceback" not in log
    assert time.monotonic() - began < 10


@pytest.mark.skipif(measure.ROUNDS < 2, reason="FAULT_ROUNDS is 1")
def test_old_revisions_that_fill_etcd_are_cleared_away(tmp_path: pathlib.Path) -> None:
    with nodes.run("--etcd-quota=32Mi") as node:
        node.await_ready()
        client = connect(node, tmp_path)
        client.call("POST", body=large("one"))
        with pytest.raises(requests.RequestException):
            overwrite(client, "one")
        node.await_story("etcd-space: etcd's store is full", seconds=15)
        node.await_story("etcd-space: well again", seconds=15)
        assert "etcd: defragmented in" in node.logs()
        client.call("PUT", "one", large("one"))
        assert list_large(client) == {"one"}
        node.await_ready(seconds=10)


@pytest.mark.skipif(measure.ROUNDS < 2, reason="FAULT_ROUNDS is 1")
def test_objects_that_fill_etcd_are_told_until_they_are_deleted(tmp_path: pathlib.Path) -> None:
    with nodes.run("--etcd-quota=32Mi") as node:
        node.await_ready()
        client = connect(node, tmp_path)
        made = fill_for_good(node, client)
        answer = node.get("/ready")
        assert answer.status_code == 503
        assert "etcd-space" in answer.text
        assert "--etcd-quota" in node.status()["missing"]["etcd-space"]
        assert set(made) <= list_large(client)
        for name in made[:20]:
            client.call("DELETE", name)
        node.await_ready(seconds=30)
        client.call("POST", body=large("after"))
        assert list_large(client) == {*made[20:], "after"}
