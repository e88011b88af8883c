"""docker compose, with the project's own file."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest
import requests

from tests.cluster import nodes

ROOT = pathlib.Path(__file__).parents[2]

# What depends on the cluster starts when it is healthy, and not before.
DEPENDENT = """
services:
  dependent:
    image: ${P8S_IMAGE}
    entrypoint: [python3, -c, "import urllib.request as r; print(r.urlopen('http://p8s:${P8S_HTTP_PORT}/ready').read())"]
    tmpfs: [/var/lib/p8s]
    depends_on:
      p8s:
        condition: service_healthy
"""


def compose(
    project: str,
    *arguments: str,
    files: tuple[pathlib.Path, ...],
    ports: tuple[int, int],
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "COMPOSE_PROJECT_NAME": project,
        "P8S_IMAGE": nodes.IMAGE,
        "P8S_HTTP_PORT": str(ports[0]),
        "P8S_API_PORT": str(ports[1]),
    }
    named = [f"--file={file}" for file in files]
    return subprocess.run(
        ["docker", "compose", *named, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=check,
        timeout=180,
    )


def volumes() -> set[str]:
    return set(nodes.docker("volume", "ls", "--quiet").split())


@pytest.mark.parametrize("overlay", [None, "ci.yml"], ids=["default", "ci"])
def test_up_wait_and_down(tmp_path: pathlib.Path, overlay: str | None) -> None:
    dependent = tmp_path / "dependent.yml"
    dependent.write_text(DEPENDENT)
    files: tuple[pathlib.Path, ...] = (ROOT / "docker-compose.yml", dependent)
    if overlay:
        files = (*files, ROOT / "compose" / overlay)
    project = nodes.unique("p8s-test")
    ports = http, api = nodes.free_port(), nodes.free_port()

    def run(*arguments: str) -> str:
        return compose(project, *arguments, files=files, ports=ports).stdout

    before = volumes()
    try:
        run("up", "--detach", "--wait", "p8s")
        assert requests.get(f"http://127.0.0.1:{http}/ready", timeout=5).text == "ok\n"
        kubeconfig = requests.get(f"http://127.0.0.1:{http}/kubeconfig", timeout=5).json()
        assert kubeconfig["clusters"][0]["cluster"]["server"] == f"https://127.0.0.1:{api}"
        run("up", "--detach", "dependent")
        run("wait", "dependent")
        assert "b'ok\\n'" in run("logs", "--no-log-prefix", "dependent")
        run("down", *(["--volumes"] if overlay else []))
        assert volumes() - before == (set() if overlay else {f"{project}_state"})
    finally:
        compose(project, "down", "--volumes", "--timeout=60", files=files, ports=ports, check=False)
