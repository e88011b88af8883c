"""Gates for what users configure: whose ends count, and fields that a component does not know."""

from __future__ import annotations

import dataclasses
import os
import pathlib

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


def write_pod_log(run: context.Context, name: str, uid: str, attempt: int, text: str = "x") -> None:
    file = run.plan.paths.pod_logs / f"kube-system_{name}-p8s_{uid}" / name / f"{attempt}.log"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_the_ends_of_a_system_pod_count_where_the_user_configures_it(
    tmp_path: pathlib.Path,
) -> None:
    assert gates.list_watched(make_context(tmp_path)) == probes.STATIC_PODS
    run = make_context(tmp_path, "--extra-config=kube-proxy.x=1", Corefile=".:53 {}")
    assert gates.list_watched(run) == (*probes.STATIC_PODS, "kube-proxy", "coredns")
    gates.begin(run)
    for attempt in range(3):
        write_pod_log(run, "coredns", "1", attempt, "t stderr F Corefile:1 - Error\n")
        if attempt < 2:
            gates.raise_failure(run)
    with pytest.raises(errors.ComponentFailedError) as caught:
        gates.raise_failure(run)
    assert str(caught.value) == "coredns failed: it keeps ending\n  | Corefile:1 - Error"


def test_a_pod_with_other_flags_is_counted_anew(tmp_path: pathlib.Path) -> None:
    """kubelet gives it another UID: its attempts begin at 0, and those of the old one stay."""
    run = make_context(tmp_path)
    # Ends of the old one that are no failure forgive the new one nothing.
    write_pod_log(run, "kube-apiserver", "old", 9, f"t stderr F {gates.WAITED}\n")
    old = run.plan.paths.pod_logs / "kube-system_kube-apiserver-p8s_old/kube-apiserver/9.log"
    os.utime(old, (1, 1))
    gates.begin(run)
    assert run.attempts["kube-apiserver"] == 9
    for attempt in range(2):
        write_pod_log(run, "kube-apiserver", "new", attempt)
        gates.raise_failure(run)
    write_pod_log(run, "kube-apiserver", "new", 2)
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
    write_pod_log(run, "kube-proxy", "1", 0, f"t stderr F {UNKNOWN}\n")
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
