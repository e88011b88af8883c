"""What the command prints: tables, JSON and the phases of a start, on a terminal or in a pipe."""

from __future__ import annotations

import collections.abc
import json
import os
import sys
import time
import typing

if typing.TYPE_CHECKING:
    import rich.live
    import rich.table

Rows = collections.abc.Sequence[collections.abc.Sequence[str]]
Status = collections.abc.Mapping[str, typing.Any]
# Colour says no more than the word itself does.
STYLES = {
    "ready": "green",
    "yes": "green",
    "running": "green",
    "Running": "green",
    "RUNNING": "green",
    "starting": "yellow",
    "stopping": "yellow",
    "not ready": "red",
    "no": "red",
}


def is_terminal() -> bool:
    """Whether standard output is a terminal that can do more than print lines."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def tell(line: str) -> None:
    """One line to standard output, seen at once."""
    print(line, flush=True)


def warn(message: str) -> None:
    """Something that went wrong and does not end the command, to standard error."""
    print(f"p8s: {message}", file=sys.stderr, flush=True)


def write(piece: bytes) -> None:
    """Bytes of a log to standard output, as they are, seen at once."""
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def print_json(value: object) -> None:
    """For programs: what a table shows, as JSON."""
    tell(json.dumps(value, indent=2))


def print_table(columns: collections.abc.Sequence[str], rows: Rows) -> None:
    """A table: with colour on a terminal, plain and aligned in a pipe."""
    if not is_terminal():
        tell(align(columns, rows))
        return
    import rich.console
    import rich.table
    import rich.text

    table = rich.table.Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(rich.text.Text(cell, style=STYLES.get(cell, "")) for cell in row))
    # Wider than the terminal: it wraps lines itself, and what is copied from it stays whole.
    rich.console.Console(width=10_000).print(table)


def align(columns: collections.abc.Sequence[str], rows: Rows) -> str:
    """Columns of equal width, two blanks between them and none at a line's end."""
    lines = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def age(seconds: float) -> str:
    """A duration as kubectl shows an age: 42s, 5m, 3h, 2d."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"


class PhasesInPipe:
    """The phases of a start as lines: one for each as it ends."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def show(self, status: Status) -> None:
        """Tell the phases that have ended since the last time."""
        for phase in status.get("phases", []):
            if phase["duration"] is not None and phase["name"] not in self._told:
                self._told.add(phase["name"])
                tell(f"  {phase['name']}: {phase['duration']:.1f} s")

    def close(self) -> None:
        """Nothing is left to do."""


class PhasesOnTerminal:
    """The phases of a start as a table that changes in place.

    Attributes:
        title: the line above it.
    """

    def __init__(self, title: str) -> None:
        import rich.console
        import rich.live

        self.title = title
        self._status: Status = {}
        self._started = time.monotonic()
        self._live = rich.live.Live(
            get_renderable=self._draw, console=rich.console.Console(), refresh_per_second=10
        )
        self._live.start()

    def _draw(self) -> rich.table.Table:
        import rich.table

        table = rich.table.Table(box=None, pad_edge=False, show_header=False)
        table.add_column()
        table.add_column(min_width=16)
        table.add_column(justify="right")
        phases = self._status.get("phases", [])
        for phase in phases:
            done = phase["duration"] is not None
            spent = phase["duration"] if done else self._status["uptime"] - phase["start"]
            mark = "[green]✓[/]" if done else "[yellow]…[/]"
            table.add_row(mark, phase["name"], f"{spent:.1f} s")
        if not phases:
            table.add_row("[yellow]…[/]", self.title, f"{time.monotonic() - self._started:.1f} s")
        return table

    def show(self, status: Status) -> None:
        """Show this from now on."""
        self._status = status

    def close(self) -> None:
        """Leave what was shown last."""
        self._live.stop()


Phases = PhasesInPipe | PhasesOnTerminal


def make_phases(title: str) -> Phases:
    """The view that fits standard output."""
    return PhasesOnTerminal(title) if is_terminal() else PhasesInPipe()
