"""What is left after the start: tried again, told once, and done when nothing is missing."""

from __future__ import annotations

import pathlib

import pytest

from p8s_supervisor import (
    admission,
    applying,
    bootstrap,
    completion,
    context,
    errors,
    gates,
    health,
    kube,
    user_manifests,
)
from tests import fakes

REFUSAL = 'failed calling webhook "x"'


class World:
    """What the flow finds: what is missing look by look, and what it does meanwhile."""

    def __init__(self, run: context.Context, *looks: dict[str, str]) -> None:
        self.run, self.looks, self.done = run, list(looks), list[str]()

    def look(self) -> dict[str, str]:
        found = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return found | self.run.refused

    def apply_system(self, run: context.Context, _: kube.Client, **__: float) -> None:
        self.done.append("system")
        run.refused.pop("system/a", None)

    def apply_users(self, run: context.Context, _: kube.Client, **__: float) -> None:
        self.done.append("users")
        for name in [name for name in run.refused if name.startswith(user_manifests.PREFIX)]:
            del run.refused[name]

    def find_refusal(self, _: kube.Client, __: str) -> str | None:
        self.done.append("admission")
        return None if len(self.looks) == 1 else REFUSAL


@pytest.fixture
def story() -> list[str]:
    return []


@pytest.fixture
def run(tmp_path: pathlib.Path, story: list[str]) -> context.Context:
    return fakes.make_context(tmp_path, client=fakes.KubeClient({}), story=story)


def make_world(
    run: context.Context, monkeypatch: pytest.MonkeyPatch, *looks: dict[str, str]
) -> tuple[World, health.Monitor]:
    world, monitor = World(run, *looks), health.Monitor(run)
    monkeypatch.setattr(monitor, "look", world.look)
    monkeypatch.setattr(applying, "apply_system", world.apply_system)
    monkeypatch.setattr(user_manifests, "apply", world.apply_users)
    monkeypatch.setattr(admission, "find_refusal", world.find_refusal)
    monkeypatch.setattr(run.stop, "wait", lambda _: run.stop.is_set())
    return world, monitor


def complete(run: context.Context, monitor: health.Monitor, done: list[str]) -> None:
    assert run.client is not None
    run.completing.acquire()
    completion.complete(run, run.client, monitor, lambda: done.append("complete"))
    assert not run.completing.locked()


def test_where_nothing_is_missing_it_is_said_at_once(
    run: context.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, monitor = make_world(run, monkeypatch, {})
    completion.start(run, monitor, lambda: world.done.append("complete"))
    assert world.done == ["complete"]
    assert not run.completing.locked()


def test_what_is_refused_is_applied_before_the_cluster_is_ready(
    run: context.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.refused |= {"system/a": REFUSAL, user_manifests.PREFIX: "not applied yet"}
    world, monitor = make_world(run, monkeypatch, {})
    complete(run, monitor, world.done)
    assert world.done == ["system", "users", "complete"]


def test_pods_that_are_missing_have_admission_looked_at(
    run: context.Context, monkeypatch: pytest.MonkeyPatch, story: list[str]
) -> None:
    world, monitor = make_world(run, monkeypatch, *[{"pod/x": "waits"}] * 12, {})
    complete(run, monitor, world.done)
    assert world.done == ["admission"] * 12 + ["complete"]
    assert run.refused == {}
    # Each once, however long it takes.
    assert story == [
        f"admission: {REFUSAL}",
        f"the start is not complete: pod/x: waits; admission: {REFUSAL}",
    ]


def test_the_stop_ends_it(run: context.Context, monkeypatch: pytest.MonkeyPatch) -> None:
    world, monitor = make_world(run, monkeypatch, {"node": "not ready"})
    run.request_stop("SIGTERM")
    complete(run, monitor, world.done)
    assert world.done == []


def test_there_is_one_at_a_time(run: context.Context, monkeypatch: pytest.MonkeyPatch) -> None:
    world, monitor = make_world(run, monkeypatch, {"node": "not ready"})
    run.completing.acquire()
    completion.start(run, monitor, lambda: world.done.append("complete"))
    assert world.done == []


def test_ends_while_admission_refuses_are_no_failure(
    run: context.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_world(run, monkeypatch, {}, {})
    run.attempts = {"kube-controller-manager": 1}
    monkeypatch.setattr(gates, "last_attempt", lambda *_: 7)
    assert run.client is not None
    completion.retry(run, run.client, {"etcd": "away"})
    assert run.attempts == {"kube-controller-manager": 1}
    completion.retry(run, run.client, {"pod/x": "waits"})
    assert run.attempts == {"kube-controller-manager": 7}


@pytest.mark.parametrize(
    ("fresh", "refused", "fails"),
    [
        pytest.param(False, {"system/a": REFUSAL}, False, id="data, and admission refuses"),
        pytest.param(False, {}, True, id="data, and something else"),
        pytest.param(True, {"system/a": REFUSAL}, True, id="a new cluster"),
    ],
)
def test_the_end_of_the_start_s_time(
    run: context.Context,
    monkeypatch: pytest.MonkeyPatch,
    *,
    fresh: bool,
    refused: dict[str, str],
    fails: bool,
    story: list[str],
) -> None:
    run.fresh, run.refused = fresh, dict(refused)
    _, monitor = make_world(run, monkeypatch, {"node": "no word"})
    monkeypatch.setattr(run.timeline, "now", lambda: 200.0)
    failed = False
    try:
        bootstrap.await_ready(run, monitor)
    except errors.ComponentFailedError:
        failed = True
    assert failed is fails
    assert fails or story == [f"the start is not complete: node: no word; system/a: {REFUSAL}"]


def test_a_user_s_pod_in_kube_system_does_not_hold_up_the_start(
    run: context.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, monitor = make_world(run, monkeypatch, {"pod/mine": "ImagePullBackOff"})
    monkeypatch.setattr(bootstrap, "nudge", lambda *_: None)
    bootstrap.await_ready(run, monitor)


@pytest.mark.parametrize(
    ("condition", "users"),
    [
        ("pod/mine", True),
        ("pod/coredns-1", False),
        ("pod/kube-scheduler-p8s", False),
        ("pod/resolver-p8s", False),
        ("pod/kube-system", False),
        ("node", False),
    ],
)
def test_is_users(condition: str, *, users: bool) -> None:
    assert bootstrap.is_users(condition) is users
