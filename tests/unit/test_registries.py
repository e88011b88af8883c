"""What users mount for registries: checked, and put where containerd and kubelet look."""

from __future__ import annotations

import base64
import json
import pathlib
import tomllib
import typing

import pytest

from p8s_supervisor import paths, registries
from tests import fakes

HELPER = (
    "; docker keeps passwords in a helper of the host, which the node cannot ask: "
    "docs/registries.md says how to write such a file"
)


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def find(root: pathlib.Path, *arguments: str) -> list[str]:
    found = registries.find_mistakes(fakes.load_settings(*arguments), paths.Paths(root))
    return [one.replace(f"{root}", "") for one in found]


def write(root: pathlib.Path, name: str, content: str) -> None:
    file = root / "etc/p8s" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def test_nothing_given_is_nothing_wrong(tmp_path: pathlib.Path) -> None:
    assert find(tmp_path) == []


def test_what_a_setting_names_must_be_there(tmp_path: pathlib.Path) -> None:
    absent = "cannot be read: No such file or directory"
    assert find(tmp_path, "--registries=/a", "--docker-config=/b", "--ca-bundle=/c") == [
        "registries: /a: not a directory in the node: mount one with hosts.toml files there",
        f"docker_config: /b: {absent}; mount docker's config.json there",
        f"ca_bundle: /c: {absent}; mount a PEM file there",
    ]


def test_a_directory_of_registries(tmp_path: pathlib.Path) -> None:
    for name in ("docker.io", "reg:5000", "other_5000_", "_default", ".git"):
        write(tmp_path, f"registries/{name}/hosts.toml", "")
    assert find(tmp_path, "--registry-mirrors=registry.example.com=https://m") == []


def test_a_wrong_directory_of_registries(tmp_path: pathlib.Path) -> None:
    for name in ("docker.io/hosts.toml", "reg_5000_/hosts.toml", "registry-1.docker.io/hosts.toml"):
        write(tmp_path, f"registries/{name}", "")
    write(tmp_path, "registries/file.org", "")
    write(tmp_path, "registries/other.org/host.toml", "")
    mirrors = "--registry-mirrors=docker.io=https://m,reg:5000=https://m,x.y=https://m"
    (tmp_path / "etc/containerd/certs.d/x.y").mkdir(parents=True)
    top, twice = "registries: /etc/p8s/registries", "which says the same: keep one of them"
    hub = "the registry of Docker Hub's images is docker.io"
    assert find(tmp_path, mirrors) == [
        f"registry_mirrors: /etc/containerd/certs.d/x.y is there, {twice}",
        f"{top}/docker.io: docker.io is in registry_mirrors too: keep one of them",
        f"{top}/file.org: not a directory: what is said of a registry is in REGISTRY/hosts.toml",
        f"{top}/other.org: neither hosts.toml nor a CA (*.crt) is in it",
        f"{top}/reg_5000_: reg:5000 is in registry_mirrors too: keep one of them",
        f"{top}/registry-1.docker.io: registry-1.docker.io: {hub}",
    ]


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param({"auth": encode("u:p:w")}, id="auth"),
        pytest.param({"auth": encode("us:p").rstrip("=")}, id="without padding"),
        pytest.param({"username": "u", "password": "p"}, id="user and password"),
    ],
)
def test_a_docker_config(tmp_path: pathlib.Path, entry: dict[str, str]) -> None:
    write(tmp_path, "docker-config.json", json.dumps({"auths": {"reg:5000": entry}}))
    assert find(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        pytest.param("{auths", "not JSON: Expecting property name", id="no JSON"),
        pytest.param("[]", f"it has no `auths` with registries{HELPER}", id="no object"),
        pytest.param('{"auths": {}}', f"it has no `auths` with registries{HELPER}", id="empty"),
        pytest.param(
            '{"auths": {"a": {}}}', f"a: it has no password{HELPER}", id="a helper has it"
        ),
        pytest.param('{"auths": {"a": 1}}', "a: not an object", id="an entry"),
        pytest.param('{"auths": {"a": {"auth": "?"}}}', "a: its `auth` is not base64", id="base64"),
        pytest.param(
            json.dumps({"auths": {"a": {"auth": encode("hunter2")}}}),
            "a: its `auth` is not USER:PASSWORD in base64",
            id="no colon",
        ),
        pytest.param(
            json.dumps({"auths": {"a": {"auth": encode("u:"), "identitytoken": "hunter2"}}}),
            "a: it has no password",
            id="a token that kubelet does not read",
        ),
    ],
)
def test_a_wrong_docker_config(tmp_path: pathlib.Path, content: str, wrong: str) -> None:
    write(tmp_path, "docker-config.json", content)
    (told,) = find(tmp_path)
    assert told.startswith(f"docker_config: /etc/p8s/docker-config.json: {wrong}")
    assert "hunter2" not in told


def test_a_directory_that_docker_made_for_a_missing_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "etc/p8s/docker-config.json").mkdir(parents=True)
    (told,) = find(tmp_path)
    assert "a directory: docker makes one where the host has no such file" in told


# --- into the node


def linked(places: paths.Paths) -> dict[str, str]:
    top = places.registry_hosts
    found = top.iterdir() if top.is_dir() else ()
    return {one.name: str(one.readlink().relative_to(places.root)) for one in found}


def test_by_default_nothing_is_written(tmp_path: pathlib.Path) -> None:
    registries.write(fakes.make_plan(tmp_path))
    assert list(tmp_path.rglob("*")) == []


def test_mirrors_and_the_users_own(tmp_path: pathlib.Path) -> None:
    auths: dict[str, typing.Any] = {
        "https://mirror:5000/v1/": {"auth": encode("u:p")},
        "other": {"auth": encode("x:y")},
    }
    write(tmp_path, "docker-config.json", json.dumps({"auths": auths}))
    write(tmp_path, "registries/registry.example.com/hosts.toml", "")
    mirrors = "docker.io=https://mirror:5000,reg:5000=http://c,docker.io=http://d"
    plan = fakes.make_plan(tmp_path, f"--registry-mirrors={mirrors}")
    registries.write(plan)
    assert linked(plan.paths) == {
        "docker.io": "run/p8s/mirrors/docker.io",
        "reg_5000_": "run/p8s/mirrors/reg_5000_",
        "registry.example.com": "etc/p8s/registries/registry.example.com",
    }
    file = plan.paths.mirrors / "docker.io/hosts.toml"
    hosts = tomllib.loads(file.read_text())["host"]
    assert list(hosts) == ["https://mirror:5000", "http://d"]
    assert hosts["https://mirror:5000"]["header"] == {"Authorization": f"Basic {encode('u:p')}"}
    assert "header" not in hosts["http://d"]
    assert file.stat().st_mode & 0o777 == 0o600
    link = plan.paths.kubelet_docker_config
    assert link.readlink() == tmp_path / "etc/p8s/docker-config.json"


def test_what_an_earlier_start_left_goes(tmp_path: pathlib.Path) -> None:
    """Its links alone: what a user has put there himself stays."""
    write(tmp_path, "docker-config.json", json.dumps({"auths": {"a": {"auth": encode("u:p")}}}))
    registries.write(fakes.make_plan(tmp_path, "--registry-mirrors=docker.io=https://m"))
    (tmp_path / "etc/p8s/docker-config.json").unlink()
    plan = fakes.make_plan(tmp_path, "--registry-mirrors=registry.example.com=https://m")
    own = plan.paths.registry_hosts / "own.org"
    own.mkdir()
    registries.write(plan)
    assert {one.name for one in plan.paths.registry_hosts.iterdir()} == {
        "registry.example.com",
        "own.org",
    }
    assert not plan.paths.kubelet_docker_config.is_symlink()


def test_secrets_are_known_to_whoever_hides_them(tmp_path: pathlib.Path) -> None:
    auths = {"a": {"auth": encode("u:hunter2")}, "b": {"username": "u", "password": "hunter3"}}
    write(tmp_path, "docker-config.json", json.dumps({"auths": auths}))
    plan = fakes.make_plan(tmp_path, "--https-proxy=http://u:hunter4@p:1")
    assert registries.list_secrets(plan) == [
        "hunter2",
        encode("u:hunter2"),
        "hunter3",
        encode("u:hunter3"),
        "hunter4",
    ]
    write(tmp_path, "docker-config.json", "{")
    assert registries.list_secrets(plan) == ["hunter4"]
