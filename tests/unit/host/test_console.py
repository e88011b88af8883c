"""Tables and phases, on a terminal and in a pipe."""

from __future__ import annotations

import io

import pytest

from p8s_supervisor.host import console
from tests import host_fakes


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("columns", "rows", "expected"),
    [
        pytest.param(("A", "B"), [], "A  B", id="no rows"),
        pytest.param(
            ("NAME", "N"), [("a", "1"), ("longer", "22")], "NAME    N\na       1\nlonger  22",
            id="aligned",
        ),
        pytest.param(("A", "B"), [("x", "")], "A  B\nx", id="no blanks at the end"),
    ],
)  # fmt: skip
def test_plain_tables(columns: tuple[str, ...], rows: list[tuple[str, ...]], expected: str) -> None:
    assert console.align(columns, rows) == expected


def test_a_table_in_a_pipe_has_no_colour(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_table(("NAME", "STATE"), [("a", "ready")])
    assert capsys.readouterr().out == "NAME  STATE\na     ready\n"


def test_a_table_on_a_terminal_has_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    console.print_table(("NAME", "STATE"), [("[red]a", "ready"), ("long" * 20, "x")])
    told = terminal.getvalue()
    assert "long" * 20 in told, "no cell is cut or wrapped"
    assert "\x1b[32mready" in told
    assert "[red]a" in told, "a cell is no markup"


@pytest.mark.parametrize(
    ("tty", "term", "expected"),
    [(True, "xterm", True), (True, "dumb", False), (False, "xterm", False)],
)
def test_what_a_terminal_is(
    monkeypatch: pytest.MonkeyPatch, tty: bool, term: str, expected: bool
) -> None:
    monkeypatch.setattr("sys.stdout", Terminal() if tty else io.StringIO())
    monkeypatch.setenv("TERM", term)
    assert console.is_terminal() is expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-3, "0s"), (0, "0s"), (59.4, "59s"), (60, "1m"), (3599, "59m"), (7300, "2h"), (180000, "2d")],
)
def test_ages(seconds: float, expected: str) -> None:
    assert console.age(seconds) == expected


def test_phases_in_a_pipe_are_told_once_as_they_end(capsys: pytest.CaptureFixture[str]) -> None:
    phases = console.make_phases("a starts")
    running = {"name": "readiness", "start": 2.5, "duration": None}
    phases.show({"phases": [host_fakes.STATUS["phases"][0], running], "uptime": 3.0})
    phases.show({"phases": [host_fakes.STATUS["phases"][0], running], "uptime": 3.1})
    assert capsys.readouterr().out == "  setup: 0.1 s\n"
    phases.show(host_fakes.STATUS)
    phases.close()
    assert capsys.readouterr().out == "  readiness: 1.4 s\n"


def test_phases_on_a_terminal_end_with_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    phases = console.make_phases("a starts")
    running = {"name": "readiness", "start": 2.5, "duration": None}
    phases.show({"phases": [running], "uptime": 3.0})
    phases.show(host_fakes.STATUS)
    phases.close()
    last = terminal.getvalue().rpartition("setup")[2]
    assert "0.1 s" in last
    assert "readiness" in last
    assert "1.4 s" in last


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({"a": [1]})
    assert capsys.readouterr().out == '{\n  "a": [\n    1\n  ]\n}\n'
