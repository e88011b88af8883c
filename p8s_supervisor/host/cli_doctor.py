"""`p8s doctor`: whether this host can run a cluster, and what mends it."""

from __future__ import annotations

import collections.abc
import dataclasses
import os

import click

from p8s_supervisor import errors, settings
from p8s_supervisor.host import cli_options, console
from p8s_supervisor.host import doctor as preflight  # the command has the name


@click.command()
@cli_options.image
@click.option(
    "--port",
    "ports",
    multiple=True,
    type=click.IntRange(1, 65535),
    help="a port of 127.0.0.1 that has to be free; may be given several times",
)
@cli_options.output
@click.pass_context
def doctor(ctx: click.Context, image: str, ports: tuple[int, ...], output: str) -> None:
    """Whether this host can run p8s.

    Each finding that is not ok comes with what mends it. Address ranges are those of the settings in
    P8S_* and the settings file. Exit code 1 where a cluster would not start.
    """
    variables = {
        name: value
        for name, value in os.environ.items()
        if name.removeprefix(settings.PREFIX).lower() in (*settings.FIELDS, "config")
        and name.startswith(settings.PREFIX)
    }
    found = preflight.check(settings.load([], variables).settings, image=image, ports=ports)
    if output == "json":
        console.print_json([dataclasses.asdict(finding) for finding in found])
    else:
        console.print_table(
            ("WHAT", "LEVEL", "FOUND"),
            [(finding.name, str(finding.level), finding.message) for finding in found],
        )
        for finding in found:
            if finding.mend:
                console.tell(f"\n{finding.name}: {finding.mend}")
    if any(finding.level == preflight.Level.ERROR for finding in found):
        ctx.exit(int(errors.ExitCode.START_FAILED))


def tell_warnings(findings: collections.abc.Iterable[preflight.Finding]) -> None:
    """Say what may trouble a cluster and keeps none from starting."""
    for found in findings:
        if found.level == preflight.Level.WARNING:
            mend = f"\n  hint: {found.mend}" if found.mend else ""
            console.warn(f"{found.name}: {found.message}{mend}")
