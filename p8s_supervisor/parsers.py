"""How the text of a setting is read: one function for each kind of value."""

from __future__ import annotations

import collections.abc
import dataclasses
import ipaddress
import pathlib
import re
import urllib.parse

# Listened on in the node by etcd, kubelet, controller-manager, scheduler and kube-proxy.
NODE_PORTS = (2379, 2380, 10248, 10249, 10250, 10256, 10257, 10259)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """Seconds from `90`, `90s`, `5m`, `1h30m`, `30d`.

    Raises:
        ValueError: it is none of these.
    """
    parts = list(_DURATION.finditer(text))
    if not text or "".join(part[0] for part in parts) != text:
        raise ValueError("not a duration such as 90s, 5m or 1h30m")
    return sum(float(part[1]) * _DURATION_UNITS[part[2]] for part in parts)


def parse_size(text: str) -> int:
    """The size of etcd's store, in bytes.

    Raises:
        ValueError: not a number with Ki, Mi or Gi (or none), or not from 32Mi to 8Gi, which is
            the most that etcd is made for.
    """
    units = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    parts = re.fullmatch(r"([0-9]+)(Ki|Mi|Gi|)", text)
    if parts is None:
        raise ValueError("not a size such as 512Mi or 2Gi")
    size = int(parts[1]) * units[parts[2]]
    if not 32 * 2**20 <= size <= 8 * 2**30:
        raise ValueError("not from 32Mi to 8Gi")
    return size


def parse_restart_period(text: str) -> float:
    """How long kubelet waits at most before it starts a container again, in seconds.

    Raises:
        ValueError: not a duration from 1 s to 5 min. Source:
            pkg/kubelet/apis/config/validation/validation.go, CrashLoopBackOff.
    """
    seconds = parse_duration(text)
    if not 1 <= seconds <= 300:
        raise ValueError("not from 1s to 5m")
    return seconds


def parse_cert_lifetime(text: str) -> float:
    """How long the components' certificates are good for, in seconds.

    Raises:
        ValueError: not a duration from 2 min, below which there is no time to take a new one over,
            to the 10 years of the CAs.
    """
    seconds = parse_duration(text)
    if not 120 <= seconds <= 3650 * 86400:
        raise ValueError("not from 2m to 3650d")
    return seconds


def parse_directory(text: str) -> pathlib.PurePosixPath:
    """A directory in the node.

    Raises:
        ValueError: the path does not begin with /.
    """
    found = pathlib.PurePosixPath(text)
    if not found.is_absolute():
        raise ValueError("not a path from / on")
    return found


def parse_port(text: str) -> int:
    """A TCP port.

    Raises:
        ValueError: not a whole number from 1 to 65535, or one that the node itself needs.
    """
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise ValueError("not a port from 1 to 65535")
    if int(text) in NODE_PORTS:
        raise ValueError("a component of the node listens on that port: choose another")
    return int(text)


def parse_cidr(text: str, *, widest: int) -> Network:
    """A network in CIDR form, large enough for a cluster.

    Args:
        text: what was given.
        widest: the shortest prefix that one of IPv6 may have.

    Raises:
        ValueError: not one, host bits set, or its prefix is not between /12 and /28, of IPv6
            between `widest` and /124.
    """
    if "/" not in text:
        raise ValueError("not a network in CIDR form such as 10.96.0.0/16")
    network = ipaddress.IPv6Network(text) if ":" in text else ipaddress.IPv4Network(text)
    # kube-apiserver refuses service ranges of more than 20 bits.
    what, first, last = ("", 12, 28) if network.version == 4 else ("IPv6 ", widest, 124)
    if not first <= network.prefixlen <= last:
        raise ValueError(f"the {what}prefix must be between /{first} and /{last}")
    return network


@dataclasses.dataclass(frozen=True)
class Ranges:
    """A range of addresses; in a dual-stack cluster two, one of each family.

    Attributes:
        networks: the first is of the family that Services have where they do not ask for another.
    """

    networks: tuple[Network, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.networks))

    @property
    def families(self) -> tuple[int, ...]:
        """4 and 6, in the order of `networks`."""
        return tuple(network.version for network in self.networks)

    def of_family(self, family: int) -> Network | None:
        """The network of IPv4 or IPv6; None where there is none."""
        return next((one for one in self.networks if one.version == family), None)

    def overlaps(self, other: Ranges) -> bool:
        """Whether an address is in both."""
        return any(own.overlaps(its) for own in self.networks for its in other.networks)


def parse_ranges(*, widest: int) -> collections.abc.Callable[[str], Ranges]:
    """A parser of a network, or of two of both families with a comma between.

    Args:
        widest: see `parse_cidr`.
    """

    def parse(text: str) -> Ranges:
        found = Ranges(tuple(parse_cidr(part.strip(), widest=widest) for part in text.split(",")))
        if len(set(found.families)) != len(found.families):
            raise ValueError("more than one network of a family: give one, or IPV4,IPV6")
        return found

    return parse


def parse_dns_name(text: str) -> str:
    """A lower-case RFC 1123 subdomain.

    Raises:
        ValueError: it is not one.
    """
    if len(text) > 253 or not all(_DNS_LABEL.fullmatch(label) for label in text.split(".")):
        raise ValueError("not a DNS name (a-z, 0-9, '-' and '.')")
    return text


def parse_node_name(text: str) -> str:
    """A DNS name of which `system:node:NAME` is a certificate's common name of 64 characters.

    Raises:
        ValueError: not a DNS name, or too long.
    """
    if len(parse_dns_name(text)) > 52:
        raise ValueError("longer than 52 characters")
    return text


def parse_names(text: str) -> tuple[str, ...]:
    """DNS names and IP addresses, separated by commas.

    Raises:
        ValueError: one of them is neither.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        try:
            ipaddress.ip_address(name)
        except ValueError:
            try:
                parse_dns_name(name.removeprefix("*."))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    return names


def parse_address(text: str) -> str:
    """An IPv4 or IPv6 address.

    Raises:
        ValueError: it is not one.
    """
    return str(ipaddress.ip_address(text))


def parse_choice(*choices: str) -> collections.abc.Callable[[str], str]:
    """A parser that takes one of a few words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"not one of: {', '.join(choices)}")
        return text

    return parse


# A directory's name too, and a part of a path of the HTTP API.
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def parse_add_ons(text: str) -> tuple[str, ...]:
    """Names of add-ons, separated by commas; `none` for none. Which there are is seen in the node.

    Raises:
        ValueError: one of them is no name.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if names == ("none",):
        return ()
    if not names:
        raise ValueError("none is written `none`")
    for name in names:
        if name == "none" or not LABEL.fullmatch(name):
            raise ValueError(f"{name!r} is no add-on's name: a-z, 0-9 and '-', or `none` alone")
    return names


def parse_verbosity(text: str) -> int:
    """A klog level.

    Raises:
        ValueError: not a whole number from 0 to 10.
    """
    if not text.isascii() or not text.isdigit() or int(text) > 10:
        raise ValueError("not a number from 0 to 10")
    return int(text)


def parse_token(text: str) -> str:
    """A token for the HTTP API; empty for none.

    Raises:
        ValueError: shorter than 16 characters, or one that no HTTP header can carry.
    """
    if text and (len(text) < 16 or not text.isascii() or not text.isprintable() or " " in text):
        raise ValueError("a token has 16 printable ASCII characters or more, without blanks")
    return text


def parse_server(text: str) -> str:
    """The URL of the apiserver as seen from the host; empty for the default.

    Raises:
        ValueError: not `https://HOST[:PORT]`.
    """
    try:
        parts = urllib.parse.urlsplit(text)
        good = parts.hostname and parts.port != 0  # reading an odd port raises
    except ValueError:
        good = False
    if text and not (good and text.isascii() and re.fullmatch(r"https://[^/@?#\s]+", text)):
        raise ValueError("not of the form https://HOST:PORT")
    return text
