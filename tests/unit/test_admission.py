"""What blocks a request: named where the apiserver itself does not."""

from __future__ import annotations

import pytest

from p8s_supervisor import admission, errors, kube
from tests import fakes

POD = "POST /api/v1/namespaces/kube-system/pods"
STATUS = "PATCH /api/v1/nodes/p8s/status"
LEASE = "PATCH /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/p8s"
HOOKS: dict[str, kube.Object] = {
    f"GET {admission.CONFIGURATIONS}/validatingwebhookconfigurations": {
        "items": [
            {
                "metadata": {"name": "mine"},
                "webhooks": [{"name": "a"}, {"name": "b", "failurePolicy": "Ignore"}],
            },
            {"metadata": {"name": "empty"}},
        ]
    },
    f"GET {admission.CONFIGURATIONS}/mutatingwebhookconfigurations": {
        "items": [
            {"metadata": {"name": "other"}, "webhooks": [{"name": "c", "failurePolicy": "Fail"}]}
        ]
    },
}
NAMED = "a (ValidatingWebhookConfiguration mine), c (MutatingWebhookConfiguration other)"


def make_client(**answers: fakes.Answer) -> fakes.KubeClient:
    names = {"pod": POD, "status": STATUS, "lease": LEASE}
    given: dict[str, fakes.Answer] = {"pod": {}, "status": {}, "lease": {}}
    given |= answers
    hooks: dict[str, list[fakes.Answer]] = {asked: [answer] for asked, answer in HOOKS.items()}
    return fakes.KubeClient(hooks | {names[name]: [answer] for name, answer in given.items()})


@pytest.mark.parametrize(
    ("status", "told"),
    [
        pytest.param(0, f"why; the apiserver may wait for a webhook: {NAMED}", id="no answer"),
        pytest.param(504, f"why; the apiserver may wait for a webhook: {NAMED}", id="too late"),
        pytest.param(500, "why", id="the apiserver says itself"),
    ],
)
def test_webhooks_are_named_where_nobody_answered(status: int, told: str) -> None:
    assert admission.explain(make_client(), errors.KubeError("why", status=status)) == told


def test_without_webhooks_there_is_no_more_to_say() -> None:
    gone = errors.KubeError("refused", status=0)
    client = fakes.KubeClient({asked: [gone] for asked in HOOKS})
    assert admission.explain(client, gone) == "refused"


@pytest.mark.parametrize(
    ("answers", "refusal"),
    [
        pytest.param({}, None, id="nothing is refused"),
        pytest.param(
            {"pod": errors.KubeError("no", status=500)},
            "a pod in kube-system is refused: no",
            id="pods",
        ),
        pytest.param(
            {"lease": errors.KubeError("no", status=403)},
            "the node's lease is refused: no",
            id="leases",
        ),
        pytest.param({"status": errors.KubeError("not found", status=404)}, None, id="no node yet"),
        pytest.param(
            {"status": errors.KubeError("conflict", status=409)}, None, id="changed meanwhile"
        ),
    ],
)
def test_refusals_are_found_without_a_write(
    answers: dict[str, fakes.Answer], refusal: str | None
) -> None:
    client = make_client(**answers)
    assert admission.find_refusal(client, "p8s") == refusal
    assert client.requests
    assert all(request.params == {"dryRun": "All"} for request in client.requests)
