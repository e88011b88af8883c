"""An add-on's objects go in the reverse order, and are waited for."""

from __future__ import annotations

import pytest

from p8s_supervisor import add_on_removal, errors
from tests import fakes

GONE = errors.KubeError("not found", status=404)
OBJECTS = [("v1", "Namespace", "", "p8s-a"), ("apps/v1", "Deployment", "p8s-a", "web")]
NAMESPACE, DEPLOYMENT = "/api/v1/namespaces/p8s-a", "/apis/apps/v1/namespaces/p8s-a/deployments/web"
CORE = {"resources": [{"name": "namespaces", "kind": "Namespace", "namespaced": False}]}


def make_client(**answers: list[fakes.Answer]) -> fakes.KubeClient:
    """One where both objects are there, and gone at the second look."""
    return fakes.KubeClient(
        {
            "GET /api/v1": [CORE],
            f"DELETE {NAMESPACE}": answers.get("delete_namespace", ["{}"]),
            f"DELETE {DEPLOYMENT}": answers.get("delete_deployment", ["{}"]),
            f"GET {NAMESPACE}": answers.get("namespace", [{}, GONE]),
            f"GET {DEPLOYMENT}": answers.get("deployment", [GONE]),
        }
    )


def test_objects_go_in_the_reverse_order_and_are_waited_for() -> None:
    client, clock = make_client(), fakes.Clock()
    deleted = add_on_removal.remove(client, OBJECTS, clock=clock)
    assert deleted == ["Deployment p8s-a/web", "Namespace p8s-a"]
    deletions = [request.path for request in client.requests if request.method == "DELETE"]
    assert deletions == [DEPLOYMENT, NAMESPACE]
    assert clock.now > 0


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param({"delete_deployment": [GONE]}, id="an object"),
        pytest.param({}, id="a kind"),
    ],
)
def test_what_is_gone_already_is_not_told(answers: dict[str, list[fakes.Answer]]) -> None:
    client = make_client(**answers)
    objects = list(OBJECTS)
    if not answers:
        objects[1] = ("x.example/v1", "Thing", "p8s-a", "web")
        client.answers["GET /apis/x.example/v1"] = [GONE]
    assert add_on_removal.remove(client, objects, clock=fakes.Clock()) == ["Namespace p8s-a"]


def test_what_does_not_go_is_named() -> None:
    client = make_client(namespace=[{}])
    with pytest.raises(errors.WaitTimeoutError) as caught:
        add_on_removal.remove(client, OBJECTS, seconds=3, clock=fakes.Clock())
    assert caught.value.reason == "Namespace p8s-a is still there"


def test_a_refusal_is_told() -> None:
    refusal = errors.KubeError("denied by a webhook", status=403)
    with pytest.raises(errors.KubeError, match="denied"):
        add_on_removal.remove(
            make_client(delete_deployment=[refusal]), OBJECTS, clock=fakes.Clock()
        )
