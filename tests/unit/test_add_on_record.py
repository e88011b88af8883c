"""What the state volume says of add-ons, and what follows from it with the settings."""

from __future__ import annotations

import pathlib

import pytest

from p8s_supervisor import add_on_record


def test_what_is_written_is_read_again(tmp_path: pathlib.Path) -> None:
    record = add_on_record.Record(
        setting="storage",
        switched={"metrics": True},
        applied={"metrics": [("v1", "Namespace", "", "p8s-metrics")]},
    )
    add_on_record.write(tmp_path / "record.json", record)
    assert add_on_record.read(tmp_path / "record.json") == record


def test_without_a_file_nothing_is_known(tmp_path: pathlib.Path) -> None:
    assert add_on_record.read(tmp_path / "none") == add_on_record.Record()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("[]", id="not an object"),
        pytest.param('{"setting": "", "switched": {}}', id="a part of it"),
        pytest.param('{"setting": "", "switched": {}, "applied": {"a": [["v1"]]}}', id="short"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: pathlib.Path, text: str) -> None:
    file = tmp_path / "record.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"record\.json: "):
        add_on_record.read(file)


@pytest.mark.parametrize(
    ("switched", "setting", "chosen"),
    [
        pytest.param({}, "storage", ["storage"], id="nothing by hand"),
        pytest.param({"metrics": True}, "storage", ["storage", "metrics"], id="on"),
        pytest.param({"storage": False}, "storage", [], id="off"),
        pytest.param({"storage": True}, "storage", ["storage"], id="on that is on"),
        pytest.param({"metrics": False}, "storage", ["storage"], id="off that is off"),
        pytest.param(
            {"storage": False, "metrics": True},
            "storage,own",
            ["storage", "own"],
            id="other setting",
        ),
    ],
)
def test_what_is_to_run(switched: dict[str, bool], setting: str, chosen: list[str]) -> None:
    record = add_on_record.Record()
    for name, on in switched.items():
        record.switch(name, on=on, setting="storage")
    assert record.choose(setting, tuple(setting.split(","))) == chosen


def test_a_switch_under_another_setting_forgets_the_earlier_ones() -> None:
    record = add_on_record.Record()
    record.switch("metrics", on=True, setting="storage")
    record.switch("own", on=True, setting="none")
    assert (record.setting, record.switched) == ("none", {"own": True})


def test_how_an_object_is_kept() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b"}}
    assert add_on_record.refer(pod) == ("v1", "Pod", "b", "a")
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}}
    assert add_on_record.refer(node) == ("v1", "Node", "", "a")
