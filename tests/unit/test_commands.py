"""The one door to other programs."""

from __future__ import annotations

import pathlib
import shlex
import subprocess
import time

import pytest

from p8s_supervisor import commands, errors, wait


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


# --- beside a block


def await_text(log: pathlib.Path, text: str) -> None:
    """Wait until a log is exactly that."""
    wait.until(
        lambda: None if log.read_text() == text else f"{log.read_text()!r} instead of {text!r}",
        awaited="the log",
        seconds=30,
    )


def await_line(log: pathlib.Path) -> None:
    """Wait until a log has a line."""
    wait.until(
        lambda: None if log.read_text().endswith("\n") else "no line yet",
        awaited="the log",
        seconds=30,
    )


def test_in_the_background_both_outputs_go_to_the_log(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "log"
    log.write_text("of an earlier run\n")
    words = ["sh", "-c", 'echo "$1"; echo err >&2; exec sleep 60', "sh", "a  b $HOME"]
    with commands.background(words, log=log):
        await_text(log, "a  b $HOME\nerr\n")


def test_in_the_background_it_is_asked_to_end_after_the_block(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "log"
    script = "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.02; done"
    with commands.background(["sh", "-c", script], log=log):
        await_text(log, "up\n")
    assert log.read_text() == "up\nasked\n"


def test_in_the_background_one_that_will_not_end_is_killed(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "log"
    began = time.monotonic()
    # What a shell ignores, the program that takes its place ignores too.
    script = "trap '' TERM; echo $$; exec sleep 60"
    with commands.background(["sh", "-c", script], log=log, seconds=0.3):
        await_line(log)
        pid = log.read_text().strip()
        assert pathlib.Path(f"/proc/{pid}").exists()
    assert not pathlib.Path(f"/proc/{pid}").exists()
    assert 0.3 <= time.monotonic() - began < 30


def test_in_the_background_a_block_that_fails_ends_it_too(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "log"

    def work() -> None:
        with commands.background(["sh", "-c", "echo $$; exec sleep 60"], log=log):
            await_line(log)
            raise errors.P8sError("of the block")

    with pytest.raises(errors.P8sError, match="of the block"):
        work()
    assert not pathlib.Path(f"/proc/{log.read_text().strip()}").exists()


def test_in_the_background_one_that_ended_already_is_no_error(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "log"
    with commands.background(["echo", "done"], log=log):
        await_text(log, "done\n")
    assert log.read_text() == "done\n"


def test_in_the_background_a_missing_program_is_shown(tmp_path: pathlib.Path) -> None:
    words = ["/nonexistent/etcd", "--name=a b"]
    entered = False
    with (
        pytest.raises(errors.CommandError) as caught,
        commands.background(words, log=tmp_path / "log"),
    ):
        entered = True
    assert not entered
    assert (caught.value.code, shlex.split(caught.value.command)) == (127, words)
    assert str(caught.value).endswith(
        "ended with 127: [Errno 2] No such file or directory: '/nonexistent/etcd'"
    )


def test_feed_gives_a_command_its_input(tmp_path: pathlib.Path) -> None:
    got = tmp_path / "got"
    with commands.feed(["sh", "-c", f"cat > {got}"]) as stdin:
        stdin.write(b"x" * 300_000)
    assert got.read_bytes() == b"x" * 300_000


def test_feed_tells_why_a_command_did_not_take_it_all() -> None:
    def give() -> None:
        with commands.feed(["sh", "-c", "echo enough >&2; exit 3"]) as stdin:
            for _ in range(1000):
                stdin.write(b"x" * 10_000)

    with pytest.raises(errors.CommandError, match="ended with 3: enough") as caught:
        give()
    assert caught.value.code == 3


def test_feed_lets_the_command_end_and_gives_the_block_s_error(tmp_path: pathlib.Path) -> None:
    got = tmp_path / "got"

    def give() -> None:
        with commands.feed(["sh", "-c", f"cat > {got}; echo end >> {got}; exit 1"]) as stdin:
            stdin.write(b"some\n")
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        give()
    assert got.read_text() == "some\nend\n"


def test_feed_kills_what_takes_too_long() -> None:
    begun = time.monotonic()
    with (
        pytest.raises(errors.CommandError, match=r"not done in 0\.1 s"),
        commands.feed(["sleep", "60"], seconds=0.1),
    ):
        pass
    assert time.monotonic() - begun < 5


def test_feed_of_what_is_not_there() -> None:
    with (
        pytest.raises(errors.CommandError) as caught,
        commands.feed(["/nowhere/program"]),
    ):
        pass
    assert caught.value.code == 127
