"""supervisord over XML-RPC on its unix socket, behind a Protocol."""

from __future__ import annotations

import dataclasses
import http.client
import pathlib
import threading
import time
import typing
import xmlrpc.client

# Fault codes. Source: supervisor/xmlrpc.py, class Faults.
_SHUTDOWN_STATE, _SPAWN_ERROR, _ALREADY_STARTED, _NOT_RUNNING = 6, 50, 60, 70


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


def restart(supervisor: Supervisor, name: str) -> None:
    """Stop a process, and start it; raises what those do."""
    supervisor.stop(name)
    supervisor.start(name)


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

    def _call(self, method: str, *arguments: object, accept: int | None = None) -> typing.Any:
        """Call a method; a fault of the code `accept` is an answer too."""
        if not hasattr(self._local, "rpc"):
            import supervisor.xmlrpc

            transport = supervisor.xmlrpc.SupervisorTransport(None, None, f"unix://{self._socket}")
            self._local.rpc = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        try:
            return getattr(self._local.rpc.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != accept:
                raise
        except (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError) as error:
            self._local.rpc("close")()  # the connection; the next call makes another
            raise OSError(f"supervisord does not answer: {error}") from error

    def start(self, name: str) -> None:
        """See `Supervisor`. Returns once the process is spawned."""
        try:
            self._call("startProcess", name, False, accept=_ALREADY_STARTED)
        except xmlrpc.client.Fault as fault:
            # It has ended at once: its state tells that, and supervisord tries again.
            if fault.faultCode != _SPAWN_ERROR:
                raise

    def stop(self, name: str) -> None:
        """See `Supervisor`."""
        self._call("stopProcess", name, True, accept=_NOT_RUNNING)

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
            for info in self._call("getAllProcessInfo")
        ]

    def shutdown(self) -> None:
        """See `Supervisor`. Returns at once."""
        self._call("shutdown", accept=_SHUTDOWN_STATE)
