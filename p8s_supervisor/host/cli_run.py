"""`p8s run`: its options, what they mean, and the way from the first line to the last."""

from __future__ import annotations

import collections.abc
import dataclasses
import ipaddress
import os
import pathlib
import typing

import click

from p8s_supervisor import errors, settings
from p8s_supervisor.host import (
    cli_options,
    clusters,
    console,
    contexts,
    docker_host,
    follow,
    mounts,
    publishing,
    runs,
)

# Variables that are for the command on the host; all other P8S_* are the cluster's settings.
HOST_VARIABLES = ("P8S_IMAGE", "P8S_NAME", "P8S_CONFIG")
POLICIES = ("no", "always", "unless-stopped", "on-failure")
FAILED = int(errors.ExitCode.START_FAILED)
# An option's text; several of one that may be given more than once.
Given = str | tuple[str, ...] | None
# By the state of a cluster that runs.
CODES = {"ready": 0, "degraded": int(errors.ExitCode.DEGRADED), "not ready": FAILED}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """The options of `run` that are no settings; see their help."""

    name: str
    image: str
    detach: bool
    restart: str
    throw_away: bool
    no_kubeconfig: bool
    config: pathlib.Path | None
    bind: str
    publish_http: int | None
    publish_api: int | None
    publish: tuple[publishing.Port, ...]
    network: str
    volumes: tuple[dict[str, typing.Any], ...]
    no_check: bool
    bundle_on_failure: pathlib.Path | None


def _add_settings(command: click.Command) -> click.Command:
    """An option for each row of the settings table; what is given stays text."""
    for name, field in settings.FIELDS.items():
        names = [settings.flag_name(name), name]
        if name == "run_timeout":
            names.insert(1, "--timeout")  # as pupernetes' run had it
        default = field.metadata["default"] or "empty"
        command.params.append(
            click.Option(
                names,
                metavar="VALUE",
                multiple=name in settings.REPEATED,
                help=f"{field.metadata['help']} (default: {default}; {settings.env_name(name)})",
            )
        )
    return command


def _check_restart(_: click.Context, __: click.Parameter, value: str) -> str:
    policy, colon, times = value.partition(":")
    if policy not in POLICIES or (colon and not (policy == "on-failure" and times.isdigit())):
        raise click.BadParameter(f"one of {', '.join(POLICIES)}, or on-failure:TIMES")
    return value


def _check_volumes(
    _: click.Context, __: click.Parameter, value: tuple[str, ...]
) -> tuple[dict[str, typing.Any], ...]:
    try:
        return tuple(mounts.parse(text) for text in value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _check_ports(
    _: click.Context, __: click.Parameter, value: tuple[str, ...]
) -> tuple[publishing.Port, ...]:
    try:
        return tuple(publishing.parse(text) for text in value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _check_address(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError as error:
        raise click.BadParameter("an IP address of this host") from error


def make_wanted(
    asked: Asked,
    given: collections.abc.Mapping[str, Given],
    environment: collections.abc.Mapping[str, str],
) -> runs.Wanted:
    """What is to be run, checked as the node will check it.

    Raises:
        SettingsError: with every wrong setting.
    """
    flags, variables = _make_flags(asked, given), _pick_settings(environment)
    file = asked.config or (settings.DEFAULT_FILE if settings.DEFAULT_FILE.exists() else None)
    loaded = settings.load((*flags, f"--config={file or os.devnull}"), variables)
    published = publishing.settle(asked.publish, asked.bind)
    wrong = _check_together(asked, loaded, published)
    if wrong:
        raise errors.SettingsError(wrong)
    kubeconfig = contexts.find_file(environment).absolute()
    return runs.Wanted(
        spec=clusters.Spec(
            name=asked.name,
            image=asked.image,
            flags=flags,
            environment=variables,
            inside=(loaded.settings.http_port, loaded.settings.api_port),
            bind=asked.bind,
            keeps_state=not asked.throw_away,
            restart=asked.restart,
            # In the foreground p8s removes it itself, after a look at how it ended.
            auto_remove=asked.throw_away and asked.detach,
            config=file.read_bytes() if file else None,
            network=asked.network,
            kubeconfig="" if asked.no_kubeconfig else str(kubeconfig),
            mounts=asked.volumes,
            ports=published,
        ),
        settings=loaded.settings,
        publish_http=asked.publish_http,
        publish_api=asked.publish_api,
        names_server=loaded.sources["api_server"] != "default",
    )


def _make_flags(asked: Asked, given: collections.abc.Mapping[str, Given]) -> tuple[str, ...]:
    flags = tuple(
        f"{settings.flag_name(name)}={text}"
        for name, texts in given.items()
        for text in (texts if isinstance(texts, tuple) else (texts,))
        if text is not None
    )
    if asked.bundle_on_failure and given.get("failure_bundle") is None:
        flags += ("--failure-bundle=true",)
    return flags


def _pick_settings(environment: collections.abc.Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(settings.PREFIX) and name not in HOST_VARIABLES
    }


def _check_together(
    asked: Asked, loaded: settings.Loaded, published: tuple[publishing.Port, ...]
) -> list[str]:
    """What is wrong with options that are right by themselves."""
    wrong = []
    if asked.restart != "no" and not asked.detach:
        wrong.append("--restart needs --detach: a cluster in the foreground ends with the command")
    if asked.restart != "no" and asked.throw_away:
        wrong.append("--restart and --rm: a throw-away cluster is gone when it ends")
    if not ipaddress.ip_address(asked.bind).is_loopback and not loaded.settings.api_token:
        wrong.append(
            f"--bind={asked.bind} shows the HTTP API to other hosts: set P8S_API_TOKEN, which its "
            "callers then need"
        )
    if asked.publish_http is not None and asked.publish_http == asked.publish_api:
        wrong.append(f"--publish-http and --publish-api are both {asked.publish_api}")
    apis = {
        "--publish-http": (loaded.settings.http_port, asked.publish_http),
        "--publish-api": (loaded.settings.api_port, asked.publish_api),
    }
    return wrong + publishing.find_wrong(published, bind=asked.bind, apis=apis)


def run_foreground(engine: docker_host.Engine, wanted: runs.Wanted, asked: Asked) -> int:
    """Start a cluster, follow it to its end, and leave nothing but its state.

    Returns:
        The container's exit code.
    """
    with follow.Interrupts() as interrupts:
        cluster = runs.start(engine, wanted)
        try:
            interrupts.watch(cluster)
            follower = follow.Follower(cluster)
            if _show_start(engine, wanted, cluster) is not None:
                follower.is_shown = True
            code = engine.wait(cluster)
            lines = follower.finish()
            _tell_end(cluster, code, [] if follower.is_shown else lines)
            if code and asked.bundle_on_failure and not interrupts.count:
                _save_bundle(engine, cluster, asked.bundle_on_failure)
        except BaseException:  # a reader that has gone, above all: end what nobody follows
            engine.stop(cluster)
            raise
        finally:
            runs.remove(engine, cluster)
    return code


def run_detached(engine: docker_host.Engine, wanted: runs.Wanted, asked: Asked) -> int:
    """Start a cluster and return when it is ready, has failed, or runs and is not ready.

    Returns:
        The container's exit code, or where it runs that of its state.
    """
    with follow.Interrupts() as interrupts:
        cluster = runs.start(engine, wanted)
        interrupts.watch(cluster)
        follower = follow.Follower(cluster)
        state = _show_start(engine, wanted, cluster)
        if state is not None:
            return CODES[state]
        now = engine.refresh(cluster)
        if now is not None and now.state != "exited":
            engine.stop(cluster)  # a restart policy would try for ever
            now = engine.refresh(cluster)
        code = now.exit_code if now else FAILED
        _tell_end(cluster, code, follower.finish())
        if asked.bundle_on_failure and now is not None and not interrupts.count:
            _save_bundle(engine, now, asked.bundle_on_failure)
        if interrupts.count and now is not None:
            runs.remove(engine, now)
        elif now is not None:
            console.tell(f"its container is kept: p8s logs --name {cluster.name}, p8s delete …")
        return code or FAILED


def _show_start(
    engine: docker_host.Engine, wanted: runs.Wanted, cluster: clusters.Cluster
) -> str | None:
    """Show the phases, then how to use the cluster; its state, or None where it ended first."""
    phases = console.make_phases(f"{cluster.name} starts")
    try:
        status = follow.await_ready(
            engine, cluster, phases.show, seconds=wanted.settings.start_timeout
        )
    finally:
        phases.close()
    if status is None:
        return None
    api = cli_options.make_client(engine, cluster)
    context = runs.add_context(engine, api, cluster)
    follow.tell_started(cluster, status, api.url, context)
    return str(status["state"])


def _tell_end(cluster: clusters.Cluster, code: int, lines: collections.abc.Sequence[str]) -> None:
    if code:
        for line in lines:
            console.warn(f"| {line}")
        console.warn(f"the cluster {cluster.name} ended with exit code {code}")
    else:
        for line in lines:
            if "] stop: " in line:  # why it stopped before it was ready: a run timeout, say
                console.tell(line)
        console.tell(f"{cluster.name} has stopped")


def _save_bundle(engine: docker_host.Engine, cluster: clusters.Cluster, file: pathlib.Path) -> None:
    from p8s_supervisor.host import bundles

    bundles.save_ended(engine, cluster, file)
    console.warn(f"what is known of it is in {file}")


def check_host(wanted: runs.Wanted) -> None:
    """What `p8s doctor` finds: what warns is told, what stops a cluster ends it here.

    Raises:
        P8sError: with each error and what mends it.
    """
    from p8s_supervisor.host import cli_doctor, doctor  # late: detached runs in scripts may skip it

    ports = [port for port in (wanted.publish_http, wanted.publish_api) if port is not None]
    ports += publishing.list_loopback(wanted.spec.ports)
    findings = doctor.check(wanted.settings, image=wanted.spec.image, ports=ports)
    doctor.refuse_errors(findings)
    cli_doctor.tell_warnings(findings)


@click.command()
@cli_options.new
@click.option("--detach", "-d", is_flag=True, help="return when the cluster is ready")
@click.option(
    "--restart",
    default="no",
    metavar="POLICY",
    show_default=True,
    callback=_check_restart,
    help="docker's restart policy, with --detach: always, unless-stopped, on-failure[:TIMES]",
)
@click.option("--rm", "throw_away", is_flag=True, help="keep no state: it goes with the container")
@click.option("--no-kubeconfig", is_flag=True, help="add no context to the kubeconfig")
@click.option(
    "--config",
    envvar="P8S_CONFIG",
    type=click.Path(exists=True, dir_okay=False, path_type=pathlib.Path),
    help=f"a YAML file of settings (default: {settings.DEFAULT_FILE}, where there is one)",
)
@click.option(
    "--bind",
    default="127.0.0.1",
    metavar="ADDRESS",
    show_default=True,
    callback=_check_address,
    help="the host's address for both APIs' ports; other than loopback needs P8S_API_TOKEN",
)
@click.option(
    "--publish-http",
    type=click.IntRange(1, 65535),
    help="the host's port for the HTTP API (default: a free one)",
)
@click.option(
    "--publish-api",
    type=click.IntRange(1, 65535),
    help="the host's port for kube-apiserver (default: a free one)",
)
@click.option(
    "--publish",
    "-p",
    multiple=True,
    metavar="[ADDRESS:]HOST:NODE[/tcp|udp]",
    callback=_check_ports,
    help="another port of the node on the host, as docker's own option: a NodePort, the ingress' or "
    "the registry's (default ADDRESS: that of --bind)",
)
@click.option("--network", default="", help="a docker network to be in")
@click.option(
    "--volume",
    "-v",
    "volumes",
    multiple=True,
    metavar="SOURCE:TARGET[:OPTIONS]",
    callback=_check_volumes,
    help="a directory or a file of the engine's host in the node, as docker's own option; pods reach "
    "it by hostPath",
)
@click.option(
    "--no-check", is_flag=True, help="do not look at the host first, as `p8s doctor` does"
)
@click.option(
    "--bundle-on-failure",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=pathlib.Path),
    help="where a cluster that fails leaves what `p8s bundle` has",
)
@click.pass_context
def run(ctx: click.Context, /, **options: typing.Any) -> None:
    """Start a cluster.

    In the foreground the command follows the cluster and ends with it: Ctrl-C stops the cluster in
    order, a second one kills it; container and context are removed, and the state is kept in the
    volume p8s-NAME for the next run. With --detach it returns when the cluster is ready, or with 3
    where the cluster runs and refuses manifests of yours; the context of one that ends by itself is
    taken out by the next `p8s list` or `p8s run`.

    Settings are options here, P8S_* variables, or keys of a YAML file, in this order.
    """
    asked = Asked(**{field.name: options.pop(field.name) for field in dataclasses.fields(Asked)})
    wanted = make_wanted(asked, options, os.environ)
    engine = docker_host.connect()
    runs.tidy_contexts(engine, engine.list_clusters())
    runs.make_room(engine, wanted.spec)  # before the look at the host: it is the likelier error
    if not asked.no_check:
        check_host(wanted)
    ctx.exit((run_detached if asked.detach else run_foreground)(engine, wanted, asked))


_add_settings(run)
