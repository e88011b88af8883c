"""The user's own manifests: a directory of YAML and JSON files and kustomizations."""

from __future__ import annotations

import collections.abc
import json
import pathlib
import typing

from p8s_supervisor import applying, commands, context, errors, kube

PREFIX = "manifests/"
# Another one than for the system's own: what a user sets there is then taken off by nobody.
MANAGER = "p8s-manifests"
SUFFIXES = (".yaml", ".yml", ".json")
KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
KUSTOMIZE_SECONDS = 30.0
# What others need comes first.
FIRST_KINDS = ("CustomResourceDefinition", "Namespace")

Found = tuple[list[applying.Item], dict[str, str]]
"""The objects, and for each file that cannot be read why."""


def directory(run: context.Context) -> pathlib.Path:
    """Where they are, in the node."""
    return run.plan.paths.root / str(run.plan.settings.manifests).lstrip("/")


def is_asked(run: context.Context) -> bool:
    """Whether there are any: the directory is there, or a setting names it."""
    return run.loaded.sources["manifests"] != "default" or directory(run).is_dir()


def apply(
    run: context.Context, client: kube.Client, *, seconds: float, longest: float
) -> applying.Outcome:
    """Apply them all, and note which files are refused; see `applying.apply`."""
    asked = is_asked(run)
    items, broken = read(directory(run)) if asked else ([], {})
    # What waited in vain the last time waits after the others.
    silent = run.silent_files
    items.sort(key=lambda item: (item.manifest["kind"] not in FIRST_KINDS, item.file in silent))
    outcome = applying.apply(
        client,
        items,
        seconds=seconds,
        longest=longest,
        manager=MANAGER,
        cancelled=run.stop.is_set,
    )
    if run.stop.is_set():
        return outcome  # what was not tried is not refused
    run.silent_files = {each.item.file for each in outcome.refusals if each.is_silent}
    refused = join(broken, outcome.by_file())
    files = len({item.file for item in items} | broken.keys())
    told = f"{len(outcome.applied)} objects of {files} files applied, {len(refused)} files refused"
    if run.refused.pop(PREFIX, None):
        run.tell(f"{directory(run)}: {told}")
    applying.note(run, PREFIX, refused)
    if asked:
        run.journal.record("manifests", told, applied=len(outcome.applied), refused=refused)
    return outcome


def join(one: dict[str, str], other: dict[str, str]) -> dict[str, str]:
    """For each file the reasons that either has."""
    return {file: "; ".join(filter(None, (one.get(file), other.get(file)))) for file in one | other}


def read(top: pathlib.Path, *, required: bool = True) -> Found:
    """Every object below a directory, in the order of the files' names.

    A directory with a kustomization is that one, with all that is below it. Files with other
    endings, and names that begin with a dot, are left aside. `required`: whether it is a mistake
    that there is no such directory.
    """
    items: list[applying.Item] = []
    broken: dict[str, str] = {}
    if not top.is_dir():
        missing = {".": f"{top}: there is no such directory in the node"}
        return items, missing if required else {}
    for file in _list_files(top, broken, top, set()):
        name = str(file.relative_to(top))
        try:
            documents = _read_file(file)
        except (errors.P8sError, ValueError, OSError) as error:
            broken[name] = error.message if isinstance(error, errors.P8sError) else str(error)
            continue
        for number, document in enumerate(documents, 1):
            wrong = find_mistake(document)
            if wrong is None:
                items.append(applying.Item(file=name, manifest=document))
            else:
                told = f"document {number}: {wrong}"
                broken[name] = f"{broken[name]}; {told}" if name in broken else told
    return items, broken


def _list_files(
    where: pathlib.Path, broken: dict[str, str], top: pathlib.Path, seen: set[pathlib.Path]
) -> collections.abc.Iterator[pathlib.Path]:
    for name in KUSTOMIZATIONS:
        if (where / name).is_file():
            yield where / name
            return
    seen.add(where.resolve())
    try:
        entries = sorted(where.iterdir())
    except OSError as error:
        broken[str(where.relative_to(top))] = f"cannot be read: {error.strerror}"
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if entry.resolve() not in seen:  # a link to a directory above
                yield from _list_files(entry, broken, top, seen)
        elif entry.suffix in SUFFIXES:
            yield entry


def _read_file(file: pathlib.Path) -> list[typing.Any]:
    """The objects of a file, those of a List one by one.

    Raises:
        P8sError: kustomize refused.
        ValueError: not YAML; the reason does not quote it, there may be a Secret in it.
        OSError: it cannot be read.
    """
    if file.name in KUSTOMIZATIONS:
        try:
            text = commands.run(
                ["kubectl", "kustomize", str(file.parent)], seconds=KUSTOMIZE_SECONDS
            )
        except errors.CommandError as error:
            raise errors.P8sError(" ".join(error.message.split())) from error
    elif not file.is_file():
        raise ValueError("not a file")
    else:
        text = file.read_text()
    found: list[typing.Any] = []
    for document in _parse(text):
        is_list = isinstance(document, dict) and str(document.get("kind", "")).endswith("List")
        if is_list and isinstance(document.get("items"), list):
            found += document["items"]
        elif document is not None:
            found.append(document)
    return found


def _parse(text: str) -> list[typing.Any]:
    import yaml  # late: most clusters have no such file

    loader: typing.Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return list(yaml.load_all(text, Loader=loader))
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"not YAML: {where}{error.problem}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError("not YAML") from error


def find_mistake(document: typing.Any) -> str | None:
    """Why something is no object that could be applied; None where it is one."""
    if not isinstance(document, dict):
        return "not an object"
    metadata = document.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    named = {
        "apiVersion": document.get("apiVersion"),
        "kind": document.get("kind"),
        "metadata.name": metadata.get("name"),
    }
    told = f"{named['kind']} {named['metadata.name']}"
    for field, value in named.items():
        if not value:
            return f"{told}: it has no {field}"
    named["metadata.namespace"] = metadata.get("namespace") or "default"
    for field, value in named.items():
        # They become parts of a path.
        forbidden = "?#%" if field == "apiVersion" else "?#%/"
        if not isinstance(value, str) or set(value) & set(forbidden):
            return f"{told}: {field} is {value!r}"
    try:
        json.dumps(document)
    except (TypeError, ValueError):
        # Such as a date, which YAML makes of 2026-01-01, and JSON has none of.
        return f"{told}: it has a value that JSON lacks: put it in quotes"
    return None
