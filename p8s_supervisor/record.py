"""What the state volume says of the cluster in it: its settings, and the Kubernetes that runs it."""

from __future__ import annotations

import json
import pathlib
import re

from p8s_supervisor import context, errors, files, settings

# Settings that objects in etcd were made with; they cannot change under them.
KEPT_SETTINGS = ("service_cidr", "pod_cidr", "cluster_domain", "node_name")
_VERSION = re.compile(r"v1\.(\d+)\.\d+.*")


def check_version(run: context.Context) -> None:
    """Compare the image's Kubernetes with the one that wrote the volume. Changes nothing.

    A minor reads what it wrote itself and what the one before it wrote. Of a newer one it may know
    neither the objects nor kubelet's files; of an older one Kubernetes promises nothing.
    Source: Kubernetes' version skew policy.

    Raises:
        P8sError: the image's is older by a minor, or newer by more than one; or the record cannot
            be read.
    """
    file = run.plan.paths.cluster_record
    if not file.exists():
        return
    kept = _read(file).get("kubernetes")
    if kept is None:
        return  # it was written by hand, as `damage.check_record` says
    own = run.versions["kubernetes"]
    try:
        was, now = (find_minor(version) for version in (kept, own))
    except (TypeError, ValueError) as error:
        raise _make_damaged(file, error) from error
    told = f"the cluster in this volume was last run with Kubernetes {kept}; this image has {own}"
    if now < was:
        raise errors.P8sError(
            f"{told}: an older minor cannot read what a newer one wrote",
            hint=f"use an image with Kubernetes 1.{was} (p8s:1.{was}), or a new volume; nothing "
            "was changed",
        )
    if now > was + 1:
        raise errors.P8sError(
            f"{told}: Kubernetes is upgraded by one minor at a time",
            hint=f"start it with an image of Kubernetes 1.{was + 1} (p8s:1.{was + 1}) until it is "
            "ready, and so on up to this one; nothing was changed",
        )


def find_minor(version: str) -> int:
    """The minor of a version of Kubernetes, such as 37 of v1.37.2.

    Raises:
        ValueError: it is none.
    """
    found = _VERSION.fullmatch(version)
    if found is None:
        raise ValueError(f"{version!r} is no version of Kubernetes")
    return int(found[1])


def check(run: context.Context) -> bool:
    """Compare the settings with those that the state volume was made with.

    Returns:
        Whether the volume is new.

    Raises:
        SettingsError: they differ, with each difference.
        P8sError: the record cannot be read.
    """
    file = run.plan.paths.cluster_record
    if not file.exists():
        return True
    kept = _read(file)
    try:
        wrong = [
            f"{name} = {run.loaded.texts[name]!r}, but the cluster in this volume was made with "
            f"{kept[name]!r}: use that, or a new volume"
            for name in KEPT_SETTINGS
            if settings.parse(name, kept[name]) != getattr(run.plan.settings, name)
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _make_damaged(file, error) from error
    if wrong:
        raise errors.SettingsError(wrong)
    return False


def write(run: context.Context) -> None:
    """Keep what `check` and `check_version` compare with."""
    _write(run, {name: run.loaded.texts[name] for name in KEPT_SETTINGS})


def keep_version(run: context.Context) -> None:
    """Keep the image's Kubernetes, before any of it has written to the volume.

    Raises:
        P8sError: the record cannot be read.
    """
    kept, own = _read(run.plan.paths.cluster_record), run.versions["kubernetes"]
    was = kept.get("kubernetes")
    if was == own:
        return
    if was is not None:
        run.tell(f"Kubernetes {was} ran the cluster in this volume; {own} goes on with it")
    _write(run, kept)


def _read(file: pathlib.Path) -> dict[str, str]:
    try:
        kept: dict[str, str] = json.loads(file.read_text())
        if not isinstance(kept, dict):
            raise TypeError(f"it holds {kept!r}")  # noqa: TRY301 — told as any other damage
    except (OSError, ValueError, TypeError) as error:
        raise _make_damaged(file, error) from error
    return kept


def _write(run: context.Context, kept: dict[str, str]) -> None:
    text = json.dumps(kept | {"kubernetes": run.versions["kubernetes"]}, indent=2) + "\n"
    files.write(run.plan.paths.cluster_record, text, durable=True)


def _make_damaged(file: pathlib.Path, error: Exception) -> errors.P8sError:
    return errors.P8sError(
        f"{file} is damaged: {error!r}",
        hint="put it back from a copy; it holds the settings that the cluster was made with: "
        + ", ".join(KEPT_SETTINGS),
    )
