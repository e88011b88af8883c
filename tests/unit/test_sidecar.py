"""The composition root, as far as it decides something."""

from __future__ import annotations

import os
import pathlib

import pytest

from p8s_supervisor import errors, health, ports, report, shutdown, sidecar, watcher
from tests import fakes


def test_what_people_and_docker_wait_for(tmp_path: pathlib.Path) -> None:
    story: list[str] = []
    run = fakes.make_context(tmp_path, "--http-port=9090", story=story)
    sidecar.tell_ready(run)
    assert run.plan.paths.ready.exists()
    assert story == [
        "ready: Kubernetes v1.37.2 at https://127.0.0.1:6443",
        "  curl -s http://127.0.0.1:9090/kubeconfig > p8s.kubeconfig",
        "  kubectl --kubeconfig p8s.kubeconfig get pods -A",
    ]


def test_the_run_timeout_asks_for_the_stop(tmp_path: pathlib.Path) -> None:
    clock = fakes.Clock(89.0)
    run = fakes.make_context(tmp_path, "--run-timeout=90s", "--status-interval=0", clock=clock)
    waited: list[float] = []

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        clock.now += seconds
        return run.stop.is_set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.stop, "wait", wait)
        sidecar.watch(run, health.Monitor(run))
    assert run.stop_reason == "the run timeout of 90 s"
    assert waited == [1.0, 0.0]


def test_a_status_line_is_told_once_an_interval(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = fakes.Clock()
    story: list[str] = []
    run = fakes.make_context(tmp_path, "--status-interval=2s", clock=clock, story=story)

    def wait(seconds: float) -> bool:
        clock.now += seconds
        return clock.now > 5

    monkeypatch.setattr(sidecar, "time", clock)
    monkeypatch.setattr(run.stop, "wait", wait)
    monkeypatch.setattr(report, "line", lambda *_: f"as of {clock.now:g} s")
    sidecar.watch(run, health.Monitor(run))
    assert story == ["as of 2 s", "as of 4 s"]


@pytest.mark.parametrize(
    ("failure", "written", "told"),
    [
        pytest.param(None, None, [], id="a stop that was asked for"),
        pytest.param(
            errors.ComponentFailedError("etcd", "no disk"),
            "1",
            ["the start failed: etcd failed: no disk"],
            id="a start that failed",
        ),
        pytest.param(
            errors.SettingsError(["x is wrong"]),
            "2",
            [f"the start failed: {errors.SettingsError(['x is wrong'])}"],
            id="settings that do not fit the volume",
        ),
    ],
)
def test_finish_keeps_the_exit_code_stops_all_and_lets_supervisord_go(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception | None,
    written: str | None,
    told: list[str],
) -> None:
    story: list[str] = []
    supervisor = fakes.Supervisor()
    run = fakes.make_context(tmp_path, supervisor=supervisor, story=story)
    run.failure = failure
    run.stop_reason = "SIGTERM"
    monkeypatch.setattr(os, "kill", fakes.forbid)
    monkeypatch.setattr(shutdown, "stop", lambda _: ["stop drain: too slow"])
    sidecar.finish(run, health.Monitor(run))
    file = run.plan.paths.exit_code
    assert (file.read_text() if file.exists() else None) == written
    assert story == [*told, "stop: SIGTERM", "stop drain: too slow", "stopped"]
    assert supervisor.calls == [("shutdown", "")]


def test_a_complete_start_is_noted_and_watched(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = fakes.Supervisor([fakes.running("etcd", pid=7)])
    run = fakes.make_context(tmp_path, supervisor=supervisor, clock=fakes.Clock(3.75))
    watched: list[object] = []
    monkeypatch.setattr(watcher, "start", watched.append)
    monitor = health.Monitor(run)
    sidecar.begin_service(run, monitor)
    assert run.plan.paths.ready.exists()
    assert [(event.kind, event.data) for event in run.journal.read()] == [
        ("ready", {"seconds": 3.75})
    ]
    assert watched == [run]
    # A process that ends from now on is missed by nobody.
    supervisor.now["etcd"] = fakes.running("etcd", pid=8)
    monitor.note_restarts()
    assert run.journal.read()[-1].kind == "restart"


@pytest.mark.parametrize(
    ("passed_on", "flags", "host", "told"),
    [
        pytest.param(False, [], "172.17.0.1", 0, id="published at loopback"),
        pytest.param(True, [], None, 1, id="published beyond it"),
        pytest.param(True, ["--api-token=0123456789abcdef"], None, 0, id="with a token"),
    ],
)
def test_the_gateway_is_the_host_unless_it_passes_others_on(
    *,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    passed_on: bool,
    flags: list[str],
    host: str | None,
    told: int,
) -> None:
    asked = []

    def is_passed_on(gateway: str, **where: object) -> bool:
        asked.append((gateway, where))
        return passed_on

    monkeypatch.setattr(ports, "is_passed_on", is_passed_on)
    story: list[str] = []
    run = fakes.make_context(tmp_path, *flags, "--http-port=9090", story=story)
    assert sidecar.find_host(run) == host
    assert asked == [("172.17.0.1", {"address": "0.0.0.0", "port": 9090})]
    assert [line.partition(":")[0] for line in story] == [
        "port 9090 is published beyond 127.0.0.1"
    ] * told
