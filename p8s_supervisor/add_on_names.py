"""Which add-ons there are: the table's, and the user's own, each a directory."""

from __future__ import annotations

import difflib
import pathlib

from p8s_supervisor import catalogue, parsers, paths, settings


def directory(chosen: settings.Settings, places: paths.Paths) -> pathlib.Path:
    """Where the user's own are, in the node."""
    return places.root / str(chosen.add_on_directories).lstrip("/")


def list_own(top: pathlib.Path) -> list[str]:
    """The names of the user's own: directories whose names are add-ons' names."""
    if not top.is_dir():
        return []
    return sorted(
        entry.name
        for entry in top.iterdir()
        if parsers.LABEL.fullmatch(entry.name)
        and entry.name not in catalogue.TABLE
        and entry.is_dir()
    )


def tell_unknown(name: str, own: list[str]) -> str:
    """That there is no add-on of a name, and which there are."""
    known = [*catalogue.TABLE, *own]
    near = difflib.get_close_matches(name, known, n=1)
    return (
        f"there is no add-on {name!r}"
        + (f"; did you mean {near[0]}?" if near else ".")
        + f" There are: {', '.join(known)}"
    )


def find_absence(
    name: str, chosen: settings.Settings, places: paths.Paths, own: list[str]
) -> str | None:
    """Why an add-on cannot be had in this node; None where it can."""
    if name not in catalogue.TABLE:
        return None if name in own else tell_unknown(name, own)
    if catalogue.TABLE[name].find_lack(places.root):
        return f"this image does not have {name}: use p8s:full"
    for setting in ("api_port", "http_port"):
        if getattr(chosen, setting) in catalogue.TABLE[name].ports:
            port = getattr(chosen, setting)
            return f"{name} takes port {port}, which is {setting}: choose another one for that"
    return None


def find_mistakes(loaded: settings.Loaded, places: paths.Paths) -> list[str]:
    """What is wrong with the add-ons that the settings name, one sentence each, with what to do."""
    top = directory(loaded.settings, places)
    wrong = []
    if loaded.sources["add_on_directories"] != "default" and not top.is_dir():
        wrong.append(f"add_on_directories: {top}: there is no such directory in the node")
    wrong += [
        f"add_on_directories: {top / name} has the name of an add-on of p8s: give it another one"
        for name in catalogue.TABLE
        if (top / name).is_dir()
    ]
    if loaded.sources["add_ons"] == "default":
        return wrong  # one that nobody asked for is left out where it cannot be had
    own = list_own(top)
    for name in loaded.settings.add_ons:
        absence = find_absence(name, loaded.settings, places, own)
        if absence is not None:
            wrong.append(f"add_ons: {absence}")
    return wrong
