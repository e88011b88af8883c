"""The Dockerfile's stage `seed` has the modules that it needs, and is made anew for no other."""

from __future__ import annotations

import ast
import collections.abc
import pathlib
import re

import pytest

import p8s_supervisor

PACKAGE = pathlib.Path(p8s_supervisor.__file__).parent
DOCKERFILE = PACKAGE.parent / "Dockerfile"
ENTRY = "make_seed"

Sources = collections.abc.Mapping[str, str]


def read_stage(dockerfile: str, name: str) -> list[str]:
    """A stage's instructions, each on one line."""
    found: list[str] = []
    inside = False
    for line in re.sub(r"\\\n\s*", "", dockerfile).splitlines():
        if line.startswith("FROM "):
            inside = line.endswith(f" AS {name}")
        if inside and line and not line.startswith("#"):
            found.append(line)
    return found


def list_copied(instructions: list[str]) -> set[str]:
    """What is copied of the package: modules by their names, directories with their slash."""
    words = [
        word
        for line in instructions
        if line.startswith("COPY ") and "--from=" not in line
        for word in line.split()[1:-1]
    ]
    return {word.removeprefix("p8s_supervisor/").removesuffix(".py") for word in words}


def list_imports(source: str, modules: collections.abc.Container[str]) -> set[str]:
    """The modules of the package that a source imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "p8s_supervisor":
            found |= {alias.name for alias in node.names if alias.name in modules}
    return found


def find_needed(sources: Sources, entry: str) -> set[str]:
    """A module with all that it imports, transitively, and the package itself."""
    needed, left = {"__init__"}, [entry]
    while left:
        module = left.pop()
        if module not in needed:
            needed.add(module)
            left += list_imports(sources[module], sources)
    return needed


def find_differences(dockerfile: str, sources: Sources) -> list[str]:
    """What is wrong with the stage's modules."""
    copied = {name for name in list_copied(read_stage(dockerfile, "seed")) if name[-1] != "/"}
    needed = find_needed(sources, ENTRY)
    return [
        *(f"{name} is imported, but not copied" for name in sorted(needed - copied)),
        *(f"{name} is copied, but not imported" for name in sorted(copied - needed)),
    ]


def read_package() -> dict[str, str]:
    return {file.stem: file.read_text() for file in PACKAGE.glob("*.py")}


def test_the_stage_seed_copies_the_modules_that_it_imports() -> None:
    assert find_differences(DOCKERFILE.read_text(), read_package()) == []


def test_the_stage_seed_runs_the_module_that_the_check_begins_with() -> None:
    instructions = read_stage(DOCKERFILE.read_text(), "seed")
    (command,) = [line for line in instructions if line.startswith("RUN ")]
    assert f"-m p8s_supervisor.{ENTRY} " in command


def test_the_stage_seed_copies_the_system_s_manifests_and_no_other_directory() -> None:
    copied = list_copied(read_stage(DOCKERFILE.read_text(), "seed"))
    assert {name for name in copied if name[-1] == "/"} == {
        "manifests/static-pods/",
        "manifests/system/",
    }


SOURCES = {
    "__init__": "",
    "make_seed": "import json\nfrom p8s_supervisor import etcd, seed",
    "etcd": "from p8s_supervisor import errors",
    "seed": "",
    "errors": "",
    "late": "from p8s_supervisor import errors",
    "api": "",
}
COPIED = ("__init__", "errors", "etcd", "make_seed", "seed")


@pytest.mark.parametrize(
    ("changed", "copied", "wrong"),
    [
        pytest.param({}, COPIED, [], id="all is well"),
        pytest.param(
            {}, COPIED[:-1], ["seed is imported, but not copied"], id="a module that is missing"
        ),
        pytest.param(
            {},
            ("__init__", "etcd", "make_seed", "seed"),
            ["errors is imported, but not copied"],
            id="one that another imports",
        ),
        pytest.param(
            {"seed": "def load():\n    from p8s_supervisor import late"},
            COPIED,
            ["late is imported, but not copied"],
            id="a late import",
        ),
        pytest.param(
            {},
            (*COPIED, "api", "gone"),
            ["api is copied, but not imported", "gone is copied, but not imported"],
            id="modules too many",
        ),
        pytest.param(
            {}, COPIED[1:], ["__init__ is imported, but not copied"], id="the package itself"
        ),
    ],
)
def test_the_check_finds(
    changed: dict[str, str], copied: tuple[str, ...], wrong: list[str]
) -> None:
    files = " \\\n     ".join(f"p8s_supervisor/{name}.py" for name in copied)
    dockerfile = (
        "FROM os AS other\nCOPY p8s_supervisor/other.py ./\n"
        "# --- seed\nFROM os AS seed\nCOPY --from=etcd /out/usr /usr\n"
        "COPY p8s_supervisor/manifests/static-pods/ manifests/static-pods/\n"
        f"COPY p8s_supervisor/manifests/system/ manifests/system/\nCOPY {files} ./\n"
        "FROM scratch AS node\nCOPY p8s_supervisor/another.py ./\n"
    )
    assert find_differences(dockerfile, SOURCES | changed) == wrong
