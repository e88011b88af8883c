"""A cluster's life as `p8s run` sees it: ports, container, context, and nothing left but its state."""

from __future__ import annotations

import collections.abc
import dataclasses
import ipaddress
import os
import pathlib
import socket

from p8s_supervisor import errors, settings
from p8s_supervisor.host import client, clusters, console, contexts, docker_host

ATTEMPTS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What `p8s run` was asked for.

    Attributes:
        spec: the cluster, with ports that are not chosen yet.
        settings: its settings, as the node will read them.
        publish_http: the host's port for the HTTP API; None: a free one.
        publish_api: the host's port for the apiserver; None: a free one.
        names_server: whether a setting names the apiserver's URL already.
    """

    spec: clusters.Spec
    settings: settings.Settings
    publish_http: int | None = None
    publish_api: int | None = None
    names_server: bool = False


def choose_ports(wanted: Wanted) -> tuple[int, int]:
    """Ports of the host for the HTTP API and the apiserver.

    The cluster `default` has the well-known ones where they are free: habits and bookmarks work.
    """
    usual = (clusters.HTTP_PORT, clusters.API_PORT)
    taken = {port.host for port in wanted.spec.ports}
    taken |= {port for port in (wanted.publish_http, wanted.publish_api) if port is not None}
    chosen: list[int] = []
    for given, known in zip((wanted.publish_http, wanted.publish_api), usual, strict=True):
        is_usual = wanted.spec.name == "default" and known not in taken
        if given is not None:
            chosen.append(given)
        elif is_usual and is_free(known, wanted.spec.bind):
            chosen.append(known)
        else:
            chosen.append(_find_free(wanted.spec.bind, {*taken, *chosen}))
    return chosen[0], chosen[1]


def is_free(port: int, bind: str) -> bool:
    """Whether nobody listens there now."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family) as probe:
        # As docker's own proxy does; a port whose last connections linger is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, port))
        except OSError:
            return False
        return True


def _find_free(bind: str, taken: collections.abc.Container[int]) -> int:
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    while True:
        with socket.socket(family) as probe:
            try:
                probe.bind((bind, 0))
            except OSError as error:
                raise errors.P8sError(
                    f"ports cannot be published at {bind}: {error.strerror}",
                    hint="--bind takes an address of this host",
                ) from error
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port


def start(engine: docker_host.Engine, wanted: Wanted) -> clusters.Cluster:
    """Make and start the container, at other ports where somebody was quicker.

    Raises:
        P8sError: a cluster of that name runs, the image is missing, or no port could be had, or
            none that can be reached from here.
    """
    make_room(engine, wanted.spec)
    _check_reach(engine, wanted.spec.bind)
    is_new = wanted.spec.keeps_state and wanted.spec.name not in engine.list_volumes()
    for attempt in range(1, ATTEMPTS + 1):
        http, api = choose_ports(wanted)
        spec = wanted.spec
        flags = _name_host(wanted, engine.reach(spec.bind), api)
        spec = dataclasses.replace(spec, published=(http, api), flags=flags)
        cluster = engine.create(spec)
        try:
            engine.start(cluster)
        except docker_host.PortTakenError as error:
            engine.remove(cluster)
            if attempt == ATTEMPTS or None not in (wanted.publish_http, wanted.publish_api):
                _forget_volume(engine, spec, is_new=is_new)
                raise errors.P8sError(
                    error.message,
                    hint="give others with --publish-http, --publish-api and --publish; `ss -ltnp` "
                    "shows who has them",
                ) from error
        except errors.P8sError:
            engine.remove(cluster)
            _forget_volume(engine, spec, is_new=is_new)
            raise
        else:
            return engine.refresh(cluster) or cluster
    raise AssertionError("unreachable")


def _forget_volume(engine: docker_host.Engine, spec: clusters.Spec, *, is_new: bool) -> None:
    """A cluster that never ran has no state to keep."""
    if is_new:
        engine.remove_volume(spec.name)


def _check_reach(engine: docker_host.Engine, bind: str) -> None:
    """An engine on another host has a loopback of its own: there `run` would wait for ever."""
    host = engine.reach("")
    if not ipaddress.ip_address(bind).is_loopback:
        return
    try:
        socket.create_server((host, 0)).close()  # an address of this host
    except OSError as error:
        raise errors.P8sError(
            f"the docker engine is on {host}: what it publishes at {bind} is out of reach from here",
            hint="--bind=0.0.0.0, with a P8S_API_TOKEN",
        ) from error


def _name_host(wanted: Wanted, host: str, api: int) -> tuple[str, ...]:
    """The flags, with what the node cannot know: how it is reached from here."""
    flags = list(wanted.spec.flags)
    if not wanted.names_server:
        flags.append(f"--api-server={_server(host, api)}")
    names = wanted.settings.extra_sans
    # Its API answers to its own names alone, and these two are.
    if host not in ("127.0.0.1", "::1", *names):
        flags = [flag for flag in flags if not flag.startswith("--extra-sans=")]
        flags.append(f"--extra-sans={','.join((*names, host))}")
    return tuple(flags)


def _server(address: str, port: int) -> str:
    return f"https://[{address}]:{port}" if ":" in address else f"https://{address}:{port}"


def make_room(engine: docker_host.Engine, spec: clusters.Spec) -> None:
    """Remove what is left of an ended run; its state is in the volume.

    Raises:
        P8sError: a cluster of that name runs, or the container is not p8s run's.
    """
    before = engine.find(spec.name)
    if before is None:
        return
    if before.state in ("running", "restarting", "paused"):
        raise errors.P8sError(
            f"the cluster {spec.name} is {before.state} already",
            hint=f"`p8s status --name {spec.name}` shows it, `p8s stop --name {spec.name}` ends it, "
            "another --name starts another",
        )
    if not before.is_own:
        raise errors.P8sError(
            f"there is a container {spec.name} that `p8s run` did not make",
            hint=f"`docker start {spec.name}`, or choose another --name",
        )
    engine.remove(before)


def add_context(engine: docker_host.Engine, api: client.Client, cluster: clusters.Cluster) -> str:
    """Merge the cluster into the user's kubeconfig, where it wants that.

    Returns:
        The context's name; empty where there is none. A kubeconfig that is broken is told and
        left alone: the cluster runs all the same.
    """
    import yaml

    file = cluster.labels.get(clusters.KUBECONFIG_LABEL)
    if not file:
        return ""
    context = clusters.container_name(cluster.name)
    try:
        config = yaml.safe_load(api.kubeconfig())
        remover = engine.identity() if cluster.auto_remove else ""
        contexts.merge(pathlib.Path(file), context, config, engine=remover)
    except errors.P8sError as error:
        console.warn(str(error))
        return ""
    return context


def remove_context(name: str, file: str) -> bool:
    """Take a cluster out of a kubeconfig; trouble is told and ends nothing."""
    try:
        return contexts.remove(pathlib.Path(file), clusters.container_name(name))
    except errors.P8sError as error:
        console.warn(str(error))
        return False


def tidy_contexts(
    engine: docker_host.Engine, found: collections.abc.Collection[clusters.Cluster]
) -> None:
    """Take clusters that ended by themselves (`--timeout`, a crash) out of the user's kubeconfigs."""
    for cluster in found:
        file = cluster.labels.get(clusters.KUBECONFIG_LABEL)
        if not file or cluster.state not in ("exited", "dead"):
            continue
        context = clusters.container_name(cluster.name)
        # Most have none any more; and a file that cannot be read is no business of `list`'s.
        if contexts.mentions(pathlib.Path(file), context) and remove_context(cluster.name, file):
            console.warn(f"{cluster.name} has ended: its context is taken out of {file}")

    _tidy_thrown_away(engine, {clusters.container_name(cluster.name) for cluster in found})


def _tidy_thrown_away(engine: docker_host.Engine, there: collections.abc.Set[str]) -> None:
    """The same for those of --detach --rm: only the kubeconfig still knows them."""
    file = contexts.find_file(os.environ).absolute()
    if not contexts.mentions(file, contexts.THROWN_AWAY):
        return
    try:
        gone = [
            context
            for context in contexts.list_thrown_away(file, engine.identity())
            if context not in there and contexts.remove(file, context)
        ]
    except errors.P8sError as error:
        console.warn(str(error))
        return
    for context in gone:
        console.warn(f"{context} has ended: its context is taken out of {file}")


def remove(engine: docker_host.Engine, cluster: clusters.Cluster) -> None:
    """Remove a cluster's container and its context; the state's volume stays."""
    file = cluster.labels.get(clusters.KUBECONFIG_LABEL)
    if file:
        remove_context(cluster.name, file)
    engine.remove(cluster)
