"""The journal, and what writes into it."""

from __future__ import annotations

import itertools
import pathlib
import threading
import time

import pytest

from p8s_supervisor import errors, events, health, status
from tests import fakes


def make_journal(*messages: str, size: int = 1000) -> events.Journal:
    journal = events.Journal(size=size, clock=fakes.Clock(0.001))
    for message in messages:
        journal.record("test", message)
    return journal


def test_an_event_has_what_was_recorded() -> None:
    journal = events.Journal(clock=fakes.Clock(1767225600.5))
    journal.record("restart", "etcd: started again", component="etcd", kind="process", restarts=1)
    assert journal.read() == [
        events.Event(
            id=1767225600500,
            time=1767225600.5,
            kind="restart",
            message="etcd: started again",
            data={"component": "etcd", "kind": "process", "restarts": 1},
        )
    ]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        pytest.param(0, ["a", "b", "c"], id="all"),
        pytest.param(1, ["b", "c"], id="those after the first"),
        pytest.param(3, [], id="nothing is newer"),
    ],
)
def test_read_gives_what_is_newer_oldest_first(after: int, expected: list[str]) -> None:
    journal = make_journal("a", "b", "c")
    assert [event.message for event in journal.read(after)] == expected


def test_a_reader_of_an_earlier_run_gets_all_of_this_one() -> None:
    clock = fakes.Clock(1767225600.5)
    earlier = events.Journal(clock=clock)
    for _ in range(50):
        earlier.record("test", "earlier")
    last = earlier.read()[-1].id
    clock.now += 1
    journal = events.Journal(clock=clock)
    journal.record("test", "a")
    assert [event.message for event in journal.read(last)] == ["a"]


def test_the_oldest_go_first_and_ids_go_on() -> None:
    journal = make_journal("a", "b", "c", "d", size=2)
    assert [(event.id, event.message) for event in journal.read()] == [(3, "c"), (4, "d")]


def test_a_reader_waits_for_the_next_event() -> None:
    journal = make_journal("a")
    found: list[str] = []
    begun = threading.Event()

    def wait_for_it() -> None:
        begun.set()
        found.extend(event.message for event in journal.read(1, seconds=30))

    readers = [threading.Thread(target=wait_for_it) for _ in range(3)]
    for reader in readers:
        reader.start()
    assert begun.wait(timeout=10)
    journal.record("test", "b")
    for reader in readers:
        reader.join(timeout=10)
    assert found == ["b"] * 3


def test_a_reader_does_not_wait_longer_than_it_said() -> None:
    begun = time.monotonic()
    assert make_journal("a").read(1, seconds=0.05) == []
    assert 0.05 <= time.monotonic() - begun < 5


def test_many_writers_get_an_id_each() -> None:
    journal = make_journal()

    def write() -> None:
        for _ in range(50):
            journal.record("test", "x")

    writers = [threading.Thread(target=write) for _ in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=30)
    assert [event.id for event in journal.read()] == list(range(1, 401))


def test_a_signal_handler_may_record_in_the_middle_of_a_record() -> None:
    journal = make_journal()
    moments = itertools.count()

    def clock() -> float:
        # The clock is asked between an event's number and its place.
        now = next(moments)
        if now == 0:
            journal.record("stop", "from the handler")
        return float(now)

    journal._clock = clock
    journal.record("test", "interrupted")
    assert [(event.id, event.message) for event in journal.read()] == [
        (1, "interrupted"),
        (2, "from the handler"),
    ]


# --- what writes into it


def test_phases_and_conditions_are_told() -> None:
    clock = fakes.Clock()
    journal = make_journal()
    timeline = status.Timeline(origin=0.0, clock=clock, listener=journal.record)
    with timeline.phase("setup"):
        clock.now = 1.25
    timeline.mark("node", holds=False, reason="no CNI yet")
    timeline.mark("node", holds=True)
    timeline.mark("node", holds=True)
    timeline.mark("node", holds=False, reason="no CNI")
    timeline.mark("node", holds=False, reason="no CNI")
    assert [(event.kind, event.message, event.data) for event in journal.read()] == [
        ("phase", "setup: begun", {"phase": "setup", "state": "begun"}),
        (
            "phase",
            "setup: ended after 1.25 s",
            {"phase": "setup", "state": "ended", "duration": 1.25},
        ),
        ("condition", "node: holds", {"condition": "node", "holds": True, "reason": ""}),
        (
            "condition",
            "node: does not hold any more: no CNI",
            {"condition": "node", "holds": False, "reason": "no CNI"},
        ),
    ]


def test_why_the_run_ends_is_told_before_readers_are_let_go(tmp_path: pathlib.Path) -> None:
    run = fakes.make_context(tmp_path)
    seen: list[bool] = []
    record = run.journal.record

    def note(kind: str, message: str, /, **data: object) -> None:
        seen.append(run.stop.is_set())
        record(kind, message, **data)

    run.journal.record = note  # type: ignore[method-assign]
    run.fail(errors.P8sError("etcd: no disk"))
    run.request_stop("SIGTERM")
    assert seen == [False, False]
    assert [(event.kind, event.message) for event in run.journal.read()] == [
        ("failure", "the start failed: etcd: no disk"),
        ("stop", "stop: the start failed"),
    ]


def test_a_process_that_is_another_one_is_told_once(tmp_path: pathlib.Path) -> None:
    supervisor = fakes.Supervisor([fakes.running("etcd", pid=7)])
    run = fakes.make_context(tmp_path, supervisor=supervisor)
    monitor = health.Monitor(run)
    monitor.note_restarts()
    assert run.journal.read() == []
    for process in (fakes.stopped("etcd"), fakes.running("etcd", pid=8)):
        supervisor.now["etcd"] = process
        monitor.note_restarts()
        monitor.note_restarts()
    assert [(event.kind, event.message, event.data) for event in run.journal.read()] == [
        (
            "restart",
            "etcd: started again as process 8",
            {"component": "etcd", "kind": "process", "restarts": 1},
        )
    ]


def test_a_supervisor_that_does_not_answer_is_no_restart(tmp_path: pathlib.Path) -> None:
    supervisor = fakes.Supervisor(failures={("list_processes", ""): OSError("no socket")})
    run = fakes.make_context(tmp_path, supervisor=supervisor)
    health.Monitor(run).note_restarts()
    assert run.journal.read() == []
