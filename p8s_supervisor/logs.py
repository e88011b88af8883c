"""The components' logs, as they were written: the end of them, all of them, and what comes next.

Nothing is filtered: no component of these writes keys, tokens or Secrets at the verbosities that
can be set, and the story that the sidecar tells has none.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import os
import pathlib
import threading
import typing

from p8s_supervisor import context, errors, network, probes

# Their files lie in `paths.logs`, rotated as NAME.log.1, NAME.log.2, …
PROCESSES = ("etcd", "containerd", "kubelet", "sidecar")
# Their files lie where kubelet keeps those of containers.
PODS = (*probes.STATIC_PODS, *probes.SYSTEM_LABELS)
# There only where the apiserver was told to write it.
AUDIT = "audit"
BLOCK = 64 * 1024
# How often a log that is followed is looked at, and after how long without news the reader is given
# an empty block, so that a server notices that its client has gone.
POLL_SECONDS = 0.2
IDLE_SECONDS = 4.0
STORY_BYTES = 5 * 1024 * 1024

Blocks = collections.abc.Iterator[bytes]


class Story:
    """A file of what the sidecar tells on its standard output, which nobody else keeps in the node.

    Rotated once: `path` and `path.1` together hold the latest `STORY_BYTES` at least.
    """

    def __init__(self, path: pathlib.Path, *, size: int = STORY_BYTES) -> None:
        self._path, self._size = path, size
        self._lock = threading.Lock()

    def add(self, line: str) -> None:
        """Append a line. A disk that is full must not end the cluster: the line is lost here only.

        It is opened each time: the story has a line now and then.
        """
        with self._lock:
            try:
                with self._path.open("ab") as file:
                    file.write(line.encode(errors="replace") + b"\n")
                    too_long = file.tell() > self._size
                if too_long:
                    self._path.rename(self._path.with_name(self._path.name + ".1"))
            except OSError:
                return


def list_components(run: context.Context) -> list[str]:
    """The names that `read` knows."""
    names = [*PROCESSES, *PODS, *([network.RELAY] if network.relays_names(run.plan) else [])]
    if (run.plan.paths.logs / f"{AUDIT}.log").exists():
        names.append(AUDIT)
    return names


def read(
    run: context.Context,
    component: str,
    *,
    follow: bool,
    tail: int | None,
) -> Blocks:
    """A component's log, in blocks.

    Args:
        run: the context.
        component: one of `list_components`; what a path is made from, never what was given.
        follow: whether to go on with what is written from now on, over rotation and over restarts
            of the component, until the stop. An empty block then comes every `IDLE_SECONDS` at the
            latest where there is nothing to give.
        tail: how many of its last lines to begin with; None for all that is kept.

    Raises:
        RequestError: 404, there is no such component; 400, `tail` is negative.
    """
    known = list_components(run)
    if component not in known:
        raise errors.RequestError(
            f"there is no log of {component!r}", status=404, hint=f"one of: {', '.join(known)}"
        )
    if tail is not None and tail < 0:
        raise errors.RequestError(
            f"tail is {tail}", status=400, hint="a number of lines, 0 or more"
        )
    name = known[known.index(component)]
    blocks = _read(
        lambda: list_files(run, name),
        tail=tail,
        pause=Pause(run) if follow else None,
    )
    return strip_prefixes(blocks) if name in network.SYSTEM_PODS else blocks


def list_files(run: context.Context, name: str) -> list[pathlib.Path]:
    """The files of a component's log that there are now, oldest first."""
    paths = run.plan.paths
    if name in network.SYSTEM_PODS:
        # A directory for each pod, in it one for each container, in it a file for each attempt.
        attempts = paths.pod_logs.glob(f"kube-system_{name}-*/{name}/*.log")
        return sorted((file for file in attempts if file.stem.isdigit()), key=_age)
    file = paths.logs / f"{name}.log"
    rotated = (file.with_name(f"{file.name}.{number}") for number in (3, 2, 1))
    return [candidate for candidate in (*rotated, file) if candidate.exists()]


def _age(file: pathlib.Path) -> tuple[float, int]:
    try:
        # The pod that changed last comes last; of its attempts the one with the highest number.
        return file.parent.stat().st_ctime, int(file.stem)
    except OSError:
        return 0.0, 0


class Pause:
    """What a reader does that has come to the end of a log.

    Args:
        run: its stop ends every reader.
    """

    def __init__(self, run: context.Context) -> None:
        self._stop = run.stop
        self._idle = 0.0

    def over(self) -> bool:
        """Whether there is no more to wait for."""
        return self._stop.is_set()

    def wait(self) -> bool:
        """Wait until it is worth while to look again; whether an empty block is due."""
        self._stop.wait(POLL_SECONDS)
        self._idle += POLL_SECONDS
        if self._idle < IDLE_SECONDS:
            return False
        self._idle = 0.0
        return True

    def found(self) -> None:
        """There was something to give."""
        self._idle = 0.0


@dataclasses.dataclass(frozen=True)
class _Start:
    """Where to begin: which of the files, and where in it."""

    path: pathlib.Path
    offset: int


def _read(
    list_now: collections.abc.Callable[[], list[pathlib.Path]],
    *,
    tail: int | None,
    pause: Pause | None,
) -> Blocks:
    start = find_start(list_now(), tail)
    while True:
        if start is not None:
            start = yield from _read_file(start, list_now, pause)
            if start is not None:
                continue
        # No file yet, or none any more.
        if pause is None or pause.over():
            return
        if pause.wait():
            yield b""
        files = list_now()
        start = _Start(files[-1], 0) if files else None


def _read_file(
    start: _Start,
    list_now: collections.abc.Callable[[], list[pathlib.Path]],
    pause: Pause | None,
) -> collections.abc.Generator[bytes, None, _Start | None]:
    """One file to its end, and where to go on; None where there is nothing yet."""
    try:
        file = start.path.open("rb")
    except OSError:
        return None  # rotated away this very moment
    with file:
        file.seek(start.offset)
        while True:
            ended = pause is not None and pause.over()
            following, cut = _find_following(file, list_now())
            # Looked for before the last read: who writes has changed to the new file by then.
            for block in iter(lambda: file.read(BLOCK), b""):
                yield block
                if pause is not None:
                    pause.found()
            if following is not None:
                return _Start(following, 0)
            if cut:
                file.seek(0)
            elif pause is None or ended:
                return None
            elif pause.wait():
                yield b""


def _find_following(
    file: typing.BinaryIO, files: list[pathlib.Path]
) -> tuple[pathlib.Path | None, bool]:
    """The file that comes after an open one, if any; and whether the open one was cut."""
    own = os.fstat(file.fileno())
    identities = []
    for path in files:
        try:
            found = path.stat()
        except OSError:
            continue
        identities.append((path, (found.st_dev, found.st_ino)))
    place = next(
        (i for i, (_, known) in enumerate(identities) if known == (own.st_dev, own.st_ino)), None
    )
    if place is None:
        # It was removed or renamed: the newest goes on.
        return (identities[-1][0], False) if identities else (None, False)
    if place + 1 < len(identities):
        return identities[place + 1][0], False
    return None, own.st_size < file.tell()


def find_start(files: list[pathlib.Path], tail: int | None) -> _Start | None:
    """Where the last lines of a log begin, which may be some files back.

    Args:
        files: oldest first.
        tail: how many lines; None for all.
    """
    if not files:
        return None
    if tail is None:
        return _Start(files[0], 0)
    wanted = tail
    start = None
    for path in reversed(files):
        offset, found = find_lines(path, wanted)
        start = _Start(path, offset)
        wanted -= found
        if wanted <= 0:
            break
    return start


def find_lines(path: pathlib.Path, wanted: int) -> tuple[int, int]:
    """The offset at which the last lines of a file begin, and how many there are from there.

    Read backwards in blocks, so that a large file costs no more than its end.

    Args:
        path: the file; one that cannot be read has none.
        wanted: how many lines.
    """
    try:
        file = path.open("rb")
    except OSError:
        return 0, 0
    with file:
        size = file.seek(0, 2)
        if wanted == 0 or size == 0:
            return size, 0
        found = 0
        # The end of the last line begins no other one.
        position = end = size - 1
        while position > 0:
            position = max(0, end - BLOCK)
            file.seek(position)
            block = file.read(end - position)
            at = block.rfind(b"\n")
            while at >= 0:
                found += 1
                if found == wanted:
                    return position + at + 1, wanted
                at = block.rfind(b"\n", 0, at)
            end = position
        return 0, found + 1


def strip_prefixes(blocks: Blocks) -> Blocks:
    """A container's log without what kubelet writes before each line.

    That is `TIME STREAM TAG `, where the tag P marks a piece of a line that goes on in the next.
    Source: the CRI's log format, k8s.io/cri-client/pkg/logs.
    """
    rest = b""
    for block in blocks:
        if not block:
            yield b""
            continue
        *lines, rest = (rest + block).split(b"\n")
        stripped = b"".join(_strip(line) for line in lines)
        if stripped:
            yield stripped
    if rest:
        yield _strip(rest).rstrip(b"\n")


def _strip(line: bytes) -> bytes:
    parts = line.split(b" ", 3)
    if len(parts) < 4 or parts[1] not in (b"stdout", b"stderr"):
        return line + b"\n"
    return parts[3] if parts[2].startswith(b"P") else parts[3] + b"\n"
