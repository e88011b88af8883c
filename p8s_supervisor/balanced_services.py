"""Which Service of type LoadBalancer gets which address of the docker network."""

from __future__ import annotations

import collections.abc
import dataclasses
import ipaddress
import typing

Address = ipaddress.IPv4Address
# Of spec.loadBalancerClass; a Service without a class is for the add-on too.
CLASS_PREFIX = "p8s.local/"
# Asks for an address, as the older spec.loadBalancerIP does.
ANNOTATION = "p8s.local/load-balancer-ip"
# So many addresses are given at most, and as many are looked through for one that is free.
LIMIT = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class Service:
    """A Service that is to have an address.

    Attributes:
        uid: its UID.
        namespace: where it is.
        name: its name.
        created: when it was made; the older one keeps an address that two have.
        wanted: the address that it asks for; empty where any will do.
        ingress: the addresses and names in its status.
        ipv4: whether it has an IPv4 address in the cluster.
    """

    uid: str
    namespace: str
    name: str
    created: str = ""
    wanted: str = ""
    ingress: tuple[str, ...] = ()
    ipv4: bool = True

    @property
    def held(self) -> Address | None:
        """The address in its status."""
        return parse(self.ingress[0]) if len(self.ingress) == 1 else None

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pool:
    """Where the addresses come from.

    Attributes:
        network: the docker network's.
        reserved: addresses in it that are not to be given: the node's and the gateway's.
    """

    network: ipaddress.IPv4Network
    reserved: frozenset[Address]

    def list_candidates(self) -> list[Address]:
        """The upper half of the network, the highest first: docker gives its own from the bottom up."""
        top = int(self.network.broadcast_address) - 1
        half = int(self.network.network_address) + self.network.num_addresses // 2
        numbers = range(top, max(half, top - LIMIT + 1) - 1, -1)
        return [one for one in map(Address, numbers) if one not in self.reserved]

    def find_objection(self, address: Address) -> str | None:
        """Why an address cannot be given to anybody."""
        if address not in self.network:
            return f"{address} is outside the docker network, {self.network}"
        if address in self.reserved:
            return f"{address} is the node's own or its gateway's"
        if address in (self.network.network_address, self.network.broadcast_address):
            return f"{address} is no host's address in {self.network}"
        return None


@dataclasses.dataclass(frozen=True)
class Plan:
    """Who is to have what.

    Attributes:
        given: UID → its address.
        refused: UID → why it has none.
    """

    given: dict[str, Address]
    refused: dict[str, str]


def parse(text: str) -> Address | None:
    """An IPv4 address; None where the text is none."""
    try:
        return Address(text)
    except ValueError:
        return None


def read(found: collections.abc.Mapping[str, typing.Any]) -> Service | None:
    """What the apiserver says of a Service; None where it is none for the add-on."""
    metadata, spec = found["metadata"], found["spec"]
    kind = spec.get("loadBalancerClass")
    if spec.get("type") != "LoadBalancer" or not (kind is None or kind.startswith(CLASS_PREFIX)):
        return None
    status = found.get("status", {}).get("loadBalancer", {}).get("ingress") or []
    annotations = metadata.get("annotations") or {}
    return Service(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        created=metadata.get("creationTimestamp") or "",
        wanted=annotations.get(ANNOTATION) or spec.get("loadBalancerIP") or "",
        ingress=tuple(one.get("ip") or one.get("hostname") or "" for one in status),
        ipv4="IPv4" in (spec.get("ipFamilies") or ["IPv4"]),
    )


def make_plan(
    services: collections.abc.Iterable[Service],
    pool: Pool,
    taken: collections.abc.Set[Address] = frozenset(),
) -> Plan:
    """Give each Service an address.

    Who has one keeps it, the oldest first; then come those that ask for a certain one; what is left
    gets the highest that is free.

    Args:
        services: all of them.
        pool: where the addresses come from.
        taken: addresses that somebody else in the network answers for.
    """
    owners: dict[Address, Service] = {}
    refused: dict[str, str] = {}
    asking: list[Service] = []
    left: list[Service] = []
    for service in sorted(services, key=lambda one: (one.created, one.uid)):
        held = service.held
        if not service.ipv4:
            refused[service.uid] = "it has no IPv4 address in the cluster, and no other is given"
        elif (
            held is not None
            and service.wanted in ("", str(held))
            and pool.find_objection(held) is None
            and held not in taken
            and held not in owners
            and len(owners) < LIMIT
        ):
            owners[held] = service
        else:
            (asking if service.wanted else left).append(service)
    free = (one for one in pool.list_candidates() if one not in taken)
    for service in asking + left:
        if len(owners) >= LIMIT:
            found: Address | str = f"{LIMIT} Services have an address: no more are given"
        elif service.wanted:
            found = _find_wanted(service, pool, taken, owners)
        else:
            none = f"no address is free in the upper half of {pool.network}"
            found = next((one for one in free if one not in owners), none)
        if isinstance(found, str):
            refused[service.uid] = found
        else:
            owners[found] = service
    return Plan({service.uid: address for address, service in owners.items()}, refused)


def _find_wanted(
    service: Service,
    pool: Pool,
    taken: collections.abc.Set[Address],
    owners: collections.abc.Mapping[Address, Service],
) -> Address | str:
    """The address that a Service asks for, or why it cannot have it."""
    address = parse(service.wanted)
    if address is None:
        return f"{service.wanted!r} is no IPv4 address"
    if objection := pool.find_objection(address):
        return objection
    if address in owners:
        return f"{address} is the address of Service {owners[address]}"
    if address in taken:
        return f"{address} is in use by another container or machine in {pool.network}"
    return address
