"""Add-ons: which run, what is applied and kept of them, and how they are switched."""

from __future__ import annotations

import json
import pathlib
import threading
import typing

import pytest

from p8s_supervisor import (
    add_on_record,
    add_on_removal,
    add_on_switches,
    add_ons,
    applying,
    catalogue,
    context,
    errors,
    health,
    kube,
    setup,
)
from tests import fakes

MAP = "{apiVersion: v1, kind: ConfigMap, metadata: {name: %s, namespace: dev}}\n"
REFUSAL = errors.KubeError("spec: no", status=422)


def path(name: str) -> str:
    return f"/api/v1/namespaces/dev/configmaps/{name}"


def write_own(root: pathlib.Path, name: str, *maps: str) -> None:
    """A user's add-on with ConfigMaps, a file for each."""
    top = root / "etc/p8s/add-ons" / name
    top.mkdir(parents=True, exist_ok=True)
    for file in top.iterdir():
        file.unlink()
    for each in maps:
        (top / f"{each}.yaml").write_text(MAP % each)


class World:
    """A cluster with a user's add-on `mine` of two ConfigMaps."""

    def __init__(self, root: pathlib.Path, *flags: str) -> None:
        self.story: list[str] = []
        self.client = fakes.KubeClient({"GET /version": ["{}"]})
        self.run = fakes.make_context(root, *flags, client=self.client, story=self.story)
        setup.write_kubelet_config(self.run, ())
        write_own(root, "mine", "a", "b")
        for name in "ab":
            self.client.answers[f"PATCH {path(name)}"] = ["{}"]
            self.client.answers[f"DELETE {path(name)}"] = ["{}"]
            self.client.answers[f"GET {path(name)}"] = [errors.KubeError("gone", status=404)]

    @property
    def record(self) -> add_on_record.Record:
        return add_ons.read_record(self.run)


@pytest.fixture
def world(tmp_path: pathlib.Path) -> World:
    return World(tmp_path)


REFERENCES = [("v1", "ConfigMap", "dev", "a"), ("v1", "ConfigMap", "dev", "b")]


def test_one_that_was_asked_for_is_there_before_ready(tmp_path: pathlib.Path) -> None:
    world = World(tmp_path, "--add-ons=mine")
    add_ons.announce(world.run)
    assert world.run.refused == {"add-on/mine": "it is not applied yet"}
    add_ons.apply_refused(world.run, world.client)
    assert world.run.refused == {}
    assert add_ons.find_lack(world.run, "mine") is None
    assert world.record.applied == {"mine": REFERENCES}
    assert world.run.changed_at > 0  # no look of before is believed


def test_the_default_one_comes_after_ready(
    world: World, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / catalogue.PROGRAMS / "local-path-provisioner"
    program.parent.mkdir(parents=True)
    program.touch()
    add_ons.announce(world.run)
    assert world.run.refused == {}
    assert not world.run.add_ons["storage"].is_counted
    applied: list[str] = []

    def apply(run: context.Context, _: kube.Client, name: str) -> list[str]:
        run.add_ons[name].is_applied = True
        applied.append(name)
        return []

    monkeypatch.setattr(add_ons, "apply", apply)
    add_ons.settle(world.run, world.client, health.Monitor(world.run))
    assert applied == ["storage"]
    assert world.run.add_ons["storage"].is_counted


def test_a_default_one_that_the_image_lacks_is_no_failure(world: World) -> None:
    add_ons.announce(world.run)
    assert (world.run.add_ons, world.run.refused) == ({}, {})


def test_one_that_was_switched_on_and_is_gone_is_told(world: World) -> None:
    record = add_on_record.Record()
    record.switch("gone", on=True, setting="storage")
    add_ons.write_record(world.run, record)
    add_ons.announce(world.run)
    assert "there is no add-on 'gone'" in world.run.refused["add-on/gone"]


def test_one_whose_directory_is_missing_keeps_what_it_brought(
    world: World, tmp_path: pathlib.Path
) -> None:
    add_on_switches.enable(world.run, "mine")
    again = World(tmp_path)
    (tmp_path / "etc/p8s/add-ons/mine").rename(tmp_path / "elsewhere")
    add_ons.announce(again.run)
    add_ons.settle(again.run, again.client, health.Monitor(again.run))
    assert again.record.applied == {"mine": REFERENCES}
    (shown,) = [each for each in add_on_switches.describe(again.run) if each["name"] == "mine"]
    assert (shown["enabled"], shown["usable"]) == (True, False)
    add_on_switches.disable(again.run, "mine")
    assert (again.run.refused, again.record.applied) == ({}, {})


def test_enable_and_disable(world: World) -> None:
    assert add_on_switches.enable(world.run, "mine") == ["ConfigMap dev/a", "ConfigMap dev/b"]
    assert world.record.choose("storage", ("storage",)) == ["storage", "mine"]
    assert world.run.add_ons["mine"].is_counted
    assert add_on_switches.disable(world.run, "mine") == ["ConfigMap dev/b", "ConfigMap dev/a"]
    assert world.record.applied == {}
    assert world.record.switched == {"mine": False}
    assert world.run.add_ons == {}
    assert add_on_switches.disable(world.run, "mine") == []


def test_what_is_refused_is_named_and_the_rest_is_applied(world: World) -> None:
    world.client.answers[f"PATCH {path('a')}"] = [REFUSAL]
    with pytest.raises(errors.RequestError) as caught:
        add_on_switches.enable(world.run, "mine")
    assert caught.value.status == 502
    assert "add-on/mine/a.yaml: ConfigMap dev/a: spec: no" in caught.value.message
    assert f"PATCH {path('b')}" in world.client.asked
    assert list(world.run.refused) == ["add-on/mine/a.yaml"]
    (shown,) = [each for each in add_on_switches.describe(world.run) if each["name"] == "mine"]
    assert (shown["enabled"], shown["usable"]) == (True, False)
    assert shown["reason"] == "a.yaml: ConfigMap dev/a: spec: no"
    add_on_switches.disable(world.run, "mine")
    assert world.run.refused == {}


def test_what_an_add_on_has_no_more_is_taken_away(world: World, tmp_path: pathlib.Path) -> None:
    add_on_switches.enable(world.run, "mine")
    write_own(tmp_path, "mine", "b")
    add_ons.apply(world.run, world.client, "mine")
    assert f"DELETE {path('a')}" in world.client.asked
    assert world.record.applied == {"mine": REFERENCES[1:]}


def test_what_cannot_be_taken_away_is_kept_in_mind(
    world: World, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_on_switches.enable(world.run, "mine")
    write_own(tmp_path, "mine", "b")

    def refuse(*_: object, **__: object) -> typing.NoReturn:
        raise errors.KubeError("denied", status=403)

    monkeypatch.setattr(add_on_removal, "remove", refuse)
    add_ons.apply(world.run, world.client, "mine")
    assert world.record.applied == {"mine": REFERENCES}
    assert world.story[-1] == "add-on mine: what it has no more is not taken away: denied"


def test_what_is_not_wanted_any_more_goes_at_the_start(world: World) -> None:
    add_ons.write_record(world.run, add_on_record.Record(applied={"mine": REFERENCES}))
    add_ons.announce(world.run)
    add_ons.settle(world.run, world.client, health.Monitor(world.run))
    assert world.record.applied == {}
    assert f"DELETE {path('a')}" in world.client.asked


@pytest.mark.parametrize(
    ("name", "status"),
    [pytest.param("nix", 404, id="unknown"), pytest.param("metrics", 409, id="not in the image")],
)
def test_what_cannot_be_enabled(world: World, name: str, status: int) -> None:
    with pytest.raises(errors.RequestError) as caught:
        add_on_switches.enable(world.run, name)
    assert caught.value.status == status
    assert world.record == add_on_record.Record()


def test_what_goes_wrong_with_one_is_a_condition(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> typing.NoReturn:
        raise KeyError("NAME")

    world.run.add_ons["mine"] = context.AddOn(is_counted=True)
    monkeypatch.setattr(add_ons, "read", fail)
    add_ons.try_to_apply(world.run, world.client, "mine")
    assert world.run.refused == {"add-on/mine": "KeyError('NAME')"}


def test_one_that_cannot_be_applied_at_all_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> typing.NoReturn:
        raise errors.P8sError("a CA has expired")

    monkeypatch.setattr(add_ons, "read", fail)
    with pytest.raises(errors.P8sError, match="a CA has expired"):
        add_on_switches.enable(world.run, "mine")
    assert world.run.refused == {"add-on/mine": "a CA has expired"}
    monkeypatch.undo()
    add_ons.apply_refused(world.run, world.client)
    assert world.run.refused == {}


def test_without_an_apiserver_nothing_is_switched(world: World) -> None:
    world.client.answers["GET /version"] = [errors.KubeError("refused", status=0)]
    for switch in (add_on_switches.enable, add_on_switches.disable):
        with pytest.raises(errors.RequestError) as caught:
            switch(world.run, "mine")
        assert caught.value.status == 503
    assert world.record == add_on_record.Record()


def test_with_a_damaged_record_the_settings_count(world: World) -> None:
    world.run.plan.paths.add_on_record.write_text("{")
    add_ons.announce(world.run)
    assert (world.run.add_ons, world.record) == ({}, add_on_record.Record())


class Part:
    """An add-on's part of the sidecar."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.begun = threading.Event()

    def begin(self, _: context.Context, ended: threading.Event) -> None:
        self.calls.append("begin")
        self.begun.set()
        ended.wait()
        self.calls.append("end")

    def find_lack(self, _: context.Context) -> str | None:
        return "not yet" if "end" in self.calls else None

    def clear(self, _: context.Context, __: kube.Client) -> None:
        self.calls.append("clear")


def test_a_part_of_the_sidecar_runs_as_long_as_the_add_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Part()
    monkeypatch.setattr(add_ons, "find_function", lambda _, name: getattr(part, name, None))
    add_on_switches.enable(world.run, "mine")
    assert part.begun.wait(5)
    add_ons.apply(world.run, world.client, "mine")  # again: it goes on
    assert add_ons.find_lack(world.run, "mine") is None
    add_on_switches.disable(world.run, "mine")
    assert part.calls == ["begin", "end", "clear"]


def test_a_part_that_fails_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(_: context.Context, __: threading.Event) -> typing.NoReturn:
        raise OSError("no such device")

    part = {"begin": begin}
    monkeypatch.setattr(add_ons, "find_function", lambda _, name: part.get(name))
    add_on_switches.enable(world.run, "mine")
    thread = world.run.add_ons["mine"].thread
    assert thread is not None
    thread.join(5)
    told = "its part of the sidecar ended: OSError: no such device"
    assert add_ons.find_lack(world.run, "mine") == told


def test_every_part_in_the_table_has_functions_that_are_called() -> None:
    called = ("values", "begin", "find_lack", "clear")
    for name, row in catalogue.TABLE.items():
        if row.part:
            assert any(add_ons.find_function(name, function) for function in called), name


def test_the_user_s_are_read_like_manifests(world: World) -> None:
    items, broken = add_ons.read(world.run, "mine")
    assert all(isinstance(item, applying.Item) for item in items)
    assert ([item.file for item in items], broken) == (["a.yaml", "b.yaml"], {})


def test_kubelet_is_started_again_where_an_add_on_wants_another_configuration(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = catalogue.AddOn(summary="", kubelet={"featureGates": {"A": True}})
    monkeypatch.setattr(add_ons, "read", lambda *_: ([], {}))
    monkeypatch.setitem(catalogue.TABLE, "wants", row)
    kubelet = world.run.supervisor
    assert isinstance(kubelet, fakes.Supervisor)
    add_on_switches.enable(world.run, "wants")
    assert kubelet.calls == [("stop", "kubelet"), ("start", "kubelet")]
    config = json.loads(world.run.plan.paths.kubelet_config.read_text())
    assert config["featureGates"] == {"A": True}
    add_ons.apply(world.run, world.client, "wants")
    assert len(kubelet.calls) == 2
    add_on_switches.disable(world.run, "wants")
    assert len(kubelet.calls) == 4
    assert "featureGates" not in json.loads(world.run.plan.paths.kubelet_config.read_text())


@pytest.mark.parametrize(
    ("version", "given"), [("v1.36.0", True), ("v1.35.9", False)], ids=["it", "one before"]
)
def test_kubelet_is_given_an_add_on_s_fields_from_a_minor_on(
    world: World, monkeypatch: pytest.MonkeyPatch, version: str, *, given: bool
) -> None:
    row = catalogue.AddOn(summary="", kubelet={"featureGates": {"A": True}}, kubelet_since=36)
    monkeypatch.setitem(catalogue.TABLE, "wants", row)
    world.run.versions["kubernetes"] = version
    setup.write_kubelet_config(world.run, ["wants"])
    config = json.loads(world.run.plan.paths.kubelet_config.read_text())
    assert config.get("featureGates") == ({"A": True} if given else None)
