"""The pytest plugin as a project uses it: examples/pytest in a pytest of its own."""

from __future__ import annotations

import io
import os
import pathlib
import signal
import subprocess
import sys
import tarfile

import pytest

from p8s_supervisor import wait
from tests.cluster import nodes

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "pytest"
FILTER = "--filter=label=p8s.cluster"


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> pathlib.Path:
    """Where sessions have their directories."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("P8S_IMAGE", nodes.IMAGE)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.delenv("P8S_NAME", raising=False)
    for name in list(os.environ):
        if name.startswith("PYTEST_XDIST"):
            monkeypatch.delenv(name)
    return tmp_path


def command(*arguments: str) -> list[str]:
    """A pytest that knows nothing of this repository's configuration."""
    own = ("--config-file=/dev/null", "-pno:cacheprovider", "-Werror", "-v")
    return [sys.executable, "-mpytest", *own, *arguments]


def run(*arguments: str) -> str:
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=200, check=False
    )
    return done.stdout + done.stderr


def clusters() -> set[str]:
    """Containers that sessions have started."""
    names = nodes.docker("ps", "--all", FILTER, "--format={{.Names}}").split()
    return {name for name in names if name.startswith("p8s-pytest-")}


def engine_time() -> str:
    """Now, by the engine's clock."""
    return nodes.docker("info", "--format={{.SystemTime}}").strip()


def list_events(since: str, *filters: str, shown: str) -> list[list[str]]:
    """Events of the engine since a moment of its clock, each as the words of a template."""
    lines = nodes.docker(
        "events",
        f"--since={since}",
        f"--until={engine_time()}",
        *(f"--filter={one}" for one in filters),
        f"--format={shown}",
    )
    return [line.split() for line in lines.splitlines()]


def list_started(since: str) -> list[list[str]]:
    """Id and name of the containers that sessions have started."""
    filters = ("event=create", "label=p8s.cluster")
    found = list_events(since, *filters, shown="{{.Actor.ID}} {{.Actor.Attributes.name}}")
    return [one for one in found if one[1].startswith("p8s-pytest-")]


def list_volumes(since: str, container: str) -> set[str]:
    """Volumes that a container has mounted."""
    shown = "{{.Actor.Attributes.container}} {{.Actor.ID}}"
    found = list_events(since, "type=volume", "event=mount", shown=shown)
    return {volume for by, volume in found if by == container}


def import_image(name: str) -> None:
    """An image of one small layer, made without a registry."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
    command = ["docker", "import", "-", name]
    subprocess.run(command, input=layer.getvalue(), capture_output=True, check=True)


def test_the_example_passes_on_one_cluster_and_leaves_nothing(sessions: pathlib.Path) -> None:
    """With workers, who share it; one process is the first case of the next test."""
    since, before = engine_time(), clusters()
    told = run(str(EXAMPLE), "-n2")
    assert "4 passed" in told, told
    ((container, _),) = list_started(since)
    (volume,) = list_volumes(since, container)
    assert clusters() == before
    assert volume not in nodes.docker("volume", "ls", "--quiet").split()
    assert list(sessions.glob("p8s-pytest-*")) == []


@pytest.mark.parametrize(
    ("workers", "kill"),
    [
        pytest.param([], signal.SIGINT, id="Ctrl-C"),
        pytest.param(["-n1"], signal.SIGKILL, id="killed"),
    ],
)
def test_an_interrupted_session_leaves_nothing(
    sessions: pathlib.Path, tmp_path: pathlib.Path, workers: list[str], kill: signal.Signals
) -> None:
    before = clusters()
    test = tmp_path / "test_long.py"
    test.write_text("import time\ndef test_it(p8s_namespace): time.sleep(120)")
    with subprocess.Popen(
        command(str(test), *workers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        wait.until(
            lambda: None if clusters() - before else "no container", awaited="a start", seconds=60
        )
        process.send_signal(kill)

    def look() -> str | None:
        left = [*(clusters() - before), *sessions.glob("p8s-pytest-*")]
        return f"{left} are there" if left else None

    wait.until(look, awaited="the removal", seconds=60, interval=0.2)


def test_an_existing_cluster_is_used_and_left(cluster: nodes.Node, sessions: pathlib.Path) -> None:
    before = clusters()
    told = run(str(EXAMPLE), f"--p8s-name={cluster.name}")
    assert "4 passed" in told, told
    assert clusters() == before
    assert cluster.get("/ready").status_code == 200
    assert list(sessions.glob("p8s-pytest-*")) == []


def test_images_are_loaded_and_a_failure_leaves_a_bundle(
    cluster: nodes.Node, sessions: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    image = f"{nodes.unique('p8s-test')}:1"
    import_image(image)
    test = tmp_path / "test_load.py"
    test.write_text(
        f"""
def test_it(p8s_load_images, p8s_kubectl, p8s_namespace):
    p8s_load_images("{image}")
    p8s_kubectl.within(p8s_namespace)("run", "it", "--image={image}", "--image-pull-policy=Never")
    assert not p8s_namespace
"""
    )
    found = tmp_path / "found"
    try:
        told = run(str(test), f"--p8s-name={cluster.name}", f"--p8s-bundle-on-failure={found}")
    finally:
        nodes.docker("rmi", image)
    assert "1 failed" in told, told
    listed = cluster.execute("ctr", "--namespace=k8s.io", "images", "ls", "--quiet")
    assert f"docker.io/library/{image}" in listed
    (bundle,) = found.iterdir()
    with tarfile.open(bundle) as archive:
        assert archive.getnames()
    assert list(sessions.glob("p8s-pytest-*")) == []
