"""A node at its limits: as many pods as it takes, logs that are rotated, a volume that grows too large."""

from __future__ import annotations

import pathlib
import subprocess
import time
import typing

import pytest

from p8s_supervisor import wait
from tests.cluster import nodes, pods
from tests.faults import conftest, measure

pytestmark = [
    pytest.mark.skipif(measure.ROUNDS < 2, reason="FAULT_ROUNDS is 1"),
    pytest.mark.timeout(600),
]
MOST_PODS = 110
# 60 MB in 15 s, which is rotated at 10 MB, looked at every 10 s; then some lines a second.
CHATTER = """
import itertools, time
for number in itertools.count():
    print(f"{number:06d}", "x" * 993, flush=number > 60_000)
    if number % 4000 == 0:
        time.sleep(1)
    if number > 60_000:
        time.sleep(0.2)
"""
LINES = 60_000


@pytest.fixture(scope="module")
def node() -> typing.Iterator[nodes.Node]:
    with nodes.run() as found:
        found.await_ready()
        yield found


def await_none(look: typing.Callable[[], list[str]], awaited: str, *, seconds: float) -> None:
    wait.until(lambda: ", ".join(look()) or None, awaited=awaited, seconds=seconds, interval=1)


def test_as_many_pods_as_kubelet_takes(
    node: nodes.Node, make_kubectl: conftest.MakeKubectl
) -> None:
    kubectl = make_kubectl(node)
    room = MOST_PODS - len(kubectl.get("pods", "--all-namespaces")["items"])
    begun = time.monotonic()
    kubectl("create", "deployment", "many", "--image=p8s.local/pause:1", f"--replicas={room}")
    kubectl("rollout", "status", "deployment/many", "--timeout=300s", seconds=310)
    print(f"{room} more pods were ready after {time.monotonic() - begun:.0f} s")
    assert node.get("/ready").status_code == 200

    kubectl("scale", "deployment/many", f"--replicas={room + 1}")
    waiting = ("get", "pods", "--field-selector=status.phase=Pending", "--output=name")
    wait.until(
        lambda: None if "pod/" in kubectl(*waiting) else "none waits",
        awaited="a pod that waits",
        seconds=30,
    )
    [name] = kubectl(*waiting).split()
    assert "Too many pods" in kubectl("describe", name)
    # There is room again as soon as one goes.
    gone = kubectl("get", "pods", "--field-selector=status.phase=Running", "--output=name")
    kubectl("delete", gone.split()[0], "--wait=false")
    kubectl("scale", "deployment/many", f"--replicas={room}")
    kubectl("rollout", "status", "deployment/many", "--timeout=120s", seconds=130)

    addresses = [pod["status"]["podIP"] for pod in kubectl.get("pods")["items"]]
    assert len(set(addresses)) == room
    kubectl("delete", "deployment", "many")
    await_none(
        lambda: kubectl("get", "pods", "--output=name").split(), "the end of them", seconds=180
    )
    assert node.get("/ready").status_code == 200


def read_numbers(log: str) -> list[int]:
    """Those that whole lines of the chatter begin with."""
    return [int(line.split()[0]) for line in log.splitlines() if len(line) == 1000]


def test_a_rotated_log_is_read_and_followed(
    node: nodes.Node, make_kubectl: conftest.MakeKubectl, tmp_path: pathlib.Path
) -> None:
    kubectl = make_kubectl(node)
    kubectl.apply(pods.pod("chatter", pods.python(CHATTER)))
    kubectl.await_ready("pod/chatter")
    followed = tmp_path / "followed"
    with (
        followed.open("wb") as out,
        subprocess.Popen(kubectl.command("logs", "--follow", "chatter"), stdout=out) as following,
    ):
        wait.until(
            lambda: None if read_numbers(kubectl("logs", "chatter"))[-1:] > [LINES] else "not yet",
            awaited="the end of the chatter",
            seconds=90,
            interval=1,
        )
        time.sleep(12)  # kubelet looks at the size every 10 s
        following.terminate()
    seen = read_numbers(followed.read_text())
    assert seen == list(range(len(seen)))
    assert len(seen) > LINES

    files = node.execute("sh", "-c", "ls -s --block-size=1M /var/log/pods/default_chatter_*/main/")
    sizes = {name: int(size) for size, name in (line.split() for line in files.splitlines()[1:])}
    print(sizes)
    assert 2 <= len(sizes) <= 3
    # What has been rotated away is not shown; of what is, no line is missing.
    kept = read_numbers(kubectl("logs", "chatter"))
    assert kept == list(range(kept[0], kept[-1] + 1))
    assert kept[0] > 0
    assert kept[-1] >= seen[-1]
    kubectl("delete", "pod", "chatter")


def test_a_volume_that_grows_too_large_costs_its_pod(
    node: nodes.Node, make_kubectl: conftest.MakeKubectl
) -> None:
    """kubelet measures volumes once a minute."""
    kubectl = make_kubectl(node)
    script = "head -c 60M /dev/zero > /scratch/large; sleep infinity"
    writer = pods.pod("writer", ["sh", "-c", script])
    writer["spec"]["volumes"].append({"name": "scratch", "emptyDir": {"sizeLimit": "20Mi"}})
    mounts = writer["spec"]["containers"][0]["volumeMounts"]
    mounts.append({"name": "scratch", "mountPath": "/scratch"})
    kubectl.apply(writer)
    evicted = "--for=jsonpath={.status.reason}=Evicted"
    kubectl("wait", "pod/writer", evicted, "--timeout=120s", seconds=130)
    assert 'volume "scratch" exceeds' in kubectl.get("pod", "writer")["status"]["message"]
