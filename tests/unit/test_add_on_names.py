"""Which add-ons there are, and what is wrong with those that the settings name."""

from __future__ import annotations

import pathlib

import pytest

from p8s_supervisor import add_on_names, catalogue, paths
from tests import fakes


def make_own(root: pathlib.Path, *names: str) -> pathlib.Path:
    top = root / "etc/p8s/add-ons"
    for name in names:
        (top / name).mkdir(parents=True)
    return top


def make_programs(root: pathlib.Path, *names: str) -> None:
    for name in names:
        for program in catalogue.TABLE[name].programs:
            file = root / catalogue.PROGRAMS / program
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()


def test_own_add_ons_are_directories_with_names_of_add_ons(tmp_path: pathlib.Path) -> None:
    top = make_own(tmp_path, "b", "a", ".git", "Upper", "storage")
    (top / "file").touch()
    assert add_on_names.list_own(top) == ["a", "b"]


def test_without_the_directory_there_are_none(tmp_path: pathlib.Path) -> None:
    assert add_on_names.list_own(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        pytest.param("metric", "did you mean metrics? There are: storage, ", id="near"),
        pytest.param("x1", "there is no add-on 'x1'. There are: ", id="far"),
        pytest.param("mina", "did you mean mine? ", id="the user's own"),
    ],
)
def test_an_unknown_name_lists_the_known_ones(name: str, told: str) -> None:
    sentence = add_on_names.tell_unknown(name, ["mine"])
    assert told in sentence
    assert sentence.endswith(", ".join([*catalogue.TABLE, "mine"]))


@pytest.mark.parametrize(
    ("flags", "own", "wrong"),
    [
        pytest.param([], [], [], id="the default, in an image without storage"),
        pytest.param(["--add-ons=none"], [], [], id="none"),
        pytest.param(["--add-ons=mine"], ["mine"], [], id="the user's own"),
        pytest.param(
            ["--add-ons=metrics"],
            [],
            ["add_ons: this image does not have metrics: use p8s:full"],
            id="not in this image",
        ),
        pytest.param(
            ["--add-ons=minne,nix"],
            ["mine"],
            ["add_ons: there is no add-on 'minne'; did you mean mine?", "add_ons: there is no add"],
            id="each unknown one",
        ),
        pytest.param(
            [],
            ["storage"],
            ["add_on_directories: ROOT/etc/p8s/add-ons/storage has the name of an add-on of p8s"],
            id="a name that is taken",
        ),
        pytest.param(
            ["--add-on-directories=/none"],
            [],
            ["add_on_directories: ROOT/none: there is no such directory in the node"],
            id="no directory",
        ),
    ],
)
def test_mistakes(
    tmp_path: pathlib.Path, flags: list[str], own: list[str], wrong: list[str]
) -> None:
    make_own(tmp_path, *own)
    found = add_on_names.find_mistakes(fakes.load_settings(*flags), paths.Paths(tmp_path))
    expected = [sentence.replace("ROOT", str(tmp_path)) for sentence in wrong]
    assert [told[: len(start)] for told, start in zip(found, expected, strict=True)] == expected


def test_a_port_of_the_node_s_own_cannot_be_an_add_on_s(tmp_path: pathlib.Path) -> None:
    make_programs(tmp_path, "ingress")
    loaded = fakes.load_settings("--add-ons=ingress", "--api-port=443")
    (wrong,) = add_on_names.find_mistakes(loaded, paths.Paths(tmp_path))
    assert wrong.startswith("add_ons: ingress takes port 443, which is api_port: ")


def test_what_the_image_has_is_no_mistake(tmp_path: pathlib.Path) -> None:
    make_programs(tmp_path, "metrics")
    loaded = fakes.load_settings("--add-ons=metrics")
    assert add_on_names.find_mistakes(loaded, paths.Paths(tmp_path)) == []
