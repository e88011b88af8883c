"""What the tests of faults share: the helpers of the cluster tests, a workload, and the report."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import random
import time
import typing

import pytest

from p8s_supervisor import wait
from tests.cluster import nodes, pods
from tests.cluster.conftest import MakeKubectl, kubectl_program, make_kubectl
from tests.faults import measure, victims, writer

__all__ = ["MakeKubectl", "kubectl_program", "make_kubectl"]

# Commands of the workload's containers: what `pods.web_pod` runs.
WORKLOAD = "python3 -c"
REPLICAS = 2


@pytest.fixture(scope="session")
def report() -> typing.Iterator[measure.Report]:
    """Is written to $FAULT_REPORT (.json and .md), build/faults where it is not set."""
    made = measure.Report()
    yield made
    made.write(pathlib.Path(os.environ.get("FAULT_REPORT", "build/faults")))


@pytest.fixture(scope="session")
def chance() -> random.Random:
    """Random moments; with FAULT_SEED the same ones as in another run."""
    seed = int(os.environ.get("FAULT_SEED", str(time.time_ns() % 1_000_000)))
    print(f"FAULT_SEED={seed}")
    return random.Random(seed)  # noqa: S311 — no secret


@dataclasses.dataclass
class Workload:
    """A Deployment with a Service, and a pod of its own, in one namespace; and a writer's target.

    Attributes:
        node: the cluster.
        kubectl: for it.
        namespace: theirs.
        folder: for files.
    """

    node: nodes.Node
    kubectl: nodes.Kubectl
    namespace: str
    folder: pathlib.Path

    def deploy(self) -> None:
        """Make them, and wait until they answer."""
        self.kubectl("create", "namespace", self.namespace)
        self.kubectl("config", "set-context", "--current", f"--namespace={self.namespace}")
        alone = pods.web_pod("alone")
        host_ip = {"fieldRef": {"fieldPath": "status.hostIP"}}
        alone["spec"]["containers"][0]["env"] = [{"name": "HOST_IP", "valueFrom": host_ip}]
        self.kubectl.apply(
            pods.web_deployment("web", replicas=REPLICAS), pods.service("web"), alone
        )
        self.await_answers()

    @property
    def target(self) -> writer.Target:
        """What a writer needs."""
        return writer.read_target(self.kubectl.kubeconfig.read_text(), self.folder)

    def await_answers(self, *, seconds: float = 30) -> None:
        """The service and the pod of its own answer, and no container runs twice.

        Raises:
            WaitTimeoutError: they do not.
        """
        wait.until(self._look, awaited="the workload", seconds=seconds, interval=0.2)

    def _look(self) -> str | None:
        done = self.kubectl.attempt(
            "get", "service/web", "pod/alone", "--output=jsonpath={.items[*]['spec.clusterIP','status.podIP']}"
        )  # fmt: skip
        addresses = done.stdout.split()
        if len(addresses) != 2:
            return f"no addresses: {done.stdout} {done.stderr}"
        for url in (f"http://{addresses[0]}", f"http://{addresses[1]}:8080"):
            said = self.node.execute(*pods.python(pods.FETCH, url), check=False)
            if not said.startswith(("web ", "alone ")):
                return f"{url} does not answer"
        return self.find_doubles()

    def find_doubles(self) -> str | None:
        """What does not run exactly as often as it should."""
        running = victims.list_processes(self.node)
        wanted = dict.fromkeys(victims.COMPONENTS.values(), 1) | {WORKLOAD: REPLICAS + 1}
        for command, number in wanted.items():
            found = [one for one in running if one.command.startswith(command)]
            if len(found) != number:
                return f"{command}: runs {len(found)} times, not {number}"
        return None


@pytest.fixture(scope="session")
def workload(
    make_kubectl: MakeKubectl, tmp_path_factory: pytest.TempPathFactory
) -> typing.Iterator[Workload]:
    """In one cluster for all that is killed, and comes back; test_kills.py ends it."""
    with nodes.run() as node:
        node.await_ready()
        folder = tmp_path_factory.mktemp("workload")
        made = Workload(node, make_kubectl(node), nodes.unique("faults"), folder)
        made.deploy()
        yield made


def started_at(node: nodes.Node) -> str:
    """When the container was started, in the engine's words: another one is another start."""
    return node.inspect("{{.State.StartedAt}}")


def count_stops(node: nodes.Node) -> int:
    """How often the cluster has stopped in order."""
    return sum(line.endswith("] stopped") for line in node.logs().splitlines())
