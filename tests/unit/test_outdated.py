"""The script that compares pins with the registries."""

from __future__ import annotations

import pathlib
import runpy
import typing

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts/outdated.py"


@pytest.fixture
def script() -> dict[str, typing.Any]:
    return runpy.run_path(str(SCRIPT), run_name="loaded")


@pytest.mark.parametrize(
    ("pinned", "released", "newest"),
    [
        pytest.param("v1.37.2", ["v1.37.1", "v1.37.2"], "v1.37.2", id="the newest"),
        pytest.param("v3.6.9", ["v3.6.9", "v3.6.16"], "v3.6.16", id="numbers, not text"),
        pytest.param("v1.37.2", ["v1.38.0", "v2.37.9"], "v1.37.2", id="another line"),
        pytest.param("1.26.8", ["1.26", "1.26.11", "1.260.99"], "1.26.11", id="Go"),
        pytest.param("v2.3.7", ["v2.3.8-rc.1"], "v2.3.7", id="no release yet"),
        pytest.param("v1.37.2", [], "v1.37.2", id="a list that lacks it"),
    ],
)
def test_the_newest_is_a_patch_of_the_same_line(
    script: dict[str, typing.Any], pinned: str, released: list[str], newest: str
) -> None:
    assert script["find_newest"](pinned, released) == newest


def test_every_component_s_pins_are_found(
    script: dict[str, typing.Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    look = script["look_at_module"]
    monkeypatch.setitem(look.__globals__, "run", lambda *_, **__: "module v0.0.1")
    modules = script["MODULES"]
    minors = {place.removeprefix("kubernetes/") for place in modules if "/" in place}
    assert len(minors) == 3
    assert set(modules) - {f"kubernetes/{minor}" for minor in minors} == {
        "etcd",
        "containerd",
        "coredns",
        "cni",
        "storage",
        "metrics",
        "ingress",
        "registry",
    }
    for place, module in modules.items():
        own, toolchain = look(place)
        assert own[0] == module
        assert own[1].startswith("v")
        if "/" in place:
            assert own[1].startswith(f"v{place.removeprefix('kubernetes/')}.")
        assert toolchain[1].count(".") == 2


@pytest.mark.parametrize(
    ("released", "newest"),
    [
        pytest.param("v1.36.3 v1.37.2", "1.37", id="the newest"),
        pytest.param("v1.9.11 v1.37.2 v1.38.0", "1.38", id="a newer one"),
        pytest.param("v1.37.2 v1.38.0-rc.1", "1.37", id="no release yet"),
        pytest.param("", "1.37", id="a list that lacks it"),
    ],
)
def test_a_minor_that_is_not_here_is_told(
    script: dict[str, typing.Any], monkeypatch: pytest.MonkeyPatch, released: str, newest: str
) -> None:
    look = script["look_at_minors"]
    modules = {"kubernetes/1.9": "", "kubernetes/1.37": "", "etcd": ""}
    monkeypatch.setitem(look.__globals__, "MODULES", modules)
    monkeypatch.setitem(look.__globals__, "run", lambda *_: f"k8s.io/kubernetes {released}\n")
    assert look() == [("Kubernetes' newest minor", "1.37", newest)]


NEWEST = [("etcd", "v3.6.16", "v3.6.16")]
OLDER = [("etcd", "v3.6.15", "v3.6.16")]


@pytest.mark.parametrize(
    ("module", "debian", "code", "told"),
    [
        pytest.param(NEWEST, NEWEST, 0, "newest: etcd v3.6.16 → v3.6.16", id="newest"),
        pytest.param(OLDER, NEWEST, 1, "OUTDATED: etcd v3.6.15 → v3.6.16", id="older"),
        pytest.param(NEWEST, None, 3, "no answer: Debian: no route", id="silent"),
        pytest.param(OLDER, None, 1, "no answer: Debian: no route", id="older and silent"),
        pytest.param(None, OLDER, 1, "OUTDATED: etcd", id="silent, then older"),
    ],
)
def test_the_exit_code_tells_the_worst(
    *,
    script: dict[str, typing.Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: list[tuple[str, str, str]] | None,
    debian: list[tuple[str, str, str]] | None,
    code: int,
    told: str,
) -> None:
    def answer(
        rows: list[tuple[str, str, str]] | None,
    ) -> typing.Callable[..., list[tuple[str, str, str]]]:
        def look(*_: str) -> list[tuple[str, str, str]]:
            if rows is None:
                raise RuntimeError("no route")
            return rows

        return look

    main = script["main"]
    others = (("minors", NEWEST), ("python", NEWEST))
    for name, rows in (("module", module), ("debian", debian), *others):
        monkeypatch.setitem(main.__globals__, f"look_at_{name}", answer(rows))
    assert main([]) == code
    assert told in capsys.readouterr().out
