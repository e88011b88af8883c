"""docker's health check against the HTTP API as the sidecar serves it."""

from __future__ import annotations

import json
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time

import pytest

from tests import fakes
from tests.contract import served

HEALTHCHECK = pathlib.Path(__file__).parents[2] / "image/rootfs/usr/local/bin/p8s-healthcheck"


def run_healthcheck(
    tmp_path: pathlib.Path, address: str | None, *, ready: bool = True
) -> tuple[int, str]:
    """The health check's exit code and output, in a node whose API is at that address.

    It waits for a second where it would for 50, and pauses for half a second where for 28.
    """
    places = fakes.make_plan(tmp_path).paths
    source = HEALTHCHECK.read_text()
    for written, here in (
        (r'"/run/p8s/http-address"', repr(str(places.http_address))),
        (r'"/run/p8s/ready"', repr(str(places.ready))),
        (r"(?<=START_SECONDS = )50", "1"),
        (r"(?<=PAUSE_SECONDS = )28", "0.5"),
    ):
        source, found = re.subn(written, here, source)
        assert found == 1
    (tmp_path / "healthcheck").write_text(source)
    places.run.mkdir(parents=True)
    if address is not None:
        places.http_address.write_text(address)
    if ready:
        places.ready.touch()
    done = subprocess.run(
        [sys.executable, "-IS", str(tmp_path / "healthcheck")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_the_health_check_is_green_when_the_cluster_is_ready(
    serve: served.Serve, tmp_path: pathlib.Path
) -> None:
    assert run_healthcheck(tmp_path, f"127.0.0.1 {serve().port}") == (0, "ok\n")


def test_the_health_check_reaches_an_ipv6_address(
    serve: served.Serve, tmp_path: pathlib.Path
) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as free:
            port = free.getsockname()[1]
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    serve("--http-address=::1", f"--http-port={port}")
    assert run_healthcheck(tmp_path, f"::1 {port}") == (0, "ok\n")


def test_the_health_check_shows_what_is_missing(
    serve: served.Serve, tmp_path: pathlib.Path
) -> None:
    there = serve()
    there.missing["node"] = "no CNI " + "x" * 100_000
    code, output = run_healthcheck(tmp_path, f"127.0.0.1 {there.port}")
    assert code == 1
    assert json.loads(output) == {
        "status": 503,
        "detail": "the cluster is not ready",
        "missing": there.missing,
    }


def test_the_health_check_needs_no_token(serve: served.Serve, tmp_path: pathlib.Path) -> None:
    there = serve(f"--api-token={fakes.TOKEN}")
    assert run_healthcheck(tmp_path, f"127.0.0.1 {there.port}") == (0, "ok\n")


def test_the_health_check_is_red_where_nobody_answers(tmp_path: pathlib.Path) -> None:
    code, output = run_healthcheck(tmp_path, f"127.0.0.1 {fakes.free_port()}")
    assert code == 1
    assert output == "p8s does not answer: [Errno 111] Connection refused"


def test_the_health_check_is_red_before_the_address_is_known(tmp_path: pathlib.Path) -> None:
    code, output = run_healthcheck(tmp_path, None)
    assert code == 1
    assert output.startswith("p8s does not answer: [Errno 2] No such file or directory: ")


def test_the_health_check_waits_for_the_end_of_a_start(
    serve: served.Serve, tmp_path: pathlib.Path
) -> None:
    there = serve()
    there.missing["node"] = "no CNI"

    def complete() -> None:
        there.missing.clear()
        fakes.make_plan(tmp_path).paths.ready.touch()

    timer = threading.Timer(0.4, complete)
    timer.start()
    begun = time.monotonic()
    assert run_healthcheck(tmp_path, f"127.0.0.1 {there.port}", ready=False) == (0, "ok\n")
    assert 0.4 <= time.monotonic() - begun < 1
    timer.join()


def test_the_health_check_is_red_where_a_start_takes_long(
    serve: served.Serve, tmp_path: pathlib.Path
) -> None:
    there = serve()
    there.missing["node"] = "no CNI"
    begun = time.monotonic()
    code, _ = run_healthcheck(tmp_path, f"127.0.0.1 {there.port}", ready=False)
    assert (code, time.monotonic() - begun >= 1) == (1, True)


def test_the_health_check_pauses_where_the_cluster_was_ready(
    serve: served.Serve, tmp_path: pathlib.Path
) -> None:
    begun = time.monotonic()
    assert run_healthcheck(tmp_path, f"127.0.0.1 {serve().port}")[0] == 0
    assert time.monotonic() - begun >= 0.5
