"""However a cluster ends, the host is as it was: nothing is left but what the user asked to keep."""

from __future__ import annotations

import collections.abc
import contextlib
import os
import pathlib
import subprocess
import sys
import time

import pytest

from p8s_supervisor import kube
from tests.bench import workloads
from tests.cluster import host, nodes, pods
from tests.faults import measure

PROGRAM = str(pathlib.Path(sys.executable).with_name("p8s"))
# The line of the story with which each phase of the start begins.
BEGINNINGS = {
    "setup": "starts in",
    "processes": "setup: done in",
    "apiserver": "processes: done in",
    "controllers": "apiserver: done in",
    "manifests": "controllers: done in",
    "readiness": "manifests: done in",
}
# In the node, without ps: by the command line, which the shell's own does not match.
KILL_SIDECAR = """
for process in /proc/[0-9]*; do
  if tr '\\0' ' ' < $process/cmdline 2>/dev/null | grep -q -- '-m [p]8s_supervisor.sidecar'; then
    kill -KILL ${process#/proc/}
  fi
done
"""


def await_phase(node: nodes.Node, phase: str, since: float) -> None:
    """Follow the story until a phase begins.

    Args:
        node: a container that starts.
        phase: which.
        since: only lines after this moment count, in seconds since the epoch.
    """
    follow = ["docker", "logs", "--follow", f"--since={since:.6f}", node.name]
    with subprocess.Popen(
        follow, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as followed:
        assert followed.stdout is not None
        told = []
        for line in followed.stdout:
            told.append(line)
            if BEGINNINGS[phase] in line:
                followed.kill()
                return
    raise AssertionError(f"{phase} never began:\n{''.join(told)}")


def test_killed_in_phases_of_the_start() -> None:
    """PID 1 and with it everything; then the same container goes on with a later phase."""
    before = host.picture()
    since = time.time()
    phases = list(BEGINNINGS) if measure.ROUNDS > 1 else ["processes", "controllers", "readiness"]
    with nodes.run() as node:
        kept = host.marks_at_rest(node)
        for number, phase in enumerate(phases * measure.ROUNDS):
            if number:
                since = time.time()
                nodes.docker("start", node.name)
            await_phase(node, phase, since)
            nodes.docker("kill", "--signal=KILL", node.name)
            assert host.difference(before, kept=kept) == {}, phase
        nodes.docker("start", node.name)
        node.await_ready()
        nodes.docker("kill", "--signal=KILL", node.name)
    assert host.difference(before) == {}


@pytest.mark.parametrize("phase", list(BEGINNINGS) if measure.ROUNDS > 1 else ["apiserver"])
def test_the_sidecar_killed_in_a_phase_of_the_start(phase: str) -> None:
    """It goes on, or the container ends and says why; nothing is left either way."""
    before = host.picture()
    since = time.time()
    with nodes.run() as node:
        await_phase(node, phase, since)
        node.execute("sh", "-c", KILL_SIDECAR)
        try:
            node.await_ready()
        except AssertionError:
            assert not node.is_running(), node.logs()
            assert node.wait() != 0, node.logs()
            assert "the start failed: " in node.logs()
    assert host.difference(before) == {}


def test_a_volume_is_kept_and_nothing_else() -> None:
    """After a start that failed, a kill with workloads, and an ordinary end."""
    before = host.picture()
    volume = nodes.unique("p8s-test")
    options = [f"--volume={volume}:/var/lib/p8s"]
    try:
        with nodes.run("--start-timeout=1s", options=options) as node:
            assert node.wait() == 1
        assert host.difference(before, kept={volume}) == {}
        with nodes.run(options=options) as node:
            node.await_ready()
            with workloads.connect(node.get("/kubeconfig").text) as client:
                web = pods.web_pod("web", ports=[{"containerPort": 8080, "hostPort": 18080}])
                client.request("POST", "/api/v1/namespaces/default/pods", body=web)
                await_running(client, "web")
            nodes.docker("kill", "--signal=KILL", node.name)
        assert host.difference(before, kept={volume}) == {}
    finally:
        nodes.docker("volume", "rm", "--force", volume)
    assert host.difference(before) == {}


# In the node: a process in a cgroup of which neither containerd nor kubelet knows. Were its name pod..., kubelet
# would end it in its next round, within two seconds.
STAY = """
for pods in /sys/fs/cgroup/kubepods /sys/fs/cgroup/*/kubepods; do
  [ -d $pods ] || continue
  mkdir $pods/burstable/made
  echo $$ >$pods/burstable/made/cgroup.procs
done
exec sleep 300
"""
# The hierarchies are gone through in turn: the last one has it once sleep runs.
AWAIT_STAY = "until grep -qx sleep /proc/[0-9]*/comm; do sleep 0.1; done"


def test_a_container_in_the_making_does_not_keep_its_cgroups() -> None:
    before = host.picture()
    with nodes.run() as node:
        node.await_ready()
        nodes.docker("exec", "--detach", node.name, "sh", "-c", STAY)
        node.execute("sh", "-c", AWAIT_STAY)
        node.post("/stop").raise_for_status()
        assert node.wait() == 0
        assert "is left" not in node.logs()
    assert host.difference(before) == {}


def await_running(client: kube.Client, name: str) -> None:
    """Wait until a pod of the namespace `default` is Running."""
    deadline = time.monotonic() + 60
    while (pod := client.get(f"/api/v1/namespaces/default/pods/{name}"))["status"].get(
        "phase"
    ) != "Running":
        assert time.monotonic() < deadline, pod["status"]
        time.sleep(0.1)


@contextlib.contextmanager
def command(directory: pathlib.Path) -> collections.abc.Iterator[dict[str, str]]:
    """The environment of `p8s` whose every file is in a directory, which is empty in the end."""
    for name in ("home", "tmp"):
        (directory / name).mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("P8S_")}
    yield kept | {
        "HOME": str(directory / "home"),
        "TMPDIR": str(directory / "tmp"),
        "KUBECONFIG": str(directory / "home/config"),
        "P8S_IMAGE": nodes.IMAGE,
    }
    assert list((directory / "tmp").iterdir()) == []


def test_the_command_cleans(tmp_path: pathlib.Path) -> None:
    """What a kill leaves; `p8s delete` of a running cluster is in test_cli.py."""
    before = host.picture()
    name = nodes.unique("t")
    with command(tmp_path) as environment:

        def run(*arguments: str) -> None:
            done = subprocess.run(
                [PROGRAM, *arguments],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
            assert done.returncode == 0, f"p8s {arguments}: {done.stdout}{done.stderr}"

        try:
            run("run", "--detach", "--no-check", f"--name={name}")
            nodes.docker("kill", "--signal=KILL", f"p8s-{name}")
            run("clean", f"--name={name}")
            assert host.difference(before) == {}
        finally:
            nodes.docker("rm", "--force", "--volumes", f"p8s-{name}", check=False)
            nodes.docker("volume", "rm", "--force", f"p8s-{name}", check=False)
    files = [str(file) for file in (tmp_path / "home").rglob("*") if file.is_file()]
    assert all(name not in pathlib.Path(file).read_text() for file in files), files
