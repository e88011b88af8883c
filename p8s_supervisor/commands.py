"""The one door to other programs."""

from __future__ import annotations

import collections.abc
import contextlib
import pathlib
import shlex
import subprocess
import tempfile
import typing

from p8s_supervisor import errors


@contextlib.contextmanager
def background(
    command: collections.abc.Sequence[str], *, log: pathlib.Path, seconds: float = 30
) -> collections.abc.Iterator[None]:
    """Run a command beside a block, and end it with SIGTERM after it.

    Args:
        command: program and arguments; no shell reads them.
        log: where its output goes.
        seconds: it is killed that long after the SIGTERM.

    Raises:
        CommandError: it did not start.
    """
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        except OSError as error:
            raise errors.CommandError(shlex.join(command), code=127, output=str(error)) from error
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def run(
    command: collections.abc.Sequence[str], *, stdin: str | None = None, seconds: float = 30
) -> str:
    """Run a command and give its standard output.

    Args:
        command: program and arguments; no shell reads them.
        stdin: text for its standard input; without it the input is empty.
        seconds: it is killed after that long.

    Raises:
        CommandError: it ended with a code other than 0, did not start, or took too long.
    """
    shown = shlex.join(command)
    try:
        done = subprocess.run(
            command,
            input=stdin if stdin is not None else "",
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise errors.CommandError(shown, code=-1, output=f"not done in {seconds:g} s") from error
    except OSError as error:
        raise errors.CommandError(shown, code=127, output=str(error)) from error
    if done.returncode != 0:
        raise errors.CommandError(shown, code=done.returncode, output=done.stderr or done.stdout)
    return done.stdout


@contextlib.contextmanager
def feed(
    command: collections.abc.Sequence[str], *, seconds: float = 600
) -> collections.abc.Iterator[typing.IO[bytes]]:
    """Run a command and give its standard input to a block.

    Args:
        command: program and arguments; no shell reads them.
        seconds: it is killed that long after the end of its input.

    Raises:
        CommandError: it ended with a code other than 0, did not start, or took too long. What the
            block raises goes before that: the command then sees its input end.
    """
    shown = shlex.join(command)
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT
            )
        except OSError as error:
            raise errors.CommandError(shown, code=127, output=str(error)) from error
        stdin = typing.cast("typing.IO[bytes]", process.stdin)
        try:
            with contextlib.suppress(BrokenPipeError), stdin:  # it ended early, and says why
                yield stdin
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise errors.CommandError(
                shown, code=-1, output=f"not done in {seconds:g} s"
            ) from error
        finally:
            _end(process)
        output.seek(0)
        if process.returncode != 0:
            told = output.read().decode(errors="replace")
            raise errors.CommandError(shown, code=process.returncode, output=told)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Give a command whose input has ended some time to clear up, then kill it."""
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
