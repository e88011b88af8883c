"""The journal: what happened in this run, bounded, for readers that wait for the next event."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import itertools
import threading
import time
import typing

# As many as a reader can fall behind before it misses some.
SIZE = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened.

    Attributes:
        id: grows with each event, and from run to run.
        time: seconds since the epoch.
        kind: "phase", "condition", "ready", "restart", "warning", "stop", "failure", …
        message: one sentence for people.
        data: the same for programs; can be written as JSON.
    """

    id: int
    time: float
    kind: str
    message: str
    data: dict[str, typing.Any]


class Journal:
    """The latest events of a run. Safe to share between threads, and with signal handlers.

    A handler may run while its own thread is in one of these methods, so the lock is one that a
    thread can take twice, and the number of an event comes from a counter that cannot be
    interrupted.
    """

    def __init__(
        self,
        *,
        size: int = SIZE,
        clock: collections.abc.Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        # From the milliseconds of now on: a reader that comes back with the last id of an earlier
        # run gets all of this one.
        self._numbers = itertools.count(int(1000 * clock()))
        self._events: collections.deque[Event] = collections.deque(maxlen=size)
        self._changed = threading.Condition(threading.RLock())

    def record(self, kind: str, message: str, /, **data: typing.Any) -> None:
        """Note an event, and wake whoever waits for one.

        Args:
            kind: see `Event`.
            message: one sentence for people.
            **data: the same for programs. No secret: whoever may read the API sees it.
        """
        with self._changed:
            self._events.append(
                Event(
                    id=next(self._numbers),
                    time=self._clock(),
                    kind=kind,
                    message=message,
                    data=data,
                )
            )
            self._changed.notify_all()

    def read(self, after: int = 0, *, seconds: float = 0) -> list[Event]:
        """The events after one, oldest first; waits for the first of them.

        Args:
            after: the last id that the caller has seen, in this run or an earlier one; 0 for all.
            seconds: how long to wait where there is none.

        Returns:
            Empty where nothing happened meanwhile.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._newer(after), timeout=seconds)
            return self._newer(after)

    def _newer(self, after: int) -> list[Event]:
        # Sorted: a handler may have come between an event's number and its place.
        found = (event for event in self._events if event.id > after)
        return sorted(found, key=lambda event: event.id)
