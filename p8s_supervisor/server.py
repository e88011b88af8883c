"""waitress, with limits of its own: connections, the time of a request, who may send an archive."""

from __future__ import annotations

import copy
import functools
import logging
import time
import typing

import waitress
import waitress.channel
import waitress.parser
import waitress.utilities

from p8s_supervisor import access

if typing.TYPE_CHECKING:
    import collections.abc
    import socket

    import flask

# Streams (/events, /logs) hold a thread each: `api.STREAMS` of them leave as many for the rest.
THREADS = 16
HEAD_BYTES = 32 * 1024
ARCHIVES = ("POST", "/images")
# Connections: of everybody, of all strangers, of one stranger's address. What strangers may not have
# is there for the host, whatever they do.
CONNECTIONS, STRANGERS, EACH = 200, 128, 32
LOOPBACK = ("127.0.0.1", "::1")
# How long a request may take to come, an archive's body apart, and a connection may say nothing.
REQUEST_SECONDS, IDLE_SECONDS = 10, 30
# How often waitress looks for either.
LOOK_SECONDS = 5


def create(
    app: flask.Flask, rules: access.Access, *, address: str, port: int
) -> waitress.server.BaseWSGIServer:
    """A server that listens already; its `run` serves.

    waitress keeps a request's body in a file before anything of ours sees it. So whoever would be
    refused, and whatever is no archive, is cut off at `access.BODY_BYTES`.

    Raises:
        OSError: it cannot listen there.
    """
    # Its warnings are a line for each request of a flood.
    waitress.utilities.logger.setLevel(logging.ERROR)
    server = waitress.create_server(
        app,
        host=address,
        port=port,
        threads=THREADS,
        connection_limit=CONNECTIONS,
        channel_timeout=IDLE_SECONDS,
        cleanup_interval=LOOK_SECONDS,
        # How often an idle server looks for channels that have timed out.
        asyncore_loop_timeout=10,
        # Read on while a request is answered: it is seen at once that a stream's reader has gone.
        channel_request_lookahead=1,
        max_request_header_size=HEAD_BYTES,
        max_request_body_size=access.BODY_BYTES,
        # Callers come and go as they like: that is no error, and no traceback in the log.
        log_socket_errors=False,
        ident=None,
    )
    generous = copy.copy(server.adj)
    generous.max_request_body_size = access.ARCHIVE_BYTES

    class Channel(waitress.channel.HTTPChannel):  # type: ignore[misc]
        stranger = ""  # the address of a caller who is not trusted

        @property
        def parser_class(self) -> typing.Any:
            return functools.partial(
                _Parser, rules=rules, address=str(self.addr[0]), generous=generous
            )

    server.channel_class = functools.partial(_admit, rules=rules, make=Channel)
    server.maintenance = functools.partial(_maintain, server)
    return server


def _admit(
    server: typing.Any,
    connection: socket.socket,
    caller: tuple[typing.Any, ...],
    *rest: object,
    rules: access.Access,
    make: collections.abc.Callable[..., typing.Any],
    **named: object,
) -> None:
    """In place of a channel's making: make it where there is room for the caller."""
    address = str(caller[0])
    stranger = "" if rules.is_trusted(address) else address
    if _has_room(stranger, [channel.stranger for channel in server.active_channels.values()]):
        make(server, connection, caller, *rest, **named).stranger = stranger
    else:
        connection.close()


def _maintain(server: typing.Any, now: float) -> None:
    """waitress' own look at its channels, and one for requests that are late."""
    type(server).maintenance(server, now)
    for channel in server.active_channels.values():
        if _is_late(channel):
            channel.will_close = True


def _has_room(stranger: str, there: list[str]) -> bool:
    """Whether one more connection may be had.

    Args:
        stranger: its address; empty for one that is trusted.
        there: the same of each connection that there is.
    """
    if not stranger:
        return True
    if there.count(stranger) >= EACH:
        return False
    # docker's health check comes by loopback.
    return stranger in LOOPBACK or sum(map(bool, there)) < STRANGERS


def _is_late(channel: typing.Any) -> bool:
    """Whether a request is on its way for too long, and none before it is being answered."""
    request = channel.request
    return (
        request is not None
        and not channel.requests
        and not request.is_archive
        and time.monotonic() - request.begun > REQUEST_SECONDS
    )


class _Parser(waitress.parser.HTTPRequestParser):  # type: ignore[misc]
    """Raises its own limit where the head allows an archive.

    Attributes:
        begun: when the request's first byte came.
        is_archive: whether this is an archive of a caller who may send it.
    """

    def __init__(
        self, adj: object, *, rules: access.Access, address: str, generous: object
    ) -> None:
        super().__init__(adj)
        self._rules, self._address, self._generous = rules, address, generous
        self.begun = time.monotonic()
        self.is_archive = self.empty = False

    def received(self, data: bytes) -> int:
        consumed = super().received(data)
        if self.empty:
            # waitress waits for another one, for as long as empty ones go on coming.
            self.empty = False
            self.error = waitress.utilities.BadRequest("an empty head")
        return int(consumed)

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # what waitress does not expect of urllib, such as of //[
            raise waitress.parser.ParsingError("Bad URI") from error
        if (self.command, self.path) != ARCHIVES:
            return
        caller = access.Caller(
            method=self.command,
            path=self.path,
            host=self.headers.get("HOST", ""),
            address=self._address,
            authorization=self.headers.get("AUTHORIZATION", ""),
            origin=self.headers.get("ORIGIN"),
            fetch_site=self.headers.get("SEC_FETCH_SITE", "none"),
        )
        if self._rules.refuse(caller) is None:
            self.adj, self.is_archive = self._generous, True
