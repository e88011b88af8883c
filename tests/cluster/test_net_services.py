"""Services as clients see them over time: who answers, who is seen to ask, and what conntrack remembers."""

from __future__ import annotations

import concurrent.futures
import typing

import pytest
import requests

from p8s_supervisor import wait
from tests.cluster import conftest, nodes, pods, talk

# An answer by a new endpoint: kube-proxy's sync, and a pod's start on a busy machine.
SECONDS = 30.0


@pytest.fixture(scope="module")
def kubectl(
    cluster: nodes.Node, make_kubectl: conftest.MakeKubectl
) -> typing.Iterator[nodes.Kubectl]:
    """A namespace of this module's own, with two servers of each service and a client."""
    found, name = make_kubectl(cluster), nodes.unique("services")
    found("create", "namespace", name)
    found("config", "set-context", "--current", f"--namespace={name}")
    sticky = {"sessionAffinity": "ClientIP", "type": "NodePort"}
    found.apply(
        *(talk.server(server, app="web") for server in ("one", "two")),
        pods.sleeper("client"),
        talk.service("web", **sticky),
        # The same pods as others see them.
        _of_web("local", externalTrafficPolicy="Local", type="NodePort"),
        _of_web("spread", type="NodePort"),
        talk.service("datagrams", "UDP", type="NodePort"),
    )
    found.await_ready("pod/one", "pod/two", "pod/client")
    yield found
    found("delete", "namespace", name, "--wait=false")


def _of_web(name: str, **spec: object) -> pods.Manifest:
    return talk.service(name, selector={"app": "web"}, **spec)


def read_address(kubectl: nodes.Kubectl, service: str) -> tuple[str, int]:
    """A service's address in the cluster, and its NodePort."""
    spec = kubectl.get("service", service)["spec"]
    return spec["clusterIP"], spec["ports"][0]["nodePort"]


def await_answer(url: str) -> str:
    """What a URL answers to this host, from the moment that it does."""
    said: list[str] = []

    def look() -> str | None:
        try:
            said.append(requests.get(url, timeout=5).text)
        except requests.RequestException as error:
            return str(error)
        return None

    wait.until(look, awaited=url, seconds=SECONDS, interval=0.1)
    return said[0]


def test_a_client_keeps_the_endpoint_that_it_has(
    cluster: nodes.Node, kubectl: nodes.Kubectl
) -> None:
    """sessionAffinity: 20 connections go to one of two but for one time in half a million."""
    address, port = read_address(kubectl, "web")
    await_answer(f"http://{cluster.address}:{port}/")
    from_pod = talk.run_in_pod(kubectl, "client", talk.COUNT, f"http://{address}/")
    assert from_pod in ("one", "two")
    url = f"http://{cluster.address}:{port}/"
    from_host = {requests.get(url, timeout=5).text.split()[0] for _ in range(20)}
    assert len(from_host) == 1
    _, port = read_address(kubectl, "spread")
    url = f"http://{cluster.address}:{port}/"
    without = {requests.get(url, timeout=5).text.split()[0] for _ in range(20)}
    assert without == {"one", "two"}


@pytest.mark.parametrize(
    ("service", "kept"),
    [
        pytest.param("local", True, id="externalTrafficPolicy Local: the client's own"),
        pytest.param("spread", False, id="externalTrafficPolicy Cluster: the node's"),
    ],
)
def test_the_source_address_behind_a_node_port(
    cluster: nodes.Node, kubectl: nodes.Kubectl, service: str, kept: bool
) -> None:
    _, port = read_address(kubectl, service)
    host = cluster.inspect("{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}")
    seen = await_answer(f"http://{cluster.address}:{port}/").split()[1]
    if kept:
        assert seen == host
    else:
        # The node as the pod sees it: its address, or the pods' gateway.
        assert seen in (cluster.address, "192.168.253.1")


def test_the_source_address_of_a_pod_behind_a_node_port(
    cluster: nodes.Node, kubectl: nodes.Kubectl
) -> None:
    own = kubectl.get("pod", "client")["status"]["podIP"]
    _, port = read_address(kubectl, "local")
    url = f"http://{cluster.address}:{port}/"
    assert talk.run_in_pod(kubectl, "client", pods.FETCH, url).split()[1] == own


def test_datagrams_follow_the_endpoints(cluster: nodes.Node, kubectl: nodes.Kubectl) -> None:
    """A client that never changes its port: conntrack would keep it at an endpoint that is gone."""
    address, port = read_address(kubectl, "datagrams")

    own_port = nodes.free_port()

    def ask_in_pod(awaited: str) -> list[str]:
        words = (address, "80", awaited, str(SECONDS), str(own_port))
        return talk.run_in_pod(kubectl, "client", talk.ASK_UDP, *words).split()

    def ask_here(awaited: str) -> list[str]:
        return talk.ask_udp(cluster.address, port, awaited, seconds=SECONDS, own_port=own_port)

    def ask(awaited: str) -> list[concurrent.futures.Future[list[str]]]:
        return [threads.submit(one, awaited) for one in (ask_in_pod, ask_here)]

    with concurrent.futures.ThreadPoolExecutor() as threads:
        asking = ask("first")  # before there is any endpoint
        kubectl.apply(talk.udp_server("first", app="datagrams"))
        assert [one.result() for one in asking] == [["nobody", "first"]] * 2
        asking = ask("second")
        kubectl.apply(talk.udp_server("second", app="datagrams"))
        kubectl.await_ready("pod/second")
        kubectl("delete", "pod", "first", "--grace-period=1", "--wait=false")
        found = [one.result() for one in asking]
    assert [said[-1] for said in found] == ["second"] * 2, found


def test_datagrams_follow_a_host_port(cluster: nodes.Node, kubectl: nodes.Kubectl) -> None:
    ports = [{"containerPort": talk.PORT, "hostPort": 18053, "protocol": "UDP"}]
    own_port = nodes.free_port()
    for name in ("before", "after"):
        kubectl.apply(talk.udp_server(name, app="held", ports=ports))
        found = talk.ask_udp(cluster.address, 18053, name, seconds=SECONDS, own_port=own_port)
        assert found[-1] == name, found
        kubectl("delete", "pod", name, "--grace-period=1", "--wait=false")
