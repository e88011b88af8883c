"""The work of a busy cluster, round after round, by kubectl as a user has it."""

from __future__ import annotations

import collections.abc
import dataclasses
import threading
import time
import typing

from tests.cluster import nodes, pods

ROUND_SECONDS = 20.0
NAMESPACE = "soak"
CONFIG_MAPS = 20
# 10 MiB in two minutes: kubelet rotates container logs at that size.
CHATTER = """
import time
while True:
    for number in range(80):
        print(number, "x" * 1000)
    time.sleep(1)
"""


@dataclasses.dataclass
class Churn:
    """What happens to the cluster; each action is safe to repeat.

    Attributes:
        kubectl: an administrator's.
        problems: what went wrong, with the round's number.
        rounds: how many are complete.
    """

    kubectl: nodes.Kubectl
    problems: list[str] = dataclasses.field(default_factory=list)
    rounds: int = 0

    def set_up(self) -> None:
        """What is there all the while."""
        self.kubectl("create", "namespace", NAMESPACE)
        self.kubectl("config", "set-context", "--current", f"--namespace={NAMESPACE}")
        chatter = pods.web_deployment("chatter", replicas=1)
        spec = chatter["spec"]["template"]["spec"]
        spec["containers"][0] = pods.pod_spec(pods.python(CHATTER))["containers"][0]
        self.kubectl.apply(pods.web_deployment("web", replicas=2), pods.service("web"), chatter)
        self.kubectl("rollout", "status", "deployment/web", "deployment/chatter", "--timeout=60s")

    def go_round(self) -> None:
        """One round: every action, each guarded by itself."""
        number = self.rounds
        actions: tuple[tuple[collections.abc.Callable[[int], object], int], ...] = (
            (self.write_config_maps, 1),
            (self.run_job, 1),
            (self.fail, 1),
            (self.scale, 1),
            (self.roll_out, 3),
            (self.look, 1),
            (self.use_namespace, 5),
        )
        for action, every in actions:
            if number % every == 0:
                try:
                    action(number)
                except Exception as error:  # noqa: BLE001 — the next action goes on
                    told = f"round {number}, {getattr(action, '__name__', action)}: {error}"
                    self.problems.append(told)
        self.rounds += 1

    def write_config_maps(self, number: int) -> None:
        """Written, changed by the next round, and deleted by every tenth."""
        if number % 10 == 9:
            self.kubectl("delete", "configmaps", "--selector=soak=yes")
            return
        written = [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": f"written-{index}", "labels": {"soak": "yes"}},
                "data": {"round": str(number), "padding": "x" * 1000},
            }
            for index in range(CONFIG_MAPS)
        ]
        self.kubectl.apply(*written)

    def run_job(self, number: int) -> None:
        """Three pods that end well; the round before's are deleted with their Job."""
        self.kubectl("delete", "jobs", "--all")
        job: dict[str, typing.Any] = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": f"sum-{number}"},
            "spec": {
                "completions": 3,
                "parallelism": 3,
                "template": {"spec": pods.pod_spec(["true"]) | {"restartPolicy": "Never"}},
            },
        }
        self.kubectl.apply(job)
        self.kubectl("wait", "--for=condition=Complete", f"job/sum-{number}", "--timeout=60s")

    def fail(self, number: int) -> None:
        """A pod that keeps ending, and one whose image is missing."""
        self.kubectl("delete", "pods", "--selector=soak=fails", "--wait=false")
        crashing = pods.pod(f"crashing-{number}", ["sh", "-c", "echo I fail; exit 3"])
        missing = pods.pod(f"missing-{number}", ["true"], image="p8s.local/no-such-image:1")
        for each in (crashing, missing):
            each["metadata"]["labels"]["soak"] = "fails"
        self.kubectl.apply(crashing, missing)

    def scale(self, number: int) -> None:
        """Between one replica and four."""
        self.kubectl("scale", "deployment/web", f"--replicas={1 + number % 4}")
        self.kubectl("rollout", "status", "deployment/web", "--timeout=60s")

    def roll_out(self, _: int) -> None:
        """Every pod of the Deployment anew."""
        self.kubectl("rollout", "restart", "deployment/web")
        self.kubectl("rollout", "status", "deployment/web", "--timeout=60s")

    def look(self, _: int) -> None:
        """What people do: exec, logs, lists."""
        assert self.kubectl("exec", "deployment/web", "--", "echo", "42").strip() == "42"
        assert self.kubectl("logs", "deployment/chatter", "--tail=100")
        assert self.kubectl("get", "pods,events,services", "--output=yaml")

    def use_namespace(self, number: int) -> None:
        """A namespace with a pod, from its creation to its end."""
        name = f"{NAMESPACE}-{number}"
        self.kubectl("create", "namespace", name)
        self.kubectl("create", "deployment", "own", "--image=p8s.local/pause:1", "-n", name)
        self.kubectl("rollout", "status", "deployment/own", "--timeout=60s", "-n", name)
        self.kubectl("delete", "namespace", name)

    def tear_down(self) -> None:
        """Delete all of it, the history too, which would go by itself after an hour."""
        self.kubectl("delete", "namespace", NAMESPACE, seconds=180)
        self.kubectl("delete", "events", "--all", "--all-namespaces")

    def keep_going(self, stop: threading.Event) -> None:
        """Rounds until the stop, no more often than `ROUND_SECONDS` allows."""
        while not stop.is_set():
            begun = time.monotonic()
            self.go_round()
            stop.wait(max(0, ROUND_SECONDS - (time.monotonic() - begun)))
