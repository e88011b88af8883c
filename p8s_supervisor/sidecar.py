"""The sidecar's composition root: wires the objects, serves HTTP, waits for the stop."""

from __future__ import annotations

import json
import secrets
import signal
import socket
import sys
import threading
import time
import typing

from p8s_supervisor import (
    bootstrap,
    completion,
    components,
    context,
    errors,
    events,
    files,
    health,
    logs,
    node,
    paths,
    ports,
    processes,
    ranges,
    settings,
    shutdown,
    status,
)

if typing.TYPE_CHECKING:
    from p8s_supervisor import api  # at run time late: Flask takes a while


def main() -> int:
    """Start the cluster, serve until something asks for the stop, stop it.

    Returns:
        Always 0: the container's exit code goes through a file, which PID 1 reads.
    """
    run = make_context()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _: run.request_stop(signal.Signals(got).name))
    monitor = health.Monitor(run)
    if go_on_stopping(run):
        finish(run, monitor)
        return errors.ExitCode.STOPPED
    done = "is found running" if run.resumed else "starts"
    run.tell(
        f"Kubernetes {run.versions['kubernetes']} {done} in {run.plan.settings.node_name} at "
        f"{run.plan.node_addresses[0]} (cgroup v{run.plan.facts.cgroup_version})"
    )
    starting = bootstrap.start_in_background(
        run, monitor, on_ready=lambda: begin_service(run, monitor)
    )
    serve(run, monitor)
    watch(run, monitor)
    starting.join(timeout=10)
    finish(run, monitor)
    return errors.ExitCode.STOPPED


def go_on_stopping(run: context.Context) -> bool:
    """Whether an earlier sidecar of this container had begun the stop; it is asked for again."""
    stopping = run.plan.paths.stopping
    if stopping.exists():
        run.tell("the sidecar ended during the stop: the stop goes on")
        if run.resumed:
            bootstrap.connect(run)  # for the drain
        run.request_stop(stopping.read_text())
    return run.stop.is_set()


def read_token(places: paths.Paths) -> str:
    """The token that an earlier sidecar of this container made; empty where there was none."""
    return places.token.read_text().strip() if places.token.exists() else ""


def make_context() -> context.Context:
    """Wire everything that the flows need."""
    places = paths.Paths()
    facts = node.find_facts()
    given = settings.from_json(places.settings.read_text())
    loaded = ranges.choose(given, facts.networks, places.cluster_record)
    files_given = json.loads(places.given_files.read_text())
    journal = events.Journal()
    timeline = status.Timeline(origin=status.container_start(), listener=journal.record)
    story = logs.Story(places.logs / "sidecar.log")
    token = loaded.settings.api_token or read_token(places) or secrets.token_urlsafe(32)
    files.write(places.token, token + "\n", mode=0o600)

    def tell(line: str) -> None:
        told = f"p8s [{timeline.now():8.2f}s] {line}"
        print(told, flush=True)
        story.add(told)

    return context.Context(
        plan=components.Plan(loaded.settings, facts, places, files_given),
        loaded=loaded,
        supervisor=processes.Supervisord(places.supervisor_socket),
        timeline=timeline,
        versions=json.loads(places.versions.read_text()),
        tell=tell,
        token=token,
        journal=journal,
        resumed=places.ready.exists(),
    )


def serve(run: context.Context, monitor: health.Monitor) -> None:
    """Serve the HTTP API from threads of its own; a port that is taken ends the start."""
    from p8s_supervisor import access, api, routes, server  # late: the start is under way meanwhile

    chosen = run.plan.settings
    names = {"localhost", "127.0.0.1", "::1", chosen.node_name, socket.gethostname()}
    names |= set(run.plan.node_addresses)
    rules = access.Access(
        names=frozenset(names | set(chosen.extra_sans)),
        # Not the node's own addresses: from there kube-apiserver's proxy, port-forwards, probes and
        # pods on the node's network call on behalf of others.
        trusted=frozenset(filter(None, [find_host(run)])),
        token=run.token,
        token_required=bool(chosen.api_token),
    )
    app = api.create_app(make_api(run, monitor), rules, routes.ROUTES)
    try:
        serving = server.create(app, rules, address=chosen.http_address, port=chosen.http_port)
    except OSError as error:
        where = f"{chosen.http_address}:{chosen.http_port}"
        run.fail(errors.P8sError(f"the HTTP API cannot listen on {where}: {error.strerror}"))
        return
    threading.Thread(target=serving.run, name="http", daemon=True).start()


def find_host(run: context.Context) -> str | None:
    """The address by which the host alone arrives; None where others arrive by it too."""
    chosen, gateway = run.plan.settings, run.plan.facts.gateway
    address, port = chosen.http_address, chosen.http_port
    if gateway is None or not ports.is_passed_on(gateway, address=address, port=port):
        return gateway
    if not chosen.api_token:
        run.tell(
            f"port {port} is published beyond 127.0.0.1: the HTTP API wants a token of everybody. "
            "Publish it at 127.0.0.1, or set P8S_API_TOKEN"
        )
    return None


def make_api(run: context.Context, monitor: health.Monitor) -> api.Api:
    """What the routes call.

    What is asked for after the start is imported when it is asked for: the start is under way.
    """
    from p8s_supervisor import api, report

    return api.Api(
        missing=monitor.missing,
        status=lambda: report.describe(run, monitor),
        metrics=lambda: report.metrics(run, monitor),
        settings=run.loaded.describe,
        kubeconfig=lambda host: make_kubeconfig(run, host),
        add_user=lambda wanted: add_user(run, wanted),
        apply=lambda: apply(run, monitor),
        reset=lambda namespace: reset_namespace(run, namespace),
        events=lambda after, seconds: run.journal.read(after, seconds=seconds),
        list_logs=lambda: logs.list_components(run),
        read_log=lambda component, follow, tail: logs.read(
            run, component, follow=follow, tail=tail
        ),
        list_images=lambda: list_images(run),
        load_images=lambda stream: load_images(run, stream),
        list_add_ons=lambda: list_add_ons(run),
        enable_add_on=lambda name: switch_add_on(run, monitor, name, on=True),
        disable_add_on=lambda name: switch_add_on(run, monitor, name, on=False),
        bundle=lambda target: write_bundle(run, monitor, target),
        stop=run.request_stop,
    )


def make_kubeconfig(run: context.Context, host: str | None) -> str:
    """See `users.kubeconfig_for`."""
    from p8s_supervisor import users

    return users.kubeconfig_for(run, host)


def add_user(run: context.Context, wanted: dict[str, typing.Any]) -> str:
    """A kubeconfig for a user, from what POST /users was sent.

    Raises:
        RequestError: 400, something in it is wrong.
    """
    from p8s_supervisor import parsers, users

    try:
        ttl = parsers.parse_duration(wanted["ttl"])
    except ValueError as error:
        raise errors.RequestError(f"ttl: {error}", status=400) from error
    return users.make(
        run, name=wanted["name"], groups=tuple(wanted["groups"]), ttl=ttl, kind=wanted["kind"]
    )


def apply(run: context.Context, monitor: health.Monitor) -> list[str]:
    """See `reset.apply`; what is refused is tried again later."""
    from p8s_supervisor import reset

    try:
        return reset.apply(run)
    finally:
        if run.refused and run.state == status.State.READY:
            completion.start(run, monitor)


def reset_namespace(run: context.Context, namespace: str) -> list[str]:
    """See `reset.reset`."""
    from p8s_supervisor import reset

    return reset.reset(run, namespace)


def list_images(run: context.Context) -> dict[str, typing.Any]:
    """See `images.list_images`."""
    from p8s_supervisor import images

    return images.list_images(run)


def load_images(run: context.Context, stream: typing.IO[bytes]) -> list[str]:
    """See `images.load`."""
    from p8s_supervisor import images

    return images.load(run, stream)


def list_add_ons(run: context.Context) -> list[dict[str, typing.Any]]:
    """See `add_on_switches.describe`."""
    from p8s_supervisor import add_on_switches, kube

    with kube.limited(kube.ASK_SECONDS):
        return add_on_switches.describe(run)


def switch_add_on(
    run: context.Context, monitor: health.Monitor, name: str, *, on: bool
) -> list[str]:
    """See `add_on_switches.enable` and `disable`; what is refused is tried again later."""
    from p8s_supervisor import add_on_switches

    try:
        return (add_on_switches.enable if on else add_on_switches.disable)(run, name)
    finally:
        if run.refused and run.state == status.State.READY:
            completion.start(run, monitor)


def write_bundle(run: context.Context, monitor: health.Monitor, target: typing.BinaryIO) -> None:
    """See `bundle.write`."""
    from p8s_supervisor import bundle

    bundle.write(run, monitor, target)


def begin_service(run: context.Context, monitor: health.Monitor) -> None:
    """What comes once the system runs; "ready" is said when nothing is missing."""
    if run.resumed:
        tell_resumed(run, monitor)
        completion.start(run, monitor)
    else:
        completion.start(run, monitor, on_complete=lambda: tell_ready(run))
    monitor.note_restarts()  # what runs now is what a restart is seen by
    # late: nothing of it may slow the start
    from p8s_supervisor import add_ons, etcd_upkeep, keeper, renewal, trust_maps, watcher

    add_ons.start(run, monitor)

    watcher.start(run)
    renewal.start(run)
    keeper.start(run, monitor)
    etcd_upkeep.start(run)
    trust_maps.start(run)


def tell_resumed(run: context.Context, monitor: health.Monitor) -> None:
    """That the sidecar is back, and how it finds the cluster."""
    missing = {name: why for name, why in monitor.look().items() if name not in run.refused}
    found = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
    run.tell(f"the sidecar was started again; the cluster goes on, {found or 'ready'}")


def tell_ready(run: context.Context) -> None:
    """The line that people wait for, and the file that Docker's health check waits for."""
    files.write(run.plan.paths.ready, "")
    run.journal.record("ready", "the cluster is ready", seconds=round(run.timeline.now(), 3))
    port = run.plan.settings.http_port
    run.tell(f"ready: Kubernetes {run.versions['kubernetes']} at {run.plan.settings.host_server}")
    run.tell(f"  curl -s http://127.0.0.1:{port}/kubeconfig > p8s.kubeconfig")
    run.tell("  kubectl --kubeconfig p8s.kubeconfig get pods -A")


def watch(run: context.Context, monitor: health.Monitor) -> None:
    """Until the stop: the run timeout, and a line now and then on how things are."""
    chosen = run.plan.settings
    end = chosen.run_timeout or float("inf")
    interval = chosen.status_interval or float("inf")
    next_line = time.monotonic() + interval
    while not run.stop.wait(
        min(end - run.timeline.now(), next_line - time.monotonic(), threading.TIMEOUT_MAX)
    ):
        if run.timeline.now() >= end:
            run.request_stop(f"the run timeout of {end:g} s")
        if time.monotonic() >= next_line:
            next_line += interval
            from p8s_supervisor import report

            run.tell(report.line(run, monitor))


def finish(run: context.Context, monitor: health.Monitor) -> None:
    """Stop everything, keep the exit code, and let supervisord go."""
    files.write_once(run.plan.paths.stopping, run.stop_reason)
    if run.failure is not None:
        from p8s_supervisor import bundle

        code = shutdown.tell_failure(run, run.failure)
        files.write_once(run.plan.paths.exit_code, f"{code:d}")
        bundle.write_on_failure(run, monitor)
    run.tell(f"stop: {run.stop_reason}")
    for standing in list(run.add_ons.values()):
        standing.ended.set()
    for trouble in shutdown.stop(run):
        run.tell(trouble)
    run.tell("stopped")
    run.supervisor.shutdown()


def _main() -> typing.NoReturn:
    sys.exit(main())


if __name__ == "__main__":
    _main()
