"""One look at each thing: a reason, or None."""

from __future__ import annotations

import collections.abc
import pathlib
import socket
import typing

import pytest

from p8s_supervisor import dns, errors, probes
from tests import fakes

PODS = "GET /api/v1/namespaces/kube-system/pods"
NODE = "GET /api/v1/nodes/p8s"
ACCOUNT = "GET /api/v1/namespaces/default/serviceaccounts/default"
FORBIDDEN = errors.KubeError("forbidden", status=403)
BEFORE, AT, AFTER = "2025-12-31T23:59:59Z", "2026-01-01T00:00:00Z", "2026-01-01T00:00:05Z"
SINCE = fakes.STARTED_AT
REFUSED = errors.KubeError("[Errno 111] Connection refused", status=0)


# --- sockets


def test_a_port_that_is_listened_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert probes.port("127.0.0.1", server.getsockname()[1]) is None


def test_a_port_that_nobody_listens_on() -> None:
    number = fakes.free_port()
    assert probes.port("127.0.0.1", number) == f"127.0.0.1:{number}: Connection refused"


def test_a_unix_socket(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "s")
    assert probes.unix_socket(path) == f"{path}: No such file or directory"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        assert probes.unix_socket(path) == f"{path}: Connection refused"
        server.listen()
        assert probes.unix_socket(path) is None


# --- processes


@pytest.mark.parametrize(
    ("supervisor", "reasons"),
    [
        pytest.param(
            fakes.Supervisor([fakes.running("etcd"), fakes.running("kubelet")]),
            {"etcd": None, "kubelet": None},
            id="both run",
        ),
        pytest.param(
            fakes.Supervisor(
                [
                    fakes.stopped("etcd"),
                    fakes.stopped("kubelet", state="FATAL", reason="Exited too quickly"),
                    fakes.running("other"),
                ]
            ),
            {"etcd": "stopped: Not started", "kubelet": "fatal: Exited too quickly"},
            id="none runs",
        ),
        pytest.param(
            fakes.Supervisor([fakes.running("etcd")]),
            {"etcd": None, "kubelet": "supervisord does not know it"},
            id="one is unknown",
        ),
        pytest.param(
            fakes.Supervisor(
                failures={("list_processes", ""): OSError("supervisord does not answer: x")}
            ),
            {
                "etcd": "supervisord does not answer: x",
                "kubelet": "supervisord does not answer: x",
            },
            id="no answer",
        ),
    ],
)
def test_supervised(supervisor: fakes.Supervisor, reasons: dict[str, str | None]) -> None:
    assert probes.supervised(supervisor, ("etcd", "kubelet")) == reasons


# --- the apiserver

READYZ = (
    "[+]ping ok\n[+]etcd ok\n"
    "[-]poststarthook/rbac/bootstrap-roles failed: reason withheld\n"
    "[+]autoregister-completion ok\n"
    "[-]shutdown failed: reason withheld\n"
    "readyz check failed"
)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        pytest.param(
            READYZ,
            "[-]poststarthook/rbac/bootstrap-roles failed: reason withheld "
            "[-]shutdown failed: reason withheld",
            id="the failed checks alone",
        ),
        pytest.param(
            "[Errno 111] Connection refused", "[Errno 111] Connection refused", id="no answer"
        ),
        pytest.param("", "", id="nothing at all"),
    ],
)
def test_the_apiserver_s_failed_checks(message: str, reason: str) -> None:
    client = fakes.KubeClient({"GET /readyz": [errors.KubeError(message, status=500)]})
    assert probes.apiserver(client) == reason


def test_an_apiserver_that_is_ready() -> None:
    client = fakes.KubeClient({"GET /readyz": ["ok"]})
    assert probes.apiserver(client) is None
    assert client.asked == ["GET /readyz"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param('{"major": "1"}', None, id="an answer"),
        pytest.param(errors.KubeError("forbidden", status=403), None, id="one that says no"),
        pytest.param(errors.KubeError("not ready", status=500), None, id="not ready"),
        pytest.param(
            errors.KubeError("[Errno 111] Connection refused", status=0),
            "[Errno 111] Connection refused",
            id="no answer",
        ),
    ],
)
def test_an_apiserver_that_answers(answer: fakes.Answer, reason: str | None) -> None:
    client = fakes.KubeClient({"GET /version": [answer]})
    assert probes.apiserver_answers(client) == reason
    assert client.asked == ["GET /version"]


def make_node(ready: str, told: str) -> dict[str, typing.Any]:
    condition = {"type": "Ready", "status": ready, "message": "x", "lastHeartbeatTime": told}
    return {"status": {"conditions": [condition]}}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(
            {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, None, id="ready"
        ),
        pytest.param(
            {
                "status": {
                    "conditions": [
                        {"type": "DiskPressure", "status": "True", "message": "full"},
                        {"type": "Ready", "status": "False", "message": "no CNI"},
                    ]
                }
            },
            "no CNI",
            id="not ready",
        ),
        pytest.param(
            {"status": {"conditions": [{"type": "Ready", "status": "Unknown", "message": "gone"}]}},
            "gone",
            id="unknown is not ready",
        ),
        pytest.param(
            {"status": {"conditions": []}}, "node p8s has no condition Ready yet", id="no condition"
        ),
        pytest.param({}, "node p8s has no condition Ready yet", id="no status"),
        pytest.param(make_node("True", AFTER), None, id="told after the start"),
        pytest.param(make_node("True", AT), None, id="told in the second of the start"),
        pytest.param(
            make_node("True", BEFORE),
            "kubelet has not told of node p8s since the start",
            id="told in an earlier life",
        ),
        pytest.param(
            make_node("False", BEFORE),
            "kubelet has not told of node p8s since the start",
            id="not ready in an earlier life",
        ),
        pytest.param(
            errors.KubeError('nodes "p8s" not found', status=404),
            'node p8s: nodes "p8s" not found',
            id="no node",
        ),
    ],
)
def test_node(answer: fakes.Answer, reason: str | None) -> None:
    client = fakes.KubeClient({NODE: [answer]})
    # The start was within its second; the API's timestamps are whole seconds.
    assert probes.node(client, "p8s", since=SINCE + 0.9) == reason


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param({"kind": "ServiceAccount"}, None, id="there"),
        pytest.param(FORBIDDEN, "forbidden", id="not there"),
    ],
)
def test_default_service_account(answer: fakes.Answer, reason: str | None) -> None:
    assert probes.default_service_account(fakes.KubeClient({ACCOUNT: [answer]})) == reason


# --- pods


def make_pod(
    name: str, status: dict[str, typing.Any] | None = None, **metadata: object
) -> dict[str, typing.Any]:
    pod: dict[str, typing.Any] = {"metadata": {"name": name, **metadata}}
    return pod if status is None else pod | {"status": status}


READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
STALE = "kubelet has not told of it since the start"
WAITING = {"name": "app", "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "10s"}}}


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        pytest.param(make_pod("a", READY), None, id="ready"),
        pytest.param(
            make_pod("a", READY, deletionTimestamp="2026-01-01T00:00:00Z"),
            "it is being deleted",
            id="being deleted, though ready",
        ),
        pytest.param(
            make_pod("a", {"phase": "Running", "containerStatuses": [WAITING]}),
            "app: CrashLoopBackOff 10s",
            id="a waiting container",
        ),
        pytest.param(
            make_pod(
                "a",
                {
                    "containerStatuses": [
                        {"name": "one", "state": {"running": {}}},
                        {"name": "two", "state": {"waiting": {"reason": "ContainerCreating"}}},
                    ]
                },
            ),
            "two: ContainerCreating",
            id="waiting without a message",
        ),
        pytest.param(
            make_pod(
                "a",
                {
                    "initContainerStatuses": [
                        {"name": "init", "state": {"waiting": {"reason": "ErrImageNeverPull"}}}
                    ],
                    "containerStatuses": [WAITING],
                },
            ),
            "init: ErrImageNeverPull",
            id="an init container comes first",
        ),
        pytest.param(
            make_pod(
                "a",
                {
                    "phase": "Pending",
                    "conditions": [
                        {"type": "Ready", "status": "False", "message": "not yet"},
                        {"type": "PodScheduled", "status": "False", "message": "no node fits"},
                    ],
                },
            ),
            "no node fits",
            id="not scheduled comes before not ready",
        ),
        pytest.param(
            make_pod(
                "a",
                {
                    "phase": "Running",
                    "conditions": [
                        {"type": "PodScheduled", "status": "True"},
                        {"type": "Ready", "status": "False", "message": "unready: [app]"},
                    ],
                    "containerStatuses": [{"name": "app", "state": {"running": {}}}],
                },
            ),
            "unready: [app]",
            id="running, but not ready",
        ),
        pytest.param(
            make_pod(
                "a", {"phase": "Failed", "conditions": [{"type": "Ready", "status": "False"}]}
            ),
            "Failed",
            id="the phase where nothing else is said",
        ),
        pytest.param(make_pod("a", {}), "Pending", id="an empty status"),
        pytest.param(make_pod("a"), "Pending", id="no status"),
    ],
)
def test_pod_reason(pod: dict[str, typing.Any], reason: str | None) -> None:
    assert probes.pod_reason(pod) == reason


def make_running(*started: str) -> dict[str, typing.Any]:
    """The status of a pod that is Ready, its containers started at these moments."""
    running = [{"name": "x", "state": {"running": {"startedAt": moment}}} for moment in started]
    return READY | {"containerStatuses": running}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        pytest.param(make_running(AFTER), None, id="started after"),
        pytest.param(make_running(AT), None, id="started in the same second"),
        pytest.param(make_running(BEFORE), STALE, id="started before"),
        pytest.param(make_running(AFTER, BEFORE), STALE, id="one of two started before"),
        pytest.param(READY, None, id="no word of containers"),
        pytest.param(
            READY | {"containerStatuses": [{"name": "x", "state": {}}]}, None, id="no moment"
        ),
        pytest.param(
            {"phase": "Pending", "containerStatuses": make_running(BEFORE)["containerStatuses"]},
            "Pending",
            id="not ready for another reason",
        ),
    ],
)
def test_a_status_of_an_earlier_life_is_out_of_date(
    status: dict[str, typing.Any], reason: str | None
) -> None:
    assert probes.pod_reason(make_pod("a", status), since=SINCE + 0.9) == reason


def test_without_a_start_no_status_is_out_of_date() -> None:
    assert probes.pod_reason(make_pod("a", make_running(BEFORE))) is None


STATIC = [make_pod(f"{name}-p8s", READY) for name in probes.STATIC_PODS]
PROXY = make_pod("kube-proxy-x1", READY, labels={"k8s-app": "kube-proxy"})
KUBE_DNS = {"k8s-app": "kube-dns", "pod-template-hash": "x"}
DNS = make_pod("coredns-x1", READY, labels=KUBE_DNS)
HOLDS = {
    "kube-apiserver-p8s": None,
    "kube-controller-manager-p8s": None,
    "kube-scheduler-p8s": None,
    "kube-proxy-x1": None,
    "coredns-x1": None,
}
ABSENT = "there is no such pod yet"


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        pytest.param([*STATIC, PROXY, DNS], HOLDS, id="a whole cluster"),
        pytest.param(
            [],
            dict.fromkeys(
                [
                    "kube-apiserver-p8s",
                    "kube-controller-manager-p8s",
                    "kube-scheduler-p8s",
                    "kube-proxy",
                    "coredns",
                ],
                ABSENT,
            ),
            id="an empty namespace",
        ),
        pytest.param(
            [*STATIC[1:], PROXY, DNS],
            HOLDS | {"kube-apiserver-p8s": ABSENT},
            id="a static pod that is not shown yet",
        ),
        pytest.param(
            [*STATIC, PROXY],
            {name: None for name in HOLDS if name != "coredns-x1"} | {"coredns": ABSENT},
            id="no coredns",
        ),
        pytest.param(
            [*STATIC, PROXY, DNS, make_pod("coredns-x2", {"phase": "Pending"})],
            HOLDS | {"coredns-x2": "Pending"},
            id="one of two is not ready",
        ),
        pytest.param(
            [*STATIC, PROXY, DNS, make_pod("a-job", {"phase": "Succeeded"})],
            HOLDS,
            id="a job that is done is no trouble",
        ),
        pytest.param(
            [*STATIC, PROXY, make_pod("coredns-x1", make_running(BEFORE), labels=KUBE_DNS)],
            HOLDS | {"coredns-x1": STALE},
            id="one that is ready since an earlier life",
        ),
    ],
)
def test_system_pods(pods: list[dict[str, typing.Any]], expected: dict[str, str | None]) -> None:
    client = fakes.KubeClient({PODS: [{"items": pods}]})
    assert probes.system_pods(client, "p8s", since=SINCE) == expected


def test_a_static_pod_that_is_not_shown_yet_is_missing() -> None:
    client = fakes.KubeClient({PODS: [{"items": STATIC}]})
    static = (*probes.STATIC_PODS, "resolver")
    found = probes.system_pods(client, "p8s", since=SINCE, static=static)
    assert found["resolver-p8s"] == "there is no such pod yet"
    assert found["kube-apiserver-p8s"] is None


def test_system_pods_without_an_apiserver() -> None:
    client = fakes.KubeClient({PODS: [REFUSED]})
    assert probes.system_pods(client, "p8s", since=SINCE) == {
        "kube-system": "[Errno 111] Connection refused"
    }


# --- DNS

QUESTION = "kubernetes.default.svc.cluster.local at 192.168.254.2"


def answer_with(result: object) -> collections.abc.Callable[..., object]:
    def query(name: str, *, server: str, seconds: float) -> object:
        assert (f"{name} at {server}", seconds) == (QUESTION, 0.5)
        if isinstance(result, Exception):
            raise result
        return result

    return query


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        pytest.param(["192.168.254.1"], None, id="the service address"),
        pytest.param([], f"{QUESTION}: no address instead of 192.168.254.1", id="no address"),
        pytest.param(
            ["10.0.0.1"], f"{QUESTION}: ['10.0.0.1'] instead of 192.168.254.1", id="another address"
        ),
        pytest.param(TimeoutError("timed out"), f"{QUESTION}: timed out", id="no answer"),
        pytest.param(ValueError("DNS error code 3"), f"{QUESTION}: DNS error code 3", id="error"),
    ],
)
def test_cluster_dns(monkeypatch: pytest.MonkeyPatch, result: object, reason: str | None) -> None:
    monkeypatch.setattr(dns, "query", answer_with(result))
    found = probes.cluster_dns(
        server="192.168.254.2", domain="cluster.local", expected="192.168.254.1"
    )
    assert found == reason
