"""The table of CIS' checks, and how its rows are looked at."""

from __future__ import annotations

import collections
import dataclasses
import typing

import pytest

from tests.cluster import cis, cis_checks

ROWS = cis.read_rows()
# Checks of each section in kube-bench 0.15.6, cfg/cis-1.12.
SECTIONS = {
    "1.1": 21,
    "1.2": 30,
    "1.3": 7,
    "1.4": 2,
    "2": 7,
    "3.1": 3,
    "3.2": 2,
    "4.1": 10,
    "4.2": 14,
    "4.3": 1,
    "5.1": 13,
    "5.2": 12,
    "5.3": 2,
    "5.4": 2,
    "5.5": 1,
    "5.6": 4,
}
FACTS = cis.Facts(
    commands={"kube-apiserver": ["--profiling=false", "--authorization-mode=Node,RBAC", "--bare"]},
    files={"/a/*": [("/a/b", 0o600, "root:root"), ("/a/c", 0o640, "root:etcd")]},
    kubelet={"a": {"b": False}, "list": ["x", "y"], "number": 5},
    objects=[],
    node={},
)


def test_the_table_has_every_check() -> None:
    numbers = collections.defaultdict(list)
    for row in ROWS:
        section, _, number = row.id.rpartition(".")
        numbers[section].append(int(number))
    assert numbers == {name: list(range(1, count + 1)) for name, count in SECTIONS.items()}


def test_the_document_is_made_from_the_table() -> None:
    assert cis.DOCUMENT.read_text() == cis.render(cis.read_sections()), (
        "make it anew: .venv/bin/python -m tests.cluster.cis"
    )


def test_every_check_is_in_use() -> None:
    used = {row.look.split()[1] for row in ROWS if row.look.startswith("check ")}
    assert used == set(cis_checks.CHECKS)


@pytest.mark.parametrize(
    ("look", "found"),
    [
        ("flag kube-apiserver --profiling = false", True),
        ("flag kube-apiserver --profiling = true", False),
        ("flag kube-apiserver --authorization-mode has RBAC", True),
        ("flag kube-apiserver --authorization-mode has AlwaysAllow", False),
        ("flag kube-apiserver --authorization-mode lacks RBAC", False),
        ("flag kube-apiserver --token-auth-file unset", True),
        ("flag kube-apiserver --profiling unset", False),
        ("flag kube-apiserver --token-auth-file set", False),
        ("flag kube-apiserver --token-auth-file lacks x", True),
        ("flag kube-apiserver --bare set", False),
        ("flag kube-apiserver --lookup in true,unset", True),
        ("flag kube-apiserver --profiling in true,unset", False),
        ("kubelet a.b = false", True),
        ("kubelet a.b.c unset", True),
        ("kubelet list has y", True),
        ("kubelet number >= 5", True),
        ("kubelet number >= 6", False),
        ("kubelet none >= 0", False),
        ("mode 640 /a/*", True),
        ("mode 600 /a/*", False),
        ("mode 777 /a/* /nothing/*", False),
        ("owner root:root /a/*", False),
        ("owner root:root /nothing", False),
    ],
)
def test_a_look_finds(look: str, found: bool) -> None:
    assert cis.holds(cis.Row(id="1", wants="", look=look), FACTS) is found


@pytest.mark.parametrize("look", ["mood 600 /a", "flag kube-apiserver --profiling is false"])
def test_no_look_is_taken_for_another(look: str) -> None:
    with pytest.raises(ValueError):
        cis.holds(cis.Row(id="1", wants="", look=look), FACTS)


def make_object(kind: str, name: str, **fields: typing.Any) -> cis.Object:
    return {"kind": kind, "metadata": {"name": name, "namespace": "kube-system"}, **fields}


def make_rbac(*rules: cis.Object) -> list[cis.Object]:
    """A role and its binding to `robot`."""
    reference = {"kind": "Role", "name": "own"}
    return [
        make_object("Role", "own", rules=list(rules)),
        make_object("RoleBinding", "own", roleRef=reference, subjects=[{"name": "robot"}]),
    ]


@pytest.mark.parametrize(
    ("verbs", "resources", "subject"),
    [
        pytest.param(["get"], ["secrets"], "robot", id="named"),
        pytest.param(["*"], ["secrets"], "robot", id="every verb"),
        pytest.param(["get"], ["*"], "robot", id="every resource"),
        pytest.param(["create"], ["secrets"], "none", id="another verb"),
        pytest.param(["get"], ["pods"], "none", id="another resource"),
    ],
)
def test_may_tells_who(verbs: list[str], resources: list[str], subject: str) -> None:
    rule = {"apiGroups": [""], "verbs": verbs, "resources": resources}
    facts = dataclasses.replace(FACTS, objects=make_rbac(rule))
    assert cis_checks.may(facts, subject, "get,list", "secrets")
    assert not cis_checks.may(facts, "somebody", "get,list", "secrets")


def test_what_others_made_later_is_left_out_but_for_the_system_s_own() -> None:
    early, late = "2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z"
    objects = [
        make_object("Pod", "replaced") | {"metadata": {"namespace": "kube-system"}},
        make_object("Secret", "own") | {"metadata": {"creationTimestamp": early}},
        make_object("Pod", "late") | {"metadata": {"namespace": "p8s-storage"}},
        make_object("Secret", "other") | {"metadata": {"creationTimestamp": late}},
    ]
    gathered = {"commands": {}, "files": [], "ready": 1767225605.0}
    facts = cis.make_facts(gathered, {"kubeletconfig": {}}, objects)
    assert facts.objects == objects[:3]


@pytest.mark.parametrize(
    ("container", "check"),
    [
        ({"securityContext": {"privileged": True}}, "pods_unprivileged"),
        ({"securityContext": {"allowPrivilegeEscalation": True}}, "pods_gain_no_rights"),
        ({}, "pods_without_root"),
        ({}, "pods_without_raw_network"),
        ({}, "pods_with_seccomp"),
        ({}, "pods_with_security_context"),
        ({"envFrom": [{"secretRef": {"name": "x"}}]}, "pods_without_secret_variables"),
        ({"ports": [{"hostPort": 80}]}, "pods_without_host_ports"),
        (
            {"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["NET_RAW"]}}},
            "pods_without_capabilities",
        ),
    ],
)
def test_a_container_that_may_too_much_is_found(container: cis.Object, check: str) -> None:
    good = {
        "name": "good",
        "securityContext": {
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    for containers, passes in (([good], True), ([good, {"name": "bad"} | container], False)):
        facts = dataclasses.replace(
            FACTS, objects=[make_object("Pod", "pod", spec={"containers": containers})]
        )
        assert bool(cis_checks.CHECKS[check](facts)) is passes
