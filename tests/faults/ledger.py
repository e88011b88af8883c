"""What was written and acknowledged, and the comparison with what is there afterwards."""

from __future__ import annotations

import collections.abc
import dataclasses
import threading


@dataclasses.dataclass(frozen=True)
class State:
    """An object as it was written.

    Attributes:
        data: what is in it; None where it was deleted.
        version: its resourceVersion, where the apiserver has told it.
    """

    data: str | None
    version: str | None = None

    def fits(self, found: State) -> bool:
        """Whether what was found is this."""
        return self.data == found.data and self.version in (None, found.version)


GONE = State(None)


class Ledger:
    """Each object's possible states. Safe to share between threads that write other objects.

    One that was acknowledged is the only possible one. A write without an answer may have happened
    or not: its object may be as it was before, or as was asked for.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._possible: dict[str, list[State]] = {}
        self.acknowledged = 0
        self.in_doubt = 0

    def acknowledge(self, name: str, state: State) -> None:
        """The apiserver said that it is done."""
        with self._lock:
            self._possible[name] = [state]
            self.acknowledged += 1

    def doubt(self, name: str, wanted: State) -> None:
        """There was no answer, or one that says nothing of what has happened."""
        with self._lock:
            self._possible.setdefault(name, [GONE]).append(wanted)
            self.in_doubt += 1

    def compare(self, found: collections.abc.Mapping[str, State]) -> list[str]:
        """What is not as it must be; empty where nothing was lost.

        Args:
            found: every object that is there now.
        """
        with self._lock:
            wrong = [
                f"{name}: {found.get(name, GONE)}, but it must be {' or '.join(map(str, possible))}"
                for name, possible in self._possible.items()
                if not any(state.fits(found.get(name, GONE)) for state in possible)
            ]
            unknown = found.keys() - self._possible.keys()
        return wrong + [f"{name}: nobody wrote it" for name in sorted(unknown)]
