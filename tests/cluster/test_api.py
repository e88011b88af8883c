"""The HTTP API fuzzed against its own description, and what it tells when components end."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import time
import typing

import pytest
import requests

from p8s_supervisor import wait
from tests.cluster import nodes, test_flows

# What a body's or a parameter's meaning may be refused for, its form being right, no schema can say.
CHECKS_LEFT_OUT = "positive_data_acceptance"
# /stop ends the cluster; /events goes on for ever by default.
PATHS_LEFT_OUT = ("/stop", "/events")


@pytest.fixture(scope="module")
def harmed() -> typing.Iterator[nodes.Node]:
    """A cluster for what other tests must not find in theirs; the last test here ends it."""
    with nodes.run() as node:
        node.await_ready()
        yield node


def test_the_api_is_what_its_document_says(harmed: nodes.Node, tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [
            str(pathlib.Path(sys.executable).with_name("schemathesis")),
            "run",
            harmed.url("/openapi.json"),
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
    assert harmed.get("/ready").status_code == 200
    assert "Traceback" not in harmed.logs()


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


# --- components that end


def await_event(node: nodes.Node, kind: str, *words: str, after: int = 0) -> test_flows.Event:
    """Wait for an event whose message has all the words."""
    found: list[test_flows.Event] = []

    def look() -> str | None:
        seen = test_flows.read_events(node, after=after)
        found.extend(
            event
            for event in seen
            if event.kind == kind and all(word in event.data["message"] for word in words)
        )
        return None if found else f"there are only {seen}"

    wait.until(look, awaited=f"a {kind} with {words}", seconds=30, interval=0.2)
    return found[0]


def test_a_process_that_ended_is_told_as_started_again(harmed: nodes.Node) -> None:
    before = test_flows.last_id(harmed)
    harmed.execute("sh", "-c", "kill -9 $(pidof kubelet)")
    wait.until(
        lambda: None if harmed.execute("pidof", "kubelet", check=False) else "there is none",
        awaited="another kubelet",
        seconds=30,
    )
    harmed.await_ready()
    told = await_event(harmed, "restart", "kubelet", after=before)
    assert told.data["component"] == "kubelet"
    assert told.data["restarts"] >= 1


def test_a_log_is_followed_over_a_restart_of_its_component(harmed: nodes.Node) -> None:
    before = test_flows.last_id(harmed)
    address = harmed.url("/logs/kube-scheduler?follow=true&tail=0")
    with requests.get(address, stream=True, timeout=30) as answer:
        harmed.execute("sh", "-c", "kill $(pidof kube-scheduler)")
        seen = []
        for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
            seen.append(line)
            if "successfully acquired lease" in line or "Caches are synced" in line:
                break
    # What the old one said at its end, and the first thing that the new one says.
    assert any("Stopped listening on" in line for line in seen)
    assert any("FLAG: " in line for line in seen)
    told = await_event(harmed, "restart", "kube-scheduler", after=before)
    assert told.data["kind"] == "pod"
    harmed.await_ready()


def test_the_stop_is_told_with_its_reason(harmed: nodes.Node) -> None:
    with requests.get(harmed.url("/events"), stream=True, timeout=30) as answer:
        events = test_flows.parse_events(answer.iter_lines(chunk_size=1, decode_unicode=True))
        next(event for event in events if event.kind == "ready")
        assert harmed.post("/stop").status_code == 202
        told = next(event for event in events if event.kind == "stop")
        assert told.data["reason"].startswith("POST /stop from ")
        # A client that follows does not keep the container from ending.
        assert harmed.wait(seconds=30) == 0
