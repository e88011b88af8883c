"""House style that no linter knows."""

from __future__ import annotations

import ast
import pathlib

import pytest

import p8s_supervisor

PACKAGE = pathlib.Path(p8s_supervisor.__file__).parent
MODULES = sorted(PACKAGE.glob("**/*.py"))
LONGEST = 400


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.stem)
def test_a_module_says_what_it_is_for(file: pathlib.Path) -> None:
    docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
    assert len(docstring.splitlines()[0]) > 20


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.stem)
def test_a_module_can_be_read_in_one_sitting(file: pathlib.Path) -> None:
    assert len(file.read_text().splitlines()) <= LONGEST


def test_the_tables_above_are_not_empty() -> None:
    assert {"errors", "sidecar"} <= {file.stem for file in MODULES}
