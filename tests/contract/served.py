"""What the tests of the HTTP API over real sockets share."""

from __future__ import annotations

import collections.abc
import dataclasses
import socket

from p8s_supervisor import context
from tests import fakes

BEARER = f"Authorization: Bearer {fakes.TOKEN}"


@dataclasses.dataclass(frozen=True)
class Served:
    """A sidecar that serves.

    Attributes:
        run: its context.
        missing: what /ready finds missing; a test fills it.
    """

    run: context.Context
    missing: dict[str, str]

    @property
    def port(self) -> int:
        return self.run.plan.settings.http_port


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: str


Serve = collections.abc.Callable[..., Served]


def send(port: int, request: str, *, source: str = "127.0.0.1") -> Answer:
    """Send these very bytes, and read until the server closes."""
    with socket.create_connection(
        ("127.0.0.1", port), timeout=30, source_address=(source, 0)
    ) as connection:
        connection.sendall(request.encode("latin-1"))
        received = b""
        while piece := connection.recv(65536):
            received += piece
    head, _, body = received.decode("latin-1").partition("\r\n\r\n")
    status_line, *lines = head.split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return Answer(int(status_line.split()[1]), headers, body)


def make_request(line: str, *headers: str, body: str = "") -> str:
    """A request that asks for the connection to be closed after the answer."""
    return "\r\n".join([f"{line} HTTP/1.1", "Connection: close", *headers, "", body])
