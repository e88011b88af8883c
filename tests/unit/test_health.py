"""Readiness in every state of the cluster's life."""

from __future__ import annotations

import collections.abc
import pathlib
import typing

import pytest

from p8s_supervisor import context, dns, errors, health, processes, status
from tests import fakes

READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
PODS: dict[str, typing.Any] = {
    "items": [
        {"metadata": {"name": "kube-apiserver-p8s"}, "status": READY},
        {"metadata": {"name": "kube-controller-manager-p8s"}, "status": READY},
        {"metadata": {"name": "kube-scheduler-p8s"}, "status": READY},
        {
            "metadata": {"name": "kube-proxy-1", "labels": {"k8s-app": "kube-proxy"}},
            "status": READY,
        },
        {"metadata": {"name": "coredns-1", "labels": {"k8s-app": "kube-dns"}}, "status": READY},
    ]
}
ANSWERS: dict[str, list[fakes.Answer]] = {
    "GET /readyz": ["ok"],
    "GET /api/v1/nodes/p8s": [{"status": READY}],
    "GET /api/v1/namespaces/default/serviceaccounts/default": [{}],
    "GET /api/v1/namespaces/kube-system/pods": [PODS],
}
REFUSED = errors.KubeError("[Errno 111] Connection refused", status=0)
STALE = {"type": "Ready", "status": "True", "lastHeartbeatTime": "2025-12-31T23:59:59Z"}
CONDITIONS = {
    "disk",
    "etcd",
    "containerd",
    "kubelet",
    "apiserver",
    "node",
    "default-service-account",
    "pod/kube-apiserver-p8s",
    "pod/kube-controller-manager-p8s",
    "pod/kube-scheduler-p8s",
    "pod/kube-proxy-1",
    "pod/coredns-1",
    "cluster-dns",
}


def make_supervisor() -> fakes.Supervisor:
    return fakes.Supervisor([fakes.running(name) for name in ("etcd", "containerd", "kubelet")])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> fakes.Clock:
    """The monitor's time, and a cluster DNS that answers."""
    clock = fakes.Clock(50.0)
    monkeypatch.setattr(health, "time", clock)
    monkeypatch.setattr(status, "process_start", lambda _: 0.0)
    monkeypatch.setattr(dns, "query", lambda *_, **__: ["192.168.254.1"])
    return clock


Make = collections.abc.Callable[..., context.Context]


@pytest.fixture
def make_run(tmp_path: pathlib.Path, clock: fakes.Clock) -> Make:
    """Makes a context of a whole cluster, with some answers of the apiserver replaced."""

    def make(**answers: list[fakes.Answer]) -> context.Context:
        replaced = {ALIASES[name]: answer for name, answer in answers.items()}
        return fakes.make_context(
            tmp_path,
            supervisor=make_supervisor(),
            client=fakes.KubeClient(ANSWERS | replaced),
            clock=clock,
        )

    return make


ALIASES = {
    "readyz": "GET /readyz",
    "node": "GET /api/v1/nodes/p8s",
    "account": "GET /api/v1/namespaces/default/serviceaccounts/default",
    "pods": "GET /api/v1/namespaces/kube-system/pods",
}


@pytest.mark.parametrize(
    ("state", "whole", "broken"),
    [
        pytest.param(
            "starting",
            {"p8s": "the start is not complete"},
            {"apiserver": "gone"},
            id="starting",
        ),
        pytest.param("ready", {}, {"apiserver": "gone"}, id="ready"),
        pytest.param(
            "stopping",
            {"p8s": "the cluster is stopping"},
            {"p8s": "the cluster is stopping"},
            id="stopping",
        ),
    ],
)
def test_missing_in_each_state(
    make_run: Make, state: str, whole: dict[str, str], broken: dict[str, str]
) -> None:
    good, bad = make_run(), make_run(readyz=[errors.KubeError("gone", status=500)])
    good.state = bad.state = status.State(state)
    assert health.Monitor(good).missing() == whole
    assert health.Monitor(bad).missing() == broken
    assert (good.state, bad.state) == (state, state)


def test_every_state_is_in_the_table_above() -> None:
    (table,) = typing.cast("typing.Any", test_missing_in_each_state).pytestmark
    # That a ready cluster is not ready now is found by looking; a context never says so.
    looked = {status.State.NOT_READY, status.State.DEGRADED}
    states = {str(state) for state in status.State} - looked
    assert {case.values[0] for case in table.args[1]} == states


def test_readiness_turns_red_and_green_again(make_run: Make, clock: fakes.Clock) -> None:
    run = make_run(readyz=["ok", REFUSED, "ok"])
    run.state = status.State.READY
    monitor = health.Monitor(run)
    seen = []
    for _ in range(3):
        seen.append(monitor.missing())
        clock.now += 1
    assert seen == [{}, {"apiserver": "[Errno 111] Connection refused"}, {}]
    assert monitor.counters == health.Counters(probes=3, probe_failures=1, dns_failures=0)


def test_a_pod_that_is_gone_is_no_condition_any_more(make_run: Make, clock: fakes.Clock) -> None:
    run = make_run(readyz=[REFUSED, "ok"])
    run.timeline.mark("pod/old", holds=True)
    monitor = health.Monitor(run)
    monitor.look()
    assert "pod/old" in run.timeline.turned_true()  # nobody could look at pods
    clock.now += 1
    monitor.look()
    assert "pod/old" not in run.timeline.turned_true()


def test_conditions_are_marked_with_the_time_they_turned_true(
    make_run: Make, clock: fakes.Clock
) -> None:
    run = make_run(node=[{}, {"status": READY}])
    monitor = health.Monitor(run)
    assert monitor.look() == {"node": "node p8s has no condition Ready yet"}
    assert set(run.timeline.turned_true()) == CONDITIONS - {"node"}
    clock.now = 53.0
    assert monitor.look() == {}
    turned_true = run.timeline.turned_true()
    assert set(turned_true) == CONDITIONS
    assert (turned_true["node"], turned_true["etcd"]) == (53.0, 50.0)


@pytest.mark.parametrize(
    ("answers", "missing"),
    [
        pytest.param({}, {}, id="whole"),
        pytest.param(
            {"account": [errors.KubeError("not found", status=404)]},
            {"default-service-account": "not found"},
            id="no service account",
        ),
        pytest.param(
            {"pods": [{"items": PODS["items"][:-1]}]},
            {"pod/coredns": "there is no such pod yet"},
            id="no coredns",
        ),
        pytest.param(
            {"pods": [REFUSED]},
            {"pod/kube-system": "[Errno 111] Connection refused"},
            id="no list of pods",
        ),
        pytest.param(
            {"node": [{"status": {"conditions": [STALE]}}]},
            {"node": "kubelet has not told of node p8s since the start"},
            id="a node as an earlier life left it",
        ),
        pytest.param(
            {"readyz": [REFUSED]},
            {"apiserver": "[Errno 111] Connection refused"},
            id="without an apiserver nothing else is asked",
        ),
    ],
)
def test_look_names_what_is_missing(
    make_run: Make, answers: dict[str, list[fakes.Answer]], missing: dict[str, str]
) -> None:
    assert health.Monitor(make_run(**answers)).look() == missing


def test_look_names_processes_that_do_not_run(make_run: Make) -> None:
    run = make_run()
    run.supervisor = fakes.Supervisor(
        [fakes.running("etcd"), fakes.stopped("kubelet", state="BACKOFF", reason="no disk")]
    )
    assert health.Monitor(run).look() == {
        "containerd": "supervisord does not know it",
        "kubelet": "backoff: no disk",
    }


def test_before_the_setup_there_is_no_apiserver_to_ask(make_run: Make) -> None:
    run = make_run()
    run.client = None
    assert health.Monitor(run).look() == {"setup": "kube-apiserver is not started yet"}


def test_dns_that_does_not_answer_is_counted(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns, "query", lambda *_, **__: [])
    monitor = health.Monitor(make_run())
    assert set(monitor.look()) == {"cluster-dns"}
    assert monitor.counters == health.Counters(probes=1, probe_failures=1, dns_failures=1)


@pytest.mark.parametrize(
    ("passed", "looks"),
    [
        pytest.param(0.0, 1, id="at once"),
        pytest.param(0.09, 1, id="a little later"),
        pytest.param(0.11, 2, id="later than a look is fresh"),
    ],
)
def test_one_look_serves_all_that_ask_at_the_same_time(
    make_run: Make, clock: fakes.Clock, passed: float, looks: int
) -> None:
    run = make_run(readyz=[REFUSED, "ok"])
    client = typing.cast("fakes.KubeClient", run.client)
    monitor = health.Monitor(run)
    first = monitor.look()
    first["changed"] = "by the caller"
    clock.now += passed
    second = monitor.look()
    assert client.asked.count("GET /readyz") == looks
    assert second == ({"apiserver": "[Errno 111] Connection refused"} if looks == 1 else {})


def test_a_look_waits_in_vain_only_for_so_long(make_run: Make) -> None:
    run = make_run()
    health.Monitor(run).look()
    limits = typing.cast("fakes.KubeClient", run.client).limits
    assert limits == [2.0, *[health.LOOK_SECONDS] * 3]


@pytest.mark.parametrize(
    ("pids", "restarts"),
    [
        pytest.param([0, 0], [0, 0], id="never ran"),
        pytest.param([7, 7], [0, 0], id="the same process"),
        pytest.param([7, 0, 8], [0, 0, 1], id="another one after a pause"),
        pytest.param([7, 8, 9], [0, 1, 2], id="two others"),
    ],
)
def test_restarts(make_run: Make, pids: list[int], restarts: list[int]) -> None:
    monitor = health.Monitor(make_run())
    seen = [monitor.restarts(processes.Process("etcd", "RUNNING", pid, 1.0, "")) for pid in pids]
    assert seen == restarts
    assert monitor.restarts(processes.Process("kubelet", "RUNNING", 1, 1.0, "")) == 0


class Endpoint:
    """A component that says what it is told to."""

    def __init__(self, reason: str | None) -> None:
        self.reason, self.asked = reason, 0

    def ask(self) -> str | None:
        self.asked += 1
        return self.reason


def test_components_are_asked_themselves(make_run: Make) -> None:
    """What the API says of a pod that has just ended is that it is Ready."""
    run = make_run()
    run.endpoints = {
        "etcd": Endpoint(None),
        "kubelet": Endpoint("refused"),
        "kube-scheduler": Endpoint("gone"),
    }
    assert health.Monitor(run).look() == {"kubelet": "refused", "kube-scheduler": "gone"}


def test_without_etcd_kube_apiserver_is_not_waited_for(make_run: Make) -> None:
    run = make_run()
    run.endpoints = {"etcd": Endpoint("no answer")}
    assert health.Monitor(run).look() == {"etcd": "no answer"}
    assert typing.cast("fakes.KubeClient", run.client).asked == []


def test_a_process_that_does_not_run_is_not_asked(make_run: Make) -> None:
    run = make_run()
    kubelet = Endpoint("refused")
    run.endpoints = {"kubelet": kubelet}
    supervisor = typing.cast("fakes.Supervisor", run.supervisor)
    supervisor.now["kubelet"] = fakes.stopped("kubelet", state="BACKOFF", reason="killed")
    assert health.Monitor(run).look() == {"kubelet": "backoff: killed"}
    assert kubelet.asked == 0


def test_the_node_is_believed_only_from_the_kubelet_that_runs(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:30Z"}
    run = make_run(node=[{"status": {"conditions": [told]}}])
    monkeypatch.setattr(status, "process_start", lambda _: 29.0)
    assert health.Monitor(run).look() == {}
    monkeypatch.setattr(status, "process_start", lambda _: 31.0)
    assert health.Monitor(run).look() == {
        "node": "kubelet has not told of node p8s since the start"
    }


def test_a_start_that_failed_is_told_in_the_component_s_own_words(tmp_path: pathlib.Path) -> None:
    run = fakes.make_context(tmp_path)
    error = errors.ComponentFailedError("etcd", "it ended", log_tail=["flag provided: -x"])
    run.fail(error)
    run.state = status.State.STOPPING
    assert health.Monitor(run).missing() == {
        "p8s": "the start failed: etcd failed: it ended\n  | flag provided: -x"
    }


def test_what_is_refused_is_missing_at_once(make_run: Make) -> None:
    """However fresh the last look is: a start's end lies between it and the next."""
    run = make_run()
    run.state = status.State.READY
    monitor = health.Monitor(run)
    assert monitor.missing() == {}
    run.refused["manifests/a.yaml"] = "invalid"
    assert monitor.missing() == {"manifests/a.yaml": "invalid"}


def test_an_add_on_that_was_just_applied_is_looked_at(make_run: Make, clock: fakes.Clock) -> None:
    """However fresh the last look is, which knows nothing of it, and was green."""
    run = make_run()
    run.state = status.State.READY
    monitor = health.Monitor(run)
    assert monitor.missing() == {}
    clock.now += 0.01
    run.add_ons["mine"] = context.AddOn(is_counted=True)
    run.changed_at = clock.now
    clock.now += 0.01
    assert monitor.missing() == {"add-on/mine": "it is not applied yet"}
