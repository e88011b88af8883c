"""What the kernel and the network are asked for addresses that the node answers for."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import ipaddress
import json
import pathlib
import typing

import pytest

from p8s_supervisor import commands, errors, virtual_addresses
from tests import fakes

A, B, C = (ipaddress.IPv4Address(f"172.17.255.{last}") for last in (254, 253, 252))
OWN, SMALLER, LARGER = (bytes.fromhex(f"0242ac1100{last}") for last in ("05", "04", "06"))
LINK = virtual_addresses.Link(
    interface="eth0",
    hardware_address=OWN,
    address=ipaddress.IPv4Address("172.17.0.2"),
    network=ipaddress.IPv4Network("172.17.0.0/16"),
)
NOBODY, CLIENT = virtual_addresses.NOBODY, ipaddress.IPv4Address("172.17.0.9")


# --- the link


def make_link(name: str, kind: str, address: str = "") -> dict[str, typing.Any]:
    return {
        "ifname": name,
        "address": "02:42:ac:11:00:05",
        "linkinfo": {"info_kind": kind},
        "addr_info": [{"local": address, "prefixlen": 16}] if address else [],
    }


ETH0 = make_link("eth0", "veth", "172.17.0.2")
LO = {"ifname": "lo", "address": "00:00:00:00:00:00", "addr_info": [{"local": "127.0.0.1"}]}


@pytest.fixture
def find_link(
    monkeypatch: pytest.MonkeyPatch,
) -> typing.Iterator[collections.abc.Callable[..., virtual_addresses.Link]]:
    """`find_link` of a container with some links, asked twice."""

    def find(*links: dict[str, typing.Any]) -> virtual_addresses.Link:
        recorder = fakes.Commands({"ip": json.dumps(links)})
        monkeypatch.setattr(commands, "run", recorder)
        found = [virtual_addresses.find_link(fakes.FACTS) for _ in range(2)]
        assert len(recorder.calls) == 1, "it was looked for again"
        return found[1]

    virtual_addresses.find_link.cache_clear()
    yield find
    virtual_addresses.find_link.cache_clear()


def test_the_link_that_has_the_node_s_address(
    find_link: collections.abc.Callable[..., virtual_addresses.Link],
) -> None:
    other = make_link("eth1", "veth", "172.30.0.2")
    assert find_link(LO, other, ETH0, make_link("veth1", "veth")) == LINK


@pytest.mark.parametrize(
    ("links", "reason"),
    [
        pytest.param(
            [LO, make_link("eth0", "", "172.17.0.2")],
            "eth0 is no link into a docker network of type bridge",
            id="a network card: the host's network",
        ),
        pytest.param(
            [LO, make_link("eth0", "macvlan", "172.17.0.2")],
            "eth0 is no link into a docker network of type bridge",
            id="macvlan: the network around the host",
        ),
        pytest.param(
            [LO, ETH0, make_link("docker0", "bridge", "172.18.0.1")],
            "eth0 is no link into a docker network of type bridge",
            id="the network of a host that is a container itself",
        ),
        pytest.param([LO], "no interface has the node's address 172.17.0.2", id="no such link"),
    ],
)
def test_where_no_address_is_given(
    find_link: collections.abc.Callable[..., virtual_addresses.Link],
    links: list[dict[str, typing.Any]],
    reason: str,
) -> None:
    with pytest.raises(errors.P8sError, match=reason):
        find_link(*links)


# --- what the kernel is told

ROUTES = """\
Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
eth0 00000000 010011AC 0003 0 0 0 00000000 0 0 0
eth0 000011AC 00000000 0001 0 0 0 0000FFFF 0 0 0
lo FEFF11AC 00000000 0005 0 0 0 FFFFFFFF 0 0 0
lo 00FEA8C0 00000000 0001 0 0 0 00FFFFFF 0 0 0
veth1 02FDA8C0 00000000 0005 0 0 0 FFFFFFFF 0 0 0
lo FDFF11AC 00000000 0005 0 0 0 FFFFFFFF 0 0 0
"""


def test_what_is_held_is_read_from_the_routes(tmp_path: pathlib.Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/route").write_text(ROUTES)
    assert virtual_addresses.list_held(tmp_path) == {A, B}


@dataclasses.dataclass
class Kernel:
    """A node whose kernel is told by commands that are recorded."""

    commands: fakes.Commands
    held: set[ipaddress.IPv4Address]
    announced: list[set[ipaddress.IPv4Address]]
    delay: pathlib.Path

    @property
    def batch(self) -> list[str]:
        """What `ip` is told."""
        (told,) = [stdin for command, stdin in self.commands.calls if command[0] == "ip"]
        return (told or "").splitlines()


@pytest.fixture
def kernel(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    delay = tmp_path / "proc/sys/net/ipv4/neigh/eth0/proxy_delay"
    delay.parent.mkdir(parents=True)
    delay.write_text("80")
    found = Kernel(fakes.Commands({"nft": "", "ip": ""}), set(), [], delay)
    monkeypatch.setattr(commands, "run", found.commands)
    monkeypatch.setattr(virtual_addresses, "pathlib", fakes.Rooted(tmp_path))
    monkeypatch.setattr(virtual_addresses, "list_held", lambda: found.held)
    monkeypatch.setattr(
        virtual_addresses, "announce", lambda _, added: found.announced.append(set(added))
    )
    return found


def test_what_is_wanted_is_held_and_what_is_not_is_given_up(kernel: Kernel) -> None:
    kernel.held = {B, C}
    virtual_addresses.hold(LINK, {A, B})
    assert kernel.commands.calls[0] == (["nft", "-f", "-"], virtual_addresses.ruleset({A, B}))
    assert kernel.batch == [
        "neighbour replace proxy 172.17.255.253 dev eth0",
        "route replace 172.17.255.253 dev lo src 172.17.0.2",
        "neighbour replace proxy 172.17.255.254 dev eth0",
        "route replace 172.17.255.254 dev lo src 172.17.0.2",
        "route delete 172.17.255.252 dev lo",
        "neighbour delete proxy 172.17.255.252 dev eth0",
    ]
    assert kernel.announced == [{A}]
    assert kernel.delay.read_text() == "0"


def test_nothing_is_left_of_none(kernel: Kernel) -> None:
    virtual_addresses.hold(LINK, set())
    emptied = "add table ip p8s_loadbalancer\ndelete table ip p8s_loadbalancer\n"
    assert kernel.commands.calls == [(["nft", "-f", "-"], emptied)]


def test_what_the_kernel_refuses_is_told(kernel: Kernel) -> None:
    kernel.commands.answers["ip"] = errors.CommandError("ip -batch -", code=1, output="no lo")
    with pytest.raises(errors.CommandError, match="no lo"):
        virtual_addresses.hold(LINK, {A})
    assert kernel.announced == []


# --- what the network is asked


class Line:
    """In place of a packet socket: records what is sent, and gives what it was given."""

    def __init__(self, *packets: bytes) -> None:
        self.packets = list(packets)
        self.sent: list[bytes] = []

    def send(self, packet: bytes) -> None:
        self.sent.append(packet)

    def settimeout(self, seconds: float) -> None:
        assert seconds > 0

    def recv(self, _: int) -> bytes:
        if not self.packets:
            raise TimeoutError
        return self.packets.pop(0)


def packet(
    hardware: bytes,
    sender: ipaddress.IPv4Address,
    target: ipaddress.IPv4Address = NOBODY,
    *,
    is_reply: bool = False,
) -> bytes:
    """An ARP packet of another machine's, or of the node's own."""
    link = dataclasses.replace(LINK, hardware_address=hardware)
    made = virtual_addresses.frame(link, sender=sender, target=target)
    return made[:21] + b"\x02" + made[22:] if is_reply else made


@pytest.mark.parametrize(
    ("arrived", "found"),
    [
        pytest.param(packet(LARGER, A, is_reply=True), {A}, id="an owner answers"),
        pytest.param(packet(LARGER, A, A), {A}, id="another has just taken it"),
        pytest.param(packet(LARGER, C, is_reply=True), set(), id="an address not asked for"),
        pytest.param(packet(LARGER, CLIENT, A), set(), id="a client asks"),
        pytest.param(packet(SMALLER, NOBODY, A), {A}, id="another that is before us looks too"),
        pytest.param(packet(LARGER, NOBODY, A), set(), id="another that is after us looks too"),
        pytest.param(packet(OWN, A, A), set(), id="our own"),
        pytest.param(b"short", set(), id="half a packet"),
    ],
)
def test_who_has_an_address(
    monkeypatch: pytest.MonkeyPatch, arrived: bytes, found: set[ipaddress.IPv4Address]
) -> None:
    line = Line(arrived)
    monkeypatch.setattr(virtual_addresses, "_open", lambda _: contextlib.nullcontext(line))
    assert virtual_addresses.find_others(LINK, {A, B}) == found
    asked = [
        virtual_addresses.frame(LINK, sender=sender, target=target)
        for target in (B, A)
        for sender in (LINK.address, NOBODY)
    ]
    assert line.sent == asked * 2


def test_a_frame() -> None:
    """As RFC 826 has it."""
    assert virtual_addresses.frame(LINK, sender=LINK.address, target=A).hex(" ", 2) == (
        "ffff ffff ffff 0242 ac11 0005 0806 "
        "0001 0800 0604 0001 0242 ac11 0005 ac11 0002 0000 0000 0000 ac11 fffe"
    )


def test_the_network_is_told_who_has_it_now(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line()
    monkeypatch.setattr(virtual_addresses, "_open", lambda _: contextlib.nullcontext(line))
    virtual_addresses.announce(LINK, {A})
    assert line.sent == [virtual_addresses.frame(LINK, sender=A, target=A)]
    monkeypatch.setattr(virtual_addresses, "_open", fakes.forbid)
    virtual_addresses.announce(LINK, set())
