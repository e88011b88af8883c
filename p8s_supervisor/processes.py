"""supervisord over XML-RPC on its unix socket, behind a Protocol."""

from __future__ import annotations

import dataclasses
import pathlib
import threading
import time
import typing
import xmlrpc.client

# Fault codes. Source: supervisor/xmlrpc.py, class Faults.
_ALREADY_STARTED, _NOT_RUNNING, _SHUTDOWN_STATE = 60, 70, 6


@dataclasses.dataclass(frozen=True)
class Process:
    """One supervised process.

    Attributes:
        name: its program's name in supervisord.conf.
        state: supervisord's name of the state: STOPPED, STARTING, RUNNING, BACKOFF, STOPPING,
            EXITED, FATAL, UNKNOWN.
        pid: its process id; 0 where it does not run.
        uptime: seconds since it was started; 0 where it does not run.
        reason: why it does not run, in supervisord's words; empty where it does.
    """

    name: str
    state: str
    pid: int
    uptime: float
    reason: str


class Supervisor(typing.Protocol):
    """What the flows need of a process supervisor."""

    def start(self, name: str) -> None:
        """Start a process; nothing where it runs already."""

    def stop(self, name: str) -> None:
        """Stop a process and wait for it; nothing where it does not run."""

    def list_processes(self) -> list[Process]:
        """All processes."""

    def shutdown(self) -> None:
        """Stop all that is left, then end the supervisor itself."""


class Supervisord:
    """`Supervisor` on the real supervisord.

    Raises, from every method:
        OSError: the socket does not answer.
        xmlrpc.client.Fault: supervisord refused.
    """

    def __init__(self, socket: pathlib.Path) -> None:
        self._socket = socket
        # http.client's connections are not for several threads at once.
        self._local = threading.local()

    @property
    def _rpc(self) -> typing.Any:
        if not hasattr(self._local, "rpc"):
            import supervisor.xmlrpc

            transport = supervisor.xmlrpc.SupervisorTransport(None, None, f"unix://{self._socket}")
            self._local.rpc = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        return self._local.rpc.supervisor

    def start(self, name: str) -> None:
        """See `Supervisor`. Returns once the process is spawned."""
        try:
            self._rpc.startProcess(name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != _ALREADY_STARTED:
                raise

    def stop(self, name: str) -> None:
        """See `Supervisor`."""
        try:
            self._rpc.stopProcess(name, True)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != _NOT_RUNNING:
                raise

    def list_processes(self) -> list[Process]:
        """See `Supervisor`."""
        now = time.time()
        return [
            Process(
                name=info["name"],
                state=info["statename"],
                pid=info["pid"],
                uptime=max(0.0, now - info["start"]) if info["pid"] else 0.0,
                reason=info["spawnerr"] or ("" if info["pid"] else info["description"]),
            )
            for info in self._rpc.getAllProcessInfo()
        ]

    def shutdown(self) -> None:
        """See `Supervisor`. Returns at once."""
        try:
            self._rpc.shutdown()
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != _SHUTDOWN_STATE:
                raise
