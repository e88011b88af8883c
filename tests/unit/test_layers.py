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
    "settings": ("origins", "overrides", "parsers", "paths", "reserved", "settings", "sources"),
    "pure": (
        "audit",
        "balanced_services",
        "catalogue",
        "component_files",
        "components",
        "dns",
        "image_stream",
        "kubeconfig",
        "limits",
        "manifests",
        "node",
        "oci",
        "pki",
        "proxies",
        "runtime",
        "seed",
    ),
    "adapters": (
        "add_on_names",
        "admission",
        "commands",
        "containers",
        "credentials",
        "endpoints",
        "etcd",
        "etcd_birth",
        "etcd_files",
        "hosts_toml",
        "inotify",
        "kube",
        "network",
        "ports",
        "probes",
        "processes",
        "ranges",
        "registries",
        "space",
        "trust",
        "virtual_addresses",
    ),
    "flows": (
        "add_on_loadbalancer",
        "add_on_record",
        "add_on_metrics",
        "add_on_removal",
        "add_on_switches",
        "add_ons",
        "applying",
        "bootstrap",
        "bundle",
        "content",
        "completion",
        "context",
        "damage",
        "etcd_mark",
        "etcd_upkeep",
        "gates",
        "health",
        "keeper",
        "logs",
        "record",
        "report",
        "reset",
        "rollout",
        "setup",
        "shutdown",
        "sweep",
        "trust_maps",
        "watcher",
        "images",
        "renewal",
        "user_images",
        "user_manifests",
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
        "host.bundles",
        "host.cli",
        "host.cli_addon",
        "host.cli_doctor",
        "host.cli_life",
        "host.cli_load",
        "host.cli_look",
        "host.cli_options",
        "host.cli_run",
        "host.cli_work",
        "host.client",
        "host.cluster_access",
        "host.clusters",
        "host.console",
        "host.contexts",
        "host.docker_host",
        "host.doctor",
        "host.doctor_facts",
        "host.follow",
        "host.image_archive",
        "host.image_push",
        "host.mounts",
        "host.publishing",
        "host.runs",
        "host.shared_cluster",
        "testing",
    ),
}
ORDER = list(LAYERS)
# What is not in the node lies in a folder of its own.
FOLDERS = ("host",)
PACKAGES = ("__init__", *(f"{folder}.__init__" for folder in FOLDERS))
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
    "subprocess": ("commands", "host.cluster_access"),
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
    """Each import as (module, name); the name is empty in `import module`.

    What is in a folder of the package has the folder in its name, as in LAYERS.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            package, _, folder = origin.partition(".")
            prefix = f"{folder}." if package == "p8s_supervisor" and folder in FOLDERS else ""
            found += [(package if prefix else origin, prefix + alias.name) for alias in node.names]
    return found


def find_violations(sources: Sources) -> list[str]:
    """What is wrong with the imports of a package: module name → source."""
    wrong = []
    for module, source in sources.items():
        if module not in PACKAGES and find_layer(module) is None:
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
    files = PACKAGE.glob("**/*.py")
    return {
        ".".join(file.relative_to(PACKAGE).with_suffix("").parts): file.read_text()
        for file in files
    }


def test_imports_go_one_way() -> None:
    assert find_violations(read_package()) == []


def test_the_node_is_flat() -> None:
    folders = {file.parent.relative_to(PACKAGE).as_posix() for file in PACKAGE.glob("**/*.py")}
    assert folders == {".", *FOLDERS}


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
            "host.cli", "from p8s_supervisor.host import console", [], id="a folder's own"
        ),
        pytest.param(
            "init",
            "from p8s_supervisor.host import client",
            ["init imports host.client: that goes the wrong way"],
            id="the node from the host",
        ),
        pytest.param(
            "host.cli",
            "from p8s_supervisor import host",
            ["host.cli imports host, which is no module: import modules"],
            id="a folder as a whole",
        ),
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
            "host.docker_host",
            "from p8s_supervisor import settings, pki",
            ["host.docker_host imports pki: that goes the wrong way"],
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
