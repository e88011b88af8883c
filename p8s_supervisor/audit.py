"""kube-apiserver's audit log: its flags, its policy, and what its pod mounts for it."""

from __future__ import annotations

import json
import pathlib
import typing

from p8s_supervisor import files

# The setting's words → the levels of audit.k8s.io.
LEVELS = {"metadata": "Metadata", "request": "Request", "request-response": "RequestResponse"}
NONE = "none"

# Who reads all day: the components and p8s itself. What they change is told.
_SYSTEM_USERS = (
    "p8s-sidecar",
    "system:apiserver",
    "system:kube-controller-manager",
    "system:kube-scheduler",
)
_SYSTEM_GROUPS = ("system:nodes", "system:serviceaccounts:kube-system")
_PROBES = ("/healthz*", "/livez*", "/readyz*", "/metrics", "/version", "/openapi/*", "/api*")
# Their bodies hold credentials.
_SECRET = (
    {"group": "", "resources": ["secrets", "serviceaccounts/token"]},
    {"group": "authentication.k8s.io", "resources": ["tokenreviews", "tokenrequests"]},
)
# Bookkeeping that nobody asked for: heartbeats, and events, which are a log of their own.
_NOISE = (
    {"group": "coordination.k8s.io", "resources": ["leases"]},
    {"group": "", "resources": ["events"]},
    {"group": "events.k8s.io", "resources": ["events"]},
)


def flags(level: str, *, policy: pathlib.Path, log: pathlib.Path) -> list[str]:
    """kube-apiserver's flags; none where there is no audit log.

    Args:
        level: the setting.
        policy: the file with `policy`.
        log: the log. kube-apiserver keeps three files of 10 MB, a week at most.
    """
    if level == NONE:
        return []
    return [
        f"--audit-policy-file={policy}",
        f"--audit-log-path={log}",
        "--audit-log-maxsize=10",
        "--audit-log-maxbackup=2",
        "--audit-log-maxage=7",
    ]


def policy(level: str) -> str:
    """The Policy (audit.k8s.io/v1), as JSON, which is YAML too.

    Args:
        level: the setting, not `none`.
    """
    rules: list[dict[str, typing.Any]] = [
        {"level": "None", "resources": list(_NOISE)},
        {"level": "None", "nonResourceURLs": list(_PROBES)},
        {"level": "None", "users": list(_SYSTEM_USERS), "verbs": ["get", "list", "watch"]},
        {"level": "None", "userGroups": list(_SYSTEM_GROUPS), "verbs": ["get", "list", "watch"]},
        # The question whether somebody may: asked by kubelet and others for each request.
        {"level": "None", "resources": [{"group": "authorization.k8s.io"}]},
        {"level": "Metadata", "resources": list(_SECRET)},
        # A watch's answer is a stream: who began it is told, not what came.
        {"level": "Metadata", "verbs": ["watch"]},
        {"level": LEVELS[level]},
    ]
    made = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "omitManagedFields": True,
        "rules": rules,
    }
    return json.dumps(made, indent=2) + "\n"


def write_policy(file: pathlib.Path, level: str) -> None:
    """Write the policy where there is an audit log."""
    if level != NONE:
        files.write(file, policy(level))


def mounts(level: str, *, policy: pathlib.Path, log: pathlib.Path) -> tuple[str, str]:
    """volumeMounts and volumes of kube-apiserver's pod, as items of a YAML list.

    The log's directory, not the log: it is rotated by renaming.
    """
    if level == NONE:
        return "", ""
    inside: list[dict[str, typing.Any]] = [
        {"name": "audit-policy", "mountPath": str(policy), "readOnly": True},
        {"name": "logs", "mountPath": str(log.parent)},
    ]
    outside = [
        {"name": "audit-policy", "hostPath": {"path": str(policy), "type": "File"}},
        {"name": "logs", "hostPath": {"path": str(log.parent), "type": "DirectoryOrCreate"}},
    ]
    return to_items(inside, indent=4), to_items(outside, indent=2)


def to_items(made: list[dict[str, typing.Any]], *, indent: int) -> str:
    """Objects as items of a YAML list, behind the indent of the first."""
    return f"\n{' ' * indent}".join(f"- {json.dumps(item)}" for item in made)
