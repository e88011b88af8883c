"""What the documents and action.yml tell a CI job, or systemd, to do, done."""

from __future__ import annotations

import configparser
import contextlib
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import typing

import pytest
import yaml

from tests.cluster import nodes

ROOT = pathlib.Path(__file__).parents[2]
# The host's curl with its own libraries: the job's image needs no registry.
CURL = """#!/bin/sh
exec /opt/curl/loader --library-path /opt/curl /opt/curl/curl "$@"
"""
TOOLS = "FROM {image}\nCOPY curl /opt/curl\nCOPY --chmod=755 wrapper /usr/local/bin/curl\n"


def find_job(heading: str) -> dict[str, typing.Any]:
    """The first YAML example under a heading of docs/ci.md."""
    text = (ROOT / "docs" / "ci.md").read_text().partition(f"\n## {heading}\n")[2]
    found = re.search(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found
    return typing.cast("dict[str, typing.Any]", yaml.safe_load(found[1]))


@pytest.fixture
def tools(tmp_path: pathlib.Path) -> typing.Iterator[str]:
    """An image with curl and kubectl."""
    curl = shutil.which("curl")
    assert curl
    place = tmp_path / "tools" / "curl"
    place.mkdir(parents=True)
    shutil.copy(curl, place / "curl")
    linked = subprocess.run(["ldd", curl], capture_output=True, text=True, check=True).stdout
    for library in re.findall(r"(/\S+) \(0x", linked):
        shutil.copy(
            library, place / ("loader" if "/ld-" in library else pathlib.Path(library).name)
        )
    (place.parent / "wrapper").write_text(CURL)
    (place.parent / "Dockerfile").write_text(TOOLS.format(image=nodes.IMAGE))
    name = f"{nodes.unique('p8s-test')}:tools"
    nodes.docker("build", "--quiet", f"--tag={name}", str(place.parent))
    yield name
    nodes.docker("rmi", name)


@contextlib.contextmanager
def network() -> typing.Iterator[str]:
    """A docker network, as GitLab's runner makes one for each job."""
    name = nodes.unique("p8s-test")
    nodes.docker("network", "create", name)
    try:
        yield name
    finally:
        nodes.docker("network", "rm", name)


def test_gitlab_a_job_uses_the_service_by_its_name(tools: str) -> None:
    job = find_job("GitLab CI")["test"]
    (service,) = job["services"]
    variables = [f"--env={name}={text}" for name, text in job["variables"].items()]
    with network() as name:
        joined = [f"--network={name}", *variables]
        with nodes.run(options=[*joined, f"--network-alias={service['alias']}"]):
            script = "\n".join(["set -e", *job["script"]])
            shell = ["--entrypoint=sh", "--tmpfs=/var/lib/p8s", tools, "-c", script]
            told = nodes.docker("run", "--rm", *joined, *shell)
            refused = script.replace("Bearer $P8S_API_TOKEN", "Bearer another")
            with pytest.raises(AssertionError):
                nodes.docker("run", "--rm", *joined, *shell[:-1], refused)
    assert re.search(r"^p8s +Ready ", told, re.MULTILINE)


def read_variables(file: pathlib.Path) -> dict[str, str]:
    """What a step has written for those after it."""
    return dict(line.split("=", 1) for line in file.read_text().split())


@contextlib.contextmanager
def run_action(
    folder: pathlib.Path, name: str, **given: str
) -> typing.Iterator[subprocess.CompletedProcess[str]]:
    """The action's one step, with these inputs and its files in a folder: how it ended."""
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    (step,) = action["runs"]["steps"]
    given |= {"image": nodes.IMAGE, "name": name}
    given |= {"http-port": str(nodes.free_port()), "api-port": str(nodes.free_port())}
    inputs = {key: str(one["default"]) for key, one in action["inputs"].items()} | given
    own = {
        key: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: inputs[found[1]], text)
        for key, text in step["env"].items()
    }
    own |= {key: str(folder / key) for key in ("GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_PATH")}
    own["RUNNER_TEMP"] = str(folder)
    try:
        yield subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", step["run"]],
            env=os.environ | own,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    finally:
        nodes.docker("rm", "--force", "--volumes", name)


def test_github_the_action_gives_a_cluster_to_the_next_steps(tmp_path: pathlib.Path) -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    name = nodes.unique("p8s-test")
    with run_action(tmp_path, name) as done:
        assert done.returncode == 0, done.stdout + done.stderr
        exported = read_variables(tmp_path / "GITHUB_ENV")
        assert exported["P8S_NAME"] == name
        told = subprocess.run(
            ["kubectl", "get", "nodes"],
            env=os.environ | exported,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert re.search(r"^p8s +Ready ", told, re.MULTILINE)
        assert set(read_variables(tmp_path / "GITHUB_OUTPUT")) == set(action["outputs"])


def test_github_the_action_gives_up_and_says_what_is_missing(tmp_path: pathlib.Path) -> None:
    given = {"settings": "--manifests=/nowhere", "timeout": "8"}
    with run_action(tmp_path, nodes.unique("p8s-test"), **given) as done:
        assert done.returncode == 1
        assert "/nowhere: there is no such directory in the node" in done.stdout.splitlines()[-1]
        assert not (tmp_path / "GITHUB_ENV").exists()


def test_the_systemd_units_commands_start_wait_and_stop() -> None:
    text = (ROOT / "docs" / "from-pupernetes.md").read_text()
    found = re.search(r"^```ini\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found
    unit = configparser.RawConfigParser()
    unit.read_string(found[1].replace("\\\n", " "))
    name = nodes.unique("p8s-test")
    own = {
        "p8s": name,
        "p8s:latest": nodes.IMAGE,
        "--name=p8s": f"--name={name}",
        "--volume=p8s:/var/lib/p8s": f"--volume={name}:/var/lib/p8s",
        "--publish=127.0.0.1:8989:8989": "--publish=127.0.0.1::8989",
        "--publish=127.0.0.1:6443:6443": "--publish=127.0.0.1::6443",
    }

    def command(key: str) -> list[str]:
        program, *words = shlex.split(unit["Service"][key].removeprefix("-"))
        words = [own.get(word, word).replace("exec p8s", f"exec {name}") for word in words]
        return [pathlib.Path(program).name, *words]

    try:
        with subprocess.Popen(
            command("ExecStart"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as service:
            subprocess.run(
                command("ExecStartPost"), stderr=subprocess.DEVNULL, timeout=90, check=True
            )
            subprocess.run(command("ExecStop"), stdout=subprocess.DEVNULL, timeout=90, check=True)
            assert service.wait(timeout=10) == 0
        subprocess.run(command("ExecStartPre"), stdout=subprocess.DEVNULL, check=True)
    finally:
        nodes.docker("rm", "--force", "--volumes", name, check=False)
        nodes.docker("volume", "rm", name)
