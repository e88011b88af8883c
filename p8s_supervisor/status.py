"""What the sidecar knows of itself, in the shapes that `/status` and clients share."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import enum
import pathlib
import threading
import time
import typing


class Listener(typing.Protocol):
    """Is told what a timeline notes, as soon as it does; `events.Journal.record` is one."""

    def __call__(self, kind: str, message: str, /, **data: typing.Any) -> None:
        """Told the kind ("phase" or "condition"), a sentence, and the same for programs."""


def ignore(_kind: str, _message: str, /, **_data: typing.Any) -> None:
    """The listener of a timeline that nobody listens to."""


class State(enum.StrEnum):
    """Where the life of the cluster stands."""

    STARTING = "starting"
    READY = "ready"
    NOT_READY = "not ready"
    DEGRADED = "degraded"
    STOPPING = "stopping"


@dataclasses.dataclass
class Phase:
    """One step of the start or the stop.

    Attributes:
        name: the step's name.
        start: seconds since the container's start.
        duration: seconds; None while it runs.
    """

    name: str
    start: float
    duration: float | None = None


@dataclasses.dataclass(frozen=True)
class Component:
    """A supervised process or a static pod.

    Attributes:
        name: as supervisord or Kubernetes has it.
        kind: "process" or "pod".
        state: supervisord's state name, or the pod's phase.
        restarts: how often it was started again since the container's start.
    """

    name: str
    kind: str
    state: str
    restarts: int


def process_start(pid: int, proc: pathlib.Path = pathlib.Path("/proc")) -> float:
    """When a process started, on the clock of `time.clock_gettime(CLOCK_BOOTTIME)`, in seconds.

    Source: proc_pid_stat(5), field 22, in clock ticks since boot (100 a second on Linux).

    Raises:
        OSError: there is no such process.
    """
    fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / 100


def container_start(proc: pathlib.Path = pathlib.Path("/proc")) -> float:
    """When PID 1 started; see `process_start`."""
    return process_start(1, proc)


class Timeline:
    """The phases and the moments at which conditions turned true, from the container's start."""

    def __init__(
        self,
        *,
        origin: float,
        clock: collections.abc.Callable[[], float] = lambda: time.clock_gettime(
            time.CLOCK_BOOTTIME
        ),
        wall_clock: collections.abc.Callable[[], float] = time.time,
        listener: Listener = ignore,
    ) -> None:
        self._origin = origin
        self._clock = clock
        self._wall_clock = wall_clock
        self._listener = listener
        self._started_at = wall_clock() - self.now()
        self._lock = threading.Lock()
        self._phases: list[Phase] = []
        self._turned_true: dict[str, float] = {}

    def now(self) -> float:
        """Seconds since the container's start."""
        return self._clock() - self._origin

    def epoch_of(self, moment: float) -> float:
        """A moment on the timeline's own clock in seconds since the epoch; see `started_at`."""
        return self.started_at() + moment - self._origin

    def started_at(self) -> float:
        """The container's start in seconds since the epoch, as the clock tells it.

        The earlier of what it told at first and what it tells now: a clock that is set meanwhile
        must not make what happened after the start look as if it had happened before.
        """
        return min(self._started_at, self._wall_clock() - self.now())

    @contextlib.contextmanager
    def phase(self, name: str) -> collections.abc.Iterator[Phase]:
        """Record a phase around a block; one that raises keeps the duration until then."""
        phase = Phase(name, self.now())
        with self._lock:
            self._phases.append(phase)
        self._listener("phase", f"{name}: begun", phase=name, state="begun")
        try:
            yield phase
        finally:
            phase.duration = self.now() - phase.start
            seconds = round(phase.duration, 3)
            self._listener(
                "phase",
                f"{name}: ended after {seconds:.2f} s",
                phase=name,
                state="ended",
                duration=seconds,
            )

    def mark(self, condition: str, *, holds: bool, reason: str = "") -> None:
        """Note when a condition turned true; a condition that fell is noted anew.

        Args:
            condition: its name.
            holds: whether it holds now.
            reason: why it does not.
        """
        with self._lock:
            if (condition in self._turned_true) == holds:
                return
            if holds:
                self._turned_true[condition] = self.now()
            else:
                del self._turned_true[condition]
        told = f"{condition}: holds" if holds else f"{condition}: does not hold any more: {reason}"
        self._listener("condition", told, condition=condition, holds=holds, reason=reason)

    def forget(self, gone: collections.abc.Callable[[str], bool]) -> None:
        """Drop the conditions of what is gone: they neither hold nor fail any more."""
        with self._lock:
            for condition in [name for name in self._turned_true if gone(name)]:
                del self._turned_true[condition]

    def phases(self) -> list[Phase]:
        """The phases so far, oldest first."""
        with self._lock:
            return list(self._phases)

    def turned_true(self) -> dict[str, float]:
        """For each condition that holds, since when (seconds after the container's start)."""
        with self._lock:
            return dict(self._turned_true)
