"""The forms that answers of the HTTP API have."""

from __future__ import annotations

import collections.abc
import json
import threading
import typing

import flask

from p8s_supervisor import errors

if typing.TYPE_CHECKING:
    from _typeshed import wsgi

# So many /events and /logs at a time: each holds a thread as long as it is read.
STREAMS = 8
# What waitress gives to ask whether the client has gone.
GONE = "waitress.client_disconnected"


def problem(status: int, detail: str, *, hint: str = "", **more: object) -> flask.Response:
    """An error as application/problem+json (RFC 9457), with a hint where there is one."""
    body: dict[str, object] = {"status": status, "detail": detail}
    if hint:
        body["hint"] = hint
    return flask.Response(
        json.dumps(body | more, indent=2) + "\n",
        status=status,
        content_type="application/problem+json",
    )


def text(content: str, *, status: int = 200) -> flask.Response:
    """Plain text."""
    return flask.Response(content, status=status, content_type="text/plain; charset=utf-8")


def json_(value: object) -> flask.Response:
    """JSON, for people too."""
    return flask.Response(json.dumps(value, indent=2) + "\n", content_type="application/json")


def credentials(content: str, *, status: int = 200) -> flask.Response:
    """A kubeconfig, which no cache keeps."""
    response = flask.Response(content, status=status, content_type="application/yaml")
    response.headers["Cache-Control"] = "no-store"
    return response


class _Stream(flask.Response):
    """Its head goes out at once, however long the first piece takes."""

    def __call__(
        self, environ: wsgi.WSGIEnvironment, start_response: wsgi.StartResponse
    ) -> collections.abc.Iterable[bytes]:
        """See PEP 3333: the first piece would take the head with it, and an empty one does not."""

        def start(*head: typing.Any) -> collections.abc.Callable[[bytes], object]:
            write = start_response(*head)
            if GONE in environ:
                write(b"")
            return write

        return super().__call__(environ, start)


def _until_gone(
    pieces: collections.abc.Iterator[bytes], gone: collections.abc.Callable[[], bool]
) -> collections.abc.Iterator[bytes]:
    """Pieces, empty ones too, until the client has gone, which writing nothing would not show."""
    for piece in pieces:
        if gone():
            return
        yield piece


_streams = threading.BoundedSemaphore(STREAMS)


def stream(pieces: collections.abc.Iterator[bytes], content_type: str) -> flask.Response:
    """An answer that is sent as it comes.

    Raises:
        RequestError: 503, there are too many of them.
    """
    if not _streams.acquire(blocking=False):
        raise errors.RequestError(
            f"{STREAMS} streams of events and logs are being read already",
            status=503,
            hint="end one of them, or ask with follow=false",
        )
    gone = flask.request.environ.get(GONE, lambda: False)
    response = _Stream(_until_gone(pieces, gone), content_type=content_type)
    response.headers["Cache-Control"] = "no-store"
    response.call_on_close(_streams.release)
    return response
