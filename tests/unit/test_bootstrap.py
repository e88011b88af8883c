"""The start: its steps, its gates, and what ends it."""

from __future__ import annotations

import collections.abc
import datetime
import os
import pathlib
import threading
import typing

import pytest
import yaml

from p8s_supervisor import (
    bootstrap,
    commands,
    content,
    context,
    errors,
    gates,
    health,
    kube,
    manifests,
    ports,
    probes,
    status,
)
from tests import fakes

# --- processes and images


def test_images_are_imported_in_order(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = fakes.make_plan(tmp_path).paths
    places.images.mkdir(parents=True)
    for name in ("b.tar", "a.tar", "notes.txt"):
        (places.images / name).touch()
    recorder = fakes.Commands({"ctr": ""})
    monkeypatch.setattr(commands, "run", recorder)
    bootstrap.import_images(places)
    assert [(words[1:3], words[-1]) for words, _ in recorder.calls] == [
        (
            [f"--address={places.containerd_socket}", "--namespace=k8s.io"],
            str(places.images / name),
        )
        for name in ("a.tar", "b.tar")
    ]


@pytest.mark.parametrize(
    ("fresh", "held"),
    [
        pytest.param(True, ["hold 7443"], id="a new cluster"),
        pytest.param(False, [], id="a restart"),
    ],
)
def test_processes_start_in_order_each_behind_its_gate(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, fresh: bool, held: list[str]
) -> None:
    run = fakes.make_context(tmp_path, "--api-port=7443")
    run.fresh = fresh
    placeholder = fakes.Placeholder(None)
    events: list[str] = []

    def note(*words: object) -> None:
        events.append(" ".join(map(str, words)))

    def hold(port: int) -> fakes.Placeholder:
        note("hold", port)
        return placeholder

    def populate(_: context.Context) -> bool:
        note("content")
        return True

    write = bootstrap.write_static_pods

    def give(run: context.Context, *names: str) -> None:
        note("pod", *names)
        write(run, *names)

    monkeypatch.setattr(run.supervisor, "start", lambda name: note("start", name))
    monkeypatch.setattr(ports, "Placeholder", hold)
    monkeypatch.setattr(probes, "unix_socket", lambda path: note("gate", path))
    monkeypatch.setattr(probes, "port", lambda address, port: note("gate", address, port))
    monkeypatch.setattr(bootstrap, "write_static_pods", give)
    monkeypatch.setattr(bootstrap, "import_images", lambda _: note("images"))
    monkeypatch.setattr(content, "populate", populate)
    bootstrap.start_processes(run, health.Monitor(run))
    assert events == [
        "start etcd",
        f"gate {run.plan.paths.containerd_socket}",
        *held,
        "pod kube-apiserver",
        "start kubelet",
        "images",
        "gate 127.0.0.1 2379",
        "content",
    ]
    assert run.placeholder is (placeholder if fresh else None)
    assert placeholder.calls == []
    assert run.populated
    assert run.attempts == dict.fromkeys(probes.STATIC_PODS, -1)
    assert [file.name for file in run.plan.paths.static_pods.iterdir()] == ["kube-apiserver.yaml"]


def test_controllers_are_given_to_kubelet_once_the_apiserver_answers(
    tmp_path: pathlib.Path,
) -> None:
    names = [step.name for step in bootstrap.STEPS]
    assert names.index("controllers") == names.index("apiserver") + 1
    run = fakes.make_context(tmp_path)
    bootstrap.start_controllers(run, health.Monitor(run))
    found = sorted(run.plan.paths.static_pods.iterdir())
    assert [file.name for file in found] == ["kube-controller-manager.yaml", "kube-scheduler.yaml"]


def test_static_pods_are_for_root_alone(tmp_path: pathlib.Path) -> None:
    run = fakes.make_context(tmp_path)
    bootstrap.write_static_pods(run, *probes.STATIC_PODS)
    found = sorted(run.plan.paths.static_pods.iterdir())
    assert {file.stat().st_mode & 0o777 for file in found} == {0o600}
    assert [yaml.safe_load(file.read_text())["metadata"]["name"] for file in found] == [
        file.stem for file in found
    ]
    assert [file.stem for file in found] == sorted(probes.STATIC_PODS)


def test_the_client_is_made_once(tmp_path: pathlib.Path) -> None:
    run = fakes.make_context(tmp_path)
    assert bootstrap.connect(run) is bootstrap.connect(run) is run.client


Apply = collections.abc.Callable[[kube.Object], None]
ApplyFirst = collections.abc.Callable[[Apply], list[kube.Object]]


@pytest.fixture
def apply_first(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> ApplyFirst:
    """Applies the system's manifests in a first start, in a given way; gives the manifests."""

    def run(apply: Apply) -> list[kube.Object]:
        client = fakes.KubeClient({})
        monkeypatch.setattr(client, "apply", apply)
        made = fakes.make_context(tmp_path, client=client)
        made.fresh = True
        bootstrap.apply_manifests(made, health.Monitor(made))
        return manifests.system(manifests.values(made.plan))

    return run


def test_system_manifests_are_applied_in_order(apply_first: ApplyFirst) -> None:
    applied: list[kube.Object] = []
    assert apply_first(applied.append) == applied


def test_an_answer_that_takes_too_long_is_asked_for_again(apply_first: ApplyFirst) -> None:
    answers = iter([errors.KubeError("The read operation timed out", status=0)])
    applied: list[kube.Object] = []

    def apply(manifest: kube.Object) -> None:
        applied.append(manifest)
        for error in answers:
            raise error

    objects = apply_first(apply)
    assert applied == [objects[0], *objects]


def test_an_answer_that_says_no_ends_a_first_start(apply_first: ApplyFirst) -> None:
    def refuse(_: kube.Object) -> None:
        raise errors.KubeError("ConfigMap coredns: is forbidden", status=403)

    with pytest.raises(errors.KubeError, match="is forbidden"):
        apply_first(refuse)


# --- failures


def make_static_pod_log(run: context.Context, name: str, attempt: int, text: str = "") -> None:
    directory = run.plan.paths.pod_logs / f"kube-system_{name}-p8s_0123" / name
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"{attempt}.log"
    file.write_text(text)
    os.utime(file, (1000 + attempt, 1000 + attempt))


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
            make_static_pod_log(run, name, number, text)
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
    make_static_pod_log(run, "kube-apiserver", before)
    run.attempts = {"kube-apiserver": gates.last_attempt(run.plan.paths, "kube-apiserver")}
    make_static_pod_log(run, "kube-apiserver", now)
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
        make_static_pod_log(run, name, attempt, f"2026-01-01T00:00:00Z stderr {waited}")
        gates.raise_failure(run)
    # Its own failures, from then on: they count as ever.
    for attempt in range(4, 8):
        make_static_pod_log(run, name, attempt, "2026-01-01T00:00:00Z stderr F unknown flag\n")
        gates.raise_failure(run)
    make_static_pod_log(run, name, 8, "2026-01-01T00:00:00Z stderr F unknown flag\n")
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
    make_static_pod_log(run, "kube-apiserver", 9, "2026-01-01T00:00:00Z stderr F old\n")
    make_static_pod_log(
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


# --- gates


@pytest.mark.parametrize(
    ("timeline", "reason"),
    [
        pytest.param(130.0, "readiness: not within 0 s; last reason: node: no CNI", id="too late"),
        pytest.param(
            119.9, "readiness: not within 0.1 s; last reason: node: no CNI", id="nearly too late"
        ),
    ],
)
def test_the_deadline_counts_from_the_start_of_the_container(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    timeline: float,
    reason: str,
) -> None:
    run = fakes.make_context(tmp_path, clock=fakes.Clock(timeline))
    run.plan.paths.logs.mkdir(parents=True)
    (run.plan.paths.logs / "kubelet.log").write_text("a line of kubelet\n")
    monitor = health.Monitor(run)
    monkeypatch.setattr(monitor, "look", lambda: {"node": "no CNI"})
    with pytest.raises(errors.ComponentFailedError) as caught:
        bootstrap.await_ready(run, monitor)
    assert str(caught.value) == f"kubelet failed: {reason}\n  | a line of kubelet"


def test_a_gate_ends_at_once_when_a_component_has_failed_for_good(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = fakes.Supervisor([fakes.stopped("etcd", state="FATAL", reason="no disk")])
    run = fakes.make_context(tmp_path, supervisor=supervisor)
    monitor = health.Monitor(run)
    monkeypatch.setattr(monitor, "look", lambda: {"node": "no CNI"})
    with pytest.raises(errors.ComponentFailedError, match="etcd failed: no disk"):
        bootstrap.await_ready(run, monitor)


def test_a_stop_ends_a_gate(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fakes.make_context(tmp_path)
    run.request_stop("SIGTERM")
    monitor = health.Monitor(run)
    monkeypatch.setattr(monitor, "look", lambda: {"node": "no CNI"})
    with pytest.raises(errors.CancelledError):
        bootstrap.await_ready(run, monitor)


# --- kubelet is asked to look


def watch(
    run: context.Context, monkeypatch: pytest.MonkeyPatch, looks: list[tuple[float, dict[str, str]]]
) -> None:
    """Wait for readiness: at each moment of the timeline this is missing, and then nothing."""
    clock, monitor, left = fakes.Clock(), health.Monitor(run), iter(looks)

    def look() -> dict[str, str]:
        clock.now, missing = next(left, (clock.now, {}))
        return missing

    monkeypatch.setattr(run.timeline, "now", clock)
    monkeypatch.setattr(monitor, "look", look)
    bootstrap.await_ready(run, monitor)


def test_a_pod_that_is_missing_is_looked_at_soon_and_not_too_often(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pods = "PATCH /api/v1/namespaces/kube-system/pods"
    one, two = f"{pods}/coredns-1", f"{pods}/coredns-2"
    gone = errors.KubeError("not found", status=404)
    client = fakes.KubeClient({one: ["{}"], two: [gone]})
    run = fakes.make_context(tmp_path, client=client)
    both = {"pod/coredns-1": "waits", "pod/coredns-2": "waits"}
    looks = [
        (3.0, both | {"apiserver": "not ready", "node": "not ready"}),
        (3.1, both | {"setup": "not done"}),
        (4.0, {"pod/coredns-1": "waits", "node": "not ready"}),
        (4.1, both),
        (4.15, both),
        (4.25, both),
        (4.35, {"node": "not ready", "dns": "no answer"}),
    ]
    watch(run, monkeypatch, looks)
    # 4.0; 4.1; one again after 0.25 s, two not yet after 0.15 s.
    assert client.asked == [one, two, one]
    for request in client.requests:
        assert request.content_type == "application/merge-patch+json"
        assert request.body is not None
        moment = request.body["metadata"]["annotations"].pop("p8s/awaited")
        assert request.body == {"metadata": {"annotations": {}}}
        assert datetime.datetime.fromisoformat(moment).tzinfo is not None


# --- the whole start


def test_the_steps_are_these() -> None:
    assert [step.name for step in bootstrap.STEPS] == [
        "setup",
        "processes",
        "apiserver",
        "controllers",
        "manifests",
        "readiness",
    ]


def make_steps(
    done: list[str], failing: dict[str, Exception] | None = None
) -> tuple[bootstrap.Step, ...]:
    """Three steps that record that they ran."""

    def make_run(name: str) -> collections.abc.Callable[[context.Context, health.Monitor], None]:
        def run(_: context.Context, __: health.Monitor) -> None:
            done.append(name)
            if failing and name in failing:
                raise failing[name]

        return run

    return tuple(bootstrap.Step(name, make_run(name)) for name in ("one", "two", "three"))


def test_start_goes_through_the_steps_and_tells_of_each(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    story: list[str] = []
    run = fakes.make_context(tmp_path, story=story)
    monkeypatch.setattr(bootstrap, "STEPS", make_steps(done))
    bootstrap.start(run, health.Monitor(run))
    assert done == ["one", "two", "three"]
    assert story == [f"{name}: done in 0.00 s" for name in done]
    assert [phase.name for phase in run.timeline.phases()] == done


NO_DISK = errors.ComponentFailedError("etcd", "no disk")


@pytest.mark.parametrize(
    ("failing", "done", "failure", "stopped", "state", "ready"),
    [
        pytest.param(
            {}, ["one", "two", "three"], None, "", status.State.READY, ["ready"], id="it works"
        ),
        pytest.param(
            {"two": NO_DISK},
            ["one", "two"],
            NO_DISK,
            "the start failed",
            status.State.STARTING,
            [],
            id="a step fails",
        ),
        pytest.param(
            {"one": errors.CancelledError("given up")},
            ["one"],
            None,
            "",
            status.State.STARTING,
            [],
            id="a stop came first",
        ),
    ],
)
def test_the_start_in_the_background(
    *,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: dict[str, Exception],
    done: list[str],
    failure: Exception | None,
    stopped: str,
    state: status.State,
    ready: list[str],
) -> None:
    ran: list[str] = []
    told: list[str] = []
    run = fakes.make_context(tmp_path)
    monkeypatch.setattr(bootstrap, "STEPS", make_steps(ran, failing))
    thread = bootstrap.start_in_background(
        run, health.Monitor(run), on_ready=lambda: told.append("ready")
    )
    thread.join(timeout=10)
    assert isinstance(thread, threading.Thread)
    assert not thread.is_alive()
    assert (ran, run.failure, run.stop_reason, run.state) == (done, failure, stopped, state)
    assert run.stop.is_set() is bool(stopped)
    assert told == ready
