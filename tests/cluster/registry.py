"""Real registries and a real proxy in containers, and images to pull from them."""

from __future__ import annotations

import base64
import collections.abc
import contextlib
import dataclasses
import datetime
import functools
import hashlib
import io
import json
import pathlib
import subprocess
import sys
import tarfile
import typing

import requests

from p8s_supervisor import pki, wait
from tests.cluster import nodes

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = str(pathlib.Path(sys.executable).with_name("p8s"))
HOST = "registry.test"
# With TLS and a password; plain, where tests push; and with TLS and a password once more.
SECURE, PLAIN, OTHER = 5000, 5001, 5002
USER, PASSWORD = "puller", "not-for-everybody"
HASH = "$2b$05$abcdefghijklmnopqrstuuiESjhV0E91QjdBVZk.ipY7Jz7cKCK4G"
SERVE = f"""
serve() {{ REGISTRY_HTTP_ADDR=:$1 docker-registry serve /etc/registry.yml & }}
serve {PLAIN}
export REGISTRY_HTTP_TLS_CERTIFICATE=/tls/tls.crt REGISTRY_HTTP_TLS_KEY=/tls/tls.key
export REGISTRY_AUTH_HTPASSWD_REALM=test REGISTRY_AUTH_HTPASSWD_PATH=/tls/htpasswd
serve {SECURE}
serve {OTHER}
wait
"""
Blobs = dict[str, bytes]


@functools.cache
def image() -> str:
    """The image with docker-registry and tinyproxy; built once, then taken from docker's cache."""
    base = subprocess.run(
        [ROOT / "scripts/base-image.sh"], capture_output=True, text=True, check=True
    ).stdout.strip()
    name = "p8s.local/test-registry"
    nodes.docker(
        "buildx", "build", "--load", f"--build-arg=BASE_IMAGE={base}", f"--tag={name}",
        f"--file={ROOT}/tests/cluster/registry.Dockerfile", str(ROOT / "tests/cluster"), seconds=300,
    )  # fmt: skip
    return name


@dataclasses.dataclass(frozen=True)
class Registry:
    """A container with three registries of one content.

    Attributes:
        name: the container's.
        ca: the file with the CA that signed its certificate.
    """

    name: str
    ca: pathlib.Path

    @property
    def logs(self) -> str:
        done = subprocess.run(
            ["docker", "logs", self.name], capture_output=True, text=True, check=True
        )
        return done.stdout + done.stderr

    def push(self, repository: str, tag: str, word: str) -> str:
        """Push an image whose process sleeps; another word makes another image.

        Returns:
            The manifest's digest.
        """
        address = nodes.docker(
            "inspect",
            "--format={{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}",
            self.name,
        ).split()[0]
        url = f"http://{address}:{PLAIN}/v2/{repository}"
        manifest, blobs = make_image(word)
        session = requests.Session()
        session.trust_env = False
        for digest, content in blobs.items():
            begun = session.post(f"{url}/blobs/uploads/", timeout=10)
            begun.raise_for_status()
            session.put(
                begun.headers["Location"], params={"digest": digest}, data=content, timeout=10
            ).raise_for_status()
        kind = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
        done = session.put(f"{url}/manifests/{tag}", data=manifest, headers=kind, timeout=10)
        done.raise_for_status()
        return done.headers["Docker-Content-Digest"]


@functools.cache
def _sleeper_layer() -> bytes:
    """The layer with the program that sleeps, out of the node's own image of it."""
    done = subprocess.run(
        [
            "docker",
            "run",
            "--rm",
            "--entrypoint=cat",
            nodes.IMAGE,
            "/usr/share/p8s/images/node.tar",
        ],
        capture_output=True,
        check=True,
    )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        files = {one.name: tar.extractfile(one) for one in tar if one.isfile()}
        read = {name: file.read() for name, file in files.items() if file is not None}
    index = json.loads(read["index.json"])
    (found,) = (
        one["digest"]
        for one in index["manifests"]
        if one["annotations"]["io.containerd.image.name"] == "p8s.local/pause:1"
    )
    manifest = json.loads(read[f"blobs/sha256/{found.removeprefix('sha256:')}"])
    layer: str = manifest["layers"][0]["digest"]
    return read[f"blobs/sha256/{layer.removeprefix('sha256:')}"]


def make_image(word: str) -> tuple[bytes, Blobs]:
    """A manifest and what it names, by digest."""
    layer = _sleeper_layer()
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": ["/pause"], "Labels": {"word": word}},
            "rootfs": {"type": "layers", "diff_ids": [digest]},
        }
    ).encode()
    blobs = {digest: layer, f"sha256:{hashlib.sha256(config).hexdigest()}": config}
    kind = "application/vnd.oci.image"
    described = [
        {"mediaType": f"{kind}.{name}", "digest": found, "size": len(content)}
        for name, (found, content) in zip(
            ("layer.v1.tar", "config.v1+json"), blobs.items(), strict=True
        )
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": described[1],
        "layers": described[:1],
    }
    return json.dumps(manifest).encode(), blobs


@contextlib.contextmanager
def run(network: str, directory: pathlib.Path) -> collections.abc.Iterator[Registry]:
    """Registries at registry.test in a docker network, gone at the end."""
    now = datetime.datetime.now(datetime.UTC)
    authority = pki.make_authority("a company", now=now)
    leaf = pki.Leaf(name="tls", authority="", common_name=HOST, sans=(HOST,), client=False)
    pair = pki.make_leaf(leaf, authority, now=now)
    tls = directory / "tls"
    tls.mkdir()
    (tls / "tls.crt").write_bytes(pair.certificate_pem)
    (tls / "tls.key").write_bytes(pair.key_pem)
    (tls / "htpasswd").write_text(f"{USER}:{HASH}\n")
    ca = directory / "ca.pem"
    ca.write_bytes(authority.certificate_pem)
    found = Registry(nodes.unique("p8s-registry"), ca)
    try:
        nodes.docker(
            "run", "--detach", f"--name={found.name}", f"--network={network}",
            f"--network-alias={HOST}", f"--volume={tls}:/tls:ro", image(), "sh", "-c", SERVE,
        )  # fmt: skip
        _await_log(found, 3, "listening on")
        yield found
    finally:
        nodes.docker("rm", "--force", "--volumes", found.name, check=False)


def _await_log(registry: Registry, times: int, words: str) -> None:
    wait.until(
        lambda: None if registry.logs.count(words) >= times else registry.logs or "no line yet",
        awaited=f"{words!r} in the registry's log",
        seconds=10,
    )


def docker_config(*registries: str) -> dict[str, typing.Any]:
    """docker's config.json with the password for some registries."""
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    return {"auths": {registry: {"auth": auth} for registry in registries}}


@dataclasses.dataclass(frozen=True)
class Inside:
    """A node in a docker network without a way out: its ports are not published."""

    node: nodes.Node

    def await_ready(self) -> None:
        wait.until(
            lambda: (
                None if (told := self._health()) == "healthy" else f"{told}\n{self.node.logs()}"
            ),
            awaited=f"{self.node.name}",
            seconds=nodes.START_SECONDS,
        )

    def _health(self) -> str:
        assert self.node.is_running(), self.node.logs()
        return self.node.inspect("{{.State.Health.Status}}")

    def kubectl(self, *arguments: str, stdin: object = None, check: bool = True) -> str:
        """The node's own kubectl."""
        done = subprocess.run(
            ["docker", "exec", "--interactive", self.node.name, "kubectl", *arguments],
            input="" if stdin is None else json.dumps(stdin),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout + done.stderr

    def get(self, *arguments: str) -> typing.Any:
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def apply(self, *objects: dict[str, typing.Any]) -> None:
        self.kubectl(
            "apply", "--filename=-", stdin={"apiVersion": "v1", "kind": "List", "items": objects}
        )

    def await_pods(self, *names: str) -> None:
        """Wait until pods are Ready; a failure tells what they are waiting for."""
        wanted = [f"pod/{name}" for name in names]
        done = self.kubectl("wait", "--for=condition=Ready", "--timeout=30s", *wanted, check=False)
        assert done.count("condition met") == len(names), done + self.kubectl("describe", *wanted)

    def command(self, *arguments: str) -> str:
        """`p8s` on the host, for this cluster."""
        done = subprocess.run(
            [PROGRAM, arguments[0], f"--name={self.node.name}", *arguments[1:]],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def pod(name: str, image: str, policy: str = "IfNotPresent", **spec: object) -> dict[str, object]:
    """A pod of one container."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": image, "imagePullPolicy": policy}],
            **spec,
        },
    }
