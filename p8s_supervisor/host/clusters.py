"""A cluster as docker has it: names, labels, what is asked of the engine and what it tells."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import typing

from p8s_supervisor import errors
from p8s_supervisor.host import publishing

# On containers and volumes: which cluster they belong to.
LABEL = "p8s.cluster"
HTTP_LABEL = "p8s.http-port"
API_LABEL = "p8s.api-port"
KUBECONFIG_LABEL = "p8s.kubeconfig"
# Containers inherit it from the image, also those that compose or `docker run` made.
TITLE_LABEL, TITLE = "org.opencontainers.image.title", "p8s"

IMAGE = "p8s:latest"
STATE = "/var/lib/p8s"
# A drain takes up to 30 s by its default; docker's own 10 s would cut it off.
STOP_SECONDS = 60
HTTP_PORT, API_PORT = 8989, 6443


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """A cluster to make.

    Attributes:
        name: the cluster's name.
        image: the image it runs.
        flags: settings as flags.
        environment: settings as environment variables.
        inside: the ports in the node: HTTP API, apiserver.
        published: the same on the host.
        bind: the host's address that they are published at.
        keeps_state: whether the state is in a named volume, or goes with the container.
        restart: docker's restart policy, as in `on-failure:3`.
        auto_remove: whether the engine removes the container at its end.
        config: content of the node's /etc/p8s/config.yaml; None for no file.
        network: a docker network; empty for the engine's default.
        kubeconfig: the file that gets the context; empty for none.
        mounts: what else of the host is in the node, see `mounts`.
        ports: what else of the node is published on the host, each with its address.
    """

    name: str
    image: str = IMAGE
    flags: tuple[str, ...] = ()
    environment: collections.abc.Mapping[str, str] = dataclasses.field(default_factory=dict)
    inside: tuple[int, int] = (HTTP_PORT, API_PORT)
    published: tuple[int, int] = (HTTP_PORT, API_PORT)
    bind: str = "127.0.0.1"
    keeps_state: bool = True
    restart: str = "no"
    auto_remove: bool = False
    config: bytes | None = None
    network: str = ""
    kubeconfig: str = ""
    mounts: tuple[collections.abc.Mapping[str, typing.Any], ...] = ()
    ports: tuple[publishing.Port, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster's container as the engine has it.

    Attributes:
        name: the cluster's name; a container's that `p8s run` did not make.
        container: the container's name.
        identity: its id.
        state: docker's word: running, exited, created, restarting, …
        exit_code: how it ended; 0 while it runs.
        restarts: how often the engine started it again.
        created: seconds since the epoch.
        ports: port in the node → address and port on the host.
        address: the container's address; empty while it has none.
        labels: the container's labels.
        auto_remove: whether the engine removes the container at its end.
    """

    name: str
    container: str
    identity: str
    state: str
    exit_code: int = 0
    restarts: int = 0
    created: float = 0.0
    ports: collections.abc.Mapping[int, tuple[str, int]] = dataclasses.field(default_factory=dict)
    address: str = ""
    labels: collections.abc.Mapping[str, str] = dataclasses.field(default_factory=dict)
    auto_remove: bool = False

    @property
    def is_running(self) -> bool:
        """Whether its processes run now."""
        return self.state == "running"

    @property
    def is_own(self) -> bool:
        """Whether `p8s run` made it, so that it may be removed."""
        return LABEL in self.labels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Image:
    """An image of the engine.

    Attributes:
        identity: the digest of its configuration, or of its manifest where the engine keeps images
            in containerd.
        size: bytes.
        architecture: in Go's words.
        tags: its names.
        layers: the digests of its layers, uncompressed, the lowest first.
    """

    identity: str
    size: int
    architecture: str
    tags: tuple[str, ...]
    layers: tuple[str, ...] = ()


def container_name(name: str) -> str:
    """The container, the volume and the kube context of a cluster."""
    return f"p8s-{name}"


def container_options(spec: Spec) -> dict[str, typing.Any]:
    """What docker's `create_container` is given, but for its host_config."""
    return {
        "image": spec.image,
        "command": list(spec.flags),
        "name": container_name(spec.name),
        "environment": dict(spec.environment),
        "ports": [*spec.inside, *((port.node, port.protocol) for port in spec.ports)],
        # A drain gives pods their grace before anything is killed, also by a plain `docker stop`.
        "stop_timeout": STOP_SECONDS,
        "labels": {
            LABEL: spec.name,
            HTTP_LABEL: str(spec.inside[0]),
            API_LABEL: str(spec.inside[1]),
            **({KUBECONFIG_LABEL: spec.kubeconfig} if spec.kubeconfig else {}),
        },
    }


def host_options(spec: Spec) -> dict[str, typing.Any]:
    """What docker's `create_host_config` is given, with the reason for each thing."""
    policy, _, times = spec.restart.partition(":")
    options: dict[str, typing.Any] = {
        # kubelet mounts pods' volumes, containerd makes namespaces, cgroups and overlay mounts, and
        # kube-proxy writes the packet rules of the container's own network namespace: no shorter
        # list of capabilities makes /proc/sys and /sys/fs/cgroup writable.
        "privileged": True,
        # For this host alone, unless told otherwise: the API hands out administrators' credentials.
        "port_bindings": {
            inside: (spec.bind, outside)
            for inside, outside in zip(spec.inside, spec.published, strict=True)
        }
        | publishing.make_bindings(spec.ports),
        "auto_remove": spec.auto_remove,
    }
    # A volume in any case (the image asks for an anonymous one): containerd's overlayfs cannot lie
    # on the container's own.
    if spec.keeps_state:
        options["binds"] = {container_name(spec.name): {"bind": STATE, "mode": "rw"}}
    if spec.mounts:
        options["mounts"] = [dict(mount) for mount in spec.mounts]
    if policy != "no":
        options["restart_policy"] = {"Name": policy, "MaximumRetryCount": int(times or 0)}
    if spec.network:
        options["network_mode"] = spec.network
    return options


def read_cluster(found: typing.Any) -> Cluster:
    """A cluster from what the engine's `inspect` says of its container."""
    labels = found["Config"]["Labels"] or {}
    name = found["Name"].removeprefix("/")
    network = found["NetworkSettings"]
    addresses = [entry["IPAddress"] for entry in (network.get("Networks") or {}).values() if entry]
    ports = {
        int(inside.partition("/")[0]): (bound[0]["HostIp"], int(bound[0]["HostPort"]))
        for inside, bound in (network.get("Ports") or {}).items()
        if bound and inside.endswith("/tcp")
    }
    return Cluster(
        name=labels.get(LABEL, name),
        container=name,
        identity=found["Id"],
        state=found["State"]["Status"],
        exit_code=found["State"].get("ExitCode", 0),
        restarts=found.get("RestartCount", 0),
        created=_read_time(found["Created"]),
        ports=ports,
        address=next(filter(None, addresses), ""),
        labels=labels,
        auto_remove=bool(found.get("HostConfig", {}).get("AutoRemove")),
    )


def missing_image(image: str) -> errors.P8sError:
    """What is said where the engine has no such image."""
    return errors.P8sError(
        f"the docker engine has no image {image}",
        hint=f"build it with `make image` in p8s' repository, or `docker pull {image}` where it "
        "was published",
    )


def _read_time(text: str) -> float:
    # Go writes nanoseconds, which Python's datetime does not read.
    return datetime.datetime.fromisoformat(text[:19] + "+00:00").timestamp()
