"""Packet rules and the resolver."""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import pathlib
import re
import socket
import typing

import pytest

from p8s_supervisor import commands, errors, network, probes
from tests import fakes

ROOT = pathlib.Path("/")

# Of proc_net_tcp(5): the local address is four bytes as one number in the machine's byte order.
UDP = """\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  307: 0B00007F:A86D 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 29117 2 0000000000000000 0
"""
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:231D 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 29250 1 0000000000000000 100 0 0 10 0
   1: 0B00007F:9411 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 29118 1 0000000000000000 100 0 0 10 0
   2: 0B00007F:9411 0100007F:D2F6 06 00000000:00000000 03:00000F37 00000000     0        0 0 3 0000000000000000
"""
NO_UDP, NO_TCP = (f"{text.splitlines()[0]}\n" for text in (UDP, TCP))


def write_sockets(root: pathlib.Path, udp: str, tcp: str) -> pathlib.Path:
    """A /proc with these sockets."""
    (root / "proc/net").mkdir(parents=True, exist_ok=True)
    (root / "proc/net/udp").write_text(udp)
    (root / "proc/net/tcp").write_text(tcp)
    return root / "proc"


@pytest.mark.parametrize(
    ("udp", "tcp", "ports"),
    [
        pytest.param(UDP, TCP, {"udp": 43117, "tcp": 37905}, id="a network of one's own"),
        pytest.param(NO_UDP, NO_TCP, {}, id="docker's default bridge"),
        pytest.param(UDP, NO_TCP, {"udp": 43117}, id="one protocol alone"),
        pytest.param(
            UDP.replace("0B00007F", "0C00007F"),
            TCP.replace("0B00007F", "00000000"),
            {},
            id="other addresses are not docker's",
        ),
        pytest.param(
            UDP.replace("0B00007F:A86D 00000000:0000", "0100007F:A86D 0B00007F:0035"),
            NO_TCP,
            {},
            id="a client of docker's resolver is not the resolver",
        ),
    ],
)
def test_find_resolver_ports(
    tmp_path: pathlib.Path, udp: str, tcp: str, ports: dict[str, int]
) -> None:
    assert network.find_resolver_ports(write_sockets(tmp_path, udp, tcp)) == ports


def test_find_resolver_ports_reads_what_this_kernel_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # An address of loopback's own range, that no resolver of this machine has.
    monkeypatch.setattr(network, "EMBEDDED_RESOLVER", "127.83.11.5")
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.create_server(("127.83.11.5", 0)) as tcp,
    ):
        udp.bind(("127.83.11.5", 0))
        ports = {"udp": udp.getsockname()[1], "tcp": tcp.getsockname()[1]}
        assert network.find_resolver_ports() == ports
    assert network.find_resolver_ports() == {}


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        pytest.param("nameserver 10.0.0.53\n", "nameserver 10.0.0.53\n", id="a usual one"),
        pytest.param(
            "# made by docker\nsearch example.org\nnameserver 127.0.0.11\noptions ndots:0\n",
            "search example.org\nnameserver 172.17.0.2\noptions ndots:0\n",
            id="docker's own resolver is reached by the node's address",
        ),
        pytest.param(
            "nameserver 127.0.0.53\nnameserver 1.1.1.1\n",
            "nameserver 1.1.1.1\n",
            id="a resolver on loopback is left out",
        ),
        pytest.param(
            "nameserver ::1\nnameserver 2001:db8::53\n",
            "nameserver 2001:db8::53\n",
            id="IPv6 loopback",
        ),
        pytest.param(
            "nameserver fe80::1%eth0\n", "nameserver fe80::1%eth0\n", id="an address with a zone"
        ),
        pytest.param(
            "nameserver\nnameserver resolver.example\nnameserver 9.9.9.9\n",
            "nameserver 9.9.9.9\n",
            id="what is no address",
        ),
        pytest.param(
            "domain example.org\nsortlist 10.0.0.0\n; note\n\nnameserver 9.9.9.9\n",
            "nameserver 9.9.9.9\n",
            id="what kubelet does not read",
        ),
        pytest.param(
            "\tsearch a.example b.example\nnameserver 10.0.0.53\noptions timeout:1 edns0\n",
            "\tsearch a.example b.example\nnameserver 10.0.0.53\noptions timeout:1 edns0\n",
            id="search and options are kept as they are",
        ),
        pytest.param(
            " nameserver 10.0.0.53\n", " nameserver 10.0.0.53\n", id="kubelet reads past blanks"
        ),
    ],
)
def test_resolv_conf(own: str, expected: str) -> None:
    assert network.resolv_conf(own, node_address="172.17.0.2") == expected


@pytest.mark.parametrize(
    "own",
    [
        pytest.param("", id="empty"),
        pytest.param("nameserver 127.0.0.1\nnameserver ::1\n", id="loopback alone"),
        pytest.param("search a.example\nnameserver 127.0.0.53\n", id="search"),
        pytest.param("nameserver\nnameserver resolver.example\n", id="no address"),
        pytest.param("# nameserver 9.9.9.9\n", id="a comment"),
    ],
)
def test_where_pods_can_reach_no_nameserver_the_start_fails(own: str) -> None:
    with pytest.raises(errors.P8sError) as caught:
        network.resolv_conf(own, node_address="172.17.0.2")
    assert caught.value.message == (
        "the container's /etc/resolv.conf names no resolver that pods can reach"
    )
    assert caught.value.hint == "docker run --dns ADDRESS …"


def read_chains(ruleset: str) -> dict[str, list[str]]:
    """The rules of each base chain, by its type, hook and priority."""
    chains: dict[str, list[str]] = {}
    rules: list[str] = []
    for line in ruleset.splitlines():
        base = re.fullmatch(r" +type (\w+) hook (\w+) priority (\w+); policy accept;", line)
        if base:
            rules = chains.setdefault(" ".join(base.groups()), [])
        elif line.startswith("    "):
            rules.append(line.strip())
    return chains


REJECT = "ip daddr 10.96.0.0/16 counter reject"
REDIRECT_TCP = "ip daddr 172.17.0.2 tcp dport 53 dnat to 127.0.0.11:37905"
REDIRECT_UDP = "ip daddr 172.17.0.2 udp dport 53 dnat to 127.0.0.11:43117"


@pytest.mark.parametrize(
    ("ports", "redirects"),
    [
        pytest.param({}, [], id="without docker's resolver"),
        pytest.param({"udp": 43117, "tcp": 37905}, [REDIRECT_TCP, REDIRECT_UDP], id="with it"),
    ],
)
def test_ruleset(ports: dict[str, int], redirects: list[str]) -> None:
    plan = fakes.make_plan(ROOT, "--pod-cidr=10.97.0.0/16", "--service-cidr=10.96.0.0/16")
    assert read_chains(network.ruleset(plan, resolver_ports=ports)) == {
        "nat postrouting srcnat": ["ip saddr 10.97.0.0/16 ip daddr != 10.97.0.0/16 masquerade"],
        "nat prerouting dstnat": redirects,
        "nat output dstnat": redirects,
        "filter forward filter": [REJECT],
        "filter output filter": [REJECT],
    }


DUAL = ("--pod-cidr=10.97.0.0/16,fd42:97::/64", "--service-cidr=10.96.0.0/16,fd42:96::/112")


def test_a_cluster_of_ipv6_has_the_same_rules_and_none_for_docker_s_resolver() -> None:
    refuse = "ip6 daddr fd42:96::/112 counter reject"
    rules = network.ruleset(
        fakes.make_plan(ROOT, *fakes.IPV6_RANGES), resolver_ports={"udp": 1, "tcp": 2}
    )
    assert read_chains(rules) == {
        "nat postrouting srcnat": ["ip6 saddr fd42:97::/64 ip6 daddr != fd42:97::/64 masquerade"],
        "filter forward filter": [refuse],
        "filter output filter": [refuse],
    }
    assert rules.startswith("add table ip6 p8s\ndelete table ip6 p8s\ntable ip6 p8s {\n")


def test_a_dual_stack_cluster_has_the_rules_of_both_families() -> None:
    ports = {"udp": 43117, "tcp": 37905}
    four = fakes.make_plan(ROOT, "--pod-cidr=10.97.0.0/16", "--service-cidr=10.96.0.0/16")
    both = "".join(
        network.ruleset(plan, resolver_ports=ports)
        for plan in (four, fakes.make_plan(ROOT, *fakes.IPV6_RANGES))
    )
    assert network.ruleset(fakes.make_plan(ROOT, *DUAL), resolver_ports=ports) == both


def test_the_ruleset_replaces_its_own_table_and_touches_no_other() -> None:
    lines = network.ruleset(fakes.make_plan(ROOT), resolver_ports={}).splitlines()
    assert [line for line in lines if line and not line.startswith(" ")] == [
        "add table ip p8s",
        "delete table ip p8s",
        "table ip p8s {",
        "}",
    ]


@pytest.mark.parametrize(
    ("networks", "arguments", "wrong"),
    [
        pytest.param(["172.17.0.0/16", "fd00:7::/64"], DUAL, (), id="dual stack, no overlap"),
        pytest.param(
            ["fd42:97::/48"],
            DUAL,
            (
                (
                    "pod_cidr fd42:97::/64 overlaps the container's network fd42:97::/48: "
                    "choose another"
                ),
            ),
            id="an IPv6 network over a range",
        ),
        pytest.param(
            ["172.17.0.0/16"],
            DUAL,
            (
                (
                    "pod_cidr has the IPv6 range fd42:97::/64, but the container has no IPv6 "
                    "address: run it on a network with IPv6 (docker network create --ipv6 "
                    "--subnet fd00:7::/64 NAME)"
                ),
            ),
            id="a network without IPv6",
        ),
        pytest.param(["172.17.0.0/16"], [], (), id="no overlap"),
        pytest.param([], [], (), id="no network"),
        pytest.param(
            ["192.168.0.0/16"],
            [],
            (
                (
                    "service_cidr 192.168.254.0/24 overlaps the container's network 192.168.0.0/16: "
                    "choose another"
                ),
                (
                    "pod_cidr 192.168.253.0/24 overlaps the container's network 192.168.0.0/16: "
                    "choose another"
                ),
            ),
            id="both ranges",
        ),
        pytest.param(
            ["172.17.0.0/16", "10.96.4.0/24"],
            ["--service-cidr=10.96.0.0/16"],
            (
                (
                    "service_cidr 10.96.0.0/16 overlaps the container's network 10.96.4.0/24: "
                    "choose another"
                ),
            ),
            id="a network inside a range",
        ),
    ],
)
def test_check_ranges(
    networks: list[str], arguments: typing.Sequence[str], wrong: tuple[str, ...]
) -> None:
    facts = dataclasses.replace(
        fakes.FACTS,
        networks=tuple(ipaddress.ip_network(text) for text in networks),
        ipv6_address="fd00:7::2" if any(":" in text for text in networks) else None,
    )
    plan = fakes.make_plan(ROOT, *arguments, facts=facts)
    found: tuple[str, ...] = ()
    try:
        network.check_ranges(plan)
    except errors.SettingsError as error:
        found = error.errors
    assert found == wrong


@dataclasses.dataclass(frozen=True)
class Node:
    """A node whose /proc is a directory, and whose commands are recorded."""

    root: pathlib.Path
    commands: fakes.Commands

    def read_sysctl(self, name: str, family: str = "ipv4") -> str:
        return (self.root / "proc/sys/net" / family / name).read_text()


@pytest.fixture
def node(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node where docker's resolver listens, whatever its resolv.conf names."""
    for name in (
        "ipv4/ip_forward",
        "ipv4/conf/all/route_localnet",
        "ipv6/conf/all/forwarding",
        "ipv6/conf/default/accept_dad",
    ):
        file = tmp_path / "proc/sys/net" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("0")
    recorder = fakes.Commands({"nft": ""})
    find = functools.partial(network.find_resolver_ports, write_sockets(tmp_path, UDP, TCP))
    monkeypatch.setattr(network, "find_resolver_ports", find)
    monkeypatch.setattr(network, "pathlib", fakes.Rooted(tmp_path))
    monkeypatch.setattr(commands, "run", recorder)
    return Node(tmp_path, recorder)


def test_set_up_without_docker_s_resolver(node: Node, tmp_path: pathlib.Path) -> None:
    own = tmp_path / "resolv.conf"
    own.write_text("nameserver 10.0.0.53\n")
    plan = fakes.make_plan(ROOT)
    assert network.set_up(plan, own_resolv_conf=own) == "nameserver 10.0.0.53\n"
    rules = network.ruleset(plan, resolver_ports={})
    assert node.commands.calls == [(["nft", "-f", "-"], rules)]
    assert node.read_sysctl("ip_forward") == "1"
    assert node.read_sysctl("conf/all/route_localnet") == "0"
    assert node.read_sysctl("conf/all/forwarding", "ipv6") == "0"


def test_set_up_in_a_network_without_a_way_out(node: Node, tmp_path: pathlib.Path) -> None:
    own = tmp_path / "resolv.conf"
    own.write_text("nameserver 10.0.0.53\n")
    node.commands.answers["ip"] = ""
    facts = dataclasses.replace(fakes.FACTS, gateway=None)
    network.set_up(fakes.make_plan(ROOT, facts=facts), own_resolv_conf=own)
    route = "ip route replace 192.168.254.0/24 dev lo src 172.17.0.2"
    assert node.commands.calls[1:] == [(route.split(), None)]


def test_set_up_of_a_dual_stack_cluster_in_a_network_without_a_way_out(
    node: Node, tmp_path: pathlib.Path
) -> None:
    own = tmp_path / "resolv.conf"
    own.write_text("nameserver 10.0.0.53\n")
    node.commands.answers["ip"] = ""
    facts = dataclasses.replace(fakes.FACTS, gateway=None, ipv6_address="fd00:7::2")
    network.set_up(fakes.make_plan(ROOT, *DUAL, facts=facts), own_resolv_conf=own)
    routes = (
        "ip route replace 10.96.0.0/16 dev lo src 172.17.0.2",
        "ip route replace fd42:96::/112 dev lo src fd00:7::2",
    )
    assert node.commands.calls[1:] == [(route.split(), None) for route in routes]


def test_set_up_of_a_dual_stack_cluster(node: Node, tmp_path: pathlib.Path) -> None:
    own = tmp_path / "resolv.conf"
    own.write_text("nameserver 10.0.0.53\n")
    plan = fakes.make_plan(ROOT, *DUAL)
    network.set_up(plan, own_resolv_conf=own)
    rules = network.ruleset(plan, resolver_ports={})
    assert node.commands.calls == [(["nft", "-f", "-"], rules)]
    assert node.read_sysctl("conf/all/forwarding", "ipv6") == "1"
    assert node.read_sysctl("conf/default/accept_dad", "ipv6") == "0"


@pytest.mark.parametrize("resolver", ["10.0.0.53", "127.0.0.11", "127.0.0.53"])
def test_set_up_of_a_cluster_of_ipv6_alone(
    node: Node, tmp_path: pathlib.Path, resolver: str
) -> None:
    """Whatever the container's resolver: pods ask the node, which asks that one."""
    own = tmp_path / "resolv.conf"
    own.write_text(
        f"# made by docker\n\nnameserver {resolver}\nsearch a.example\noptions ndots:0\n"
    )
    facts = dataclasses.replace(fakes.FACTS, ipv6_address="fd00:7::2")
    plan = fakes.make_plan(ROOT, *fakes.IPV6_RANGES, facts=facts)
    found = network.set_up(plan, own_resolv_conf=own)
    assert found == "nameserver fd00:7::2\nsearch a.example\noptions ndots:0\n"
    assert node.commands.calls == [(["nft", "-f", "-"], network.ruleset(plan, resolver_ports={}))]
    assert node.read_sysctl("conf/all/route_localnet") == "0"
    assert node.read_sysctl("conf/all/forwarding", "ipv6") == "1"


@pytest.mark.parametrize(
    ("arguments", "relays"),
    [
        pytest.param((), False, id="IPv4"),
        pytest.param(DUAL, False, id="dual stack"),
        pytest.param(fakes.IPV6_RANGES, True, id="IPv6"),
    ],
)
def test_names_are_relayed_where_pods_have_no_ipv4(
    arguments: typing.Sequence[str], relays: bool
) -> None:
    plan = fakes.make_plan(ROOT, *arguments)
    assert network.relays_names(plan) is relays
    assert network.static_pods(plan) == (*probes.STATIC_PODS, *(["resolver"] if relays else []))


def test_set_up_with_docker_s_resolver(node: Node, tmp_path: pathlib.Path) -> None:
    own = tmp_path / "resolv.conf"
    own.write_text("nameserver 127.0.0.11\noptions ndots:0\n")
    plan = fakes.make_plan(ROOT)
    found = network.set_up(plan, own_resolv_conf=own)
    assert found == "nameserver 172.17.0.2\noptions ndots:0\n"
    rules = network.ruleset(plan, resolver_ports={"tcp": 37905, "udp": 43117})
    assert node.commands.calls == [(["nft", "-f", "-"], rules)]
    assert node.read_sysctl("ip_forward") == "1"
    assert node.read_sysctl("conf/all/route_localnet") == "1"


def test_set_up_says_what_nftables_refused(node: Node, tmp_path: pathlib.Path) -> None:
    own = tmp_path / "resolv.conf"
    own.write_text("nameserver 10.0.0.53\n")
    node.commands.answers["nft"] = errors.CommandError("nft -f -", code=1, output="no such chain")
    with pytest.raises(errors.CommandError, match="no such chain"):
        network.set_up(fakes.make_plan(ROOT), own_resolv_conf=own)
