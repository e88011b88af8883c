"""What etcd is given while the cluster runs, by what it says of its store."""

from __future__ import annotations

import pathlib

import pytest

from p8s_supervisor import context, credentials, errors, etcd, etcd_mark, etcd_upkeep, space
from tests import fakes

MIB = space.MIB
QUOTA = 2048 * MIB
ALARM = etcd_upkeep.FULL
COMPACT, DEFRAGMENT, DISARM = ("compact", "9"), ("defragment", ""), ("disarm", "")


def status(size: int, in_use: int, *, full: bool = False, revision: int = 9) -> etcd.Status:
    """Sizes in MiB."""
    return fakes.etcd_status(revision, size=size * MIB, in_use=in_use * MIB, quota=QUOTA, full=full)


@pytest.fixture
def story() -> list[str]:
    return []


@pytest.fixture
def run(tmp_path: pathlib.Path, story: list[str]) -> context.Context:
    made = fakes.make_context(tmp_path, story=story)
    made.marked = True
    return made


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What is free on the disk, in MiB."""
    left = {"free": 10_000}
    monkeypatch.setattr(space, "free", lambda _: left["free"] * MIB)
    lack = "no space left"
    monkeypatch.setattr(space, "find_lack", lambda _: lack if left["free"] < 16 else None)
    return left


def look(run: context.Context, *statuses: etcd.Status, now: float = 0.0) -> list[tuple[str, str]]:
    store = fakes.Etcd(*statuses)
    etcd_upkeep.look(run, etcd_upkeep.Upkeep(store), now=now)
    return store.calls


@pytest.mark.parametrize(
    ("found", "free", "calls"),
    [
        pytest.param(status(16, 1), 10_000, [], id="a new cluster's file"),
        pytest.param(status(128, 10), 10_000, [], id="too small to be worth it"),
        pytest.param(status(200, 101), 10_000, [], id="half of it is in use"),
        pytest.param(status(300, 120), 10_000, [DEFRAGMENT], id="most of it is free"),
        pytest.param(status(2000, 127), 10_000, [DEFRAGMENT], id="nearly all of it is free"),
        pytest.param(status(2000, 129), 10_000, [], id="the copy would take too long"),
        pytest.param(status(300, 120), 100, [], id="the disk has no room for a copy"),
    ],
)
def test_free_pages_are_given_back(
    run: context.Context,
    room: dict[str, int],
    *,
    found: etcd.Status,
    free: int,
    calls: list[tuple[str, str]],
) -> None:
    room["free"] = free
    assert look(run, found, status(121, 120)) == calls


def test_a_defragmentation_is_told(run: context.Context, story: list[str]) -> None:
    look(run, status(300, 100), status(101, 100))
    assert [line.partition(": ")[2].partition(" in ")[0] for line in story] == ["defragmented"]
    assert story[0].endswith("s: 300 → 101 MiB")
    assert [event.kind for event in run.journal.read(0, seconds=0)] == ["etcd"]


@pytest.mark.parametrize(
    ("after", "free", "calls", "kept"),
    [
        pytest.param(
            status(900, 900, full=True),
            10_000,
            [COMPACT, DEFRAGMENT, DISARM],
            False,
            id="old revisions filled it",
        ),
        pytest.param(
            status(2042, 2040, full=True),
            10_000,
            [COMPACT, DEFRAGMENT],
            True,
            id="objects fill it",
        ),
        pytest.param(status(2048, 900, full=True), 100, [COMPACT], True, id="no room for the copy"),
    ],
)
def test_a_full_store_is_opened_again_where_it_can_be(
    run: context.Context,
    room: dict[str, int],
    story: list[str],
    *,
    after: etcd.Status,
    free: int,
    calls: list[tuple[str, str]],
    kept: bool,
) -> None:
    room["free"] = free
    assert look(run, status(2048, 2046, full=True), after) == calls
    assert (ALARM in run.troubles) is kept
    assert story[0].startswith(f"{ALARM}: etcd's store is full and refuses writes: 2046 MiB in use")
    assert (story[-1] == f"{ALARM}: well again") is not kept


def test_nothing_is_tried_twice_until_something_is_deleted(run: context.Context) -> None:
    store = fakes.Etcd(status(2048, 2040, full=True))
    upkeep = etcd_upkeep.Upkeep(store)
    for now in (10, 20, 30):
        etcd_upkeep.look(run, upkeep, now=now)
    assert store.calls == [COMPACT, DEFRAGMENT]
    store.statuses = [status(2048, 2040, full=True, revision=10), status(900, 900, revision=10)]
    etcd_upkeep.look(run, upkeep, now=40)
    assert store.calls[2:] == [("compact", "10"), DEFRAGMENT, DISARM]
    assert run.troubles == {}


def test_a_try_that_took_long_is_not_made_again_at_once(run: context.Context) -> None:
    upkeep = etcd_upkeep.Upkeep(fakes.Etcd(status(2048, 2040, full=True)), not_before=100)
    etcd_upkeep.look(run, upkeep, now=99)
    assert upkeep.store.calls == []  # type: ignore[attr-defined]
    etcd_upkeep.look(run, upkeep, now=100)
    assert upkeep.store.calls == [COMPACT, DEFRAGMENT]  # type: ignore[attr-defined]


def test_a_full_disk_is_no_reason_to_give_up(run: context.Context, room: dict[str, int]) -> None:
    room["free"] = 100
    store = fakes.Etcd(status(2048, 900, full=True))
    upkeep = etcd_upkeep.Upkeep(store)
    etcd_upkeep.look(run, upkeep, now=10)
    room["free"] = 10_000
    store.statuses = [status(2048, 900, full=True), status(900, 900)]
    etcd_upkeep.look(run, upkeep, now=20)
    assert store.calls == [COMPACT, COMPACT, DEFRAGMENT, DISARM]


def test_a_disk_that_fills_up_is_told_once_and_when_it_is_well(
    run: context.Context, room: dict[str, int], story: list[str]
) -> None:
    for room["free"] in (100, 3, 2, 100, 100):
        look(run, status(16, 1))
    assert story == ["disk: no space left", "disk: well again"]
    found = [(event.kind, event.data) for event in run.journal.read(0, seconds=0)]
    assert found == [("warning", {"condition": "disk"})] * 2


def test_the_mark_is_written_once_a_minute(
    run: context.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fakes.Etcd(fakes.etcd_status(9))
    monkeypatch.setattr(credentials, "connect_etcd", lambda _: store)
    upkeep = etcd_upkeep.Upkeep(store, marked_at=100.0)
    etcd_upkeep.look(run, upkeep, now=159.0)
    assert etcd_mark.read(run.plan.paths) is None
    etcd_upkeep.look(run, upkeep, now=160.0)
    assert etcd_mark.read(run.plan.paths) == 9
    store.statuses = [fakes.etcd_status(12)]
    etcd_upkeep.look(run, upkeep, now=219.0)
    assert etcd_mark.read(run.plan.paths) == 9


def test_an_etcd_that_is_away_is_looked_for_again(
    run: context.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [fakes.Etcd(errors.P8sError("etcd: no answer")), fakes.Etcd(status(300, 100))]
    given = iter([*made, fakes.Etcd()])
    monkeypatch.setattr(credentials, "connect_etcd", lambda _: next(given))
    waits = iter([False, False, True])
    monkeypatch.setattr(run.stop, "wait", lambda _: next(waits))
    etcd_upkeep._work(run)
    assert made[1].calls == [DEFRAGMENT]
