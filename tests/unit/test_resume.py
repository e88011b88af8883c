"""A sidecar that was started again in a cluster that runs."""

from __future__ import annotations

import pathlib

import pytest

from p8s_supervisor import bootstrap, credentials, health, renewal, sidecar, status, watcher
from tests import fakes


def test_resume_keeps_everything(tmp_path: pathlib.Path) -> None:
    run = fakes.make_context(tmp_path)
    made = credentials.write(run.plan, fresh=True)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    run.fresh = True
    bootstrap.resume(run, health.Monitor(run))
    assert run.admin == made
    assert run.client is not None
    assert run.endpoints
    assert (run.fresh, run.populated) == (False, True)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("broken", ["missing", "another's", "damaged"])
def test_resume_mends_what_a_renewal_left_half_done(tmp_path: pathlib.Path, broken: str) -> None:
    story: list[str] = []
    run = fakes.make_context(tmp_path, story=story)
    made = credentials.write(run.plan, fresh=True)
    key = run.plan.paths.pki / "admin.key"
    if broken == "missing":
        key.unlink()
    else:
        other = (run.plan.paths.pki / "p8s.key").read_bytes()
        key.write_bytes(other if broken == "another's" else b"nothing")
    bootstrap.resume(run, health.Monitor(run))
    assert run.admin is not None
    assert run.admin[0] == made[0], "the same CA"
    assert credentials.read(run.plan) == run.admin
    (told,) = story
    assert told.startswith("resume: certificates are made anew: ")
    assert "admin" in told


def test_a_resume_that_cannot_be_does_not_stop_the_cluster(tmp_path: pathlib.Path) -> None:
    story: list[str] = []
    run = fakes.make_context(tmp_path, story=story)  # there is no PKI at all
    run.resumed = True
    ready: list[str] = []
    thread = bootstrap.start_in_background(
        run, health.Monitor(run), on_ready=lambda: ready.append("on")
    )
    thread.join(timeout=10)
    assert (run.state, run.failure, run.stop.is_set()) == (status.State.READY, None, False)
    assert ready == ["on"]
    assert any(line.startswith("resume: there are no certificates") for line in story)


def test_a_resumed_cluster_is_not_ready_before_what_is_to_come_is_known(
    tmp_path: pathlib.Path,
) -> None:
    run = fakes.make_context(tmp_path, "--add-ons=storage")
    run.resumed = True
    refused: list[dict[str, str]] = []
    begin = bootstrap.start_in_background(
        run, health.Monitor(run), on_ready=lambda: refused.append(dict(run.refused))
    )
    begin.join(timeout=10)
    assert [list(found) for found in refused] == [["add-on/storage"]]


def test_a_resumed_cluster_is_not_told_to_be_ready_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    story: list[str] = []
    supervisor = fakes.Supervisor([fakes.running("sidecar", pid=7)])
    run = fakes.make_context(tmp_path, supervisor=supervisor, story=story)
    health.Monitor(run).note_restarts()  # of the sidecar before
    run.resumed = True
    monkeypatch.setattr(watcher, "start", lambda _: None)
    monkeypatch.setattr(renewal, "start", lambda _: None)
    supervisor.now["sidecar"] = fakes.running("sidecar", pid=8)
    sidecar.begin_service(run, health.Monitor(run))
    run.request_stop("the end of the test")
    (told,) = story
    assert told.startswith("the sidecar was started again; the cluster goes on, ")
    kinds = [(event.kind, event.data.get("component")) for event in run.journal.read()]
    assert ("restart", "sidecar") in kinds
    assert "ready" not in dict(kinds)


def test_a_stop_goes_on(tmp_path: pathlib.Path) -> None:
    run = fakes.make_context(tmp_path)
    assert not sidecar.go_on_stopping(run)
    run.plan.paths.run.mkdir(parents=True)
    run.plan.paths.stopping.write_text("POST /stop")
    assert sidecar.go_on_stopping(run)
    assert run.stop_reason == "POST /stop"


def test_the_token_is_kept(tmp_path: pathlib.Path) -> None:
    places = fakes.make_plan(tmp_path).paths
    assert sidecar.read_token(places) == ""
    places.run.mkdir(parents=True)
    places.token.write_text("kept\n")
    assert sidecar.read_token(places) == "kept"
