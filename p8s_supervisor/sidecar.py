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
    components,
    context,
    errors,
    files,
    health,
    kubeconfig,
    node,
    paths,
    processes,
    settings,
    shutdown,
    status,
)


def main() -> int:
    """Start the cluster, serve until something asks for the stop, stop it.

    Returns:
        Always 0: the container's exit code goes through a file, which PID 1 reads.
    """
    run = make_context()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _: run.request_stop(signal.Signals(got).name))
    monitor = health.Monitor(run)
    run.tell(
        f"Kubernetes {run.versions['kubernetes']} starts in {run.plan.settings.node_name} at "
        f"{run.plan.facts.address} (cgroup v{run.plan.facts.cgroup_version})"
    )
    starting = bootstrap.start_in_background(run, monitor, on_ready=lambda: tell_ready(run))
    serve(run, monitor)
    watch(run, monitor)
    starting.join(timeout=10)
    finish(run)
    return errors.ExitCode.STOPPED


def make_context() -> context.Context:
    """Wire everything that the flows need."""
    places = paths.Paths()
    loaded = settings.from_json(places.settings.read_text())
    timeline = status.Timeline(origin=status.container_start())
    token = loaded.settings.api_token or secrets.token_urlsafe(32)
    files.write(places.token, token + "\n", mode=0o600)

    def tell(line: str) -> None:
        print(f"p8s [{timeline.now():8.2f}s] {line}", flush=True)

    return context.Context(
        plan=components.Plan(loaded.settings, node.find_facts(), places),
        loaded=loaded,
        supervisor=processes.Supervisord(places.supervisor_socket),
        timeline=timeline,
        versions=json.loads(places.versions.read_text()),
        tell=tell,
        token=token,
    )


def serve(run: context.Context, monitor: health.Monitor) -> None:
    """Serve the HTTP API from threads of its own; a port that is taken ends the start."""
    import waitress  # late: the start is under way meanwhile

    from p8s_supervisor import api, report

    chosen = run.plan.settings
    access = api.Access(
        names=frozenset(
            {
                "localhost",
                "127.0.0.1",
                "::1",
                run.plan.facts.address,
                chosen.node_name,
                socket.gethostname(),
                *chosen.extra_sans,
            }
        ),
        trusted=frozenset(
            {"127.0.0.1", "::1", run.plan.facts.address, run.plan.facts.gateway or "127.0.0.1"}
        ),
        token=run.token,
        token_required=bool(chosen.api_token),
    )
    app = api.create_app(
        api.Api(
            missing=monitor.missing,
            status=lambda: report.describe(run, monitor),
            metrics=lambda: report.metrics(run, monitor),
            kubeconfig=lambda: host_kubeconfig(run),
            stop=run.request_stop,
        ),
        access,
    )
    try:
        server = waitress.create_server(
            app,
            host=chosen.http_address,
            port=chosen.http_port,
            threads=8,
            connection_limit=200,
            channel_timeout=30,
            # How often an idle server looks for channels that have timed out.
            asyncore_loop_timeout=10,
            max_request_header_size=32 * 1024,
            max_request_body_size=64 * 1024,
            ident=None,
        )
    except OSError as error:
        where = f"{chosen.http_address}:{chosen.http_port}"
        run.fail(errors.P8sError(f"the HTTP API cannot listen on {where}: {error.strerror}"))
        return
    threading.Thread(target=server.run, name="http", daemon=True).start()


def host_kubeconfig(run: context.Context) -> str | None:
    """The administrator's kubeconfig for the host; None before the PKI is there."""
    if run.admin is None:
        return None
    ca, certificate, key = run.admin
    return kubeconfig.render(
        server=run.plan.settings.host_server,
        user="p8s",
        ca_pem=ca,
        certificate_pem=certificate,
        key_pem=key,
    )


def tell_ready(run: context.Context) -> None:
    """The line that people wait for, and the file that Docker's health check waits for."""
    files.write(run.plan.paths.ready, "")
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


def finish(run: context.Context) -> None:
    """Stop everything, keep the exit code, and let supervisord go."""
    if run.failure is not None:
        code = shutdown.tell_failure(run, run.failure)
        files.write_once(run.plan.paths.exit_code, f"{code:d}")
    run.tell(f"stop: {run.stop_reason}")
    for trouble in shutdown.stop(run):
        run.tell(trouble)
    run.tell("stopped")
    run.supervisor.shutdown()


def _main() -> typing.NoReturn:
    sys.exit(main())


if __name__ == "__main__":
    _main()
