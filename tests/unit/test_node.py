"""Facts of the node, from a fake /proc."""

from __future__ import annotations

import ipaddress
import os
import pathlib
import socket

import pytest

from p8s_supervisor import errors, node
from tests import fakes

HEADER = (
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
    "                                                       "
)
DEFAULT = "eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0"
CONNECTED = "eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0"
SECOND = "eth1\t000013AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0"
VIA = "eth0\t0000000A\t020011AC\t0003\t0\t0\t0\t000000FF\t0\t0\t0"
LOOPBACK = "lo\t0000007F\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0"
HOST = "eth0\t010200C0\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0"
LINK_DEFAULT = "eth0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0"


@pytest.mark.parametrize(
    ("lines", "gateway", "networks"),
    [
        pytest.param([DEFAULT, CONNECTED], "172.17.0.1", ["172.17.0.0/16"], id="docker's bridge"),
        pytest.param(
            [DEFAULT, CONNECTED, SECOND],
            "172.17.0.1",
            ["172.17.0.0/16", "172.19.0.0/16"],
            id="two networks",
        ),
        pytest.param([CONNECTED], None, ["172.17.0.0/16"], id="an internal network"),
        pytest.param(
            [DEFAULT, VIA, CONNECTED],
            "172.17.0.1",
            ["172.17.0.0/16"],
            id="a network behind a gateway is not connected",
        ),
        pytest.param([LOOPBACK, CONNECTED], None, ["172.17.0.0/16"], id="loopback does not count"),
        pytest.param([HOST], None, [], id="a host route, which a pod has"),
        pytest.param([LINK_DEFAULT], None, [], id="a default route without a gateway"),
        pytest.param([], None, [], id="no network"),
    ],
)
def test_routes(
    tmp_path: pathlib.Path, lines: list[str], gateway: str | None, networks: list[str]
) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/route").write_text("\n".join([HEADER, *lines]) + "\n")
    expected = tuple(ipaddress.IPv4Network(network) for network in networks)
    assert node.routes(tmp_path) == (gateway, expected)


# Of /proc/net/if_inet6: address, number, prefix, scope, flags, interface.
LOOPBACK6 = "00000000000000000000000000000001 01 80 10 80       lo"
LINK6 = "fe80000000000000004202fffe110002 1d 40 20 80     eth0"
OWN6 = "fd000007000000000000000000000002 1d 40 00 82     eth0"
POD6 = "fd420253000000000000000000000001 20 80 00 80 veth1234"


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        pytest.param([LOOPBACK6], [], id="loopback alone"),
        pytest.param([LOOPBACK6, LINK6], [], id="a link's own"),
        pytest.param([LOOPBACK6, LINK6, OWN6, POD6], ["fd00:7::2/64"], id="a network, and pods"),
        pytest.param(None, [], id="a kernel without IPv6"),
    ],
)
def test_ipv6_networks(tmp_path: pathlib.Path, lines: list[str] | None, found: list[str]) -> None:
    (tmp_path / "net").mkdir()
    if lines is not None:
        (tmp_path / "net/if_inet6").write_text("\n".join(lines) + "\n")
    assert [str(one) for one in node.ipv6_networks(tmp_path)] == found


POD = "veth1234\t020011AC\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([DEFAULT, CONNECTED], 1400, id="docker's bridge"),
        pytest.param([DEFAULT, CONNECTED, SECOND], 1280, id="the smallest of two networks"),
        pytest.param([DEFAULT, CONNECTED, POD, LOOPBACK], 1400, id="pods' links do not count"),
        pytest.param([], 1500, id="no network"),
    ],
)
def test_find_mtu(tmp_path: pathlib.Path, lines: list[str], expected: int) -> None:
    for name, mtu in {"eth0": 1400, "eth1": 1280, "veth1234": 900, "lo": 512}.items():
        (tmp_path / "class/net" / name).mkdir(parents=True)
        (tmp_path / "class/net" / name / "mtu").write_text(f"{mtu}\n")
    (tmp_path / "net").mkdir()
    (tmp_path / "net/route").write_text("\n".join([HEADER, *lines]) + "\n")
    assert node.find_mtu(tmp_path, tmp_path) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param(
            "Name:\tpython3\nCapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\n",
            0x1FFFFFFFFFF,
            id="privileged",
        ),
        pytest.param("CapBnd:\t00000000a80425fb\n", 0xA80425FB, id="docker's default"),
        pytest.param("Name:\tpython3\n", 0, id="a kernel that does not say"),
    ],
)
def test_bounding_set(tmp_path: pathlib.Path, status: str, expected: int) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/status").write_text(status)
    assert node.bounding_set(tmp_path) == expected


@pytest.mark.parametrize(
    ("capabilities", "controllers", "expected"),
    [
        pytest.param(0x1FFFFFFFFFF, True, (2, True, True), id="privileged, cgroup v2"),
        pytest.param(0xA80425FB, False, (1, False, False), id="docker's default, cgroup v1"),
        pytest.param(
            0x1FFFFFFFFFF & ~(1 << 24), False, (1, True, False), id="without CAP_SYS_RESOURCE"
        ),
        pytest.param(1 << 24, True, (2, False, True), id="CAP_SYS_RESOURCE alone"),
    ],
)
def test_find_facts(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capabilities: int,
    controllers: bool,
    expected: tuple[int, bool, bool],
) -> None:
    if controllers:
        (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
        (tmp_path / "sys/fs/cgroup/cgroup.controllers").write_text("cpu memory\n")
    networks = (ipaddress.IPv4Network("172.17.0.0/16"),)
    monkeypatch.setattr(node, "pathlib", fakes.Rooted(tmp_path))
    monkeypatch.setattr(node, "routes", lambda: ("172.17.0.1", networks))
    monkeypatch.setattr(node, "ipv6_networks", lambda: [ipaddress.IPv6Interface("fd00:7::2/64")])
    monkeypatch.setattr(node, "find_mtu", lambda: 1400)
    monkeypatch.setattr(node, "bounding_set", lambda: capabilities)
    monkeypatch.setattr(node, "own_address", lambda: "172.17.0.2")
    version, privileged, can_raise_limits = expected
    assert node.find_facts() == node.Facts(
        address="172.17.0.2",
        gateway="172.17.0.1",
        ipv6_address="fd00:7::2",
        networks=(*networks, ipaddress.IPv6Network("fd00:7::/64")),
        mtu=1400,
        cgroup_version=version,
        privileged=privileged,
        can_raise_limits=can_raise_limits,
        kernel=node.find_kernel(os.uname().release),
    )


@pytest.mark.parametrize(
    ("release", "expected"),
    [("6.12.48+deb13-amd64", (6, 12)), ("5.4.0", (5, 4)), ("5.13", (5, 13)), ("odd", (0, 0))],
)
def test_find_kernel(release: str, expected: tuple[int, int]) -> None:
    assert node.find_kernel(release) == expected


class NoRoute(socket.socket):
    """A socket in a network without a default route."""

    def connect(self, address: object, /) -> None:
        raise OSError(101, f"Network is unreachable: {address}")


class Routed(socket.socket):
    """A socket whose route leaves from 172.17.0.2."""

    def connect(self, address: object, /) -> None:
        assert address == ("192.0.2.1", 9)

    def getsockname(self) -> tuple[str, int]:
        return ("172.17.0.2", 40000)


def test_the_own_address_is_that_of_the_default_route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", Routed)
    assert node.own_address() == "172.17.0.2"


def test_without_a_default_route_the_hostname_s_address_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "socket", NoRoute)
    monkeypatch.setattr(socket, "gethostbyname", lambda _: "10.7.0.2")
    assert node.own_address() == "10.7.0.2"


def unresolvable(_: str) -> str:
    raise socket.gaierror(-2, "Name or service not known")


@pytest.mark.parametrize(
    "resolve",
    [
        pytest.param(lambda _: "127.0.1.1", id="loopback alone"),
        pytest.param(unresolvable, id="no address at all"),
    ],
)
def test_a_container_without_a_network_is_refused(
    monkeypatch: pytest.MonkeyPatch, resolve: object
) -> None:
    monkeypatch.setattr(socket, "socket", NoRoute)
    monkeypatch.setattr(socket, "gethostbyname", resolve)
    with pytest.raises(errors.P8sError) as caught:
        node.own_address()
    assert (caught.value.message, caught.value.hint) == (
        "the container has no IPv4 address",
        "run it on a docker network that has IPv4 (not --network none)",
    )
