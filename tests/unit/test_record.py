"""The Kubernetes that last ran on a state volume; the settings in the record are test_setup's."""

from __future__ import annotations

import json
import pathlib
import typing

import pytest

from p8s_supervisor import context, damage, errors, health, network, record, runtime, setup
from tests import fakes

SETTINGS = {
    "service_cidr": "192.168.254.0/24",
    "pod_cidr": "192.168.253.0/24",
    "cluster_domain": "cluster.local",
    "node_name": "p8s",
}
OWN = "v1.37.2"


def make(
    root: pathlib.Path, *, kept: object, own: str = OWN, story: list[str] | None = None
) -> context.Context:
    """A start of the image with Kubernetes `own`, on a volume with a record."""
    run = fakes.make_context(root, story=[] if story is None else story)
    run.versions["kubernetes"] = own
    file = run.plan.paths.cluster_record
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(kept if isinstance(kept, str) else json.dumps(kept))
    return run


def list_files(root: pathlib.Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in root.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("kept", "own"),
    [
        pytest.param("v1.37.2", "v1.37.2", id="the same"),
        pytest.param("v1.37.2", "v1.37.11", id="a newer patch"),
        pytest.param("v1.37.2", "v1.37.1", id="an older patch"),
        pytest.param("v1.36.3", "v1.37.2", id="the next minor"),
        pytest.param("v1.9.8", "v1.10.0", id="the next minor, by number"),
        pytest.param("v1.37.0-rc.1", "v1.38.0", id="of a release candidate"),
    ],
)
def test_a_version_that_is_taken(tmp_path: pathlib.Path, kept: str, own: str) -> None:
    run = make(tmp_path, kept=SETTINGS | {"kubernetes": kept}, own=own)
    record.check_version(run)


NEWER = "an older minor cannot read what a newer one wrote"
FARTHER = "Kubernetes is upgraded by one minor at a time"


@pytest.mark.parametrize(
    ("kept", "own", "told", "mend"),
    [
        pytest.param("v1.37.2", "v1.36.3", NEWER, "p8s:1.37", id="a minor back"),
        pytest.param("v1.37.2", "v1.35.4", NEWER, "p8s:1.37", id="two minors back"),
        pytest.param("v1.10.0", "v1.9.8", NEWER, "p8s:1.10", id="a minor back, by number"),
        pytest.param("v1.35.4", "v1.37.2", FARTHER, "p8s:1.36", id="two minors on"),
        pytest.param("v1.34.1", "v1.37.2", FARTHER, "p8s:1.35", id="three minors on"),
    ],
)
def test_a_version_that_is_refused(
    tmp_path: pathlib.Path, kept: str, own: str, told: str, mend: str
) -> None:
    run = make(tmp_path, kept=SETTINGS | {"kubernetes": kept}, own=own)
    with pytest.raises(errors.P8sError) as caught:
        record.check_version(run)
    assert caught.value.message == (
        f"the cluster in this volume was last run with Kubernetes {kept}; this image has {own}: "
        + told
    )
    assert f"({mend})" in caught.value.hint
    assert "nothing was changed" in caught.value.hint


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param(SETTINGS | {"kubernetes": "1.37"}, id="another form"),
        pytest.param(SETTINGS | {"kubernetes": ""}, id="empty"),
        pytest.param(SETTINGS | {"kubernetes": 37}, id="a number"),
        pytest.param([], id="a list"),
        pytest.param("{", id="not JSON"),
    ],
)
def test_a_record_that_says_no_version_is_damaged(tmp_path: pathlib.Path, kept: object) -> None:
    run = make(tmp_path, kept=kept)
    with pytest.raises(errors.P8sError, match=r"cluster\.json is damaged"):
        record.check_version(run)


def test_a_new_volume_has_no_version(tmp_path: pathlib.Path) -> None:
    record.check_version(fakes.make_context(tmp_path))
    assert list_files(tmp_path) == {}


def test_a_record_that_was_written_by_hand_gets_its_version(tmp_path: pathlib.Path) -> None:
    story: list[str] = []
    run = make(tmp_path, kept=SETTINGS, story=story)
    record.check_version(run)
    record.keep_version(run)
    kept = json.loads(run.plan.paths.cluster_record.read_text())
    assert (kept, story) == (SETTINGS | {"kubernetes": OWN}, [])


def test_an_upgrade_is_told_and_kept(tmp_path: pathlib.Path) -> None:
    story: list[str] = []
    run = make(tmp_path, kept=SETTINGS | {"kubernetes": "v1.36.3"}, story=story)
    record.keep_version(run)
    record.keep_version(run)
    kept = json.loads(run.plan.paths.cluster_record.read_text())
    assert kept == SETTINGS | {"kubernetes": OWN}
    assert story == ["Kubernetes v1.36.3 ran the cluster in this volume; v1.37.2 goes on with it"]


def test_the_same_version_is_not_written_again(tmp_path: pathlib.Path) -> None:
    text = json.dumps(SETTINGS | {"kubernetes": OWN})  # not as it is written here
    run = make(tmp_path, kept=text)
    record.keep_version(run)
    assert run.plan.paths.cluster_record.read_text() == text


def set_up(run: context.Context) -> None:
    setup.set_up(run, health.Monitor(run))


def test_a_refused_version_leaves_everything_as_it_is(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "check_ranges", lambda _: None)
    run = make(tmp_path, kept=SETTINGS | {"kubernetes": "v1.38.0"})
    # What a start otherwise mends.
    state = run.plan.paths.kubelet_state / damage.KUBELET_STATES[0]
    state.parent.mkdir()
    state.write_text("no JSON")
    before = list_files(tmp_path)
    with pytest.raises(errors.P8sError, match="an older minor"):
        set_up(run)
    assert list_files(tmp_path) == before
    supervisor = typing.cast("fakes.Supervisor", run.supervisor)
    assert supervisor.calls == []


def test_the_version_is_kept_before_anything_runs(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that fails later may have written to the volume by then."""

    def fail(*_: object, **__: object) -> str:
        raise errors.P8sError("no")

    monkeypatch.setattr(network, "check_ranges", lambda _: None)
    monkeypatch.setattr(damage, "check", lambda _: None)
    monkeypatch.setattr(runtime, "containerd_config", fail)
    run = make(tmp_path, kept=SETTINGS | {"kubernetes": "v1.36.3"})
    with pytest.raises(errors.P8sError, match="no"):
        set_up(run)
    kept = json.loads(run.plan.paths.cluster_record.read_text())
    assert kept["kubernetes"] == OWN
    assert typing.cast("fakes.Supervisor", run.supervisor).calls == []
