"""Ports that docker publishes at every address of the host: who gets in by them, from wherever."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
import typing

import pytest

from tests.cluster import doors, nodes, pods


@pytest.fixture(scope="module")
def published() -> typing.Iterator[nodes.Node]:
    """A cluster without P8S_API_TOKEN, with both ports at 0.0.0.0 under their own numbers."""
    port = nodes.free_port()
    options = [f"--publish=0.0.0.0:{port}:{port}", f"--publish=0.0.0.0:{nodes.free_port()}:6443"]
    settings = (f"--http-port={port}", "--drain=none")
    with nodes.run(*settings, options=options, ports=(port, 6443)) as node:
        node.await_ready()
        yield node


def find_ports(node: nodes.Node) -> tuple[str, str]:
    """The ports at every address of the host: HTTP API, apiserver."""
    told = nodes.docker("port", node.name)
    found = dict(re.findall(r"^(\d+)/tcp -> 0\.0\.0\.0:(\d+)$", told, re.MULTILINE))
    api = found.pop("6443")
    ((_, http),) = found.items()
    return http, api


def gateway(node: nodes.Node) -> str:
    return node.inspect("{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}")


def expect(node: nodes.Node, address: str) -> dict[str, str]:
    """What somebody without credentials finds at an address of the host: request → answer."""
    http, api = find_ports(node)
    there = f"http://{address}:{http}"
    answers = {f"{method} {there}{path}": "200" for method, path in doors.split(doors.OPEN)}
    answers |= {f"{method} {there}{path}": "401" for method, path in doors.split(doors.SHUT)}
    return answers | {f"GET https://{address}:{api}/api/v1/secrets": "denied"}


def test_the_host_needs_a_token_too(published: nodes.Node) -> None:
    for address in ("127.0.0.1", gateway(published)):
        wanted = expect(published, address)
        command = [sys.executable, "-c", doors.CALL, *wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert doors.read_answers(done.stdout) == wanted
    assert "published beyond 127.0.0.1: the HTTP API wants a token" in published.logs()


def test_a_neighbour_gets_in_by_no_address(published: nodes.Node) -> None:
    """At the bridge's address docker's proxy answers, which the node sees as the gateway."""
    wanted = expect(published, gateway(published))
    told = doors.run_beside(published, "python3", "-c", doors.CALL, *wanted)
    assert doors.read_answers(told) == wanted


def test_a_container_of_another_network_gets_in_by_no_address(published: nodes.Node) -> None:
    with nodes.network() as other:
        shown = "{{range .IPAM.Config}}{{.Gateway}}{{end}}"
        its_own = nodes.docker("network", "inspect", f"--format={shown}", other).strip()
        for address in (gateway(published), its_own):
            wanted = expect(published, address)
            options = ("--rm", "--tmpfs=/var/lib/p8s", f"--network={other}", "--entrypoint=python3")
            told = nodes.docker("run", *options, nodes.IMAGE, "-c", doors.CALL, *wanted)
            assert doors.read_answers(told) == wanted


def test_a_pod_gets_in_by_no_address(
    published: nodes.Node, kubectl_program: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    token = published.execute("cat", "/run/p8s/token").strip()
    answer = published.get("/kubeconfig", Authorization=f"Bearer {token}")
    assert answer.status_code == 200
    (tmp_path / "config").write_text(answer.text)
    kubectl = nodes.Kubectl(kubectl_program, tmp_path / "config")
    kubectl.apply(pods.sleeper("caller"))
    kubectl.await_ready("pod/caller")
    wanted = expect(published, gateway(published))
    told = kubectl("exec", "caller", "--", *pods.python(doors.CALL, *wanted))
    assert doors.read_answers(told) == wanted
