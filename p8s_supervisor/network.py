"""The node's own packet rules and its resolver: all in the container's network namespace."""

from __future__ import annotations

import ipaddress
import pathlib
import socket
import sys

from p8s_supervisor import commands, components, errors, parsers, probes

# Where docker's embedded resolver answers in a container on a user-defined network.
EMBEDDED_RESOLVER = "127.0.0.11"
TABLE = "p8s"
# The static pod that asks for pods without IPv4.
RELAY = "resolver"
# How the names of the system's own pods begin.
SYSTEM_PODS = (*probes.STATIC_PODS, RELAY, *probes.SYSTEM_LABELS)


def check_ranges(plan: components.Plan) -> None:
    """Refuse cluster ranges that do not fit the container's networks.

    Raises:
        SettingsError: with each overlap, and with a range of IPv6 where the container has no IPv6.
    """
    wrong = [
        f"{name} {chosen} overlaps the container's network {network}: choose another"
        for name, ranges in (
            ("service_cidr", plan.settings.service_cidr),
            ("pod_cidr", plan.settings.pod_cidr),
        )
        for chosen in ranges.networks
        for network in plan.facts.networks
        if chosen.overlaps(network)
    ]
    if (ipv6 := plan.settings.pod_cidr.of_family(6)) and plan.facts.ipv6_address is None:
        wrong.append(
            f"pod_cidr has the IPv6 range {ipv6}, but the container has no IPv6 address: run it on "
            "a network with IPv6 (docker network create --ipv6 --subnet fd00:7::/64 NAME)"
        )
    if wrong:
        raise errors.SettingsError(wrong)


def ruleset(plan: components.Plan, *, resolver_ports: dict[str, int]) -> str:
    """The nftables rules, as one atomic replacement of each family's table.

    Args:
        plan: see `components.Plan`.
        resolver_ports: for "udp" and "tcp" the port where docker's resolver really listens;
            empty where there is none.
    """
    chosen = plan.settings
    return "".join(
        _table(
            pods,
            services,
            more=_redirect_resolver(plan, resolver_ports) if pods.version == 4 else "",
        )
        for pods, services in zip(
            chosen.pod_cidr.networks, chosen.service_cidr.networks, strict=True
        )
    )


def _redirect_resolver(plan: components.Plan, ports: dict[str, int]) -> str:
    """Chains by which the node's address leads to docker's resolver, which has IPv4 alone."""
    redirects = "\n".join(
        f"    ip daddr {plan.facts.address} {protocol} dport 53 dnat to {EMBEDDED_RESOLVER}:{port}"
        for protocol, port in sorted(ports.items())
    )
    return f"""\
  # For pods, and for what runs in the node's own network namespace.
  chain resolver_of_pods {{
    type nat hook prerouting priority dstnat; policy accept;
{redirects}
  }}
  chain resolver_of_the_node {{
    type nat hook output priority dstnat; policy accept;
{redirects}
  }}
"""


def _table(pods: parsers.Network, services: parsers.Network, *, more: str) -> str:
    """A family's table: what both have, and more chains."""
    family = "ip" if pods.version == 4 else "ip6"
    return f"""\
add table {family} {TABLE}
delete table {family} {TABLE}
table {family} {TABLE} {{
  chain outgoing {{
    type nat hook postrouting priority srcnat; policy accept;
    {family} saddr {pods} {family} daddr != {pods} masquerade
  }}
{more}\
  # An address of the service range that kube-proxy has not rewritten belongs to no service; it
  # must not leave for the network outside, where somebody may answer.
  chain refuse_of_pods {{
    type filter hook forward priority filter; policy accept;
    {family} daddr {services} counter reject
  }}
  chain refuse_of_the_node {{
    type filter hook output priority filter; policy accept;
    {family} daddr {services} counter reject
  }}
}}
"""


def find_resolver_ports(proc: pathlib.Path = pathlib.Path("/proc")) -> dict[str, int]:
    """Where docker's resolver listens: for "udp" and "tcp" its port at 127.0.0.11.

    docker redirects port 53 to it by rules that pods' packets do not pass, and whose form changes
    from release to release; its sockets are in the container's network namespace all the same.
    """
    words = int.from_bytes(socket.inet_aton(EMBEDDED_RESOLVER), sys.byteorder)
    found = {}
    for protocol in ("udp", "tcp"):
        for line in (proc / "net" / protocol).read_text().splitlines()[1:]:
            address, port = line.split()[1].split(":")
            if int(address, 16) == words:
                found[protocol] = int(port, 16)
    return found


def resolv_conf(own: str, *, node_address: str) -> str:
    """The resolv.conf for pods: loopback resolvers, which pods cannot reach, are replaced or left out.

    Args:
        own: the container's own resolv.conf.
        node_address: where the node redirects to docker's embedded resolver.

    Raises:
        P8sError: no resolver is left.
    """
    kept = []
    for line in own.splitlines():
        words = line.split()
        if not words or words[0] not in ("nameserver", "search", "options"):
            continue
        if words[0] == "nameserver" and words[1:2] == [EMBEDDED_RESOLVER]:
            kept.append(f"nameserver {node_address}")
        elif words[0] == "nameserver" and _is_loopback(words[1:2]):
            continue
        else:
            kept.append(line)
    if not any(line.split()[0] == "nameserver" for line in kept):
        raise errors.P8sError(
            "the container's /etc/resolv.conf names no resolver that pods can reach",
            hint="docker run --dns ADDRESS …",
        )
    return "\n".join(kept) + "\n"


def relays_names(plan: components.Plan) -> bool:
    """Whether pods' questions go through `RELAY`.

    Pods without IPv4 reach neither docker's resolver nor another one of IPv4.
    """
    return plan.settings.pod_cidr.of_family(4) is None


def static_pods(plan: components.Plan) -> tuple[str, ...]:
    """The names of the static pods that the cluster has; kube-apiserver is the first."""
    return (*probes.STATIC_PODS, *([RELAY] if relays_names(plan) else []))


def relayed_resolv_conf(own: str, *, node_address: str) -> str:
    """As `resolv_conf`, with the node as the only resolver."""
    kept = [line for line in own.splitlines() if line.split()[:1] in (["search"], ["options"])]
    return "\n".join([f"nameserver {node_address}", *kept]) + "\n"


def _is_loopback(words: list[str]) -> bool:
    try:
        return ipaddress.ip_address(words[0].partition("%")[0]).is_loopback
    except (ValueError, IndexError):
        return True  # not an address: of no use to a pod either


def set_up(plan: components.Plan, *, own_resolv_conf: pathlib.Path) -> str:
    """Load the rules and give the resolv.conf for pods.

    Raises:
        CommandError: nftables refused.
        P8sError: the container has no resolver that pods can reach.
    """
    own = own_resolv_conf.read_text()
    ports: dict[str, int] = {}
    if EMBEDDED_RESOLVER in own and not relays_names(plan):
        ports = find_resolver_ports()
        # The redirected answer leaves from a loopback address.
        pathlib.Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text("1")
    pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    if plan.settings.pod_cidr.of_family(6):
        ipv6 = pathlib.Path("/proc/sys/net/ipv6/conf")
        (ipv6 / "all/forwarding").write_text("1")
        # Nobody else on a pod's link can have the node's address there: looking for one (DAD) would
        # keep it from answering for the first two seconds.
        (ipv6 / "default/accept_dad").write_text("0")
    commands.run(["nft", "-f", "-"], stdin=ruleset(plan, resolver_ports=ports))
    if plan.facts.gateway is None:
        # In a network without a way out the node has no route to a service's address, which
        # kube-proxy rewrites only after the kernel has found one.
        services = plan.settings.service_cidr.networks
        for network, own_address in zip(services, plan.node_addresses, strict=True):
            commands.run(["ip", "route", "replace", str(network), "dev", "lo", "src", own_address])
    if relays_names(plan):
        return relayed_resolv_conf(own, node_address=plan.node_addresses[0])
    return resolv_conf(own, node_address=plan.facts.address)
