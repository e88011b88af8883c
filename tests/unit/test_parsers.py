"""How the text of each kind of setting is read, and why one is refused."""

from __future__ import annotations

import collections.abc
import functools
import ipaddress

import pytest

from p8s_supervisor import parsers

PORT = "not a port from 1 to 65535"
NODE_PORT = "a component of the node listens on that port: choose another"
DNS_NAME = "not a DNS name (a-z, 0-9, '-' and '.')"
DURATION = "not a duration such as 90s, 5m or 1h30m"
TOKEN = "a token has 16 printable ASCII characters or more, without blanks"
SERVER = "not of the form https://HOST:PORT"
LABEL = "a" * 63
CIDR = functools.partial(parsers.parse_cidr, widest=48)
IPV4, IPV6 = ipaddress.IPv4Network("10.96.0.0/16"), ipaddress.IPv6Network("fd00:1::/108")


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        pytest.param(parsers.parse_duration, "90", 90.0, id="duration: seconds"),
        pytest.param(parsers.parse_duration, "0", 0.0, id="duration: zero"),
        pytest.param(parsers.parse_duration, "90s", 90.0, id="duration: s"),
        pytest.param(parsers.parse_duration, "5m", 300.0, id="duration: m"),
        pytest.param(parsers.parse_duration, "1h30m", 5400.0, id="duration: h and m"),
        pytest.param(parsers.parse_duration, "30d", 2592000.0, id="duration: d"),
        pytest.param(parsers.parse_duration, "1d12h", 129600.0, id="duration: d and h"),
        pytest.param(parsers.parse_cert_lifetime, "2m", 120.0, id="certificate lifetime: least"),
        pytest.param(parsers.parse_restart_period, "1s", 1.0, id="restart period: least"),
        pytest.param(parsers.parse_restart_period, "5m", 300.0, id="restart period: most"),
        pytest.param(
            parsers.parse_cert_lifetime, "3650d", 315360000.0, id="certificate lifetime: most"
        ),
        pytest.param(parsers.parse_duration, "1.5m", 90.0, id="duration: fraction"),
        pytest.param(parsers.parse_duration, "250ms", 0.25, id="duration: ms, not m"),
        pytest.param(parsers.parse_duration, "1m500ms", 60.5, id="duration: m and ms"),
        pytest.param(parsers.parse_port, "1", 1, id="port: lowest"),
        pytest.param(parsers.parse_port, "65535", 65535, id="port: highest"),
        pytest.param(parsers.parse_port, "2381", 2381, id="port: beside etcd's"),
        pytest.param(
            CIDR,
            "10.96.0.0/16",
            ipaddress.IPv4Network("10.96.0.0/16"),
            id="cidr: /16",
        ),
        pytest.param(
            CIDR,
            "172.16.0.0/12",
            ipaddress.IPv4Network("172.16.0.0/12"),
            id="cidr: widest",
        ),
        pytest.param(
            CIDR,
            "10.0.0.16/28",
            ipaddress.IPv4Network("10.0.0.16/28"),
            id="cidr: narrowest",
        ),
        pytest.param(
            parsers.parse_ranges(widest=108),
            "10.96.0.0/16",
            parsers.Ranges((IPV4,)),
            id="ranges: IPv4",
        ),
        pytest.param(
            parsers.parse_ranges(widest=108),
            "fd00:1::/108",
            parsers.Ranges((IPV6,)),
            id="ranges: IPv6",
        ),
        pytest.param(
            parsers.parse_ranges(widest=108),
            "10.96.0.0/16, fd00:1::/108",
            parsers.Ranges((IPV4, IPV6)),
            id="ranges: dual",
        ),
        pytest.param(
            parsers.parse_ranges(widest=108),
            "fd00:1::/108,10.96.0.0/16",
            parsers.Ranges((IPV6, IPV4)),
            id="ranges: dual, IPv6 first",
        ),
        pytest.param(parsers.parse_dns_name, "p8s", "p8s", id="name: label"),
        pytest.param(parsers.parse_dns_name, "0.a-b.c", "0.a-b.c", id="name: subdomain"),
        pytest.param(parsers.parse_dns_name, LABEL, LABEL, id="name: longest label"),
        pytest.param(parsers.parse_node_name, "n" * 52, "n" * 52, id="node name: longest"),
        pytest.param(parsers.parse_names, "", (), id="names: none"),
        pytest.param(parsers.parse_names, " , ", (), id="names: commas alone"),
        pytest.param(
            parsers.parse_names,
            "a.example, *.b.example ,192.0.2.1,2001:db8::1",
            ("a.example", "*.b.example", "192.0.2.1", "2001:db8::1"),
            id="names: all kinds",
        ),
        pytest.param(parsers.parse_address, "0.0.0.0", "0.0.0.0", id="address: v4"),
        pytest.param(parsers.parse_address, "0:0:0::0", "::", id="address: v6, canonical"),
        pytest.param(parsers.parse_choice("a", "b"), "b", "b", id="choice"),
        pytest.param(parsers.parse_size, "32Mi", 2**25, id="size: lowest"),
        pytest.param(parsers.parse_size, "8Gi", 2**33, id="size: highest"),
        pytest.param(parsers.parse_size, "33554432", 2**25, id="size: in bytes"),
        pytest.param(parsers.parse_verbosity, "0", 0, id="verbosity: lowest"),
        pytest.param(parsers.parse_verbosity, "10", 10, id="verbosity: highest"),
        pytest.param(parsers.parse_token, "", "", id="token: none"),
        pytest.param(parsers.parse_token, "0123456789abcde~", "0123456789abcde~", id="token"),
        pytest.param(parsers.parse_server, "", "", id="server: none"),
        pytest.param(
            parsers.parse_server,
            "https://p8s.example.org",
            "https://p8s.example.org",
            id="server: without a port",
        ),
        pytest.param(
            parsers.parse_server,
            "https://[2001:db8::1]:6443",
            "https://[2001:db8::1]:6443",
            id="server: IPv6",
        ),
    ],
)
def test_a_good_value_is_parsed(
    parse: collections.abc.Callable[[str], object], text: str, expected: object
) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("parse", "text", "reason"),
    [
        pytest.param(parsers.parse_duration, "", DURATION, id="duration: empty"),
        pytest.param(parsers.parse_duration, "soon", DURATION, id="duration: a word"),
        pytest.param(parsers.parse_duration, "-5s", DURATION, id="duration: negative"),
        pytest.param(parsers.parse_duration, "5 s", DURATION, id="duration: a blank"),
        pytest.param(parsers.parse_duration, "5w", DURATION, id="duration: weeks"),
        *(
            pytest.param(
                parsers.parse_cert_lifetime,
                text,
                "not from 2m to 3650d",
                id=f"certificate lifetime: {text}",
            )
            for text in ("0", "119s", "3651d")
        ),
        *(
            pytest.param(
                parsers.parse_restart_period,
                text,
                "not from 1s to 5m",
                id=f"restart period: {text}",
            )
            for text in ("0", "999ms", "301s")
        ),
        pytest.param(parsers.parse_duration, "5m!", DURATION, id="duration: a tail"),
        pytest.param(parsers.parse_duration, "1..5s", DURATION, id="duration: two dots"),
        pytest.param(parsers.parse_duration, "nan", DURATION, id="duration: nan"),
        pytest.param(parsers.parse_port, "", PORT, id="port: empty"),
        pytest.param(parsers.parse_port, "0", PORT, id="port: zero"),
        pytest.param(parsers.parse_port, "65536", PORT, id="port: too high"),
        pytest.param(parsers.parse_port, "-1", PORT, id="port: negative"),
        pytest.param(parsers.parse_port, "+80", PORT, id="port: a sign"),
        pytest.param(parsers.parse_port, "80.0", PORT, id="port: a fraction"),
        pytest.param(parsers.parse_port, " 80", PORT, id="port: a blank"),
        pytest.param(parsers.parse_port, "8_0", PORT, id="port: an underscore"),
        pytest.param(parsers.parse_port, "٨٠", PORT, id="port: other digits"),
        pytest.param(parsers.parse_port, "²", PORT, id="port: a digit that is no number"),
        *(
            pytest.param(parsers.parse_port, str(port), NODE_PORT, id=f"port: {port}")
            for port in (2379, 2380, 10248, 10249, 10250, 10256, 10257, 10259)
        ),
        pytest.param(
            CIDR,
            "10.96.0.0",
            "not a network in CIDR form such as 10.96.0.0/16",
            id="cidr: an address",
        ),
        pytest.param(CIDR, "10.96.0.1/16", "10.96.0.1/16 has host bits set", id="cidr: host"),
        pytest.param(
            CIDR,
            "10.0.0.0/11",
            "the prefix must be between /12 and /28",
            id="cidr: too wide",
        ),
        pytest.param(
            CIDR,
            "10.0.0.0/29",
            "the prefix must be between /12 and /28",
            id="cidr: too narrow",
        ),
        pytest.param(
            CIDR,
            "10.0.0.0/33",
            "'33' is not a valid netmask",
            id="cidr: no such prefix",
        ),
        pytest.param(
            CIDR,
            "fd00::/16",
            "the IPv6 prefix must be between /48 and /124",
            id="cidr: IPv6, too wide",
        ),
        pytest.param(
            parsers.parse_ranges(widest=108),
            "10.96.0.0/16,fd00::/107",
            "the IPv6 prefix must be between /108 and /124",
            id="ranges: too wide",
        ),
        pytest.param(
            parsers.parse_ranges(widest=48),
            "10.96.0.0/16,fd00::/125",
            "the IPv6 prefix must be between /48 and /124",
            id="ranges: too narrow",
        ),
        pytest.param(
            parsers.parse_ranges(widest=48),
            "10.96.0.0/16,10.97.0.0/16",
            "more than one network of a family: give one, or IPV4,IPV6",
            id="ranges: IPv4 twice",
        ),
        pytest.param(
            parsers.parse_ranges(widest=48),
            "10.96.0.0/16,",
            "not a network in CIDR form such as 10.96.0.0/16",
            id="ranges: nothing after the comma",
        ),
        pytest.param(parsers.parse_dns_name, "", DNS_NAME, id="name: empty"),
        pytest.param(parsers.parse_dns_name, "A", DNS_NAME, id="name: upper case"),
        pytest.param(parsers.parse_dns_name, "a_b", DNS_NAME, id="name: underscore"),
        pytest.param(parsers.parse_dns_name, "-a", DNS_NAME, id="name: leading hyphen"),
        pytest.param(parsers.parse_dns_name, "a-", DNS_NAME, id="name: trailing hyphen"),
        pytest.param(parsers.parse_dns_name, "a..b", DNS_NAME, id="name: empty label"),
        pytest.param(parsers.parse_dns_name, "a.", DNS_NAME, id="name: trailing dot"),
        pytest.param(parsers.parse_dns_name, "a\n", DNS_NAME, id="name: end of line"),
        pytest.param(parsers.parse_dns_name, "é", DNS_NAME, id="name: not ASCII"),
        pytest.param(parsers.parse_dns_name, LABEL + "a", DNS_NAME, id="name: long label"),
        pytest.param(
            parsers.parse_dns_name, ".".join([LABEL] * 4), DNS_NAME, id="name: longer than 253"
        ),
        pytest.param(parsers.parse_node_name, "My_Node", DNS_NAME, id="node name: no DNS name"),
        pytest.param(
            parsers.parse_node_name, "n" * 53, "longer than 52 characters", id="node name: long"
        ),
        pytest.param(parsers.parse_names, "a,B", f"B: {DNS_NAME}", id="names: upper case"),
        pytest.param(
            parsers.parse_names, "a.*.example", f"a.*.example: {DNS_NAME}", id="names: inner star"
        ),
        pytest.param(
            parsers.parse_names, "192.0.2.1/24", f"192.0.2.1/24: {DNS_NAME}", id="names: network"
        ),
        pytest.param(
            parsers.parse_address,
            "localhost",
            "'localhost' does not appear to be an IPv4 or IPv6 address",
            id="address: a name",
        ),
        pytest.param(
            parsers.parse_address,
            "127.1",
            "'127.1' does not appear to be an IPv4 or IPv6 address",
            id="address: short",
        ),
        pytest.param(parsers.parse_choice("a", "b"), "c", "not one of: a, b", id="choice: other"),
        pytest.param(parsers.parse_choice("a", "b"), "A", "not one of: a, b", id="choice: case"),
        pytest.param(parsers.parse_size, "31Mi", "not from 32Mi to 8Gi", id="size: too small"),
        pytest.param(parsers.parse_size, "9Gi", "not from 32Mi to 8Gi", id="size: too large"),
        pytest.param(
            parsers.parse_size, "1.5Gi", "not a size such as 512Mi or 2Gi", id="size: a fraction"
        ),
        pytest.param(parsers.parse_size, "2GB", "not a size such as 512Mi or 2Gi", id="size: GB"),
        pytest.param(parsers.parse_size, "", "not a size such as 512Mi or 2Gi", id="size: empty"),
        pytest.param(
            parsers.parse_verbosity, "11", "not a number from 0 to 10", id="verbosity: too high"
        ),
        pytest.param(
            parsers.parse_verbosity, "-1", "not a number from 0 to 10", id="verbosity: negative"
        ),
        pytest.param(
            parsers.parse_verbosity, "", "not a number from 0 to 10", id="verbosity: empty"
        ),
        pytest.param(parsers.parse_token, "0123456789abcde", TOKEN, id="token: short"),
        pytest.param(parsers.parse_token, "0123456789 abcdef", TOKEN, id="token: a blank"),
        pytest.param(parsers.parse_token, "0123456789abcdef\n", TOKEN, id="token: end of line"),
        pytest.param(parsers.parse_token, "0123456789abcdefé", TOKEN, id="token: not ASCII"),
        pytest.param(parsers.parse_server, "http://p8s", SERVER, id="server: http"),
        pytest.param(parsers.parse_server, "p8s:6443", SERVER, id="server: no scheme"),
        pytest.param(parsers.parse_server, "https://", SERVER, id="server: no host"),
        pytest.param(parsers.parse_server, "https://:6443", SERVER, id="server: a port alone"),
        pytest.param(parsers.parse_server, "https://[::1", SERVER, id="server: half an address"),
        pytest.param(parsers.parse_server, "https://[x]:1", SERVER, id="server: no address"),
        pytest.param(parsers.parse_server, "https://p8s:x", SERVER, id="server: no port"),
        pytest.param(parsers.parse_server, "https://p8s/", SERVER, id="server: a path"),
        pytest.param(parsers.parse_server, "https://p8s?x", SERVER, id="server: a query"),
        pytest.param(parsers.parse_server, "https://me@p8s", SERVER, id="server: a user"),
        pytest.param(parsers.parse_server, "https://p8s x", SERVER, id="server: a blank"),
        pytest.param(parsers.parse_server, "https://bücher.example", SERVER, id="server: IDN"),
    ],
)
def test_a_bad_value_is_refused_with_its_reason(
    parse: collections.abc.Callable[[str], object], text: str, reason: str
) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert str(caught.value) == reason
