"""What pods cost, in any cluster that a kubeconfig opens: ours and its peers are measured alike."""

from __future__ import annotations

import base64
import collections.abc
import concurrent.futures
import contextlib
import dataclasses
import pathlib
import tempfile
import time
import typing

import yaml

from p8s_supervisor import kube

IMAGE = "p8s.local/pause:1"
# For one pod; a list of many costs the apiserver time that the pods need.
POLL_SECONDS = 0.02
POLL_MANY_SECONDS = 0.2
# Requests side by side, so that creation is no queue of answers.
WRITERS = 8


@dataclasses.dataclass(frozen=True)
class Pods:
    """Pods of one image in the namespace `default`.

    Attributes:
        image: one that the node has, and that keeps running by itself.
    """

    client: kube.Client
    image: str = IMAGE

    def create(self, *names: str) -> None:
        """Create pods of one container; they are Ready when it runs."""
        with concurrent.futures.ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(self._create_one, names))

    def _create_one(self, name: str) -> None:
        container = {
            "name": "main",
            "image": self.image,
            "imagePullPolicy": "Never",
            # A node counts for no more than what is asked of it.
            "resources": {"requests": {"cpu": "1m"}},
        }
        self.client.request(
            "POST",
            "/api/v1/namespaces/default/pods",
            body={
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": {"bench": "pods"}},
                "spec": {
                    "containers": [container],
                    # The taints of a peer's only node are no part of the measure.
                    "tolerations": [{"operator": "Exists"}],
                },
            },
            seconds=60,
        )

    def count(self) -> tuple[int, int]:
        """How many pods there are, and how many of them are Ready."""
        found = self.client.get("/api/v1/namespaces/default/pods", labelSelector="bench=pods")
        ready = [pod for pod in found["items"] if _is_ready(pod)]
        return len(found["items"]), len(ready)

    def await_ready(self, number: int, *, seconds: float, interval: float = POLL_SECONDS) -> None:
        """Wait until so many are Ready.

        Args:
            number: of pods.
            seconds: the deadline, from now.
            interval: seconds between two looks.

        Raises:
            AssertionError: they are not in time.
        """
        end = time.monotonic() + seconds
        while self.count()[1] < number:
            assert time.monotonic() < end, f"{self.count()[1]} of {number} pods are Ready"
            time.sleep(interval)

    def remove(self, *, seconds: float = 120) -> None:
        """Delete them all and wait until they are gone."""
        self.client.request(
            "DELETE", "/api/v1/namespaces/default/pods", params={"labelSelector": "bench=pods"}
        )
        end = time.monotonic() + seconds
        while self.count()[0]:
            assert time.monotonic() < end, f"{self.count()[0]} pods are still there"
            time.sleep(POLL_MANY_SECONDS)

    def time_one(self, name: str) -> float:
        """Seconds from the creation of a pod until it is Ready, and those that there were."""
        begun = time.monotonic()
        self.create(name)
        self.await_ready(self.count()[0], seconds=60)
        return time.monotonic() - begun

    def time_many(self, number: int) -> float:
        """Seconds from the creation of the first of many pods until all are Ready."""
        begun = time.monotonic()
        self.create(*(f"many-{index}" for index in range(number)))
        self.await_ready(number, seconds=600, interval=POLL_MANY_SECONDS)
        return time.monotonic() - begun


def _is_ready(pod: dict[str, typing.Any]) -> bool:
    conditions = {item["type"]: item["status"] for item in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and pod["status"].get("phase") == "Running"


@contextlib.contextmanager
def connect(kubeconfig: str) -> collections.abc.Iterator[kube.Client]:
    """A client with a kubeconfig's first cluster and user, which must have a certificate."""
    config = yaml.safe_load(kubeconfig)
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    with tempfile.TemporaryDirectory() as directory:
        files = {}
        for name, data in (
            ("ca", cluster["certificate-authority-data"]),
            ("certificate", user["client-certificate-data"]),
            ("key", user["client-key-data"]),
        ):
            files[name] = pathlib.Path(directory, name)
            files[name].write_bytes(base64.b64decode(data))
        yield kube.Client(
            cluster["server"], ca=files["ca"], certificate=files["certificate"], key=files["key"]
        )
