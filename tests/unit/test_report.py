"""What /status, /metrics and the status line say."""

from __future__ import annotations

import json
import pathlib
import typing

import pytest

from p8s_supervisor import add_on_switches, context, errors, health, report, status
from tests import fakes

READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
SYSTEM_PODS = "GET /api/v1/namespaces/kube-system/pods"
ALL_PODS = "GET /api/v1/pods"
REFUSED = errors.KubeError("[Errno 111] Connection refused", status=0)


def make_pod(
    name: str, status: dict[str, typing.Any], namespace: str = "kube-system"
) -> dict[str, typing.Any]:
    return {"metadata": {"name": name, "namespace": namespace}, "status": status}


COREDNS = make_pod("coredns-1", READY | {"containerStatuses": [{"restartCount": 2}]})
WEB = make_pod("web", READY, "default")
BROKEN = make_pod("broken", {"phase": "Pending"}, "default")


@pytest.fixture
def run(tmp_path: pathlib.Path) -> context.Context:
    """A cluster that has been ready for a while."""
    clock = fakes.Clock(1.25)
    made = fakes.make_context(
        tmp_path,
        "--api-server=https://p8s.example:443",
        supervisor=fakes.Supervisor([fakes.running("etcd"), fakes.stopped("kubelet")]),
        client=fakes.KubeClient(
            {
                SYSTEM_PODS: [{"items": [COREDNS]}],
                ALL_PODS: [{"items": [COREDNS, WEB, BROKEN]}],
            }
        ),
        clock=clock,
    )
    with made.timeline.phase("setup"):
        clock.now = 2.0
    made.timeline.mark("node", holds=True)
    clock.now = 10.0
    made.state = status.State.READY
    return made


@pytest.fixture
def monitor(run: context.Context, monkeypatch: pytest.MonkeyPatch) -> health.Monitor:
    """A monitor that finds nothing missing, and has looked before."""
    made = health.Monitor(run)
    made.counters = health.Counters(probes=5, probe_failures=2, dns_failures=1)
    monkeypatch.setattr(made, "missing", dict)
    return made


def test_describe(run: context.Context, monitor: health.Monitor) -> None:
    expected = {
        "state": "ready",
        "uptime": 10.0,
        "missing": {},
        "phases": [{"name": "setup", "start": 1.25, "duration": 0.75}],
        "conditions": {"node": 2.0},
        "versions": {"kubernetes": "v1.37.2", "etcd": "3.6.16"},
        "components": [
            {"name": "etcd", "kind": "process", "state": "RUNNING", "restarts": 0},
            {"name": "kubelet", "kind": "process", "state": "STOPPED", "restarts": 0},
            {"name": "coredns-1", "kind": "pod", "state": "Running", "restarts": 2},
        ],
        "failing_pulls": [],
        "addons": add_on_switches.describe(run),
        "addresses": {
            "node": "172.17.0.2",
            "apiserver": "https://p8s.example:443",
            "kubernetes_service": "192.168.254.1",
            "dns_service": "192.168.254.2",
            "service_cidr": "192.168.254.0/24",
            "pod_cidr": "192.168.253.0/24",
        },
    }
    assert json.loads(json.dumps(report.describe(run, monitor))) == expected


def test_images_that_are_waited_for_in_vain(tmp_path: pathlib.Path) -> None:
    def waiting(reason: str, **more: str) -> dict[str, object]:
        return {"image": "reg/app:1", "state": {"waiting": {"reason": reason, **more}}}

    signed = 'Head "https://reg/v2/app?token=hunter2": refused'
    pod = {
        "metadata": {"namespace": "dev", "name": "web"},
        "status": {
            "initContainerStatuses": [waiting("ErrImagePull", message=signed)],
            "containerStatuses": [waiting("ErrImageNeverPull"), waiting("PodInitializing")],
        },
    }
    unscheduled = {"metadata": {"namespace": "dev", "name": "later"}}
    client = fakes.KubeClient({ALL_PODS: [{"items": [pod, unscheduled]}]})
    found = report.failing_pulls(fakes.make_context(tmp_path, client=client))
    assert [(one["pod"], one["image"], one["reason"], one["message"]) for one in found] == [
        ("dev/web", "reg/app:1", "ErrImagePull", 'Head "https://reg/v2/app?…": refused'),
        ("dev/web", "reg/app:1", "ErrImageNeverPull", ""),
    ]
    assert client.requests[0].params == {"fieldSelector": "status.phase=Pending"}


@pytest.mark.parametrize(
    ("state", "missing", "told"),
    [
        pytest.param("starting", {"node": "no CNI"}, "starting", id="starting"),
        pytest.param("ready", {}, "ready", id="ready"),
        pytest.param("ready", {"node": "no CNI"}, "not ready", id="not ready"),
        pytest.param("stopping", {"p8s": "the cluster is stopping"}, "stopping", id="stopping"),
    ],
)
def test_a_ready_cluster_that_lacks_something_is_not_ready(
    *,
    run: context.Context,
    monitor: health.Monitor,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    missing: dict[str, str],
    told: str,
) -> None:
    run.state = status.State(state)
    monkeypatch.setattr(monitor, "missing", lambda: missing)
    described = report.describe(run, monitor)
    assert (described["state"], described["missing"]) == (told, missing)
    assert run.state == state


@pytest.mark.parametrize(
    "client",
    [
        pytest.param(None, id="before the setup"),
        pytest.param(fakes.KubeClient({SYSTEM_PODS: [REFUSED]}), id="no answer"),
    ],
)
def test_without_an_apiserver_only_processes_are_seen(
    run: context.Context, monitor: health.Monitor, client: fakes.KubeClient | None
) -> None:
    run.client = client
    assert [component.name for component in report.components(run, monitor)] == ["etcd", "kubelet"]


def test_without_etcd_an_apiserver_is_not_waited_for(
    run: context.Context, monitor: health.Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "missing", lambda: {"etcd": "backoff: no space left"})
    described = report.describe(run, monitor)
    assert [component["name"] for component in described["components"]] == ["etcd", "kubelet"]
    assert "p8s_running_pods 0.0" in report.metrics(run, monitor)
    assert typing.cast("fakes.KubeClient", run.client).requests == []


def test_times_are_rounded_to_milliseconds(run: context.Context, monitor: health.Monitor) -> None:
    clock = fakes.Clock(1.23456)
    run.timeline = status.Timeline(origin=0.0, clock=clock)
    run.timeline.mark("node", holds=True)
    with run.timeline.phase("setup"):
        clock.now = 2.0
    described = report.describe(run, monitor)
    assert described["phases"] == [{"name": "setup", "start": 1.235, "duration": 0.765}]
    assert described["conditions"] == {"node": 1.235}


def test_a_running_phase_has_no_duration_yet(run: context.Context, monitor: health.Monitor) -> None:
    with run.timeline.phase("readiness"):
        described = report.describe(run, monitor)
    assert described["phases"][-1] == {"name": "readiness", "start": 10.0, "duration": None}


def test_metrics(run: context.Context, monitor: health.Monitor) -> None:
    for directory in ("kube-system_coredns-1_0f1", "default_broken_1a2", "default_gone_2b3"):
        (run.plan.paths.pod_logs / directory).mkdir(parents=True)
    samples = [
        line for line in report.metrics(run, monitor).splitlines() if not line.startswith("#")
    ]
    assert samples == [
        "p8s_ready 1.0",
        'p8s_info{etcd="3.6.16",kubernetes="v1.37.2"} 1.0',
        "p8s_uptime_seconds 10.0",
        'p8s_phase_seconds{phase="setup"} 0.75',
        "p8s_probes_total 5.0",
        "p8s_probe_failures_total 2.0",
        "p8s_dns_failures_total 1.0",
        "p8s_running_pods 2.0",
        "p8s_logged_pods 1.0",
        'p8s_component_restarts_total{component="etcd",kind="process"} 0.0',
        'p8s_component_restarts_total{component="kubelet",kind="process"} 0.0',
        'p8s_component_restarts_total{component="coredns-1",kind="pod"} 2.0',
        "pupernetes_ready 1.0",
        'pupernetes_version{etcd="3.6.16",kubernetes="v1.37.2"} 1.0',
        "pupernetes_dns_failures 1.0",
        "pupernetes_kubelet_probe_failures 2.0",
        "pupernetes_kubelet_api_pods_running 2.0",
        "pupernetes_kubelet_logs_pods_running 1.0",
    ]


def test_each_name_of_pupernetes_is_that_of_a_metric_of_ours(
    run: context.Context, monitor: health.Monitor
) -> None:
    samples = {
        line.split(" ")[0].partition("{")[0]: line.split(" ")[-1]
        for line in report.metrics(run, monitor).splitlines()
        if not line.startswith("#")
    }
    theirs = {name: samples[name] for name in report.PUPERNETES_METRICS}
    assert theirs == {name: samples[own] for name, own in report.PUPERNETES_METRICS.items()}


def test_metrics_say_when_the_cluster_is_not_ready(
    run: context.Context, monitor: health.Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "missing", lambda: {"node": "no CNI"})
    assert "\np8s_ready 0.0\n" in report.metrics(run, monitor)


def test_every_metric_has_its_help(run: context.Context, monitor: health.Monitor) -> None:
    lines = report.metrics(run, monitor).splitlines()
    helped = {line.split()[2] for line in lines if line.startswith("# HELP")}
    typed = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    sampled = {line.split(" ")[0].partition("{")[0] for line in lines if not line.startswith("#")}
    assert helped == typed == sampled


@pytest.mark.parametrize(
    ("missing", "memory", "line"),
    [
        pytest.param(
            {},
            300 * 2**20,
            "running: 2 of 3 pods ready in 2 namespaces, 300 MiB of memory",
            id="ready",
        ),
        pytest.param(
            {}, None, "running: 2 of 3 pods ready in 2 namespaces", id="memory is not known"
        ),
        pytest.param(
            {"node": "no CNI", "pod/x": "Pending"},
            None,
            "not ready: node: no CNI; pod/x: Pending",
            id="not ready",
        ),
    ],
)
def test_line(
    *,
    run: context.Context,
    monitor: health.Monitor,
    monkeypatch: pytest.MonkeyPatch,
    missing: dict[str, str],
    memory: int | None,
    line: str,
) -> None:
    monkeypatch.setattr(monitor, "missing", lambda: missing)
    monkeypatch.setattr(report, "memory_in_use", lambda: memory)
    assert report.line(run, monitor) == line


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(
            {"memory.current": "1000\n", "memory.stat": "anon 5\ninactive_file 300\n"},
            700,
            id="cgroup v2",
        ),
        pytest.param(
            {
                "memory/memory.usage_in_bytes": "1000\n",
                "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 400\n",
            },
            600,
            id="cgroup v1",
        ),
        pytest.param(
            {"memory.current": "1000\n", "memory.stat": "anon 5\n"}, 1000, id="no page cache"
        ),
        pytest.param({}, None, id="no memory controller"),
    ],
)
def test_memory_in_use(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str],
    expected: int | None,
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(report, "CGROUPS", tmp_path)
    assert report.memory_in_use() == expected
