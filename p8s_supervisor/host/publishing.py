"""Ports of the node on the host: docker's --publish, for `p8s run`."""

from __future__ import annotations

import collections.abc
import dataclasses
import ipaddress
import re

PROTOCOLS = ("tcp", "udp")
_FORM = re.compile(r"(?:(\[.*\]|[^:]*):)?(\d+):(\d+)(?:/(.*))?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Port:
    """A port of the node that is published on the host.

    Attributes:
        host: its number on the host.
        node: its number in the node.
        protocol: tcp or udp.
        address: the host's address; empty for the one that the APIs are published at.
    """

    host: int
    node: int
    protocol: str = "tcp"
    address: str = ""

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        protocol = "" if self.protocol == "tcp" else f"/{self.protocol}"
        return f"{address and f'{address}:'}{self.host}:{self.node}{protocol}"


def parse(text: str) -> Port:
    """A port from `[ADDRESS:]HOST:NODE[/PROTOCOL]`; an IPv6 address stands in brackets.

    Raises:
        ValueError: it is none.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r} is not [ADDRESS:]HOST:NODE[/tcp|udp], such as 8080:80: the host's port, then "
            "the node's"
        )
    address, host, node, protocol = found.groups()
    for port in (host, node):
        if not 1 <= int(port) <= 65535:
            raise ValueError(f"{text!r}: {port} is no port: from 1 to 65535")
    if protocol not in (None, *PROTOCOLS):
        raise ValueError(f"{text!r}: /{protocol} is neither /tcp nor /udp")
    return Port(
        host=int(host),
        node=int(node),
        protocol=protocol or "tcp",
        address="" if address is None else _parse_address(text, address),
    )


def _parse_address(text: str, address: str) -> str:
    try:
        return str(ipaddress.ip_address(address.removeprefix("[").removesuffix("]")))
    except ValueError as error:
        raise ValueError(
            f"{text!r}: {address!r} is no IP address of this host, such as 127.0.0.1 or 0.0.0.0"
        ) from error


def settle(ports: collections.abc.Iterable[Port], bind: str) -> tuple[Port, ...]:
    """Each port with its address; one that is given twice is one."""
    found = (dataclasses.replace(port, address=port.address or bind) for port in ports)
    return tuple(dict.fromkeys(found))


def find_wrong(
    ports: collections.abc.Sequence[Port],
    *,
    bind: str,
    apis: collections.abc.Mapping[str, tuple[int, int | None]],
) -> list[str]:
    """What cannot be published together, and what to do.

    Args:
        ports: what `settle` gave.
        bind: the host's address that the APIs are published at.
        apis: option that publishes one → its port in the node and, if given, on the host.
    """
    wrong = []
    for number, port in enumerate(ports):
        for option, (inside, outside) in apis.items():
            if (port.node, port.protocol) == (inside, "tcp"):
                wrong.append(
                    f"--publish={port}: {inside} is an API of p8s: {option} and --bind publish it"
                )
            if outside is not None and _clash(port, Port(host=outside, node=inside, address=bind)):
                wrong.append(f"--publish={port} and {option}={outside}: give them different ports")
        wrong += [
            f"--publish={other} and --publish={port} are one port of the host: give one of them "
            "another"
            for other in ports[:number]
            if _clash(port, other)
        ]
    return wrong


def _clash(port: Port, other: Port) -> bool:
    """Whether both are one socket of the host."""
    if (port.host, port.protocol) != (other.host, other.protocol):
        return False
    one, two = ipaddress.ip_address(port.address), ipaddress.ip_address(other.address)
    return one == two or (one.version == two.version and (one.is_unspecified or two.is_unspecified))


def make_bindings(ports: collections.abc.Iterable[Port]) -> dict[int | str, list[tuple[str, int]]]:
    """Ports as docker's `create_host_config` wants them: the node's, with all that it has on the host."""
    bindings: dict[int | str, list[tuple[str, int]]] = {}
    for port in ports:
        bindings.setdefault(f"{port.node}/{port.protocol}", []).append((port.address, port.host))
    return bindings


def list_loopback(ports: collections.abc.Iterable[Port]) -> list[int]:
    """Those that nobody may listen on at 127.0.0.1, over TCP."""
    return [
        port.host
        for port in ports
        if port.protocol == "tcp" and port.address in ("127.0.0.1", "0.0.0.0")
    ]
