"""The start: its steps, its gates, and what ends it."""

from __future__ import annotations

import collections.abc
import datetime
import pathlib
import threading

import pytest
import yaml

from p8s_supervisor import (
    bootstrap,
    commands,
    content,
    context,
    errors,
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


@pytest.mark.parametrize(
    ("arguments", "more"),
    [
        pytest.param((), [], id="usual"),
        pytest.param(fakes.IPV6_RANGES, ["resolver"], id="IPv6"),
    ],
)
def test_controllers_are_given_to_kubelet_once_the_apiserver_answers(
    tmp_path: pathlib.Path, arguments: tuple[str, ...], more: list[str]
) -> None:
    names = [step.name for step in bootstrap.STEPS]
    assert names.index("controllers") == names.index("apiserver") + 1
    run = fakes.make_context(tmp_path, *arguments)
    bootstrap.start_controllers(run, health.Monitor(run))
    found = sorted(file.stem for file in run.plan.paths.static_pods.iterdir())
    assert found == ["kube-controller-manager", "kube-scheduler", *more]


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
