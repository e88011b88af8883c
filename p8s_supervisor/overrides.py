"""What users give the components themselves: flags and fields by one setting, files by a directory.

A value of the user's replaces p8s' own; lists of feature gates and admission plugins are joined, and
configuration is merged as by RFC 7386 (JSON merge patch). What p8s needs for itself is refused.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import json
import pathlib
import re
import typing

from p8s_supervisor import errors, reserved

Object = dict[str, typing.Any]

COMPONENTS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
)
# Those that read a file of configuration, whose fields can be given one by one.
CONFIGURED = ("kubelet", "kube-proxy", "kube-scheduler")
# Flags that have no dash, by which a flag is told from a field.
_SHORT_FLAGS = ("config", "kubeconfig", "master", "v", "vmodule")
# Flags whose values are lists: the user's is joined to p8s' own.
JOINED = ("feature-gates", "enable-admission-plugins", "disable-admission-plugins")
# A flag of the user's that cannot stand beside these of p8s'.
_INSTEAD_OF = {"authorization-config": ("authorization-mode",)}

COREFILE, AUDIT_POLICY, AUTHENTICATION = "Corefile", "audit-policy.yaml", "authentication.yaml"
# Name in the directory → apiVersion and kind of what it holds.
FILES = {
    "kubelet.yaml": ("kubelet.config.k8s.io/v1beta1", "KubeletConfiguration"),
    "kube-proxy.yaml": ("kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration"),
    "kube-scheduler.yaml": ("kubescheduler.config.k8s.io/v1", "KubeSchedulerConfiguration"),
    AUTHENTICATION: ("apiserver.config.k8s.io/v1", "AuthenticationConfiguration"),
    AUDIT_POLICY: ("audit.k8s.io/v1", "Policy"),
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One `COMPONENT.KEY=VALUE`.

    Attributes:
        component: one of `COMPONENTS`.
        key: a flag without its dashes, or the path of a field of the component's configuration.
        value: as text; of a field YAML.
    """

    component: str
    key: str
    value: str

    @property
    def is_field(self) -> bool:
        """Whether it is a field: a flag has a dash, or the component has nothing but flags."""
        configured = self.component in CONFIGURED and self.key not in _SHORT_FLAGS
        return configured and "-" not in self.key

    def to_object(self) -> Object:
        """The field as a part of the configuration.

        Raises:
            ValueError: the value is not YAML, or has what JSON lacks.
        """
        import yaml  # late: most starts have none

        try:
            found = yaml.safe_load(self.value)
            json.dumps(found)
        except (yaml.YAMLError, TypeError) as error:
            raise ValueError(f"{self.value!r} is no value in YAML that JSON has too") from error
        for name in reversed(self.key.split(".")):
            found = {name: found}
        return typing.cast("Object", found)


def parse(text: str) -> tuple[Entry, ...]:
    """`COMPONENT.KEY=VALUE`, any number of them, each on a line of its own or after a blank.

    Raises:
        ValueError: with all that are none, and all that are refused.
    """
    entries, wrong = [], []
    for part in filter(None, re.split(r"\s+(?=[\w-]+\.[\w.-]+=)", text.strip())):
        found = re.fullmatch(r"([\w-]+)\.([\w.-]+)=(.*)", part, re.DOTALL)
        if found is None:
            wrong.append(f"{part!r} is not COMPONENT.KEY=VALUE, such as kubelet.maxPods=50")
            continue
        entry = Entry(found[1], found[2], found[3].strip())
        reason = _find_mistake(entry)
        if reason is None:
            entries.append(entry)
        else:
            wrong.append(f"{entry.component}.{entry.key}: {reason}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return tuple(entries)


def parse_gates(text: str) -> dict[str, bool]:
    """`NAME=true` or `NAME=false`, by commas.

    Raises:
        ValueError: one of them is neither.
    """
    gates = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        if value not in ("true", "false") or not name.isalnum():
            raise ValueError(f"{part!r} is neither NAME=true nor NAME=false")
        gates[name] = value == "true"
    return gates


def _find_mistake(entry: Entry) -> str | None:
    if entry.component not in COMPONENTS:
        near = difflib.get_close_matches(entry.component, COMPONENTS, n=1, cutoff=0.4)
        return f"no such component; did you mean {near[0] if near else ', '.join(COMPONENTS)}?"
    if not entry.is_field:
        return reserved.find_flag(entry.component, entry.key)
    try:
        made = entry.to_object()
    except ValueError as error:
        return str(error)
    return next(iter(reserved.find_fields(entry.component, made).values()), None)


def with_gates(
    entries: collections.abc.Sequence[Entry], gates: collections.abc.Mapping[str, bool]
) -> tuple[Entry, ...]:
    """The entries behind those that set the gates for every Kubernetes component."""
    if not gates:
        return tuple(entries)
    flag = ",".join(f"{name}={str(on).lower()}" for name, on in gates.items())
    made = [
        Entry(component, "featureGates", json.dumps(gates))
        if component in ("kubelet", "kube-proxy")
        else Entry(component, "feature-gates", flag)
        for component in COMPONENTS
        if component != "etcd"
    ]
    return (*made, *entries)


def merge_flags(
    command: collections.abc.Sequence[str], entries: collections.abc.Iterable[Entry]
) -> list[str]:
    """A command with the user's flags in place of p8s' own of the same name.

    Args:
        command: the program, which is the component's name or ends with it, and its flags.
        entries: those of other components, and fields, are left aside.
    """
    component = pathlib.PurePosixPath(command[0]).name
    wanted: dict[str, list[str]] = {}
    for entry in entries:
        if entry.component == component and not entry.is_field:
            wanted.setdefault(entry.key, []).append(entry.value)
    dropped = {name for flag in wanted for name in _INSTEAD_OF.get(flag, ())}
    kept = []
    for word in command:
        name, _, value = word.removeprefix("--").partition("=")
        if name in wanted and name in JOINED:
            wanted[name].insert(0, value)
        if name not in wanted.keys() | dropped:
            kept.append(word)
    given = [
        f"--{name}={value}"
        for name, values in wanted.items()
        for value in ([",".join(values)] if name in JOINED else values)
    ]
    return _without_disabled([*kept, *given])


def _without_disabled(command: list[str]) -> list[str]:
    """kube-apiserver refuses a plugin that is enabled and disabled: p8s' own is not enabled then."""
    enable, disable = "--enable-admission-plugins=", "--disable-admission-plugins="
    off = {
        name
        for word in command
        if word.startswith(disable)
        for name in word.removeprefix(disable).split(",")
    }
    if not off:
        return command
    made = []
    for word in command:
        if word.startswith(enable):
            left = [name for name in word.removeprefix(enable).split(",") if name not in off]
            made += [enable + ",".join(left)] if left else []
        else:
            made.append(word)
    return made


def merge(own: typing.Any, other: typing.Any) -> typing.Any:
    """One configuration over another (RFC 7386): mappings are merged, null takes away."""
    if not isinstance(other, dict):
        return other
    merged = dict(own) if isinstance(own, dict) else {}
    for name, value in other.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def read_files(directory: pathlib.Path) -> Object:
    """What the user's files hold: name → object, or text; none where there is no directory.

    Raises:
        SettingsError: with each file that cannot be used, and why.
    """
    found: Object = {}
    wrong: list[str] = []
    for entry in sorted(directory.iterdir()) if directory.is_dir() else []:
        if entry.name not in (COREFILE, *FILES):
            near = difflib.get_close_matches(entry.name, (COREFILE, *FILES), n=1, cutoff=0.85)
            if near:
                wrong.append(f"{entry}: no such file is read; did you mean {near[0]}?")
            continue
        try:
            text = entry.read_text()
            found[entry.name] = text if entry.name == COREFILE else _read_object(entry.name, text)
        except OSError as error:
            wrong.append(f"{entry}: cannot be read: {error.strerror}")
        except ValueError as error:
            wrong.append(f"{entry}: {error}")
    if wrong:
        raise errors.SettingsError(wrong)
    return found


def _read_object(name: str, text: str) -> Object:
    """A file's object.

    Raises:
        ValueError: it is none, of another kind, or has what is refused.
    """
    import yaml  # late: most starts have no such file

    try:
        found = yaml.safe_load(text)
        json.dumps(found)
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"not YAML: {where}{error.problem}") from error
    except (yaml.YAMLError, TypeError) as error:
        raise ValueError(f"not YAML that JSON could hold: {error}") from error
    if not isinstance(found, dict):
        raise ValueError("not an object")  # noqa: TRY004 — a mistake in a file, not in the code
    for key, wanted in zip(("apiVersion", "kind"), FILES[name], strict=True):
        if found.get(key, wanted) != wanted:
            raise ValueError(f"its {key} is {found[key]}; it has to be {wanted}, or left out")
    refused = reserved.find_fields(name.removesuffix(".yaml"), found)
    if refused:
        raise ValueError("; ".join(f"{path}: {reason}" for path, reason in refused.items()))
    version, kind = FILES[name]
    return {"apiVersion": version, "kind": kind, **found}
