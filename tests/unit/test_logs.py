"""Logs: their ends, the prefix of containers' lines, and following over rotation and restarts."""

from __future__ import annotations

import collections.abc
import pathlib

import pytest

from p8s_supervisor import context, errors, logs
from tests import fakes

PREFIX = "2026-11-25T09:18:56.082460123Z stderr F "


@pytest.fixture
def run(tmp_path: pathlib.Path) -> context.Context:
    made = fakes.make_context(tmp_path)
    made.plan.paths.logs.mkdir(parents=True)
    return made


def write_process(run: context.Context, name: str, text: str) -> pathlib.Path:
    file = run.plan.paths.logs / name
    file.write_text(text)
    return file


def write_attempt(
    run: context.Context,
    number: str,
    *lines: str,
    pod: str = "kube-scheduler-p8s_18c5",
    container: str = "kube-scheduler",
) -> pathlib.Path:
    file = run.plan.paths.pod_logs / f"kube-system_{pod}" / container / f"{number}.log"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{PREFIX}{line}\n" for line in lines))
    return file


def read(run: context.Context, name: str, tail: int | None = None) -> str:
    return b"".join(logs.read(run, name, follow=False, tail=tail)).decode()


# --- which


def test_the_audit_log_is_known_where_it_is_written(run: context.Context) -> None:
    assert logs.list_components(run) == [*logs.PROCESSES, *logs.PODS]
    write_process(run, "audit.log", "{}\n")
    assert logs.list_components(run) == [*logs.PROCESSES, *logs.PODS, "audit"]
    assert read(run, "audit") == "{}\n"


def test_the_static_pod_of_a_cluster_of_ipv6_has_a_log(tmp_path: pathlib.Path) -> None:
    run = fakes.make_context(tmp_path, *fakes.IPV6_RANGES)
    assert logs.list_components(run) == [*logs.PROCESSES, *logs.PODS, "resolver"]
    write_attempt(run, "0", "one", pod="resolver-p8s_18c5", container="resolver")
    assert read(run, "resolver") == "one\n"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("nope", id="no component"),
        pytest.param("", id="nothing"),
        pytest.param("../../../etc/shadow", id="a way out"),
        pytest.param("*", id="a pattern"),
        pytest.param("etcd.log", id="a file"),
        pytest.param("supervisord", id="a file that is there, but of no component"),
        pytest.param("audit", id="audit, which is not written"),
    ],
)
def test_what_is_not_known_is_refused_at_once(run: context.Context, name: str) -> None:
    write_process(run, "supervisord.log", "x\n")
    with pytest.raises(errors.RequestError) as caught:
        logs.read(run, name, follow=False, tail=None)
    assert caught.value.status == 404
    assert caught.value.hint == f"one of: {', '.join([*logs.PROCESSES, *logs.PODS])}"


def test_a_negative_tail_is_refused(run: context.Context) -> None:
    with pytest.raises(errors.RequestError) as caught:
        logs.read(run, "etcd", follow=False, tail=-1)
    assert caught.value.status == 400


# --- what is there


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        pytest.param(None, "a\nb\nc\nd\ne\n", id="all, the oldest first"),
        pytest.param(0, "", id="nothing"),
        pytest.param(1, "e\n", id="the last line"),
        pytest.param(2, "d\ne\n", id="the whole last file"),
        pytest.param(3, "c\nd\ne\n", id="more than the last file has"),
        pytest.param(99, "a\nb\nc\nd\ne\n", id="more than there are"),
    ],
)
def test_the_log_of_a_process(run: context.Context, tail: int | None, expected: str) -> None:
    write_process(run, "etcd.log.2", "a\n")
    write_process(run, "etcd.log.1", "b\nc\n")
    write_process(run, "etcd.log", "d\ne\n")
    assert read(run, "etcd", tail) == expected


@pytest.mark.parametrize(
    ("text", "wanted", "found"),
    [
        pytest.param("", 5, "", id="an empty file"),
        pytest.param("\n", 1, "\n", id="an empty line"),
        pytest.param("\n\n\n", 2, "\n\n", id="empty lines"),
        pytest.param("a\nb", 1, "b", id="a last line without its end"),
        pytest.param("a\nb", 2, "a\nb", id="as many as there are"),
        pytest.param("one\n", 3, "one\n", id="fewer than wanted"),
    ],
)
def test_find_lines(tmp_path: pathlib.Path, text: str, wanted: int, found: str) -> None:
    file = tmp_path / "log"
    file.write_text(text)
    offset, count = logs.find_lines(file, wanted)
    assert text[offset:] == found
    assert count == len(found.splitlines())


@pytest.mark.parametrize("block", [1, 2, 3, 5, 7, 64])
@pytest.mark.parametrize("wanted", [1, 2, 5, 19, 20, 21])
def test_find_lines_over_the_borders_of_blocks(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, block: int, wanted: int
) -> None:
    lines = [f"line {'x' * (number % 4)}{number}\n" for number in range(20)]
    file = tmp_path / "log"
    file.write_text("".join(lines))
    monkeypatch.setattr(logs, "BLOCK", block)
    offset, count = logs.find_lines(file, wanted)
    assert file.read_text()[offset:] == "".join(lines[-wanted:])
    assert count == min(wanted, 20)


def test_the_end_of_a_large_file_costs_no_more_than_its_end(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "log"
    with file.open("wb") as sparse:
        sparse.seek(2**40)
        sparse.write(b"\nlast\n")
    assert logs.find_lines(file, 1) == (2**40 + 1, 1)


def test_a_file_that_is_gone_has_no_lines(tmp_path: pathlib.Path) -> None:
    assert logs.find_lines(tmp_path / "none", 5) == (0, 0)


def test_a_component_that_has_not_said_anything_yet(run: context.Context) -> None:
    assert (read(run, "etcd"), read(run, "coredns", 5)) == ("", "")


def test_the_log_of_a_pod_is_as_it_was_written(run: context.Context) -> None:
    write_attempt(run, "9", "the attempt before")
    write_attempt(run, "10", "one  two", "")
    write_attempt(run, "10.log.20261125-1", "rotated away")
    write_attempt(run, "0", "of another", pod="kube-scheduler-x_1", container="sidecar")
    assert read(run, "kube-scheduler") == "the attempt before\none  two\n\n"
    assert read(run, "kube-scheduler", 2) == "one  two\n\n"


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        pytest.param([f"{PREFIX}a b  c\n"], ["a b  c\n"], id="a line"),
        pytest.param([PREFIX, "a\n"], ["a\n"], id="a line in two blocks"),
        pytest.param(
            [f"{PREFIX.replace(' F ', ' P ')}long\n{PREFIX} line\n"],
            ["long line\n"],
            id="a line in two pieces",
        ),
        pytest.param([f"{PREFIX.replace('stderr', 'stdout')}a\n"], ["a\n"], id="standard output"),
        pytest.param(["no prefix at all\n"], ["no prefix at all\n"], id="another format"),
        pytest.param([f"{PREFIX}a"], ["a"], id="a line without its end"),
        pytest.param(["", f"{PREFIX}a\n", ""], ["", "a\n", ""], id="signs of life are kept"),
        pytest.param([f"{PREFIX}\n"], ["\n"], id="an empty line"),
    ],
)
def test_strip_prefixes(blocks: list[str], expected: list[str]) -> None:
    found = logs.strip_prefixes(block.encode() for block in blocks)
    assert [block.decode() for block in found] == expected


# --- what comes


Step = collections.abc.Callable[[], object]


class Follower:
    """Follows a log in a run whose every wait takes the next step."""

    def __init__(
        self, run: context.Context, monkeypatch: pytest.MonkeyPatch, steps: list[Step]
    ) -> None:
        self.run, self.steps = run, list(steps)
        monkeypatch.setattr(run.stop, "wait", self.wait)

    def wait(self, seconds: float) -> bool:
        assert seconds == logs.POLL_SECONDS
        if self.steps:
            self.steps.pop(0)()
        else:
            self.run.stop.set()
        return self.run.stop.is_set()

    def read(self, name: str, tail: int | None = None) -> list[str]:
        blocks = logs.read(self.run, name, follow=True, tail=tail)
        return [block.decode() for block in blocks]


def append(file: pathlib.Path, text: str) -> None:
    with file.open("a") as opened:
        opened.write(text)


def test_it_follows_over_rotation(run: context.Context, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_process(run, "etcd.log", "a\nb\n")

    def rotate() -> None:
        append(file, "the last of the old\n")
        (file.parent / "etcd.log.1").unlink(missing_ok=True)
        file.rename(file.parent / "etcd.log.1")
        file.write_text("the first of the new\n")

    def rotate_twice() -> None:
        append(file, "x\n")
        (file.parent / "etcd.log.1").rename(file.parent / "etcd.log.2")
        file.rename(file.parent / "etcd.log.1")
        write_process(run, "etcd.log", "y\n")
        (file.parent / "etcd.log.1").rename(file.parent / "etcd.log.2")
        file.rename(file.parent / "etcd.log.1")
        write_process(run, "etcd.log", "z\n")

    steps: list[Step] = [
        lambda: append(file, "c\n"),
        rotate,
        lambda: append(file, "d\n"),
        rotate_twice,
    ]
    assert Follower(run, monkeypatch, steps).read("etcd", 1) == [
        "b\n",
        "c\n",
        "the last of the old\n",
        "the first of the new\n",
        "d\n",
        "x\n",
        "y\n",
        "z\n",
    ]


def test_it_follows_over_a_restart_of_the_container(
    run: context.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_attempt(run, "0", "ready")
    steps: list[Step] = [
        lambda: append(first, f"{PREFIX}it ends\n"),
        lambda: write_attempt(run, "1"),
        lambda: append(first.with_name("1.log"), f"{PREFIX}once more\n"),
        first.unlink,
        lambda: write_attempt(run, "2", "again"),
    ]
    assert Follower(run, monkeypatch, steps).read("kube-scheduler") == [
        "ready\n",
        "it ends\n",
        "once more\n",
        "again\n",
    ]


def test_it_waits_for_a_log_that_is_not_there_yet(
    run: context.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[Step] = [lambda: None, lambda: write_process(run, "etcd.log", "begun\n")]
    assert Follower(run, monkeypatch, steps).read("etcd", 5) == ["begun\n"]


def test_a_log_that_was_cut_is_read_from_its_start(
    run: context.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_process(run, "etcd.log", "a long line\n")
    steps: list[Step] = [lambda: file.write_text("short\n")]
    assert Follower(run, monkeypatch, steps).read("etcd") == ["a long line\n", "short\n"]


@pytest.mark.parametrize("name", ["etcd", "kube-scheduler", "coredns"])
def test_signs_of_life_while_nothing_comes(
    run: context.Context, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_process(run, "etcd.log", "a\n")
    write_attempt(run, "0", "a")
    idle: list[Step] = [lambda: None] * round(2.5 * logs.IDLE_SECONDS / logs.POLL_SECONDS)
    found = Follower(run, monkeypatch, idle).read(name, 0)
    assert found == ["", ""]
    assert logs.IDLE_SECONDS + logs.POLL_SECONDS < 5


def test_what_was_written_before_the_stop_is_given(run: context.Context) -> None:
    write_process(run, "sidecar.log", "stopping\n")
    run.stop.set()
    assert list(logs.read(run, "sidecar", follow=True, tail=None)) == [b"stopping\n"]


# --- the sidecar's own


def test_the_story_is_rotated_once(run: context.Context) -> None:
    story = logs.Story(run.plan.paths.logs / "sidecar.log", size=12)
    for line in ("one", "two", "three", "four — ü"):
        story.add(line)
    kept = {file.name: file.read_text() for file in run.plan.paths.logs.iterdir()}
    assert kept == {"sidecar.log.1": "one\ntwo\nthree\n", "sidecar.log": "four — ü\n"}
    assert read(run, "sidecar") == "one\ntwo\nthree\nfour — ü\n"
    story.add("five")
    story.add("six")
    assert read(run, "sidecar") == "four — ü\nfive\nsix\n"


def test_a_story_that_cannot_be_written_ends_nothing(tmp_path: pathlib.Path) -> None:
    logs.Story(tmp_path / "none" / "sidecar.log").add("told elsewhere")
    assert list(tmp_path.iterdir()) == []
