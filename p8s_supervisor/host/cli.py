"""The `p8s` command: a table of commands, each imported when it is called."""

from __future__ import annotations

import dataclasses
import importlib
import typing

import click

from p8s_supervisor import errors

# As a shell has it: 128 and the signal's number.
INTERRUPTED = 130

EPILOG = """\b
Exit codes:
  0    done; `run`: the cluster stopped as asked
  1    failed, or not ready
  2    wrong arguments or settings: every one of them is named
  3    `run`, `wait`: the cluster runs, and some of your manifests are refused
  130  ended by Ctrl-C
`run` ends with the cluster's own code, `exec` with its command's."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One command.

    Attributes:
        where: module of the package and name in it, as in "cli_run:run".
        help: what `p8s --help` says of it.
        section: the heading that it stands under there.
    """

    where: str
    help: str
    section: str


LIFE, LOOK, WORK, HOST = "Clusters", "Looking", "Working", "The host"
COMMANDS = {
    "run": Row("cli_run:run", "Start a cluster and follow it to its end, or --detach.", LIFE),
    "stop": Row("cli_life:stop", "Stop a cluster in order; its state is kept.", LIFE),
    "delete": Row("cli_life:delete", "Remove clusters with their state.", LIFE),
    "list": Row("cli_life:list_", "Every cluster of this docker engine.", LIFE),
    "wait": Row("cli_life:wait_", "Wait until a cluster is ready.", LIFE),
    "status": Row("cli_look:status", "Phases, conditions and components.", LOOK),
    "logs": Row("cli_look:logs", "What the cluster, or one component, printed.", LOOK),
    "events": Row("cli_look:events", "What has happened since the start.", LOOK),
    "config": Row("cli_look:config", "The settings in force, and where each came from.", LOOK),
    "bundle": Row("cli_look:bundle", "Everything about a cluster in one file.", LOOK),
    "kubeconfig": Row("cli_work:kubeconfig", "Print an administrator's kubeconfig.", WORK),
    "user": Row("cli_work:user", "Make a kubeconfig for a user.", WORK),
    "load": Row("cli_load:load", "Put images into a cluster.", WORK),
    "exec": Row("cli_work:exec_", "Run a command in the node.", WORK),
    "apply": Row("cli_work:apply", "Apply the cluster's own manifests again.", WORK),
    "reset": Row("cli_work:reset", "Delete what is in namespaces.", WORK),
    "addon": Row("cli_addon:addon", "List, enable and disable add-ons.", WORK),
    "doctor": Row("cli_doctor:doctor", "Whether this host can run p8s.", HOST),
    "setup": Row("cli_life:setup", "Prepare a cluster; start nothing.", HOST),
    "clean": Row("cli_life:clean", "Remove what an ended cluster left.", HOST),
    "completion": Row("cli_work:completion", "Print a shell's completion script.", HOST),
    "version": Row("cli_work:version", "Versions of p8s, the engine and the cluster.", HOST),
}


class Commands(click.Group):
    """A group that imports a command only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].where.partition(":")
        command = getattr(importlib.import_module(f"p8s_supervisor.host.{module}"), name)
        return typing.cast("click.Command", command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table: nothing is imported for it."""
        for section in (LIFE, LOOK, WORK, HOST):
            rows = [(name, row.help) for name, row in COMMANDS.items() if row.section == section]
            with formatter.section(section):
                formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> typing.Any:
        """Errors that p8s raises on purpose are told without a traceback."""
        try:
            return super().invoke(ctx)
        except errors.P8sError as error:
            click.echo(f"p8s: {error}", err=True)
            # 400: the cluster's word for a wrong argument.
            is_input = isinstance(error, errors.RequestError) and error.status == 400
            ctx.exit(int(errors.ExitCode.BAD_SETTINGS if is_input else error.exit_code))
        except KeyboardInterrupt:  # of `logs -f`, say: no failure, and nothing to be told
            ctx.exit(INTERRUPTED)


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Real Kubernetes in one privileged container."""
