"""A cluster of IPv6 alone, on a docker network that has it."""

from __future__ import annotations

import dataclasses
import errno
import typing

import pytest

from tests.cluster import conftest, nodes, pods, talk

RANGES = ("--pod-cidr=fd42:253::/64", "--service-cidr=fd42:254::/112")
NODE_PORT, HOST_PORT = 30080, 18080
# Of TEST-NET-1, RFC 5737.
SOMEWHERE = "192.0.2.1"

# Why an address cannot be reached, by its number; no answer is waited for.
CONNECT = """
import socket, sys
asking = socket.socket(socket.AF_INET)
asking.settimeout(5)
print(asking.connect_ex((sys.argv[1], 9)))
"""
LOOK_UP = """
import socket, sys
print(*sorted({entry[4][0] for entry in socket.getaddrinfo(sys.argv[1], 80)}))
"""


@dataclasses.dataclass(frozen=True)
class Six:
    """A docker network with a cluster of IPv6 in it.

    Attributes:
        node: the cluster.
        kubectl: for it; the pods `client`, `web` (a Service has that name) and `host` (with a
            hostPort) are there.
        neighbour: a container with a web server.
    """

    node: nodes.Node
    kubectl: nodes.Kubectl
    neighbour: str

    @property
    def address(self) -> str:
        """The node's."""
        return talk.read_addresses(self.node.name)[1]

    def await_look_up(self, name: str) -> str:
        """What a pod finds for a name outside, from the moment that it does."""
        return talk.await_in_pod(self.kubectl, "client", LOOK_UP, name)


@pytest.fixture(scope="module")
def six(make_kubectl: conftest.MakeKubectl) -> typing.Iterator[Six]:
    if not talk.IPV6.exists():
        pytest.skip("this machine has no IPv6")
    with (
        nodes.network(*talk.ipv6_options()) as network,
        talk.run_container(network, talk.SERVE, "neighbour") as neighbour,
        nodes.run(*RANGES, options=[f"--network={network}"]) as node,
    ):
        node.await_ready()
        kubectl = make_kubectl(node)
        service = talk.service("web", type="NodePort")
        service["spec"]["ports"][0]["nodePort"] = NODE_PORT
        held = {"containerPort": talk.PORT, "hostPort": HOST_PORT}
        kubectl.apply(
            talk.server("web"), talk.server("host", ports=[held]), service, pods.sleeper("client")
        )
        kubectl.await_ready("pod/web", "pod/host", "pod/client")
        yield Six(node, kubectl, neighbour)


def test_nothing_has_an_address_of_ipv4(six: Six) -> None:
    node = six.kubectl.get("node", "p8s")
    own = [one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"]
    assert own == [six.address] == [six.node.status()["addresses"]["node"]]
    assert node["spec"]["podCIDRs"] == ["fd42:253::/64"]
    [pod] = six.kubectl.get("pod", "client")["status"]["podIPs"]
    assert pod["ip"].startswith("fd42:253::")
    [service] = six.kubectl.get("service", "web")["spec"]["clusterIPs"]
    assert service.startswith("fd42:254::")
    refused = talk.run_in_pod(six.kubectl, "client", CONNECT, SOMEWHERE)
    assert int(refused) == errno.ENETUNREACH


def test_a_service_by_its_name(six: Six) -> None:
    caller = six.kubectl.get("pod", "client")["status"]["podIP"]
    said = talk.run_in_pod(six.kubectl, "client", pods.FETCH, "http://web/")
    assert said == f"web {caller}"
    # The apiserver's own, by the certificate that names its address.
    script = """
import pathlib, ssl, urllib.request
place = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
trust = ssl.create_default_context(cafile=place / "ca.crt")
asked = urllib.request.Request("https://kubernetes.default.svc/version")
print(b"gitVersion" in urllib.request.urlopen(asked, context=trust, timeout=5).read())
"""
    assert talk.run_in_pod(six.kubectl, "client", script) == "True"


def test_what_is_outside(six: Six) -> None:
    """Docker's resolver knows the neighbour, and answers over IPv4 alone."""
    assert six.await_look_up(six.neighbour) == " ".join(talk.read_addresses(six.neighbour))
    url = f"http://{six.neighbour}:{talk.PORT}/"
    assert talk.run_in_pod(six.kubectl, "client", pods.FETCH, url) == f"neighbour {six.address}"


@pytest.mark.parametrize(
    ("port", "who"),
    [pytest.param(NODE_PORT, "web", id="NodePort"), pytest.param(HOST_PORT, "host", id="hostPort")],
)
def test_the_node_s_ports_from_another_container(six: Six, port: int, who: str) -> None:
    url = talk.url(six.address, port)
    assert talk.run_in_container(six.neighbour, pods.FETCH, url).split()[0] == who


def test_kubectl_reaches_pods(six: Six) -> None:
    """By kubelet, and by the apiserver itself."""
    assert six.kubectl("exec", "client", "--", "echo", "here").strip() == "here"
    logs = six.kubectl("--namespace=kube-system", "logs", "resolver-p8s")
    assert six.address in logs
    assert six.address in six.node.get("/logs/resolver").text
    path = "/api/v1/namespaces/default/services/web/proxy/"
    assert six.kubectl("get", "--raw", path).split()[0] == "web"


def test_all_of_it_is_back_after_a_restart(six: Six) -> None:
    nodes.docker("restart", "--time=60", six.node.name)
    six.node.await_ready()
    six.kubectl.await_ready("pod/web", "pod/client")
    assert six.await_look_up(six.neighbour)
    said = talk.run_in_pod(six.kubectl, "client", pods.FETCH, "http://web/")
    assert said.split()[0] == "web"
