"""One DNS question over UDP: all that readiness needs of a resolver (RFC 1035, section 4.1)."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import struct
import time

_A, _AAAA, _IN = 1, 28, 1
# Both kinds of address, by the length of a record: RFC 1035, section 3.4.1, and RFC 3596, section 2.2.
_LENGTHS = {_A: 4, _AAAA: 16}
# A datagram may be lost, and is where kube-proxy has just learnt of the service.
REPEAT_SECONDS = 0.1


def build_query(name: str, *, identifier: int, kind: int = _A) -> bytes:
    """A recursive question for a name's records of a kind: A (1) or AAAA (28)."""
    labels = b"".join(
        bytes([len(label)]) + label.encode("ascii") for label in name.rstrip(".").split(".")
    )
    header = struct.pack(">HHHHHH", identifier, 0x0100, 1, 0, 0, 0)
    return header + labels + b"\0" + struct.pack(">HH", kind, _IN)


def parse_answer(answer: bytes, *, identifier: int) -> list[str]:
    """The addresses in an answer.

    Raises:
        ValueError: not an answer to this question, or one with an error code.
    """
    try:
        got, flags, questions, answers = struct.unpack_from(">HHHH", answer)
        if got != identifier or not flags & 0x8000:
            raise ValueError("not an answer to the question")
        if flags & 0xF:
            raise ValueError(f"DNS error code {flags & 0xF}")
        at = 12
        for _ in range(questions):
            at = _skip_name(answer, at) + 4
        addresses = []
        for _ in range(answers):
            at = _skip_name(answer, at)
            kind, _, _, length = struct.unpack_from(">HHIH", answer, at)
            at += 10
            (data,) = struct.unpack_from(f"{length}s", answer, at)
            if length == _LENGTHS.get(kind):
                addresses.append(str(ipaddress.ip_address(data)))
            at += length
    except (struct.error, IndexError) as error:
        raise ValueError("a malformed answer") from error
    return addresses


def _skip_name(message: bytes, at: int) -> int:
    while message[at]:
        if message[at] & 0xC0:  # a pointer ends the name
            return at + 2
        at += message[at] + 1
    return at + 1


def query(name: str, *, server: str, seconds: float) -> list[str]:
    """Ask a server for a name's addresses of the family that its own is of.

    Raises:
        OSError: no answer within that many seconds, or the server cannot be reached.
        ValueError: the answer is an error or not an answer.
    """
    is_ipv4 = ipaddress.ip_address(server).version == 4
    kind, family = (_A, socket.AF_INET) if is_ipv4 else (_AAAA, socket.AF_INET6)
    identifier = secrets.randbits(16)
    question = build_query(name, identifier=identifier, kind=kind)
    deadline = time.monotonic() + seconds
    with socket.socket(family, socket.SOCK_DGRAM) as connection:
        connection.settimeout(min(seconds, REPEAT_SECONDS))
        connection.connect((server, 53))
        while True:
            connection.send(question)
            try:
                return parse_answer(connection.recv(4096), identifier=identifier)
            except TimeoutError:
                if time.monotonic() >= deadline:
                    raise
