"""A client that writes all the while, and keeps what the apiserver acknowledged."""

from __future__ import annotations

import base64
import collections.abc
import contextlib
import dataclasses
import itertools
import pathlib
import threading
import typing

import requests
import yaml

from p8s_supervisor import wait
from tests.cluster import nodes
from tests.faults import ledger

PAUSE_SECONDS = 0.02
# Between two attempts while the apiserver is away.
RETRY_SECONDS = 0.1
ANSWER_SECONDS = 5.0
Answer = dict[str, typing.Any]


@dataclasses.dataclass(frozen=True)
class Target:
    """Where is written to, as a kubeconfig says it.

    Attributes:
        server: URL of kube-apiserver.
        ca: file with its CA.
        certificate: file with the client's certificate and key.
    """

    server: str
    ca: pathlib.Path
    certificate: pathlib.Path


def read_target(kubeconfig: str, folder: pathlib.Path) -> Target:
    """What a kubeconfig says, its certificates as files in a folder."""
    config = yaml.safe_load(kubeconfig)
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    ca, certificate = folder / "ca.pem", folder / "client.pem"
    ca.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    certificate.touch(mode=0o600)
    certificate.write_bytes(
        base64.b64decode(user["client-certificate-data"])
        + base64.b64decode(user["client-key-data"])
    )
    return Target(cluster["server"], ca, certificate)


class Client:
    """Calls for ConfigMaps of one namespace. For one thread."""

    def __init__(self, target: Target, namespace: str) -> None:
        self._session = requests.Session()
        self._session.verify, self._session.cert = str(target.ca), str(target.certificate)
        self._session.trust_env = False
        self._path = f"{target.server}/api/v1/namespaces/{namespace}/configmaps"

    def call(
        self,
        method: str,
        name: str = "",
        body: Answer | None = None,
        *,
        query: dict[str, str] | None = None,
    ) -> Answer:
        """The answer's object.

        Raises:
            requests.RequestException: no answer, or one that is no success.
        """
        patch = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else None
        answer = self._session.request(
            method,
            self._path + (f"/{name}" if name else ""),
            json=body,
            headers=patch,
            params=query,
            timeout=ANSWER_SECONDS,
        )
        answer.raise_for_status()
        return typing.cast("Answer", answer.json())

    def list_states(self) -> dict[str, ledger.State]:
        """Every ConfigMap that has `value`, in pages."""
        found: dict[str, ledger.State] = {}
        following = ""
        while True:
            page = self.call("GET", query={"limit": "500", "continue": following})
            found |= {
                item["metadata"]["name"]: read_state(item)
                for item in page["items"]
                if "value" in item.get("data", {})
            }
            following = page["metadata"].get("continue", "")
            if not following:
                return found


def read_state(found: Answer) -> ledger.State:
    """The state of a ConfigMap that the apiserver gave."""
    return ledger.State(found["data"]["value"], found["metadata"]["resourceVersion"])


class Writer:
    """Threads that make, change and delete ConfigMaps until `stop`.

    Attributes:
        ledger: what they know of each.
        prefix: what the names of theirs begin with.
    """

    def __init__(self, target: Target, namespace: str, *, threads: int = 2) -> None:
        self._target, self._namespace = target, namespace
        self._stop = threading.Event()
        self.prefix = nodes.unique("w")
        self.ledger = ledger.Ledger()
        self._threads = [
            threading.Thread(target=self._work, args=(f"{self.prefix}-{number}",), daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Returns once the last write has its answer, or has none."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=3 * ANSWER_SECONDS)
            assert not thread.is_alive()

    def _work(self, prefix: str) -> None:
        client = Client(self._target, self._namespace)
        for number in itertools.count():
            pause = PAUSE_SECONDS
            if not all(self._write(client, *each) for each in plan(f"{prefix}-{number}", number)):
                # Whether a connection is good is not known any more: a new one, and a new object.
                client, pause = Client(self._target, self._namespace), RETRY_SECONDS
            if self._stop.wait(pause):
                return

    def _write(self, client: Client, method: str, name: str, value: str | None) -> bool:
        """Whether the write was acknowledged."""
        body: Answer = {"metadata": {"name": name}, "data": {"value": value}}
        try:
            answer = client.call(
                method, "" if method == "POST" else name, None if value is None else body
            )
        except requests.RequestException:
            self.ledger.doubt(name, ledger.State(value))
            return False
        self.ledger.acknowledge(name, ledger.GONE if value is None else read_state(answer))
        return True


def plan(name: str, number: int) -> collections.abc.Iterator[tuple[str, str, str | None]]:
    """The writes of one object: every one is made, some are changed, some deleted."""
    yield "POST", name, f"first of {number}"
    if number % 2:
        yield "PATCH", name, f"second of {number}"
    if number % 4 > 1:
        yield "DELETE", name, None


@contextlib.contextmanager
def writing(target: Target, namespace: str) -> collections.abc.Iterator[Writer]:
    """Writes within the block; afterwards everything acknowledged is there, unchanged.

    Raises:
        AssertionError: something was lost, or nothing was written.
    """
    writer = Writer(target, namespace)
    writer.start()
    try:
        yield writer
    finally:
        writer.stop()
    verify(target, namespace, writer)


def verify(target: Target, namespace: str, writer: Writer) -> None:
    """See `writing`."""
    found: dict[str, ledger.State] = {}

    def look() -> str | None:
        try:
            found.update(Client(target, namespace).list_states())
        except requests.RequestException as error:
            return str(error)
        return None

    wait.until(look, awaited="the list of what was written", seconds=30, interval=0.2)
    assert writer.ledger.acknowledged > 0, "nothing was written"
    own = {name: state for name, state in found.items() if name.startswith(writer.prefix)}
    wrong = writer.ledger.compare(own)
    assert wrong == [], f"{len(wrong)} of {writer.ledger.acknowledged} acknowledged writes"
