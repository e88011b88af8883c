"""The `p8s` command as its users have it: a process, a terminal or a pipe, and the real engine."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import sys
import tarfile
import time
import typing

import pytest
import requests
import yaml

from p8s_supervisor import wait
from p8s_supervisor.host import clusters
from tests.cluster import host, nodes

PROGRAM = str(pathlib.Path(sys.executable).with_name("p8s"))
TOKEN = "0123456789abcdef"
USERS_OWN = (
    "apiVersion: v1\nkind: Config\ncontexts: []\nclusters: []\nusers: []\ncurrent-context: ''\n"
)


@dataclasses.dataclass(frozen=True)
class Command:
    """`p8s` with a kubeconfig of the test's own."""

    kubeconfig: pathlib.Path
    kubectl_program: pathlib.Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("P8S_")}
        return kept | {"KUBECONFIG": str(self.kubeconfig), "P8S_IMAGE": nodes.IMAGE}

    def attempt(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run it in a pipe, whatever comes of it."""
        return subprocess.run(
            [PROGRAM, *arguments],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
            check=False,
            env=self.environment | environment,
        )

    def __call__(self, *arguments: str, **environment: str) -> str:
        done = self.attempt(*arguments, **environment)
        assert done.returncode == 0, f"p8s {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def kubectl(self, *arguments: str) -> str:
        done = subprocess.run(
            [self.kubectl_program, *arguments],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            env=self.environment,
        )
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def config(self) -> typing.Any:
        return yaml.safe_load(self.kubeconfig.read_text())


@pytest.fixture(scope="module")
def p8s(
    tmp_path_factory: pytest.TempPathFactory, kubectl_program: pathlib.Path
) -> typing.Iterator[Command]:
    file = tmp_path_factory.mktemp("cli") / "config"
    file.write_text(USERS_OWN)
    file.chmod(0o640)
    yield Command(file, kubectl_program)
    assert file.read_text() == USERS_OWN, "every test leaves the kubeconfig as it was"
    assert file.stat().st_mode & 0o777 == 0o640


@contextlib.contextmanager
def named(p8s: Command) -> typing.Iterator[str]:
    """A name for a cluster that is gone at the end, whatever the test did."""
    name = nodes.unique("t")
    try:
        yield name
    finally:
        p8s.attempt("delete", name)


def list_left(*names: str) -> list[str]:
    """Containers and volumes of clusters."""
    containers = nodes.docker("ps", "--all", "--format={{.Names}}").split()
    volumes = nodes.docker("volume", "ls", "--format={{.Name}}").split()
    return [found for found in (*containers, *volumes) for name in names if name in found]


@pytest.fixture(scope="module")
def dev(p8s: Command) -> typing.Iterator[str]:
    """A detached cluster with a token, which the command finds in it, for tests that only use it."""
    with named(p8s) as name:
        given = {"P8S_VERBOSITY": "2", "P8S_API_TOKEN": TOKEN}
        p8s("run", "--detach", "--no-check", f"--name={name}", "--drain=none", **given)
        yield name


def test_two_clusters_side_by_side(p8s: Command, dev: str) -> None:
    with named(p8s) as other:
        told = p8s("run", "--detach", "--no-check", f"--name={other}")
        assert f"{other} is ready after " in told
        assert re.findall(r"^  (\w+): \d+\.\d s$", told, re.MULTILINE)[:2] == ["setup", "processes"]
        found = {entry["name"]: entry for entry in json.loads(p8s("list", "-o", "json"))}
        assert found[dev]["ready"]
        assert found[other]["ready"]
        ports = [port for name in (dev, other) for port in found[name]["ports"].values()]
        assert len(set(ports)) == 4
        assert all(port.startswith("127.0.0.1:") for port in ports)

        config = p8s.config()
        assert config["current-context"] == f"p8s-{other}"
        p8s.kubectl("create", "namespace", "here", f"--context=p8s-{other}")
        assert "here" in p8s.kubectl("get", "namespaces")
        assert "here" not in p8s.kubectl("get", "namespaces", f"--context=p8s-{dev}")

        refused = p8s.attempt("run", "--detach", f"--name={other}")
        assert refused.returncode == 1
        assert f"{other} is running already" in refused.stderr

        assert p8s("stop", f"--name={other}") == f"{other} has stopped\n"
        assert list_left(other) == [f"p8s-{other}"], "the volume is kept"
        assert p8s.config()["current-context"] == f"p8s-{dev}"
        assert re.search(rf"^{other} +stopped +no ", p8s("list"), re.MULTILINE)
        p8s("run", "--detach", "--no-check", f"--name={other}")
        assert "here" in p8s.kubectl("get", "namespaces"), "the state is taken up again"
        p8s("delete", other)
        assert list_left(other) == []
        names = [entry["name"] for entry in p8s.config()["contexts"]]
        assert names == [f"p8s-{dev}"]


def test_a_token_is_found_in_the_node(p8s: Command, dev: str) -> None:
    assert json.loads(p8s("status", f"--name={dev}", "-o", "json"))["state"] == "ready"
    assert TOKEN not in p8s("config", f"--name={dev}")
    url = f"http://{find_port(p8s, dev)}/status"
    assert requests.get(url, timeout=10).status_code == 401


def find_port(p8s: Command, name: str) -> str:
    """Where a cluster's HTTP API is published."""
    (entry,) = [one for one in json.loads(p8s("list", "-o", "json")) if one["name"] == name]
    return str(entry["ports"]["http"])


def test_where_settings_came_from(p8s: Command, dev: str) -> None:
    found = json.loads(p8s("config", f"--name={dev}", "-o", "json"))
    assert found["drain"] == {"value": "none", "source": "flag"}
    assert found["verbosity"] == {"value": "2", "source": "environment"}
    assert found["pod_cidr"]["source"] == "default"


def test_what_it_tells(p8s: Command, dev: str) -> None:
    name = f"--name={dev}"
    assert json.loads(p8s("status", name, "-o", "json"))["state"] == "ready"
    assert re.search(r"^kubelet +process +RUNNING +0$", p8s("status", name), re.MULTILINE)
    assert p8s("wait", name) == f"{dev} is ready\n"
    assert "] ready: Kubernetes" in p8s("logs", name)
    assert "etcd" in p8s("logs", name, "--list").split()
    assert len(p8s("logs", name, "etcd", "--tail=2").splitlines()) == 2
    unknown = p8s.attempt("logs", name, "nonsense")
    assert unknown.returncode == 1
    assert "etcd" in unknown.stderr
    events = [json.loads(line) for line in p8s("events", name, "-o", "json").splitlines()]
    assert {"phase", "ready"} <= {event["kind"] for event in events}
    assert json.loads(p8s("version", name, "-o", "json"))["kubernetes"].startswith("v1.")


def test_logs_are_followed_until_the_reader_has_enough(p8s: Command, dev: str) -> None:
    command = [PROGRAM, "logs", f"--name={dev}", "--follow", "kubelet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=p8s.environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)


def test_it_works_in_the_node(p8s: Command, dev: str) -> None:
    name = f"--name={dev}"
    assert p8s("exec", name, "kubectl", "get", "nodes", "-o=name") == "node/p8s\n"
    failed = p8s.attempt("exec", name, "--", "sh", "-c", "exit 7")
    assert failed.returncode == 7
    p8s.kubectl("create", "namespace", "full", f"--context=p8s-{dev}")
    p8s.kubectl("create", "configmap", "thing", "-n=full", f"--context=p8s-{dev}")
    assert "thing" in p8s("reset", name, "full")
    assert "thing" not in p8s.kubectl("get", "cm", "-n=full", f"--context=p8s-{dev}")
    assert "kube-system/coredns" in p8s("apply", name)
    refused = p8s.attempt("reset", name, "kube-system")
    assert refused.returncode == 1
    assert "hint:" in refused.stderr


def test_users_and_kubeconfigs(p8s: Command, dev: str, tmp_path: pathlib.Path) -> None:
    name, file = f"--name={dev}", tmp_path / "ann"
    p8s("user", name, "ann", "--group=dev", "--ttl=1h", "-o", str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    told = p8s.kubectl(f"--kubeconfig={file}", "auth", "whoami", "-o=json")
    assert json.loads(told)["status"]["userInfo"]["username"] == "ann"
    internal = yaml.safe_load(p8s("kubeconfig", name, "--internal"))
    server = internal["clusters"][0]["cluster"]["server"]
    assert re.fullmatch(r"https://172\.\d+\.\d+\.\d+:6443", server)
    file.write_text(json.dumps(internal))
    assert "p8s" in p8s.kubectl(f"--kubeconfig={file}", "get", "nodes"), "also from this host"


def test_a_bundle(p8s: Command, dev: str, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "bundle.tar.gz"
    p8s("bundle", f"--name={dev}", "-o", str(file))
    with tarfile.open(file) as archive:
        assert any(name.endswith("logs/etcd.log") for name in archive.getnames())


def test_a_container_that_docker_run_made(p8s: Command) -> None:
    with nodes.run("--http-port=9898", ports=(9898, 6443)) as node:
        name = f"--name={node.name}"
        assert p8s("wait", name) == f"{node.name} is ready\n"
        found = {entry["name"]: entry for entry in json.loads(p8s("list", "-o", "json"))}
        assert found[node.name]["ready"]
        p8s("stop", name)
        assert node.inspect("{{.State.ExitCode}}") == "0"


def begin(p8s: Command, name: str) -> subprocess.Popen[str]:
    """A throw-away cluster in the foreground of a pipe."""
    command = [PROGRAM, "run", "--rm", "--no-check", f"--name={name}"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=p8s.environment
    )


def test_foreground_in_a_pipe(p8s: Command) -> None:
    with named(p8s) as name:
        process = begin(p8s, name)
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "HTTP API: " in line:
                break
        assert re.fullmatch(r"  setup: \d+\.\d s\n", lines[0])
        url = lines[-1].partition("HTTP API: ")[2].rstrip(")\n")
        assert requests.get(f"{url}/ready", timeout=10).status_code == 200
        process.send_signal(signal.SIGTERM)
        rest, told = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "stop: SIGTERM" in rest
        assert rest.endswith(f"{name} has stopped\n")
        assert "\x1b" not in "".join(lines) + rest
        assert "a second signal kills" in told
        assert list_left(name) == []
        assert name not in p8s.kubeconfig.read_text()


def read_terminal(descriptor: int, *, until: str, seconds: float) -> str:
    """What a terminal shows, until some words are among it or its program has ended."""
    shown = ""
    deadline = time.monotonic() + seconds
    while until not in shown and time.monotonic() < deadline:
        if select.select([descriptor], [], [], 0.2)[0]:
            try:
                piece = os.read(descriptor, 65536)
            except OSError:  # the other side is closed
                break
            shown += piece.decode(errors="replace")
    assert until in shown, shown
    return shown


def test_foreground_on_a_terminal(p8s: Command) -> None:
    before = host.picture()
    with named(p8s) as name:
        pid, terminal = pty.fork()
        if pid == 0:
            environment = p8s.environment | {"TERM": "xterm-256color"}
            command = [PROGRAM, "run", "--rm", "--no-check", f"--name={name}"]
            os.execve(PROGRAM, command, environment)  # noqa: S606 — it needs the terminal itself
        shown = read_terminal(terminal, until="HTTP API: ", seconds=nodes.START_SECONDS)
        assert "readiness" in shown
        assert "\x1b[" in shown, "it moves on a terminal"
        assert f"context p8s-{name}" in shown
        os.write(terminal, b"\x03")  # Ctrl-C
        shown = read_terminal(terminal, until=f"{name} has stopped", seconds=nodes.STOP_SECONDS)
        assert "stop: SIGTERM" in shown
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        os.close(terminal)
        assert list_left(name) == []
    assert host.difference(before) == {}


def test_a_second_signal_kills(p8s: Command) -> None:
    with named(p8s) as name:
        process = begin(p8s, name)
        assert process.stdout is not None
        process.stdout.readline()  # the first phase has ended; the start goes on
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
        assert process.returncode in (0, 137), told  # it may have been quicker than the kill
        assert "Traceback" not in told
        assert list_left(name) == []


def test_a_signal_while_the_container_begins(p8s: Command) -> None:
    with named(p8s) as name:
        process = begin(p8s, name)
        wait.until(
            lambda: None if list_left(name) else "no container yet",
            awaited="the container",
            seconds=nodes.START_SECONDS,
            interval=0.01,
        )
        process.send_signal(signal.SIGINT)  # its first process may not look after signals yet
        rest, told = process.communicate(timeout=clusters.STOP_SECONDS / 2)
        assert process.returncode == 0, told
        assert rest.endswith(f"{name} has stopped\n")
        assert list_left(name) == []


@pytest.mark.parametrize("detach", [True, False])
def test_a_failed_start(p8s: Command, tmp_path: pathlib.Path, detach: bool) -> None:
    with named(p8s) as name:
        file = tmp_path / "bundle.tar.gz"
        failed = p8s.attempt(
            "run", "--no-check", f"--name={name}", "--start-timeout=1s",
            f"--bundle-on-failure={file}", *["--detach"] * detach,
        )  # fmt: skip
        assert failed.returncode == 1
        assert re.search(r"\| .*not within", failed.stderr), failed.stderr
        assert "ended with exit code 1" in failed.stderr
        with tarfile.open(file) as archive:
            found = archive.getnames()
        assert {"p8s-bundle/docker.log", "p8s-bundle/logs/etcd.log"} <= set(found)
        assert "p8s-bundle/status.json" in found, "what the node wrote before its end"
        if detach:
            assert "not within" in p8s("logs", f"--name={name}")
            p8s("clean", f"--name={name}", "--what=container")
        assert list_left(name) == [f"p8s-{name}"]
        p8s("clean", f"--name={name}")
        assert list_left(name) == []
        assert p8s("clean", f"--name={name}") == f"{name}: nothing to remove\n"


def test_a_run_that_ends_by_itself(p8s: Command) -> None:
    with named(p8s) as name:
        told = p8s("run", "--rm", "--no-check", f"--name={name}", "--timeout=6s")
        assert "stop: the run timeout of 6 s" in told
        assert told.endswith(f"{name} has stopped\n")
        assert list_left(name) == []


def test_contexts_of_clusters_that_ended_by_themselves(p8s: Command) -> None:
    with named(p8s) as kept, named(p8s) as thrown:
        p8s("run", "-d", "--no-check", f"--name={kept}")
        p8s("run", "-d", "--no-check", f"--name={thrown}", "--rm")
        contexts = {f"p8s-{kept}", f"p8s-{thrown}"}
        assert contexts <= {entry["name"] for entry in p8s.config()["contexts"]}
        for port in [find_port(p8s, name) for name in (kept, thrown)]:
            requests.post(f"http://{port}/stop", timeout=10).raise_for_status()
        nodes.docker("wait", f"p8s-{kept}")
        wait.until(
            lambda: f"p8s-{thrown} is there" if list_left(thrown) else None,
            awaited="the end of both",
            seconds=nodes.STOP_SECONDS,
            interval=0.2,
        )
        listed = p8s.attempt("list", "-o", "json")
        states = {entry["name"]: entry["state"] for entry in json.loads(listed.stdout)}
        assert states[kept] == "exited"
        assert thrown not in states
        assert f"{kept} has ended: its context is taken out" in listed.stderr
        assert f"p8s-{thrown} has ended: its context is taken out" in listed.stderr
        assert not contexts & {entry["name"] for entry in p8s.config()["contexts"]}


def test_setup_prepares_and_starts_nothing(p8s: Command) -> None:
    with named(p8s) as name:
        assert f"state: volume p8s-{name}" in p8s("setup", f"--name={name}")
        assert list_left(name) == [f"p8s-{name}"]
    missing = p8s.attempt("setup", "--image=p8s:nowhere")
    assert missing.returncode == 1
    assert "make image" in missing.stderr
    missing = p8s.attempt("run", "--no-check", "--image=p8s:nowhere", "--name=nowhere", "--rm")
    assert missing.returncode == 1
    assert "make image" in missing.stderr
