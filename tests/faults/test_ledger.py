"""The comparison finds what a fault has lost: without that, no other test here says anything."""

from __future__ import annotations

import pytest

from tests.faults import ledger

ONE = ledger.State("one", "5")
TWO = ledger.State("two", "6")
WANTED = ledger.State("two")


def make(*written: tuple[str, ledger.State]) -> ledger.Ledger:
    """A ledger of `a`; "ack" or "doubt" with each state, in order."""
    made = ledger.Ledger()
    for how, state in written:
        (made.acknowledge if how == "ack" else made.doubt)("a", state)
    return made


@pytest.mark.parametrize(
    ("written", "found", "wrong"),
    [
        pytest.param([("ack", ONE)], ONE, False, id="there"),
        pytest.param([("ack", ONE)], ledger.GONE, True, id="lost"),
        pytest.param([("ack", ONE)], ledger.State("else", "5"), True, id="another content"),
        pytest.param([("ack", ONE)], ledger.State("one", "9"), True, id="written again"),
        pytest.param([("ack", ONE), ("ack", TWO)], TWO, False, id="updated"),
        pytest.param([("ack", ONE), ("ack", TWO)], ONE, True, id="an update is lost"),
        pytest.param([("ack", ONE), ("ack", ledger.GONE)], ledger.GONE, False, id="deleted"),
        pytest.param([("ack", ONE), ("ack", ledger.GONE)], ONE, True, id="a delete is lost"),
        pytest.param([("doubt", WANTED)], ledger.GONE, False, id="no answer, not made"),
        pytest.param([("doubt", WANTED)], TWO, False, id="no answer, made"),
        pytest.param([("doubt", WANTED)], ONE, True, id="no answer, made as another"),
        pytest.param([("ack", ONE), ("doubt", WANTED)], ONE, False, id="no answer, as before"),
        pytest.param([("ack", ONE), ("doubt", WANTED)], TWO, False, id="no answer, updated"),
        pytest.param([("ack", ONE), ("doubt", WANTED)], ledger.GONE, True, id="no answer, lost"),
        pytest.param(
            [("ack", ONE), ("doubt", ledger.GONE)], ledger.GONE, False, id="maybe deleted"
        ),
        pytest.param([], ONE, True, id="from nowhere"),
    ],
)
def test_compare(written: list[tuple[str, ledger.State]], found: ledger.State, wrong: bool) -> None:
    there = {} if found == ledger.GONE else {"a": found}
    assert bool(make(*written).compare(there)) == wrong


def test_a_problem_names_the_object() -> None:
    (told,) = make(("ack", ONE)).compare({})
    assert told.startswith("a: ")
    assert "one" in told
