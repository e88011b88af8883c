"""What is missing or damaged in the state volume."""

from __future__ import annotations

import json
import os
import pathlib
import time

import pytest

from p8s_supervisor import context, damage, errors, etcd_mark, gates, record, space
from tests import fakes

OVERLAYFS = "io.containerd.snapshotter.v1.overlayfs"
KEPT = (
    "cluster.json",
    "etcd/member/wal/0000000000000000-0000000000000000.wal",
    "etcd/member/snap/db",
    "containerd/io.containerd.metadata.v1.bolt/meta.db",
    f"containerd/{OVERLAYFS}/metadata.db",
    f"containerd/{OVERLAYFS}/snapshots/1/fs/usr",
)


@pytest.fixture
def story() -> list[str]:
    return []


@pytest.fixture
def run(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, story: list[str]
) -> context.Context:
    """A start on a volume that holds a cluster."""
    monkeypatch.setattr(space, "find_lack", lambda *_, **__: None)
    made = fakes.make_context(tmp_path, story=story)
    places = made.plan.paths
    for name in KEPT:
        (places.state / name).parent.mkdir(parents=True, exist_ok=True)
        (places.state / name).write_text("x")
    etcd_mark.write(places, 42)
    for name in damage.KUBELET_STATES:
        (places.kubelet_state / name).parent.mkdir(exist_ok=True)
        (places.kubelet_state / name).write_text('{"checksum": 1}')
    return made


def remove(path: pathlib.Path) -> None:
    if path.is_dir():
        for inner in path.iterdir():
            remove(inner)
        path.rmdir()
    else:
        path.unlink()


def list_files(root: pathlib.Path) -> dict[str, str]:
    return {str(file): file.read_text() for file in root.rglob("*") if file.is_file()}


def test_a_volume_as_it_was_left_is_taken(run: context.Context, story: list[str]) -> None:
    before = list_files(run.plan.paths.state)
    damage.check(run)
    assert (list_files(run.plan.paths.state), story) == (before, [])


@pytest.mark.parametrize(
    ("gone", "named", "told"),
    [
        pytest.param("etcd", "etcd/member/wal", "etcd's log is missing", id="etcd's directory"),
        pytest.param("etcd/member", "etcd/member/wal", "etcd's log is missing", id="its content"),
        pytest.param(KEPT[1], "etcd/member/wal", "etcd's log is missing", id="its log"),
        pytest.param(KEPT[0], "cluster.json", "holds a cluster", id="the record"),
        pytest.param(KEPT[3], KEPT[3], "is missing or empty", id="containerd's metadata"),
        pytest.param(
            KEPT[4],
            "containerd/io.containerd.snapshotter.v1",
            "are missing",
            id="the snapshotter's metadata",
        ),
        pytest.param(
            f"containerd/{OVERLAYFS}/snapshots/1",
            "containerd/io.containerd.snapshotter.v1",
            "are missing",
            id="the snapshots",
        ),
        pytest.param(
            f"containerd/{OVERLAYFS}",
            "containerd/io.containerd.snapshotter.v1",
            "are missing",
            id="the snapshotter",
        ),
    ],
)
def test_what_is_gone_is_told(run: context.Context, gone: str, named: str, told: str) -> None:
    remove(run.plan.paths.state / gone)
    before = list_files(run.plan.paths.state)
    with pytest.raises(errors.P8sError, match=told) as caught:
        damage.check(run)
    assert str(run.plan.paths.state / named) in caught.value.message
    assert caught.value.hint
    assert list_files(run.plan.paths.state) == before


def test_of_etcd_s_copies_of_torn_logs_the_newest_is_kept(run: context.Context) -> None:
    logs = run.plan.paths.etcd_data / "member/wal"
    for number in range(3):
        (logs / f"{number:016x}-{number:016x}.wal.broken").write_text("x")
    damage.check(run)
    assert [file.name[15] for file in logs.glob("*.broken")] == ["2"]
    assert (run.plan.paths.state / KEPT[1]).exists()


def test_an_empty_metadata_file_is_told(run: context.Context) -> None:
    os.truncate(run.plan.paths.state / KEPT[3], 0)
    with pytest.raises(errors.P8sError, match="is missing or empty"):
        damage.check(run)


def test_containerd_may_begin_anew_as_a_whole(run: context.Context, story: list[str]) -> None:
    remove(run.plan.paths.containerd_root)
    damage.check(run)
    assert [line for line in story if "have to be loaded again" in line] == story != []


def test_a_missing_record_is_told_with_what_it_may_be(run: context.Context) -> None:
    run.plan.paths.cluster_record.unlink()
    with pytest.raises(errors.P8sError) as caught:
        damage.check(run)
    text = caught.value.hint[caught.value.hint.index("{") :]
    run.plan.paths.cluster_record.write_text(text)
    assert set(json.loads(text)) == set(record.KEPT_SETTINGS)
    assert record.check(run) is False
    damage.check(run)


@pytest.mark.parametrize(
    "left",
    [
        pytest.param([], id="nothing"),
        pytest.param(["pki/ca.key"], id="the PKI: ended before the record"),
        pytest.param(["pki/ca.key", "cluster.json"], id="the record: ended before etcd began"),
        pytest.param(
            ["cluster.json", "etcd/member/snap/db"], id="ended while etcd made its directory"
        ),
        pytest.param(["cluster.json", KEPT[1], KEPT[3]], id="ended before etcd had the seed"),
    ],
)
def test_a_first_start_that_was_killed_goes_on(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, left: list[str]
) -> None:
    monkeypatch.setattr(space, "find_lack", lambda *_, **__: None)
    run = fakes.make_context(tmp_path)
    for name in left:
        file = run.plan.paths.state / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    damage.check(run)


# --- kubelet's state


@pytest.mark.parametrize("text", ["", "xyz", "[]", '{"checksum": '], ids=repr)
@pytest.mark.parametrize("name", damage.KUBELET_STATES)
def test_a_damaged_state_of_kubelet_is_set_aside(
    run: context.Context, story: list[str], name: str, text: str
) -> None:
    file = run.plan.paths.kubelet_state / name
    file.write_text(text)
    damage.check(run)
    assert not file.exists()
    assert file.with_name(f"{name}.damaged").read_text() == text
    assert story == [f"{file} is damaged: kubelet makes it anew; the old one is {name}.damaged"]
    others = set(damage.KUBELET_STATES) - {name}
    assert all((run.plan.paths.kubelet_state / other).exists() for other in others)


# --- the clock

NOW = 1_800_000_000_000_000_000
DAY = 86_400_000_000_000


def write_container(run: context.Context, name: str, created: int, ended: int) -> pathlib.Path:
    root = run.plan.paths.containerd_root
    file = root / damage.CONTAINER_STATES.replace("*", name)
    file.parent.mkdir(parents=True)
    moments = {"CreatedAt": created, "StartedAt": created + 1, "FinishedAt": ended}
    file.write_text(json.dumps({"Version": "v1", **moments, "ExitCode": 3}))
    return file


def test_containers_of_a_time_to_come_are_dated_back(
    run: context.Context, story: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: NOW)
    earlier = write_container(run, "earlier", NOW - 9, NOW - 5)
    before = earlier.read_text()
    made_ahead = write_container(run, "ahead", NOW + DAY - 30, NOW - 3)
    later = write_container(run, "later", NOW + DAY - 20, NOW + DAY)
    damage.check(run)
    assert earlier.read_text() == before
    assert json.loads(made_ahead.read_text()) == {
        "Version": "v1",
        "CreatedAt": NOW - 30,
        "StartedAt": NOW - 29,
        "FinishedAt": NOW - 3,
        "ExitCode": 3,
    }
    assert json.loads(later.read_text())["CreatedAt"] == NOW - 20
    assert json.loads(later.read_text())["FinishedAt"] == NOW
    assert len(story) == 1
    assert "set back by 86400 s or more" in story[0]
    assert "2 of them" in story[0]
    damage.check(run)
    assert len(story) == 1


@pytest.mark.parametrize("text", ["", "x", "5", "{}", '{"CreatedAt": "x"}'], ids=repr)
def test_a_container_s_state_that_is_none_is_left(
    run: context.Context, story: list[str], text: str
) -> None:
    file = write_container(run, "odd", 1, 2)
    file.write_text(text)
    damage.check(run)
    assert (file.read_text(), story) == (text, [])


# --- room


@pytest.mark.parametrize(
    ("new", "lacking", "needed"),
    [
        pytest.param(True, "var/lib/p8s", space.NEW_BYTES, id="a new cluster"),
        pytest.param(False, "var/lib/p8s", space.LOW_BYTES, id="one that was there"),
        pytest.param(False, "", space.LOW_BYTES, id="the container's own file system"),
    ],
)
def test_a_full_disk_is_told_at_once(
    run: context.Context,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    new: bool,
    lacking: str,
    needed: int,
) -> None:
    asked: dict[pathlib.Path, int] = {}

    def find_lack(path: pathlib.Path, *, needed: int) -> str | None:
        asked[path] = needed
        return f"no space left in {path}" if path == tmp_path / lacking else None

    monkeypatch.setattr(space, "find_lack", find_lack)
    if new:
        run.plan.paths.cluster_record.unlink()
    with pytest.raises(errors.P8sError, match=f"no space left in {tmp_path / lacking}\n"):
        damage.check(run)
    assert asked[tmp_path / lacking] == needed


@pytest.mark.parametrize(
    ("blocks", "inodes", "told"),
    [
        pytest.param(100, (0, 0), None, id="room, on a file system that has no inodes"),
        pytest.param(100, (1000, 500), None, id="room"),
        pytest.param(1, (1000, 500), "no space left: 1 MiB free in /x, 16 MiB needed", id="full"),
        pytest.param(
            100, (1000, 3), "no space left: 3 inodes free in /x, 100 needed", id="no inodes"
        ),
    ],
)
def test_room_is_counted_in_bytes_and_inodes(
    monkeypatch: pytest.MonkeyPatch, blocks: int, inodes: tuple[int, int], told: str | None
) -> None:
    found = (4096, space.MIB, 1000, blocks, 0, *inodes, inodes[1], 0, 255)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(found))
    assert space.find_lack(pathlib.Path("/x")) == told
    assert space.free(pathlib.Path("/x")) == blocks * space.MIB


# --- what is shown of a log


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        pytest.param(["a", "usage: b"], ["a", "usage: b"], id="no trace: everything"),
        pytest.param(
            [
                '{"level":"info","msg":"a"}',
                '{"level":"panic","msg":"b","stacktrace":"main.main\\n\\t\\"x\\""}',
                "panic: invalid page",
                "",
                "goroutine 1 [running]:",
                "main.main()",
                "\tmain.go:34 +0x232",
            ],
            ['{"level":"info","msg":"a"}', '{"level":"panic","msg":"b"}', "panic: invalid page"],
            id="etcd's panic",
        ),
        pytest.param(
            ['time="2026" level=info msg=a', "fatal error: fault", "[signal]", "goroutine 7 gp=0:"],
            ['time="2026" level=info msg=a', "fatal error: fault"],
            id="containerd's",
        ),
    ],
)
def test_a_go_trace_does_not_hide_what_was_said(lines: list[str], shown: list[str]) -> None:
    assert gates.without_traces(lines) == shown


@pytest.mark.parametrize("component", ["etcd", "containerd", "kubelet"])
def test_a_component_that_fails_over_old_state_comes_with_a_hint(
    run: context.Context, component: str
) -> None:
    supervisor = fakes.Supervisor([fakes.stopped(component, state="FATAL", reason="x")])
    run.supervisor = supervisor
    with pytest.raises(errors.ComponentFailedError) as caught:
        gates.raise_failure(run)
    assert str(run.plan.paths.state / component) in caught.value.hint
    run.fresh = True
    with pytest.raises(errors.ComponentFailedError) as caught:
        gates.raise_failure(run)
    assert caught.value.hint == ""
