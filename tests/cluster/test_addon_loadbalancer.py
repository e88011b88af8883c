"""The add-on loadbalancer on a docker network: who reaches a Service's address, and how long it is its own."""

from __future__ import annotations

import dataclasses
import ipaddress
import typing

import pytest
import requests

from p8s_supervisor import balanced_services, wait
from tests.cluster import conftest, nodes, pods, talk

SECONDS = 15.0
HOST_PORT = 18080
# Takes an address beside its own, and serves as any neighbour.
TAKE = f"""
import subprocess, sys
subprocess.run(["ip", "address", "add", sys.argv[2] + "/32", "dev", "eth0"], check=True)
{talk.SERVE}
"""
# Says what becomes of a connection.
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5).close()
    print("open")
except OSError as error:
    print(type(error).__name__)
"""


@dataclasses.dataclass(frozen=True)
class Balanced:
    """A cluster with the add-on.

    Attributes:
        node: the cluster.
        kubectl: for it; the pods `web` (with a hostPort) and `client` are there.
        network: the docker network's range.
        neighbour: a container in it, which has its highest address.
        neighbour_address: its own.
    """

    node: nodes.Node
    kubectl: nodes.Kubectl
    network: ipaddress.IPv4Network
    neighbour: str
    neighbour_address: str

    @property
    def top(self) -> ipaddress.IPv4Address:
        """The network's highest address."""
        return self.network.broadcast_address - 1

    def await_address(self, service: str) -> str:
        """The address that a Service is given."""
        path = "jsonpath={.status.loadBalancer.ingress[0].ip}"
        self.kubectl("wait", f"service/{service}", f"--for={path}", f"--timeout={SECONDS:g}s")
        return self.kubectl("get", "service", service, f"--output={path}")

    def await_refusal(self, service: str) -> str:
        """Why a Service has no address, from its Event."""
        chosen = f"--field-selector=involvedObject.name={service},reason=AddressRefused"
        said: list[str] = []

        def look() -> str | None:
            said[:] = [one["message"] for one in self.kubectl.get("events", chosen)["items"]]
            return None if said else "no event"

        wait.until(look, awaited=f"a refusal of {service}", seconds=SECONDS, interval=0.1)
        assert self.kubectl.get("service", service)["status"]["loadBalancer"] == {}
        return said[-1]

    def list_held(self) -> list[str]:
        """The addresses that the node's kernel answers for, and that others arrive by."""
        shown = self.node.execute("ip", "neighbour", "show", "proxy")
        return sorted(line.split()[0] for line in shown.splitlines())

    def await_given_up(self, address: str) -> None:
        wait.until(
            lambda: f"{address} is held" if address in self.list_held() else None,
            awaited="that the node gives an address up",
            seconds=SECONDS,
            interval=0.1,
        )


@pytest.fixture(scope="module")
def balanced(make_kubectl: conftest.MakeKubectl) -> typing.Iterator[Balanced]:
    with nodes.network() as name:
        subnet = "{{range .IPAM.Config}}{{.Subnet}}{{end}}"
        network = ipaddress.IPv4Network(
            nodes.docker("network", "inspect", f"--format={subnet}", name).strip()
        )
        taken = str(network.broadcast_address - 1)
        neighbour = nodes.unique("p8s-neighbour")
        try:
            nodes.docker(
                *("run", "--detach", f"--name={neighbour}", f"--network={name}"),
                *("--cap-add=NET_ADMIN", "--entrypoint=python3", nodes.IMAGE),
                *("-c", TAKE, "neighbour", taken),
            )
            own = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
            address = nodes.docker("inspect", f"--format={own}", neighbour).strip()
            with nodes.run("--add-ons=loadbalancer", options=[f"--network={name}"]) as node:
                node.await_ready()
                found = Balanced(node, make_kubectl(node), network, neighbour, address)
                deploy(found.kubectl)
                yield found
        finally:
            nodes.docker("rm", "--force", "--volumes", neighbour)


def deploy(kubectl: nodes.Kubectl) -> None:
    held = {"containerPort": talk.PORT, "hostPort": HOST_PORT}
    kubectl.apply(
        talk.server("web", ports=[held]),
        pods.sleeper("client"),
        balance("web"),
        balance("other"),
        balance("local", externalTrafficPolicy="Local"),
    )
    kubectl.await_ready("pod/web", "pod/client")


def balance(name: str, **spec: object) -> pods.Manifest:
    """A Service of the pod `web` at port 80."""
    return talk.service(name, type="LoadBalancer", selector={"app": "web"}, **spec)


def await_answer(address: str) -> str:
    """What port 80 of an address answers to this host, from the moment that it does."""
    said: list[str] = []

    def look() -> str | None:
        try:
            said.append(requests.get(f"http://{address}/", timeout=5).text)
        except requests.RequestException as error:
            return str(error)
        return None

    wait.until(look, awaited=address, seconds=SECONDS, interval=0.1)
    return said[0]


def test_each_service_has_an_address_of_its_own(balanced: Balanced) -> None:
    """All at port 80; the highest address is the neighbour's."""
    found = {balanced.await_address(name) for name in ("web", "other", "local")}
    assert found == {str(balanced.top - number) for number in (1, 2, 3)}
    [given] = balanced.kubectl.get("service", "web")["status"]["loadBalancer"]["ingress"]
    assert given["ipMode"] == "VIP"


def test_a_service_is_reached_from_everywhere(balanced: Balanced) -> None:
    address = balanced.await_address("web")
    url = f"http://{address}/"
    said = {
        "host": await_answer(address),
        "container": talk.run_in_container(balanced.neighbour, pods.FETCH, url),
        "pod": talk.run_in_pod(balanced.kubectl, "client", pods.FETCH, url),
        "its own pod": talk.run_in_pod(balanced.kubectl, "web", pods.FETCH, url),
        "node": talk.run_in_container(balanced.node.name, pods.FETCH, url),
    }
    assert {who: text.split()[0] for who, text in said.items()} == dict.fromkeys(said, "web")


def test_the_source_address_is_kept_where_it_is_asked_for(balanced: Balanced) -> None:
    address = balanced.await_address("local")
    url = f"http://{address}/"
    gateway = balanced.node.inspect("{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}")
    assert await_answer(address).split()[1] == gateway
    seen = talk.run_in_container(balanced.neighbour, pods.FETCH, url).split()[1]
    assert seen == balanced.neighbour_address


@pytest.mark.parametrize(
    "port", [pytest.param(6443, id="the apiserver's"), pytest.param(HOST_PORT, id="a hostPort")]
)
def test_the_node_s_own_ports_are_not_at_the_address(balanced: Balanced, port: int) -> None:
    address = balanced.await_address("web")
    for at, said in ((balanced.node.address, "open"), (address, "ConnectionRefusedError")):
        for name in (balanced.neighbour, balanced.node.name):
            assert talk.run_in_container(name, CONNECT, at, str(port)) == said, (at, name)


def test_the_node_s_address_is_what_it_was(balanced: Balanced) -> None:
    balanced.await_address("web")
    found = balanced.kubectl.get("node", "p8s")["status"]["addresses"]
    internal = [one["address"] for one in found if one["type"] == "InternalIP"]
    assert internal == [balanced.node.address]


def test_an_address_that_is_asked_for(balanced: Balanced) -> None:
    wanted = str(balanced.top - 77)
    pinned = balance("pinned")
    pinned["metadata"]["annotations"] = {balanced_services.ANNOTATION: wanted}
    balanced.kubectl.apply(pinned)
    assert balanced.await_address("pinned") == wanted
    assert await_answer(wanted).split()[0] == "web"


def test_addresses_that_are_refused(balanced: Balanced) -> None:
    web = balanced.await_address("web")
    wanted = {"same": web, "outside": "192.0.2.1", "taken": str(balanced.top)}
    balanced.kubectl.apply(*(balance(name, loadBalancerIP=one) for name, one in wanted.items()))
    assert {name: balanced.await_refusal(name) for name in wanted} == {
        "same": f"{web} is the address of Service default/web",
        "outside": f"192.0.2.1 is outside the docker network, {balanced.network}",
        "taken": f"{balanced.top} is in use by another container or machine in {balanced.network}",
    }
    balanced.kubectl("delete", "service", *wanted)


def test_a_service_of_another_type_gives_its_address_up(balanced: Balanced) -> None:
    balanced.kubectl.apply(balance("short"), balance("turned"))
    addresses = [balanced.await_address(name) for name in ("short", "turned")]
    assert set(addresses) <= set(balanced.list_held())
    balanced.kubectl("delete", "service", "short")
    balanced.kubectl("patch", "service", "turned", '--patch={"spec": {"type": "ClusterIP"}}')
    for address in addresses:
        balanced.await_given_up(address)
    assert balanced.kubectl.get("service", "turned")["status"] == {"loadBalancer": {}}


def test_disabled_it_leaves_nothing_and_enabled_it_gives_again(balanced: Balanced) -> None:
    balanced.await_address("web")
    url = balanced.node.url("/addons/loadbalancer")
    assert requests.delete(url, timeout=30).status_code == 200
    assert balanced.list_held() == []
    assert "p8s_loadbalancer" not in balanced.node.execute("nft", "list", "tables")
    for service in balanced.kubectl.get("services")["items"]:
        assert service["status"] == {"loadBalancer": {}}
    assert requests.post(url, timeout=30).status_code == 200
    assert await_answer(balanced.await_address("web")).split()[0] == "web"


def test_an_address_outlives_the_container_s_restart(balanced: Balanced) -> None:
    """Not the next in turn, but that which each had."""
    names = ("web", "local", "other")
    balanced.kubectl("delete", "service", "other")
    balanced.kubectl.apply(balance("other", loadBalancerIP=str(balanced.top - 99)))
    before = {name: balanced.await_address(name) for name in names}
    balanced.kubectl("patch", "service", "other", '--patch={"spec": {"loadBalancerIP": null}}')
    nodes.docker("restart", "-t60", balanced.node.name)
    balanced.node.await_ready()
    assert await_answer(before["web"]).split()[0] == "web"
    assert {name: balanced.await_address(name) for name in names} == before
    assert set(before.values()) <= set(balanced.list_held())
