"""What stands between a request and etcd: webhooks that block it, and how to name them."""

from __future__ import annotations

import typing

from p8s_supervisor import errors, kube

# A webhook may take 30 s. Source: k8s.io/api/admissionregistration/v1/types.go, TimeoutSeconds.
LONGEST_SECONDS = 32.0
PROBE_SECONDS = 3.0
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1"
KINDS = {
    "validatingwebhookconfigurations": "ValidatingWebhookConfiguration",
    "mutatingwebhookconfigurations": "MutatingWebhookConfiguration",
}


def list_blocking(client: kube.Client) -> list[str]:
    """The webhooks whose failure refuses a request, each with its configuration."""
    found = []
    for resource, kind in KINDS.items():
        try:
            listed = client.get(f"{CONFIGURATIONS}/{resource}")["items"]
        except errors.KubeError:
            continue  # who does not answer has said so already
        found += [
            f"{hook['name']} ({kind} {item['metadata']['name']})"
            for item in listed
            for hook in item.get("webhooks", [])
            if hook.get("failurePolicy", "Fail") == "Fail"
        ]
    return found


def is_silent(error: errors.KubeError) -> bool:
    """Whether there was no answer in time, so that nobody has said why."""
    return error.status in (0, 504)


def explain(client: kube.Client, error: errors.KubeError) -> str:
    """An error's words; where there was no answer in time, also the webhooks that can be why."""
    hooks = list_blocking(client) if is_silent(error) else []
    if not hooks:
        return error.message
    return f"{error.message}; the apiserver may wait for a webhook: {', '.join(hooks)}"


def find_refusal(client: kube.Client, node_name: str) -> str | None:
    """Why kubelet's own writes are refused, by writes that are not kept (dry run).

    Args:
        client: the apiserver's client.
        node_name: the node's name.
    """
    for what, method, path, body in _writes(node_name):
        content_type = "application/json" if method == "POST" else "application/merge-patch+json"
        try:
            client.request(
                method,
                path,
                body=body,
                content_type=content_type,
                params={"dryRun": "All"},
                seconds=PROBE_SECONDS,
            )
        except errors.KubeError as error:
            if error.status not in (404, 409):  # it is not there yet, or changed meanwhile
                return f"{what} is refused: {explain(client, error)}"
    return None


def _writes(node_name: str) -> list[tuple[str, str, str, dict[str, typing.Any]]]:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "p8s-"},
        "spec": {"containers": [{"name": "main", "image": "p8s.local/pause:1"}]},
    }
    lease = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node_name}"
    return [
        ("a pod in kube-system", "POST", "/api/v1/namespaces/kube-system/pods", pod),
        ("the node's status", "PATCH", f"/api/v1/nodes/{node_name}/status", {}),
        ("the node's lease", "PATCH", lease, {}),
    ]
