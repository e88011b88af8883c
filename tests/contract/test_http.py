"""The HTTP API as the sidecar serves it: behind a real waitress, called over real sockets."""

from __future__ import annotations

import dataclasses
import gc
import json
import pathlib
import socket
import typing

import pytest
import requests

from p8s_supervisor import context, health, images, sidecar
from tests import fakes
from tests.contract import served


def test_every_route_is_served(serve: served.Serve) -> None:
    there = serve()
    there.run.admin = (b"the CA", b"the certificate", b"the key")
    url = f"http://127.0.0.1:{there.port}"
    with requests.Session() as session:
        session.trust_env = False
        found = {
            path: session.get(f"{url}{path}", timeout=30).status_code
            for path in ("/livez", "/ready", "/status", "/metrics", "/kubeconfig", "/nothing")
        }
        found["/stop"] = session.post(f"{url}/stop", timeout=30).status_code
    assert found == {
        "/livez": 200,
        "/ready": 200,
        "/status": 200,
        "/metrics": 200,
        "/kubeconfig": 200,
        "/nothing": 404,
        "/stop": 202,
    }
    assert there.run.stop_reason == "POST /stop from 127.0.0.1"


def test_the_kubeconfig_is_there_once_the_certificates_are(serve: served.Serve) -> None:
    there = serve()
    request = served.make_request("GET /kubeconfig", "Host: localhost")
    assert served.send(there.port, request).status == 503
    there.run.admin = (b"the CA", b"the certificate", b"the key")
    answer = served.send(there.port, request)
    assert answer.status == 200
    assert json.loads(answer.body)["kind"] == "Config"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(
            served.make_request("GET /ready", "Host: 127.0.0.1:8989"), 200, id="by address"
        ),
        pytest.param(
            served.make_request("GET /status", "Host: 127.0.0.1"), 200, id="without a port"
        ),
        pytest.param(
            served.make_request("GET /status", "Host: 172.17.0.2"), 200, id="the node's address"
        ),
        pytest.param(served.make_request("GET /status", "Host: p8s:80"), 200, id="the node's name"),
        pytest.param(
            served.make_request("GET /status", f"Host: {socket.gethostname()}"),
            200,
            id="the hostname",
        ),
        pytest.param(
            served.make_request("GET /status", "Host: extra.test"), 200, id="an extra name"
        ),
        pytest.param("GET /ready HTTP/1.0\r\n\r\n", 200, id="no host, an open route"),
        pytest.param("GET /status HTTP/1.0\r\n\r\n", 403, id="no host"),
        pytest.param(served.make_request("POST /stop"), 403, id="no host in HTTP/1.1"),
        pytest.param(served.make_request("POST /stop", "Host:"), 403, id="an empty host"),
        pytest.param(
            served.make_request("POST /stop", "Host: evil.example"), 403, id="another host"
        ),
        pytest.param(
            served.make_request("POST /stop", "Host: 127.0.0.1", "Host: evil.example"),
            403,
            id="two hosts",
        ),
        pytest.param(
            served.make_request("POST /stop", "Host: evil.example", "Host: 127.0.0.1"),
            403,
            id="two hosts, the right one last",
        ),
        pytest.param(
            served.make_request("POST /stop", "Host: evil.example", "X-Forwarded-Host: 127.0.0.1"),
            403,
            id="a forwarded host",
        ),
        pytest.param(
            served.make_request(
                "POST /stop", "Host: evil.example", "X-Forwarded-For: 127.0.0.1", served.BEARER
            ),
            403,
            id="another host with the token",
        ),
        pytest.param(served.make_request("POST /stop", "Host: [::1"), 403, id="half an address"),
        pytest.param(served.make_request("POST /stop", "Host: \xff\xfe"), 403, id="no ASCII"),
        pytest.param(
            served.make_request("POST /stop", "Host: 127.0.0.1", "Origin: http://evil.example"),
            403,
            id="a page of another site",
        ),
        pytest.param(served.make_request("GET /stop", "Host: 127.0.0.1"), 405, id="wrong method"),
        pytest.param("GARBAGE\r\n\r\n", 400, id="no HTTP"),
        pytest.param(
            # Not a byte more: what the server does not read would reset the connection.
            served.make_request("GET /ready", "Host: 127.0.0.1", "X: " + "x" * 33_000)[: 32 * 1024],
            431,
            id="a header that is too large",
        ),
        pytest.param(
            served.make_request("POST /stop", "Host: 127.0.0.1", "Content-Length: 70000"),
            413,
            id="a body that is too large",
        ),
        pytest.param(
            served.make_request(
                "POST /stop",
                "Host: 127.0.0.1",
                "Transfer-Encoding: chunked",
                body="11170\r\n" + "x" * 70_000 + "\r\n0\r\n\r\n",
            ),
            413,
            id="a chunked body that is too large",
        ),
        pytest.param(
            served.make_request("POST /stop", "Host: 127.0.0.1", "Content-Length: -1"),
            400,
            id="a length that is none",
        ),
    ],
)
def test_odd_requests(serve: served.Serve, request_: str, status: int) -> None:
    there = serve("--extra-sans=extra.test")
    answer = served.send(there.port, request_)
    assert answer.status == status
    assert not there.run.stop.is_set()
    assert (
        served.send(there.port, served.make_request("GET /livez", "Host: 127.0.0.1")).status == 200
    )


@pytest.mark.parametrize(
    ("arguments", "source", "headers", "status"),
    [
        pytest.param([], "127.0.0.1", [], 202, id="the host"),
        pytest.param([], "127.0.0.2", [], 401, id="another address"),
        pytest.param(
            [], "127.0.0.2", ["X-Forwarded-For: 127.0.0.1"], 401, id="a forwarded address"
        ),
        pytest.param([], "127.0.0.2", [served.BEARER], 202, id="another address with the token"),
        pytest.param(
            [f"--api-token={fakes.TOKEN}"], "127.0.0.1", [], 401, id="the host, a token was set"
        ),
        pytest.param(
            [f"--api-token={fakes.TOKEN}"],
            "127.0.0.1",
            [served.BEARER],
            202,
            id="the host with the token",
        ),
    ],
)
def test_who_may_stop_the_cluster(
    serve: served.Serve, arguments: list[str], source: str, headers: list[str], status: int
) -> None:
    there = serve(*arguments)
    request = served.make_request("POST /stop", "Host: 127.0.0.1", *headers)
    answer = served.send(there.port, request, source=source)
    assert answer.status == status
    assert there.run.stop.is_set() is (status == 202)


@dataclasses.dataclass(frozen=True)
class Sending:
    """An archive on its way: the request's line, whence, with what, and what is answered."""

    line: str
    status: int
    source: str = "127.0.0.1"
    headers: tuple[str, ...] = ()


@pytest.mark.parametrize(
    "sending",
    [
        pytest.param(Sending("POST /images", 200), id="the host"),
        pytest.param(Sending("POST /images?x=1", 400), id="a wrong parameter"),
        pytest.param(Sending("POST /images", 413, "127.0.0.2"), id="another address"),
        pytest.param(
            Sending("POST /images", 200, "127.0.0.2", (served.BEARER,)), id="with the token"
        ),
        pytest.param(
            Sending("POST /images", 413, headers=("Origin: http://evil.example",)), id="a page"
        ),
        pytest.param(Sending("POST /users", 413), id="what is no archive"),
        pytest.param(Sending("GET /images", 413), id="another method"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True], ids=["one piece", "chunked"])
def test_who_may_send_an_archive(
    serve: served.Serve, monkeypatch: pytest.MonkeyPatch, sending: Sending, chunked: bool
) -> None:
    loaded: list[bytes] = []

    def load(run: context.Context, stream: typing.IO[bytes]) -> list[str]:
        loaded.append(stream.read())
        return ["app:1"]

    monkeypatch.setattr(images, "load", load)
    archive = "x" * 200_000
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(archive)}"
    body = f"{len(archive):x}\r\n{archive}\r\n0\r\n\r\n" if chunked else archive
    request = served.make_request(
        sending.line, "Host: 127.0.0.1", length, *sending.headers, body=body
    )
    try:
        found = served.send(serve().port, request, source=sending.source).status
    except ConnectionError:
        # Cut off while it was still sending: what the server does not read resets the connection.
        found = 413
    assert found == sending.status
    assert loaded == ([archive.encode()] if sending.status == 200 else [])


def test_the_server_does_not_say_what_it_is(serve: served.Serve) -> None:
    answer = served.send(serve().port, served.make_request("GET /livez", "Host: 127.0.0.1"))
    assert sorted(answer.headers) == ["connection", "content-length", "content-type", "date"]


# waitress leaves the socket that it could not bind to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_port_that_is_taken_ends_the_start(tmp_path: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = fakes.make_context(tmp_path, "--http-address=127.0.0.1", f"--http-port={port}")
        sidecar.serve(run, health.Monitor(run))
        gc.collect()
    assert str(run.failure) == (
        f"the HTTP API cannot listen on 127.0.0.1:{port}: Address already in use"
    )
    assert run.stop.is_set()
