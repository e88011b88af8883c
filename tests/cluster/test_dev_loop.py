"""The developer's loop as docs/dev-loop.md tells it, with the application of compose/app."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import threading
import typing

import pytest
import requests
import yaml

from p8s_supervisor import wait
from tests.cluster import nodes, test_cli

ROOT = pathlib.Path(__file__).parents[2]
# The documented base image is in a registry; this one is of the node's own Python.
BASE = """\
FROM {image} AS node
FROM scratch
COPY --from=node /lib64 /lib64
COPY --from=node /usr/lib/x86_64-linux-gnu /lib/x86_64-linux-gnu
COPY --from=node /usr/lib/python3.13 /usr/lib/python3.13
COPY --from=node /usr/bin/python3 /usr/bin/
"""
# For an answer, and for the autoscaler's first look at the metrics: metrics-server's and its own period.
SECONDS, METRICS_SECONDS = 10.0, 60.0


def read_commands() -> list[str]:
    """The commands of the document's first part, in its order."""
    text = (ROOT / "docs/dev-loop.md").read_text().partition("\n## ")[0]
    return re.findall(r"^    (?:\$ )?((?:p8s |compose/|curl ).*)$", text, re.MULTILINE)


def find_block(heading: str, language: str) -> str:
    """The first example under a heading of the document."""
    text = (ROOT / "docs/dev-loop.md").read_text().partition(f"\n## {heading}\n")[2]
    found = re.search(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


@dataclasses.dataclass(frozen=True)
class Desk:
    """Where a developer sits: a copy of the application, a kubeconfig, p8s and kubectl, and a cluster.

    Attributes:
        image: the application's, which has another name here.
        port: the host's for the Ingress.
    """

    folder: pathlib.Path
    environment: dict[str, str]
    name: str
    image: str
    port: int

    def run(self, command: str, **environment: str) -> str:
        """Run a command of the document, with this cluster's name and port."""
        command = re.sub(r"\b8080\b", str(self.port), command)
        done = subprocess.run(
            ["sh", "-ec", command],
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def kubectl(self, *arguments: str) -> str:
        return self.run(f"kubectl --context=p8s-{self.name} {' '.join(arguments)}")

    def get(self, kind: str) -> typing.Any:
        return json.loads(self.kubectl("get", kind, "app", "--output=json"))

    def await_visit(self, command: str, greeting: str) -> int:
        """The number of the first visit with a greeting."""
        said = ""

        def look() -> str | None:
            nonlocal said
            said = self.run(command.replace("curl ", "curl --silent --show-error "))
            return None if said.startswith(f"{greeting}, ") else said

        wait.until(look, awaited=f"{greeting} through the Ingress", seconds=SECONDS)
        found = re.fullmatch(rf"{greeting}, visitor (\d+), from app-\S+\n", said)
        assert found, said
        return int(found[1])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[str]:
    folder = tmp_path_factory.mktemp("base")
    (folder / "Dockerfile").write_text(BASE.format(image=nodes.FULL_IMAGE))
    name = f"{nodes.unique('p8s-test')}:base"
    nodes.docker("build", "--quiet", f"--tag={name}", str(folder))
    yield name
    nodes.docker("rmi", name)


@pytest.fixture(scope="module")
def desk(
    base: str, tmp_path_factory: pytest.TempPathFactory, kubectl_program: pathlib.Path
) -> typing.Iterator[Desk]:
    """The cluster that the document's first command makes."""
    folder = tmp_path_factory.mktemp("desk")
    image = copy_application(folder / "compose/app")
    program = test_cli.Command(folder / "config", kubectl_program)
    path = f"{pathlib.Path(test_cli.PROGRAM).parent}:{kubectl_program.parent}:{os.environ['PATH']}"
    with test_cli.named(program) as name:
        own = {"PATH": path, "P8S_NAME": name, "BASE": base}
        found = Desk(folder, program.environment | own, name, image, nodes.free_port())
        start, *_ = read_commands()
        start = start.replace("--image=p8s:full", f"--image={nodes.FULL_IMAGE} --no-check")
        found.run(start)
        yield found
    nodes.docker("rmi", f"{image}:dev", check=False)


def copy_application(folder: pathlib.Path) -> str:
    """Copy compose/app, and give its image a name that is no one else's."""
    shutil.copytree(ROOT / "compose/app", folder)
    image = nodes.unique("p8s-test")
    for file in (folder / "up.sh", folder / "manifests.yaml"):
        file.write_text(re.sub(r"\bapp:(?=dev|\$)", f"{image}:", file.read_text()))
    return image


def test_the_document_has_the_commands() -> None:
    start, first, curl, again = read_commands()
    assert start.startswith("p8s run --detach ")
    assert "curl " in curl
    assert first == again == "compose/app/up.sh"


@contextlib.contextmanager
def visitors(port: int) -> typing.Iterator[list[int]]:
    """One after another, meanwhile: the status that each got."""
    seen: list[int] = []
    ended = threading.Event()

    def visit() -> None:
        while not ended.wait(0.1):
            headers = {"Host": "app.localhost"}
            answer = requests.get(f"http://127.0.0.1:{port}/", headers=headers, timeout=SECONDS)
            seen.append(answer.status_code)

    thread = threading.Thread(target=visit)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def test_from_the_first_build_to_an_edit(desk: Desk) -> None:
    _, up, curl, again = read_commands()
    assert "deployment.apps/app created" in desk.run(up)
    assert desk.await_visit(curl, "Hello") == 1

    assert "deployment.apps/app unchanged" in desk.run(again), "nothing was edited"

    source = desk.folder / "compose/app/app.py"
    source.write_text(source.read_text().replace('GREETING = "Hello"', 'GREETING = "Welcome"'))
    with visitors(desk.port) as seen:
        assert "deployment.apps/app configured" in desk.run(again)
        assert desk.await_visit(curl, "Welcome") > 1, "the volume is the same"
    assert collections.Counter(seen).keys() == {200}, "no visitor is refused"
    tags = nodes.docker("images", "--format={{.Tag}}", f"--filter=reference={desk.image}")
    assert tags.split() == ["dev"], "no name of a build is left in the engine"


def list_images(desk: Desk) -> set[str]:
    node = json.loads(desk.run("p8s list --output=json"))
    (http,) = [one["ports"]["http"] for one in node if one["name"] == desk.name]
    told = desk.run(f"curl --silent --fail http://{http}/images")
    return {image["name"] for image in json.loads(told)["images"]}


def test_skaffolds_hook_loads_what_pods_name(desk: Desk) -> None:
    config = yaml.safe_load(find_block("Skaffold", "yaml"))
    (artifact,) = config["build"]["artifacts"]
    (hook,) = artifact["hooks"]["after"]
    tag, identity = build(desk)
    unique = f"{tag.partition(':')[0]}:{identity.removeprefix('sha256:')}"
    try:
        nodes.docker("tag", tag, unique)  # as Skaffold does before its hooks
        assert hook["command"][:2] == ["sh", "-c"]
        repository = tag.partition(":")[0]
        desk.run(hook["command"][2], SKAFFOLD_IMAGE=tag, SKAFFOLD_IMAGE_REPO=repository)
        assert f"docker.io/library/{unique}" in list_images(desk)
    finally:
        nodes.docker("rmi", tag, unique, check=False)


def test_tilts_build_loads_what_pods_name(desk: Desk) -> None:
    found = re.search(r'custom_build\(\s*"app",\s*"([^"]+)",', find_block("Tilt", "python"))
    assert found
    name = f"{nodes.unique('app')}:tilt-build-1"
    try:
        command = found[1].replace("docker build ", "docker build --build-arg=BASE ")
        desk.run(f"cd compose/app && {command}", EXPECTED_REF=name)
        assert f"docker.io/library/{name}" in list_images(desk)
    finally:
        nodes.docker("rmi", name, check=False)


def build(desk: Desk) -> tuple[str, str]:
    """An image of the application: its name, and its ID."""
    name = f"{nodes.unique('app')}:1"
    desk.run(f"docker build --quiet --build-arg=BASE --tag={name} compose/app")
    return name, nodes.docker("inspect", "--format={{.Id}}", name).strip()


def test_the_autoscaler_knows_the_load(desk: Desk) -> None:
    """The last: it takes the metrics some time to be there."""

    def look() -> str | None:
        status = desk.get("horizontalpodautoscaler")["status"]
        found = {one["type"]: one for one in status.get("conditions", [])}
        active = found.get("ScalingActive", {"status": "unknown"})
        return None if active["status"] == "True" else str(active)

    wait.until(look, awaited="the autoscaler to have metrics", seconds=METRICS_SECONDS)
    status = desk.get("horizontalpodautoscaler")["status"]
    assert "averageUtilization" in status["currentMetrics"][0]["resource"]["current"]
