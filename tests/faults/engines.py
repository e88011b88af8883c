"""An engine of the tests' own: containerd and dockerd in a container of the machine's engine.

The container has the machine's /usr, so it is the same engine in the same version; its own namespaces,
cgroups and network end with it. Whoever is `inside` sees it as the machine's user would: docker asks
it, and 127.0.0.1 is that machine's.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import pathlib
import shutil
import subprocess
import typing
import unittest.mock

from p8s_supervisor import wait
from tests.cluster import nodes

# Of the container: an engine's data cannot lie on the container's own overlayfs.
STATE = "/var/lib/p8s"
# SIGCHLD is ignored, also by what runs in its place: the kernel reaps what nobody waits for.
PID_1 = 'trap "" CHLD; exec sleep infinity'
# cgroup v2: controllers can be given to children only by a cgroup without processes.
DELEGATE = """
cd /sys/fs/cgroup; test -f cgroup.controllers || exit 0
mkdir -p engine; for pid in $(cat cgroup.procs); do echo $pid >engine/cgroup.procs || true; done
for name in $(cat cgroup.controllers); do echo +$name >cgroup.subtree_control; done
"""
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
CONTAINERD = ["containerd", "--config=/etc/engine.toml", f"--root={STATE}/containerd"]
# Nobody asks it for pods.
CONTAINERD_CONFIG = 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
DOCKERD = [
    "dockerd",
    f"--containerd={CONTAINERD_SOCKET}",
    f"--data-root={STATE}/docker",
    "--host=unix:///engine/docker.sock",
    "--bip=10.214.0.1/24",
]
# Its containers' own time (`--stop-timeout`), and some more.
STOP_SECONDS = 45
# Source: linux/sched.h
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def find_obstacle() -> str | None:
    """Why no engine of one's own can be run on this machine."""
    if os.geteuid() != 0:
        return "root alone may enter the network of the engine's container"
    missing = [
        name
        for name in ("dockerd", "containerd", "runc", "docker")
        if not (shutil.which(name) or "").startswith("/usr/")
    ]
    return f"/usr has no {', '.join(missing)}" if missing else None


@dataclasses.dataclass(frozen=True)
class Engine:
    """The engine's container.

    Attributes:
        name: the container's.
        folder: on the machine; the engine's socket is in it.
        environment: what commands for the machine's own engine are run with.
    """

    name: str
    folder: pathlib.Path
    environment: typing.Mapping[str, str]

    def outside(self, *arguments: str, check: bool = True) -> str:
        """Run docker for the machine's engine, and give its output."""
        done = subprocess.run(
            ["docker", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"docker {' '.join(arguments)}: {done.stderr}\n{self.log()}")
        return done.stdout

    def execute(self, script: str) -> str:
        """Run a shell's commands in the container."""
        return self.outside("exec", self.name, "sh", "-ec", script)

    def log(self) -> str:
        """The end of the daemons' logs."""
        return self.outside(
            "exec", self.name, "sh", "-c", "tail -n 30 /var/log/engine-*.log", check=False
        )

    def create(self) -> None:
        """Make the container, without the daemons."""
        self.outside(
            "run",
            "--detach",
            "--privileged",
            "--no-healthcheck",
            f"--name={self.name}",
            "--cgroupns=private",
            "--tmpfs=/run:exec",
            # Or dockerd would look for AppArmor's tools.
            "--env=container=docker",
            "--volume=/usr:/usr:ro",
            f"--volume={self.folder}:/engine",
            "--entrypoint=/bin/sh",
            nodes.IMAGE,
            "-c",
            PID_1,
        )
        self.prepare()

    def prepare(self) -> None:
        """What each start of the container asks for before the daemons can run."""
        self.execute(f"printf '%s' '{CONTAINERD_CONFIG}' >/etc/engine.toml\n{DELEGATE}")

    def start(self) -> None:
        """Start the daemons that do not run, and wait until they answer."""
        if not self.runs("containerd"):
            # One that was killed leaves it, and dockerd would wait longer after a refusal.
            self.execute(f"rm -f {CONTAINERD_SOCKET}")
            self._launch(CONTAINERD)
        self._launch(DOCKERD, after=f"until test -S {CONTAINERD_SOCKET}; do sleep 0.02; done")
        wait.until(self._look, awaited="the engine's answer", seconds=60, interval=0.05)

    def _launch(self, command: list[str], *, after: str = ":") -> None:
        name = command[0]
        script = f"{after}; echo $$ >/run/engine-{name}; exec {' '.join(command)}"
        script = f"exec >>/var/log/engine-{name}.log 2>&1; {script}"
        self.outside("exec", "--detach", self.name, "sh", "-c", script)

    def set_live_restore(self, *, on: bool) -> None:
        """Whether containers go on without dockerd; it is told while it runs."""
        value = str(on).lower()
        self.execute(
            "mkdir -p /etc/docker; "
            f"echo '{{\"live-restore\": {value}}}' >/etc/docker/daemon.json; "
            "kill -HUP $(cat /run/engine-dockerd)"
        )
        wait.until(
            lambda: None if self.ask("info", "LiveRestoreEnabled") == value else "not yet",
            awaited=f"live-restore to be {value}",
            seconds=10,
        )

    def ask(self, about: str, field: str) -> str:
        """A field of `docker info` or `docker version`, as this engine has it; else the error."""
        done = subprocess.run(
            ["docker", f"--host=unix://{self.socket}", about, f"--format={{{{.{field}}}}}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.stdout.strip() if done.returncode == 0 else f"error: {done.stderr}"

    def _look(self) -> str | None:
        said = self.ask("version", "Server.Version")
        return f"{said}\n{self.log()}" if said.startswith("error") else None

    def runs(self, name: str) -> bool:
        """Whether a daemon is there."""
        script = f"pid=$(cat /run/engine-{name}) && grep -qs '({name}) [^ZX]' /proc/$pid/stat"
        found = self.outside("exec", self.name, "sh", "-c", f"{script} && echo runs", check=False)
        return found.strip() == "runs"

    def stop(self, signal: str, *names: str) -> None:
        """Send a signal to daemons, and wait for their end."""
        pids = " ".join(f"$(cat /run/engine-{name})" for name in names)
        self.execute(f"kill -{signal} {pids}")
        wait.until(
            lambda: str(left) if (left := [name for name in names if self.runs(name)]) else None,
            awaited="the engine's end",
            seconds=STOP_SECONDS,
            interval=0.05,
        )

    def crash(self) -> None:
        """End everything at once, as a machine that loses its power does, and start the machine."""
        self.outside("kill", "--signal=KILL", self.name)
        self.outside("start", self.name)
        self.prepare()

    @property
    def socket(self) -> pathlib.Path:
        """Where dockerd answers."""
        return self.folder / "docker.sock"

    def load(self, image: str) -> None:
        """Give the engine an image that the machine's engine has."""
        with subprocess.Popen(
            ["docker", "save", image], env=self.environment, stdout=subprocess.PIPE
        ) as saved:
            subprocess.run(
                ["docker", f"--host=unix://{self.socket}", "load", "--quiet"],
                stdin=saved.stdout,
                stdout=subprocess.DEVNULL,
                check=True,
                timeout=120,
            )
        assert saved.returncode == 0

    @contextlib.contextmanager
    def inside(self) -> typing.Iterator[None]:
        """Be a user of the engine's machine: this thread, those that it starts, and its commands."""
        pid = self.outside("inspect", "--format={{.State.Pid}}", self.name).strip()
        with (
            pathlib.Path("/proc/thread-self/ns/net").open() as own,
            pathlib.Path(f"/proc/{pid}/ns/net").open() as theirs,
            unittest.mock.patch.dict(os.environ, DOCKER_HOST=f"unix://{self.socket}"),
        ):
            enter_network(theirs.fileno())
            try:
                yield
            finally:
                enter_network(own.fileno())


def enter_network(descriptor: int) -> None:
    """Move this thread into a network namespace; see setns(2)."""
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextlib.contextmanager
def run(folder: pathlib.Path) -> typing.Iterator[Engine]:
    """An engine, gone at the end with all that it runs.

    Args:
        folder: an empty one, for the socket; its path must be short.
    """
    made = Engine(nodes.unique("p8s-test-engine"), folder, dict(os.environ))
    try:
        made.create()
        made.start()
        yield made
    finally:
        made.outside("rm", "--force", "--volumes", made.name, check=False)
