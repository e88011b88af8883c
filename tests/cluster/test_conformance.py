"""The quick and telling ones of Kubernetes' own conformance tests; `make conformance` runs them all."""

from __future__ import annotations

import pathlib

import pytest

from tests.cluster import nodes
from tests.conformance import images, suite

PROCESSES = 4


def test_quick_conformance_tests_pass(tmp_path: pathlib.Path) -> None:
    version = images.read_version()
    if not images.is_built(version):
        pytest.skip(
            "Kubernetes' tests are not built, which takes some 15 minutes once: "
            "make conformance-images"
        )
    wanted = images.list_images(version)
    with nodes.run() as node:
        node.await_ready()
        images.load(node, wanted)
        with (
            images.run_registry(node, version, wanted),
            suite.attach(node, version, log=tmp_path / "e2e.log") as attached,
        ):
            chosen = suite.choose_short(suite.list_tests(version))
            found = attached.run(chosen, processes=PROCESSES, minutes=4)
    missing = [test for test in chosen if test not in found]
    assert missing == [], (tmp_path / "e2e.log").read_text()[-3000:]
    assert {name: each for name, each in found.items() if each.state != "passed"} == {}
