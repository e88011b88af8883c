"""A node that reaches registries through a proxy alone, and itself through none."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import typing

import pytest

from p8s_supervisor import ranges, wait
from tests.cluster import nodes, pods, registry

SECURE = f"{registry.HOST}:{registry.SECURE}"
USUAL = ("192.168.254.0/24", "192.168.253.0/24")
# An address of TEST-NET-1 (RFC 5737): nobody answers there.
DEAD = "http://192.0.2.1:9"


@dataclasses.dataclass(frozen=True)
class World:
    """A cluster, a registry in another network, and a proxy in both, which is not started yet."""

    cluster: registry.Inside
    proxy: str

    @property
    def requests(self) -> set[str]:
        """What the proxy was asked for."""
        done = subprocess.run(
            ["docker", "logs", self.proxy], capture_output=True, text=True, check=True
        )
        return set(re.findall(r"(?:CONNECT|GET|POST|HEAD) \S+", done.stdout + done.stderr))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[World]:
    directory = tmp_path_factory.mktemp("proxies")
    config = directory / "docker-config.json"
    config.write_text(json.dumps(registry.docker_config(SECURE)))
    proxy = nodes.unique("p8s-proxy")
    with (
        nodes.network("--internal") as inner,
        nodes.network("--internal") as outer,
        registry.run(outer, directory) as found,
        nodes.run(
            "--pod-proxies=true",
            options=[
                f"--network={inner}",
                f"--env=HTTP_PROXY={DEAD}",
                "--env=HTTPS_PROXY=http://proxy.test:8888",
                "--env=no_proxy=.internal.test",
                f"--volume={found.ca}:/etc/p8s/ca-bundle.pem:ro",
                f"--volume={config}:/etc/p8s/docker-config.json:ro",
            ],
        ) as node,
    ):
        found.push("team/app", "1", "first")
        try:
            nodes.docker(
                "create", f"--name={proxy}", f"--network={inner}", "--network-alias=proxy.test",
                registry.image(), "tinyproxy", "-d", "-c", "/etc/tinyproxy.conf",
            )  # fmt: skip
            nodes.docker("network", "connect", outer, proxy)
            yield World(registry.Inside(node), proxy)
        finally:
            nodes.docker("rm", "--force", "--volumes", proxy, check=False)


def test_the_cluster_works_while_no_proxy_answers(world: World) -> None:
    world.cluster.await_ready()
    world.cluster.apply(pods.web_pod("web"), pods.service("web"), pods.sleeper("client"))
    world.cluster.await_pods("web", "client")
    # By a name that NO_PROXY covers: the pod has the proxies.
    fetch = pods.python(pods.FETCH, "http://web.default.svc")
    fetched = world.cluster.kubectl("exec", "client", "--", *fetch)
    assert fetched.startswith("web ")


def test_pods_have_the_proxies_and_their_own_variables_win(world: World) -> None:
    own = [{"name": "HTTP_PROXY", "value": ""}]
    world.cluster.apply(pods.pod("own", ["sleep", "infinity"], env=own))
    world.cluster.await_pods("own")
    wanted = {"HTTPS_PROXY": "http://proxy.test:8888", "https_proxy": "http://proxy.test:8888"}
    for name, proxy in (("client", DEAD), ("own", "")):
        lines = world.cluster.kubectl("exec", name, "--", "env").splitlines()
        found = dict(line.split("=", 1) for line in lines)
        assert found.items() >= {**wanted, "HTTP_PROXY": proxy}.items()
        without = found["NO_PROXY"].split(",")
        assert {".internal.test", ".svc"} <= set(without)
        assert any(set(pair) <= set(without) for pair in (USUAL, *ranges.OTHERS))


def test_of_the_node_only_containerd_has_them(world: World) -> None:
    # Not what docker itself starts: PID 1, which keeps them for itself, and its health check.
    look = (
        "import pathlib\n"
        "for one in pathlib.Path('/proc').glob('[0-9]*'):\n"
        "    try: here = b'kubepods' not in (one / 'cgroup').read_bytes()\n"
        "    except OSError: continue\n"
        "    if here and one.name != '1' and b'PROXY=' in (one / 'environ').read_bytes():\n"
        "        print((one / 'comm').read_text().strip())\n"
    )
    unset = ("env", "--unset=HTTP_PROXY", "--unset=HTTPS_PROXY")
    found = world.cluster.node.execute(*unset, "python3", "-c", look).split()
    assert set(found) - {"containerd-shim", "p8s-healthcheck"} == {"containerd"}


def test_a_pull_goes_through_the_proxy_and_nothing_else_does(world: World) -> None:
    world.cluster.apply(registry.pod("pulled", f"{SECURE}/team/app:1"))
    nodes.docker("start", world.proxy)
    world.cluster.await_pods("pulled")
    wait.until(
        lambda: None if world.requests else "nothing yet", awaited="the proxy's log", seconds=5
    )
    assert world.requests == {f"CONNECT {SECURE}"}
