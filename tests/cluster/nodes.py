"""A p8s container as a user has it: docker's command line, HTTP on the published port, kubectl."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import secrets
import socket
import subprocess
import time
import typing

import requests
import yaml

from p8s_supervisor import wait

IMAGE = os.environ.get("IMAGE", "p8s:latest")
# The one with every add-on.
FULL_IMAGE = os.environ.get("FULL_IMAGE", "p8s:full")
# Time for what is no subject of a test; what is, has its own bound.
START_SECONDS = 90.0
STOP_SECONDS = 60.0


def docker(*arguments: str, check: bool = True, seconds: float = 120) -> str:
    """Run docker and give its standard output; its errors are in the exception."""
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=seconds, check=False
    )
    if check and done.returncode != 0:
        raise AssertionError(f"docker {' '.join(arguments)}: {done.stderr or done.stdout}")
    return done.stdout


# Below what Linux takes for connections of its own, and for a port that nobody chose: until it is used,
# nothing else comes by one of these. None is given twice.
_PORTS = iter(random.sample(range(20000, 30000), 10000))


def free_port() -> int:
    """A TCP port of loopback that nobody has, and that no other caller in this process is given."""
    for port in _PORTS:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("every port has been given")


# The names that this run has given: what carries one of them is its own.
MADE: set[str] = set()


def unique(prefix: str) -> str:
    """A name that no other test has."""
    name = f"{prefix}-{secrets.token_hex(4)}"
    MADE.add(name)
    return name


@dataclasses.dataclass(frozen=True)
class Node:
    """A container with its published ports."""

    name: str
    http_port: int
    api_port: int

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http_port}{path}"

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(self.url(path), headers=headers, timeout=10)

    def post(self, path: str, **headers: str) -> requests.Response:
        return requests.post(self.url(path), headers=headers, timeout=10)

    def status(self) -> dict[str, typing.Any]:
        return typing.cast("dict[str, typing.Any]", self.get("/status").json())

    @property
    def minor(self) -> str:
        """Of its Kubernetes, such as 1.37."""
        version: str = self.status()["versions"]["kubernetes"]
        return version.removeprefix("v").rpartition(".")[0]

    def count_restarts(self) -> dict[str, int]:
        """Each component's."""
        return {one["name"]: one["restarts"] for one in self.status()["components"]}

    def await_ready(self, *, seconds: float = START_SECONDS) -> float:
        """Poll /ready until it is green.

        Returns:
            The moment, on the monotonic clock.

        Raises:
            AssertionError: it did not turn green in time, or the container ended.
        """
        reason = "no answer yet"
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                answer = self.get("/ready")
            except requests.ConnectionError as error:
                reason = str(error)
                assert self.is_running(), f"{self.name} has ended:\n{self.logs()}"
            else:
                if answer.status_code == 200:
                    return time.monotonic()
                reason = answer.text
            time.sleep(0.02)
        raise AssertionError(f"{self.name} is not ready: {reason}\n{self.logs()}")

    def await_add_ons(self) -> None:
        """Wait until those that came with the start can be used: the default one comes after ready."""
        wait.until(
            lambda: (
                ", ".join(
                    f"{one['name']}: {one['reason']}"
                    for one in self.status()["addons"]
                    if one["enabled"] and not one["usable"]
                )
                or None
            ),
            awaited=f"the add-ons of {self.name}",
            seconds=START_SECONDS,
        )

    def is_running(self) -> bool:
        return self.inspect("{{.State.Running}}") == "true"

    def inspect(self, template: str) -> str:
        return docker("inspect", "--format", template, self.name).strip()

    @property
    def address(self) -> str:
        """The container's address."""
        return self.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")

    def logs(self) -> str:
        done = subprocess.run(
            ["docker", "logs", self.name], capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    def execute(self, *command: str, check: bool = True) -> str:
        return docker("exec", self.name, *command, check=check)

    def wait(self, *, seconds: float = STOP_SECONDS) -> int:
        """Wait for the container's end and give its exit code."""
        return int(docker("wait", self.name, seconds=seconds))

    def await_story(self, told: str, *, seconds: float) -> None:
        """Wait for words in the container's log."""
        wait.until(
            lambda: None if told in self.logs() else self.logs()[-2000:],
            awaited=f"{told!r} in the log",
            seconds=seconds,
            interval=0.5,
        )

    def remove(self) -> None:
        """Remove the container and its anonymous volume."""
        docker("rm", "--force", "--volumes", self.name, check=False)  # --rm may be at it already
        wait.until(
            lambda: docker("ps", "--all", "--quiet", f"--filter=name=^{self.name}$") or None,
            awaited=f"the removal of {self.name}",
            seconds=STOP_SECONDS,
        )


@contextlib.contextmanager
def volume(*options: str) -> typing.Iterator[str]:
    """A docker volume, gone at the end; `options` are more for `docker volume create`."""
    name = unique("p8s-test")
    docker("volume", "create", *options, name)
    try:
        yield name
    finally:
        docker("volume", "rm", "--force", name)


@contextlib.contextmanager
def network(*options: str) -> typing.Iterator[str]:
    """A docker network, gone at the end; `options` are more for `docker network create`."""
    name = unique("p8s-test")
    docker("network", "create", *options, name)
    try:
        yield name
    finally:
        docker("network", "rm", name)


@contextlib.contextmanager
def run(
    *settings: str,
    options: typing.Sequence[str] = (),
    ports: tuple[int, int] | None = None,
    image: str = IMAGE,
) -> typing.Iterator[Node]:
    """A container, gone at the end.

    Args:
        settings: p8s' own flags.
        options: more for `docker run`.
        ports: the HTTP API's and the apiserver's port in the container.
        image: another than that which is tested.
    """
    inside_http, inside_api = ports or (8989, 6443)
    node = Node(unique("p8s-test"), free_port(), free_port())
    try:
        docker(
            "run",
            "--detach",
            "--privileged",
            f"--name={node.name}",
            f"--publish=127.0.0.1:{node.http_port}:{inside_http}",
            f"--publish=127.0.0.1:{node.api_port}:{inside_api}",
            *options,
            image,
            f"--api-server=https://127.0.0.1:{node.api_port}",
            *settings,
        )
        yield node
    finally:
        node.remove()


@dataclasses.dataclass(frozen=True)
class Kubectl:
    """kubectl on the host, with one cluster's kubeconfig."""

    program: pathlib.Path
    kubeconfig: pathlib.Path

    def read_ca(self) -> str:
        """The cluster's CA, PEM."""
        config = yaml.safe_load(self.kubeconfig.read_text())  # kubectl writes it anew as YAML
        data = config["clusters"][0]["cluster"]["certificate-authority-data"]
        return base64.b64decode(data).decode()

    def command(self, *arguments: str) -> list[str]:
        return [str(self.program), f"--kubeconfig={self.kubeconfig}", *arguments]

    def __call__(self, *arguments: str, stdin: object = None, seconds: float = 90) -> str:
        """Run it; `stdin` is written as JSON."""
        done = self.attempt(*arguments, stdin=stdin, seconds=seconds)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def attempt(
        self, *arguments: str, stdin: object = None, seconds: float = 90
    ) -> subprocess.CompletedProcess[str]:
        """Run it, whatever comes of it."""
        return subprocess.run(
            self.command(*arguments),
            input="" if stdin is None else json.dumps(stdin),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def get(self, *arguments: str) -> typing.Any:
        """`kubectl get … -o json`, parsed."""
        return json.loads(self("get", *arguments, "--output=json"))

    def apply(self, *objects: dict[str, typing.Any]) -> None:
        self("apply", "--filename=-", stdin={"apiVersion": "v1", "kind": "List", "items": objects})

    def await_ready(self, *pods: str) -> None:
        """Wait until pods are Ready; a failure tells what they are waiting for."""
        done = self.attempt("wait", "--for=condition=Ready", "--timeout=60s", *pods)
        assert done.returncode == 0, done.stderr + self("describe", *pods)
