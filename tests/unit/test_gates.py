"""The gates of the start: whose ends end it, what is told of them, and unknown fields."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import typing

import pytest

from p8s_supervisor import context, errors, gates, probes
from tests import fakes

UNKNOWN = (
    'I1125 14:00:00.1 1 server.go:1] "Using lenient decoding as strict decoding failed" err="strict '
    'decoding error: unknown field \\"maxPod\\""'
)


def make_context(root: pathlib.Path, *arguments: str, **files: str) -> context.Context:
    run = fakes.make_context(root, *arguments)
    run.plan = dataclasses.replace(run.plan, files=files)
    run.plan.paths.logs.mkdir(parents=True, exist_ok=True)
    return run


def write_pod_log(
    run: context.Context, name: str, attempt: int, text: str = "", *, uid: str = "0123"
) -> pathlib.Path:
    """The log of an attempt of a system pod; of later attempts it is newer."""
    file = run.plan.paths.pod_logs / f"kube-system_{name}-p8s_{uid}" / name / f"{attempt}.log"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    os.utime(file, (1000 + attempt, 1000 + attempt))
    return file


# --- what has ended, and its last words


@pytest.mark.parametrize(
    ("listed", "attempts", "failed"),
    [
        pytest.param([fakes.running("etcd")], {}, None, id="all is well"),
        pytest.param(
            [fakes.stopped("kubelet", state="BACKOFF", reason="Exited too quickly")],
            {},
            None,
            id="supervisord still tries",
        ),
        pytest.param(
            [fakes.stopped("etcd", state="FATAL", reason="Exited too quickly")],
            {},
            "etcd failed: Exited too quickly\n  | a line of etcd",
            id="supervisord gave up",
        ),
        pytest.param([], {"kube-apiserver": [0, 1]}, None, id="a static pod that ended once"),
        pytest.param(
            [],
            {"kube-apiserver": [0, 1, 2]},
            "kube-apiserver failed: it keeps ending\n  | F a line of attempt 2",
            id="a static pod that ended twice",
        ),
        pytest.param(
            [],
            {"kube-scheduler": [7, 8, 9]},
            "kube-scheduler failed: it keeps ending\n  | F a line of attempt 9",
            id="one that ended twice, on an older volume",
        ),
        pytest.param(
            [],
            {"kube-scheduler": [7]},
            None,
            id="a new container on an older volume: kubelet goes on counting",
        ),
    ],
)
def test_raise_failure(
    tmp_path: pathlib.Path,
    listed: list[typing.Any],
    attempts: dict[str, list[int]],
    failed: str | None,
) -> None:
    run = fakes.make_context(tmp_path, supervisor=fakes.Supervisor(listed))
    run.fresh = True
    run.attempts = dict.fromkeys(probes.STATIC_PODS, -1)
    run.plan.paths.logs.mkdir(parents=True)
    (run.plan.paths.logs / "etcd.log").write_text("a line of etcd\n")
    for name, numbers in attempts.items():
        for number in numbers:
            text = f"2026-01-01T00:00:00Z stderr F F a line of attempt {number}\n"
            write_pod_log(run, name, number, text)
    told = None
    try:
        gates.raise_failure(run)
    except errors.ComponentFailedError as error:
        told = str(error)
    assert told == failed


@pytest.mark.parametrize(
    ("before", "now", "fails"),
    [
        pytest.param(5, 6, False, id="the restart itself counts as one"),
        pytest.param(5, 7, False, id="ended once in this start"),
        pytest.param(5, 8, True, id="ended twice in this start"),
    ],
)
def test_attempts_of_earlier_starts_do_not_count(
    tmp_path: pathlib.Path,
    before: int,
    now: int,
    fails: bool,
) -> None:
    run = fakes.make_context(tmp_path)
    write_pod_log(run, "kube-apiserver", before)
    run.attempts = {"kube-apiserver": gates.last_attempt(run.plan.paths, "kube-apiserver")}
    write_pod_log(run, "kube-apiserver", now)
    failed = False
    try:
        gates.raise_failure(run)
    except errors.ComponentFailedError:
        failed = True
    assert failed is fails


def test_an_end_for_want_of_a_healthy_apiserver_is_no_failure(tmp_path: pathlib.Path) -> None:
    run = fakes.make_context(tmp_path)
    name = "kube-controller-manager"
    run.attempts = {name: -1}
    waited = f'F E1130 14:38:30 1 run.go:72] "command failed" err="{gates.WAITED}: timed out"\n'
    for attempt in range(4):
        write_pod_log(run, name, attempt, f"2026-01-01T00:00:00Z stderr {waited}")
        gates.raise_failure(run)
    # Its own failures, from then on: they count as ever.
    for attempt in range(4, 8):
        write_pod_log(run, name, attempt, "2026-01-01T00:00:00Z stderr F unknown flag\n")
        gates.raise_failure(run)
    write_pod_log(run, name, 8, "2026-01-01T00:00:00Z stderr F unknown flag\n")
    with pytest.raises(errors.ComponentFailedError, match="it keeps ending") as caught:
        gates.raise_failure(run)
    assert caught.value.log_tail == ("unknown flag",)


def test_log_tail_of_a_process_is_its_last_lines(tmp_path: pathlib.Path) -> None:
    places = fakes.make_plan(tmp_path).paths
    places.logs.mkdir(parents=True)
    (places.logs / "etcd.log").write_text("".join(f"{number}\n" for number in range(30)))
    assert gates.log_tail(places, "etcd") == [str(number) for number in range(10, 30)]
    assert gates.log_tail(places, "kubelet") == []


def test_log_tail_of_a_static_pod_is_that_of_its_latest_attempt(tmp_path: pathlib.Path) -> None:
    run = fakes.make_context(tmp_path)
    write_pod_log(run, "kube-apiserver", 9, "2026-01-01T00:00:00Z stderr F old\n")
    write_pod_log(
        run,
        "kube-apiserver",
        10,
        "2026-01-01T00:00:01Z stderr F E0101 a line with  blanks\n"
        "2026-01-01T00:00:01Z stdout P another\n"
        "2026-01-01T00:00:01Z stdout F \n",
    )
    assert gates.log_tail(run.plan.paths, "kube-apiserver") == [
        "E0101 a line with  blanks",
        "another",
        "",
    ]
    assert gates.log_tail(run.plan.paths, "kube-scheduler") == []


# --- what users configure


def test_the_ends_of_a_system_pod_count_where_the_user_configures_it(
    tmp_path: pathlib.Path,
) -> None:
    assert gates.list_watched(make_context(tmp_path)) == probes.STATIC_PODS
    six = make_context(tmp_path, *fakes.IPV6_RANGES)
    assert gates.list_watched(six) == (*probes.STATIC_PODS, "resolver")
    run = make_context(tmp_path, "--extra-config=kube-proxy.x=1", Corefile=".:53 {}")
    assert gates.list_watched(run) == (*probes.STATIC_PODS, "kube-proxy", "coredns")
    gates.begin(run)
    for attempt in range(3):
        write_pod_log(run, "coredns", attempt, "t stderr F Corefile:1 - Error\n")
        if attempt < 2:
            gates.raise_failure(run)
    with pytest.raises(errors.ComponentFailedError) as caught:
        gates.raise_failure(run)
    assert str(caught.value) == "coredns failed: it keeps ending\n  | Corefile:1 - Error"


def test_a_pod_with_other_flags_is_counted_anew(tmp_path: pathlib.Path) -> None:
    """kubelet gives it another UID: its attempts begin at 0, and those of the old one stay."""
    run = make_context(tmp_path)
    # Ends of the old one that are no failure forgive the new one nothing.
    old = write_pod_log(run, "kube-apiserver", 9, f"t stderr F {gates.WAITED}\n", uid="old")
    os.utime(old, (1, 1))
    gates.begin(run)
    assert run.attempts["kube-apiserver"] == 9
    for attempt in range(2):
        write_pod_log(run, "kube-apiserver", attempt, uid="new")
        gates.raise_failure(run)
    write_pod_log(run, "kube-apiserver", 2, uid="new")
    with pytest.raises(errors.ComponentFailedError):
        gates.raise_failure(run)


@pytest.mark.parametrize(
    ("arguments", "before", "since", "fails"),
    [
        pytest.param(["--extra-config=kubelet.maxPod=9"], "", UNKNOWN, True, id="unknown"),
        pytest.param(["--extra-config=kubelet.maxPods=9"], "", "I1125 fine", False, id="known"),
        pytest.param(["--extra-config=kubelet.maxPods=9"], UNKNOWN, "x", False, id="mended"),
        pytest.param([], "", UNKNOWN, False, id="nothing of the user's"),
    ],
)
def test_a_field_that_kubelet_does_not_know(
    tmp_path: pathlib.Path, arguments: list[str], before: str, since: str, fails: bool
) -> None:
    run = make_context(tmp_path, *arguments)
    log = run.plan.paths.logs / "kubelet.log"
    log.write_text(f"{before}\n" if before else "")
    gates.begin(run)
    with log.open("a") as file:
        file.write(f"{since}\n")
    told = ""
    try:
        gates.refuse_unknown_fields(run)
    except errors.ComponentFailedError as error:
        told = str(error)
    assert ('unknown field \\"maxPod\\"' in told) is fails


def test_a_field_that_kube_proxy_does_not_know(tmp_path: pathlib.Path) -> None:
    run = make_context(tmp_path, "--extra-config=kube-proxy.maxPod=9")
    write_pod_log(run, "kube-proxy", 0, f"t stderr F {UNKNOWN}\n")
    with pytest.raises(errors.ComponentFailedError, match="unknown field"):
        gates.refuse_unknown_fields(run)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(["I1125 one", "two"], ["I1125 one", "two"], id="no usage"),
        pytest.param(
            ["flag provided but not defined: -x", "Usage:", "", "  etcd [flags]"] * 2,
            ["flag provided but not defined: -x"] * 2,
            id="etcd, twice",
        ),
        pytest.param(
            ["Usage:", "  kube-scheduler [flags]", "", "Misc flags:", "Error: unknown flag: --x"],
            ["Error: unknown flag: --x"],
            id="a component of Kubernetes",
        ),
        pytest.param(
            ["Usage:", "  --x", '{"level":"warn"}', "more"],
            ['{"level":"warn"}', "more"],
            id="another start after it",
        ),
    ],
)
def test_the_list_of_flags_is_left_out(lines: list[str], expected: list[str]) -> None:
    assert gates.without_usage(lines) == expected
