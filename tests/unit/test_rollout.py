"""System pods that get new pods, since their configuration is another one."""

from __future__ import annotations

import pathlib
import typing

import pytest

from p8s_supervisor import errors, rollout
from tests import fakes

MAPS = "GET /api/v1/namespaces/kube-system/configmaps"
PODS = "DELETE /api/v1/namespaces/kube-system/pods"


def listed(**data: dict[str, str]) -> dict[str, typing.Any]:
    names = {name.replace("_", "-"): found for name, found in data.items()}
    return {"items": [{"metadata": {"name": name}, "data": found} for name, found in names.items()]}


@pytest.mark.parametrize(
    ("before", "now", "selectors"),
    [
        pytest.param(
            {"kube_proxy": {"a": "1"}, "coredns": {"b": "1"}, "other": {"c": "1"}},
            {"kube_proxy": {"a": "1"}, "coredns": {"b": "1"}, "other": {"c": "2"}},
            [],
            id="nothing of theirs",
        ),
        pytest.param(
            {"kube_proxy": {"a": "1"}, "coredns": {"b": "1"}},
            {"kube_proxy": {"a": "2"}, "coredns": {"b": "1"}},
            ["k8s-app=kube-proxy"],
            id="kube-proxy's",
        ),
        pytest.param(
            {"coredns": {"b": "1"}},
            {"kube_proxy": {"a": "2"}, "coredns": {"b": "2"}},
            ["k8s-app=kube-dns"],
            id="coredns', and one that was not there",
        ),
    ],
)
def test_what_has_changed_is_started_anew(
    tmp_path: pathlib.Path,
    before: dict[str, dict[str, str]],
    now: dict[str, dict[str, str]],
    selectors: list[str],
) -> None:
    client = fakes.KubeClient({MAPS: [listed(**before), listed(**now)], PODS: [""]})
    run = fakes.make_context(tmp_path, client=client)
    rollout.replace(run, client, rollout.read(client))
    deletions = [each for each in client.requests if each.method == "DELETE"]
    assert [(each.params or {})["labelSelector"] for each in deletions] == selectors


def test_an_apiserver_that_does_not_answer_or_refuses_ends_nothing(tmp_path: pathlib.Path) -> None:
    away = errors.KubeError("away", status=0)
    changed = [listed(coredns={"b": "1"}), listed(coredns={"b": "2"})]
    for answers in ([away, away], changed):
        client = fakes.KubeClient({MAPS: list(answers), PODS: [away]})
        run = fakes.make_context(tmp_path, client=client)
        rollout.replace(run, client, rollout.read(client))
