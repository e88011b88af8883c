"""Proxies: who is told of them, and what is reached without one.

containerd is told, which pulls images. Nothing else of the node is: it talks within the node, and
kube-apiserver with its webhooks in the cluster. With `pod_proxies` every container is told, those of
the system's own pods among them: kube-apiserver then reaches webhooks and issuers outside.
"""

from __future__ import annotations

import json

from p8s_supervisor import components


def environment(plan: components.Plan) -> dict[str, str]:
    """The variables; none where no proxy is set."""
    chosen = plan.settings
    found = {"HTTP_PROXY": chosen.http_proxy, "HTTPS_PROXY": chosen.https_proxy}
    found = {name: url for name, url in found.items() if url}
    return found | {"NO_PROXY": ",".join(no_proxy(plan))} if found else {}


def no_proxy(plan: components.Plan) -> list[str]:
    """What is reached without a proxy: what the user says, and all that is the cluster's own."""
    chosen = plan.settings
    own = (
        "localhost",
        "127.0.0.1",
        "::1",
        chosen.node_name,
        *plan.node_addresses,
        *map(str, chosen.pod_cidr.networks),
        *map(str, chosen.service_cidr.networks),
        ".svc",
        f".{chosen.cluster_domain}",
    )
    return list(dict.fromkeys((*chosen.no_proxy, *own)))


def for_pods(plan: components.Plan) -> dict[str, str]:
    """What every container has in its environment; in both cases, since curl reads only one."""
    if plan.settings.pod_proxies == "false":
        return {}
    found = environment(plan)
    return found | {name.lower(): value for name, value in found.items()}


def container_spec(default: str, variables: dict[str, str]) -> str:
    """The OCI spec that containers begin with, with variables in their environment.

    What CRI takes out of the default where it has no spec of ours is taken out here. Source:
    containerd, internal/cri/opts/spec_opts.go, WithoutDefaultSecuritySettings.

    Args:
        default: containerd's own, as `ctr oci spec` prints it.
        variables: image and pod may set others over them.
    """
    spec = json.loads(default)
    for name in ("rlimits", "apparmorProfile", "selinuxLabel"):
        spec["process"].pop(name, None)
    spec["linux"].pop("seccomp", None)
    spec["process"]["env"] = [f"{name}={value}" for name, value in variables.items()]
    return json.dumps(spec)
