"""The images of Kubernetes' tests: built here, and given to the node under the names that tests ask for."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import io
import json
import os
import pathlib
import subprocess
import tarfile
import tempfile
import typing

import requests

from p8s_supervisor import wait
from tests.cluster import nodes

ROOT = pathlib.Path(__file__).parents[2]
DOCKERFILE = ROOT / "tests/conformance/Dockerfile"
# In the engine they have names of ours: nothing there passes for an image that others publish.
LOCAL = "p8s.local/conformance"
# The last part of an image's name → the Dockerfile's target.
TARGETS = {
    name: name
    for name in (
        "agnhost",
        "busybox",
        "etcd",
        "glibc-dns-testing",
        "kitten",
        "nautilus",
        "nginx",
        "nonewprivs",
        "nonroot",
        "pause",
        "sample-apiserver",
    )
} | {"jessie-dnsutils": "glibc-dns-testing"}  # its name up to 1.35
# What tests pull with imagePullPolicy Always.
PULLED = ("agnhost", "kitten")
MIRROR = '[host."http://{address}:5000"]\n  capabilities = ["pull", "resolve"]\n'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Image:
    """One of the tests' images.

    Attributes:
        name: as tests ask for it.
        target: of the Dockerfile.
        tag: the name's.
    """

    name: str
    target: str
    tag: str

    @property
    def local(self) -> str:
        """Its name in the docker engine."""
        return f"{LOCAL}/{self.target}:{self.tag}"

    @property
    def path(self) -> str:
        """Its name without the registry's host."""
        return self.name.partition("/")[2]


def runner(version: str) -> str:
    """The name of the image that runs the tests of a Kubernetes version."""
    return f"{LOCAL}/runner:{version}"


def choose(listed: collections.abc.Iterable[str]) -> list[Image]:
    """Those of `e2e.test --list-images` that are built here, each once."""
    found = {}
    for name in listed:
        short, _, tag = name.rpartition("/")[2].partition(":")
        # An image that is meant not to be there, or to need a password, has another path.
        if short in TARGETS and tag and "authenticated" not in name:
            found[name] = Image(name=name, target=TARGETS[short], tag=tag)
    return list(found.values())


def read_version() -> str:
    """The Kubernetes version of nodes.IMAGE, with its v."""
    command = ["run", "--rm", "--entrypoint=cat", nodes.IMAGE, "/usr/share/p8s/versions.json"]
    return str(json.loads(nodes.docker(*command))["kubernetes"])


def build(version: str) -> list[Image]:
    """Build the runner and the images that it lists: some 15 minutes once, seconds afterwards."""
    _build("runner", runner(version), version)
    images = list_images(version)
    for image in images:
        _build(image.target, image.local, version, tag=image.tag)
    _build("registry", f"{LOCAL}/registry:{version}", version)
    return images


def _build(target: str, name: str, version: str, *, tag: str = "") -> None:
    command = [str(ROOT / "scripts/build-image.sh"), f"--file={DOCKERFILE}", f"--target={target}"]
    command += [f"--build-arg=P8S_IMAGE={nodes.IMAGE}", *([f"--build-arg=TAG={tag}"] * bool(tag))]
    minor = ".".join(version.removeprefix("v").split(".")[:2])
    subprocess.run(command, env=os.environ | {"IMAGE": name, "KUBERNETES": minor}, check=True)


def list_images(version: str) -> list[Image]:
    """What the tests want, of what is built here; the runner's image must be there."""
    told = nodes.docker("run", "--rm", runner(version), "e2e.test", "--list-images")
    return choose(told.split())


def is_built(version: str) -> bool:
    """Whether the runner and the images that it wants are in the engine."""

    def have(name: str) -> bool:
        return bool(nodes.docker("image", "inspect", name, check=False).strip() not in ("", "[]"))

    return have(runner(version)) and all(have(image.local) for image in list_images(version))


def load(node: nodes.Node, images: collections.abc.Sequence[Image]) -> None:
    """Give images to the node, by POST /images."""
    names = {image.local: image.name for image in images}
    with tempfile.TemporaryFile() as archive:
        with subprocess.Popen(["docker", "save", *names], stdout=subprocess.PIPE) as saved:
            assert saved.stdout is not None
            rename(saved.stdout, archive, names)
        assert saved.returncode == 0, "docker save failed"
        archive.seek(0)
        answer = requests.post(node.url("/images"), data=archive, timeout=300)
    assert answer.status_code == 200, answer.text


def rename(
    source: typing.IO[bytes], target: typing.IO[bytes], names: collections.abc.Mapping[str, str]
) -> None:
    """Copy an archive of `docker save`, its images under other names.

    Args:
        source: the archive; both are read and written in order.
        target: where the copy goes.
        names: old name → new name.
    """
    with (
        tarfile.open(fileobj=source, mode="r|") as old,
        tarfile.open(fileobj=target, mode="w|") as new,
    ):
        for member in old:
            # Names stand in both forms of the archive; one of them is enough.
            if member.name in ("index.json", "oci-layout", "repositories"):
                continue
            content = old.extractfile(member) if member.isfile() else None
            if member.name == "manifest.json" and content is not None:
                listed = json.load(content)
                for entry in listed:
                    entry["RepoTags"] = [names[name] for name in entry["RepoTags"] or []]
                changed = json.dumps(listed).encode()
                member.size, content = len(changed), io.BytesIO(changed)
            new.addfile(member, content)


@contextlib.contextmanager
def run_registry(
    node: nodes.Node, version: str, images: collections.abc.Iterable[Image]
) -> collections.abc.Iterator[None]:
    """A registry beside the node, to which containerd goes whatever host an image's name has."""
    name, port = nodes.unique("p8s-test"), nodes.free_port()
    options = ["--detach", f"--name={name}", f"--publish=127.0.0.1:{port}:5000"]
    try:
        nodes.docker("run", *options, f"{LOCAL}/registry:{version}")

        def look() -> str | None:
            try:
                return None if requests.get(f"http://127.0.0.1:{port}/v2/", timeout=5).ok else "no"
            except requests.RequestException as error:
                return str(error)

        wait.until(look, awaited="the registry", seconds=30)
        for image in images:
            if image.target in PULLED:
                _push(image, f"127.0.0.1:{port}/{image.path}")
        address = nodes.Node(name, port, port).address
        _use_mirror(node, MIRROR.format(address=address))
        yield
    finally:
        nodes.docker("rm", "--force", "--volumes", name, check=False)


def _push(image: Image, name: str) -> None:
    nodes.docker("tag", image.local, name)
    try:
        nodes.docker("push", "--quiet", name, seconds=300)
    finally:
        nodes.docker("rmi", name)


def _use_mirror(node: nodes.Node, hosts: str) -> None:
    """Source: containerd's docs/hosts.md; `_default` is for every host that has no directory."""
    with tempfile.TemporaryDirectory() as folder:
        directory = pathlib.Path(folder) / "_default"
        directory.mkdir(mode=0o755)
        (directory / "hosts.toml").write_text(hosts)
        node.execute("mkdir", "-p", "/etc/containerd/certs.d")
        nodes.docker("cp", str(directory), f"{node.name}:/etc/containerd/certs.d/")
