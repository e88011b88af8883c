"""Addresses of the docker network that the node answers for beside its own.

No interface has them, and no route says that they are local: they would be taken for the node's own by
kubelet, by pods' hostPorts and by whatever listens on the node's every address. The kernel answers ARP
for them (proxy ARP), and kube-proxy's rules rewrite what arrives for a Service. Whatever else arrives is
refused.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import ipaddress
import json
import pathlib
import socket
import struct
import time

from p8s_supervisor import commands, errors, node

Address = ipaddress.IPv4Address
TABLE = "p8s_loadbalancer"
# That long before the second of two questions, and after it: on a bridge of this host a kernel answers in
# microseconds, however busy its machine is.
ANSWER_SECONDS = 0.05
# Source: linux/if_ether.h, and RFC 826.
ETH_P_ARP, REQUEST = 0x0806, 1
BROADCAST, NOBODY = b"\xff" * 6, Address(0)
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ETHERNET_BYTES = 14


@dataclasses.dataclass(frozen=True, kw_only=True)
class Link:
    """The node's link into the docker network.

    Attributes:
        interface: its name in the container.
        hardware_address: its MAC.
        address: the node's own.
        network: the docker network's range.
    """

    interface: str
    hardware_address: bytes
    address: Address
    network: ipaddress.IPv4Network


@functools.cache
def find_link(facts: node.Facts) -> Link:
    """The link that has the node's address; looked for until it is found.

    Raises:
        CommandError: `ip` failed.
        P8sError: it is none into a network of the engine's own.
    """
    found = json.loads(commands.run(["ip", "-details", "-json", "address", "show"]))
    kinds = [link.get("linkinfo", {}).get("info_kind", "") for link in found]
    for link, kind in zip(found, kinds, strict=True):
        for one in link.get("addr_info", []):
            if one.get("local") != facts.address:
                continue
            # Where the engine itself runs in a container, the host's link is such a one too; but
            # there are the engine's bridges.
            if kind != "veth" or "bridge" in kinds:
                raise errors.P8sError(
                    f"{link['ifname']} is no link into a docker network of type bridge, and the "
                    "addresses around it are not p8s' to give: run the container on such a network"
                )
            return Link(
                interface=link["ifname"],
                hardware_address=bytes.fromhex(link["address"].replace(":", "")),
                address=Address(facts.address),
                network=ipaddress.IPv4Interface(f"{facts.address}/{one['prefixlen']}").network,
            )
    raise errors.P8sError(f"no interface has the node's address {facts.address}")


def list_held(proc: pathlib.Path = pathlib.Path("/proc")) -> set[Address]:
    """The addresses that the node answers for now: a route for each single one ends at lo."""
    found = set()
    for line in (proc / "net/route").read_text().splitlines()[1:]:
        interface, destination, _, _, _, _, _, mask = line.split()[:8]
        if interface == "lo" and int(mask, 16) == 0xFFFFFFFF:
            found.add(Address(struct.pack("<L", int(destination, 16))))
    return found


def hold(link: Link, wanted: collections.abc.Set[Address]) -> None:
    """Answer for these addresses, and for no others. Safe to repeat.

    Raises:
        CommandError: the kernel refused.
        OSError: there is no such link any more.
    """
    held = list_held()
    commands.run(["nft", "-f", "-"], stdin=ruleset(wanted))
    # The kernel would put an answer off by up to 0.8 s.
    delay = f"/proc/sys/net/ipv4/neigh/{link.interface}/proxy_delay"
    pathlib.Path(delay).write_text("0")
    # The route is what makes the kernel answer, and what `list_held` sees: last at the beginning,
    # first at the end, so that what is cut short is found and done again.
    lines = [
        line
        for address in sorted(wanted)
        for line in (
            f"neighbour replace proxy {address} dev {link.interface}",
            f"route replace {address} dev lo src {link.address}",
        )
    ] + [
        line
        for address in sorted(held - wanted)
        for line in (
            f"route delete {address} dev lo",
            f"neighbour delete proxy {address} dev {link.interface}",
        )
    ]
    if lines:
        commands.run(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")
    announce(link, wanted - held)


def ruleset(wanted: collections.abc.Set[Address]) -> str:
    """The nftables rules, as one atomic replacement of the table; without an address: no table."""
    emptied = f"add table ip {TABLE}\ndelete table ip {TABLE}\n"
    if not wanted:
        return emptied
    listed = ", ".join(map(str, sorted(wanted)))
    return f"""{emptied}table ip {TABLE} {{
  set addresses {{
    type ipv4_addr; elements = {{ {listed} }}
  }}
  # kube-proxy has not rewritten it: no Service has this port. From the network, and from pods; then
  # from the node itself.
  chain refuse_forwarded {{
    type filter hook forward priority filter; policy accept;
    ip daddr @addresses meta l4proto tcp counter reject with tcp reset
    ip daddr @addresses counter reject
  }}
  chain refuse_of_the_node {{
    type filter hook output priority filter; policy accept;
    ip daddr @addresses meta l4proto tcp counter reject with tcp reset
    ip daddr @addresses counter reject
  }}
}}
"""


def find_others(
    link: Link,
    asked: collections.abc.Set[Address],
    *,
    seconds: float = ANSWER_SECONDS,
) -> set[Address]:
    """Which of these addresses somebody else in the network has, or is about to take.

    Two questions for each, as from the node, which every owner answers; and as from nobody (RFC 5227),
    by which another p8s that looks at the same moment is known. Of these the smaller MAC may go on.

    Raises:
        OSError: there is no such link any more.
    """
    found: set[Address] = set()
    if not asked:
        return found
    with _open(link) as line:
        for _ in range(2):
            for address in sorted(asked):
                for sender in (link.address, NOBODY):
                    line.send(frame(link, sender=sender, target=address))
            deadline = time.monotonic() + seconds
            while (left := deadline - time.monotonic()) > 0:
                line.settimeout(left)
                try:
                    found |= read_claims(link, line.recv(2048)) & asked
                except TimeoutError:
                    break
    return found


def read_claims(link: Link, packet: bytes) -> set[Address]:
    """The addresses that an ARP packet claims for another machine: none, or one."""
    body = packet[_ETHERNET_BYTES : _ETHERNET_BYTES + _ARP.size]
    if len(body) < _ARP.size:
        return set()
    _, _, _, _, operation, hardware, sender, _, target = _ARP.unpack(body)
    if hardware == link.hardware_address:
        return set()
    if sender != NOBODY.packed:
        return {Address(sender)}
    is_before_us = operation == REQUEST and hardware < link.hardware_address
    return {Address(target)} if is_before_us else set()


def announce(link: Link, addresses: collections.abc.Set[Address]) -> None:
    """Tell the network who has these addresses now: some may know an earlier owner.

    Raises:
        OSError: there is no such link any more.
    """
    if addresses:
        with _open(link) as line:
            for address in sorted(addresses):
                line.send(frame(link, sender=address, target=address))


def frame(link: Link, *, sender: Address, target: Address) -> bytes:
    """An Ethernet frame to everybody: who has the target's address? The sender asks."""
    own = link.hardware_address
    fields = (1, 0x0800, 6, 4, REQUEST, own, sender.packed, bytes(6), target.packed)
    return BROADCAST + own + struct.pack("!H", ETH_P_ARP) + _ARP.pack(*fields)


def _open(link: Link) -> socket.socket:
    line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP))
    try:
        line.bind((link.interface, ETH_P_ARP))
    except OSError:
        line.close()
        raise
    return line
