"""A namespace in which the apiserver refuses to delete something: how long that is tried, and what is told."""

from __future__ import annotations

import pathlib

import pytest

from p8s_supervisor import context, errors, kube, reset
from tests import fakes

DENIED = errors.KubeError('admission webhook "guard.example.com" denied the request', status=403)
IN_DEMO = "/api/v1/namespaces/demo"
WIDGETS = "/apis/example.com/v1/namespaces/demo/widgets"
CUSTOM = {"name": "example.com", "versions": [{"version": "v1"}]}
EMPTY: kube.Object = {"items": []}


def make_kinds(*names: str) -> kube.Object:
    verbs = ["list", "delete"]
    return {"resources": [{"name": name, "namespaced": True, "verbs": verbs} for name in names]}


NOTHING: dict[str, list[fakes.Answer]] = {
    "GET /apis": [{"groups": [CUSTOM]}],
    "GET /api/v1": [make_kinds("pods", "services")],
    "GET /apis/example.com/v1": [make_kinds("widgets")],
    f"GET {IN_DEMO}": [{}],
    f"GET {IN_DEMO}/pods": [EMPTY],
    f"GET {IN_DEMO}/services": [EMPTY],
    f"GET {WIDGETS}": [EMPTY],
}


def make_list(name: str, uid: str = "", *, grace: int = 0) -> kube.Object:
    spec = {"terminationGracePeriodSeconds": grace}
    return {"items": [{"metadata": {"name": name, "uid": uid or name}, "spec": spec}]}


def make_run(
    root: pathlib.Path, answers: dict[str, list[fakes.Answer]], story: list[str] | None = None
) -> tuple[context.Context, fakes.KubeClient]:
    client = fakes.KubeClient(NOTHING | answers)
    return fakes.make_context(root, client=client, story=story), client


@pytest.mark.parametrize(
    ("path", "grace"),
    [
        pytest.param(f"{IN_DEMO}/pods", 600, id="a pod, whose grace is no matter"),
        pytest.param(WIDGETS, 0, id="a custom resource"),
    ],
)
def test_what_is_denied_is_told_after_seconds_and_the_rest_is_deleted(
    tmp_path: pathlib.Path, path: str, grace: int
) -> None:
    run, client = make_run(
        tmp_path,
        {
            f"GET {path}": [make_list("it", grace=grace)],
            f"DELETE {path}/it": [DENIED],
            # Made anew again and again, as a controller does.
            f"GET {IN_DEMO}/services": [make_list("s", f"uid-{n}") for n in range(500)],
            f"DELETE {IN_DEMO}/services/s": [{}],
        },
    )
    clock = fakes.Clock()
    with pytest.raises(errors.RequestError) as caught:
        reset.reset(run, "demo", clock=clock)
    assert caught.value.status == 502
    assert f"/it ({DENIED.message}), services/s (" in caught.value.message
    assert "validatingwebhookconfiguration" in caught.value.hint
    assert f"DELETE {IN_DEMO}/services/s" in client.asked
    assert clock.now < reset.REFUSED_SECONDS + 1


def test_custom_resources_that_are_denied_are_told_at_once(tmp_path: pathlib.Path) -> None:
    story: list[str] = []
    answers: dict[str, list[fakes.Answer]] = {
        f"GET {WIDGETS}": [make_list("w")],
        f"DELETE {WIDGETS}/w": [DENIED],
    }
    run, _ = make_run(tmp_path, answers, story)
    with pytest.raises(errors.RequestError):
        reset.reset(run, "demo", clock=fakes.Clock())
    assert story == ["reset demo: custom resources are left, going on with the rest"]


def test_a_refusal_that_ends_in_time_is_forgotten(tmp_path: pathlib.Path) -> None:
    refusals = int(reset.REFUSED_SECONDS / 0.3) - 1
    run, _ = make_run(
        tmp_path,
        {
            f"GET {IN_DEMO}/pods": [*[make_list("a", grace=9)] * (refusals + 30), EMPTY],
            f"DELETE {IN_DEMO}/pods/a": [*[DENIED] * refusals, {}],
        },
    )
    assert reset.reset(run, "demo", clock=fakes.Clock()) == ["pods/a"]
