"""`p8s run --volume`: what the engine is asked for."""

from __future__ import annotations

import pathlib
import typing

import pytest

from p8s_supervisor.host import clusters, mounts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "/srv/a:/data",
            {"Type": "bind", "Source": "/srv/a", "Target": "/data", "ReadOnly": False},
            id="a path",
        ),
        pytest.param(
            "./a:/data:ro",
            {"Type": "bind", "Source": str(pathlib.Path("a").resolve()), "ReadOnly": True},
            id="a relative path, read-only",
        ),
        pytest.param("cache:/data", {"Type": "volume", "Source": "cache"}, id="a volume"),
        pytest.param(
            "/srv:/data:ro,rslave",
            {"ReadOnly": True, "BindOptions": {"Propagation": "rslave"}},
            id="propagation",
        ),
    ],
)
def test_parse(text: str, expected: dict[str, typing.Any]) -> None:
    found = mounts.parse(text)
    assert {key: found.get(key) for key in expected} == expected
    options = clusters.host_options(clusters.Spec(name="dev", mounts=(found,)))
    assert options["mounts"] == [found]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("/srv", "not SOURCE:TARGET", id="no target"),
        pytest.param("/srv:data", "not SOURCE:TARGET", id="a relative target"),
        pytest.param(":/data", "not SOURCE:TARGET", id="no source"),
        pytest.param("/srv:/data:rx", "no such option: rx", id="an odd option"),
        pytest.param("/srv:/var/lib/p8s", "the node has its own", id="the state"),
        pytest.param("/srv:/", "the node has its own", id="the root"),
    ],
)
def test_what_is_no_mount(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        mounts.parse(text)
