"""What a component's own port says: against real servers on loopback."""

from __future__ import annotations

import http.server
import pathlib
import socket
import threading
import typing

import pytest

from p8s_supervisor import endpoints
from tests import fakes


class Component:
    """A server that answers what it is told to, over connections that are kept."""

    def __init__(self) -> None:
        self.status, self.connections = 200, 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                outer.connections += 1
                super().setup()

            def do_GET(self) -> None:
                self.send_response(outer.status)
                self.send_header("Content-Length", "4")
                self.end_headers()
                self.wfile.write(b"said")

            def log_message(self, *_: object) -> None:
                """Nothing: a test's output is its own."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server.server_port)


@pytest.fixture
def component() -> typing.Iterator[Component]:
    made = Component()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_one_connection_serves_all_questions(component: Component) -> None:
    endpoint = endpoints.Endpoint(component.port, "/healthz")
    assert [endpoint.ask(), endpoint.ask()] == [None, None]
    component.status = 503
    assert endpoint.ask() == f"port {component.port} answers 503 to /healthz: said"
    assert component.connections == 1
    endpoint.close()


def test_one_that_is_gone_and_one_that_came_back(component: Component) -> None:
    port = fakes.free_port()
    gone = endpoints.Endpoint(port, "/healthz")
    assert gone.ask() == f"port {port}: Connection refused"
    endpoint = endpoints.Endpoint(component.port, "/healthz")
    assert endpoint.ask() is None
    # The server has closed the connection since: that is no answer of a component that is gone.
    kept = endpoint._connection
    assert kept is not None
    assert kept.sock is not None
    kept.sock.shutdown(socket.SHUT_RDWR)
    assert endpoint.ask() is None
    assert component.connections == 2
    endpoint.close()


def test_one_that_accepts_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "ANSWER_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as stopped:
        port = stopped.getsockname()[1]
        endpoint = endpoints.Endpoint(port, "/healthz")
        assert endpoint.ask() == f"port {port}: no answer"


def test_a_socket(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "socket"
    assert endpoints.Socket(path).ask() == f"{path}: No such file or directory"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert endpoints.Socket(path).ask() is None


def test_every_component_is_asked(tmp_path: pathlib.Path) -> None:
    assert set(endpoints.connect(fakes.make_plan(tmp_path))) == {
        "etcd",
        "containerd",
        "kubelet",
        "kube-controller-manager",
        "kube-scheduler",
        "kube-proxy",
    }
