"""`p8s doctor` on this host's engine, with a real probe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import typing

from p8s_supervisor.host import doctor_facts
from tests.cluster import nodes

COMMAND = [sys.executable, "-c", "from p8s_supervisor.host import cli; cli.main()", "doctor"]


def run_doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, f"--image={nodes.IMAGE}", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def find(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, typing.Any]]:
    return {finding["name"]: finding for finding in json.loads(done.stdout)}


def list_left() -> str:
    [(label, value)] = doctor_facts.PROBE_LABELS.items()
    return nodes.docker("ps", "--all", "--quiet", f"--filter=label={label}={value}")


def test_a_host_where_these_tests_run_can_run_p8s() -> None:
    volumes = set(nodes.docker("volume", "ls", "--quiet").split())
    started = time.monotonic()
    done = run_doctor("--output=json")
    took = time.monotonic() - started
    assert done.returncode == 0, done.stdout + done.stderr
    found = find(done)
    # What only a container tells is among it.
    assert {"engine", "cgroups", "capabilities", "inotify", "disk", "overlay", "nftables"} <= set(
        found
    )
    assert "error" not in {finding["level"] for finding in found.values()}
    assert found["nftables"]["level"] == "ok"
    assert found["image"]["message"].startswith(nodes.IMAGE)
    assert took < 2
    assert list_left() == ""
    left = set(nodes.docker("volume", "ls", "--quiet", "--filter=dangling=true").split())
    assert not left - volumes


def test_what_is_wrong_is_told_with_what_mends_it(cluster: nodes.Node) -> None:
    done = run_doctor("--output=json", f"--port={cluster.http_port}", P8S_POD_CIDR="172.16.0.0/12")
    assert done.returncode == 1
    found = find(done)
    assert found["ports"]["level"] == "error"
    assert f"{cluster.http_port} by container {cluster.name}" in found["ports"]["message"]
    assert found["ports"]["mend"]
    assert found["ranges"]["level"] == "error"
    assert "172.16.0.0/12 overlaps docker's network bridge" in found["ranges"]["message"]


def test_without_the_image_the_rest_is_told() -> None:
    done = run_doctor("--image=p8s.local/missing:1")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    assert "warning" in lines["image"]
    assert "ok" in lines["memory"]
    assert "image: " in done.stdout


def test_without_an_engine_it_says_so() -> None:
    done = run_doctor("--output=json", DOCKER_HOST="unix:///nonexistent.sock")
    assert done.returncode == 1
    assert list(find(done)) == ["engine"]
    assert "No such file" in find(done)["engine"]["message"]
