"""What this container is like: found out at start, never assumed."""

from __future__ import annotations

import dataclasses
import ipaddress
import pathlib
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
        networks: what the container's interfaces are directly connected to.
        cgroup_version: 1 or 2.
        privileged: whether the bounding set holds CAP_SYS_ADMIN.
        can_raise_limits: whether it holds CAP_SYS_RESOURCE.
    """

    address: str
    gateway: str | None
    networks: tuple[ipaddress.IPv4Network, ...]
    cgroup_version: int
    privileged: bool
    can_raise_limits: bool


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


def own_address() -> str:
    """The node's IPv4 address.

    Raises:
        P8sError: the container has no network.
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
            "the container has no network",
            hint="run it on a docker network (not --network none)",
        )
    return address


def find_facts() -> Facts:
    """Look at the container.

    Raises:
        P8sError: it has no network.
    """
    gateway, networks = routes()
    capabilities = bounding_set()
    return Facts(
        address=own_address(),
        gateway=gateway,
        networks=networks,
        cgroup_version=2 if pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1,
        privileged=bool(capabilities >> CAP_SYS_ADMIN & 1),
        can_raise_limits=bool(capabilities >> CAP_SYS_RESOURCE & 1),
    )
