"""The minors of Kubernetes: a directory each, the newest of them the default everywhere."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess

import pytest

from p8s_supervisor import catalogue

ROOT = pathlib.Path(__file__).parents[2]
DIRECTORY = ROOT / "image/components/kubernetes"
MINORS = sorted(
    (found.name for found in DIRECTORY.glob("[0-9]*")), key=lambda name: int(name.partition(".")[2])
)


def test_three_minors_in_a_row_are_there() -> None:
    """A volume goes up one minor at a time: none in between may be missing."""
    numbers = [int(minor.removeprefix("1.")) for minor in MINORS]
    assert len(numbers) == 3
    assert numbers == list(range(numbers[0], numbers[0] + 3))


@pytest.mark.parametrize("minor", MINORS)
def test_a_minor_is_pinned(minor: str) -> None:
    text = (DIRECTORY / minor / "go.mod").read_text()
    (version,) = re.findall(r"^\tk8s\.io/kubernetes (v\S+)$", text, re.MULTILINE)
    assert re.fullmatch(rf"v{re.escape(minor)}\.\d+", version)
    # The staging modules of the same release.
    staging = re.findall(r"^\tk8s\.io/\S+ => k8s\.io/\S+ (\S+)$", text, re.MULTILINE)
    assert len(staging) > 20
    assert set(staging) == {version.replace("v1.", "v0.")}
    sums = (DIRECTORY / minor / "go.sum").read_text()
    assert f"k8s.io/kubernetes {version} h1:" in sums


def test_what_an_add_on_spares_an_older_minor_is_still_needed() -> None:
    """Where the oldest that is left has it too, the bound goes."""
    bounds = {name: row.kubelet_since for name, row in catalogue.TABLE.items()}
    oldest = int(MINORS[0].removeprefix("1."))
    assert all(bound == 0 or bound > oldest for bound in bounds.values()), bounds


def test_all_components_are_built_with_one_toolchain() -> None:
    found = {
        str(file.parent.relative_to(DIRECTORY.parent)): re.findall(
            r"^toolchain (\S+)$", file.read_text(), re.MULTILINE
        )
        for file in DIRECTORY.parent.glob("**/go.mod")
    }
    assert len(found) == len(MINORS) + 8
    assert len({tuple(toolchain) for toolchain in found.values()}) == 1, found


@pytest.mark.parametrize("file", ["Dockerfile", "tests/bench/kubeadm.Dockerfile"])
def test_the_newest_is_the_default_of_a_plain_build(file: str) -> None:
    text = (ROOT / file).read_text()
    assert re.findall(r"^ARG KUBERNETES=(.+)$", text, re.MULTILINE) == [MINORS[-1]]


@pytest.mark.parametrize(
    ("settings", "built"),
    [
        pytest.param([], ("p8s:latest", MINORS[-1]), id="the default"),
        pytest.param(
            [f"KUBERNETES={MINORS[0]}"], (f"p8s:{MINORS[0]}", MINORS[0]), id="another minor"
        ),
        pytest.param(
            [f"KUBERNETES={MINORS[-1]}"], ("p8s:latest", MINORS[-1]), id="the newest, by its name"
        ),
        pytest.param(
            [f"KUBERNETES={MINORS[0]}", "IMAGE=mine:1"], ("mine:1", MINORS[0]), id="an own tag"
        ),
    ],
)
def test_make_builds_a_minor_under_its_tag(settings: list[str], built: tuple[str, str]) -> None:
    rule = "show: ; @echo $$IMAGE $$KUBERNETES"
    command = ["make", "--no-print-directory", f"--eval={rule}", "show", *settings]
    environment = {
        name: value for name, value in os.environ.items() if name not in ("IMAGE", "KUBERNETES")
    }
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert tuple(done.stdout.split()) == built


@pytest.mark.parametrize(
    ("script", "argument", "told"),
    [
        pytest.param("build-image.sh", "1.2", "make bump KUBERNETES=1.2 adds it", id="image"),
        pytest.param("bump.sh", "newest", "newest is no minor, such as 1.38", id="bump"),
    ],
)
def test_a_minor_that_is_none_is_refused(script: str, argument: str, told: str) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / script, argument],
        env=os.environ | {"KUBERNETES": argument},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert told in done.stderr
