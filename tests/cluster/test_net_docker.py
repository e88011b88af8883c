"""A cluster on a docker network of one's own: small packets, IPv6 beside IPv4, a resolver that fails."""

from __future__ import annotations

import dataclasses
import time
import typing

import pytest
import requests

from p8s_supervisor import ranges
from tests.cluster import conftest, nodes, pods, talk

MTU = 1400
NODE_PORT = 30080
RANGES = (
    "--pod-cidr=10.244.253.0/24,fd42:253::/64",
    "--service-cidr=10.244.254.0/24,fd42:254::/112",
)
TRANSFER_BYTES = 30 << 20
# Docker's resolver gives up on one that is silent after 4 s, coredns on docker's after 5 s.
SILENT_SECONDS = 6.5


# While a name outside waits for its answer: how long the slowest of the cluster's names takes, then
# what became of the other, and after how long.
LOOK_UP_BOTH = """
import socket, struct, sys, threading, time
def ask(name, seconds):
    begun = time.monotonic()
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + bytes(1)
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asking.settimeout(seconds)
    asking.connect(("10.244.254.2", 53))
    asking.send(struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + labels + struct.pack(">HH", 1, 1))
    code = asking.recv(4096)[3] & 15
    return code, time.monotonic() - begun
found = []
outside = threading.Thread(target=lambda: found.append(ask("silent.corp.test", float(sys.argv[1]))))
outside.start()
slowest, codes = 0, set()
for _ in range(20):
    code, seconds = ask("kubernetes.default.svc.cluster.local", 3)
    slowest, _ = max(slowest, seconds), codes.add(code)
    time.sleep(0.05)
outside.join()
print(slowest < 1, codes, *(found[0] if found else ("no answer", 0)))
"""


@dataclasses.dataclass(frozen=True)
class Net:
    """A docker network with a cluster in it.

    Attributes:
        node: the cluster.
        kubectl: for it; the pods `client`, `web` and `host` (with a hostPort) are there.
        resolver: the container that answers for corp.test.
        neighbour: a container with a web server.
        neighbour_addresses: its IPv4 and its IPv6 address, which is empty without IPv6.
        host_port: where NODE_PORT is published on this host.
    """

    node: nodes.Node
    kubectl: nodes.Kubectl
    resolver: str
    neighbour: str
    neighbour_addresses: tuple[str, str]
    host_port: int

    @property
    def dual(self) -> bool:
        """Whether the network has IPv6."""
        return bool(self.neighbour_addresses[1])

    @property
    def addresses(self) -> tuple[str, str]:
        """The node's IPv4 and IPv6 address."""
        return talk.read_addresses(self.node.name)


@pytest.fixture(scope="module")
def net(make_kubectl: conftest.MakeKubectl) -> typing.Iterator[Net]:
    options = [f"--opt=com.docker.network.driver.mtu={MTU}"]
    if talk.IPV6.exists():
        options += talk.ipv6_options()
    host_port = nodes.free_port()
    with (
        nodes.network(*options) as network,
        talk.run_container(network, talk.SERVE_DNS) as resolver,
        talk.run_container(network, talk.SERVE, "neighbour") as neighbour,
        nodes.run(
            *(each if talk.IPV6.exists() else each.partition(",")[0] for each in RANGES),
            options=[
                f"--network={network}",
                f"--dns={talk.read_addresses(resolver)[0]}",
                "--dns-search=corp.test",
                f"--publish=127.0.0.1:{host_port}:{NODE_PORT}",
            ],
        ) as node,
    ):
        node.await_ready()
        kubectl = make_kubectl(node)
        addresses = talk.read_addresses(neighbour)
        deploy(kubectl, dual=bool(addresses[1]))
        yield Net(node, kubectl, resolver, neighbour, addresses, host_port)


def deploy(kubectl: nodes.Kubectl, *, dual: bool) -> None:
    service = talk.service("web", type="NodePort")
    service["spec"]["ports"][0]["nodePort"] = NODE_PORT
    if dual:
        service["spec"]["ipFamilyPolicy"] = "RequireDualStack"
    held = {"containerPort": talk.PORT, "hostPort": 18080}
    kubectl.apply(
        talk.server("web"), talk.server("host", ports=[held]), service, pods.sleeper("client")
    )
    kubectl.await_ready("pod/web", "pod/host", "pod/client")


def await_fetch(net: Net, address: str, port: int) -> str:
    """What an address answers to a pod, from the moment that it does."""
    return talk.await_in_pod(net.kubectl, "client", pods.FETCH, talk.url(address, port))


# --- packets


def test_pods_packets_are_as_large_as_the_network_s(net: Net) -> None:
    mtu = net.kubectl("exec", "client", "--", "cat", "/sys/class/net/eth0/mtu")
    assert int(mtu) == MTU
    largest = talk.run_in_pod(net.kubectl, "client", talk.FIND_LARGEST, net.neighbour_addresses[0])
    assert int(largest) == MTU


def test_large_transfers_both_ways(net: Net) -> None:
    """From a pod to another container, and from that one to a pod behind a NodePort."""
    there = talk.url(net.neighbour_addresses[0], talk.PORT).rstrip("/")
    begun = time.monotonic()
    out = talk.run_in_pod(net.kubectl, "client", talk.TRANSFER, there, str(TRANSFER_BYTES))
    here = talk.url(net.addresses[0], NODE_PORT).rstrip("/")
    back = talk.run_in_container(net.neighbour, talk.TRANSFER, here, str(TRANSFER_BYTES))
    took = time.monotonic() - begun
    print(f"four transfers took {took:.1f} s")
    assert [out, back] == [f"{TRANSFER_BYTES} True"] * 2
    assert took < 20


# --- doors


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
@pytest.mark.parametrize(
    ("port", "who"),
    [pytest.param(NODE_PORT, "web", id="NodePort"), pytest.param(18080, "host", id="hostPort")],
)
def test_the_node_s_ports_from_another_container(
    net: Net, family: str, port: int, who: str
) -> None:
    require(net, family)
    address = net.addresses[family == "IPv6"]
    said = talk.run_in_container(net.neighbour, pods.FETCH, talk.url(address, port))
    assert said.split()[0] == who
    if who == "host":
        caller = net.neighbour_addresses[family == "IPv6"]
        assert said.split()[1] == caller, "a hostPort keeps the source address"
    # And from the pod that is behind it: hairpin.
    assert talk.run_in_pod(net.kubectl, who, pods.FETCH, talk.url(address, port)).split()[0] == who


def test_a_node_port_that_is_published_on_the_host(net: Net) -> None:
    answer = requests.get(f"http://127.0.0.1:{net.host_port}/", timeout=5)
    assert answer.text.split()[0] == "web"


def test_what_pods_are_outside(net: Net) -> None:
    """A neighbour sees the node, in both families."""
    for address, node in zip(net.neighbour_addresses, net.addresses, strict=True):
        if address:
            assert await_fetch(net, address, talk.PORT) == f"neighbour {node}"


# --- IPv6


def require(net: Net, family: str) -> None:
    if family == "IPv6" and not net.dual:
        pytest.skip("this machine has no IPv6")


def test_pods_services_and_the_node_have_two_addresses(net: Net) -> None:
    require(net, "IPv6")
    node = net.kubectl.get("node", "p8s")
    internal = [
        one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"
    ]
    assert internal == list(net.addresses)
    assert node["spec"]["podCIDRs"] == ["10.244.253.0/24", "fd42:253::/64"]
    [own, second] = [one["ip"] for one in net.kubectl.get("pod", "client")["status"]["podIPs"]]
    assert own.startswith("10.244.253.")
    assert second.startswith("fd42:253::")
    cluster_ips = net.kubectl.get("service", "web")["spec"]["clusterIPs"]
    for address, caller in zip(cluster_ips, (own, second), strict=True):
        assert await_fetch(net, address, 80) == f"web {caller}"
    script = "import socket; print(socket.getaddrinfo('web', 80, socket.AF_INET6)[0][4][0])"
    assert talk.run_in_pod(net.kubectl, "client", script) == cluster_ips[1]


# --- names


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        pytest.param("plain.corp.test", 1, id="a name outside"),
        pytest.param("plain", 1, id="by the container's search domain"),
        pytest.param("big.corp.test", 200, id="an answer that only TCP can carry"),
    ],
)
def test_names_that_docker_s_upstream_knows(net: Net, name: str, addresses: int) -> None:
    assert talk.run_in_pod(net.kubectl, "client", talk.LOOK_UP, name) == str(addresses)


def test_a_neighbour_s_name(net: Net) -> None:
    """docker's own resolver knows it, at 127.0.0.11, which no pod can reach."""
    script = "import socket, sys; print(socket.gethostbyname(sys.argv[1]))"
    found = talk.run_in_pod(net.kubectl, "client", script, net.neighbour)
    assert found == net.neighbour_addresses[0]


@pytest.mark.real_time
def test_an_upstream_that_is_silent_takes_no_name_of_the_cluster_with_it(net: Net) -> None:
    nodes.docker("pause", net.resolver)
    try:
        said = talk.run_in_pod(net.kubectl, "client", LOOK_UP_BOTH, str(SILENT_SECONDS))
        quick, codes, code, seconds = said.split()
        assert (quick, codes) == ("True", "{0}")
        assert code == "2", f"not SERVFAIL after {seconds} s"
        assert net.node.get("/ready").status_code == 200
    finally:
        nodes.docker("unpause", net.resolver)
    begun = time.monotonic()
    talk.await_in_pod(net.kubectl, "client", talk.LOOK_UP, "later.corp.test")
    print(f"names outside were back after {time.monotonic() - begun:.1f} s")


def test_a_network_that_has_the_usual_ranges_and_another_one_later() -> None:
    """docker itself comes to such a one, after some thirty networks."""
    services, own = ranges.OTHERS[0]
    with nodes.network("--subnet=192.168.252.0/22") as network, nodes.volume() as volume:
        for where in (network, "bridge"):
            options = [f"--network={where}", f"--volume={volume}:/var/lib/p8s"]
            with nodes.run(options=options) as node:
                node.await_ready()
                found = node.status()["addresses"]
                assert (found["service_cidr"], found["pod_cidr"]) == (services, own)
