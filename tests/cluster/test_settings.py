"""A cluster with every setting other than its default, on a docker network of its own."""

from __future__ import annotations

import re
import secrets
import socket
import ssl
import typing

import pytest

from tests.cluster import conftest, nodes, pods

SETTINGS = (
    "--node-name=knot",
    "--service-cidr=10.201.0.0/20",
    "--pod-cidr=10.202.0.0/22",
    "--cluster-domain=example.internal",
    "--api-port=7443",
    "--http-port=9898",
    "--extra-sans=kube.example.org,203.0.113.7",
    "--etcd-fsync=never",
    "--verbosity=2",
    "--status-interval=1s",
)


@pytest.fixture(scope="module")
def network() -> typing.Iterator[str]:
    with nodes.network() as name:
        yield name


@pytest.fixture(scope="module")
def neighbour(network: str) -> typing.Iterator[str]:
    """Another container of the network: its name is known to docker's resolver alone."""
    name = nodes.unique("p8s-neighbour")
    nodes.docker(
        "run", "--detach", f"--name={name}", f"--network={network}", "--entrypoint=sleep",
        nodes.IMAGE, "infinity",
    )  # fmt: skip
    yield name
    nodes.docker("rm", "--force", "--volumes", name)


@pytest.fixture(scope="module")
def knot(network: str) -> typing.Iterator[nodes.Node]:
    with nodes.run(*SETTINGS, options=[f"--network={network}"], ports=(9898, 7443)) as node:
        node.await_ready()
        yield node


@pytest.fixture(scope="module")
def kubectl(knot: nodes.Node, make_kubectl: conftest.MakeKubectl) -> nodes.Kubectl:
    found = make_kubectl(knot)
    found.apply(pods.sleeper("client"), pods.web_pod("web"), pods.service("web"))
    found.await_ready("pod/client", "pod/web")
    return found


def test_names_and_ranges(knot: nodes.Node, kubectl: nodes.Kubectl) -> None:
    node = kubectl.get("node", "knot")
    assert node["spec"]["podCIDR"] == "10.202.0.0/22"
    assert kubectl.get("service", "kubernetes")["spec"]["clusterIP"] == "10.201.0.1"
    dns = kubectl.get("service", "kube-dns", "--namespace=kube-system")
    assert dns["spec"]["clusterIP"] == "10.201.0.2"
    assert kubectl.get("pod", "client")["status"]["podIP"].startswith("10.202.")
    told = kubectl("exec", "client", "--", "cat", "/etc/resolv.conf")
    assert "nameserver 10.201.0.2" in told
    assert "default.svc.example.internal" in told
    fetched = kubectl(
        "exec", "client", "--", *pods.python(pods.FETCH, "http://web.default.svc.example.internal/")
    )
    assert fetched.startswith("web ")
    assert knot.status()["addresses"]["service_cidr"] == "10.201.0.0/20"


def test_names_of_the_docker_network_resolve_in_pods(
    kubectl: nodes.Kubectl, neighbour: str
) -> None:
    """docker's resolver at 127.0.0.11 is behind coredns: what it alone knows, pods know."""
    address = nodes.docker(
        "inspect", "--format={{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", neighbour
    ).strip()
    script = "import socket, sys; print(socket.gethostbyname(sys.argv[1]))"
    assert kubectl("exec", "client", "--", *pods.python(script, neighbour)).strip() == address
    over_tcp = """
import socket, struct, sys
name = b"".join(bytes([len(part)]) + part.encode() for part in sys.argv[1].split(".")) + bytes(1)
question = struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + name + struct.pack(">HH", 1, 1)
with socket.create_connection(("10.201.0.2", 53), timeout=5) as connection:
    connection.sendall(struct.pack(">H", len(question)) + question)
    answer = connection.recv(4096)
print(socket.inet_ntoa(answer[-4:]))
"""
    assert kubectl("exec", "client", "--", *pods.python(over_tcp, neighbour)).strip() == address


def test_no_forwarding_loop(kubectl: nodes.Kubectl) -> None:
    """coredns' plugin `loop` ends it where one is found; it runs, and has not been restarted."""
    found = kubectl.get("pods", "--namespace=kube-system", "--selector=k8s-app=kube-dns")["items"]
    status = found[0]["status"]["containerStatuses"][0]
    assert (status["ready"], status["restartCount"]) == (True, 0)
    logs = kubectl("logs", found[0]["metadata"]["name"], "--namespace=kube-system")
    assert "Loop" not in logs


@pytest.mark.parametrize("name", ["kube.example.org", "203.0.113.7", "knot", "127.0.0.1"])
def test_the_apiserver_s_certificate_is_good_for(
    knot: nodes.Node, kubectl: nodes.Kubectl, name: str
) -> None:
    context = ssl.create_default_context(cadata=kubectl.read_ca())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with (
        socket.create_connection((knot.address, 7443), timeout=5) as connection,
        context.wrap_socket(connection, server_hostname=name) as tls,
    ):
        assert tls.version() == "TLSv1.3"


def test_a_line_now_and_then_on_what_is_running(knot: nodes.Node, kubectl: nodes.Kubectl) -> None:
    # With the pod of storage, which comes after the start, or before it has come.
    assert re.search(r"running: ([78]) of \1 pods ready in [23] namespaces", knot.logs())


def test_what_was_acknowledged_survives_a_kill_without_fsync(
    knot: nodes.Node, kubectl: nodes.Kubectl
) -> None:
    """With it, which is the default, tests/faults/test_container.py kills while a client writes."""
    assert "--unsafe-no-fsync" in knot.execute("cat", "/run/p8s/commands/etcd")
    written = {f"written-{index}": secrets.token_hex(500) for index in range(50)}
    kubectl.apply(
        *(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name},
                "data": {"value": value},
            }
            for name, value in written.items()
        )
    )
    nodes.docker("kill", "--signal=KILL", knot.name)
    nodes.docker("start", knot.name)
    knot.await_ready()
    found = {
        item["metadata"]["name"]: item["data"].get("value")
        for item in kubectl.get("configmaps")["items"]
    }
    assert {name: found.get(name) for name in written} == written
