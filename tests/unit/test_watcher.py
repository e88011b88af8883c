"""What the watchers make of the cluster's own events and pods."""

from __future__ import annotations

import collections.abc
import pathlib
import threading
import typing

import pytest

from p8s_supervisor import context, errors, kube, watcher
from tests import fakes

LATER = "2026-01-01T00:01:00Z"
BEFORE = "2025-12-31T23:59:00Z"
LIST, WATCH = f"GET {watcher.EVENTS}", f"WATCH {watcher.EVENTS}"
GONE = errors.KubeError("too old resource version", status=410)


def make_event(uid: str = "a", **fields: typing.Any) -> kube.Object:
    return {
        "metadata": {"uid": uid, "creationTimestamp": LATER},
        "type": "Warning",
        "reason": "Failed",
        "message": "no such image",
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "web"},
    } | fields


def make_list(*items: kube.Object, version: str = "7") -> kube.Object:
    return {"metadata": {"resourceVersion": version}, "items": list(items)}


def make_changes(*changes: tuple[str, kube.Object]) -> kube.Object:
    return {"items": [{"type": kind, "object": found} for kind, found in changes]}


@pytest.fixture
def run(tmp_path: pathlib.Path) -> context.Context:
    return fakes.make_context(tmp_path, client=fakes.KubeClient({}))


def messages(run: context.Context) -> list[str]:
    return [event.message for event in run.journal.read()]


# --- warnings


def test_a_warning_is_told_with_its_object(run: context.Context) -> None:
    watcher.Warnings(run).see(make_event(count=3))
    (event,) = run.journal.read()
    assert (event.kind, event.message) == ("warning", "Pod default/web: Failed: no such image")
    assert event.data == {
        "object": {"kind": "Pod", "namespace": "default", "name": "web"},
        "reason": "Failed",
        "count": 3,
    }


@pytest.mark.parametrize(
    ("found", "told"),
    [
        pytest.param({}, 1, id="nothing but when it was made"),
        pytest.param({"lastTimestamp": LATER}, 1, id="after the start"),
        pytest.param({"lastTimestamp": BEFORE}, 0, id="before the start"),
        pytest.param({"lastTimestamp": None, "eventTime": BEFORE}, 0, id="by its other field"),
        pytest.param(
            {"eventTime": BEFORE, "series": {"count": 2, "lastObservedTime": LATER}},
            1,
            id="a series that goes on",
        ),
        pytest.param({"type": "Normal"}, 0, id="nothing to warn of"),
        pytest.param({"message": None, "reason": None, "series": None}, 1, id="no words"),
    ],
)
def test_which_events_are_told(run: context.Context, found: kube.Object, told: int) -> None:
    watcher.Warnings(run).see(make_event(**found))
    assert len(run.journal.read()) == told


def test_each_count_is_told_once(run: context.Context) -> None:
    warnings = watcher.Warnings(run)
    for uid, count in (("a", 1), ("a", 1), ("a", 2), ("b", 1), ("a", 2), ("a", 1)):
        warnings.see(make_event(uid, count=count))
    assert [event.data["count"] for event in run.journal.read()] == [1, 2, 1]


def test_what_is_gone_is_forgotten(run: context.Context) -> None:
    warnings = watcher.Warnings(run)
    for uid in ("a", "b"):
        warnings.see(make_event(uid))
    warnings.forget([make_event("b")])
    assert warnings._counts == {"b": 1}
    warnings.drop(make_event("b"))
    assert warnings._counts == {}


# --- restarts


def make_pod(name: str, restarts: int, **last: typing.Any) -> kube.Object:
    container = {"name": "main", "restartCount": restarts, "lastState": last}
    return {"metadata": {"name": name}, "status": {"containerStatuses": [container]}}


def test_restarts_since_the_first_list_are_told_once(run: context.Context) -> None:
    restarts = watcher.Restarts(run)
    ended = {"terminated": {"reason": "Error", "exitCode": 1}}
    first = [make_pod("dns", 2), {"metadata": {"name": "new"}}]
    restarts.forget(first)
    for pod in (*first, make_pod("dns", 3, **ended), make_pod("dns", 3), make_pod("new", 1)):
        restarts.see(pod)
    assert messages(run) == [
        "dns: main was started again: Error, exit code 1",
        "new: main was started again",
    ]
    assert run.journal.read()[0].data == {
        "component": "dns",
        "kind": "pod",
        "container": "main",
        "restarts": 3,
    }


def test_what_a_later_list_has_is_new(run: context.Context) -> None:
    restarts = watcher.Restarts(run)
    restarts.forget([make_pod("dns", 0)])
    restarts.forget([make_pod("dns", 1)])
    restarts.see(make_pod("dns", 1))
    restarts.forget([])
    assert (messages(run), restarts._counts) == (["dns: main was started again"], {})


def test_a_static_pod_s_object_that_is_made_anew_is_no_restart(run: context.Context) -> None:
    restarts = watcher.Restarts(run)
    restarts.forget([make_pod("kube-apiserver-p8s", 2)])
    restarts.drop(make_pod("kube-apiserver-p8s", 2))
    restarts.see(make_pod("kube-apiserver-p8s", 2))
    assert messages(run) == []


# --- list and watch


Follow = collections.abc.Callable[..., tuple[context.Context, fakes.KubeClient, list[float]]]


@pytest.fixture
def follow(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Follow:
    """Follows events until it has paused some times; gives the pauses too."""

    def make(
        answers: dict[str, list[fakes.Answer]], *, times: int
    ) -> tuple[context.Context, fakes.KubeClient, list[float]]:
        client = fakes.KubeClient(answers)
        run = fakes.make_context(tmp_path, client=client)
        pauses: list[float] = []

        def wait(seconds: float) -> bool:
            pauses.append(seconds)
            if len(pauses) == times:
                run.stop.set()
            return run.stop.is_set()

        monkeypatch.setattr(run.stop, "wait", wait)
        watcher.follow(
            client,
            watcher.EVENTS,
            watcher.Warnings(run),
            ended=run.stop,
            fieldSelector="type=Warning",
        )
        return run, client, pauses

    return make


def test_what_is_there_and_what_comes_is_seen(follow: Follow) -> None:
    run, client, pauses = follow(
        {
            LIST: [make_list(make_event("a", message="one"))],
            WATCH: [
                make_changes(
                    ("ADDED", make_event("b", message="two")),
                    ("MODIFIED", make_event("b", message="three", count=2)),
                    ("DELETED", make_event("c", message="four")),
                    ("BOOKMARK", {"metadata": {"resourceVersion": "9"}}),
                )
            ],
        },
        times=1,
    )
    assert messages(run) == [f"Pod default/web: Failed: {word}" for word in ("one", "two", "three")]
    assert [(request.method, request.params) for request in client.requests] == [
        ("GET", {"fieldSelector": "type=Warning"}),
        ("WATCH", {"resourceVersion": "7", "fieldSelector": "type=Warning"}),
    ]
    assert pauses == [1.0]


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({WATCH: [GONE, make_changes()]}, id="the version is too old"),
        pytest.param(
            {WATCH: [make_changes(("ERROR", {"code": 410, "message": "gone"})), make_changes()]},
            id="the stream says so",
        ),
        pytest.param(
            {LIST: [errors.KubeError("refused", status=0), make_list(make_event("b"))]},
            id="no apiserver",
        ),
        pytest.param({LIST: ["{", make_list(make_event("b"))]}, id="half an answer"),
        pytest.param({LIST: [{}, make_list(make_event("b"))]}, id="an answer without a list"),
    ],
)
def test_it_begins_anew_and_tells_nothing_twice(
    follow: Follow, broken: dict[str, list[fakes.Answer]]
) -> None:
    answers: dict[str, list[fakes.Answer]] = {
        LIST: [make_list(make_event("a")), make_list(make_event("a"), make_event("b"))],
        WATCH: [make_changes()],
    }
    run, client, _ = follow(answers | broken, times=2)
    assert client.asked.count(LIST) == 2
    assert len(run.journal.read()) == (1 if LIST in broken else 2)


def test_pauses_grow_while_the_apiserver_is_away_and_begin_anew_after_it(follow: Follow) -> None:
    refused = errors.KubeError("refused", status=0)
    answers: dict[str, list[fakes.Answer]] = {
        LIST: [*[refused] * 6, make_list(), refused],
        WATCH: [make_changes()],
    }
    _, _, pauses = follow(answers, times=8)
    assert pauses == [2.0, 4.0, 8.0, 10.0, 10.0, 10.0, 1.0, 2.0]


def test_without_a_client_nothing_is_watched(run: context.Context) -> None:
    run.client = None
    before = threading.active_count()
    watcher.start(run)
    assert threading.active_count() == before


def test_nothing_is_seen_once_the_stop_has_begun(run: context.Context) -> None:
    run.client = fakes.KubeClient(
        {LIST: [make_list()], WATCH: [make_changes(("ADDED", make_event()))]}
    )
    run.stop.set()
    assert len(list(watcher.look(run.client, watcher.EVENTS, ended=run.stop))) == 1


def test_both_watches_run_beside_each_other_and_end_with_the_cluster(
    run: context.Context,
) -> None:
    pods = f"GET {watcher.SYSTEM_PODS}"
    run.client = fakes.KubeClient(
        {
            LIST: [make_list(make_event())],
            WATCH: [make_changes()],
            pods: [make_list(make_pod("dns", 1))],
            f"WATCH {watcher.SYSTEM_PODS}": [make_changes(("MODIFIED", make_pod("dns", 2)))],
        }
    )
    before = set(threading.enumerate())
    watcher.start(run)
    seen: set[str] = set()
    while seen != {"warning", "restart"}:
        found = run.journal.read(0, seconds=10)
        assert found
        seen = {event.kind for event in found}
    run.stop.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
    assert not set(threading.enumerate()) - before
