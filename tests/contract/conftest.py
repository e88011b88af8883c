"""The HTTP API as the sidecar serves it, behind a real waitress."""

from __future__ import annotations

import dataclasses
import pathlib
import threading
import typing

import pytest
import waitress

from p8s_supervisor import health, ports, sidecar
from tests import fakes
from tests.contract import served


@pytest.fixture
def serve(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> typing.Iterator[served.Serve]:
    """Starts the API on a free port of loopback, and ends it after the test.

    It takes callers at `gateway` for the host.
    """
    servers: list[typing.Any] = []
    create_server = waitress.create_server

    def record(*arguments: object, **options: object) -> object:
        servers.append(create_server(*arguments, **options))
        return servers[-1]

    monkeypatch.setattr(waitress, "create_server", record)
    # What is sent to loopback comes back from there, as it does from no gateway of docker's.
    monkeypatch.setattr(ports, "is_passed_on", lambda *_, **__: False)

    def start(*arguments: str, gateway: str = "127.0.0.1") -> served.Served:
        run = fakes.make_context(
            tmp_path, "--http-address=127.0.0.1", f"--http-port={fakes.free_port()}", *arguments
        )
        facts = dataclasses.replace(run.plan.facts, gateway=gateway)
        run.plan = dataclasses.replace(run.plan, facts=facts)
        missing: dict[str, str] = {}
        monitor = health.Monitor(run)
        monkeypatch.setattr(monitor, "missing", lambda: missing)
        sidecar.serve(run, monitor)
        assert run.failure is None
        return served.Served(run, missing)

    yield start
    for server in servers:
        server.trigger.pull_trigger(server.close)
    for thread in threading.enumerate():
        if thread.name == "http":
            thread.join(timeout=10)
    for server in servers:
        server.task_dispatcher.shutdown()
