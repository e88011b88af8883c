"""PID 1 as a real supervisord with the image's configuration, and a sidecar that is a script."""

from __future__ import annotations

import concurrent.futures
import configparser
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys

import pytest

PROJECT = pathlib.Path(__file__).parents[2]
CONFIGURATION = PROJECT / "image/rootfs/etc/supervisor/supervisord.conf"
PID1 = """\
import functools, pathlib, sys
from p8s_supervisor import init, paths
root = pathlib.Path(sys.argv[1])
paths.Paths = functools.partial(paths.Paths, root)
init.CGROUPS, init._libc = root / "cgroup", None  # nothing of this machine is touched
init.CONFIGURATION = sys.argv[2]
sys.exit(init.run_supervisord())
"""


def write_configuration(root: pathlib.Path) -> pathlib.Path:
    """The image's configuration, under another root, with less patience, and `root/sidecar`."""
    text = CONFIGURATION.read_text()
    for directory in ("/run/p8s", "/var/log/p8s"):
        assert directory in text
        (root / directory.lstrip("/")).mkdir(parents=True)
        text = text.replace(directory, f"{root}{directory}")
    parser = configparser.RawConfigParser(inline_comment_prefixes=(" ;",))
    parser.read_string(text)
    sidecar = parser["program:sidecar"]
    assert sidecar["command"].endswith("-m p8s_supervisor.sidecar")
    sidecar["command"] = f"/bin/sh {root}/sidecar"
    sidecar["startretries"], sidecar["stopwaitsecs"] = "0", "1"
    if os.geteuid() != 0:
        del parser["supervisord"]["user"], parser["unix_http_server"]["chown"]
    file = root / "supervisord.conf"
    with file.open("w") as opened:
        parser.write(opened)
    return file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Life:
    """A container's life.

    Attributes:
        sidecar: a shell script; $NODE is the node's root.
        signals: each signal with the line that it is sent after.
        code: the container's exit code.
        lines: all that it prints.
    """

    sidecar: str
    signals: tuple[tuple[str, signal.Signals], ...]
    code: int
    lines: list[str]


IDLE = "while :; do sleep 0.05; done"
SHUTDOWN = """
import pathlib
from p8s_supervisor import processes
processes.Supervisord(pathlib.Path("$NODE/run/p8s/supervisor.sock")).shutdown()
"""
LIVES = {
    "docker stop": Life(
        sidecar=f"trap 'echo asked; exit 0' TERM; echo up; {IDLE}",
        signals=(("up", signal.SIGTERM),),
        code=0,
        lines=["up", "asked"],
    ),
    "Ctrl-C": Life(
        sidecar=f"trap 'echo asked; exit 0' INT; echo up; {IDLE}",
        signals=(("up", signal.SIGINT),),
        code=0,
        lines=["up", "asked"],
    ),
    "the sidecar's exit code is the container's": Life(
        sidecar=f"trap 'echo 2 > $NODE/run/p8s/exit-code; exit 0' TERM; echo up; {IDLE}",
        signals=(("up", signal.SIGTERM),),
        code=2,
        lines=["up"],
    ),
    "a sidecar that ends badly is not started again": Life(
        sidecar=f"trap 'echo asked; exit 7' TERM; echo up; {IDLE}",
        signals=(("up", signal.SIGTERM),),
        code=0,
        lines=["up", "asked"],
    ),
    "a second signal does not wait for a sidecar that hangs": Life(
        # It ignores the third one, which is supervisord's own.
        sidecar=f"trap 'trap : TERM; echo asked' TERM; echo up; {IDLE}",
        signals=(("up", signal.SIGTERM), ("asked", signal.SIGTERM)),
        code=0,
        lines=["up", "asked"],
    ),
    "a sidecar that asks supervisord to go": Life(
        sidecar=f"echo 1 > $NODE/run/p8s/exit-code; {sys.executable} -c '{SHUTDOWN}'; {IDLE}",
        signals=(),
        code=1,
        lines=[],
    ),
    "a sidecar that does not stay up": Life(
        sidecar="exit 3",
        signals=(),
        code=1,
        lines=["p8s: the sidecar does not stay up; stopping"],
    ),
}


def live(life: Life, root: pathlib.Path) -> tuple[int, list[str]]:
    """The exit code of a container, and all that it prints."""
    (root / "sidecar").write_text(life.sidecar.replace("$NODE", str(root)))
    process = subprocess.Popen(
        [sys.executable, "-c", PID1, str(root), str(write_configuration(root))],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines: list[str] = []
    try:
        assert process.stdout is not None
        for awaited, number in life.signals:
            while awaited not in lines:
                line = process.stdout.readline()
                assert line, f"ended before {awaited!r}: {lines}"
                lines.append(line.rstrip("\n"))
            process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return process.returncode, lines + output.splitlines()


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, list[str]]]:
    """How each life went. They are led side by side: nearly all of their time is waiting."""
    with concurrent.futures.ThreadPoolExecutor(len(LIVES)) as threads:
        running = {
            name: threads.submit(live, life, tmp_path_factory.mktemp("node"))
            for name, life in LIVES.items()
        }
        return {name: future.result() for name, future in running.items()}


@pytest.mark.parametrize("name", LIVES)
def test_pid1_asks_the_sidecar_and_ends_with_its_exit_code(
    lives: dict[str, tuple[int, list[str]]], name: str
) -> None:
    assert lives[name] == (LIVES[name].code, LIVES[name].lines)
