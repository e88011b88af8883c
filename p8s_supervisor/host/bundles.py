"""What can still be had of a cluster that has ended, in one file."""

from __future__ import annotations

import collections.abc
import contextlib
import io
import json
import os
import pathlib
import tarfile
import time

from p8s_supervisor import errors
from p8s_supervisor.host import clusters, docker_host

# The components' logs. The state volume is left out: keys and users' data are in it.
LOGS = "/var/log/p8s"
# What a start that failed leaves among them, with the setting failure_bundle.
OWN = "bundle.tar.gz"
# The directory that everything is in, as in the node's own bundles.
TOP = "p8s-bundle"


def save_ended(engine: docker_host.Engine, cluster: clusters.Cluster, file: pathlib.Path) -> None:
    """Write a tar.gz with what docker has of an ended container.

    Raises:
        P8sError: the file cannot be written.
    """
    described = {
        "name": cluster.name,
        "container": cluster.container,
        "state": cluster.state,
        "exit_code": cluster.exit_code,
        "restarts": cluster.restarts,
        "created": cluster.created,
    }
    with writing(file) as target, tarfile.open(fileobj=target, mode="w:gz") as archive:
        _add(archive, "container.json", json.dumps(described, indent=2).encode())
        _add(archive, "docker.log", b"".join(engine.read_logs(cluster)))
        for name, content in _read_tar(engine.copy(cluster, LOGS)):
            if name == OWN:  # what the node wrote before its end: it is taken apart
                for inner, found in _read_tar(content):
                    _add(archive, inner, found)
            else:
                _add(archive, f"logs/{name}", content)


def _read_tar(content: bytes) -> collections.abc.Iterator[tuple[str, bytes]]:
    """Each file of an archive below its first directory; none where it is empty or cut off."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for entry in archive:
                found = archive.extractfile(entry) if entry.isreg() else None
                if found is not None:
                    yield entry.name.partition("/")[2], found.read()
    except tarfile.ReadError:
        return


@contextlib.contextmanager
def writing(file: pathlib.Path) -> collections.abc.Iterator[io.BufferedWriter]:
    """A file for its owner alone, that has its name only when it is whole.

    Raises:
        P8sError: it cannot be written.
    """
    temporary = file.with_name(f".{file.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as target:
                yield target
            temporary.rename(file)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise errors.P8sError(
            f"{file} cannot be written: {error.strerror or error}", hint="-o names another file"
        ) from error


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(f"{TOP}/{name}")
    entry.size, entry.mtime = len(content), int(time.time())
    archive.addfile(entry, io.BytesIO(content))
