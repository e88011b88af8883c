"""waitress, with one limit of its own: who may send an image archive."""

from __future__ import annotations

import copy
import functools
import typing

import waitress
import waitress.channel
import waitress.parser

from p8s_supervisor import access

if typing.TYPE_CHECKING:
    import flask

# Streams (/events, /logs) hold a thread each: `api.STREAMS` of them leave as many for the rest.
THREADS = 16
HEAD_BYTES = 32 * 1024
ARCHIVES = ("POST", "/images")


def create(
    app: flask.Flask, rules: access.Access, *, address: str, port: int
) -> waitress.server.BaseWSGIServer:
    """A server that listens already; its `run` serves.

    waitress keeps a request's body in a file before anything of ours sees it. So whoever would be
    refused, and whatever is no archive, is cut off at `access.BODY_BYTES`.

    Raises:
        OSError: it cannot listen there.
    """
    server = waitress.create_server(
        app,
        host=address,
        port=port,
        threads=THREADS,
        connection_limit=200,
        channel_timeout=30,
        # How often an idle server looks for channels that have timed out.
        asyncore_loop_timeout=10,
        # Read on while a request is answered: it is seen at once that a stream's reader has gone.
        channel_request_lookahead=1,
        max_request_header_size=HEAD_BYTES,
        max_request_body_size=access.BODY_BYTES,
        ident=None,
    )
    generous = copy.copy(server.adj)
    generous.max_request_body_size = access.ARCHIVE_BYTES

    class Channel(waitress.channel.HTTPChannel):  # type: ignore[misc]
        @property
        def parser_class(self) -> typing.Any:
            return functools.partial(
                _Parser, rules=rules, address=str(self.addr[0]), generous=generous
            )

    server.channel_class = Channel
    return server


class _Parser(waitress.parser.HTTPRequestParser):  # type: ignore[misc]
    """Raises its own limit where the head allows an archive."""

    def __init__(
        self, adj: object, *, rules: access.Access, address: str, generous: object
    ) -> None:
        super().__init__(adj)
        self._rules, self._address, self._generous = rules, address, generous

    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
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
            self.adj = self._generous
