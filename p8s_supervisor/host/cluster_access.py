"""A cluster as a test has it: kubectl, and p8s' own HTTP API."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shlex
import subprocess
import typing

from p8s_supervisor import errors, files, settings, wait
from p8s_supervisor.host import cli_options, client, clusters, docker_host, runs

# Ends a cluster that nothing else could remove.
RUN_TIMEOUT = "2h"
# The container's own limit is P8S_START_TIMEOUT; this one is for a container that hangs.
READY_SECONDS = 300.0
LOG_LINES = 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """A ready cluster.

    Attributes:
        container: name of its container.
        url: p8s' own HTTP API, without a slash at the end.
        token: bearer token of that API.
        kubeconfig: an administrator's kubeconfig.
    """

    container: str
    url: str
    token: str = dataclasses.field(repr=False)
    kubeconfig: pathlib.Path

    def request(self, path: str, *, method: str = "GET", seconds: float = 30) -> bytes:
        """Ask p8s' own HTTP API.

        Raises:
            RequestError: it refused, or could not be reached (status 0).
        """
        return client.Client(self.url, token=self.token).request(method, path, seconds=seconds)

    def status(self) -> dict[str, typing.Any]:
        """What GET /status shows."""
        return typing.cast("dict[str, typing.Any]", json.loads(self.request("/status")))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kubectl:
    """kubectl for one cluster; calling it runs it.

    Attributes:
        program: the binary.
        kubeconfig: whose cluster and user.
        namespace: the namespace where none is given; empty: the kubeconfig's own.
    """

    program: str
    kubeconfig: pathlib.Path
    namespace: str = ""

    def __call__(
        self, *arguments: str, stdin: str | bytes | None = None, seconds: float = 120
    ) -> str:
        """Run it and give its standard output.

        Args:
            arguments: kubectl's.
            stdin: for `--filename=-`.
            seconds: it is killed after that long.

        Raises:
            CommandError: it ended with a code other than 0; the message has its standard error.
        """
        chosen = [f"--namespace={self.namespace}"] if self.namespace else []
        command = [self.program, f"--kubeconfig={self.kubeconfig}", *chosen, *arguments]
        return run(command, stdin=stdin, seconds=seconds)

    def get(self, *arguments: str) -> typing.Any:
        """`kubectl get … --output=json`, parsed."""
        return json.loads(self("get", *arguments, "--output=json"))

    def within(self, namespace: str) -> Kubectl:
        """The same with another namespace as the default."""
        return dataclasses.replace(self, namespace=namespace)


def run(
    command: typing.Sequence[str], *, stdin: str | bytes | None = None, seconds: float = 120
) -> str:
    """Run a command and give its standard output.

    Raises:
        CommandError: it ended with a code other than 0, did not start, or took too long.
    """
    shown = shlex.join(command)
    given = stdin.encode() if isinstance(stdin, str) else stdin
    try:
        done = subprocess.run(
            command, input=given or b"", capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise errors.CommandError(shown, code=-1, output=f"not done in {seconds:g} s") from error
    except OSError as error:
        raise errors.CommandError(shown, code=127, output=str(error)) from error
    output, told = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    if done.returncode != 0:
        raise errors.CommandError(shown, code=done.returncode, output=told or output)
    return output


def start(
    engine: docker_host.Engine, name: str, image: str, given: typing.Mapping[str, str]
) -> clusters.Cluster:
    """Start the session's cluster; its state goes with the container.

    Args:
        engine: the engine.
        name: the cluster's name.
        image: its image; pulled where the engine has none and a registry may.
        given: settings, name → text.

    Raises:
        P8sError: it cannot be started.
    """
    if "/" in image and engine.find_image(image) is None:
        engine.pull_image(image)
    texts = {"run_timeout": RUN_TIMEOUT, "etcd_fsync": "never"} | dict(given)
    flags = tuple(f"{settings.flag_name(setting)}={text}" for setting, text in texts.items())
    chosen = settings.load(["--config=/dev/null", *flags], {}).settings
    # Where the engine is elsewhere, its loopback is none of ours.
    bind = "127.0.0.1" if engine.reach("") == "127.0.0.1" else "0.0.0.0"
    spec = clusters.Spec(
        name=name,
        image=image,
        flags=flags,
        inside=(chosen.http_port, chosen.api_port),
        bind=bind,
        keeps_state=False,
    )
    names_server = "api_server" in given
    return runs.start(engine, runs.Wanted(spec=spec, settings=chosen, names_server=names_server))


def connect(
    engine: docker_host.Engine,
    cluster: clusters.Cluster,
    kubeconfig: pathlib.Path,
    *,
    seconds: float = READY_SECONDS,
) -> Cluster:
    """Wait until a cluster is ready and get what its users need.

    Args:
        engine: the engine.
        cluster: the cluster.
        kubeconfig: where an administrator's kubeconfig is written.
        seconds: how long to wait.

    Raises:
        P8sError: the container has ended (the message has the end of its log), is not ready in
            time, or publishes no port of the apiserver.
    """
    check_running(engine, cluster)
    api = cli_options.make_client(engine, cluster)

    def look() -> str | None:
        try:
            return "; ".join(f"{thing}: {why}" for thing, why in api.missing().items()) or None
        except errors.RequestError as error:
            check_running(engine, cluster)
            return error.message

    wait.until(look, awaited=f"the cluster in {cluster.container}", seconds=seconds, interval=0.1)
    token = engine.execute(cluster, "cat", "/run/p8s/token").strip()
    api = client.Client(api.url, token=token)
    inside = int(api.settings()["api_port"]["value"])
    if inside not in cluster.ports:
        raise errors.P8sError(
            f"{cluster.container} does not publish its port {inside}",
            hint=f"start it with --publish=127.0.0.1:{inside}:{inside}",
        )
    address, port = cluster.ports[inside]
    # Its certificate is to carry the name, and the port is the one that the engine took.
    files.write(kubeconfig, api.kubeconfig(f"{engine.reach(address)}:{port}"), mode=0o600)
    return Cluster(container=cluster.container, url=api.url, token=token, kubeconfig=kubeconfig)


def check_running(engine: docker_host.Engine, cluster: clusters.Cluster) -> None:
    """See that a cluster runs.

    Raises:
        P8sError: it does not; the message has the end of its log.
    """
    now = engine.refresh(cluster) or dataclasses.replace(cluster, state="removed")
    if now.is_running:
        return
    log = b"".join(engine.read_logs(cluster, tail=LOG_LINES)).decode(errors="replace")
    raise errors.P8sError(
        f"the cluster in {cluster.container} is {now.state}, with code {now.exit_code}:\n{log}"
    )
