"""docker compose, with the project's own file."""

from __future__ import annotations

import os
import pathlib
import subprocess

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


def test_up_wait_and_down_with_the_overlay_for_ci(tmp_path: pathlib.Path) -> None:
    """Without it, and what `down` keeps then, is in tests/faults/test_compose.py."""
    dependent = tmp_path / "dependent.yml"
    dependent.write_text(DEPENDENT)
    files = (ROOT / "docker-compose.yml", dependent, ROOT / "compose/ci.yml")
    project = nodes.unique("p8s-test")
    ports = http, api = nodes.free_port(), nodes.free_port()

    def run(*arguments: str) -> str:
        return compose(project, *arguments, files=files, ports=ports).stdout

    try:
        run("up", "--detach", "--wait", "p8s")
        shown = "{{range .Mounts}}{{.Name}} {{end}}"
        mounted = set(
            nodes.docker("inspect", f"--format={shown}", run("ps", "-q", "p8s").strip()).split()
        )
        assert mounted & volumes(), "its state has no name, and is a volume"
        assert requests.get(f"http://127.0.0.1:{http}/ready", timeout=5).text == "ok\n"
        kubeconfig = requests.get(f"http://127.0.0.1:{http}/kubeconfig", timeout=5).json()
        assert kubeconfig["clusters"][0]["cluster"]["server"] == f"https://127.0.0.1:{api}"
        run("up", "--detach", "dependent")
        run("wait", "dependent")
        assert "b'ok\\n'" in run("logs", "--no-log-prefix", "dependent")
        run("down", "--volumes")
        assert not mounted & volumes()
    finally:
        compose(project, "down", "--volumes", "--timeout=60", files=files, ports=ports, check=False)
