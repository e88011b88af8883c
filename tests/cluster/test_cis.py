"""Every check of CIS' benchmark on a running node, as the table (cis.yaml) says that it comes out."""

from __future__ import annotations

import json
import typing

import pytest

from tests.cluster import cis, nodes

ROWS = cis.read_rows()


@pytest.fixture(scope="module")
def facts(cluster: nodes.Node) -> cis.Facts:
    """What there is to look at, asked for once."""

    def ask(*command: str) -> typing.Any:
        return json.loads(cluster.execute(*command))

    cluster.await_add_ons()
    return cis.make_facts(
        ask("python3", "-c", cis.GATHER, *cis.list_patterns(ROWS)),
        ask("kubectl", "get", "--raw=/api/v1/nodes/p8s/proxy/configz"),
        ask("kubectl", "get", cis.KINDS, "--all-namespaces", "--output=json")["items"],
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_check_comes_out_as_the_table_says(facts: cis.Facts, row: cis.Row) -> None:
    found = cis.holds(row, facts)
    if row.exception:
        assert not found, f"it passes: the exception is needed no more ({row.look})"
    else:
        assert found, f"it does not pass: {row.wants} ({row.look})"
