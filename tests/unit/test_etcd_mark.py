"""The mark beside etcd's data, and what is refused because of it."""

from __future__ import annotations

import json
import pathlib

import pytest

from p8s_supervisor import credentials, errors, etcd, etcd_mark
from tests import fakes


def test_a_mark_is_read_as_it_was_written(tmp_path: pathlib.Path) -> None:
    places = fakes.make_context(tmp_path).plan.paths
    assert etcd_mark.read(places) is None
    for mark in (7, 2**62):
        etcd_mark.write(places, mark)
        assert etcd_mark.read(places) == mark


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("\x00\x00", id="zeros"),
        pytest.param("[]", id="a list"),
        pytest.param('{"revision": ', id="half of it"),
        pytest.param('{"revision": "x"}', id="no number"),
    ],
)
def test_a_damaged_mark_is_refused_by_its_name(tmp_path: pathlib.Path, text: str) -> None:
    places = fakes.make_context(tmp_path).plan.paths
    places.etcd_mark.write_text(text)
    with pytest.raises(errors.P8sError, match=r"etcd-mark\.json is damaged") as caught:
        etcd_mark.read(places)
    assert "remove it" in caught.value.hint


# --- what is compared


@pytest.mark.parametrize(
    ("kept", "found", "refused"),
    [
        pytest.param(None, 1, False, id="no mark"),
        pytest.param(42, 42, False, id="nothing was written since"),
        pytest.param(42, 50, False, id="more was written"),
        pytest.param(42, 41, True, id="one write is missing"),
        pytest.param(42, 1, True, id="a new cluster in place of the old one"),
    ],
)
def test_a_revision_that_is_too_low_is_refused(
    tmp_path: pathlib.Path, kept: int | None, found: int, refused: bool
) -> None:
    run = fakes.make_context(tmp_path)
    if kept is not None:
        etcd_mark.write(run.plan.paths, kept)
    if not refused:
        etcd_mark.check(run, fakes.etcd_status(found))
        return
    with pytest.raises(errors.P8sError) as caught:
        etcd_mark.check(run, fakes.etcd_status(found))
    assert str(run.plan.paths.etcd_data) in caught.value.message
    assert str(run.plan.paths.etcd_mark) in caught.value.hint


# --- what is kept


@pytest.mark.parametrize(
    ("kept", "found", "mark"),
    [
        pytest.param(42, fakes.etcd_status(50), 50, id="more was written"),
        pytest.param(42, fakes.etcd_status(41), 42, id="never lower"),
        pytest.param(42, errors.P8sError("etcd: no answer"), 42, id="etcd does not answer"),
        pytest.param(None, fakes.etcd_status(50), 50, id="it was removed meanwhile"),
    ],
)
def test_a_mark_is_only_raised(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    kept: int | None,
    found: etcd.Status | errors.P8sError,
    mark: int,
) -> None:
    run = fakes.make_context(tmp_path)
    run.marked = True
    if kept is not None:
        etcd_mark.write(run.plan.paths, kept)
    monkeypatch.setattr(credentials, "connect_etcd", lambda _: fakes.Etcd(found))
    etcd_mark.keep(run)
    assert etcd_mark.read(run.plan.paths) == mark


def test_a_start_that_has_not_compared_leaves_the_mark(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fakes.make_context(tmp_path)
    monkeypatch.setattr(credentials, "connect_etcd", fakes.forbid)
    etcd_mark.keep(run)
    assert not run.plan.paths.etcd_mark.exists()


def test_what_is_compared_is_marked(tmp_path: pathlib.Path) -> None:
    run = fakes.make_context(tmp_path)
    etcd_mark.begin(run, fakes.Etcd(fakes.etcd_status(9)))
    assert json.loads(run.plan.paths.etcd_mark.read_text()) == {"revision": 9}
    assert run.marked
