"""Files that are whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import collections
import os
import pathlib


def write(
    path: pathlib.Path, content: str | bytes, *, mode: int = 0o644, durable: bool = False
) -> None:
    """Write a file atomically, making its directory where it is missing.

    Args:
        path: where the file goes.
        content: text is written as UTF-8.
        mode: the file's permission bits, set before the file has its name.
        durable: whether it has to be there after a crash of the host too: what a start makes anew
            has not.

    Raises:
        OSError: the file system refused.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.rename(path)


def write_once(path: pathlib.Path, content: str) -> None:
    """Write a file unless it is there already: the first content is kept."""
    if not path.exists():
        write(path, content)


def tail(path: pathlib.Path, *, lines: int = 20) -> list[str]:
    """The last lines of a text file, without line ends; none where it cannot be read."""
    try:
        with path.open(errors="replace") as file:
            return [line.rstrip("\n") for line in collections.deque(file, maxlen=lines)]
    except OSError:
        return []
