"""What the state volume says of the cluster in it: the settings that it was made with."""

from __future__ import annotations

import json

from p8s_supervisor import context, errors, files, settings

# Settings that objects in etcd were made with; they cannot change under them.
KEPT_SETTINGS = ("service_cidr", "pod_cidr", "cluster_domain", "node_name")


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
    try:
        kept: dict[str, str] = json.loads(file.read_text())
        wrong = [
            f"{name} = {run.loaded.texts[name]!r}, but the cluster in this volume was made with "
            f"{kept[name]!r}: use that, or a new volume"
            for name in KEPT_SETTINGS
            if settings.parse(name, kept[name]) != getattr(run.plan.settings, name)
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.P8sError(
            f"{file} is damaged: {error!r}",
            hint="put it back from a copy; it holds the settings that the cluster was made with: "
            + ", ".join(KEPT_SETTINGS),
        ) from error
    if wrong:
        raise errors.SettingsError(wrong)
    return False


def write(run: context.Context) -> None:
    """Keep what `check` compares with."""
    kept = {name: run.loaded.texts[name] for name in KEPT_SETTINGS}
    kept["kubernetes"] = run.versions["kubernetes"]
    text = json.dumps(kept, indent=2) + "\n"
    files.write(run.plan.paths.cluster_record, text, durable=True)
