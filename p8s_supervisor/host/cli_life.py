"""`p8s stop`, `delete`, `list`, `wait`, `setup` and `clean`: clusters as they come and go."""

from __future__ import annotations

import concurrent.futures
import os
import time
import typing

import click

from p8s_supervisor import errors, wait
from p8s_supervisor.host import cli_options, clusters, console, contexts, docker_host, runs

# What `list` gives a cluster for its answer: one that hangs must not hide the others.
LIST_SECONDS = 5.0
PARTS = ("state", "container", "context", "kubeconfig", "all", "none")


@click.command()
@cli_options.named
@click.option(
    "--timeout",
    type=cli_options.Duration(),
    default="1m",
    show_default=True,
    help="it is killed after this long",
)
def stop(name: str, timeout: float) -> None:
    """Stop a cluster: drain, end everything in order, remove the container and the context.

    The state stays in its volume; `p8s run` goes on with it. A container that compose or `docker
    run` made is stopped and left.
    """
    engine = docker_host.connect()
    cluster = engine.find(name)
    if cluster is None and name in engine.list_volumes():
        console.tell(f"{name} is stopped already")
        return
    cluster = cluster or engine.get(name)
    engine.stop(cluster, seconds=timeout)
    ended = engine.refresh(cluster)
    if cluster.is_own:
        runs.remove(engine, cluster)
    code = ended.exit_code if ended else 0
    console.tell(f"{name} has stopped" + (f" with exit code {code}" if code else ""))


@click.command()
@click.argument("names", nargs=-1, metavar="NAME...", shell_complete=cli_options.complete_name)
@click.option("--all", "every", is_flag=True, help="every cluster that `p8s run` made")
def delete(names: tuple[str, ...], every: bool) -> None:
    """Remove clusters, running or not, with their state and their contexts."""
    engine = docker_host.connect()
    if not names and not every:
        raise click.UsageError("name a cluster, or --all")
    known = {cluster.name for cluster in engine.list_clusters() if cluster.is_own}
    known |= set(engine.list_volumes())
    missing = [] if every else [name for name in names if name not in known]
    for name in sorted(known) if every else names:
        if name in known:
            _delete(engine, name)
            console.tell(f"{name} is deleted")
    if missing:
        raise errors.P8sError(
            f"there is no cluster {', '.join(missing)} that `p8s run` made",
            hint=f"there are: {', '.join(sorted(known)) or 'none'}; what compose or docker made, they "
            "remove",
        )


def _delete(engine: docker_host.Engine, name: str) -> None:
    cluster = engine.find(name)
    if cluster is not None:
        runs.remove(engine, cluster)
    runs.remove_context(name, _kubeconfig())
    engine.remove_volume(name)


def _kubeconfig() -> str:
    return str(contexts.find_file(os.environ).absolute())


@click.command("list")
@cli_options.output
def list_(output: str) -> None:
    """Every cluster of this docker engine: those of `p8s run`, and those of compose and docker."""
    engine = docker_host.connect()
    containers = engine.list_clusters()
    runs.tidy_contexts(engine, containers)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(_describe, containers))
    names = {cluster.name for cluster in containers}
    found += [
        {"name": name, "state": "stopped", "ready": False, "version": "", "ports": {}, "age": None}
        for name in engine.list_volumes()
        if name not in names
    ]
    found.sort(key=lambda entry: str(entry["name"]))
    if output == "json":
        console.print_json(found)
        return
    columns = ("NAME", "STATE", "READY", "VERSION", "HTTP", "API", "AGE")
    console.print_table(columns, [_row(entry) for entry in found])


def _describe(cluster: clusters.Cluster) -> dict[str, typing.Any]:
    state, version = cluster.state, ""
    http = int(cluster.labels.get(clusters.HTTP_LABEL, clusters.HTTP_PORT))
    api = int(cluster.labels.get(clusters.API_LABEL, clusters.API_PORT))
    if cluster.is_running:
        try:
            engine = docker_host.connect()  # threads do not share one
            status = cli_options.make_client(engine, cluster).status(seconds=LIST_SECONDS)
            state, version = status["state"], status["versions"]["kubernetes"]
        except errors.P8sError:
            state = "no answer"
    ports = {"http": cluster.ports.get(http), "api": cluster.ports.get(api)}
    return {
        "name": cluster.name,
        "container": cluster.container,
        "state": state,
        "ready": state == "ready",
        "version": version,
        "ports": {name: f"{at[0]}:{at[1]}" for name, at in ports.items() if at},
        "age": round(time.time() - cluster.created),
    }


def _row(entry: dict[str, typing.Any]) -> list[str]:
    return [
        entry["name"],
        entry["state"],
        "yes" if entry["ready"] else "no",
        entry["version"] or "-",
        entry["ports"].get("http", "-"),
        entry["ports"].get("api", "-"),
        "-" if entry["age"] is None else console.age(entry["age"]),
    ]


@click.command("wait")
@cli_options.named
@click.option(
    "--timeout",
    type=cli_options.Duration(),
    default="2m",
    show_default=True,
    help="give up after this long",
)
def wait_(name: str, timeout: float) -> None:
    """Wait until a cluster is ready.

    Where it is not in time, what is missing is told, and the exit code is 1; 3 where the cluster runs
    and only refuses manifests of yours.
    """
    engine = docker_host.connect()
    cluster = cli_options.find_running(engine, name)
    api = cli_options.make_client(engine, cluster)

    def look() -> str | None:
        try:
            missing = api.missing()
        except errors.RequestError as error:
            if error.status:
                raise
            cli_options.find_running(engine, name)  # it may have ended
            return error.message
        return "; ".join(f"{thing}: {why}" for thing, why in missing.items()) or None

    try:
        wait.until(look, awaited=f"the cluster {name} to be ready", seconds=timeout, interval=0.1)
    except errors.WaitTimeoutError as error:
        if api.status()["state"] == "degraded":
            error.exit_code = errors.ExitCode.DEGRADED
        raise
    console.tell(f"{name} is ready")


@click.command()
@cli_options.new
def setup(name: str, image: str) -> None:
    """Look whether the host can run p8s, and prepare a cluster's volume. Nothing is started."""
    from p8s_supervisor import settings
    from p8s_supervisor.host import cli_doctor, doctor

    engine = docker_host.connect()
    console.tell(f"engine: docker {engine.version()}")
    if engine.find_image(image) is None:
        raise clusters.missing_image(image)
    console.tell(f"image: {image}")
    findings = doctor.check(settings.load((), {}).settings, image=image)
    doctor.refuse_errors(findings)
    cli_doctor.tell_warnings(findings)
    console.tell(f"host: {len(findings)} things looked at, `p8s doctor` lists them")
    console.tell(f"state: volume {engine.make_volume(name)}")


@click.command()
@cli_options.named
@click.option(
    "--what",
    default="all",
    metavar="PARTS",
    show_default=True,
    help=f"by commas: {', '.join(PARTS)}; kubeconfig is another word for context",
)
def clean(name: str, what: str) -> None:
    """Remove what an ended cluster left: its state, container and context. Nothing there is fine."""
    parts = {part.strip() for part in what.split(",")}
    unknown = sorted(parts - set(PARTS))
    if unknown:
        raise click.BadParameter(
            f"{', '.join(unknown)}: not of {', '.join(PARTS)}", param_hint="'--what'"
        )
    if "all" in parts:
        parts = set(PARTS)
    engine = docker_host.connect()
    cluster = engine.find(name)
    if cluster is not None and parts & {"state", "container"}:
        if cluster.state in ("running", "restarting", "paused"):
            raise errors.P8sError(
                f"the cluster {name} is {cluster.state}",
                hint=f"`p8s stop --name {name}` first, or `p8s delete {name}`",
            )
        if not cluster.is_own:
            raise errors.P8sError(
                f"the container {name} was not made by `p8s run`", hint=f"docker rm -v {name}"
            )
    told = []
    if parts & {"context", "kubeconfig"}:
        file = cluster.labels.get(clusters.KUBECONFIG_LABEL) if cluster else None
        if runs.remove_context(name, file or _kubeconfig()):
            told.append("context")
    if cluster is not None and parts & {"state", "container"}:
        engine.remove(cluster)
        told.append("container")
    if "state" in parts and engine.remove_volume(name):
        told.append("state")
    console.tell(f"{name}: removed {', '.join(told)}" if told else f"{name}: nothing to remove")
