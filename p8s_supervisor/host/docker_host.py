"""The docker engine on the host: clusters found, made, ended and removed through docker's SDK."""

from __future__ import annotations

import collections.abc
import contextlib
import io
import os
import tarfile
import typing
import urllib.parse

from p8s_supervisor import errors
from p8s_supervisor.host import client, clusters

# docker's own default for one answer; an engine lays out a large image before it sends any of it.
SECONDS, EXPORT_SECONDS = 60.0, 600.0
CHUNK = 1024 * 1024


Answer = collections.abc.Mapping[str, typing.Any]


class PortTakenError(errors.P8sError):
    """A port of the host that was free a moment ago is not any more."""


def connect(*, seconds: float = SECONDS) -> Engine:
    """The engine that docker's own command would talk to: DOCKER_HOST, or docker's context.

    Args:
        seconds: how long each of its answers may take.

    Raises:
        P8sError: none answers.
    """
    import docker  # late: 0.1 s, which `--help` has no use for

    with _told():
        sdk = docker.from_env(timeout=seconds)
        sdk.ping()
        return Engine(sdk)


class Engine:
    """What p8s does with docker.

    Args:
        sdk: a `docker.DockerClient`.

    Every method raises P8sError where the engine refuses or does not answer.
    """

    def __init__(self, sdk: typing.Any) -> None:
        self._sdk = sdk

    def version(self) -> str:
        """The engine's version."""
        with _told():
            return str(self._sdk.version()["Version"])

    def identity(self) -> str:
        """What tells this engine from others."""
        with _told():
            return str(self._sdk.info()["ID"])

    def reach(self, address: str) -> str:
        """The address or name by which a published port is reached from here.

        A port at all addresses is reached where the engine is: at loopback, or at the host of
        DOCKER_HOST, as in CI jobs with docker in docker.
        """
        if address not in ("", "0.0.0.0", "::"):
            return address
        url = urllib.parse.urlsplit(str(self._sdk.api.base_url))
        is_remote = url.scheme in ("http", "https") and url.hostname not in (None, "localhost")
        return str(url.hostname) if is_remote else "127.0.0.1"

    def is_local(self) -> bool:
        """Whether it is asked through a socket of this host."""
        return str(self._sdk.api.base_url).startswith("http+docker://")

    def describe(self) -> tuple[Answer, Answer]:
        """What GET /info and GET /version tell."""
        with _told():
            return self._sdk.info(), self._sdk.version()

    def list_networks(self) -> list[Answer]:
        """docker's networks."""
        with _told():
            return list(self._sdk.api.networks())

    def list_published(self) -> dict[int, str]:
        """Published ports with the container that has each."""
        with _told():
            running = self._sdk.api.containers()
        return {
            port["PublicPort"]: container["Names"][0].removeprefix("/")
            for container in running
            for port in container["Ports"]
            if "PublicPort" in port
        }

    def find_image(self, name: str) -> clusters.Image | None:
        """An image by one of its names or its ID, without asking a registry."""
        import docker.errors

        with _told():
            try:
                found = self._sdk.api.inspect_image(name)
            except docker.errors.ImageNotFound:
                return None
        return clusters.Image(
            identity=str(found["Id"]),
            size=int(found["Size"]),
            architecture=str(found.get("Architecture", "")),
            tags=tuple(found.get("RepoTags") or ()),
            layers=tuple(found.get("RootFS", {}).get("Layers") or ()),
        )

    def list_layer_sizes(self, name: str) -> list[int]:
        """Bytes of each layer of an image, the highest first, with 0 for what made none."""
        with _told():
            return [int(step["Size"]) for step in self._sdk.api.history(name)]

    def pull_image(self, name: str) -> None:
        """Get an image from its registry."""
        with _told():
            self._sdk.images.pull(name)

    def export_image(self, name: str) -> collections.abc.Iterator[bytes]:
        """An image as `docker save` writes it, in pieces."""
        with _told():
            yield from self._sdk.api.get_image(name, chunk_size=CHUNK)

    def push_image(self, name: str, repository: str) -> None:
        """Push an image to a repository without a password, whose name it has meanwhile."""
        with _told():
            self._sdk.api.tag(name, repository, "1")
            try:
                told = self._sdk.api.push(repository, "1", stream=True, decode=True, auth_config={})
                for line in told:
                    if "error" in line:
                        raise errors.P8sError(f"docker: {line['error']}")
            finally:
                self._sdk.api.remove_image(f"{repository}:1", noprune=True)

    def run_script(
        self,
        image: str,
        script: str,
        *,
        labels: collections.abc.Mapping[str, str],
        seconds: float,
    ) -> str:
        """What a shell says in a privileged container without a network, of which nothing stays."""
        with _told():
            container = self._sdk.containers.create(
                image,
                ["-c", script],
                entrypoint="/bin/sh",
                privileged=True,
                network_mode="none",
                healthcheck={"test": ["NONE"]},
                labels=dict(labels),
            )
            try:
                container.start()
                container.wait(timeout=seconds)
                return str(container.logs(stderr=False).decode(errors="replace"))
            finally:
                container.remove(v=True, force=True)

    def list_clusters(self) -> list[clusters.Cluster]:
        """Every container of p8s, also those that compose or `docker run` made."""
        with _told():
            listed = self._sdk.api.containers(
                all=True, filters={"label": f"{clusters.TITLE_LABEL}={clusters.TITLE}"}
            ) + self._sdk.api.containers(all=True, filters={"label": clusters.LABEL})
            found = {entry["Id"]: self._inspect(entry["Id"]) for entry in listed}
        return sorted(filter(None, found.values()), key=lambda cluster: cluster.name)

    def list_volumes(self) -> dict[str, str]:
        """The state volumes that p8s made: cluster's name → volume's name."""
        with _told():
            found = self._sdk.api.volumes(filters={"label": clusters.LABEL})["Volumes"] or []
        return {volume["Labels"][clusters.LABEL]: volume["Name"] for volume in found}

    def find(self, name: str) -> clusters.Cluster | None:
        """A cluster by its own name, or by its container's."""
        with _told():
            listed = self._sdk.api.containers(
                all=True, filters={"label": f"{clusters.LABEL}={name}"}
            )
            found = self._inspect(listed[0]["Id"] if listed else name)
        if found and not found.is_own and found.labels.get(clusters.TITLE_LABEL) != clusters.TITLE:
            raise errors.P8sError(
                f"the container {name} is not p8s", hint="`p8s list` shows the clusters"
            )
        return found

    def get(self, name: str) -> clusters.Cluster:
        """As `find`, for a cluster that has to be there."""
        found = self.find(name)
        if found is not None:
            return found
        if name in self.list_volumes():
            raise errors.P8sError(
                f"the cluster {name} is stopped", hint=f"`p8s run --name {name}` starts it again"
            )
        others = ", ".join(cluster.name for cluster in self.list_clusters())
        raise errors.P8sError(
            f"there is no cluster {name}",
            hint=f"there are: {others}; choose with --name" if others else "`p8s run` starts one",
        )

    def refresh(self, cluster: clusters.Cluster) -> clusters.Cluster | None:
        """The cluster as it is now; None where its container is gone."""
        with _told():
            return self._inspect(cluster.identity)

    def _inspect(self, identity: str) -> clusters.Cluster | None:
        import docker.errors

        try:
            return clusters.read_cluster(self._sdk.api.inspect_container(identity))
        except docker.errors.NotFound:
            return None

    def make_volume(self, name: str) -> str:
        """The state volume of a cluster, made where it is missing."""
        with _told():
            self._sdk.volumes.create(clusters.container_name(name), labels={clusters.LABEL: name})
        return clusters.container_name(name)

    def create(self, spec: clusters.Spec) -> clusters.Cluster:
        """Make a cluster's container, and do not start it yet."""
        import docker.errors

        with _told():
            try:
                self._sdk.api.inspect_image(spec.image)
            except docker.errors.ImageNotFound as error:
                raise clusters.missing_image(spec.image) from error
        if spec.keeps_state:  # after that: a cluster that cannot be has no volume
            self.make_volume(spec.name)
        with _told():
            try:
                created = self._sdk.api.create_container(
                    **clusters.container_options(spec),
                    host_config=self._sdk.api.create_host_config(**clusters.host_options(spec)),
                )
            except docker.errors.APIError as error:
                if error.status_code != 409:
                    raise
                raise errors.P8sError(
                    f"somebody else starts the cluster {spec.name} just now",
                    hint=f"`p8s wait --name {spec.name}`, or choose another --name",
                ) from error
            if spec.config is not None:
                packed = _pack("p8s/config.yaml", spec.config)
                self._sdk.api.put_archive(created["Id"], "/etc", packed)
            return clusters.read_cluster(self._sdk.api.inspect_container(created["Id"]))

    def start(self, cluster: clusters.Cluster) -> None:
        """Start a container.

        Raises:
            PortTakenError: one of its ports is in use.
        """
        import docker.errors

        with _told():
            try:
                self._sdk.api.start(cluster.identity)
            except docker.errors.APIError as error:
                told = str(error.explanation or error)
                if "port is already allocated" in told or "address already in use" in told:
                    raise PortTakenError(f"a port is taken: {told}") from error
                raise

    def stop(self, cluster: clusters.Cluster, *, seconds: float = clusters.STOP_SECONDS) -> None:
        """SIGTERM, and SIGKILL after so many seconds; returns when the container has ended."""
        # PID 1 takes signals from its first line on: one that comes before is lost.
        with contextlib.suppress(errors.P8sError):
            for _ in self.read_logs(cluster, follow=True, tail=1):
                break
        with _told(), _gone_is_fine():
            self._sdk.api.stop(cluster.identity, timeout=int(seconds))

    def kill(self, cluster: clusters.Cluster) -> None:
        """SIGKILL."""
        with _told(), _gone_is_fine():
            self._sdk.api.kill(cluster.identity)

    def wait(self, cluster: clusters.Cluster) -> int:
        """Wait for the container's end and give its exit code."""
        with _told():
            return int(self._sdk.api.wait(cluster.identity, timeout=None)["StatusCode"])

    def remove(self, cluster: clusters.Cluster) -> None:
        """Remove a container, whatever it does, with its anonymous volumes."""
        with _told(), _gone_is_fine():
            self._sdk.api.remove_container(cluster.identity, v=True, force=True)

    def remove_volume(self, name: str) -> bool:
        """Remove a cluster's state volume; False where there is none."""
        volume = self.list_volumes().get(name)
        if volume is None:
            return False
        with _told(), _gone_is_fine():
            self._sdk.api.remove_volume(volume)
        return True

    def read_logs(
        self, cluster: clusters.Cluster, *, follow: bool = False, tail: int | None = None
    ) -> collections.abc.Iterator[bytes]:
        """What the container printed, in pieces; with `follow` until it ends."""
        with _told(), _gone_is_fine():
            yield from self._sdk.api.logs(
                cluster.identity, stream=True, follow=follow, tail="all" if tail is None else tail
            )

    def execute(self, cluster: clusters.Cluster, *command: str) -> str:
        """Run a command in the node and give its output; empty where it fails."""
        with _told():
            created = self._sdk.api.exec_create(cluster.identity, list(command), stderr=False)
            output = self._sdk.api.exec_start(created["Id"])
            code = self._sdk.api.exec_inspect(created["Id"])["ExitCode"]
        return output.decode(errors="replace") if code == 0 else ""

    def copy(self, cluster: clusters.Cluster, path: str) -> bytes:
        """A file or directory of a container, running or ended, as tar; empty where missing."""
        import docker.errors

        with _told():
            try:
                pieces, _ = self._sdk.api.get_archive(cluster.identity, path)
            except docker.errors.NotFound:
                return b""
            return b"".join(pieces)


def _pack(name: str, content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(content), 0o600  # a token may stand in it
        archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


@contextlib.contextmanager
def _gone_is_fine() -> collections.abc.Iterator[None]:
    """Two may end the same cluster at once; the second has nothing left to do."""
    import docker.errors

    try:
        yield
    except docker.errors.NotFound:
        return
    except docker.errors.APIError as error:
        if error.status_code == 409 and (
            "in progress" in str(error) or "is not running" in str(error)
        ):
            return
        raise


@contextlib.contextmanager
def _told() -> collections.abc.Iterator[None]:
    """docker's errors in p8s' words."""
    import docker.errors
    import requests

    try:
        yield
    except docker.errors.APIError as error:
        raise errors.P8sError(f"docker: {error.explanation or error}") from error
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        raise errors.P8sError(
            f"no docker engine answers: {_find_reason(error)}",
            hint="start docker, or point DOCKER_HOST at an engine; `docker version` shows the same; "
            "on a socket that is refused: join the group docker",
        ) from error


def _find_reason(error: BaseException) -> str:
    host = os.environ.get("DOCKER_HOST", "")
    return client.find_cause(error) + (f" (DOCKER_HOST={host})" if host else "")
