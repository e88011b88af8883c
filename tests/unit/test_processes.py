"""Which of supervisord's refusals are no trouble; the contract tests have a real one."""

from __future__ import annotations

import pathlib
import time
import types
import typing
import xmlrpc.client

import pytest

from p8s_supervisor import processes


class Rpc:
    """supervisord's XML-RPC interface: each call is recorded, then refused or answered."""

    def __init__(self, *, fault: int | None = None, answer: object = None) -> None:
        self.calls: list[tuple[object, ...]] = []
        self._fault, self._answer = fault, answer

    def __getattr__(self, method: str) -> typing.Callable[..., object]:
        def call(*arguments: object) -> object:
            self.calls.append((method, *arguments))
            if self._fault is not None:
                raise xmlrpc.client.Fault(self._fault, "REFUSED")
            return self._answer

        return call


def connect(rpc: Rpc) -> processes.Supervisord:
    supervisor = processes.Supervisord(pathlib.Path("/nonexistent"))
    supervisor._local.rpc = types.SimpleNamespace(supervisor=rpc)
    return supervisor


@pytest.mark.parametrize(
    ("method", "arguments", "fault", "raised"),
    [
        pytest.param("start", ["etcd"], None, None, id="start"),
        pytest.param("start", ["etcd"], 60, None, id="start: it runs already"),
        # Whether supervisord sees the end of a program that fails at once before it answers is
        # chance. It is tried again all the same, and its state tells the reason.
        pytest.param("start", ["etcd"], 50, None, id="start: it has ended at once"),
        pytest.param("start", ["etcd"], 10, 10, id="start: an unknown name"),
        pytest.param("start", ["etcd"], 20, 20, id="start: no such program"),
        pytest.param("start", ["etcd"], 6, 6, id="start: supervisord is going"),
        pytest.param("stop", ["etcd"], None, None, id="stop"),
        pytest.param("stop", ["etcd"], 70, None, id="stop: it does not run"),
        pytest.param("stop", ["etcd"], 10, 10, id="stop: an unknown name"),
        pytest.param("shutdown", [], None, None, id="shutdown"),
        pytest.param("shutdown", [], 6, None, id="shutdown: supervisord is going already"),
        pytest.param("shutdown", [], 1, 1, id="shutdown: an unknown method"),
    ],
)
def test_faults(method: str, arguments: list[str], fault: int | None, raised: int | None) -> None:
    rpc = Rpc(fault=fault)
    found = None
    try:
        getattr(connect(rpc), method)(*arguments)
    except xmlrpc.client.Fault as error:
        found = error.faultCode
    assert found == raised
    assert len(rpc.calls) == 1


def test_start_does_not_wait_and_stop_does() -> None:
    rpc = Rpc()
    supervisor = connect(rpc)
    supervisor.start("etcd")
    supervisor.stop("etcd")
    assert rpc.calls == [("startProcess", "etcd", False), ("stopProcess", "etcd", True)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"statename": "RUNNING", "pid": 7, "start": 90, "description": "pid 7, uptime 0:00:10"},
            processes.Process("etcd", "RUNNING", 7, 10.0, ""),
            id="running",
        ),
        pytest.param(
            {"statename": "STARTING", "pid": 7, "start": 101},
            processes.Process("etcd", "STARTING", 7, 0.0, ""),
            id="started by a clock that is ahead",
        ),
        pytest.param(
            {"statename": "STOPPED", "start": 90, "description": "Not started"},
            processes.Process("etcd", "STOPPED", 0, 0.0, "Not started"),
            id="stopped",
        ),
        pytest.param(
            {"statename": "FATAL", "spawnerr": "Exited too quickly", "description": "x"},
            processes.Process("etcd", "FATAL", 0, 0.0, "Exited too quickly"),
            id="given up",
        ),
    ],
)
def test_what_is_listed(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], expected: processes.Process
) -> None:
    info = {"name": "etcd", "pid": 0, "start": 0, "spawnerr": "", "description": ""} | changes
    monkeypatch.setattr(time, "time", lambda: 100.0)
    assert connect(Rpc(answer=[info])).list_processes() == [expected]
