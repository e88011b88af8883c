"""The one door to other programs."""

from __future__ import annotations

import pathlib
import shlex
import subprocess
import time

import pytest

from p8s_supervisor import commands, errors


@pytest.mark.parametrize(
    ("command", "stdin", "output"),
    [
        pytest.param(["echo", "a b", "$HOME"], None, "a b $HOME\n", id="no shell reads the words"),
        pytest.param(["cat"], "rules\n", "rules\n", id="standard input"),
        pytest.param(["cat"], None, "", id="without it the input is empty"),
        pytest.param(["sh", "-c", "echo out; echo err >&2"], None, "out\n", id="output alone"),
        pytest.param(["printf", r"a\377b"], None, "a\ufffdb", id="not UTF-8"),
    ],
)
def test_run_gives_the_output(command: list[str], stdin: str | None, output: str) -> None:
    assert commands.run(command, stdin=stdin) == output


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        pytest.param(["sh", "-c", "echo out; echo err >&2; exit 7"], 7, "err", id="its error"),
        pytest.param(["sh", "-c", "echo out; exit 7"], 7, "out", id="else its output"),
        pytest.param(["false"], 1, "no output", id="silent"),
        pytest.param(["sh", "-c", "kill -9 $$"], -9, "no output", id="killed"),
        pytest.param(
            ["/nonexistent/nft", "-f", "-"],
            127,
            "[Errno 2] No such file or directory: '/nonexistent/nft'",
            id="missing program",
        ),
        pytest.param(
            ["/etc/passwd"],
            127,
            "[Errno 13] Permission denied: '/etc/passwd'",
            id="not a program",
        ),
    ],
)
def test_a_command_that_fails_is_shown(command: list[str], code: int, told: str) -> None:
    with pytest.raises(errors.CommandError) as caught:
        commands.run(command)
    assert caught.value.code == code
    assert shlex.split(caught.value.command) == command
    assert str(caught.value) == f"`{shlex.join(command)}` ended with {code}: {told}"


def test_a_command_that_takes_too_long_is_killed(tmp_path: pathlib.Path) -> None:
    pid = tmp_path / "pid"
    began = time.monotonic()
    with pytest.raises(errors.CommandError) as caught:
        commands.run(["sh", "-c", f"echo $$ > {pid}; exec sleep 60"], seconds=0.5)
    assert time.monotonic() - began < 30
    assert caught.value.code == -1
    assert str(caught.value).endswith("ended with -1: not done in 0.5 s")
    assert not pathlib.Path(f"/proc/{pid.read_text().strip()}").exists()


def test_the_shown_command_can_be_pasted_into_a_shell() -> None:
    words = ["sh", "-c", 'printf "%s|" "$@"; exit 4', "it's", "a  b", "$(date)", "", "ü;&"]
    with pytest.raises(errors.CommandError) as caught:
        commands.run(words)
    pasted = subprocess.run(
        ["sh", "-c", caught.value.command], capture_output=True, text=True, check=False
    )
    assert (pasted.returncode, pasted.stdout) == (4, "a  b|$(date)||ü;&|")
