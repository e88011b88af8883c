"""The audit log: nothing without the setting, and no credential with it."""

from __future__ import annotations

import json
import pathlib
import typing

import pytest
import yaml

from p8s_supervisor import audit, components, manifests
from tests import fakes

ROOT = pathlib.Path("/")
LEVELS = list(audit.LEVELS)


def make_pod(level: str) -> dict[str, typing.Any]:
    names = manifests.values(fakes.make_plan(ROOT, f"--audit={level}"))
    pod = yaml.safe_load(manifests.static_pod("kube-apiserver", names))
    return typing.cast("dict[str, typing.Any]", pod["spec"])


def first_rule(level: str, **asked: str) -> str:
    """The level of the first rule that a request fits, as the apiserver reads a policy."""
    for rule in json.loads(audit.policy(level))["rules"]:
        resources = rule.get("resources")
        fits = [
            "user" not in asked or asked["user"] in rule.get("users", [asked["user"]]),
            "users" not in rule or "user" in asked,
            "userGroups" not in rule or asked.get("group_of_user") in rule["userGroups"],
            "verbs" not in rule or asked.get("verb") in rule["verbs"],
            "nonResourceURLs" not in rule,
            resources is None
            or any(
                entry["group"] == asked.get("group", "")
                and asked["resource"] in entry.get("resources", [asked["resource"]])
                for entry in resources
            ),
        ]
        if all(fits):
            return str(rule["level"])
    raise AssertionError("the last rule fits everything")


def test_without_the_setting_there_is_nothing(tmp_path: pathlib.Path) -> None:
    words = components.kube_apiserver(fakes.make_plan(ROOT))
    assert not [word for word in words if "audit" in word]
    spec = make_pod("none")
    assert not [volume for volume in spec["volumes"] if volume["name"] in ("audit-policy", "logs")]
    audit.write_policy(tmp_path / "policy", "none")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("level", LEVELS)
def test_with_it_the_pod_has_what_the_flags_name(level: str) -> None:
    spec = make_pod(level)
    (container,) = spec["containers"]
    flags = dict(word.split("=", 1) for word in container["command"] if "=" in word)
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume["hostPath"]["path"] for volume in spec["volumes"]}
    policy, log = flags["--audit-policy-file"], flags["--audit-log-path"]
    assert (policy, log) == ("/etc/kubernetes/audit-policy.yaml", "/var/log/p8s/audit.log")
    assert mounts[policy]["readOnly"] is True
    # Of a log that is mounted itself no rotation is seen.
    assert "readOnly" not in mounts["/var/log/p8s"]
    assert {volumes[mounts[path]["name"]] for path in (policy, "/var/log/p8s")} == {
        policy,
        "/var/log/p8s",
    }
    assert set(flags) >= {"--audit-log-maxsize", "--audit-log-maxbackup", "--audit-log-maxage"}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param({"resource": "secrets", "verb": "create"}, "Metadata", id="a Secret"),
        pytest.param(
            {"resource": "serviceaccounts/token", "verb": "create"}, "Metadata", id="a token"
        ),
        pytest.param(
            {
                "resource": "tokenreviews",
                "group": "authentication.k8s.io",
                "verb": "create",
            },
            "Metadata",
            id="a review of a token",
        ),
        pytest.param(
            {"resource": "leases", "group": "coordination.k8s.io", "verb": "update"},
            "None",
            id="a heartbeat",
        ),
        pytest.param(
            {"resource": "pods", "verb": "list", "user": "system:kube-scheduler"},
            "None",
            id="what a component reads",
        ),
        pytest.param({"resource": "pods", "verb": "watch"}, "Metadata", id="a watch"),
        pytest.param({"resource": "pods", "verb": "create"}, None, id="a pod"),
        pytest.param(
            {"resource": "pods/binding", "verb": "create", "user": "system:kube-scheduler"},
            None,
            id="what a component changes",
        ),
    ],
)
def test_the_policy(level: str, asked: dict[str, str], expected: str | None) -> None:
    assert first_rule(level, **asked) == (expected or audit.LEVELS[level])


def test_the_policy_omits_what_tells_nothing(tmp_path: pathlib.Path) -> None:
    audit.write_policy(tmp_path / "policy", "request")
    policy = yaml.safe_load((tmp_path / "policy").read_text())
    assert (policy["apiVersion"], policy["kind"]) == ("audit.k8s.io/v1", "Policy")
    assert policy["omitStages"] == ["RequestReceived"]
    assert policy["omitManagedFields"] is True
