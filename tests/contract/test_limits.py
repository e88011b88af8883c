"""Requests that are malformed, slow or many, against the HTTP API over real sockets."""

from __future__ import annotations

import collections.abc
import contextlib
import pathlib
import socket
import ssl
import time
import typing

import pytest

from p8s_supervisor import access, context, images, server
from tests.contract import served

STRANGER = "127.0.0.2"  # the gateway, and so the host, is 127.0.0.1
READY = served.make_request("GET /ready", "Host: 127.0.0.1")
KEPT = b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def connect(port: int, source: str = STRANGER) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(source, 0))


def read_to_end(connection: socket.socket) -> bytes:
    """What the server sends until it closes or resets the connection.

    Raises:
        TimeoutError: it does neither.
    """
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            received += piece
    return received


def is_open(connection: socket.socket) -> bool:
    """Whether the server has left a connection open that nothing was sent to."""
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def count_files() -> int:
    return sum(1 for _ in pathlib.Path("/proc/self/fd").iterdir())


def await_files(expected: int) -> None:
    deadline = time.monotonic() + 10
    while count_files() > expected and time.monotonic() < deadline:
        time.sleep(0.02)
    assert count_files() <= expected


def make_hello() -> bytes:
    """The first message of a TLS client."""
    outgoing = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="p8s")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def head(*lines: str, body: str = "") -> bytes:
    return "\r\n".join([*lines, "", body]).encode("latin-1")


POST, HOST = "POST /apply HTTP/1.1", "Host: 127.0.0.1"
CHUNKED = "Transfer-Encoding: chunked"
# Each is answered with this status, by the end of the time that a request may take; None: closed.
MALFORMED: dict[str, tuple[bytes, int | None]] = {
    "garbage": (bytes(range(256)) * 8 + b"\r\n\r\n", 400),
    "garbage that never ends": (b"\x00\xff" * 512, None),
    "a TLS hello": (make_hello(), None),
    "an HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 403),
    "an empty head": (b"\r\n\r\n", 400),
    "a URI that is none": (head("GET http://[ HTTP/1.1", HOST), 400),
    "a bare line feed": (b"GET /ready HTTP/1.1\nHost: 127.0.0.1\r\n\r\n", 400),
    "a folded first line": (head("GET /ready HTTP/1.1", " x: y"), 400),
    "a header without a name": (head("GET /ready HTTP/1.1", ": x"), 400),
    "a blank before the colon": (head(POST, HOST, "Content-Length : 3", body="abc"), 400),
    "two lengths": (head(POST, HOST, "Content-Length: 3", "Content-Length: 4", body="abc"), 400),
    "a length with a sign": (head(POST, HOST, "Content-Length: +3", body="abc"), 400),
    "a length that is no number": (head(POST, HOST, "Content-Length: x"), 400),
    "a huge length": (head(POST, HOST, "Content-Length: " + "9" * 400), 413),
    "an endless length": (head(POST, HOST, "Content-Length: " + "9" * 5000), 400),
    "a length that is too long": (head(POST, HOST, "Content-Length: 9", body="abc"), None),
    "a chunk that is none": (head(POST, HOST, CHUNKED, body="xyz\r\n\r\n"), 400),
    "a chunk with a sign": (head(POST, HOST, CHUNKED, body="-1\r\n\r\n"), 400),
    "a chunk that never ends": (head(POST, HOST, CHUNKED, body="f" * 70_000), 413),
    "another coding": (head(POST, HOST, "Transfer-Encoding: gzip", body="abc"), 501),
    "chunked twice": (head(POST, HOST, "Transfer-Encoding: chunked, gzip", body="abc"), 501),
    "a huge head": (head("GET /ready HTTP/1.1", "X: " + "x" * 40_000), 431),
    "many headers": (head("GET /ready HTTP/1.1", *["X: y"] * 10_000), 431),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_answered_or_closed_and_leaves_no_trace(
    serve: served.Serve,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(server, "LOOK_SECONDS", 0)
    there = serve()
    request, status = MALFORMED[name]
    with connect(there.port) as connection:
        with contextlib.suppress(ConnectionError):  # it may close before it has read all
            connection.sendall(request)
        if status is None:
            time.sleep(0.3)
        assert served.send(there.port, READY).status == 200  # and wakes an idle server
        answer = read_to_end(connection)
    if status is None:
        assert answer == b""
    elif answer or status not in (413, 431):  # what is not read resets the connection
        assert answer.split()[1] == str(status).encode()
        assert answer.count(b"HTTP/1.") == 1
    assert capfd.readouterr() == ("", "")
    assert [record.getMessage() for record in caplog.records] == []
    assert not there.run.stop.is_set()


def test_a_request_is_not_smuggled_behind_two_lengths(serve: served.Serve) -> None:
    hidden = "POST /stop HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    there = serve()
    request = head(
        POST, HOST, f"Content-Length: {len(hidden) + 5}", CHUNKED, body="0\r\n\r\n" + hidden
    )
    with connect(there.port, "127.0.0.1") as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = read_to_end(connection)
    # One that follows the chunks is a request of the same caller, and no more than he may.
    assert answer.startswith(b"HTTP/1.1 ")
    with connect(there.port) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = read_to_end(connection)
    assert set(answer.split(b"\r\n")[0].split()[1:2]) <= {b"401", b"400"}
    assert answer.count(b" 202 ") == 0


def test_thousands_of_requests_in_a_row_are_answered_as_they_are_read(serve: served.Serve) -> None:
    port, asked = serve().port, 3_000
    with connect(port) as connection:
        connection.setblocking(False)
        rest, received = KEPT * asked, 0
        deadline = time.monotonic() + 60
        while received < asked and time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                rest = rest[connection.send(rest[:65536]) :] if rest else rest
            with contextlib.suppress(BlockingIOError):
                received += connection.recv(1 << 20).count(b"HTTP/1.1 200")
    assert received >= asked - 10  # one that came in two pieces is not counted


@pytest.mark.parametrize(
    "trickle",
    [
        pytest.param([b"GET /ready HTTP/1.1\r\n", *[b"X"] * 50], id="a head"),
        pytest.param([head(POST, HOST, "Content-Length: 100"), *[b"x"] * 50], id="a body"),
        pytest.param([head(POST, HOST, CHUNKED), *[b"1\r\nx\r\n"] * 50], id="chunks"),
        pytest.param([b"\r\n"] * 50, id="empty lines"),
    ],
)
def test_a_request_that_trickles_is_cut_off(
    serve: served.Serve, monkeypatch: pytest.MonkeyPatch, trickle: list[bytes]
) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(server, "LOOK_SECONDS", 0)
    with connect(serve().port, "127.0.0.1") as connection:
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for piece in trickle:
                connection.sendall(piece)
                time.sleep(0.05)
        assert time.monotonic() - begun < 2
        assert not connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_an_archive_may_take_its_time(serve: served.Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(run: context.Context, stream: typing.IO[bytes]) -> list[str]:
        return [str(len(stream.read()))]

    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(server, "LOOK_SECONDS", 0)
    monkeypatch.setattr(images, "load", load)
    length = 2 * access.BODY_BYTES
    with connect(serve().port, "127.0.0.1") as connection:
        line = "POST /images HTTP/1.1"
        connection.sendall(head(line, HOST, f"Content-Length: {length}", "Connection: close"))
        for _ in range(8):
            connection.sendall(b"x" * (length // 8))
            time.sleep(0.1)
        answer = read_to_end(connection)
    assert b" 200 " in answer
    assert str(length).encode() in answer


@contextlib.contextmanager
def opened(
    port: int, sources: collections.abc.Iterable[str]
) -> collections.abc.Iterator[list[socket.socket]]:
    """Connections from these addresses, each in the middle of a request."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(port, source)) for source in sources]
        for connection in connections:
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"GET /ready HTTP/1.1\r\nX: ")
        time.sleep(0.3)
        yield connections


def test_a_stranger_has_so_many_connections(serve: served.Serve) -> None:
    port = serve().port
    before = count_files()
    with opened(port, [STRANGER] * 100) as connections:
        assert sum(map(is_open, connections)) == server.EACH
        for source in ("127.0.0.1", "127.0.0.3"):
            assert served.send(port, READY, source=source).status == 200
    await_files(before)
    assert served.send(port, READY, source=STRANGER).status == 200


@pytest.mark.parametrize(
    "gateway", ["127.0.0.1", "172.17.0.1"], ids=["the host", "the node itself"]
)
def test_strangers_leave_room(serve: served.Serve, gateway: str) -> None:
    port = serve(gateway=gateway).port
    before = count_files()
    sources = [f"127.0.0.{number}" for number in range(2, 12) for _ in range(25)]
    with opened(port, sources) as connections:
        assert sum(map(is_open, connections)) == server.STRANGERS
        assert served.send(port, READY).status == 200
    await_files(before)


def test_what_the_node_itself_asks_for_needs_the_token(serve: served.Serve) -> None:
    """kube-apiserver's proxy and kubelet's probes call from there, for whoever asks them to."""
    there = serve(gateway="172.17.0.1")
    stop = ("POST /stop", "Host: 127.0.0.1")
    assert served.send(there.port, served.make_request(*stop)).status == 401
    assert not there.run.stop.is_set()
    assert served.send(there.port, served.make_request(*stop, served.BEARER)).status == 202
