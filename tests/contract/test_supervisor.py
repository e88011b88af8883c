"""What the flows expect of a process supervisor: the same of the fake and of a real supervisord."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import pathlib
import socket
import subprocess
import sys
import threading
import typing
import xmlrpc.client

import pytest

from p8s_supervisor import probes, processes, wait
from tests import fakes

CONFIGURATION = """\
[supervisord]
nodaemon=true
silent=true
logfile={root}/supervisord.log
pidfile={root}/supervisord.pid

[unix_http_server]
file={root}/supervisor.sock
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[program:steady]
command=/bin/sh -c "exec sleep 300"
autostart=false
startsecs=0

[program:hopeless]
command=/bin/sh -c "sleep 0.2; exit 3"
autostart=false
startsecs=1
startretries=0

[program:stubborn]
command=/bin/sh -c "sleep 0.2; exit 3"
autostart=false
startsecs=1
startretries=100

[program:missing]
command=/nonexistent/program
autostart=false
"""
TOO_QUICK = "Exited too quickly (process log may have details)"


@dataclasses.dataclass(frozen=True)
class Case:
    """A supervisor under test.

    Attributes:
        supervisor: the fake, or the client of a real one.
        ended: whether the supervisor itself has ended.
    """

    supervisor: processes.Supervisor
    ended: collections.abc.Callable[[], bool]

    def find(self, name: str) -> processes.Process:
        (found,) = (process for process in self.supervisor.list_processes() if process.name == name)
        return found

    def await_state(self, name: str, *states: str) -> processes.Process:
        """Wait until a process is in one of these states."""

        def look() -> str | None:
            state = self.find(name).state
            return None if state in states else f"it is {state}"

        wait.until(look, awaited=f"{name} {' or '.join(states)}", seconds=30)
        return self.find(name)


@contextlib.contextmanager
def run_fake() -> collections.abc.Iterator[Case]:
    fake = fakes.Supervisor(
        [fakes.stopped(name) for name in ("steady", "hopeless", "stubborn", "missing")],
        after={
            ("start", "steady"): fakes.running("steady"),
            ("stop", "steady"): fakes.stopped("steady", reason="Nov 24 11:52 PM"),
            ("start", "hopeless"): fakes.stopped("hopeless", state="FATAL", reason=TOO_QUICK),
            ("start", "stubborn"): fakes.stopped("stubborn", state="BACKOFF", reason=TOO_QUICK),
            ("stop", "stubborn"): fakes.stopped("stubborn", reason=TOO_QUICK),
        },
        failures={
            ("start", "missing"): xmlrpc.client.Fault(20, "NO_FILE: /nonexistent/program"),
            ("start", "nobody"): xmlrpc.client.Fault(10, "BAD_NAME: nobody"),
        },
    )
    yield Case(fake, lambda: ("shutdown", "") in fake.calls)


@contextlib.contextmanager
def run_supervisord(root: pathlib.Path) -> collections.abc.Iterator[Case]:
    configuration = root / "supervisord.conf"
    configuration.write_text(CONFIGURATION.format(root=root))
    daemon = subprocess.Popen(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    path = root / "supervisor.sock"
    supervisor = processes.Supervisord(path)

    def look() -> str | None:
        assert daemon.poll() is None, (root / "supervisord.log").read_text()
        return probes.unix_socket(str(path))

    def ended() -> bool:
        daemon.wait(timeout=30)
        return True

    try:
        wait.until(look, awaited="supervisord", seconds=30)
        yield Case(supervisor, ended)
    finally:
        close(supervisor)
        daemon.terminate()
        daemon.wait(timeout=30)


def close(supervisor: processes.Supervisord) -> None:
    """Close this thread's connection, if it has one."""
    rpc = getattr(supervisor._local, "rpc", None)
    if rpc is not None:
        rpc("close")()


@pytest.fixture(params=["fake", "supervisord"])
def case(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> typing.Iterator[Case]:
    """The fake, then a real supervisord of its own."""
    running = run_fake() if request.param == "fake" else run_supervisord(tmp_path)
    with running as made:
        yield made


def test_a_process_is_started_and_stopped_and_either_twice_is_no_error(case: Case) -> None:
    before = case.find("steady")
    assert (before.state, before.pid, before.uptime) == ("STOPPED", 0, 0.0)
    case.supervisor.stop("steady")
    case.supervisor.start("steady")
    running = case.await_state("steady", "RUNNING")
    assert running.pid > 0
    assert running.uptime >= 0
    assert running.reason == ""
    case.supervisor.start("steady")
    assert case.find("steady").pid == running.pid
    case.supervisor.stop("steady")
    stopped = case.find("steady")
    assert (stopped.state, stopped.pid, stopped.uptime) == ("STOPPED", 0, 0.0)
    case.supervisor.stop("steady")
    assert case.find("steady").state == "STOPPED"


def test_all_processes_are_listed_with_why_they_do_not_run(case: Case) -> None:
    listed = case.supervisor.list_processes()
    assert sorted((process.name, process.state, process.reason) for process in listed) == [
        ("hopeless", "STOPPED", "Not started"),
        ("missing", "STOPPED", "Not started"),
        ("steady", "STOPPED", "Not started"),
        ("stubborn", "STOPPED", "Not started"),
    ]


@pytest.mark.parametrize(
    ("name", "state"),
    [
        pytest.param("hopeless", "FATAL", id="given up"),
        pytest.param("stubborn", "BACKOFF", id="tried again"),
    ],
)
def test_a_program_that_fails_at_once_says_so(case: Case, name: str, state: str) -> None:
    case.supervisor.start(name)
    failed = case.await_state(name, state)
    assert (failed.pid, failed.uptime, failed.reason) == (0, 0.0, TOO_QUICK)


def test_a_process_that_is_being_tried_again_can_be_stopped(case: Case) -> None:
    case.supervisor.start("stubborn")
    case.await_state("stubborn", "BACKOFF", "STARTING")
    case.supervisor.stop("stubborn")
    assert case.await_state("stubborn", "STOPPED", "FATAL").pid == 0


@pytest.mark.parametrize(
    ("name", "code"),
    [
        pytest.param("missing", 20, id="a program that is not there"),
        pytest.param("nobody", 10, id="a name that is in no configuration"),
    ],
)
def test_what_cannot_be_started_is_refused(case: Case, name: str, code: int) -> None:
    with pytest.raises(xmlrpc.client.Fault) as caught:
        case.supervisor.start(name)
    assert caught.value.faultCode == code


def test_shutdown_ends_the_supervisor(case: Case) -> None:
    case.supervisor.start("steady")
    case.await_state("steady", "RUNNING")
    case.supervisor.shutdown()
    assert case.ended()


def list_calls(
    supervisor: processes.Supervisor,
) -> dict[str, collections.abc.Callable[[], object]]:
    """Each method, ready to be called."""
    return {
        "list_processes": supervisor.list_processes,
        "start": lambda: supervisor.start("steady"),
        "stop": lambda: supervisor.stop("steady"),
        "shutdown": supervisor.shutdown,
    }


@pytest.mark.parametrize("method", ["list_processes", "start", "stop", "shutdown"])
def test_a_socket_that_does_not_answer_is_an_oserror_each_time(
    tmp_path: pathlib.Path, method: str
) -> None:
    call = list_calls(processes.Supervisord(tmp_path / "supervisor.sock"))[method]
    for _ in range(2):
        with pytest.raises(OSError) as caught:
            call()
        assert str(caught.value) == (
            "supervisord does not answer: [Errno 2] No such file or directory"
        )


@contextlib.contextmanager
def answer_with(path: pathlib.Path, answers: list[bytes]) -> collections.abc.Iterator[None]:
    """A server that answers one request on each of its connections, and then closes it."""

    def serve() -> None:
        for answer in answers:
            connection, _ = server.accept()
            with connection:
                received = b""
                while b"</methodCall>" not in received:
                    received += connection.recv(65536)
                connection.sendall(answer)

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(30)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        thread.join(timeout=30)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="the connection is closed"),
        pytest.param(b"nonsense\r\n", id="no HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n<?xml", id="cut off"),
        pytest.param(
            b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
            id="an error of supervisord's own",
        ),
    ],
)
def test_what_is_no_answer_is_an_oserror_each_time(tmp_path: pathlib.Path, answer: bytes) -> None:
    path = tmp_path / "supervisor.sock"
    supervisor = processes.Supervisord(path)
    with answer_with(path, [answer] * 2):
        for _ in range(2):
            with pytest.raises(OSError, match=r"^supervisord does not answer: ."):
                supervisor.list_processes()


def test_a_supervisor_that_comes_late_or_anew_is_reached_by_the_same_client(
    tmp_path: pathlib.Path,
) -> None:
    supervisor = processes.Supervisord(tmp_path / "supervisor.sock")
    for _ in range(2):
        with pytest.raises(OSError, match=r"^supervisord does not answer: ."):
            supervisor.list_processes()
        with run_supervisord(tmp_path):
            assert len(supervisor.list_processes()) == 4
            assert len(supervisor.list_processes()) == 4
    with pytest.raises(OSError, match=r"^supervisord does not answer: ."):
        supervisor.list_processes()
