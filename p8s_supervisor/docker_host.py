"""The docker engine on the host: clusters found, made, ended and removed through docker's SDK."""

from __future__ import annotations

import collections.abc
import contextlib
import io
import tarfile
import typing
import urllib.parse

from p8s_supervisor import errors, host_cluster


class PortTakenError(errors.P8sError):
    """A port of the host that was free a moment ago is not any more."""


def connect() -> Engine:
    """The engine that docker's own command would talk to: DOCKER_HOST, or docker's context.

    Raises:
        P8sError: none answers.
    """
    import docker  # late: 0.1 s, which `--help` has no use for

    with _told():
        sdk = docker.from_env()
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

    def has_image(self, image: str) -> bool:
        """Whether the engine has an image, without asking a registry."""
        import docker.errors

        with _told():
            try:
                self._sdk.images.get(image)
            except docker.errors.ImageNotFound:
                return False
            return True

    def list_clusters(self) -> list[host_cluster.Cluster]:
        """Every container of p8s, also those that compose or `docker run` made."""
        with _told():
            listed = self._sdk.api.containers(
                all=True, filters={"label": f"{host_cluster.TITLE_LABEL}={host_cluster.TITLE}"}
            ) + self._sdk.api.containers(all=True, filters={"label": host_cluster.LABEL})
            found = {entry["Id"]: self._inspect(entry["Id"]) for entry in listed}
        return sorted(filter(None, found.values()), key=lambda cluster: cluster.name)

    def list_volumes(self) -> dict[str, str]:
        """The state volumes that p8s made: cluster's name → volume's name."""
        with _told():
            found = self._sdk.api.volumes(filters={"label": host_cluster.LABEL})["Volumes"] or []
        return {volume["Labels"][host_cluster.LABEL]: volume["Name"] for volume in found}

    def find(self, name: str) -> host_cluster.Cluster | None:
        """A cluster by its own name, or by its container's."""
        with _told():
            listed = self._sdk.api.containers(
                all=True, filters={"label": f"{host_cluster.LABEL}={name}"}
            )
            found = self._inspect(listed[0]["Id"] if listed else name)
        if (
            found
            and not found.is_own
            and found.labels.get(host_cluster.TITLE_LABEL) != host_cluster.TITLE
        ):
            raise errors.P8sError(
                f"the container {name} is not p8s", hint="`p8s list` shows the clusters"
            )
        return found

    def get(self, name: str) -> host_cluster.Cluster:
        """As `find`, for a cluster that has to be there."""
        found = self.find(name)
        if found is not None:
            return found
        others = ", ".join(cluster.name for cluster in self.list_clusters())
        raise errors.P8sError(
            f"there is no cluster {name}",
            hint=f"there are: {others}; choose with --name" if others else "`p8s run` starts one",
        )

    def refresh(self, cluster: host_cluster.Cluster) -> host_cluster.Cluster | None:
        """The cluster as it is now; None where its container is gone."""
        with _told():
            return self._inspect(cluster.identity)

    def _inspect(self, identity: str) -> host_cluster.Cluster | None:
        import docker.errors

        try:
            return host_cluster.read_cluster(self._sdk.api.inspect_container(identity))
        except docker.errors.NotFound:
            return None

    def make_volume(self, name: str) -> str:
        """The state volume of a cluster, made where it is missing."""
        with _told():
            self._sdk.volumes.create(
                host_cluster.container_name(name), labels={host_cluster.LABEL: name}
            )
        return host_cluster.container_name(name)

    def create(self, spec: host_cluster.Spec) -> host_cluster.Cluster:
        """Make a cluster's container, and do not start it yet."""
        import docker.errors

        if spec.keeps_state:
            self.make_volume(spec.name)
        with _told():
            try:
                created = self._sdk.api.create_container(
                    **host_cluster.container_options(spec),
                    host_config=self._sdk.api.create_host_config(**host_cluster.host_options(spec)),
                )
            except docker.errors.ImageNotFound as error:
                raise host_cluster.missing_image(spec.image) from error
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
            return host_cluster.read_cluster(self._sdk.api.inspect_container(created["Id"]))

    def start(self, cluster: host_cluster.Cluster) -> None:
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

    def stop(
        self, cluster: host_cluster.Cluster, *, seconds: float = host_cluster.STOP_SECONDS
    ) -> None:
        """SIGTERM, and SIGKILL after so many seconds; returns when the container has ended."""
        with _told(), _gone_is_fine():
            self._sdk.api.stop(cluster.identity, timeout=int(seconds))

    def kill(self, cluster: host_cluster.Cluster) -> None:
        """SIGKILL."""
        with _told(), _gone_is_fine():
            self._sdk.api.kill(cluster.identity)

    def wait(self, cluster: host_cluster.Cluster) -> int:
        """Wait for the container's end and give its exit code."""
        with _told():
            return int(self._sdk.api.wait(cluster.identity, timeout=None)["StatusCode"])

    def remove(self, cluster: host_cluster.Cluster) -> None:
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
        self, cluster: host_cluster.Cluster, *, follow: bool = False, tail: int | None = None
    ) -> collections.abc.Iterator[bytes]:
        """What the container printed, in pieces; with `follow` until it ends."""
        with _told(), _gone_is_fine():
            yield from self._sdk.api.logs(
                cluster.identity, stream=True, follow=follow, tail="all" if tail is None else tail
            )

    def execute(self, cluster: host_cluster.Cluster, *command: str) -> str:
        """Run a command in the node and give its output; empty where it fails."""
        with _told():
            created = self._sdk.api.exec_create(cluster.identity, list(command), stderr=False)
            output = self._sdk.api.exec_start(created["Id"])
            code = self._sdk.api.exec_inspect(created["Id"])["ExitCode"]
        return output.decode(errors="replace") if code == 0 else ""

    def copy(self, cluster: host_cluster.Cluster, path: str) -> bytes:
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
            f"no docker engine answers: {error}",
            hint="start docker, or point DOCKER_HOST at an engine; `docker version` shows the same; "
            "on a socket that is refused: join the group docker",
        ) from error
