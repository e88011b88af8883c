"""One cluster for all tests that only use it; tests that end one make their own."""

from __future__ import annotations

import pathlib
import typing

import pytest

from tests.cluster import nodes


def pytest_configure(config: pytest.Config) -> None:
    """Registers the mark `turn`."""
    config.addinivalue_line(
        "markers",
        "turn(number): before all other tests (-1), or after them (1): what has to pass meanwhile "
        "is not waited for",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts tests with the mark `turn` where they want to be; no other changes its place."""

    def turn(item: pytest.Item) -> int:
        mark = item.get_closest_marker("turn")
        return int(mark.args[0]) if mark else 0

    items.sort(key=turn)


@pytest.fixture(scope="session")
def kubectl_program(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The image's kubectl: one static binary that is called by its name."""
    program = tmp_path_factory.mktemp("bin") / "kubectl"
    copy_out("/usr/local/bin/hyperkube", program)
    return program


def copy_out(path: str, target: pathlib.Path) -> None:
    """Copy a file out of the image."""
    container = nodes.docker("create", nodes.IMAGE).strip()
    try:
        nodes.docker("cp", f"{container}:{path}", str(target))
    finally:
        nodes.docker("rm", "--volumes", container)


MakeKubectl = typing.Callable[[nodes.Node], nodes.Kubectl]


@pytest.fixture(scope="session")
def make_kubectl(
    kubectl_program: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> MakeKubectl:
    """kubectl with the kubeconfig that a node hands out."""

    def make(node: nodes.Node) -> nodes.Kubectl:
        answer = node.get("/kubeconfig")
        assert answer.status_code == 200, answer.text
        file = tmp_path_factory.mktemp("kube") / "config"
        file.touch(mode=0o600)
        file.write_text(answer.text)
        return nodes.Kubectl(kubectl_program, file)

    return make


@pytest.fixture(scope="session")
def cluster() -> typing.Iterator[nodes.Node]:
    """A ready cluster with the default settings."""
    with nodes.run() as node:
        node.await_ready()
        yield node


@pytest.fixture(scope="session")
def admin(cluster: nodes.Node, make_kubectl: MakeKubectl) -> nodes.Kubectl:
    """kubectl for `cluster`, as its administrator."""
    return make_kubectl(cluster)


@pytest.fixture
def namespace(admin: nodes.Kubectl) -> typing.Iterator[str]:
    """A namespace of the test's own, also the admin's current one."""
    name = nodes.unique("test")
    admin("create", "namespace", name)
    admin("config", "set-context", "--current", f"--namespace={name}")
    yield name
    admin("delete", "namespace", name, "--wait=false")
