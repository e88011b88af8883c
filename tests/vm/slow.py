"""A plugin of pytest for a machine that is slower than the tests' bounds are made for, such as one without KVM.

`SLOW`: how many times as long everything takes there. The clock of the tests runs so much slower, and
so is every deadline later and every duration shorter by that factor, without a word of it in a test.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
import typing

import pytest
import requests

from tests.cluster import nodes

SLOW = float(os.environ["SLOW"])
# The default, 2 minutes, as much longer.
START_TIMEOUT = f"--env=P8S_START_TIMEOUT={120 * SLOW:.0f}s"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out, and counts, what no factor makes comparable: lower bounds, shares of a processor."""
    left_out = [item for item in items if item.get_closest_marker("real_time")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tells of a failure at once: the end may be an hour away."""
    if report.failed:
        print("", report.longreprtext, sep="\n", flush=True)


def pytest_configure() -> None:
    """Slows the clock down, and makes longer what does not count by it."""
    monotonic = time.monotonic
    slowed = lambda: monotonic() / SLOW  # noqa: E731
    time.monotonic = slowed
    vars(subprocess)["_time"] = slowed  # it took its own at its import

    request = requests.Session.request

    def wait_longer(
        session: requests.Session, *given: typing.Any, **named: typing.Any
    ) -> typing.Any:
        if named.get("timeout") is not None:
            named["timeout"] *= SLOW
        return request(session, *given, **named)

    requests.Session.request = wait_longer  # type: ignore[assignment,method-assign]

    command, docker = nodes.Kubectl.command, nodes.docker

    def make_longer(kubectl: nodes.Kubectl, *arguments: str) -> list[str]:
        # kubectl's own for what it discovers.
        waits = f"--request-timeout={32 * SLOW:.0f}s"
        return command(kubectl, waits, *(_scale(argument) for argument in arguments))

    def start_longer(first: str, *rest: str, **named: typing.Any) -> str:
        options = [START_TIMEOUT] if first == "run" else []
        return docker(first, *options, *rest, **named)

    nodes.Kubectl.command = make_longer  # type: ignore[assignment,method-assign]
    nodes.docker = start_longer  # type: ignore[assignment]


def _scale(argument: str) -> str:
    """`--timeout=30s`, and none other."""
    return re.sub(
        r"(?<=^--timeout=)(\d+)(?=s$)", lambda found: f"{float(found[1]) * SLOW:.0f}", argument
    )
