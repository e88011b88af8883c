"""The HTTP API against its own description, fuzzed, in a cluster of its own."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import time

import requests

from tests.cluster import nodes

# What a body's or a parameter's meaning may be refused for, its form being right, no schema can say.
CHECKS_LEFT_OUT = "positive_data_acceptance"
# /stop ends the cluster; /events goes on for ever by default.
PATHS_LEFT_OUT = ("/stop", "/events")


def test_the_api_is_what_its_document_says(tmp_path: pathlib.Path) -> None:
    with nodes.run() as node:
        node.await_ready()
        done = subprocess.run(
            [
                str(pathlib.Path(sys.executable).with_name("schemathesis")),
                "run",
                node.url("/openapi.json"),
                "--phases=coverage,fuzzing",
                "--max-examples=8",
                "--generation-deterministic",
                "--continue-on-failure",
                "--request-timeout=30",
                "--warnings=off",
                "--no-color",
                f"--exclude-checks={CHECKS_LEFT_OUT}",
                *(f"--exclude-path={path}" for path in PATHS_LEFT_OUT),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
        assert node.get("/ready").status_code == 200
        assert "Traceback" not in node.logs()


def test_slow_and_many_clients_hold_up_nobody(cluster: nodes.Node) -> None:
    """More streams than there may be, and connections that say nothing."""
    with requests.Session() as session:
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=64))
        streams = [session.get(cluster.url("/events"), stream=True, timeout=30) for _ in range(12)]
        try:
            answered = [stream.status_code for stream in streams]
            assert answered == [200] * 8 + [503] * 4
            started = time.monotonic()
            assert cluster.get("/status").status_code == 200
            assert time.monotonic() - started < 2
        finally:
            for stream in streams:
                stream.close()

    # A reader that has gone is noticed at the stream's next sign of life.
    started = time.monotonic()
    while (status := read_head(cluster)) != 200:
        assert (status, time.monotonic() - started < 10) == (503, True)
        time.sleep(0.2)


def read_head(cluster: nodes.Node) -> int:
    """What /events answers with, as soon as it does."""
    with requests.get(cluster.url("/events"), stream=True, timeout=30) as answer:
        return answer.status_code
