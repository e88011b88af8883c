"""The apiserver's port, held until it listens: real sockets, and the kernel's own migration."""

from __future__ import annotations

import collections.abc
import contextlib
import pathlib
import socket
import threading
import typing

import pytest

from p8s_supervisor import ports
from tests import fakes

ADDRESSES = ("127.0.0.1", "::1") if socket.has_dualstack_ipv6() else ("127.0.0.1",)
CLIENTS = 8


def listen(port: int) -> socket.socket:
    """A server as the apiserver is one: at the unspecified address, with SO_REUSEPORT."""
    dual = socket.has_dualstack_ipv6()
    return socket.create_server(
        ("", port),
        family=socket.AF_INET6 if dual else socket.AF_INET,
        dualstack_ipv6=dual,
        reuse_port=True,
        backlog=CLIENTS,
    )


def connect(address: str, port: int) -> socket.socket:
    return socket.create_connection((address, port), timeout=10)


def answer(server: socket.socket) -> None:
    """Take one connection, and answer what it asks."""
    server.settimeout(10)
    connection, _ = server.accept()
    with connection:
        connection.settimeout(10)
        connection.sendall(b"answer to " + connection.recv(100))


@pytest.fixture
def migrate_req() -> typing.Iterator[pathlib.Path]:
    """The sysctl, as the kernel has it at its start; put back at the end."""
    file = ports._MIGRATE
    if not file.exists():
        pytest.skip(f"{file}: this kernel cannot migrate connections")
    before = file.read_text()
    try:
        file.write_text("0")
    except OSError as error:
        pytest.skip(f"{file}: {error.strerror}")
    yield file
    file.write_text(before)


@pytest.fixture
def unchanged(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A file in the sysctl's place: as on a kernel without it, until a test makes it."""
    file = tmp_path / "tcp_migrate_req"
    monkeypatch.setattr(ports, "_MIGRATE", file)
    return file


Hold = collections.abc.Callable[[int], ports.Placeholder]


@pytest.fixture
def hold() -> typing.Iterator[Hold]:
    """Makes placeholders, and closes them."""
    made: list[ports.Placeholder] = []

    def make(port: int) -> ports.Placeholder:
        made.append(ports.Placeholder(port))
        return made[-1]

    yield make
    for placeholder in made:
        placeholder.close()


# --- handing over


@pytest.mark.parametrize("address", ADDRESSES)
def test_clients_that_came_before_the_server_are_answered_by_it(
    migrate_req: pathlib.Path, hold: Hold, address: str
) -> None:
    port = fakes.free_port()
    placeholder = hold(port)
    assert migrate_req.read_text().strip() == "1"
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(address, port)) for _ in range(CLIENTS)]
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
        server = stack.enter_context(listen(port))
        placeholder.close()
        for _ in clients:
            answer(server)
        assert [client.recv(100) for client in clients] == [
            b"answer to %d" % number for number in range(CLIENTS)
        ]


def test_clients_that_come_after_it_are_answered_at_once(
    migrate_req: pathlib.Path, hold: Hold
) -> None:
    port = fakes.free_port()
    placeholder = hold(port)
    with listen(port) as server:
        placeholder.close()
        with connect("127.0.0.1", port) as client:
            client.sendall(b"late")
            answer(server)
            assert client.recv(100) == b"answer to late"
    assert migrate_req.read_text().strip() == "1"


def test_without_migration_clients_are_reset_and_not_left_to_wait(
    migrate_req: pathlib.Path, hold: Hold
) -> None:
    port = fakes.free_port()
    placeholder = hold(port)
    migrate_req.write_text("0")
    with connect("127.0.0.1", port) as client, listen(port):
        placeholder.close()
        with pytest.raises(ConnectionResetError):
            client.recv(100)


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.usefixtures("unchanged")
def test_a_port_that_was_let_go_refuses(hold: Hold, address: str) -> None:
    port = fakes.free_port()
    placeholder = hold(port)
    connect(address, port).close()
    placeholder.close()
    with pytest.raises(ConnectionRefusedError):
        connect(address, port)


def test_the_kernel_is_asked_to_migrate_where_it_can(unchanged: pathlib.Path, hold: Hold) -> None:
    hold(fakes.free_port())
    assert not unchanged.exists()
    unchanged.write_text("0")
    hold(fakes.free_port())
    assert unchanged.read_text() == "1"


@pytest.mark.usefixtures("unchanged")
def test_a_port_that_another_holds_alone_is_an_error(hold: Hold) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="in use"):
        hold(other.getsockname()[1])


# --- looking for the server


@pytest.mark.usefixtures("unchanged")
def test_only_a_second_listener_is_the_server(hold: Hold) -> None:
    port = fakes.free_port()
    placeholder = hold(port)
    missing = f"port {port} is not listened at"
    assert placeholder.find_other() == missing
    with listen(fakes.free_port()):
        assert placeholder.find_other() == missing
    with connect("127.0.0.1", port):
        assert placeholder.find_other() == missing
    with listen(port):
        assert placeholder.find_other() is None
    assert placeholder.find_other() == missing


HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
ANY, ANY6 = "0" * 8, "0" * 32


def make_line(local: str, remote: str, state: str) -> str:
    return f"   0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000     0\n"


@pytest.mark.parametrize(
    ("tcp", "tcp6", "other"),
    [
        pytest.param([], [], False, id="nobody"),
        pytest.param([], [(f"{ANY6}:192B", f"{ANY6}:0000", "0A")], False, id="itself"),
        pytest.param([], [(f"{ANY6}:192B", f"{ANY6}:0000", "0A")] * 2, True, id="the server"),
        pytest.param(
            [(f"{ANY}:192B", f"{ANY}:0000", "0A")] * 2, [], True, id="the server, on IPv4 alone"
        ),
        pytest.param(
            [("0100007F:192B", f"{ANY}:0000", "0A")],
            [(f"{ANY6}:192B", f"{ANY6}:0000", "0A")],
            True,
            id="one of each family",
        ),
        pytest.param(
            [("0100007F:192B", "0100007F:8000", "01"), ("0100007F:192B", "0100007F:8001", "03")],
            [(f"{ANY6}:192B", f"{ANY6}:0000", "0A")],
            False,
            id="clients that wait",
        ),
        pytest.param(
            [(f"{ANY}:192C", f"{ANY}:0000", "0A"), ("0100007F:8000", "0100007F:192B", "01")],
            [(f"{ANY6}:192B", f"{ANY6}:0000", "0A")],
            False,
            id="other ports",
        ),
    ],
)
@pytest.mark.usefixtures("unchanged")
def test_listeners_are_counted_by_the_kernel_s_tables(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    tcp: list[tuple[str, str, str]],
    tcp6: list[tuple[str, str, str]],
    other: bool,
) -> None:
    placeholder = make_unbound(monkeypatch, 6443)
    write_tables(tmp_path, {"tcp": tcp, "tcp6": tcp6})
    found = placeholder.find_other(tmp_path)
    assert found == (None if other else "port 6443 is not listened at")


@pytest.mark.usefixtures("unchanged")
def test_a_kernel_without_ipv6_has_one_table(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placeholder = make_unbound(monkeypatch, 6443)
    write_tables(tmp_path, {"tcp": [(f"{ANY}:192B", f"{ANY}:0000", "0A")]})
    assert placeholder.find_other(tmp_path) == "port 6443 is not listened at"


def make_unbound(monkeypatch: pytest.MonkeyPatch, port: int) -> ports.Placeholder:
    """A placeholder that only knows its port."""
    monkeypatch.setattr(socket, "create_server", lambda *_, **__: None)
    return ports.Placeholder(port)


def write_tables(proc: pathlib.Path, tables: dict[str, list[tuple[str, str, str]]]) -> None:
    (proc / "net").mkdir()
    for name, lines in tables.items():
        text = HEADER + "".join(make_line(*line) for line in lines)
        (proc / "net" / name).write_text(text)


# --- who is passed on

GATEWAY, OWN = "127.0.0.2", "127.0.0.1"
PassOn = collections.abc.Callable[[socket.socket, int], None]


def pass_on(came: socket.socket, port: int) -> None:
    """As docker's proxy does, after somebody else's request."""
    with connect(OWN, port) as other, connect(OWN, port) as sent:
        other.sendall(b"GET /ready HTTP/1.1\r\n")
        sent.sendall(came.recv(64))
        sent.recv(1)  # until it is closed


def answer_itself(came: socket.socket, _: int) -> None:
    came.sendall(came.recv(64))


def pass_something_else_on(came: socket.socket, port: int) -> None:
    with connect(OWN, port) as sent:
        sent.sendall(b"x" * len(came.recv(64)))
        sent.recv(1)


@pytest.mark.parametrize(
    ("handle", "expected"),
    [
        pytest.param(pass_on, True, id="passed on"),
        pytest.param(answer_itself, False, id="another's"),
        pytest.param(pass_something_else_on, False, id="another client"),
        pytest.param(None, False, id="refused"),
    ],
)
def test_what_the_gateway_passes_on_is_known(handle: PassOn | None, expected: bool) -> None:
    with socket.create_server((GATEWAY, 0)) as gateway:
        port = gateway.getsockname()[1]

        def serve() -> None:
            assert handle is not None
            with contextlib.suppress(OSError), gateway.accept()[0] as came:
                handle(came, port)

        thread = threading.Thread(target=serve)
        if handle is None:
            gateway.close()
        else:
            thread.start()
        assert ports.is_passed_on(GATEWAY, address=OWN, port=port) is expected
        if handle is not None:
            thread.join()


def test_a_port_that_is_in_use_is_not_passed_on() -> None:
    with socket.create_server((OWN, 0)) as taken:
        assert not ports.is_passed_on(GATEWAY, address=OWN, port=taken.getsockname()[1])
