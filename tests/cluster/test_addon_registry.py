"""The add-on registry: docker pushes, pods pull by the same name, and what no tag names goes."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pathlib
import subprocess
import tarfile
import typing

import pytest
import requests

from p8s_supervisor import origins, wait
from tests.cluster import conftest, nodes, registry

ROOT = pathlib.Path(__file__).parents[2]
BLOBS = "/var/lib/p8s/registry/docker/registry/v2/blobs"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DEPLOYMENT = ("--namespace=p8s-registry", "deployment/registry")
QUIET = "/spec/template/spec/containers/0/command/3"
# Writes with an Origin are a page's; "null" is that of a file or of a sandboxed frame.
ORIGINS = ("http://example.com", "null")


@dataclasses.dataclass(frozen=True)
class World:
    """A cluster with a registry that is published.

    Attributes:
        port: where, on the host.
        folder: of a Dockerfile that copies a program that sleeps, and the file `word`.
        volume: the cluster's state.
    """

    node: nodes.Node
    admin: nodes.Kubectl
    port: int
    folder: pathlib.Path
    volume: str

    def push(self, name: str, word: str) -> None:
        """Build and push an image as a user does; another word makes another layer."""
        (self.folder / "word").write_text(word)
        full = f"localhost:{self.port}/{name}"
        nodes.docker("build", "--quiet", f"--tag={full}", str(self.folder))
        try:
            nodes.docker("push", "--quiet", full)
        finally:
            nodes.docker("image", "rm", full)

    def ask(
        self, path: str, method: str = "GET", *, data: object = None, **headers: str
    ) -> requests.Response:
        """What the registry answers on the published port."""
        return requests.request(
            method,
            f"http://localhost:{self.port}/v2/{path}",
            data=None if data is None else json.dumps(data),
            headers=headers,
            timeout=10,
        )

    def manifest(self, name: str, tag: str) -> tuple[dict[str, typing.Any], str]:
        """An image's manifest, and its digest."""
        answer = self.ask(f"{name}/manifests/{tag}", Accept=MANIFEST)
        assert answer.status_code == 200, answer.text
        return answer.json(), answer.headers["Docker-Content-Digest"]

    def word_blob(self, name: str, tag: str) -> str:
        """The digest of the layer with the word, which no other image has."""
        return str(self.manifest(name, tag)[0]["layers"][-1]["digest"])

    def is_kept(self, digest: str) -> bool:
        """Whether a blob's bytes are in the state volume."""
        return bool(self.node.execute("find", BLOBS, "-name", digest.removeprefix("sha256:")))

    def await_rollout(self) -> None:
        self.admin("rollout", "status", "--timeout=30s", *DEPLOYMENT)


def run(volume: str, port: int) -> typing.ContextManager[nodes.Node]:
    return nodes.run(
        "--add-ons=registry",
        f"--registry-mirrors=localhost:{port}=http://127.0.0.1:5000",
        options=[f"--publish=127.0.0.1:{port}:5000", f"--volume={volume}:/var/lib/p8s"],
        image=nodes.FULL_IMAGE,
    )


def list_processes(node: nodes.Node) -> list[str]:
    """/proc/PID/comm of each that is the registry."""
    find = "grep --files-with-matches --line-regexp registry /proc/[0-9]*/comm"
    return node.execute("sh", "-c", find, check=False).split()


@pytest.fixture(scope="module")
def world(
    make_kubectl: conftest.MakeKubectl, tmp_path_factory: pytest.TempPathFactory
) -> typing.Iterator[World]:
    folder = tmp_path_factory.mktemp("image")
    layer = next(iter(registry.make_image("any")[1].values()))
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        tar.extractall(folder, filter="tar")
    (folder / "Dockerfile").write_text(
        'FROM scratch\nCOPY pause /\nCOPY word /\nENTRYPOINT ["/pause"]\n'
    )
    port = nodes.free_port()
    with nodes.volume() as volume, run(volume, port) as node:
        node.await_ready()
        yield World(node, make_kubectl(node), port, folder, volume)


def test_pods_pull_what_docker_pushed_by_the_same_name(world: World) -> None:
    """By the published port's name, and by that of the port in the node, which needs no setting."""
    world.push("app:1", "first")
    names = (f"localhost:{world.port}/app:1", "localhost:5000/app:1")
    pods = [registry.pod(f"pulled-{at}", name, "Always") for at, name in enumerate(names)]
    world.admin.apply(*pods)
    world.admin.await_ready("pod/pulled-0", "pod/pulled-1")
    _, digest = world.manifest("app", "1")
    for at in range(2):
        [status] = world.admin.get("pod", f"pulled-{at}")["status"]["containerStatuses"]
        assert status["imageID"].endswith(f"/app@{digest}")
    log = world.node.execute("kubectl", "logs", *DEPLOYMENT)
    assert "containerd" in log, log


def test_it_is_a_service_for_pods(world: World) -> None:
    spec = world.admin.get("service", "--namespace=p8s-registry", "registry")["spec"]
    ask = f"import urllib.request as r; print(r.urlopen('http://{spec['clusterIP']}:5000/v2/').status)"
    assert world.node.execute("python3", "-c", ask).strip() == "200"


@pytest.mark.parametrize("origin", ORIGINS)
def test_no_web_page_may_write(world: World, origin: str) -> None:
    assert world.ask("app/blobs/uploads/", "POST", Origin=origin).status_code == 403
    assert world.ask("app/blobs/uploads/", "POST").status_code == 202


def test_it_runs_without_root(world: World) -> None:
    owner = world.node.execute("stat", "--format=%u %a", "/var/lib/p8s/registry").strip()
    assert owner == "65532 755"
    [comm] = list_processes(world.node)
    status = world.node.execute("cat", comm.replace("comm", "status"))
    found = {line.split(":")[0]: line.split(":")[1].split() for line in status.splitlines()}
    assert set(found["Uid"]) == {"65532"}
    assert int(found["CapEff"][0], 16) == int(found["CapPrm"][0], 16) == 0


def test_what_no_tag_names_is_collected(world: World) -> None:
    """At its start, which is how one asks for it, and after a while without a push."""
    world.push("app:moved", "old")
    world.push("app:part", "part of an index")
    world.push("app:deleted", "deleted")
    moved, deleted = world.word_blob("app", "moved"), world.word_blob("app", "deleted")
    world.push("app:moved", "new")
    put_index(world)
    assert world.ask("app/manifests/part", "DELETE").status_code == 202
    assert world.ask("app/manifests/deleted", "DELETE").status_code == 202
    part = world.manifest("app", index_entry(world))[0]["layers"][-1]["digest"]
    kept = [world.word_blob("app", "moved"), part]
    assert all(map(world.is_kept, [*kept, moved, deleted]))

    patch = [{"op": "replace", "path": QUIET, "value": "-quiet=1s"}]
    world.admin("patch", "--type=json", f"--patch={json.dumps(patch)}", *DEPLOYMENT)
    world.await_rollout()
    assert [world.is_kept(digest) for digest in (moved, deleted)] == [False, False]

    world.push("app:moved", "newest")
    wait.until(
        lambda: f"{kept[0]} is there" if world.is_kept(kept[0]) else None,
        awaited="the collection after a second without a write",
        seconds=10,
        interval=0.2,
    )
    assert world.is_kept(part)
    world.admin.apply(registry.pod("newest", f"localhost:{world.port}/app:moved"))
    world.admin.await_ready("pod/newest")


def put_index(world: World) -> None:
    """An index, as an image for several platforms has, with the manifest of the tag `part`."""
    manifest, digest = world.manifest("app", "part")
    size = len(world.ask(f"app/manifests/{digest}", Accept=MANIFEST).content)
    entry = {"mediaType": manifest["mediaType"], "digest": digest, "size": size}
    entry["platform"] = {"architecture": "amd64", "os": "linux"}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    answer = world.ask("app/manifests/index", "PUT", data=index, **{"Content-Type": INDEX})
    assert answer.status_code == 201, answer.text


def index_entry(world: World) -> str:
    """The digest of the one manifest in the index."""
    index = world.ask("app/manifests/index", Accept=INDEX).json()
    return str(index["manifests"][0]["digest"])


def test_disabled_it_is_away_and_its_images_are_kept(world: World) -> None:
    world.push("kept:1", "kept")
    answer = requests.delete(world.node.url("/addons/registry"), timeout=60)
    assert answer.status_code == 200, answer.text
    with pytest.raises(requests.ConnectionError):
        world.ask("")
    assert "p8s-registry" not in world.admin("get", "namespaces", "--output=name")
    assert list_processes(world.node) == []
    assert requests.post(world.node.url("/addons/registry"), timeout=60).status_code == 200
    world.await_rollout()
    assert world.is_kept(world.word_blob("kept", "1"))


def test_the_overlay_keeps_the_settings_of_the_shell() -> None:
    given = {"P8S_REGISTRY_PORT": "5001", "P8S_REGISTRY_MIRRORS": "docker.io=https://mirror"}
    command = [
        *("docker", "compose", "--file=docker-compose.yml", "--file=compose/registry.yml"),
        *("config", "--format=json"),
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | given, capture_output=True, text=True, check=True
    )
    service = json.loads(done.stdout)["services"]["p8s"]
    assert origins.parse_mirrors(service["environment"]["P8S_REGISTRY_MIRRORS"]) == (
        origins.Mirror(registry="docker.io", url="https://mirror"),
        origins.Mirror(registry="localhost:5001", url="http://127.0.0.1:5000"),
    )
    assert service["environment"]["P8S_ADD_ONS"] == "storage,registry"
    [port] = [one for one in service["ports"] if one["target"] == 5000]
    assert (port["host_ip"], port["published"]) == ("127.0.0.1", "5001")


def test_images_outlive_the_container(world: World, make_kubectl: conftest.MakeKubectl) -> None:
    """The last test: the container is killed, and another takes the volume."""
    world.push("lasting:1", "lasting")
    digest = world.manifest("lasting", "1")[1]
    nodes.docker("kill", world.node.name)
    world.node.remove()
    port = nodes.free_port()
    with run(world.volume, port) as node:
        node.await_ready()
        later = dataclasses.replace(world, node=node, port=port, admin=make_kubectl(node))
        assert later.manifest("lasting", "1")[1] == digest
        name = f"localhost:{port}/lasting:1"
        later.admin.apply(registry.pod("lasting", name, "Always"))
        later.admin.await_ready("pod/lasting")
