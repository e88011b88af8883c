"""What supervisord gave up is started again, and nothing else."""

from __future__ import annotations

import pathlib

import pytest

from p8s_supervisor import health, keeper
from tests import fakes


@pytest.mark.parametrize(
    ("state", "started"),
    [
        pytest.param("FATAL", True, id="given up"),
        pytest.param("EXITED", True, id="ended"),
        pytest.param("BACKOFF", False, id="supervisord is at it"),
        pytest.param("STOPPED", False, id="stopped by somebody"),
        pytest.param("STOPPING", False, id="being stopped"),
    ],
)
def test_look(tmp_path: pathlib.Path, state: str, started: bool) -> None:
    down = fakes.stopped("etcd", state=state, reason="no disk")
    supervisor = fakes.Supervisor([down, fakes.running("kubelet")])
    story: list[str] = []
    run = fakes.make_context(tmp_path, supervisor=supervisor, story=story)
    keeper.look(run, health.Monitor(run))
    assert supervisor.calls == ([("start", "etcd")] if started else [])
    told = "etcd: supervisord gave it up (no disk); starting it again"
    assert story == ([told] if started else [])
    warnings = [event for event in run.journal.read() if event.kind == "warning"]
    assert [event.message for event in warnings] == ([told] if started else [])


def test_nothing_is_started_in_a_stop(tmp_path: pathlib.Path) -> None:
    supervisor = fakes.Supervisor([fakes.stopped("etcd", state="FATAL")])
    run = fakes.make_context(tmp_path, supervisor=supervisor)
    run.request_stop("a test")
    keeper.look(run, health.Monitor(run))
    assert supervisor.calls == []


def test_other_programs_are_left_alone(tmp_path: pathlib.Path) -> None:
    supervisor = fakes.Supervisor([fakes.stopped("sidecar", state="EXITED")])
    run = fakes.make_context(tmp_path, supervisor=supervisor)
    keeper.look(run, health.Monitor(run))
    assert supervisor.calls == []


def test_a_supervisor_that_is_away_is_told_and_asked_again(tmp_path: pathlib.Path) -> None:
    supervisor = fakes.Supervisor(failures={("list_processes", ""): OSError("away")})
    story: list[str] = []
    run = fakes.make_context(tmp_path, supervisor=supervisor, story=story)
    keeper.look(run, health.Monitor(run))
    assert story == ["keeper: away"]


def test_what_supervisord_started_again_is_noted(tmp_path: pathlib.Path) -> None:
    supervisor = fakes.Supervisor([fakes.running("etcd", pid=7)])
    run = fakes.make_context(tmp_path, supervisor=supervisor)
    monitor = health.Monitor(run)
    keeper.look(run, monitor)
    supervisor.now["etcd"] = fakes.running("etcd", pid=8)
    keeper.look(run, monitor)
    assert [event.kind for event in run.journal.read()] == ["restart"]
    # The next sidecar of the same container counts on.
    supervisor.now["etcd"] = fakes.running("etcd", pid=9)
    assert health.Monitor(run).restarts(supervisor.now["etcd"]) == 2
