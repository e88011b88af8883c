"""Paths: all under one root, and those that must survive a restart in the state volume."""

from __future__ import annotations

import pathlib

import pytest

from p8s_supervisor import paths

NAMES = sorted(name for name, value in vars(paths.Paths).items() if isinstance(value, property))


@pytest.mark.parametrize("name", NAMES)
def test_every_path_is_under_the_root(name: str) -> None:
    found: pathlib.Path = getattr(paths.Paths(pathlib.Path("/some/root")), name)
    assert found.is_relative_to("/some/root/")
    assert found != pathlib.Path("/some/root")
    in_node: pathlib.Path = getattr(paths.Paths(), name)
    assert in_node == pathlib.Path("/") / found.relative_to("/some/root")


@pytest.mark.parametrize(
    ("parent", "names"),
    [
        pytest.param(
            "/var/lib/p8s",
            {
                "state",
                "add_on_record",
                "cluster_record",
                "authorities",
                "api_names",
                "etcd_data",
                "etcd_mark",
                "containerd_root",
                "kubelet_state",
                "loaded_images",
            },
            id="the state volume",
        ),
        pytest.param(
            "/run/p8s",
            {
                "run",
                "commands",
                "supervisor_socket",
                "settings",
                "token",
                "http_address",
                "ready",
                "exit_code",
                "resolv_conf",
                "new_volume",
                "stopping",
                "seen_processes",
                "given_files",
                "mirrors",
                "container_spec",
            },
            id="gone after a restart",
        ),
    ],
)
def test_what_lives_where(parent: str, names: set[str]) -> None:
    places = paths.Paths()
    found = {name for name in NAMES if getattr(places, name).is_relative_to(parent)}
    assert found == names
