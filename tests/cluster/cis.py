"""CIS' benchmark: the table (cis.yaml), a look at a running node, and docs/cis.md.

What a row's `look` may be:
    mode 600 PATTERN…            no file has more permission bits, and each pattern finds one
    owner root:root PATTERN…
    flag COMPONENT --flag OP …   a component's command line
    kubelet a.b.c OP …           kubelet's configuration in force
        OP: `= V`, `>= N`, `has V` and `lacks V` (of a list with commas), `in V,V`, `set`, `unset`;
        what is not set is `unset` to `in`
    may WHO|none VERBS RESOURCES   who p8s' own role bindings allow it
    check NAME                   a function of cis_checks
"""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import pathlib
import sys
import typing

import yaml

TABLE = pathlib.Path(__file__).with_suffix(".yaml")
DOCUMENT = pathlib.Path(__file__).parents[2] / "docs/cis.md"
UNSET = "unset"
KINDS = (
    "pods,secrets,serviceaccounts,services,namespaces,networkpolicies,csidrivers,configmaps,"
    "roles,clusterroles,rolebindings,clusterrolebindings"
)

# In the node: what its processes and files are, as JSON. Arguments: the patterns.
GATHER = r"""
import glob, grp, json, os, pathlib, pwd, sys
from cryptography import x509
commands = {}
for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    try:
        words = entry.read_text().rstrip("\0").split("\0")
    except OSError:
        continue
    commands.setdefault(os.path.basename(words[0]), words[1:])
files = []
for pattern in sys.argv[1:]:
    for path in glob.glob(pattern, recursive=True):
        found = os.stat(path)
        owner = f"{pwd.getpwuid(found.st_uid).pw_name}:{grp.getgrgid(found.st_gid).gr_name}"
        files.append([pattern, path, found.st_mode & 0o7777, owner])
read = lambda path: pathlib.Path(path).read_text()
admin = x509.load_pem_x509_certificate(read("/etc/kubernetes/pki/admin.crt").encode())
print(json.dumps({
    "commands": commands,
    "files": files,
    "ready": os.stat("/run/p8s/ready").st_mtime,
    "admin_conf": json.loads(read("/etc/kubernetes/admin.conf")),
    "admin_subject": admin.subject.rfc4514_string(),
    "cni": [json.loads(read(path)) for path in glob.glob("/etc/cni/net.d/*")],
    "authorities": {name: read(f"/etc/kubernetes/pki/{name}.crt") for name in ("ca", "etcd-ca")},
}))
"""

Object = dict[str, typing.Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A check.

    Attributes:
        id: its number in the benchmark.
        wants: what it wants, in our words.
        look: how that is looked at, see the module.
        exception: why p8s differs; empty where it does not.
    """

    id: str
    wants: str
    look: str
    exception: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What was found on a node.

    Attributes:
        commands: program → its arguments.
        files: pattern → (path, permission bits, "user:group") of what it finds.
        kubelet: KubeletConfiguration in force.
        objects: Kubernetes' objects that p8s made.
        node: the rest of what `GATHER` prints.
    """

    commands: dict[str, list[str]]
    files: dict[str, list[tuple[str, int, str]]]
    kubelet: Object
    objects: list[Object]
    node: Object

    def of_kind(self, *kinds: str) -> list[Object]:
        """The objects of some kinds."""
        return [found for found in self.objects if found["kind"] in kinds]

    def flag(self, component: str, name: str) -> str | None:
        """A flag's value on a component's command line; None where it is not given."""
        for word in self.commands[component]:
            key, _, value = word.partition("=")
            if key == name:
                return value
        return None


def read_sections() -> dict[str, list[Row]]:
    """The table: section's title → its rows."""
    read = yaml.safe_load(TABLE.read_text())
    return {
        section["title"]: [Row(**row) for row in section["rows"]] for section in read["sections"]
    }


def read_rows() -> list[Row]:
    """The rows of all sections."""
    return [row for rows in read_sections().values() for row in rows]


# --- a look


def list_patterns(rows: collections.abc.Iterable[Row]) -> list[str]:
    """The files that the rows look at."""
    looks = [row.look.split() for row in rows]
    return sorted({word for look in looks if look[0] in ("mode", "owner") for word in look[2:]})


def make_facts(gathered: Object, configz: Object, objects: list[Object]) -> Facts:
    """Facts from what the node's processes, kubelet and kube-apiserver tell.

    Other tests' objects are left out: what was made after the node was ready, but for the pods
    of kube-system, which may have been replaced, and the add-on storage, which comes after ready.
    """
    files: dict[str, list[tuple[str, int, str]]] = {}
    for pattern, path, mode, owner in gathered["files"]:
        files.setdefault(pattern, []).append((path, mode, owner))
    return Facts(
        commands=gathered["commands"],
        files=files,
        kubelet=configz["kubeletconfig"],
        objects=[found for found in objects if _is_own(found, gathered["ready"])],
        node=gathered,
    )


def _is_own(found: Object, ready: float) -> bool:
    metadata = found["metadata"]
    if found["kind"] == "Pod" and metadata["namespace"] == "kube-system":
        return True
    if {metadata.get("name"), metadata.get("namespace")} & {
        "p8s-storage",
        "p8s:storage-provisioner",
    }:
        return True
    # PyYAML's and JSON's timestamps are read alike.
    return bool(_seconds(metadata["creationTimestamp"]) <= ready)


def _seconds(moment: str) -> float:
    import datetime

    return datetime.datetime.fromisoformat(moment).timestamp()


def holds(row: Row, facts: Facts) -> bool:
    """Whether a node is as the row wants it.

    Raises:
        ValueError: the row's look is not one of those that the module names.
    """
    from tests.cluster import cis_checks

    kind, *words = row.look.split()
    if kind in ("mode", "owner"):
        return _files_hold(kind, words[0], words[1:], facts)
    if kind == "flag":
        return compare(facts.flag(words[0], words[1]), words[2:])
    if kind == "kubelet":
        return compare(read_key(facts.kubelet, words[0]), words[1:])
    if kind == "may":
        return cis_checks.may(facts, *words)
    if kind == "check":
        return bool(cis_checks.CHECKS[words[0]](facts))
    raise ValueError(f"{row.id}: {row.look}")


def _files_hold(kind: str, wanted: str, patterns: list[str], facts: Facts) -> bool:
    found = [facts.files.get(pattern, []) for pattern in patterns]
    if kind == "owner":
        right = all(owner == wanted for files in found for _, _, owner in files)
    else:
        right = all(mode & ~int(wanted, 8) == 0 for files in found for _, mode, _ in files)
    # What finds nothing has looked at nothing.
    return right and all(found)


def read_key(config: Object, key: str) -> str | None:
    """A nested value, as a flag would have it; None where it is not there."""
    value: typing.Any = config
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def compare(value: str | None, words: list[str]) -> bool:
    """Whether a value is as an operator and its operand say.

    Raises:
        ValueError: there is no such operator.
    """
    operator, operand = words[0], " ".join(words[1:])
    listed = (value or "").split(",")
    if operator == ">=":
        return value is not None and int(value) >= int(operand)
    answers = {
        "=": value == operand,
        "has": operand in listed,
        "lacks": operand not in listed,
        "in": (UNSET if value is None else value) in operand.split(","),
        "set": bool(value),
        UNSET: value is None,
    }
    if operator not in answers:
        raise ValueError(f"no operator: {operator}")
    return answers[operator]


# --- the document

INTRODUCTION = """\
# CIS' benchmark

kube-bench checks a cluster against the benchmark of the Center for Internet Security. p8s is for
development, and is not a cluster to be attacked from outside; but each check that costs a developer
nothing is kept, and each other one has its reason here.

These are the {all} checks of kube-bench 0.15.6 for CIS Kubernetes 1.12, in our own words:
{passed} pass, {exceptions} are exceptions. `tests/cluster/cis.yaml` says how each is looked at, and
`tests/cluster/test_cis.py` looks at a running node: it fails where one no longer passes, and where
an exception is none any more. This page is made from that table by
`.venv/bin/python -m tests.cluster.cis`.
"""


def render(sections: dict[str, list[Row]]) -> str:
    """docs/cis.md."""
    rows = [row for found in sections.values() for row in found]
    exceptions = [row for row in rows if row.exception]
    lines = [
        INTRODUCTION.format(
            all=len(rows), passed=len(rows) - len(exceptions), exceptions=len(exceptions)
        ),
        "## Exceptions\n\n| check | what it wants | why p8s differs |\n| --- | --- | --- |",
    ]
    lines += [f"| {row.id} | {row.wants} | {row.exception} |" for row in exceptions]
    lines.append("\n## What passes")
    for title, found in sections.items():
        passed = [f"| {row.id} | {row.wants} |" for row in found if not row.exception]
        lines += [f"\n### {title}\n\n| check | what it wants |\n| --- | --- |", *passed]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(render(read_sections()))
    json.dump({"written": str(DOCUMENT)}, sys.stdout)
