"""The HTTP API as the sidecar serves it: behind a real waitress, called over real sockets."""

from __future__ import annotations

import collections.abc
import dataclasses
import gc
import json
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time
import typing

import pytest
import requests
import waitress

from p8s_supervisor import context, health, images, sidecar
from tests import fakes

HEALTHCHECK = pathlib.Path(__file__).parents[2] / "image/rootfs/usr/local/bin/p8s-healthcheck"
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


@pytest.fixture
def serve(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> typing.Iterator[Serve]:
    """Starts the API on a free port of loopback, and ends it after the test."""
    servers: list[typing.Any] = []
    create_server = waitress.create_server

    def record(*arguments: object, **options: object) -> object:
        servers.append(create_server(*arguments, **options))
        return servers[-1]

    monkeypatch.setattr(waitress, "create_server", record)

    def start(*arguments: str) -> Served:
        run = fakes.make_context(
            tmp_path, "--http-address=127.0.0.1", f"--http-port={fakes.free_port()}", *arguments
        )
        missing: dict[str, str] = {}
        monitor = health.Monitor(run)
        monkeypatch.setattr(monitor, "missing", lambda: missing)
        sidecar.serve(run, monitor)
        assert run.failure is None
        return Served(run, missing)

    yield start
    for server in servers:
        server.trigger.pull_trigger(server.close)
    for thread in threading.enumerate():
        if thread.name == "http":
            thread.join(timeout=10)
    for server in servers:
        server.task_dispatcher.shutdown()


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


def test_every_route_is_served(serve: Serve) -> None:
    served = serve()
    served.run.admin = (b"the CA", b"the certificate", b"the key")
    url = f"http://127.0.0.1:{served.port}"
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
    assert served.run.stop_reason == "POST /stop from 127.0.0.1"


def test_the_kubeconfig_is_there_once_the_certificates_are(serve: Serve) -> None:
    served = serve()
    request = make_request("GET /kubeconfig", "Host: localhost")
    assert send(served.port, request).status == 503
    served.run.admin = (b"the CA", b"the certificate", b"the key")
    answer = send(served.port, request)
    assert answer.status == 200
    assert json.loads(answer.body)["kind"] == "Config"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(make_request("GET /ready", "Host: 127.0.0.1:8989"), 200, id="by address"),
        pytest.param(make_request("GET /status", "Host: 127.0.0.1"), 200, id="without a port"),
        pytest.param(make_request("GET /status", "Host: 172.17.0.2"), 200, id="the node's address"),
        pytest.param(make_request("GET /status", "Host: p8s:80"), 200, id="the node's name"),
        pytest.param(
            make_request("GET /status", f"Host: {socket.gethostname()}"), 200, id="the hostname"
        ),
        pytest.param(make_request("GET /status", "Host: extra.test"), 200, id="an extra name"),
        pytest.param("GET /ready HTTP/1.0\r\n\r\n", 200, id="no host, an open route"),
        pytest.param("GET /status HTTP/1.0\r\n\r\n", 403, id="no host"),
        pytest.param(make_request("POST /stop"), 403, id="no host in HTTP/1.1"),
        pytest.param(make_request("POST /stop", "Host:"), 403, id="an empty host"),
        pytest.param(make_request("POST /stop", "Host: evil.example"), 403, id="another host"),
        pytest.param(
            make_request("POST /stop", "Host: 127.0.0.1", "Host: evil.example"), 403, id="two hosts"
        ),
        pytest.param(
            make_request("POST /stop", "Host: evil.example", "Host: 127.0.0.1"),
            403,
            id="two hosts, the right one last",
        ),
        pytest.param(
            make_request("POST /stop", "Host: evil.example", "X-Forwarded-Host: 127.0.0.1"),
            403,
            id="a forwarded host",
        ),
        pytest.param(
            make_request("POST /stop", "Host: evil.example", "X-Forwarded-For: 127.0.0.1", BEARER),
            403,
            id="another host with the token",
        ),
        pytest.param(make_request("POST /stop", "Host: [::1"), 403, id="half an address"),
        pytest.param(make_request("POST /stop", "Host: \xff\xfe"), 403, id="no ASCII"),
        pytest.param(
            make_request("POST /stop", "Host: 127.0.0.1", "Origin: http://evil.example"),
            403,
            id="a page of another site",
        ),
        pytest.param(make_request("GET /stop", "Host: 127.0.0.1"), 405, id="wrong method"),
        pytest.param("GARBAGE\r\n\r\n", 400, id="no HTTP"),
        pytest.param(
            # Not a byte more: what the server does not read would reset the connection.
            make_request("GET /ready", "Host: 127.0.0.1", "X: " + "x" * 33_000)[: 32 * 1024],
            431,
            id="a header that is too large",
        ),
        pytest.param(
            make_request("POST /stop", "Host: 127.0.0.1", "Content-Length: 70000"),
            413,
            id="a body that is too large",
        ),
        pytest.param(
            make_request(
                "POST /stop",
                "Host: 127.0.0.1",
                "Transfer-Encoding: chunked",
                body="11170\r\n" + "x" * 70_000 + "\r\n0\r\n\r\n",
            ),
            413,
            id="a chunked body that is too large",
        ),
        pytest.param(
            make_request("POST /stop", "Host: 127.0.0.1", "Content-Length: -1"),
            400,
            id="a length that is none",
        ),
    ],
)
def test_odd_requests(serve: Serve, request_: str, status: int) -> None:
    served = serve("--extra-sans=extra.test")
    answer = send(served.port, request_)
    assert answer.status == status
    assert not served.run.stop.is_set()
    assert send(served.port, make_request("GET /livez", "Host: 127.0.0.1")).status == 200


@pytest.mark.parametrize(
    ("arguments", "source", "headers", "status"),
    [
        pytest.param([], "127.0.0.1", [], 202, id="the host"),
        pytest.param([], "127.0.0.2", [], 401, id="another address"),
        pytest.param(
            [], "127.0.0.2", ["X-Forwarded-For: 127.0.0.1"], 401, id="a forwarded address"
        ),
        pytest.param([], "127.0.0.2", [BEARER], 202, id="another address with the token"),
        pytest.param(
            [f"--api-token={fakes.TOKEN}"], "127.0.0.1", [], 401, id="the host, a token was set"
        ),
        pytest.param(
            [f"--api-token={fakes.TOKEN}"], "127.0.0.1", [BEARER], 202, id="the host with the token"
        ),
    ],
)
def test_who_may_stop_the_cluster(
    serve: Serve, arguments: list[str], source: str, headers: list[str], status: int
) -> None:
    served = serve(*arguments)
    request = make_request("POST /stop", "Host: 127.0.0.1", *headers)
    answer = send(served.port, request, source=source)
    assert answer.status == status
    assert served.run.stop.is_set() is (status == 202)


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
        pytest.param(Sending("POST /images", 200, "127.0.0.2", (BEARER,)), id="with the token"),
        pytest.param(
            Sending("POST /images", 413, headers=("Origin: http://evil.example",)), id="a page"
        ),
        pytest.param(Sending("POST /users", 413), id="what is no archive"),
        pytest.param(Sending("GET /images", 413), id="another method"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True], ids=["one piece", "chunked"])
def test_who_may_send_an_archive(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, sending: Sending, chunked: bool
) -> None:
    loaded: list[bytes] = []

    def load(run: context.Context, stream: typing.IO[bytes]) -> list[str]:
        loaded.append(stream.read())
        return ["app:1"]

    monkeypatch.setattr(images, "load", load)
    archive = "x" * 200_000
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(archive)}"
    body = f"{len(archive):x}\r\n{archive}\r\n0\r\n\r\n" if chunked else archive
    request = make_request(sending.line, "Host: 127.0.0.1", length, *sending.headers, body=body)
    try:
        found = send(serve().port, request, source=sending.source).status
    except ConnectionError:
        # Cut off while it was still sending: what the server does not read resets the connection.
        found = 413
    assert found == sending.status
    assert loaded == ([archive.encode()] if sending.status == 200 else [])


def test_the_server_does_not_say_what_it_is(serve: Serve) -> None:
    answer = send(serve().port, make_request("GET /livez", "Host: 127.0.0.1"))
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


# --- docker's health check


def run_healthcheck(
    tmp_path: pathlib.Path, address: str | None, *, ready: bool = True
) -> tuple[int, str]:
    """The health check's exit code and output, in a node whose API is at that address.

    It waits for a second where it would for 50, and pauses for half a second where for 28.
    """
    places = fakes.make_plan(tmp_path).paths
    source = HEALTHCHECK.read_text()
    for written, here in (
        (r'"/run/p8s/http-address"', repr(str(places.http_address))),
        (r'"/run/p8s/ready"', repr(str(places.ready))),
        (r"(?<=START_SECONDS = )50", "1"),
        (r"(?<=PAUSE_SECONDS = )28", "0.5"),
    ):
        source, found = re.subn(written, here, source)
        assert found == 1
    (tmp_path / "healthcheck").write_text(source)
    places.run.mkdir(parents=True)
    if address is not None:
        places.http_address.write_text(address)
    if ready:
        places.ready.touch()
    done = subprocess.run(
        [sys.executable, "-IS", str(tmp_path / "healthcheck")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_the_health_check_is_green_when_the_cluster_is_ready(
    serve: Serve, tmp_path: pathlib.Path
) -> None:
    assert run_healthcheck(tmp_path, f"127.0.0.1 {serve().port}") == (0, "ok\n")


def test_the_health_check_reaches_an_ipv6_address(serve: Serve, tmp_path: pathlib.Path) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as free:
            port = free.getsockname()[1]
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    serve("--http-address=::1", f"--http-port={port}")
    assert run_healthcheck(tmp_path, f"::1 {port}") == (0, "ok\n")


def test_the_health_check_shows_what_is_missing(serve: Serve, tmp_path: pathlib.Path) -> None:
    served = serve()
    served.missing["node"] = "no CNI " + "x" * 100_000
    code, output = run_healthcheck(tmp_path, f"127.0.0.1 {served.port}")
    assert code == 1
    assert json.loads(output) == {
        "status": 503,
        "detail": "the cluster is not ready",
        "missing": served.missing,
    }


def test_the_health_check_needs_no_token(serve: Serve, tmp_path: pathlib.Path) -> None:
    served = serve(f"--api-token={fakes.TOKEN}")
    assert run_healthcheck(tmp_path, f"127.0.0.1 {served.port}") == (0, "ok\n")


def test_the_health_check_is_red_where_nobody_answers(tmp_path: pathlib.Path) -> None:
    code, output = run_healthcheck(tmp_path, f"127.0.0.1 {fakes.free_port()}")
    assert code == 1
    assert output == "p8s does not answer: [Errno 111] Connection refused"


def test_the_health_check_is_red_before_the_address_is_known(tmp_path: pathlib.Path) -> None:
    code, output = run_healthcheck(tmp_path, None)
    assert code == 1
    assert output.startswith("p8s does not answer: [Errno 2] No such file or directory: ")


def test_the_health_check_waits_for_the_end_of_a_start(
    serve: Serve, tmp_path: pathlib.Path
) -> None:
    served = serve()
    served.missing["node"] = "no CNI"

    def complete() -> None:
        served.missing.clear()
        fakes.make_plan(tmp_path).paths.ready.touch()

    timer = threading.Timer(0.4, complete)
    timer.start()
    begun = time.monotonic()
    assert run_healthcheck(tmp_path, f"127.0.0.1 {served.port}", ready=False) == (0, "ok\n")
    assert 0.4 <= time.monotonic() - begun < 1
    timer.join()


def test_the_health_check_is_red_where_a_start_takes_long(
    serve: Serve, tmp_path: pathlib.Path
) -> None:
    served = serve()
    served.missing["node"] = "no CNI"
    begun = time.monotonic()
    code, _ = run_healthcheck(tmp_path, f"127.0.0.1 {served.port}", ready=False)
    assert (code, time.monotonic() - begun >= 1) == (1, True)


def test_the_health_check_pauses_where_the_cluster_was_ready(
    serve: Serve, tmp_path: pathlib.Path
) -> None:
    begun = time.monotonic()
    assert run_healthcheck(tmp_path, f"127.0.0.1 {serve().port}")[0] == 0
    assert time.monotonic() - begun >= 0.5
