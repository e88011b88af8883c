"""Large streams through kubectl arrive whole: exec, attach, port-forward, cp; and debug's containers."""

from __future__ import annotations

import collections.abc
import contextlib
import hashlib
import json
import os
import pathlib
import re
import socket
import subprocess
import threading
import typing

import pytest

from p8s_supervisor import wait
from tests.cluster import conftest, nodes, pods, talk

MIB = 1 << 20
SIZE = 64 * MIB
# What is attached to is written to the pod's log too.
ATTACHED = 16 * MIB
COPIED = 24 * MIB
SECONDS = 120.0

# Sends back what it gets, connection by connection.
ECHO = """
import socketserver
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(1 << 20):
            self.request.sendall(data)
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
Server(("", 8080), Handler).serve_forever()
"""
# Waits for its whole input, then gives it back: as text, since a log has lines.
GIVE_BACK = "import sys; data = sys.stdin.buffer.read(); sys.stdout.buffer.write(data)"


class Data(typing.NamedTuple):
    """A file of random lines."""

    file: pathlib.Path
    sha256: str


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return make_data(tmp_path_factory.mktemp("data") / "large", SIZE)


def make_data(file: pathlib.Path, size: int) -> Data:
    """No two parts of it are equal: one that is lost or comes twice is seen."""
    found, block = hashlib.sha256(), os.urandom(MIB // 2 - 64).hex().encode()
    with file.open("wb") as out:
        for number in range(size // MIB):
            part = b"%0127d\n" % number + block[: MIB - 129] + b"\n"
            assert len(part) <= MIB
            out.write(part)
            found.update(part)
    return Data(file, found.hexdigest())


@pytest.fixture(scope="module")
def kubectl(
    cluster: nodes.Node, make_kubectl: conftest.MakeKubectl
) -> typing.Iterator[nodes.Kubectl]:
    """A namespace of this module's own, with a pod to talk to."""
    found, name = make_kubectl(cluster), nodes.unique("streams")
    found("create", "namespace", name)
    found("config", "set-context", "--current", f"--namespace={name}")
    waiting = pods.pod("waiting", pods.python(GIVE_BACK), stdin=True, stdinOnce=True)
    waiting["spec"]["restartPolicy"] = "Never"
    found.apply(pods.pod("echo", pods.python(ECHO)), waiting)
    found.await_ready("pod/echo", "pod/waiting")
    yield found
    found("delete", "namespace", name, "--wait=false")


def hash_output(command: list[str], *, stdin: pathlib.Path) -> str:
    """Run a command with a file as its input, and give the SHA-256 of what it says."""
    with (
        stdin.open("rb") as source,
        subprocess.Popen(
            command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        found = hash_all(lambda: process.stdout.read1(MIB))  # type: ignore[union-attr]
        errors = process.stderr.read().decode()
    assert process.returncode == 0, errors
    return found


def hash_all(read: collections.abc.Callable[[], bytes]) -> str:
    found = hashlib.sha256()
    while part := read():
        found.update(part)
    return found.hexdigest()


def test_exec_both_ways(kubectl: nodes.Kubectl, data: Data) -> None:
    command = kubectl.command("exec", "--stdin", "echo", "--", "cat")
    assert hash_output(command, stdin=data.file) == data.sha256


def test_exec_of_a_command_that_ends_with_its_last_byte(kubectl: nodes.Kubectl) -> None:
    """Nothing of the end is lost, and the exit code comes after it."""
    script = f"import sys; sys.stdout.buffer.write(bytes({32 * MIB})); sys.exit(3)"
    with subprocess.Popen(
        kubectl.command("exec", "echo", "--", *pods.python(script)), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        got = 0
        while part := process.stdout.read1(MIB):  # type: ignore[attr-defined]
            got += len(part)
    assert (got, process.returncode) == (32 * MIB, 3)


def test_attach_both_ways(kubectl: nodes.Kubectl, tmp_path: pathlib.Path) -> None:
    sent = make_data(tmp_path / "attached", ATTACHED)
    command = kubectl.command("attach", "--stdin", "--quiet", "waiting")
    assert hash_output(command, stdin=sent.file) == sent.sha256
    kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/waiting", "--timeout=30s")


@contextlib.contextmanager
def forwarding(kubectl: nodes.Kubectl, pod: str) -> typing.Iterator[int]:
    """Yields the port of this host."""
    with subprocess.Popen(
        kubectl.command("port-forward", f"pod/{pod}", f":{talk.PORT}"),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            port = re.search(r"127\.0\.0\.1:(\d+)", line)
            assert port is not None, line
            yield int(port[1])
        finally:
            process.terminate()


def echo(port: int, file: pathlib.Path) -> str:
    """Send a file and give the SHA-256 of what comes back meanwhile."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:

        def send() -> None:
            with file.open("rb") as source:
                connection.sendfile(source)
            connection.shutdown(socket.SHUT_WR)

        sending = threading.Thread(target=send)
        sending.start()
        found = hash_all(lambda: connection.recv(MIB))
        sending.join()
    return found


def test_port_forward_both_ways(kubectl: nodes.Kubectl, data: Data) -> None:
    with forwarding(kubectl, "echo") as port:
        # A connection that is broken off does not end the others.
        with socket.create_connection(("127.0.0.1", port), timeout=10) as broken:
            broken.sendall(bytes(MIB))
        assert echo(port, data.file) == data.sha256


def list_tree(folder: pathlib.Path) -> dict[str, str]:
    """Each file below a folder, with what is in it."""
    found = {}
    for entry in sorted(folder.rglob("*")):
        if entry.is_file():
            found[str(entry.relative_to(folder))] = hashlib.sha256(entry.read_bytes()).hexdigest()
    return found


def test_cp_there_and_back(kubectl: nodes.Kubectl, tmp_path: pathlib.Path) -> None:
    here, back = tmp_path / "here", tmp_path / "back"
    (here / "inner folder").mkdir(parents=True)
    make_data(here / "large", COPIED)
    (here / "empty").touch()
    (here / "inner folder" / "ünï.sh").write_text("#!/bin/sh\n")
    (here / "inner folder" / "ünï.sh").chmod(0o755)
    kubectl("cp", str(here), "echo:/tmp/there", seconds=SECONDS)
    kubectl("exec", "echo", "--", "test", "-x", "/tmp/there/inner folder/ünï.sh")
    kubectl("cp", "echo:/tmp/there", str(back), seconds=SECONDS)
    assert len(list_tree(here)) == 3
    assert list_tree(back) == list_tree(here)


# --- debug


def debug(
    kubectl: nodes.Kubectl, folder: pathlib.Path, *arguments: str, volume: dict[str, str]
) -> None:
    """`kubectl debug` with the node's image, whose /usr is a volume of the pod."""
    custom = folder / "custom.json"
    custom.write_text(json.dumps({"volumeMounts": [volume | {"mountPath": "/usr"}]}))
    kubectl("debug", "--image=p8s.local/node:1", f"--custom={custom}", "--quiet", *arguments)


def await_log(kubectl: nodes.Kubectl, pod: str, container: str, ending: str) -> str:
    """What a container has said once a line of it is the ending."""
    said: list[str] = []

    def look() -> str | None:
        done = kubectl.attempt("logs", pod, f"--container={container}")
        said.append(done.stdout)
        return None if ending in done.stdout.splitlines() else done.stdout + done.stderr

    wait.until(look, awaited=f"the log of {container}", seconds=30, interval=0.2)
    return said[-1]


def test_debug_in_a_pod_that_runs(kubectl: nodes.Kubectl, tmp_path: pathlib.Path) -> None:
    """An ephemeral container sees the processes of the container that it is for."""
    debug(
        *(kubectl, tmp_path, "echo", "--container=looker", "--target=main", "--"),
        *("sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline; echo; ls /proc/1/root/tmp; echo end"),
        volume={"name": "usr"},
    )
    said = await_log(kubectl, "echo", "looker", "end")
    assert "import socketserver" in said, "process 1 is the target's"
    [main] = kubectl.get("pod", "echo")["status"]["containerStatuses"]
    assert (main["ready"], main["restartCount"]) == (True, 0)


def test_debug_of_the_node(kubectl: nodes.Kubectl, tmp_path: pathlib.Path) -> None:
    """A pod in the node's namespaces, with its files at /host."""
    debug(
        *(kubectl, tmp_path, "node/p8s", "--profile=sysadmin", "--"),
        *(
            "chroot",
            "/host",
            "sh",
            "-c",
            "cat /proc/1/comm /etc/kubernetes/kubelet.yaml; echo; echo end",
        ),
        volume={"name": "host-root", "subPath": "usr"},
    )
    names = kubectl("get", "pods", "--output=name").split()
    [made] = [name for name in names if name.startswith("pod/node-debugger-p8s-")]
    said = await_log(kubectl, made, "debugger", "end")
    assert '"kind": "KubeletConfiguration"' in said
    kubectl("delete", made, "--grace-period=1", "--wait=false")


def test_debug_of_a_copy(kubectl: nodes.Kubectl) -> None:
    kubectl(
        *("debug", "echo", "--copy-to=copy", "--same-node", "--container=main", "--quiet"),
        *("--", "sh", "-c", "echo another command; echo end; sleep 60"),
    )
    assert "another command" in await_log(kubectl, "copy", "main", "end")
    [main] = kubectl.get("pod", "echo")["status"]["containerStatuses"]
    assert main["restartCount"] == 0
