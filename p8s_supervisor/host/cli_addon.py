"""`p8s addon list`, `enable` and `disable`: add-ons of a running cluster."""

from __future__ import annotations

import collections.abc

import click

from p8s_supervisor import errors, wait
from p8s_supervisor.host import cli_options, client, clusters, console, docker_host

METAVAR = "ADD-ON..."


@click.group()
def addon() -> None:
    """Add-ons of a running cluster: those of its image, and the user's own.

    What is enabled or disabled here stays so over restarts.
    """


@addon.command("list")
@cli_options.named
@cli_options.output
def list_(name: str, output: str) -> None:
    """Every add-on, and whether it can be used."""
    found = cli_options.reach(name).add_ons()
    if output == "json":
        console.print_json(found)
        return
    console.print_table(
        ("NAME", "ENABLED", "STATE", "SUMMARY"),
        [
            (one["name"], "yes" if one["enabled"] else "no", _describe(one), one["summary"])
            for one in found
        ],
    )
    # Below the table: what the apiserver says of a manifest has no end.
    unusable = [
        (one["name"], one["reason"]) for one in found if one["enabled"] and not one["usable"]
    ]
    if unusable:
        console.tell("")
        console.print_table(("NOT USABLE", "REASON"), unusable)


def _describe(one: client.Object) -> str:
    if one["enabled"]:
        return "usable" if one["usable"] else "not usable"
    return one["reason"] or "-"


def complete_add_on(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The add-ons' names, for the shell; none where no cluster answers."""
    try:
        found = cli_options.reach(ctx.params["name"]).add_ons()
    except errors.P8sError:
        return []
    return [one["name"] for one in found if one["name"].startswith(incomplete)]


@addon.command()
@cli_options.named
@click.argument("add_ons", nargs=-1, required=True, metavar=METAVAR, shell_complete=complete_add_on)
@click.option(
    "--timeout",
    type=cli_options.Duration(),
    default="2m",
    show_default=True,
    help="give up after this long",
)
def enable(name: str, add_ons: tuple[str, ...], timeout: float) -> None:
    """Enable add-ons, and wait until they can be used."""
    engine = docker_host.connect()
    cluster = cli_options.find_running(engine, name)
    api = cli_options.make_client(engine, cluster)
    _check(api, add_ons)
    for add_on in add_ons:
        for thing in api.enable_add_on(add_on):
            console.tell(f"applied {thing}")
    told: set[str] = set()

    def look() -> str | None:
        missing = _look(engine, cluster, api, add_ons)
        for reason in missing:
            if reason not in told:
                told.add(reason)
                console.tell(f"waiting: {reason}")
        return "; ".join(missing) or None

    wait.until(look, awaited=f"{', '.join(add_ons)} to be usable", seconds=timeout, interval=0.1)
    for add_on in add_ons:
        console.tell(f"{add_on} is usable")


def _look(
    engine: docker_host.Engine,
    cluster: clusters.Cluster,
    api: client.Client,
    add_ons: collections.abc.Sequence[str],
) -> list[str]:
    """For each add-on that cannot be used yet, its name and why."""
    try:
        found = {one["name"]: one for one in api.add_ons()}
    except errors.RequestError as error:
        if error.status:
            raise
        cli_options.find_running(engine, cluster.name)  # it may have ended
        return [error.message]
    return [
        f"{add_on}: {found[add_on]['reason']}" for add_on in add_ons if not found[add_on]["usable"]
    ]


@addon.command()
@cli_options.named
@click.argument("add_ons", nargs=-1, required=True, metavar=METAVAR, shell_complete=complete_add_on)
def disable(name: str, add_ons: tuple[str, ...]) -> None:
    """Delete everything that add-ons brought; the data that they kept for users stays."""
    api = cli_options.reach(name)
    _check(api, add_ons)
    for add_on in add_ons:
        for thing in api.disable_add_on(add_on):
            console.tell(f"deleted {thing}")
        console.tell(f"{add_on} is disabled")


def _check(api: client.Client, names: collections.abc.Sequence[str]) -> None:
    """Name every add-on that is unknown, before anything is changed."""
    known = [one["name"] for one in api.add_ons()]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.BadParameter(
            f"{', '.join(unknown)}: not of {', '.join(known)}", param_hint=f"'{METAVAR}'"
        )
