"""Which module may import which, read from the sources with ast."""

from __future__ import annotations

import ast
import collections.abc
import pathlib

import pytest

import p8s_supervisor

PACKAGE = pathlib.Path(p8s_supervisor.__file__).parent
# Each layer imports only from those above it, and from itself where it is in SIDEWAYS.
LAYERS = {
    "leaves": ("errors", "events", "files", "status", "wait"),
    "settings": ("parsers", "paths", "settings"),
    "pure": (
        "audit",
        "components",
        "dns",
        "image_stream",
        "kubeconfig",
        "manifests",
        "node",
        "oci",
        "pki",
        "runtime",
        "seed",
    ),
    "adapters": (
        "commands",
        "containers",
        "credentials",
        "etcd",
        "kube",
        "network",
        "ports",
        "probes",
        "processes",
    ),
    "flows": (
        "bootstrap",
        "bundle",
        "content",
        "context",
        "gates",
        "health",
        "logs",
        "record",
        "report",
        "reset",
        "setup",
        "shutdown",
        "sweep",
        "watcher",
        "images",
        "renewal",
        "users",
    ),
    "edges": (
        "access",
        "answers",
        "api",
        "init",
        "make_seed",
        "openapi",
        "routes",
        "server",
        "sidecar",
    ),
    # Not in the node: the command on the host needs neither Flask nor cryptography.
    "host": (
        "cli",
        "cli_doctor",
        "cli_life",
        "cli_load",
        "cluster_access",
        "cli_look",
        "cli_options",
        "cli_run",
        "cli_work",
        "client",
        "console",
        "docker_host",
        "doctor",
        "doctor_facts",
        "host_bundle",
        "host_cluster",
        "host_kubeconfig",
        "host_run",
        "image_archive",
        "shared_cluster",
        "testing",
    ),
}
ORDER = list(LAYERS)
SIDEWAYS = ("leaves", "settings", "pure", "adapters", "flows", "host")
# Narrower than the layer says. The composition root alone puts the edges together.
NARROWER: dict[str, tuple[str, ...]] = {
    "__init__": (),
    "access": LAYERS["leaves"],
    "openapi": LAYERS["leaves"],
    "answers": LAYERS["leaves"],
    "api": (*LAYERS["leaves"], "access", "answers", "openapi"),
    "routes": (*LAYERS["leaves"], "access", "answers", "api", "openapi"),
    "server": (*LAYERS["leaves"], "access"),
    "sidecar": tuple(
        name
        for layer in ORDER
        if layer != "host"
        for name in LAYERS[layer]
        if name not in ("init", "make_seed")
    ),
    **dict.fromkeys(LAYERS["host"], (*LAYERS["leaves"], *LAYERS["settings"], *LAYERS["host"])),
}
# Imported only by these.
DOORS = {
    "subprocess": ("commands", "cluster_access"),
    "flask": ("answers", "api", "routes", "server"),
}

Sources = collections.abc.Mapping[str, str]


def find_layer(module: str) -> str | None:
    return next((layer for layer, modules in LAYERS.items() if module in modules), None)


def find_allowed(module: str) -> tuple[str, ...]:
    """The modules of the package that a module may import."""
    if module in NARROWER:
        return NARROWER[module]
    own = find_layer(module)
    assert own is not None
    above = ORDER[: ORDER.index(own) + (own in SIDEWAYS)]
    return tuple(name for layer in above for name in LAYERS[layer])


def list_imports(source: str) -> list[tuple[str, str]]:
    """Each import as (module, name); the name is empty in `import module`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            found += [(origin, alias.name) for alias in node.names]
    return found


def find_violations(sources: Sources) -> list[str]:
    """What is wrong with the imports of a package: module name → source."""
    wrong = []
    for module, source in sources.items():
        if module != "__init__" and find_layer(module) is None:
            wrong.append(f"{module} is in no layer: add it to LAYERS")
            continue
        for origin, name in list_imports(source):
            top, _, inner = origin.partition(".")
            if top in DOORS and module not in DOORS[top]:
                wrong.append(f"{module} imports {top}: that is for {', '.join(DOORS[top])}")
            if top == "":
                wrong.append(f"{module} imports {origin}{name}: write it from p8s_supervisor on")
            if top != "p8s_supervisor":
                continue
            if inner or not name:
                wrong.append(f"{module} imports {name or origin} from {origin}: import modules")
            elif name not in sources:
                wrong.append(f"{module} imports {name}, which is no module: import modules")
            elif name not in find_allowed(module):
                wrong.append(f"{module} imports {name}: that goes the wrong way")
    return wrong


def read_package() -> dict[str, str]:
    return {file.stem: file.read_text() for file in PACKAGE.glob("**/*.py")}


def test_imports_go_one_way() -> None:
    assert find_violations(read_package()) == []


def test_the_package_is_flat() -> None:
    assert [file for file in PACKAGE.glob("**/*.py") if file.parent != PACKAGE] == []


def test_no_module_is_in_two_layers() -> None:
    modules = [name for layer in LAYERS.values() for name in layer]
    assert sorted(modules) == sorted(set(modules))


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        pytest.param("health", "from p8s_supervisor import probes", [], id="the layer above"),
        pytest.param("health", "from p8s_supervisor import context", [], id="the same layer"),
        pytest.param("sidecar", "from p8s_supervisor import api", [], id="the composition root"),
        pytest.param("commands", "import subprocess", [], id="the door"),
        pytest.param(
            "pki",
            "from p8s_supervisor import bootstrap",
            ["pki imports bootstrap: that goes the wrong way"],
            id="a flow from below",
        ),
        pytest.param(
            "pki",
            "def late():\n    from p8s_supervisor import kube",
            ["pki imports kube: that goes the wrong way"],
            id="a late import",
        ),
        pytest.param(
            "api",
            "from p8s_supervisor import health, errors",
            ["api imports health: that goes the wrong way"],
            id="the API imports no flow",
        ),
        pytest.param(
            "api",
            "from p8s_supervisor import settings",
            ["api imports settings: that goes the wrong way"],
            id="the API imports leaves alone",
        ),
        pytest.param(
            "init",
            "from p8s_supervisor import sidecar",
            ["init imports sidecar: that goes the wrong way"],
            id="an edge from an edge",
        ),
        pytest.param(
            "docker_host",
            "from p8s_supervisor import settings, pki",
            ["docker_host imports pki: that goes the wrong way"],
            id="the host needs no cryptography",
        ),
        pytest.param(
            "probes",
            "import subprocess",
            [f"probes imports subprocess: that is for {', '.join(DOORS['subprocess'])}"],
            id="another door",
        ),
        pytest.param(
            "probes",
            "from subprocess import run",
            [f"probes imports subprocess: that is for {', '.join(DOORS['subprocess'])}"],
            id="another door, by a name",
        ),
        pytest.param(
            "health",
            "from p8s_supervisor.probes import node",
            ["health imports node from p8s_supervisor.probes: import modules"],
            id="an object of a module",
        ),
        pytest.param(
            "health",
            "import p8s_supervisor.probes",
            ["health imports p8s_supervisor.probes from p8s_supervisor.probes: import modules"],
            id="a dotted module",
        ),
        pytest.param(
            "health",
            "from p8s_supervisor import __version__",
            ["health imports __version__, which is no module: import modules"],
            id="an object of the package",
        ),
        pytest.param(
            "health",
            "from . import probes",
            ["health imports .probes: write it from p8s_supervisor on"],
            id="a relative import",
        ),
        pytest.param(
            "brand_new", "", ["brand_new is in no layer: add it to LAYERS"], id="a new module"
        ),
    ],
)
def test_the_check_finds(module: str, source: str, wrong: list[str]) -> None:
    others = dict.fromkeys((name for layer in LAYERS.values() for name in layer), "")
    assert find_violations(others | {module: source}) == wrong
