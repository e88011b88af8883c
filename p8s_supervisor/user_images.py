"""The user's image archives: a directory that is loaded once the system runs."""

from __future__ import annotations

import json
import pathlib
import typing

from p8s_supervisor import context, errors, files

PREFIX = "images/"
ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

Seen = dict[str, dict[str, typing.Any]]
"""Archive → its `size` and `changed`, and the `names` that were loaded, or why it is `refused`."""


def directory(run: context.Context) -> pathlib.Path:
    """Where they are, in the node."""
    return run.plan.paths.root / str(run.plan.settings.images).lstrip("/")


def is_asked(run: context.Context) -> bool:
    """Whether there are any: the directory is there, or a setting names it."""
    return run.loaded.sources["images"] != "default" or directory(run).is_dir()


def load(run: context.Context) -> None:
    """Load each archive that is new or has changed, and note which are refused.

    One that was loaded by an earlier start is left alone while the node has all of its images.
    """
    top = directory(run)
    if not top.is_dir():
        note(run, {".": f"{top}: there is no such directory in the node"} if is_asked(run) else {})
        return
    refused: dict[str, str] = {}
    seen = read_seen(run.plan.paths.loaded_images)
    now: Seen = {}
    try:
        there = _list_names(run)
    except errors.RequestError as error:
        note(run, {".": error.message})
        return
    for archive in sorted(top.iterdir()):
        if archive.name.startswith(".") or not archive.name.endswith(ENDINGS):
            continue
        if run.stop.is_set():
            return
        try:
            entry = _look_at(run, archive, seen.get(archive.name, {}), there)
        except (OSError, errors.RequestError) as error:
            # Not kept: the next attempt may find room, or a containerd that answers.
            told = error.message if isinstance(error, errors.P8sError) else str(error)
            refused[archive.name] = told
            continue
        now[archive.name] = entry
        if "refused" in entry:
            refused[archive.name] = entry["refused"]
    if now != seen:
        files.write(run.plan.paths.loaded_images, json.dumps(now, indent=2) + "\n")
    note(run, refused)


def _look_at(
    run: context.Context, archive: pathlib.Path, before: dict[str, typing.Any], there: set[str]
) -> dict[str, typing.Any]:
    """What is kept of an archive: as before, or loaded now; see `_load`."""
    found = archive.stat()
    entry = {"size": found.st_size, "changed": found.st_mtime_ns}
    if entry.items() <= before.items() and there.issuperset(before.get("names", ())):
        return before
    return entry | _load(run, archive)


def _list_names(run: context.Context) -> set[str]:
    from p8s_supervisor import images  # late: most clusters have no such directory

    return {image["name"] for image in images.list_images(run)["images"]}


def _load(run: context.Context, archive: pathlib.Path) -> dict[str, typing.Any]:
    """Load one archive: the names, or why it cannot be loaded, whenever it is tried.

    Raises:
        RequestError: it cannot be loaded now.
        OSError: it cannot be read.
    """
    from p8s_supervisor import images

    try:
        with archive.open("rb") as stream:
            return {"names": images.load(run, stream)}
    except errors.RequestError as error:
        if error.status != 400:
            raise
        return {"refused": error.message}


def read_seen(file: pathlib.Path) -> Seen:
    """What an earlier start, or attempt, has loaded; nothing where there was none."""
    try:
        return typing.cast("Seen", json.loads(file.read_text()))
    except (OSError, ValueError):
        return {}


def note(run: context.Context, refused: dict[str, str]) -> None:
    """Keep which archives are refused and why, as conditions; tell of each once."""
    before = {name for name in list(run.refused) if name.startswith(PREFIX)}
    now = {f"{PREFIX}{name}": reason for name, reason in refused.items()}
    for name, reason in now.items():
        if name not in before:
            run.tell(f"{name} is not loaded: {reason}")
            run.journal.record("refused", f"{name}: {reason}", file=name, reason=reason)
    run.refused.update(now)  # in place: other threads change other conditions
    for name in before - now.keys():
        run.refused.pop(name, None)
