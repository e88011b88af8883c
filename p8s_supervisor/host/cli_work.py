"""`p8s kubeconfig`, `user`, `exec`, `apply`, `reset`, `completion` and `version`."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import sys

import click
import click.shell_completion

from p8s_supervisor import errors, files
from p8s_supervisor.host import cli_options, clusters, console, docker_host


@click.command()
@cli_options.named
@click.option(
    "--internal", is_flag=True, help="for other containers of the cluster's docker network"
)
@click.option(
    "--host",
    default="",
    help="for callers that know the cluster by this name, or NAME:PORT (default: the port in the node)",
)
def kubeconfig(name: str, internal: bool, host: str) -> None:
    """Print an administrator's kubeconfig: for this host, unless told otherwise."""
    if internal and host:
        raise click.UsageError("--internal and --host: one of them")
    engine = docker_host.connect()
    cluster = cli_options.find_running(engine, name)
    api = cli_options.make_client(engine, cluster)
    if internal:
        # The address with the port in the node: what is published is of no use from inside.
        host = _find_internal(cluster, api.settings()["api_port"]["value"])
    click.echo(api.kubeconfig(host), nl=False)


def _find_internal(cluster: clusters.Cluster, port: str) -> str:
    if not cluster.address:
        raise errors.P8sError(
            f"the cluster {cluster.name} has no address of its own",
            hint="on the host's network `p8s kubeconfig` is right as it is",
        )
    return f"{cluster.address}:{port}"


@click.command()
@cli_options.named
@click.argument("user")
@click.option("--group", "groups", multiple=True, help="a group of the user's; may be repeated")
@click.option("--ttl", default="", metavar="DURATION", help="how long it is good for, as in 8h")
@click.option("--token", is_flag=True, help="a ServiceAccount's bound token, not a certificate")
@click.option(
    "--output",
    "-o",
    "file",
    type=click.Path(dir_okay=False, path_type=pathlib.Path),
    help="a file, for its owner alone (default: standard output)",
)
def user(
    *,
    name: str,
    user: str,
    groups: tuple[str, ...],
    ttl: str,
    token: bool,
    file: pathlib.Path | None,
) -> None:
    """Make a kubeconfig for a user, with a client certificate or a bound token.

    What the user may do is RBAC's business: bind a role to the user or to one of the groups, or
    take the group system:masters.
    """
    text = cli_options.reach(name).make_user(
        user, groups=groups, ttl=ttl, kind="token" if token else "certificate"
    )
    if file is None:
        click.echo(text, nl=False)
        return
    try:
        files.write(file, text, mode=0o600)
    except OSError as error:
        raise errors.P8sError(
            f"{file} cannot be written: {error.strerror}", hint="-o names another file"
        ) from error


@click.command(
    "exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@cli_options.named
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(name: str, command: tuple[str, ...]) -> None:
    """Run a command in the node, as root; its exit code is this command's.

    `p8s exec kubectl get pods -A`, `p8s exec bash`, `p8s exec -- ctr --namespace k8s.io images ls`
    """
    cluster = cli_options.find_running(docker_host.connect(), name)
    # docker's own command: it knows how to join two terminals, their signals and their sizes.
    program = ["docker", "exec", "--interactive"]
    if sys.stdin.isatty() and sys.stdout.isatty():
        program.append("--tty")
    sys.stdout.flush()
    try:
        os.execvp("docker", [*program, cluster.container, *command])  # noqa: S606
    except OSError as error:
        raise errors.P8sError(
            f"docker's own command cannot be run: {error.strerror}",
            hint="install docker's command line (docker-cli)",
        ) from error


@click.command()
@cli_options.named
def apply(name: str) -> None:
    """Apply the cluster's own manifests again: kube-proxy, coredns and their rights."""
    _tell_applied(cli_options.reach(name).apply())


def _tell_applied(names: list[str]) -> None:
    for applied in names:
        console.tell(f"applied {applied}")


@click.command()
@cli_options.named
@click.argument("namespaces", nargs=-1, required=True, metavar="NAMESPACE...")
@click.option("--apply", "then_apply", is_flag=True, help="then apply the manifests again")
def reset(name: str, namespaces: tuple[str, ...], then_apply: bool) -> None:
    """Delete everything in namespaces; the namespaces themselves stay."""
    api = cli_options.reach(name)
    for namespace in namespaces:
        deleted = api.reset(namespace)
        for thing in deleted:
            console.tell(f"deleted {namespace}: {thing}")
        if not deleted:
            console.tell(f"{namespace} is empty")
    if then_apply:
        _tell_applied(api.apply())


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a completion script: eval "$(p8s completion bash)" in ~/.bashrc."""
    found = click.shell_completion.get_completion_class(shell)
    assert found is not None, "the choice above lists only what click has"  # noqa: S101
    click.echo(found(ctx.find_root().command, {}, "p8s", "_P8S_COMPLETE").source())


@click.command()
@cli_options.named
@cli_options.output
def version(name: str, output: str) -> None:
    """Versions of this command, the docker engine, and the cluster where it runs."""
    found = {"p8s": importlib.metadata.version("p8s")}
    try:
        engine = docker_host.connect()
        found["docker"] = engine.version()
        cluster = engine.find(name)
        if cluster is not None and cluster.is_running:
            found |= cli_options.make_client(engine, cluster).status()["versions"]
    except errors.P8sError as error:
        console.warn(error.message)
    if output == "json":
        console.print_json(found)
    else:
        console.print_table(("COMPONENT", "VERSION"), list(found.items()))
