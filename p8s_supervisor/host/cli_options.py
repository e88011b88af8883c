"""What the commands share: their common options, and the cluster that a name means."""

from __future__ import annotations

import collections.abc
import os
import re
import typing

import click

from p8s_supervisor import errors, parsers
from p8s_supervisor.host import client, clusters, docker_host

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")

Function = typing.TypeVar("Function", bound=collections.abc.Callable[..., typing.Any])


def check_name(_: click.Context, __: click.Parameter, value: str) -> str:
    """A name that container, volume and context can have; click tells what is wrong."""
    if not _NAME.fullmatch(value):
        raise click.BadParameter("a-z, 0-9 and '-', 40 at most, such as dev or ci-1")
    return value


def complete_name(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """The clusters' names, for the shell; none where no engine answers."""
    try:
        found = [cluster.name for cluster in docker_host.connect().list_clusters()]
    except errors.P8sError:
        return []
    return [name for name in found if name.startswith(incomplete)]


class Duration(click.ParamType[float]):
    """Seconds, from 90s, 5m or 1h30m."""

    name = "duration"

    def convert(
        self, value: typing.Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse it as the settings do."""
        try:
            return value if isinstance(value, float) else parsers.parse_duration(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


def named(function: Function) -> Function:
    """--name: a cluster's own name, or a container's."""
    return click.option(
        "--name",
        "-n",
        default="default",
        envvar="P8S_NAME",
        show_default=True,
        show_envvar=True,
        shell_complete=complete_name,
        help="the cluster, or its container where compose or docker made it",
    )(function)


def new(function: Function) -> Function:
    """--name of a cluster that is to be, and --image."""
    name = click.option(
        "--name",
        "-n",
        default="default",
        envvar="P8S_NAME",
        callback=check_name,
        show_default=True,
        help="the cluster's name; its container, volume and context are p8s-NAME",
    )
    return name(image(function))


def image(function: Function) -> Function:
    """--image: what clusters are made of."""
    return click.option(
        "--image",
        default=clusters.IMAGE,
        envvar="P8S_IMAGE",
        show_default=True,
        help="the image",
    )(function)


def output(function: Function) -> Function:
    """-o: a table, or JSON."""
    return click.option(
        "--output",
        "-o",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="what to print",
    )(function)


def find_running(engine: docker_host.Engine, name: str) -> clusters.Cluster:
    """A cluster whose container runs.

    Raises:
        P8sError: there is none of that name, or it has ended.
    """
    cluster = engine.get(name)
    if cluster.is_running:
        return cluster
    raise errors.P8sError(
        f"the cluster {name} does not run: its container is {cluster.state}"
        + (f" ({cluster.exit_code})" if cluster.state == "exited" else ""),
        hint=_tell_restart(cluster),
    )


def _tell_restart(cluster: clusters.Cluster) -> str:
    if cluster.state == "paused":
        return f"`docker unpause {cluster.container}` lets it go on"
    start = f"p8s run --name {cluster.name}" if cluster.is_own else f"docker start {cluster.name}"
    return f"`p8s logs --name {cluster.name}` shows why, `{start}` starts it again"


def make_client(engine: docker_host.Engine, cluster: clusters.Cluster) -> client.Client:
    """A client of a running cluster."""
    return client.Client(
        find_url(engine, cluster),
        token=os.environ.get("P8S_API_TOKEN", ""),
        find_token=lambda: engine.execute(cluster, "cat", "/run/p8s/token").strip(),
    )


def find_url(engine: docker_host.Engine, cluster: clusters.Cluster) -> str:
    """Where the HTTP API of a running cluster is, seen from here.

    A container that was not made by `p8s run` may have another port than the default one; one whose
    port is not published is reached at its own address, which works on the engine's host.
    """
    inside = int(cluster.labels.get(clusters.HTTP_LABEL, clusters.HTTP_PORT))
    if inside not in cluster.ports:
        told = engine.execute(cluster, "cat", "/run/p8s/http-address").split()
        inside = int(told[1]) if len(told) == 2 else inside
    if inside in cluster.ports:
        address, port = cluster.ports[inside]
        local = engine.reach(address)
        return f"http://[{local}]:{port}" if ":" in local else f"http://{local}:{port}"
    if cluster.address:
        return f"http://{cluster.address}:{inside}"
    raise errors.P8sError(
        f"the cluster {cluster.name} publishes no port",
        hint=f"start it with --publish=127.0.0.1:{inside}:{inside}",
    )


def reach(name: str) -> client.Client:
    """A client of the running cluster of that name."""
    engine = docker_host.connect()
    return make_client(engine, find_running(engine, name))
