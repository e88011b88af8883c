"""Which Service gets which address."""

from __future__ import annotations

import dataclasses
import ipaddress
import typing

import pytest

from p8s_supervisor import balanced_services

Service = balanced_services.Service
NETWORK = ipaddress.IPv4Network("172.21.0.0/16")
POOL = balanced_services.Pool(
    network=NETWORK, reserved=frozenset(map(ipaddress.IPv4Address, ("172.21.0.2", "172.21.0.1")))
)


def make_pool(network: str, *reserved: str) -> balanced_services.Pool:
    return balanced_services.Pool(
        network=ipaddress.IPv4Network(network),
        reserved=frozenset(map(ipaddress.IPv4Address, reserved)),
    )


def service(uid: str, **fields: typing.Any) -> Service:
    return Service(uid=uid, namespace="default", name=f"name-of-{uid}", **fields)


def settle(
    *services: Service, pool: balanced_services.Pool = POOL, taken: tuple[str, ...] = ()
) -> tuple[dict[str, str], dict[str, str]]:
    """Who is given what, as text, and who is refused."""
    others = frozenset(map(ipaddress.IPv4Address, taken))
    plan = balanced_services.make_plan(services, pool, others)
    return {uid: str(address) for uid, address in plan.given.items()}, plan.refused


# --- what the apiserver says


def make_object(**spec: typing.Any) -> dict[str, typing.Any]:
    metadata = {"uid": "u", "namespace": "dev", "name": "web", "creationTimestamp": "2026-01-01"}
    return {"metadata": metadata, "spec": {"type": "LoadBalancer"} | spec}


PLAIN = Service(uid="u", namespace="dev", name="web", created="2026-01-01")


@pytest.mark.parametrize(
    ("found", "read"),
    [
        pytest.param(make_object(), PLAIN, id="nothing but its type"),
        pytest.param(make_object(type="NodePort"), None, id="another type"),
        pytest.param(make_object(loadBalancerClass="p8s.local/docker"), PLAIN, id="our class"),
        pytest.param(make_object(loadBalancerClass="example.com/lb"), None, id="another's class"),
        pytest.param(
            make_object(loadBalancerIP="172.21.0.9"),
            dataclasses.replace(PLAIN, wanted="172.21.0.9"),
            id="asks by the field",
        ),
        pytest.param(
            make_object(ipFamilies=["IPv6"]),
            dataclasses.replace(PLAIN, ipv4=False),
            id="IPv6 alone",
        ),
        pytest.param(make_object(ipFamilies=["IPv6", "IPv4"]), PLAIN, id="both families"),
        pytest.param(
            make_object() | {"status": {"loadBalancer": {"ingress": [{"ip": "172.21.0.9"}]}}},
            dataclasses.replace(PLAIN, ingress=("172.21.0.9",)),
            id="has an address",
        ),
        pytest.param(
            make_object() | {"status": {"loadBalancer": {"ingress": [{"hostname": "lb.test"}]}}},
            dataclasses.replace(PLAIN, ingress=("lb.test",)),
            id="has a name",
        ),
    ],
)
def test_read(found: dict[str, typing.Any], read: Service | None) -> None:
    assert balanced_services.read(found) == read


def test_the_annotation_goes_before_the_field() -> None:
    found = make_object(loadBalancerIP="172.21.0.9")
    found["metadata"]["annotations"] = {balanced_services.ANNOTATION: "172.21.0.10"}
    read = balanced_services.read(found)
    assert read is not None
    assert read.wanted == "172.21.0.10"


# --- the pool


@pytest.mark.parametrize(
    ("pool", "candidates"),
    [
        pytest.param(make_pool("10.0.0.0/29"), ["10.0.0.6", "10.0.0.5", "10.0.0.4"], id="a half"),
        pytest.param(
            make_pool("10.0.0.0/29", "10.0.0.6", "10.0.0.1"),
            ["10.0.0.5", "10.0.0.4"],
            id="the gateway is the highest",
        ),
        pytest.param(make_pool("10.0.0.0/30", "10.0.0.1", "10.0.0.2"), [], id="no room"),
        pytest.param(make_pool("10.0.0.0/31"), [], id="two addresses"),
        pytest.param(make_pool("10.0.0.0/32"), [], id="one address"),
    ],
)
def test_candidates(pool: balanced_services.Pool, candidates: list[str]) -> None:
    assert [str(one) for one in pool.list_candidates()] == candidates


def test_candidates_are_bounded() -> None:
    found = POOL.list_candidates()
    assert (len(found), str(found[0])) == (balanced_services.LIMIT, "172.21.255.254")


# --- who gets what


def test_each_gets_one_of_its_own_from_the_top_down() -> None:
    given, refused = settle(service("b", created="2"), service("a", created="1"))
    assert given == {"a": "172.21.255.254", "b": "172.21.255.253"}
    assert refused == {}


def test_what_a_service_has_it_keeps() -> None:
    """After a restart too: its status is all that is known."""
    given, _ = settle(
        service("new", created="1"), service("old", created="2", ingress=("172.21.255.254",))
    )
    assert given == {"old": "172.21.255.254", "new": "172.21.255.253"}


@pytest.mark.parametrize(
    ("ingress", "taken"),
    [
        pytest.param(("10.9.8.7",), (), id="of another network"),
        pytest.param(("172.21.0.2",), (), id="the node's"),
        pytest.param(("172.21.255.255",), (), id="broadcast"),
        pytest.param(("lb.test",), (), id="a name"),
        pytest.param(("172.21.255.250", "172.21.255.249"), (), id="two"),
        pytest.param(("172.21.255.250",), ("172.21.255.250",), id="somebody has taken it"),
    ],
)
def test_what_cannot_be_kept_is_replaced(ingress: tuple[str, ...], taken: tuple[str, ...]) -> None:
    given, refused = settle(service("a", ingress=ingress), taken=taken)
    assert (given, refused) == ({"a": "172.21.255.254"}, {})


def test_of_two_with_the_same_address_the_older_keeps_it() -> None:
    ingress = ("172.21.255.200",)
    given, _ = settle(
        service("younger", created="2", ingress=ingress),
        service("older", created="1", ingress=ingress),
    )
    assert given == {"older": "172.21.255.200", "younger": "172.21.255.254"}


def test_addresses_that_others_have_are_left_out() -> None:
    given, _ = settle(service("a"), taken=("172.21.255.254", "172.21.255.253"))
    assert given == {"a": "172.21.255.252"}


def test_who_asks_comes_first() -> None:
    given, _ = settle(service("a", created="1"), service("b", created="2", wanted="172.21.255.254"))
    assert given == {"b": "172.21.255.254", "a": "172.21.255.253"}


def test_who_asks_for_another_moves() -> None:
    given, _ = settle(service("a", ingress=("172.21.255.254",), wanted="172.21.0.77"))
    assert given == {"a": "172.21.0.77"}


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        pytest.param("any", "'any' is no IPv4 address", id="no address"),
        pytest.param("fd00::1", "'fd00::1' is no IPv4 address", id="IPv6"),
        pytest.param(
            "10.0.0.1", "10.0.0.1 is outside the docker network, 172.21.0.0/16", id="outside"
        ),
        pytest.param("172.21.0.1", "172.21.0.1 is the node's own or its gateway's", id="gateway"),
        pytest.param(
            "172.21.0.0", "172.21.0.0 is no host's address in 172.21.0.0/16", id="the network's"
        ),
        pytest.param(
            "172.21.0.8", "172.21.0.8 is the address of Service default/name-of-first", id="given"
        ),
        pytest.param(
            "172.21.0.9",
            "172.21.0.9 is in use by another container or machine in 172.21.0.0/16",
            id="taken",
        ),
    ],
)
def test_why_an_address_that_is_asked_for_is_refused(wanted: str, reason: str) -> None:
    first = service("first", created="1", ingress=("172.21.0.8",))
    asking = service("second", created="2", ingress=("172.21.255.254",), wanted=wanted)
    given, refused = settle(first, asking, taken=("172.21.0.9",))
    # No other instead, and not the one that it has: that would hide the refusal.
    assert (given, refused) == ({"first": "172.21.0.8"}, {"second": reason})


def test_ipv6_alone_is_refused() -> None:
    given, refused = settle(service("a", ipv4=False))
    assert (given, list(refused)) == ({}, ["a"])


def test_no_address_is_free() -> None:
    pool = make_pool("10.0.0.0/29", "10.0.0.1")
    services = [service(str(number), created=str(number)) for number in range(5)]
    given, refused = settle(*services, pool=pool, taken=("10.0.0.5",))
    assert given == {"0": "10.0.0.6", "1": "10.0.0.4"}
    assert set(refused) == {"2", "3", "4"}
    assert refused["2"] == "no address is free in the upper half of 10.0.0.0/29"


def test_their_number_is_bounded() -> None:
    """Also where all ask for one."""
    services = [
        service(f"{number:03}", created=f"{number:03}", wanted=f"172.21.7.{number}")
        for number in range(balanced_services.LIMIT + 2)
    ]
    given, refused = settle(*services, service("last", created="9"))
    assert len(given) == balanced_services.LIMIT
    assert refused == dict.fromkeys(
        ("128", "129", "last"), "128 Services have an address: no more are given"
    )
    kept = [
        dataclasses.replace(one, wanted="", ingress=(f"172.21.7.{at}",))
        for at, one in enumerate(services)
    ]
    given, refused = settle(*kept)
    assert (len(given), list(refused)) == (balanced_services.LIMIT, ["128", "129"])
