"""The one door to other programs."""

from __future__ import annotations

import collections.abc
import contextlib
import pathlib
import shlex
import subprocess

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
