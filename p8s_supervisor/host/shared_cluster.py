"""The cluster of a pytest session: started by whoever asks first, gone with the session.

A session is one process, or a controller with workers (pytest-xdist). They share a directory:

    owner         locked by the controller for as long as it lives
    lock          locked while the cluster is started, or an image loaded
    asked         is there once a cluster was asked for
    cluster.json  where the cluster is; failure, why there is none
    kubeconfig, kubectl, loaded

The controller names the container beforehand and removes it at the end, so a worker may die at any
point. Where the controller itself is killed, a process of its own session gets its lock and removes
what is left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import io
import json
import os
import pathlib
import shutil
import sys
import tarfile
import tempfile
import typing

from p8s_supervisor import errors, files, wait
from p8s_supervisor.host import cli_load, client, cluster_access, clusters, docker_host

# The container's own limit is P8S_START_TIMEOUT; this one is for an engine that hangs.
START_SECONDS = 300.0
# The one binary of Kubernetes' components; it is what it is called.
PROGRAM = "/usr/local/bin/hyperkube"
# Detaches, waits for the controller's end, and removes what it could not.
REAPER = """
import contextlib, fcntl, os, shutil, sys, time
from p8s_supervisor import errors
from p8s_supervisor.host import shared_cluster
if os.fork():
    os._exit(0)
os.setsid()
nothing = os.open(os.devnull, os.O_RDWR)
for number in range(3):
    os.dup2(nothing, number)
directory, container = sys.argv[1:]
try:
    with open(directory + "/owner") as owner, open(directory + "/lock") as lock:
        fcntl.flock(owner, fcntl.LOCK_EX)
        fcntl.flock(lock, fcntl.LOCK_EX)  # a worker may still be at the start
except FileNotFoundError:
    pass
if os.path.exists(directory):  # or else the controller has come to its end
    for pause in (1, 0):
        with contextlib.suppress(errors.P8sError):
            shared_cluster.remove(container)
        time.sleep(pause)  # what a worker that has died asked the engine for is done by then
    shutil.rmtree(directory, ignore_errors=True)
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Session:
    """What the processes of a pytest session agree on.

    Attributes:
        directory: shared by them, see above.
        container: the container's name, where it is the session's own.
        image: its image.
        settings: its settings, name → text.
        existing: name of a cluster that is there already; empty: one is started.
        keep: leave the cluster at the end.
    """

    directory: pathlib.Path
    container: str
    image: str
    settings: typing.Mapping[str, str]
    existing: str = ""
    keep: bool = False

    def acquire(self) -> cluster_access.Cluster:
        """The session's cluster, started if nobody has asked before.

        Raises:
            P8sError: it cannot be had; the same error for everybody who asks.
        """
        with self.locked():
            cluster = self._read()
            if cluster is not None:
                return cluster
            try:
                engine = docker_host.connect()
                found = engine.get(self.existing) if self.existing else self._start(engine)
                cluster = cluster_access.connect(engine, found, self.directory / "kubeconfig")
            except errors.P8sError as error:
                (self.directory / "failure").write_text(str(error))
                raise
            shown = dataclasses.asdict(cluster) | {"kubeconfig": str(cluster.kubeconfig)}
            files.write(self.directory / "cluster.json", json.dumps(shown), mode=0o600)
            return cluster

    def _read(self) -> cluster_access.Cluster | None:
        failure, file = self.directory / "failure", self.directory / "cluster.json"
        if failure.exists():
            raise errors.P8sError(failure.read_text())
        if not file.exists():
            return None
        stored = json.loads(file.read_text())
        return cluster_access.Cluster(**stored | {"kubeconfig": pathlib.Path(stored["kubeconfig"])})

    def _start(self, engine: docker_host.Engine) -> clusters.Cluster:
        (self.directory / "asked").touch()
        if not self.keep:
            reaper = [sys.executable, "-c", REAPER, str(self.directory), self.container]
            cluster_access.run(reaper)
        name = self.container.removeprefix(clusters.container_name(""))
        return cluster_access.start(engine, name, self.image, self.settings)

    def find_kubectl(self, cluster: cluster_access.Cluster) -> cluster_access.Kubectl:
        """kubectl on PATH, or else the image's own, copied out once for the session."""
        program = shutil.which("kubectl")
        if program is None:
            copied = self.directory / "kubectl"
            with self.locked():
                if not copied.exists():
                    engine = docker_host.connect()
                    packed = engine.copy(engine.get(cluster.container), PROGRAM)
                    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
                        file = archive.extractfile(archive.getmembers()[0])
                        files.write(copied, file.read() if file else b"", mode=0o700)
            program = str(copied)
        return cluster_access.Kubectl(program=program, kubeconfig=cluster.kubeconfig)

    def load_images(self, cluster: cluster_access.Cluster, names: typing.Sequence[str]) -> None:
        """Copy images from the docker engine into the cluster, each once for the session.

        Raises:
            P8sError: the engine has no such image, or the cluster did not take it.
        """
        record = self.directory / "loaded"
        with self.locked():
            loaded = record.read_text().splitlines() if record.exists() else []
            missing = [name for name in names if name not in loaded]
            if missing:
                api = client.Client(cluster.url, token=cluster.token)
                engine = docker_host.connect(seconds=docker_host.EXPORT_SECONDS)
                cli_load.load_images(api, engine, missing)
                record.write_text("\n".join([*loaded, *missing]))

    def end(self) -> None:
        """Remove everything; the controller's to call."""
        if self.keep:
            return
        if (self.directory / "asked").exists():
            with contextlib.suppress(errors.WaitTimeoutError), self.locked(seconds=60):
                pass  # no worker is at the start
            try:
                remove(self.container)
            except errors.P8sError:
                return  # the directory is there: the reaper tries again
        shutil.rmtree(self.directory, ignore_errors=True)

    @contextlib.contextmanager
    def locked(self, *, seconds: float = START_SECONDS) -> typing.Iterator[None]:
        """Keep the session's other processes out."""
        with (self.directory / "lock").open("w") as lock:
            wait.until(
                lambda: None if try_lock(lock) else "another process of the session has it",
                awaited="the lock of the pytest session's cluster",
                seconds=seconds,
            )
            yield


def remove(container: str) -> None:
    """Remove a cluster, in whatever state it is, with its anonymous volume.

    Raises:
        P8sError: the engine does not.
    """
    engine = docker_host.connect()
    cluster = engine.find(container)
    if cluster is not None:
        engine.remove(cluster)


def make_name() -> str:
    """A container's name that no other session has."""
    return f"p8s-pytest-{os.urandom(4).hex()}"


def make_directory() -> tuple[pathlib.Path, typing.TextIO]:
    """A session's directory, and its `owner`: open, and locked until it is closed."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="p8s-pytest-"))
    owner = (directory / "owner").open("w")
    try_lock(owner)
    return directory, owner


def try_lock(file: typing.TextIO) -> bool:
    """Lock a file, unless another has it; the lock goes when the file is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
