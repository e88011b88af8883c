"""Whether the pins are the newest patch releases of their lines, as the registries say today."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import warnings

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SILENT = 3


# On the day of a release nobody's tests break: a warning is told, here and in the run's summary.
@pytest.mark.filterwarnings("default:older than the newest")
def test_the_pins_are_the_newest_of_their_lines() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/outdated.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode in (0, 1, SILENT), done.stderr
    lines = done.stdout.splitlines()
    silent = [line for line in lines if line.startswith("no answer")]
    older = [line.partition(": ")[2] for line in lines if line.startswith("OUTDATED")]
    assert bool(older) == (done.returncode == 1)
    if older:
        warnings.warn(f"older than the newest: {', '.join(older)}", stacklevel=1)
    if silent:
        pytest.skip("; ".join(silent))
    assert len(lines) > len(older), "some are the newest, or nothing was looked at"
