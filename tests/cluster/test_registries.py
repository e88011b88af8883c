"""Pulls from real registries with a private CA and a password, in a network without another way out."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import typing

import pytest

from p8s_supervisor import wait
from tests.cluster import nodes, registry

SECURE, OTHER = f"{registry.HOST}:{registry.SECURE}", f"{registry.HOST}:{registry.OTHER}"
APP = f"{SECURE}/team/app:1"
# As containerd's own documentation writes it.
HOSTS_TOML = f"""
server = "https://registry.example.com"

[host."http://{registry.HOST}:{registry.PLAIN}"]
  capabilities = ["pull", "resolve"]
"""


@dataclasses.dataclass(frozen=True)
class World:
    """A cluster and what it pulls from."""

    cluster: registry.Inside
    registry: registry.Registry
    digest: str

    def image_of(self, pod: str) -> str:
        """The digest that a running pod is of."""
        (told,) = self.cluster.get("pod", pod)["status"]["containerStatuses"]
        return str(told["imageID"]).rpartition("@")[2]

    def waiting(self, pod: str, *reasons: str) -> str:
        """What a pod says that cannot have its image."""
        found: dict[str, str] = {}

        def look() -> str | None:
            told = self.cluster.get("pod", pod)["status"].get("containerStatuses", [{}])
            state = told[0].get("state", {})
            found.update(state.get("waiting", {}))
            return None if found.get("reason") in reasons else json.dumps(state)

        wait.until(look, awaited=f"{pod}: {reasons}", seconds=20, interval=0.2)
        return found["message"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[World]:
    directory = tmp_path_factory.mktemp("registries")
    config = directory / "docker-config.json"
    config.write_text(json.dumps(registry.docker_config(SECURE)))
    hosts = directory / "registries" / "registry.example.com" / "hosts.toml"
    hosts.parent.mkdir(parents=True)
    hosts.write_text(HOSTS_TOML)
    with (
        nodes.network("--internal") as network,
        registry.run(network, directory) as found,
        nodes.run(
            f"--registry-mirrors=docker.io=https://{SECURE}",
            options=[
                f"--network={network}",
                f"--volume={found.ca}:/etc/p8s/ca-bundle.pem:ro",
                f"--volume={config}:/etc/p8s/docker-config.json:ro",
                f"--volume={directory}/registries:/etc/p8s/registries:ro",
            ],
        ) as node,
    ):
        digest = found.push("team/app", "1", "first")
        found.push("library/app", "1", "of the hub")
        cluster = registry.Inside(node)
        cluster.await_ready()
        yield World(cluster, found, digest)


def test_pulls_by_each_way(world: World) -> None:
    """By the registry's own name, by a mirror of the settings, and by a hosts.toml of the user's."""
    ways = {"own": APP, "mirror": "app:1", "hosts-toml": "registry.example.com/team/app:1"}
    world.cluster.apply(*(registry.pod(name, image) for name, image in ways.items()))
    world.cluster.await_pods(*ways)
    assert world.image_of("own") == world.image_of("hosts-toml") == world.digest
    log = world.registry.logs
    assert "/v2/library/app/manifests/1?ns=docker.io" in log
    assert f"{registry.HOST}:{registry.PLAIN}" in log


def test_image_pull_policies(world: World) -> None:
    world.cluster.apply(registry.pod("first", APP))
    world.cluster.await_pods("first")
    newer = world.registry.push("team/app", "1", "second")
    world.cluster.apply(
        registry.pod("kept", APP),
        registry.pod("never", APP, "Never"),
        registry.pod("absent", f"{SECURE}/team/app:absent", "Never"),
    )
    world.cluster.await_pods("kept", "never")
    assert {world.image_of(name) for name in ("kept", "never")} == {world.digest}
    world.cluster.apply(registry.pod("always", APP, "Always"))
    world.cluster.await_pods("always")
    assert world.image_of("always") == newer
    assert "present with pull policy of Never" in world.waiting("absent", "ErrImageNeverPull")


def test_a_password_of_a_pull_secret(world: World) -> None:
    """Without one the node has none for that registry, and the refusal is told."""
    image = f"{OTHER}/team/app:1"
    world.cluster.apply(registry.pod("refused", image))
    told = world.waiting("refused", "ErrImagePull", "ImagePullBackOff")
    assert "no basic auth credentials" in told or "401" in told
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "puller"},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": json.dumps(registry.docker_config(OTHER))},
    }
    allowed = registry.pod("allowed", image, imagePullSecrets=[{"name": "puller"}])
    world.cluster.apply(secret, allowed)
    world.cluster.await_pods("allowed")


def test_the_ca_bundle_is_trusted_and_offered(world: World) -> None:
    ask = (
        "import ssl, urllib.error, urllib.request\n"
        f"try: urllib.request.urlopen('https://{SECURE}/v2/')\n"
        "except urllib.error.HTTPError as error: print(error.code)"
    )
    assert world.cluster.node.execute("python3", "-c", ask).strip() == "401"
    world.cluster.kubectl("create", "namespace", "later")
    wanted = {"default", "kube-system", "kube-public", "kube-node-lease", "p8s-storage", "later"}

    def look() -> str | None:
        items = world.cluster.get("configmaps", "--all-namespaces")["items"]
        found = {
            one["metadata"]["namespace"]: one["data"]
            for one in items
            if one["metadata"]["name"] == "p8s-ca-bundle"
        }
        ca = world.registry.ca.read_text()
        assert all(data == {"ca.crt": ca} for data in found.values())
        return None if set(found) == wanted else f"only in {sorted(found)}"

    wait.until(look, awaited="the ConfigMap in each namespace", seconds=2)


def test_a_registry_that_is_away(world: World) -> None:
    """The last test: Always needs it, IfNotPresent does not; the failure is seen from the host."""
    nodes.docker("kill", world.registry.name)
    world.cluster.apply(registry.pod("lost", APP, "Always"), registry.pod("still", APP))
    world.cluster.await_pods("still")
    world.waiting("lost", "ErrImagePull", "ImagePullBackOff")
    (row,) = (
        one
        for one in json.loads(world.cluster.command("status", "--output=json"))["failing_pulls"]
        if one["pod"] == "default/lost"
    )
    assert row["image"] == APP
    assert registry.HOST in row["message"]
    table = world.cluster.command("status")
    assert "IS NOT PULLED" in table
    assert "default/lost" in table
    events = [
        line for line in world.cluster.command("events").splitlines() if "Pod default/lost" in line
    ]
    assert any(f'Failed to pull image "{APP}"' in line for line in events), events


def test_every_wrong_file_is_told_at_once(tmp_path: pathlib.Path) -> None:
    registries = tmp_path / "registries"
    for name, text in (
        ("docker.io", "server = https://mirror\n"),
        ("registry.test:5000", '[host."https://mirror:5000"]\nca = "gone.crt"\n'),
        ("hub.docker.com", 'server = "https://mirror"\n'),
    ):
        (registries / name).mkdir(parents=True)
        (registries / name / "hosts.toml").write_text(text)
    (tmp_path / "config.json").write_text("{auths}")
    done = subprocess.run(
        [
            "docker", "run", "--rm", f"--volume={registries}:/etc/p8s/registries:ro",
            f"--volume={tmp_path}/config.json:/etc/p8s/docker-config.json:ro", nodes.IMAGE,
            "--ca-bundle=/etc/p8s/absent.pem",
        ],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    told = [line.removeprefix("  - ") for line in done.stderr.splitlines() if "  - " in line]
    assert [line.split(": ")[0] for line in told] == [
        "registries", "registries", "registries", "docker_config", "ca_bundle",
    ]  # fmt: skip
    assert "docker.io: hosts.toml: not TOML" in told[0]
    assert "hub.docker.com: the registry of Docker Hub's images is docker.io" in told[1]
    assert "gone.crt: there is no such file in the node" in told[2]
    assert "config.json: not JSON" in told[3]
    assert "absent.pem: cannot be read: No such file or directory; mount" in told[4]
