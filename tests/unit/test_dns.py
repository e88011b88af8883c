"""One DNS question: its bytes, the answers to it, and a real socket."""

from __future__ import annotations

import contextlib
import secrets
import socket
import struct
import threading
import typing

import pytest

from p8s_supervisor import dns

NAME = "kubernetes.default.svc.cluster.local"
QUESTION = b"\x0akubernetes\x07default\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01"
POINTER = b"\xc0\x0c"


def make_answer(
    *records: bytes, identifier: int = 7, flags: int = 0x8580, questions: int = 1
) -> bytes:
    header = struct.pack(">HHHHHH", identifier, flags, questions, len(records), 0, 0)
    return header + QUESTION * questions + b"".join(records)


def make_record(data: bytes, *, kind: int = 1, name: bytes = POINTER) -> bytes:
    return name + struct.pack(">HHIH", kind, 1, 30, len(data)) + data


A = make_record(b"\xc0\xa8\xfe\x01")
CNAME = make_record(b"\x05other" + POINTER, kind=5)
AAAA = make_record(b"\xfd" + bytes(14) + b"\x01", kind=28)


def test_build_query_is_as_rfc_1035_says() -> None:
    header = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
    assert dns.build_query(NAME, identifier=0x1234) == header + QUESTION
    assert dns.build_query(NAME + ".", identifier=0x1234) == header + QUESTION


@pytest.mark.parametrize(
    ("answer", "addresses"),
    [
        pytest.param(make_answer(A), ["192.168.254.1"], id="one address"),
        pytest.param(
            make_answer(A, make_record(b"\x0a\x00\x00\x02")),
            ["192.168.254.1", "10.0.0.2"],
            id="two addresses",
        ),
        pytest.param(make_answer(CNAME, A), ["192.168.254.1"], id="behind an alias"),
        pytest.param(make_answer(AAAA), ["fd00::1"], id="IPv6"),
        pytest.param(make_answer(A, AAAA), ["192.168.254.1", "fd00::1"], id="both families"),
        pytest.param(make_answer(), [], id="no record"),
        pytest.param(make_answer(A, questions=0), ["192.168.254.1"], id="question left out"),
        pytest.param(
            make_answer(make_record(b"\x01\x02\x03\x04", name=b"\x01a\x00")),
            ["1.2.3.4"],
            id="a name in full",
        ),
    ],
)
def test_parse_answer(answer: bytes, addresses: list[str]) -> None:
    assert dns.parse_answer(answer, identifier=7) == addresses


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(make_answer(A, identifier=8), "not an answer to the question", id="another"),
        pytest.param(
            make_answer(A, flags=0x0100), "not an answer to the question", id="a question"
        ),
        pytest.param(make_answer(flags=0x8583), "DNS error code 3", id="NXDOMAIN"),
        pytest.param(make_answer(flags=0x8582), "DNS error code 2", id="SERVFAIL"),
        pytest.param(b"", "a malformed answer", id="empty"),
        pytest.param(make_answer(A)[:-1], "a malformed answer", id="address cut off"),
        pytest.param(make_answer(A)[:-5], "a malformed answer", id="length cut off"),
        pytest.param(make_answer(A)[:20], "a malformed answer", id="name cut off"),
        pytest.param(
            struct.pack(">HHHHHH", 7, 0x8580, 65535, 65535, 0, 0),
            "a malformed answer",
            id="counts without records",
        ),
    ],
)
def test_an_answer_that_is_none_says_why(answer: bytes, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        dns.parse_answer(answer, identifier=7)
    assert str(caught.value) == reason


def test_no_answer_however_malformed_raises_anything_but_valueerror() -> None:
    good = make_answer(CNAME, A)
    mangled = [good[:end] for end in range(len(good))]
    mangled += [
        good[:at] + bytes([value]) + good[at + 1 :]
        for at in range(len(good))
        for value in range(256)
    ]
    refused = 0
    for answer in mangled:
        with contextlib.suppress(ValueError):
            assert isinstance(dns.parse_answer(answer, identifier=7), list)
            continue
        refused += 1
    assert len(good) < refused < len(mangled)


class Resolver:
    """A UDP server on loopback that answers each question with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.questions: list[bytes] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def _serve(self) -> None:
        question, asker = self._socket.recvfrom(4096)
        self.questions.append(question)
        self._socket.sendto(self.answer, asker)

    def __enter__(self) -> typing.Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(timeout=5)
        self._socket.close()


def redirect_port_53(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Port 53 belongs to root: what would go there goes to `port` instead."""

    class Redirected(socket.socket):
        def connect(self, address: typing.Any, /) -> None:
            server, asked = address
            assert asked == 53
            super().connect((server, port))

    monkeypatch.setattr(socket, "socket", Redirected)


def test_query_asks_a_real_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "randbits", lambda _: 7)
    with Resolver(make_answer(A)) as resolver:
        redirect_port_53(monkeypatch, resolver.port)
        assert dns.query(NAME, server="127.0.0.1", seconds=5) == ["192.168.254.1"]
    assert resolver.questions == [dns.build_query(NAME, identifier=7)]


def test_query_takes_no_answer_to_another_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "randbits", lambda _: 8)
    with Resolver(make_answer(A)) as resolver:
        redirect_port_53(monkeypatch, resolver.port)
        with pytest.raises(ValueError, match="not an answer to the question"):
            dns.query(NAME, server="127.0.0.1", seconds=5)


def test_query_gives_up_on_a_server_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        redirect_port_53(monkeypatch, silent.getsockname()[1])
        with pytest.raises(TimeoutError):
            dns.query(NAME, server="127.0.0.1", seconds=0.05)


def test_query_says_when_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    redirect_port_53(monkeypatch, port)
    with pytest.raises(ConnectionRefusedError):
        dns.query(NAME, server="127.0.0.1", seconds=5)
