"""What this container is like: found out at start, never assumed."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import pathlib
import re
import socket
import struct

from p8s_supervisor import errors

# Source: linux/capability.h
CAP_SYS_ADMIN, CAP_SYS_RESOURCE = 21, 24


@dataclasses.dataclass(frozen=True)
class Facts:
    """The node's surroundings.

    Attributes:
        address: the node's IPv4 address, on the interface of the default route.
        gateway: the default route's gateway; None in a network without one.
        ipv6_address: the node's, None where the container has none but its links' own.
        networks: what the container's interfaces are directly connected to.
        mtu: the largest packet that passes all of these, in bytes.
        cgroup_version: 1 or 2.
        privileged: whether the bounding set holds CAP_SYS_ADMIN.
        can_raise_limits: whether it holds CAP_SYS_RESOURCE.
        kernel: the first two numbers of its version.
    """

    address: str
    gateway: str | None
    ipv6_address: str | None
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    mtu: int
    cgroup_version: int
    privileged: bool
    can_raise_limits: bool
    kernel: tuple[int, int]


def bounding_set(proc: pathlib.Path = pathlib.Path("/proc")) -> int:
    """This process' capability bounding set, a bit for each capability."""
    for line in (proc / "self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            return int(line.split()[1], 16)
    return 0


def routes(
    proc: pathlib.Path = pathlib.Path("/proc"),
) -> tuple[str | None, tuple[ipaddress.IPv4Network, ...]]:
    """The default gateway and the directly connected networks, from /proc/net/route."""
    gateway, connected = None, []
    for line in (proc / "net/route").read_text().splitlines()[1:]:
        interface, destination, via, _, _, _, _, mask = line.split()[:8]
        target, hop, netmask = (
            ipaddress.IPv4Address(struct.pack("<L", int(field, 16)))
            for field in (destination, via, mask)
        )
        if int(netmask) == 0:
            gateway = str(hop) if int(hop) else None
        # A single address is a pod's, where this is not the container's first sidecar.
        elif int(hop) == 0 and interface != "lo" and int(netmask) != 0xFFFFFFFF:
            connected.append(ipaddress.IPv4Network(f"{target}/{netmask}"))
    return gateway, tuple(connected)


def ipv6_networks(proc: pathlib.Path = pathlib.Path("/proc")) -> list[ipaddress.IPv6Interface]:
    """The container's IPv6 addresses with their networks, from /proc/net/if_inet6."""
    file = proc / "net/if_inet6"
    if not file.exists():  # a kernel without IPv6
        return []
    found = []
    for line in file.read_text().splitlines():
        address, _, prefix, scope, _, interface = line.split()
        length = int(prefix, 16)
        # Scope 0 is global. A single address is that of a pod's link, as in `routes`.
        if int(scope, 16) == 0 and interface != "lo" and length != 128:
            found.append(ipaddress.IPv6Interface((int(address, 16), length)))
    return found


def find_mtu(
    proc: pathlib.Path = pathlib.Path("/proc"), sys: pathlib.Path = pathlib.Path("/sys")
) -> int:
    """The smallest MTU of the interfaces that `routes` looks at, in bytes."""
    lines = (proc / "net/route").read_text().splitlines()[1:]
    names = {line.split()[0] for line in lines if int(line.split()[7], 16) != 0xFFFFFFFF} - {"lo"}
    return min((int((sys / f"class/net/{name}/mtu").read_text()) for name in names), default=1500)


def own_address() -> str:
    """The node's IPv4 address.

    Raises:
        P8sError: the container has none.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket sends nothing; it asks for the route. The address is
            # one of TEST-NET-1 (RFC 5737).
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            pass  # an internal network has no default route: the hostname's address is left
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        address = "127.0.0.1"
    if address.startswith("127."):
        raise errors.P8sError(
            "the container has no IPv4 address",
            hint="run it on a docker network that has IPv4 (not --network none)",
        )
    return address


def find_kernel(release: str) -> tuple[int, int]:
    """The first two numbers of a kernel's version, such as 6.12.48+deb13-amd64."""
    numbers = re.match(r"(\d+)\.(\d+)", release)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def find_facts() -> Facts:
    """Look at the container.

    Raises:
        P8sError: it has no IPv4 address.
    """
    gateway, networks = routes()
    ipv6 = ipv6_networks()
    capabilities = bounding_set()
    return Facts(
        address=own_address(),
        gateway=gateway,
        ipv6_address=str(ipv6[0].ip) if ipv6 else None,
        networks=(*networks, *(found.network for found in ipv6)),
        mtu=find_mtu(),
        cgroup_version=2 if pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1,
        privileged=bool(capabilities >> CAP_SYS_ADMIN & 1),
        can_raise_limits=bool(capabilities >> CAP_SYS_RESOURCE & 1),
        kernel=find_kernel(os.uname().release),
    )
