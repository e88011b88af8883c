"""The cluster's ranges: others than the default ones where docker's network has these."""

from __future__ import annotations

import ipaddress
import json
import pathlib

import pytest

from p8s_supervisor import parsers, ranges
from tests import fakes

USUAL = ("192.168.254.0/24", "192.168.253.0/24")
LAST = ipaddress.ip_network("192.168.240.0/20")
TEN = ipaddress.ip_network("10.0.0.0/8")
FIRST = ipaddress.ip_network("172.17.0.0/16")
SIX = ipaddress.ip_network("fd00:7::/64")


@pytest.mark.parametrize(
    ("networks", "kept", "chosen"),
    [
        pytest.param([FIRST, SIX], None, USUAL, id="no overlap"),
        pytest.param([LAST], None, ranges.OTHERS[0], id="an overlap"),
        pytest.param([FIRST, LAST, TEN], None, ranges.OTHERS[1], id="of the first other one too"),
        pytest.param(
            [LAST, TEN, ipaddress.ip_network("172.16.0.0/12")], None, USUAL, id="of every one: told"
        ),
        pytest.param([FIRST], ranges.OTHERS[0], ranges.OTHERS[0], id="made with others"),
        pytest.param([LAST], USUAL, USUAL, id="made with the usual ones: told"),
        pytest.param(
            [FIRST], ("10.1.0.0/24", "10.2.0.0/24"), USUAL, id="made with given ones: told"
        ),
    ],
)
def test_the_ranges(
    tmp_path: pathlib.Path,
    networks: list[parsers.Network],
    kept: tuple[str, str] | None,
    chosen: tuple[str, str],
) -> None:
    record = tmp_path / "cluster.json"
    if kept:
        record.write_text(json.dumps(dict(zip(ranges.NAMES, kept, strict=True))))
    found = ranges.choose(fakes.load_settings(), networks, record)
    assert (str(found.settings.service_cidr), str(found.settings.pod_cidr)) == chosen
    assert (found.texts["service_cidr"], found.texts["pod_cidr"]) == chosen
    assert (found.sources["pod_cidr"] == "default") == (chosen == USUAL)


def test_what_somebody_chose_is_left_alone(tmp_path: pathlib.Path) -> None:
    loaded = fakes.load_settings("--pod-cidr=192.168.241.0/24")
    assert ranges.choose(loaded, [LAST], tmp_path / "none") is loaded


def test_a_damaged_record_is_left_to_those_who_tell_of_it(tmp_path: pathlib.Path) -> None:
    record = tmp_path / "cluster.json"
    record.write_text("{")
    found = ranges.choose(fakes.load_settings(), [FIRST], record)
    assert str(found.settings.pod_cidr) == USUAL[1]
