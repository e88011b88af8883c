"""Applying objects: in order, bounded, with the reason for each that is refused."""

from __future__ import annotations

import pathlib
import typing

import pytest

from p8s_supervisor import (
    admission,
    applying,
    context,
    errors,
    kube,
    manifests,
    reset,
    user_images,
    user_manifests,
)
from tests import fakes

REFUSED = errors.KubeError("[Errno 111] Connection refused", status=0)
HOOK = 'failed calling webhook "x": service "nobody" not found'
SILENT = errors.KubeError("Read timed out", status=0)
NO_KIND = errors.KubeError("the apiserver has no Widget in example.com/v1", status=404)
NO_NAMESPACE = errors.KubeError('namespaces "later" not found', status=404)


class Client(kube.Client):
    """An apiserver that answers an apply.

    Attributes:
        answers: name → what its applies raise in turn; the last one ever after.
        asked: the names of what was to be applied, with the seconds for it.
    """

    def __init__(
        self,
        clock: fakes.Clock,
        answers: dict[str, list[errors.KubeError | None]],
        *,
        takes: float = 0,
    ) -> None:
        self.answers, self.asked = answers, list[tuple[str, float]]()
        self._clock, self._takes = clock, takes

    def apply(
        self, manifest: kube.Object, *, seconds: float = 5, manager: str = kube.FIELD_MANAGER
    ) -> None:
        name = manifest["metadata"]["name"]
        self.asked.append((name, seconds))
        self._clock.now += self._takes
        given = self.answers.get(name, [None])
        answer = given.pop(0) if len(given) > 1 else given[0]
        if answer is not None:
            named = f"{manifest['kind']} {name}: {answer.message}"
            raise errors.KubeError(named, status=answer.status)

    def request(self, method: str, path: str, **_: typing.Any) -> str:
        assert path.startswith(admission.CONFIGURATIONS)
        return '{"items": []}'


def item(name: str, kind: str = "ConfigMap", file: str = "a.yaml") -> applying.Item:
    return applying.Item(file=file, manifest={"kind": kind, "metadata": {"name": name}})


def apply(
    client: Client, clock: fakes.Clock, *items: applying.Item, seconds: float = 30
) -> applying.Outcome:
    return applying.apply(client, items, seconds=seconds, longest=12, clock=clock)


def test_what_needs_a_later_object_is_applied_after_it() -> None:
    clock = fakes.Clock()
    client = Client(clock, {"one": [NO_NAMESPACE, None]})
    outcome = apply(client, clock, item("one"), item("later", "Namespace"))
    assert outcome.applied == ["Namespace later", "ConfigMap one"]
    assert outcome.refusals == []
    assert clock.sleeps == []


def test_a_kind_is_waited_for_where_its_definition_was_applied() -> None:
    clock = fakes.Clock()
    client = Client(clock, {"one": [NO_KIND, NO_KIND, NO_KIND, None]})
    definition = item("widgets", "CustomResourceDefinition")
    assert apply(client, clock, definition, item("one", "Widget")).refusals == []
    assert clock.sleeps == [0.2, 0.2]


def test_a_kind_that_never_comes_is_not_waited_for_long() -> None:
    clock = fakes.Clock()
    client = Client(clock, {"one": [NO_KIND]})
    definition = item("widgets", "CustomResourceDefinition")
    outcome = apply(client, clock, definition, item("one", "Widget"))
    assert outcome.by_file() == {"a.yaml": f"Widget one: {NO_KIND.message}"}
    assert applying.DEFINITION_SECONDS < clock.now < applying.DEFINITION_SECONDS + 1


def test_without_progress_nothing_is_tried_again() -> None:
    clock = fakes.Clock()
    client = Client(clock, {"one": [NO_NAMESPACE], "two": [NO_NAMESPACE]})
    assert len(apply(client, clock, item("one"), item("two")).refusals) == 2
    assert client.asked == [("one", 12), ("two", 12)]


def test_all_of_it_is_bounded() -> None:
    clock = fakes.Clock()
    client = Client(clock, {key: [SILENT] for key in ("one", "two", "three")}, takes=20)
    items = [item("one"), item("two"), item("three", file="b.yaml")]
    outcome = apply(client, clock, *items)
    assert client.asked == [("one", 12), ("two", 10)]
    assert outcome.by_file() == {
        "a.yaml": "ConfigMap one, ConfigMap two: Read timed out",
        "b.yaml": "ConfigMap three: not tried, others took all of 30 s",
    }


def test_many_refusals_are_told_briefly() -> None:
    clock = fakes.Clock()
    names = [f"cm-{number}" for number in range(5)]
    client = Client(clock, {name: [errors.KubeError(HOOK, status=500)] for name in names})
    outcome = apply(client, clock, *(item(name) for name in names))
    assert outcome.by_file() == {
        "a.yaml": f"ConfigMap cm-0, ConfigMap cm-1, ConfigMap cm-2 and 2 more: {HOOK}"
    }


@pytest.mark.parametrize(
    ("field", "reason", "told"),
    [
        pytest.param("data", 'got "hunter2"', "refused; the reason is not shown", id="quoted"),
        pytest.param("stringData", "got hunter2", "refused; the reason is not shown", id="text"),
        pytest.param("data", HOOK, HOOK, id="another reason"),
    ],
)
def test_a_secret_s_content_is_never_told(field: str, reason: str, told: str) -> None:
    clock = fakes.Clock()
    client = Client(clock, {"door": [errors.KubeError(reason, status=422)]})
    secret = item("door", "Secret")
    secret.manifest[field] = {"key": "hunter2"}
    found = apply(client, clock, secret).by_file()["a.yaml"]
    assert found.startswith(f"Secret door: {told}")
    assert "hunter2" not in found


def test_a_refusal_is_told_once_and_its_end_too(tmp_path: pathlib.Path) -> None:
    story: list[str] = []
    run = fakes.make_context(tmp_path, story=story)
    run.refused["admission"] = "another's"
    for refused in ({"a": "why", "b": "no"}, {"a": "why now", "b": "no"}, {"b": "no"}, {}):
        applying.note(run, "x/", refused)
    assert story == [
        "x/a is not applied: why",
        "x/b is not applied: no",
        "x/a is applied now",
        "x/b is applied now",
    ]
    assert run.refused == {"admission": "another's"}
    assert [event.kind for event in run.journal.read()] == ["refused"] * 2 + ["applied"] * 2


# --- POST /apply


class Applies(kube.Client):
    """Records what is applied; raises what was given for a name."""

    def __init__(
        self, failures: dict[str, errors.KubeError], away: errors.KubeError | None = None
    ) -> None:
        self.failures, self.applied, self.away = failures, list[str](), away

    def request(self, method: str, path: str, **_: typing.Any) -> str:
        assert (method, path) == ("GET", "/version")
        if self.away is not None:
            raise self.away
        return "{}"

    def apply(
        self, manifest: kube.Object, *, seconds: float = 5, manager: str = kube.FIELD_MANAGER
    ) -> None:
        assert 0 < seconds <= reset.LONGEST_APPLY_SECONDS
        name = manifest["metadata"]["name"]
        self.applied.append(f"{manifest['kind']} {name}")
        if name in self.failures:
            raise self.failures[name]


def test_every_system_manifest_is_applied(tmp_path: pathlib.Path) -> None:
    client = Applies({})
    run = fakes.make_context(tmp_path, client=client)
    applied = reset.apply(run)
    expected = manifests.system(manifests.values(run.plan))
    assert client.applied == [f"{each['kind']} {each['metadata']['name']}" for each in expected]
    assert {"ConfigMap kube-system/coredns", "ClusterRole system:coredns"} <= set(applied)
    assert len(applied) == len(expected)
    assert run.journal.read()[0].kind == "apply"


def test_one_that_fails_does_not_keep_the_others_from_being_applied(tmp_path: pathlib.Path) -> None:
    failure = errors.KubeError("Service kube-dns: taken", status=422)
    client = Applies({"kube-dns": failure})
    run = fakes.make_context(tmp_path, client=client)
    with pytest.raises(errors.RequestError) as caught:
        reset.apply(run)
    # The one that failed once more, since the others were progress.
    last = "ValidatingAdmissionPolicyBinding networkpolicy-is-not-enforced"
    assert client.applied[-2:] == [last, "Service kube-dns"]
    assert caught.value.status == 502
    assert caught.value.message == (
        "not applied: system/30-coredns.yaml: Service kube-system/kube-dns: taken"
    )
    assert run.refused == {"system/30-coredns.yaml": "Service kube-system/kube-dns: taken"}


def test_the_users_images_are_loaded_before_manifests_may_want_them(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fakes.make_context(tmp_path, client=Applies({}))
    user_images.directory(run).mkdir(parents=True)
    done: list[str] = []

    def load(run: context.Context) -> None:
        done.append("images")
        run.refused["images/a.tar"] = "not an image archive"

    def apply(*_: object, **__: object) -> applying.Outcome:
        done.append("manifests")
        return applying.Outcome(applied=[], refusals=[])

    monkeypatch.setattr(user_images, "load", load)
    monkeypatch.setattr(user_manifests, "apply", apply)
    with pytest.raises(errors.RequestError, match=r"images/a\.tar: not an image archive"):
        reset.apply(run)
    assert done == ["images", "manifests"]


@pytest.mark.parametrize("client", [None, Applies({}, REFUSED)], ids=["not started yet", "away"])
def test_apply_without_an_apiserver(tmp_path: pathlib.Path, client: Applies | None) -> None:
    with pytest.raises(errors.RequestError) as caught:
        reset.apply(fakes.make_context(tmp_path, client=client))
    assert (caught.value.status, caught.value.hint) == (503, "wait for /ready")
