"""What the add-on loadbalancer makes of Services, and what it tells them."""

from __future__ import annotations

import collections.abc
import dataclasses
import ipaddress
import pathlib
import threading
import typing

import pytest

from p8s_supervisor import (
    add_on_loadbalancer,
    balanced_services,
    context,
    errors,
    kube,
    virtual_addresses,
    wait,
    watcher,
)
from tests import fakes

LIST, WATCH = f"GET {add_on_loadbalancer.SERVICES}", f"WATCH {add_on_loadbalancer.SERVICES}"
STATUS = "PATCH /api/v1/namespaces/dev/services/{}/status"
EVENTS = "POST /api/v1/namespaces/dev/events"
LINK = virtual_addresses.Link(
    interface="eth0",
    hardware_address=bytes(6),
    address=ipaddress.IPv4Address("172.17.0.2"),
    network=ipaddress.IPv4Network("172.17.0.0/16"),
)
FIRST, SECOND = "172.17.255.254", "172.17.255.253"
HOST = errors.P8sError("eth0 is no link into a docker network")


def make_service(name: str, *ingress: str, created: str = "1", wanted: str = "") -> kube.Object:
    return {
        "metadata": {
            "uid": f"uid-of-{name}",
            "namespace": "dev",
            "name": name,
            "creationTimestamp": created,
        },
        "spec": {"type": "LoadBalancer"} | ({"loadBalancerIP": wanted} if wanted else {}),
        "status": {"loadBalancer": {"ingress": [{"ip": one} for one in ingress]}},
    }


def make_list(*services: kube.Object) -> kube.Object:
    return {"metadata": {"resourceVersion": "7"}, "items": list(services)}


def make_changes(*changes: tuple[str, kube.Object]) -> kube.Object:
    return {"items": [{"type": kind, "object": found} for kind, found in changes]}


def make_client(
    *services: kube.Object, **more: fakes.Answer | list[fakes.Answer]
) -> fakes.KubeClient:
    """An apiserver that has some Services, takes all that is written, and has `more` to answer."""
    answers: dict[str, list[fakes.Answer]] = {
        LIST: [make_list(*services)],
        WATCH: [make_changes()],
        EVENTS: ["{}"],
    }
    answers |= {STATUS.format(one["metadata"]["name"]): ["{}"] for one in services}
    for name, answer in more.items():
        asked = {"watch": WATCH, "events": EVENTS}.get(name, STATUS.format(name))
        answers[asked] = answer if isinstance(answer, list) else [answer]
    return fakes.KubeClient(answers)


def list_statuses(client: fakes.KubeClient) -> list[tuple[str, typing.Any]]:
    """What was written: a Service's UID and its ingress."""
    return [
        (
            request.body["metadata"]["uid"].removeprefix("uid-of-"),
            request.body["status"]["loadBalancer"]["ingress"],
        )
        for request in client.requests
        if request.method == "PATCH" and request.body
    ]


def list_events(client: fakes.KubeClient) -> list[tuple[str, str, str]]:
    """The Events that were made: about whom, reason, message."""
    return [
        (
            request.body["involvedObject"]["name"],
            request.body["reason"],
            request.body["message"],
        )
        for request in client.requests
        if f"{request.method} {request.path}" == EVENTS and request.body
    ]


@dataclasses.dataclass
class Network:
    """The docker network and the kernel, without either.

    Attributes:
        held: what the node answers for.
        others: what others have.
        late: what others take while `hold` is under way.
        asked: what was asked for, each time.
        writes: what was to be held, each time.
        failures: what `hold` raises in turn, instead.
    """

    held: set[str] = dataclasses.field(default_factory=set)
    others: set[str] = dataclasses.field(default_factory=set)
    late: set[str] = dataclasses.field(default_factory=set)
    asked: list[set[str]] = dataclasses.field(default_factory=list)
    writes: list[set[str]] = dataclasses.field(default_factory=list)
    failures: list[Exception] = dataclasses.field(default_factory=list)

    def list_held(self) -> set[ipaddress.IPv4Address]:
        return set(map(ipaddress.IPv4Address, self.held))

    def find_others(
        self, _: virtual_addresses.Link, asked: collections.abc.Set[ipaddress.IPv4Address]
    ) -> set[ipaddress.IPv4Address]:
        if asked:
            self.asked.append(set(map(str, asked)))
        return {one for one in asked if str(one) in self.others}

    def hold(
        self, _: virtual_addresses.Link, wanted: collections.abc.Set[ipaddress.IPv4Address]
    ) -> None:
        self.writes.append(set(map(str, wanted)))
        if self.failures:
            raise self.failures.pop(0)
        self.held = set(map(str, wanted))
        self.others |= self.late


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    found = Network()
    monkeypatch.setattr(virtual_addresses, "find_link", lambda _: LINK)
    for name in ("list_held", "find_others", "hold"):
        monkeypatch.setattr(virtual_addresses, name, getattr(found, name))
    return found


def on_the_host(_: object) -> typing.NoReturn:
    raise HOST


@dataclasses.dataclass(frozen=True)
class Balanced:
    """A balancer with what it works with."""

    run: context.Context
    client: fakes.KubeClient
    ended: threading.Event
    balancer: add_on_loadbalancer.Balancer


Balance = collections.abc.Callable[[fakes.KubeClient], Balanced]


@pytest.fixture
def balance(tmp_path: pathlib.Path) -> Balance:
    def make(client: fakes.KubeClient) -> Balanced:
        run, ended = fakes.make_context(tmp_path, client=client), threading.Event()
        return Balanced(run, client, ended, add_on_loadbalancer.Balancer(run, client, ended))

    return make


def look(made: Balanced) -> None:
    """See the list and what changes."""
    for found in watcher.look(
        made.client,
        add_on_loadbalancer.SERVICES,
        ended=made.ended,
        seconds=1,
        **add_on_loadbalancer.SELECTOR,
    ):
        watcher.show(made.balancer, found)


def settle(made: Balanced) -> bool:
    """See the list and settle; whether something is left."""
    look(made)
    return made.balancer.settle()


# --- what Services are given


def test_a_service_is_given_an_address_and_told(network: Network, balance: Balance) -> None:
    made = balance(make_client(make_service("web"), make_service("api", created="2")))
    assert settle(made) is False
    assert network.held == {FIRST, SECOND}
    assert list_statuses(made.client) == [
        ("web", [{"ip": FIRST, "ipMode": "VIP"}]),
        ("api", [{"ip": SECOND, "ipMode": "VIP"}]),
    ]
    assert list_events(made.client) == [
        ("web", "AddressGiven", f"{FIRST} is its address"),
        ("api", "AddressGiven", f"{SECOND} is its address"),
    ]
    patches = [one.content_type for one in made.client.requests if one.method == "PATCH"]
    assert patches == ["application/merge-patch+json"] * 2


def test_what_has_its_address_is_not_written_again(network: Network, balance: Balance) -> None:
    """A restarted container: the kernel knows nothing yet, and nobody else has taken it."""
    made = balance(make_client(make_service("web", FIRST)))
    for _ in range(2):
        assert settle(made) is False
    assert (network.asked, network.writes) == ([{FIRST}] * 2, [{FIRST}])
    assert (list_statuses(made.client), list_events(made.client)) == ([], [])


def test_what_the_kernel_has_is_not_asked_for(network: Network, balance: Balance) -> None:
    """A restarted sidecar: the node itself would not answer itself, but a claim of another may come."""
    network.held = {FIRST, SECOND}
    made = balance(make_client(make_service("web", FIRST)))
    settle(made)
    assert (network.asked, network.held) == ([], {FIRST})


def test_an_address_that_another_container_has_is_left_out(
    network: Network, balance: Balance
) -> None:
    """Where one was taken, more of the next are asked for at once."""
    network.others = {f"172.17.255.{last}" for last in range(250, 255)}
    made = balance(make_client(make_service("web")))
    assert settle(made) is False
    assert network.held == {"172.17.255.249"}
    assert [len(asked) for asked in network.asked] == [1, add_on_loadbalancer.ASKED_TOGETHER, 1]


def test_an_address_that_another_takes_at_the_same_moment_is_left_to_it(
    network: Network, balance: Balance
) -> None:
    """Both have found it free."""
    network.late = {FIRST}
    made = balance(make_client(make_service("web")))
    assert settle(made) is False
    assert network.writes == [{FIRST}, {SECOND}]
    assert list_statuses(made.client) == [("web", [{"ip": SECOND, "ipMode": "VIP"}])]


def test_every_address_of_the_pool_is_somebody_s(network: Network, balance: Balance) -> None:
    network.others = {str(one) for one in LINK.network}
    made = balance(make_client(make_service("web", FIRST)))
    assert settle(made) is True
    assert len(network.asked) < 12
    assert list_statuses(made.client) == [("web", None)]
    assert [event[:2] for event in list_events(made.client)] == [("web", "AddressRefused")]


def test_what_is_refused_is_told_once(network: Network, balance: Balance) -> None:
    made = balance(make_client(make_service("web", wanted="10.0.0.1")))
    for _ in range(2):
        assert settle(made) is True
    reason = "10.0.0.1 is outside the docker network, 172.17.0.0/16"
    assert list_events(made.client) == [("web", "AddressRefused", reason)]
    assert network.writes == [set()]


def test_a_service_that_goes_gives_its_address_up(network: Network, balance: Balance) -> None:
    web, api = make_service("web", FIRST), make_service("api", SECOND)
    other = make_service("api", SECOND)
    other["spec"]["loadBalancerClass"] = "example.com/other"
    changes = make_changes(
        ("DELETED", web), ("MODIFIED", other), ("ADDED", make_service("new")), ("DELETED", web)
    )
    made = balance(make_client(web, api, new="{}", watch=changes))
    network.held = {FIRST, SECOND}
    settle(made)
    assert network.held == {FIRST}
    assert list_statuses(made.client) == [("new", [{"ip": FIRST, "ipMode": "VIP"}])]


@pytest.mark.parametrize("status", [404, 409])
def test_a_service_that_is_gone_meanwhile_is_no_trouble(
    network: Network, balance: Balance, status: int
) -> None:
    made = balance(make_client(make_service("web"), web=errors.KubeError("gone", status=status)))
    assert settle(made) is False


def test_a_status_that_is_refused_keeps_no_other_from_it(
    network: Network, balance: Balance
) -> None:
    refusal = errors.KubeError("a webhook says no", status=403)
    made = balance(make_client(make_service("web"), make_service("api", created="2"), web=refusal))
    for _ in range(2):
        assert settle(made) is True
    assert ("api", [{"ip": SECOND, "ipMode": "VIP"}]) in list_statuses(made.client)
    refusals = [event for event in list_events(made.client) if event[1] == "AddressRefused"]
    assert refusals == [
        ("web", "AddressRefused", "its status cannot be written: a webhook says no")
    ]


@pytest.mark.parametrize("status", [0, 500])
def test_an_apiserver_that_is_away_is_asked_again(
    network: Network, balance: Balance, status: int
) -> None:
    away = errors.KubeError("away", status=status)
    made = balance(make_client(make_service("web"), web=[away, "{}"]))
    look(made)
    with pytest.raises(errors.KubeError):
        made.balancer.settle()
    assert made.balancer.settle() is False


def test_an_event_that_is_refused_is_done_without(network: Network, balance: Balance) -> None:
    made = balance(make_client(make_service("web"), events=errors.KubeError("no", status=403)))
    assert settle(made) is False


def test_what_the_kernel_refused_is_tried_again(network: Network, balance: Balance) -> None:
    network.failures = [errors.CommandError("ip -batch -", code=1, output="no")]
    made = balance(make_client(make_service("web")))
    look(made)
    with pytest.raises(errors.CommandError):
        made.balancer.settle()
    assert list_statuses(made.client) == []
    made.balancer.settle()
    assert (network.writes, network.held) == ([{FIRST}] * 2, {FIRST})


def test_on_the_host_s_network_services_are_told_why(
    network: Network, balance: Balance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(virtual_addresses, "find_link", on_the_host)
    made = balance(make_client(make_service("web")))
    assert settle(made) is True
    assert list_events(made.client) == [("web", "AddressRefused", HOST.message)]
    assert network.writes == []


def test_a_command_that_fails_is_not_told_to_services(
    network: Network, balance: Balance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> typing.NoReturn:
        raise errors.CommandError("ip address", code=127, output="no ip")

    monkeypatch.setattr(virtual_addresses, "find_link", fail)
    made = balance(make_client(make_service("web")))
    look(made)
    with pytest.raises(errors.CommandError):
        made.balancer.settle()


# --- its threads


def test_it_begins_and_ends(network: Network, balance: Balance) -> None:
    made = balance(make_client(make_service("web")))
    part = threading.Thread(target=add_on_loadbalancer.begin, args=(made.run, made.ended))
    part.start()
    wait.until(
        lambda: None if list_events(made.client) else "no event",
        awaited="an address",
        seconds=10,
    )
    made.ended.set()
    part.join(timeout=10)
    assert not part.is_alive()
    assert made.client.requests[0].params == add_on_loadbalancer.SELECTOR


def test_without_a_client_it_does_not_begin(tmp_path: pathlib.Path) -> None:
    add_on_loadbalancer.begin(fakes.make_context(tmp_path), threading.Event())


def test_what_was_refused_is_tried_again_by_itself(
    network: Network, balance: Balance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(add_on_loadbalancer, "RETRY_SECONDS", 0.01)
    network.failures = [OSError("no such device")] * 3
    made = balance(make_client(make_service("web")))
    look(made)
    worker = threading.Thread(target=made.balancer.work)
    worker.start()
    wait.until(
        lambda: None if list_events(made.client) else "no event",
        awaited="an address",
        seconds=10,
    )
    made.ended.set()
    made.balancer.wake_at_end()
    worker.join(timeout=10)
    assert not worker.is_alive()
    told = [event.message for event in made.run.journal.read()]
    assert told == ["add-on loadbalancer: no such device"]


def test_an_end_right_after_it_was_looked_for_is_seen(
    network: Network, balance: Balance, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = balance(make_client())
    is_set = made.ended.is_set

    def look() -> bool:
        was = is_set()
        made.ended.set()
        made.balancer.wake_at_end()
        return was

    monkeypatch.setattr(made.ended, "is_set", look)
    made.balancer._changed.set()
    worker = threading.Thread(target=made.balancer.work, daemon=True)
    worker.start()
    worker.join(timeout=10)
    assert not worker.is_alive()


def test_nothing_is_seen_after_the_end(network: Network, balance: Balance) -> None:
    made = balance(make_client(watch=make_changes(("ADDED", make_service("web")))))
    made.ended.set()
    look(made)
    assert made.balancer.settle() is False


# --- whether it can be used, and its end


def test_it_can_be_used(network: Network, tmp_path: pathlib.Path) -> None:
    assert add_on_loadbalancer.find_lack(fakes.make_context(tmp_path)) is None


def test_why_it_cannot_be_used(
    network: Network, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fakes.make_context(tmp_path)
    small = dataclasses.replace(LINK, network=ipaddress.IPv4Network("172.17.0.0/30"))
    monkeypatch.setattr(virtual_addresses, "find_link", lambda _: small)
    assert add_on_loadbalancer.find_lack(run) == (
        "the docker network 172.17.0.0/30 has no room for addresses of Services"
    )
    monkeypatch.setattr(virtual_addresses, "find_link", on_the_host)
    assert add_on_loadbalancer.find_lack(run) == HOST.message


def test_the_gateway_and_the_node_keep_their_addresses(tmp_path: pathlib.Path) -> None:
    pool = add_on_loadbalancer.make_pool(fakes.make_context(tmp_path), LINK)
    assert pool == balanced_services.Pool(
        network=LINK.network,
        reserved=frozenset(map(ipaddress.IPv4Address, ("172.17.0.1", "172.17.0.2"))),
    )


def test_nothing_is_left_of_it(network: Network, tmp_path: pathlib.Path) -> None:
    network.held = {FIRST}
    foreign = make_service("foreign", "10.0.0.1")
    foreign["spec"]["loadBalancerClass"] = "example.com/other"
    client = make_client(make_service("web", FIRST), make_service("waits"), foreign)
    add_on_loadbalancer.clear(fakes.make_context(tmp_path), client)
    assert list_statuses(client) == [("web", None)]
    assert network.held == set()


def test_where_there_was_nothing_the_network_is_not_looked_at(
    network: Network, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the host's network it can be disabled too."""
    monkeypatch.setattr(virtual_addresses, "find_link", fakes.forbid)
    add_on_loadbalancer.clear(fakes.make_context(tmp_path), make_client())
    assert network.writes == []
