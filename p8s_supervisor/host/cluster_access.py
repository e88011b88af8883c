"""A cluster as a test has it: docker's and kubectl's command lines, and p8s' own HTTP API."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shlex
import subprocess
import tempfile
import typing
import urllib.parse

from p8s_supervisor import errors, files, wait

# Ends a cluster that nothing else could remove.
RUN_TIMEOUT = "2h"
# The container's own limit is P8S_START_TIMEOUT; this one is for a container that hangs.
READY_SECONDS = 300.0


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
            RequestError: it refused; the message is its own.
            OSError: it could not be reached.
        """
        return ask(self.url + path, token=self.token, method=method, seconds=seconds)

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
    command: typing.Sequence[str],
    *,
    stdin: str | bytes | None = None,
    seconds: float = 120,
    pass_fds: typing.Sequence[int] = (),
) -> str:
    """Run a command and give its standard output.

    Raises:
        CommandError: it ended with a code other than 0, did not start, or took too long.
    """
    shown = shlex.join(part if "\n" not in part else "…" for part in command)
    given = stdin.encode() if isinstance(stdin, str) else stdin
    try:
        done = subprocess.run(
            command,
            input=given or b"",
            capture_output=True,
            timeout=seconds,
            pass_fds=pass_fds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise errors.CommandError(shown, code=-1, output=f"not done in {seconds:g} s") from error
    except OSError as error:
        raise errors.CommandError(shown, code=127, output=str(error)) from error
    output, told = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    if done.returncode != 0:
        raise errors.CommandError(shown, code=done.returncode, output=told or output)
    return output


def engine_host() -> str:
    """The name or address at which ports are published: the engine's own machine."""
    parts = urllib.parse.urlsplit(os.environ.get("DOCKER_HOST", ""))
    return (parts.hostname or "127.0.0.1") if parts.scheme in ("tcp", "ssh") else "127.0.0.1"


def check_image(image: str) -> None:
    """See that the engine answers and has the image, or can ask a registry for it.

    Raises:
        P8sError: it does not.
    """
    try:
        run(["docker", "version", "--format={{.Server.Version}}"], seconds=30)
    except errors.CommandError as error:
        raise errors.P8sError(
            f"no docker engine answers: {error.message}",
            hint="start one, or say by DOCKER_HOST where it is; `docker version` must work",
        ) from error
    if "/" in image:
        return  # `docker run` pulls it
    try:
        run(["docker", "image", "inspect", "--format={{.Id}}", image])
    except errors.CommandError as error:
        raise errors.P8sError(
            f"the docker engine has no image {image}",
            hint="`make image` in p8s' repository builds it; --p8s-image names another",
        ) from error


def start_command(container: str, image: str, settings: typing.Mapping[str, str]) -> list[str]:
    """The command that starts the session's cluster."""
    host = engine_host()
    given = {"run_timeout": RUN_TIMEOUT, "etcd_fsync": "never"} | dict(settings)
    address = "127.0.0.1:"
    if host != "127.0.0.1":  # the engine is elsewhere: its loopback is none of ours
        address = ""
        given["extra_sans"] = ",".join(filter(None, [given.get("extra_sans", ""), host]))
    ports = (given.get("http_port", "8989"), given.get("api_port", "6443"))
    return [
        *("docker", "run", "--detach", "--privileged", f"--name={container}"),
        f"--label=p8s.cluster={container.removeprefix('p8s-')}",
        # No number: the engine takes free ones, and two sessions are never given the same.
        *(f"--publish={address}{':' if address else ''}{port}" for port in ports),
        image,
        *(f"--{name.replace('_', '-')}={text}" for name, text in given.items()),
    ]


def find(name: str) -> str:
    """The container of a cluster: by its label, or else by the container's name.

    Raises:
        P8sError: none runs.
    """
    shown = run(["docker", "ps", f"--filter=label=p8s.cluster={name}", "--format={{.Names}}"])
    if shown.split():
        return shown.split()[0]
    try:
        run(["docker", "container", "inspect", "--format={{.Id}}", name])
    except errors.CommandError as error:
        raise errors.P8sError(
            f"no cluster and no container {name} runs", hint="`docker ps` lists what runs"
        ) from error
    return name


def connect(container: str, kubeconfig: pathlib.Path, *, seconds: float = READY_SECONDS) -> Cluster:
    """Wait until a cluster is ready and get what its users need.

    Args:
        container: the cluster's.
        kubeconfig: where an administrator's kubeconfig is written.
        seconds: how long to wait.

    Raises:
        P8sError: the container has ended (the message has the end of its log), is not ready in
            time, or publishes no port of the HTTP API or of the apiserver.
    """
    settings: dict[str, str] = json.loads(read_in(container, "/run/p8s/settings.json"))["texts"]
    host = engine_host()
    url = f"http://{host}:{find_port(container, settings['http_port'])}"
    server = f"https://{host}:{find_port(container, settings['api_port'])}"
    await_ready(container, url, seconds=seconds)
    token = read_in(container, "/run/p8s/token").strip()
    # Its certificate is to carry the name, and the port is the one that the engine took.
    config = json.loads(ask(f"{url}/kubeconfig?host={host}", token=token))
    config["clusters"][0]["cluster"]["server"] = server
    files.write(kubeconfig, json.dumps(config, indent=2), mode=0o600)
    return Cluster(container=container, url=url, token=token, kubeconfig=kubeconfig)


def read_in(container: str, path: str) -> str:
    """The text of a file that a start writes; waited for in a container that has just begun.

    Raises:
        P8sError: the container has ended.
        WaitTimeoutError: it is not there in time.
    """
    told = ""

    def look() -> str | None:
        nonlocal told
        try:
            told = run(["docker", "exec", container, "cat", path])
        except errors.CommandError as error:
            check_running(container)
            return error.message
        return None

    wait.until(look, awaited=f"{path} in {container}", seconds=30, interval=0.2)
    return told


def check_running(container: str) -> None:
    """See that a container runs.

    Raises:
        P8sError: it does not; the message has the end of its log.
    """
    state = run(["docker", "inspect", "--format={{.State.Running}} {{.State.ExitCode}}", container])
    running, code = state.split()
    if running == "true":
        return
    log = run(["sh", "-c", 'docker logs --tail 30 "$0" 2>&1', container])
    raise errors.P8sError(f"the cluster in {container} has ended with code {code}:\n{log}")


def find_port(container: str, port: str) -> int:
    """The port of the engine's machine under which a port of a container is published.

    Raises:
        P8sError: it is not published.
    """
    try:
        published = run(["docker", "port", container, f"{port}/tcp"]).split()
    except errors.CommandError as error:
        check_running(container)
        raise errors.P8sError(
            f"{container} does not publish its port {port}",
            hint=f"start it with --publish=127.0.0.1:{port}:{port}",
        ) from error
    return int(published[0].rpartition(":")[2])


def await_ready(container: str, url: str, *, seconds: float) -> None:
    """Wait until /ready is green.

    Raises:
        P8sError: the container has ended.
        WaitTimeoutError: it is not green in time.
    """

    def look() -> str | None:
        try:
            ask(f"{url}/ready", token="", seconds=5)
        except (errors.RequestError, OSError) as error:
            check_running(container)
            return str(error)
        return None

    wait.until(look, awaited=f"the cluster in {container}", seconds=seconds, interval=0.1)


def ask(url: str, *, token: str, method: str = "GET", seconds: float = 30) -> bytes:
    """Send a request to p8s' own HTTP API and give the answer's body.

    Raises:
        RequestError: it refused; the message is its own.
        OSError: it could not be reached.
    """
    import urllib.error  # late: only who asks pays for it
    import urllib.request

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, method=method, headers=headers)  # noqa: S310 — http
    # Never by a proxy: the engine's machine is near.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=seconds) as answer:
            return typing.cast("bytes", answer.read())
    except urllib.error.HTTPError as error:
        with error:
            body = error.read().decode(errors="replace")
        where = f"{method} {urllib.parse.urlsplit(url).path}"
        raise errors.RequestError(f"{where}: {error.code}: {body}", status=error.code) from error


def load(container: str, images: typing.Sequence[str]) -> None:
    """Copy images from the docker engine into a cluster.

    Raises:
        CommandError: the engine has no such image, or containerd did not take it.
    """
    save = ["docker", "save", *images]
    ctr = ["ctr", "--namespace=k8s.io", "images", "import", "-"]
    take = ["docker", "exec", "--interactive", container, *ctr]
    with (
        tempfile.TemporaryFile() as told,
        subprocess.Popen(save, stdout=subprocess.PIPE, stderr=told) as saving,
    ):
        taken = subprocess.run(take, stdin=saving.stdout, capture_output=True, check=False)
        if saving.stdout is not None:  # its end is told to a `docker save` that still writes
            saving.stdout.close()
        code = saving.wait() or taken.returncode
        told.seek(0)
        output = (told.read() + taken.stderr).decode(errors="replace")
    if code != 0:  # either's: the one fails where the other does
        command = f"{shlex.join(save)} | {shlex.join(take)}"
        raise errors.CommandError(command, code=code, output=output)
