"""The components' configuration with the user's merged over p8s' own, and what depends on it."""

from __future__ import annotations

import functools
import json
import pathlib
import typing

from p8s_supervisor import components, overrides

Object = dict[str, typing.Any]

# From this kernel on kube-proxy takes nftables. Source: pkg/util/kernel/constants.go
NFTABLES_KERNEL = (5, 13)
# What leaves every object as it is that the seed holds.
_HARMLESS = ("etcd", "kubelet")
_HARMLESS_FILES = ("kubelet.yaml", overrides.AUDIT_POLICY, overrides.AUTHENTICATION)

# Where kube-apiserver answers who shows no credentials, if RBAC lets him: kubelet's probes, a load
# balancer's, and whoever checks the tokens of service accounts, which needs a role binding too.
OPEN_PATHS = (
    "/healthz",
    "/livez",
    "/readyz",
    "/version",
    "/version/",
    "/.well-known/openid-configuration",
    "/openid/v1/jwks",
)


def merge(plan: components.Plan, component: str, own: Object) -> Object:
    """The configuration of a component: p8s' own, the user's file, the user's fields."""
    fields = [
        entry.to_object() for entry in plan.given if entry.component == component and entry.is_field
    ]
    given = [plan.files.get(f"{component}.yaml", {}), *fields]
    return functools.reduce(overrides.merge, given, own)


def authentication(plan: components.Plan) -> Object:
    """AuthenticationConfiguration: who is let in without credentials, and the user's JWT issuers.

    Elsewhere they are refused before RBAC: a role binding for everybody opens nothing by mistake.
    """
    version, kind = overrides.FILES[overrides.AUTHENTICATION]
    own = {
        "apiVersion": version,
        "kind": kind,
        "anonymous": {"enabled": True, "conditions": [{"path": path} for path in OPEN_PATHS]},
    }
    return typing.cast("Object", overrides.merge(own, plan.files.get(overrides.AUTHENTICATION, {})))


def kube_scheduler(plan: components.Plan) -> Object:
    """KubeSchedulerConfiguration: what `components.kube_scheduler` has as flags, and the user's.

    Only where the user has some: see `components.Plan.configures`.
    """
    version, kind = overrides.FILES["kube-scheduler.yaml"]
    return merge(
        plan,
        "kube-scheduler",
        {
            "apiVersion": version,
            "kind": kind,
            "clientConnection": {
                "kubeconfig": f"{plan.paths.kubernetes}/scheduler.conf",
                "qps": 2000,
                "burst": 2000,
            },
            "leaderElection": {"leaderElect": False},
            "enableProfiling": False,
        },
    )


def proxy_mode(plan: components.Plan) -> str:
    """kube-proxy's mode: nftables is quicker, and one transaction; older kernels have iptables."""
    if plan.settings.proxy_mode != "auto":
        return plan.settings.proxy_mode
    return "nftables" if plan.facts.kernel >= NFTABLES_KERNEL else "iptables"


def change_system(plan: components.Plan, objects: list[Object]) -> list[Object]:
    """The system's manifests with the user's Corefile and configuration of kube-proxy."""
    for made in objects:
        if made["kind"] != "ConfigMap":
            continue
        data = made["data"]
        if made["metadata"]["name"] == "coredns" and overrides.COREFILE in plan.files:
            data[overrides.COREFILE] = plan.files[overrides.COREFILE]
        if made["metadata"]["name"] == "kube-proxy" and plan.configures("kube-proxy"):
            import yaml  # late: most clusters have no such file

            own = yaml.safe_load(data["config.conf"])
            data["config.conf"] = yaml.safe_dump(merge(plan, "kube-proxy", own), sort_keys=False)
    return objects


def list_mounts(plan: components.Plan, component: str) -> tuple[list[Object], list[Object]]:
    """volumeMounts and volumes of a static pod for what the user's flags and files name."""
    wanted = {}
    directory = str(plan.paths.component_config)
    if any(
        directory in entry.value
        for entry in plan.given
        if entry.component == component and not entry.is_field
    ):
        wanted["user-config"] = (directory, "Directory")
    if component == "kube-scheduler" and plan.configures(component):
        wanted["config"] = (str(plan.paths.scheduler_config), "File")
    mounts = [
        {"name": name, "mountPath": path, "readOnly": True} for name, (path, _) in wanted.items()
    ]
    volumes = [
        {"name": name, "hostPath": {"path": path, "type": kind}}
        for name, (path, kind) in wanted.items()
    ]
    return mounts, volumes


def fits_seed(plan: components.Plan) -> bool:
    """Whether a cluster without the seed would have the objects that are in it.

    Of what can change an object, such as a flag of kube-apiserver, nobody knows all: with any of
    these the components make everything themselves.
    """
    entries = [entry for entry in plan.given if entry.component not in _HARMLESS]
    files = [name for name in plan.files if name not in _HARMLESS_FILES]
    return not entries and not files and proxy_mode(plan) == "nftables"


def list_texts(plan: components.Plan) -> dict[pathlib.Path, str]:
    """What is written into the node for the user's files: path → text."""
    texts = {}
    if overrides.AUDIT_POLICY in plan.files:
        texts[plan.paths.audit_policy] = plan.files[overrides.AUDIT_POLICY]
    if plan.configures("kube-scheduler"):
        texts[plan.paths.scheduler_config] = kube_scheduler(plan)
    return {path: json.dumps(made, indent=2) + "\n" for path, made in texts.items()}
