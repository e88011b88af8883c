"""Ways to have a cluster, each behind the same few calls: p8s, kubeadm, and tools found on PATH."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import functools
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import typing

import yaml

from p8s_supervisor import wait
from tests.cluster import nodes

ROOT = pathlib.Path(__file__).parents[2]
# With a host's name, so that docker and containerd write it alike.
KUBEADM_IMAGE = "p8s.local/kubeadm:latest"
# What the names of kubeadm's images begin with in its node; nothing is pulled from there.
REPOSITORY = "p8s.local/kubeadm"
# kubeadm's checks of the kernel's build and modules look for files that a container has not.
IGNORED_CHECKS = "SystemVerification,FileContent--proc-sys-net-bridge-bridge-nf-call-iptables,Swap"
# First words on standard output: when kubeadm itself began, whatever `docker exec` took.
EXEC = "import os, sys, time; print(time.monotonic(), flush=True); os.execvp(sys.argv[1], sys.argv[1:])"
ARCHIVE = "/usr/share/p8s/images/node.tar"


class Cluster(typing.Protocol):
    """One cluster: made, asked, removed.

    Attributes:
        container: the node, a container of docker's.
        dns_server: the cluster's resolver, a service address.
    """

    container: str
    dns_server: str

    def start(self) -> float:
        """Begin; gives the clock's start, on the monotonic clock. It may go on meanwhile."""

    def check(self) -> None:
        """Raise AssertionError where the start has failed."""

    def finish(self) -> None:
        """Wait for the command that was started, and have the image of `workloads` there."""

    def kubeconfig(self) -> str:
        """An administrator's, for this machine."""


Way = collections.abc.Callable[[], contextlib.AbstractContextManager[Cluster]]
"""A cluster that is prepared for its start, and removed at the end, whatever happened."""


def run_node(
    name: str, port: int, *options: str, image: str, arguments: collections.abc.Sequence[str] = ()
) -> None:
    """`docker run`, the same for ours and for kubeadm's."""
    nodes.docker(
        "run",
        "--detach",
        "--privileged",
        f"--name={name}",
        f"--hostname={name}",
        f"--publish=127.0.0.1:{port}:6443",
        *options,
        image,
        *arguments,
    )


@dataclasses.dataclass
class P8s:
    """Ours, as README.md runs it."""

    container: str
    port: int
    dns_server: str = "192.168.254.2"

    def start(self) -> float:
        begun = time.monotonic()
        server = f"--api-server=https://127.0.0.1:{self.port}"
        run_node(self.container, self.port, image=nodes.IMAGE, arguments=[server])
        return begun

    def check(self) -> None:
        pid_of(self.container)

    def finish(self) -> None:
        pass

    def kubeconfig(self) -> str:
        program = (
            "import pathlib, requests; token = pathlib.Path('/run/p8s/token').read_text().strip(); "
            "print(requests.get('http://127.0.0.1:8989/kubeconfig', "
            "headers={'Authorization': f'Bearer {token}'}).text)"
        )
        return nodes.docker("exec", self.container, "python3", "-c", program)


@dataclasses.dataclass
class Kubeadm:
    """`kubeadm init` with its defaults, in a node that has containerd and all images ready."""

    container: str
    port: int
    dns_server: str = "10.96.0.10"
    init: subprocess.Popen[str] | None = None

    def prepare(self) -> None:
        """Run the node, and import the images."""
        script = "/usr/local/lib/kubeadm_node.py"
        run_node(
            self.container,
            self.port,
            "--entrypoint=python3",
            image=KUBEADM_IMAGE,
            arguments=["-P", "-s", script, REPOSITORY],
        )
        wait.until(self._look, awaited="kubeadm's node", seconds=60)
        command = ["docker", "exec", "--interactive", self.container, "python3", "-P", "-s"]
        command += [script, "import", KUBEADM_IMAGE]
        with subprocess.Popen(["docker", "save", KUBEADM_IMAGE], stdout=subprocess.PIPE) as saved:
            done = subprocess.run(command, stdin=saved.stdout, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()

    def _look(self) -> str | None:
        pid_of(self.container)
        found = nodes.docker("exec", self.container, "ls", "/run/p8s/prepared", check=False)
        return None if found else "containerd and its images are not ready"

    def start(self) -> float:
        init = ["kubeadm", "init", "--config=/etc/kubeadm.yaml"]
        init.append(f"--ignore-preflight-errors={IGNORED_CHECKS}")
        self.init = subprocess.Popen(
            ["docker", "exec", self.container, "python3", "-S", "-c", EXEC, *init],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.init.stdout is not None
        return float(self.init.stdout.readline())

    def check(self) -> None:
        check_process(self.init)

    def finish(self) -> None:
        finish_process(self.init)

    def kubeconfig(self) -> str:
        config = yaml.safe_load(
            nodes.docker("exec", self.container, "cat", "/etc/kubernetes/admin.conf")
        )
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{self.port}"
        return yaml.safe_dump(config)


@dataclasses.dataclass(frozen=True)
class Commands:
    """A tool's usual commands. `{name}`: the cluster's; `{archive}`: an image archive's path.

    They write the kubeconfig where KUBECONFIG says.
    """

    create: tuple[str, ...]
    load: tuple[str, ...]
    delete: tuple[str, ...]
    container: str
    dns_server: str = "10.96.0.10"


TOOLS = {
    "kind": Commands(
        create=("kind", "create", "cluster", "--name={name}"),
        load=("kind", "load", "image-archive", "{archive}", "--name={name}"),
        delete=("kind", "delete", "cluster", "--name={name}"),
        container="{name}-control-plane",
    ),
    "k3d": Commands(
        create=("k3d", "cluster", "create", "{name}"),
        load=("k3d", "image", "import", "{archive}", "--cluster={name}"),
        delete=("k3d", "cluster", "delete", "{name}"),
        container="k3d-{name}-server-0",
        dns_server="10.43.0.10",
    ),
    "minikube": Commands(
        create=("minikube", "start", "--profile={name}", "--driver=docker", "--embed-certs"),
        load=("minikube", "image", "load", "{archive}", "--profile={name}"),
        delete=("minikube", "delete", "--profile={name}"),
        container="{name}",
    ),
}


@dataclasses.dataclass
class Tool:
    """A cluster that a tool's command makes; what it pulls, an uncounted first run has pulled."""

    name: str
    commands: Commands
    directory: pathlib.Path
    create: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        self.container = self.commands.container.format(name=self.name)
        self.dns_server = self.commands.dns_server

    def command(self, words: collections.abc.Iterable[str]) -> list[str]:
        """A command's words with their placeholders filled."""
        archive = self.directory / "node.tar"
        return [word.format(name=self.name, archive=archive) for word in words]

    @property
    def environment(self) -> dict[str, str]:
        """Not the user's kubeconfig."""
        return os.environ | {"KUBECONFIG": str(self.directory / "kubeconfig")}

    def start(self) -> float:
        begun = time.monotonic()
        self.create = subprocess.Popen(
            self.command(self.commands.create),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
        )
        return begun

    def check(self) -> None:
        check_process(self.create)

    def finish(self) -> None:
        finish_process(self.create)
        archive = self.directory / "node.tar"
        with archive.open("wb") as out:
            command = ["docker", "run", "--rm", "--entrypoint=cat", nodes.IMAGE, ARCHIVE]
            subprocess.run(command, stdout=out, check=True)
        subprocess.run(
            self.command(self.commands.load),
            check=True,
            capture_output=True,
            env=self.environment,
        )

    def kubeconfig(self) -> str:
        return (self.directory / "kubeconfig").read_text()

    def remove(self) -> None:
        """Delete the cluster, however far it came."""
        if self.create is not None:
            self.create.kill()
            self.create.communicate()
        command = self.command(self.commands.delete)
        subprocess.run(command, capture_output=True, check=True, env=self.environment)


def check_process(process: subprocess.Popen[str] | None) -> None:
    """Raise AssertionError, with its output, where it has ended and failed."""
    if process is not None and process.poll():
        raise AssertionError(f"{process.args!r} failed:\n{process.communicate()[0][-4000:]}")


def finish_process(process: subprocess.Popen[str] | None) -> None:
    """Wait for its end.

    Raises:
        AssertionError: it failed.
    """
    if process is not None:
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, f"{process.args!r} failed:\n{output[-4000:]}"


def pid_of(container: str) -> int:
    """The pid of a running container's first process; 0 where there is no such container yet.

    Raises:
        AssertionError: it has ended.
    """
    found = nodes.docker(
        "inspect", "--format={{.State.Status}} {{.State.Pid}}", container, check=False
    ).split()
    if not found:
        return 0
    assert found[0] in ("created", "running"), (
        f"{container} has ended:\n{nodes.docker('logs', '--tail=20', container, check=False)}"
    )
    return int(found[1])


@contextlib.contextmanager
def run_p8s() -> collections.abc.Iterator[Cluster]:
    """Ours; nothing is prepared."""
    cluster = P8s(nodes.unique("peer-p8s"), nodes.free_port())
    try:
        yield cluster
    finally:
        nodes.docker("rm", "--force", "--volumes", cluster.container, check=False)


def build_kubeadm() -> None:
    """Build the image of kubeadm's node on ours; quick where nothing has changed."""
    subprocess.run(
        [
            ROOT / "scripts/build-image.sh",
            f"--file={ROOT / 'tests/bench/kubeadm.Dockerfile'}",
            f"--build-arg=P8S_IMAGE={nodes.IMAGE}",
        ],
        env=os.environ | {"IMAGE": KUBEADM_IMAGE},
        check=True,
    )


@contextlib.contextmanager
def run_kubeadm() -> collections.abc.Iterator[Cluster]:
    """kubeadm, all but `kubeadm init` done."""
    cluster = Kubeadm(nodes.unique("peer-kubeadm"), nodes.free_port())
    try:
        cluster.prepare()
        yield cluster
    finally:
        nodes.docker("rm", "--force", "--volumes", cluster.container, check=False)


@contextlib.contextmanager
def run_tool(name: str) -> collections.abc.Iterator[Cluster]:
    """A tool of `TOOLS`."""
    with tempfile.TemporaryDirectory() as directory:
        cluster = Tool(nodes.unique("peer"), TOOLS[name], pathlib.Path(directory))
        try:
            yield cluster
        finally:
            cluster.remove()


def find_ways(
    which: collections.abc.Callable[[str], str | None] = shutil.which,
) -> dict[str, Way]:
    """Ours first, then kubeadm, then the tools that this machine has."""
    ways: dict[str, Way] = {"p8s": run_p8s, "kubeadm": run_kubeadm}
    for name in TOOLS:
        if which(name):
            ways[name] = functools.partial(run_tool, name)
    return ways
