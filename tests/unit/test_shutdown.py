"""The stop: its order, what a drain deletes, and that no part blocks the next."""

from __future__ import annotations

import collections.abc
import dataclasses
import os
import pathlib
import time
import typing

import pytest

from p8s_supervisor import containers, context, errors, shutdown, status
from tests import fakes

WEBHOOKS = "/apis/admissionregistration.k8s.io/v1"
BLOCKER = {
    "metadata": {"name": "all"},
    "webhooks": [{"name": "slow"}, {"name": "lenient", "failurePolicy": "Ignore"}],
}
REFUSED = errors.KubeError("[Errno 111] Connection refused", status=0)
# Names are cut after 15 bytes, as /proc has them; a static pod's UID is not the API's.
RUNNING = [
    containers.Container(11, "kube-apiserver", "4f1e0c9d"),
    containers.Container(12, "kube-controller", "5f1e0c9d"),
    containers.Container(13, "kube-scheduler", "6f1e0c9d"),
    containers.Container(14, "coredns", "uid-coredns"),
    containers.Container(15, "agent", "uid-agent"),
    containers.Container(16, "pause", "uid-bare"),
    containers.Container(17, "postgres", "uid-bare"),
]


@dataclasses.dataclass
class Containers:
    """The running containers, in place of those of this machine.

    Attributes:
        killed: what `end` says had to be killed, of what it was given.
        ended: what `end` was given, call by call.
    """

    killed: list[int]
    ended: list[dict[int, float]]

    def first_processes(self) -> list[containers.Container]:
        return list(RUNNING)

    def end(self, graces: collections.abc.Mapping[int, float]) -> list[int]:
        self.ended.append(dict(graces))
        return [pid for pid in self.killed if pid in graces]


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Containers:
    """Nothing of the machine that runs the tests is looked at or ended."""
    fake = Containers([], [])
    monkeypatch.setattr(containers, "first_processes", fake.first_processes)
    monkeypatch.setattr(containers, "end", fake.end)
    monkeypatch.setattr(containers, "list_processes", fakes.forbid)
    monkeypatch.setattr(os, "kill", fakes.forbid)
    return fake


def make_pod(
    name: str,
    owner: str | None = "ReplicaSet",
    *,
    namespace: str = "default",
    grace: int = 30,
    **owned: object,
) -> dict[str, typing.Any]:
    metadata: dict[str, typing.Any] = {"name": name, "namespace": namespace, "uid": f"uid-{name}"}
    if owner is not None:
        metadata["ownerReferences"] = [{"kind": owner, "name": "x", "controller": True} | owned]
    return {"metadata": metadata, "spec": {"terminationGracePeriodSeconds": grace}}


PODS = [
    make_pod("web"),
    make_pod("old", "ReplicationController"),
    make_pod("db-0", "StatefulSet", namespace="data"),
    make_pod("once", "Job"),
    make_pod("agent", "DaemonSet", grace=3),
    make_pod("bare", None, grace=7),
    make_pod("static", "Node"),
    make_pod("owned", controller=False),
    make_pod("coredns", namespace="kube-system", grace=1),
    make_pod("provisioner", namespace="p8s-storage", grace=1),
]
DRAINED = [
    "DELETE /api/v1/namespaces/default/pods/web",
    "DELETE /api/v1/namespaces/default/pods/old",
    "DELETE /api/v1/namespaces/data/pods/db-0",
    "DELETE /api/v1/namespaces/default/pods/once",
]


def make_client(*lists: list[dict[str, typing.Any]]) -> fakes.KubeClient:
    """An apiserver that lists these pods, one list after the other, and deletes what it may."""
    answers: dict[str, list[fakes.Answer]] = {request: [{}] for request in DRAINED}
    answers["GET /readyz"] = ["ok"]
    answers["GET /api/v1/pods"] = [{"items": pods} for pods in lists]
    return fakes.KubeClient(answers)


def make_run(
    root: pathlib.Path,
    client: fakes.KubeClient | None,
    *arguments: str,
    supervisor: fakes.Supervisor | None = None,
    story: list[str] | None = None,
) -> context.Context:
    run = fakes.make_context(root, *arguments, client=client, supervisor=supervisor, story=story)
    run.plan.paths.static_pods.mkdir(parents=True)
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        (run.plan.paths.static_pods / f"{name}.yaml").write_text("a pod")
    return run


def list_static_pods(run: context.Context) -> set[str]:
    return {file.name for file in run.plan.paths.static_pods.iterdir()}


# --- drain


def drain(run: context.Context, graces: dict[str, float] | None = None) -> None:
    """As `stop` calls it."""
    deadline = run.timeline.now() + run.plan.settings.drain_timeout
    shutdown.drain(run, {} if graces is None else graces, deadline=deadline)


def test_drain_deletes_what_a_controller_makes_anew_and_nothing_else(
    tmp_path: pathlib.Path, running: Containers
) -> None:
    story: list[str] = []
    client = make_client(PODS, PODS[4:])
    run = make_run(tmp_path, client, story=story)
    graces: dict[str, float] = {}
    drain(run, graces)
    assert client.asked[:2] == ["GET /readyz", "GET /api/v1/pods"]
    assert sorted(client.asked[2:-1]) == sorted(DRAINED)  # many at a time
    assert client.asked[-1] == "GET /api/v1/pods"
    assert [request.body for request in client.requests if request.method == "DELETE"] == [None] * 4
    assert story == ["stop: draining 4 pods"]
    assert list_static_pods(run) == {"kube-apiserver.yaml"}
    assert running.ended == [{12: 5.0, 13: 5.0}]
    assert graces == {"uid-agent": 3, "uid-bare": 7, "uid-static": 30, "uid-owned": 30}


def test_controllers_are_ended_before_pods_are_deleted(
    tmp_path: pathlib.Path, running: Containers, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(PODS, [])
    asked_before: list[str] = []

    def end(_: object) -> list[int]:
        asked_before.extend(client.asked)
        return []

    monkeypatch.setattr(containers, "end", end)
    drain(make_run(tmp_path, client))
    assert asked_before == ["GET /readyz"]


@pytest.mark.usefixtures("running")
def test_drain_waits_until_the_pods_are_gone(tmp_path: pathlib.Path) -> None:
    again = PODS[0] | {"metadata": PODS[0]["metadata"] | {"uid": "another"}}
    client = make_client(PODS, PODS, PODS[:1], [again])
    drain(make_run(tmp_path, client))
    assert client.asked.count("GET /api/v1/pods") == 4


@pytest.mark.usefixtures("running")
def test_a_drain_that_takes_too_long_names_what_is_left(tmp_path: pathlib.Path) -> None:
    client = make_client(PODS, PODS[2:4])
    run = make_run(tmp_path, client, "--drain-timeout=300ms")
    began = time.monotonic()
    with pytest.raises(errors.P8sError) as caught:
        drain(run)
    assert 0.3 <= time.monotonic() - began < 10
    assert str(caught.value) == (
        "the drain: not within 0.3 s; last reason: still there: data/db-0, default/once"
    )


@pytest.mark.usefixtures("running")
def test_a_pod_that_only_finalizers_keep_is_not_waited_for(tmp_path: pathlib.Path) -> None:
    ended = {"finalizers": ["example.com/x"], "deletionGracePeriodSeconds": 0}
    going = {"finalizers": ["example.com/x"], "deletionGracePeriodSeconds": 30}
    looks = [
        [PODS[0] | {"metadata": PODS[0]["metadata"] | metadata}] for metadata in (going, ended)
    ]
    client = make_client(PODS, *looks)
    drain(make_run(tmp_path, client))
    assert client.asked.count("GET /api/v1/pods") == 3


@pytest.mark.usefixtures("running")
def test_pods_that_are_not_asked_for_in_time_are_named(tmp_path: pathlib.Path) -> None:
    client = make_client(PODS, PODS)
    run = make_run(tmp_path, client)
    with pytest.raises(errors.P8sError) as caught:
        shutdown.drain(run, {}, deadline=run.timeline.now())
    assert caught.value.message == (
        "default/web, default/old, data/db-0 and 1 more not deleted: "
        "not asked for: others took all of the drain's time"
    )
    assert not [asked for asked in client.asked if asked.startswith("DELETE")]


@pytest.mark.usefixtures("running")
def test_a_pod_that_is_gone_already_is_no_trouble(tmp_path: pathlib.Path) -> None:
    client = make_client(PODS, [])
    client.answers[DRAINED[0]] = [errors.KubeError("not found", status=404)]
    drain(make_run(tmp_path, client))
    assert sorted(asked for asked in client.asked if asked.startswith("DELETE")) == sorted(DRAINED)


@pytest.mark.usefixtures("running")
def test_a_pod_that_cannot_be_deleted_is_told_after_the_others_are_gone(
    tmp_path: pathlib.Path,
) -> None:
    refused = {0: errors.KubeError("a webhook says no", status=403), 2: REFUSED}
    client = make_client(PODS, PODS, [PODS[0], PODS[2], *PODS[4:]])
    for kind in ("validating", "mutating"):
        client.answers[f"GET {WEBHOOKS}/{kind}webhookconfigurations"] = [{"items": [BLOCKER]}]
    for index, error in refused.items():
        client.answers[DRAINED[index]] = [error]
    graces: dict[str, float] = {}
    with pytest.raises(errors.P8sError) as caught:
        drain(make_run(tmp_path, client, "--drain-timeout=2s"), graces)
    assert caught.value.message == (
        "default/web not deleted: a webhook says no; "
        "data/db-0 not deleted: [Errno 111] Connection refused; the apiserver may wait for a webhook: "
        "slow (ValidatingWebhookConfiguration all), slow (MutatingWebhookConfiguration all)"
    )
    assert sorted(asked for asked in client.asked if asked.startswith("DELETE")) == sorted(DRAINED)
    assert client.asked.count("GET /api/v1/pods") == 3
    # They are ended with all others, and have their own grace then.
    kept = {"uid-agent": 3, "uid-bare": 7, "uid-static": 30, "uid-owned": 30}
    assert graces == kept | {"uid-web": 30, "uid-db-0": 30}


@pytest.mark.parametrize(
    ("client", "arguments", "asked"),
    [
        pytest.param(make_client(PODS), ["--drain=none"], [], id="drain=none"),
        pytest.param(None, [], [], id="a stop before the setup was done"),
        pytest.param(
            fakes.KubeClient({"GET /readyz": [REFUSED]}),
            [],
            ["GET /readyz"],
            id="the apiserver is down",
        ),
    ],
)
def test_where_nothing_can_or_shall_be_drained_nothing_is_touched(
    tmp_path: pathlib.Path,
    running: Containers,
    client: fakes.KubeClient | None,
    arguments: list[str],
    asked: list[str],
) -> None:
    run = make_run(tmp_path, client, *arguments)
    drain(run)
    assert (client.asked if client else []) == asked
    assert running.ended == []
    assert len(list_static_pods(run)) == 3


@pytest.mark.usefixtures("running")
def test_with_nothing_to_drain_there_is_nothing_to_wait_for(tmp_path: pathlib.Path) -> None:
    story: list[str] = []
    client = make_client(PODS[4:])
    drain(make_run(tmp_path, client, story=story))
    assert client.asked == ["GET /readyz", "GET /api/v1/pods"]
    assert story == []


@pytest.mark.usefixtures("running")
def test_an_apiserver_that_dies_during_the_drain_is_told(tmp_path: pathlib.Path) -> None:
    client = make_client(PODS)
    client.answers["GET /api/v1/pods"].append(REFUSED)
    with pytest.raises(errors.KubeError, match="Connection refused"):
        drain(make_run(tmp_path, client))


# --- stop

ORDER = [("stop", "kubelet"), ("stop", "containerd"), ("stop", "etcd")]
# Last and by itself.
APISERVER = {11: 0.3}
SYSTEM = {12: 5.0, 13: 5.0, 14: 5.0}
WITH_GRACES = SYSTEM | {15: 3, 16: 7, 17: 7}
PHASES = ["stop drain", "stop kubelet", "stop containers", "stop containerd", "stop etcd"]


def test_the_stop_goes_in_reverse_order_of_the_start(
    tmp_path: pathlib.Path, running: Containers
) -> None:
    supervisor = fakes.Supervisor()
    run = make_run(tmp_path, make_client(PODS, []), supervisor=supervisor)
    assert shutdown.stop(run) == []
    assert run.state == status.State.STOPPING
    assert supervisor.calls == ORDER
    assert running.ended == [{12: 5.0, 13: 5.0}, WITH_GRACES, APISERVER]
    assert [phase.name for phase in run.timeline.phases()] == PHASES
    assert all(phase.duration is not None for phase in run.timeline.phases())


@pytest.mark.parametrize(
    ("failing", "problem"),
    [
        pytest.param("kubelet", "stop kubelet: no such socket", id="kubelet"),
        pytest.param("containerd", "stop containerd: no such socket", id="containerd"),
        pytest.param("etcd", "stop etcd: no such socket", id="etcd"),
    ],
)
def test_a_process_that_cannot_be_stopped_does_not_block_the_next(
    tmp_path: pathlib.Path, running: Containers, failing: str, problem: str
) -> None:
    supervisor = fakes.Supervisor(failures={("stop", failing): OSError("no such socket")})
    run = make_run(tmp_path, make_client([]), supervisor=supervisor)
    assert shutdown.stop(run) == [problem]
    assert supervisor.calls == ORDER
    assert running.ended[-2:] == [SYSTEM | {15: 5.0, 16: 5.0, 17: 5.0}, APISERVER]
    assert [phase.name for phase in run.timeline.phases()] == PHASES


def test_whatever_goes_wrong_everything_is_stopped_and_told(
    tmp_path: pathlib.Path, running: Containers
) -> None:
    # The apiserver only waits for connections of its own: that it is killed is no trouble.
    running.killed = [11, 13, 14]
    client = make_client(PODS)
    client.answers["GET /api/v1/pods"] = [errors.KubeError("etcd is gone", status=500)]
    supervisor = fakes.Supervisor(
        failures={("stop", name): OSError(f"{name} hangs") for _, name in ORDER}
    )
    run = make_run(tmp_path, client, supervisor=supervisor)
    assert shutdown.stop(run) == [
        "stop drain: etcd is gone",
        "stop kubelet: kubelet hangs",
        "stop containers: did not end within their grace and were killed: kube-scheduler, coredns",
        "stop containerd: containerd hangs",
        "stop etcd: etcd hangs",
    ]
    assert supervisor.calls == ORDER


@pytest.mark.parametrize(
    ("now", "arguments", "grace"),
    [
        pytest.param(100.0, [], 7, id="its own grace"),
        pytest.param(123.5, ["--drain-timeout=30s"], 6.5, id="what is left of the drain's time"),
        pytest.param(128.0, ["--drain-timeout=30s"], 5.0, id="never less than the usual grace"),
        pytest.param(100.0, ["--drain-timeout=1s"], 5.0, id="a drain that may not take long"),
    ],
)
def test_a_pod_s_own_grace_ends_with_the_drain_s_time(
    tmp_path: pathlib.Path, running: Containers, now: float, arguments: list[str], grace: float
) -> None:
    run = fakes.make_context(tmp_path, *arguments, clock=fakes.Clock(now))
    deadline = 100.0 + run.plan.settings.drain_timeout
    shutdown.end_containers(run, {"uid-bare": 7}, deadline=deadline)
    assert running.ended == [SYSTEM | {15: 5.0, 16: grace, 17: grace}, APISERVER]


def test_a_stop_can_be_repeated(tmp_path: pathlib.Path, running: Containers) -> None:
    supervisor = fakes.Supervisor()
    run = make_run(tmp_path, make_client(PODS, []), supervisor=supervisor)
    assert [shutdown.stop(run), shutdown.stop(run)] == [[], []]
    assert supervisor.calls == ORDER * 2
    assert len(running.ended) == 6


# --- a start that failed


def test_a_failure_of_p8s_is_told_without_a_traceback(tmp_path: pathlib.Path) -> None:
    story: list[str] = []
    run = fakes.make_context(tmp_path, story=story)
    error = errors.ComponentFailedError("etcd", "fatal: no disk", log_tail=["panic"])
    assert shutdown.tell_failure(run, error) == 1
    assert story == ["the start failed: etcd failed: fatal: no disk\n  | panic"]


def test_wrong_settings_have_their_own_exit_code(tmp_path: pathlib.Path) -> None:
    run = fakes.make_context(tmp_path)
    assert shutdown.tell_failure(run, errors.SettingsError(["x"])) == 2


def test_any_other_failure_is_told_with_its_traceback_and_the_logs(tmp_path: pathlib.Path) -> None:
    story: list[str] = []
    run = fakes.make_context(tmp_path, story=story)
    run.plan.paths.logs.mkdir(parents=True)
    (run.plan.paths.logs / "etcd.log").write_text("one\ntwo\n")
    (run.plan.paths.logs / "kubelet.log").write_text("three\n")
    assert shutdown.tell_failure(run, RuntimeError("a bug")) == 1
    assert story[0].startswith("the start failed: ")
    assert story[0].endswith("RuntimeError: a bug\n")
    assert story[1:] == ["  etcd | one", "  etcd | two", "  kubelet | three"]
