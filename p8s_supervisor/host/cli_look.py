"""`p8s status`, `logs`, `events`, `config` and `bundle`: what a cluster tells of itself."""

from __future__ import annotations

import collections.abc
import datetime
import pathlib
import typing

import click

from p8s_supervisor import errors
from p8s_supervisor.host import bundles, cli_options, clusters, console, docker_host


@click.command()
@cli_options.named
@cli_options.output
def status(name: str, output: str) -> None:
    """State, phases, conditions and components; times are seconds since the container's start."""
    found = cli_options.reach(name).status()
    if output == "json":
        console.print_json(found)
        return
    versions, addresses = found["versions"], found["addresses"]
    console.print_table(
        ("CLUSTER", "STATE", "VERSION", "API", "NODE", "UP"),
        [
            (
                name,
                found["state"],
                versions["kubernetes"],
                addresses["apiserver"],
                addresses["node"],
                console.age(found["uptime"]),
            )
        ],
    )
    for title, rows in describe(found).items():
        console.tell("")
        console.print_table(title, rows)


def describe(found: console.Status) -> dict[tuple[str, ...], list[list[str]]]:
    """The tables below the first one: columns → rows; those without a row are left out."""
    tables = {
        ("MISSING", "REASON"): [[thing, why] for thing, why in found["missing"].items()],
        # Of a node that is older than this command there is no such list.
        ("POD", "IMAGE", "IS NOT PULLED"): [
            [one["pod"], one["image"], one["message"] or one["reason"]]
            for one in found.get("failing_pulls", [])
        ],
        ("ADD-ON", "STATE"): [
            [one["name"], "usable" if one["usable"] else one["reason"]]
            for one in found.get("addons", [])
            if one["enabled"]
        ],
        ("PHASE", "START", "SECONDS"): [
            [
                phase["name"],
                f"{phase['start']:.1f}",
                "…" if phase["duration"] is None else f"{phase['duration']:.1f}",
            ]
            for phase in found["phases"]
        ],
        ("CONDITION", "SINCE"): [
            [condition, f"{since:.1f}"] for condition, since in found["conditions"].items()
        ],
        ("COMPONENT", "KIND", "STATE", "RESTARTS"): [
            [part["name"], part["kind"], part["state"], str(part["restarts"])]
            for part in found["components"]
        ],
    }
    return {title: rows for title, rows in tables.items() if rows}


@click.command()
@cli_options.named
@click.argument("component", required=False)
@click.option("--follow", "-f", is_flag=True, help="go on until the cluster ends")
@click.option("--tail", type=click.IntRange(0), help="only so many last lines")
@click.option("--list", "list_them", is_flag=True, help="name the components that have a log")
def logs(name: str, component: str | None, follow: bool, tail: int | None, list_them: bool) -> None:
    """What the cluster printed (also of one that has ended), or one component's log.

    `p8s logs --list` names the components.
    """
    if list_them:
        console.tell("\n".join(cli_options.reach(name).list_logs()))
        return
    if component is None:
        engine = docker_host.connect()
        _write(engine.read_logs(engine.get(name), follow=follow, tail=tail))
    else:
        _write(cli_options.reach(name).read_logs(component, follow=follow, tail=tail))


def _write(pieces: collections.abc.Iterable[bytes]) -> None:
    for piece in pieces:
        console.write(piece)


@click.command()
@cli_options.named
@cli_options.output
@click.option("--follow", "-f", is_flag=True, help="go on until the cluster ends")
def events(name: str, output: str, follow: bool) -> None:
    """What has happened since the start: phases, conditions, restarts, Kubernetes' warnings.

    With -o json each event is a line.
    """
    import json

    for event in cli_options.reach(name).read_events(follow=follow):
        if output == "json":
            console.tell(json.dumps({"id": event.identity, "kind": event.kind, **event.data}))
        else:
            console.tell(render_event(event.kind, event.data))


def render_event(kind: str, data: collections.abc.Mapping[str, typing.Any]) -> str:
    """An event as a line: when (local time), what kind, what."""
    time = data.get("time")
    shown = (
        datetime.datetime.fromtimestamp(time, tz=datetime.UTC).astimezone().strftime("%H:%M:%S")
        if isinstance(time, int | float)
        else "-"
    )
    return f"{shown}  {kind:<10} {data.get('message', '')}".rstrip()


@click.command()
@cli_options.named
@cli_options.output
def config(name: str, output: str) -> None:
    """The settings in force, and whether each is from a flag, the environment, a file or default."""
    found = cli_options.reach(name).settings()
    if output == "json":
        console.print_json(found)
        return
    rows = [(key, row["value"] or "-", row["source"]) for key, row in found.items()]
    console.print_table(("SETTING", "VALUE", "SOURCE"), rows)


@click.command()
@cli_options.named
@click.option(
    "--output",
    "-o",
    "file",
    type=click.Path(dir_okay=False, path_type=pathlib.Path),
    help="where it goes (default: p8s-NAME.tar.gz)",
)
def bundle(name: str, file: pathlib.Path | None) -> None:
    """Logs, events, objects, timeline and settings without secrets, as one tar.gz.

    Of a cluster that has ended: what docker still has, the components' logs among it.
    """
    engine = docker_host.connect()
    cluster = engine.get(name)
    target = file or pathlib.Path(f"{clusters.container_name(name)}.tar.gz")
    if cluster.is_running:
        try:
            _save(engine, cluster, target)
        except errors.RequestError as error:
            if error.status:
                raise
            console.warn(f"{error.message}; docker's part is taken alone")
            bundles.save_ended(engine, cluster, target)
    else:
        bundles.save_ended(engine, cluster, target)
    console.tell(str(target))


def _save(engine: docker_host.Engine, cluster: clusters.Cluster, file: pathlib.Path) -> None:
    pieces = cli_options.make_client(engine, cluster).read_bundle()
    with bundles.writing(file) as target:
        for piece in pieces:
            target.write(piece)
