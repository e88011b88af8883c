"""Add-ons switched in a running cluster, and how each stands."""

from __future__ import annotations

import typing

from p8s_supervisor import add_on_names, add_ons, applying, catalogue, context, errors

PREFIX = context.ADD_ON


def enable(run: context.Context, name: str) -> list[str]:
    """Switch one on, also for later starts; what was applied.

    Raises:
        RequestError: 404, there is none of that name; 409, this image does not have it; 502, some of
            it could not be applied; 503, there is no apiserver to ask.
    """
    own = add_ons.list_own(run)
    _check_known(name, own)
    absence = add_ons.find_absence(run, name, own)
    if absence is not None:
        raise errors.RequestError(absence, status=409, hint="see docs/addons.md")
    client = applying.find_client(run)
    with run.applying:
        run.add_ons.setdefault(name, context.AddOn()).is_counted = True
        record = add_ons.read_record(run)
        record.switch(name, on=True, setting=run.loaded.texts["add_ons"])
        add_ons.write_record(run, record)
        try:
            applied = add_ons.apply(run, client, name)
        except errors.P8sError as error:
            run.refused[f"{PREFIX}{name}"] = error.message  # and so tried again
            raise
    prefix = f"{PREFIX}{name}/"
    failed = [f"{at}: {why}" for at, why in list(run.refused.items()) if at.startswith(prefix)]
    if failed:
        raise errors.RequestError(
            "not applied: " + "; ".join(failed),
            status=502,
            hint=f"{len(applied)} objects were applied; the others are tried again",
        )
    run.tell(f"add-on {name} is enabled")
    run.journal.record("add-on", f"{name} is enabled", name=name, enabled=True)
    return applied


def disable(run: context.Context, name: str) -> list[str]:
    """Switch one off, also for later starts; what was deleted.

    Raises:
        RequestError: 404, there is none of that name; 503, there is no apiserver to ask; 504,
            something is left.
    """
    own = add_ons.list_own(run)
    record = add_ons.read_record(run)
    known = name in record.applied or name in record.switched or name in run.add_ons
    if not known:
        _check_known(name, own)
    client = applying.find_client(run)
    with run.applying:
        record = add_ons.read_record(run)
        record.switch(name, on=False, setting=run.loaded.texts["add_ons"])
        add_ons.write_record(run, record)
        try:
            deleted = add_ons.remove(run, client, name)
        except errors.WaitTimeoutError as error:
            raise errors.RequestError(
                f"{name}: {error.reason}",
                status=504,
                hint="its deletion goes on; `kubectl get` shows what it waits for",
            ) from error
    run.tell(f"add-on {name} is disabled")
    run.journal.record("add-on", f"{name} is disabled", name=name, enabled=False)
    return deleted


def describe(run: context.Context) -> list[dict[str, typing.Any]]:
    """What GET /addons shows: all that there are, and how each stands."""
    own = add_ons.list_own(run)
    found = []
    wanted = [at.removeprefix(PREFIX) for at in list(run.refused) if at.startswith(PREFIX)]
    absent = [name for name in wanted if "/" not in name and name not in run.add_ons]
    for name in dict.fromkeys([*catalogue.TABLE, *own, *absent]):
        reason = add_ons.find_absence(run, name, own) or ""
        enabled = name in run.add_ons or name in absent
        if name in run.add_ons:
            refused = [
                f"{at.removeprefix(f'{PREFIX}{name}/')}: {why}"
                for at, why in list(run.refused.items())
                if at.startswith(f"{PREFIX}{name}/")
            ]
            reason = "; ".join(refused) or add_ons.find_lack(run, name) or ""
        known = catalogue.TABLE.get(name)
        found.append(
            {
                "name": name,
                "summary": known.summary if known else "your own",
                "enabled": enabled,
                "usable": enabled and not reason,
                "reason": reason,
            }
        )
    return found


def _check_known(name: str, own: list[str]) -> None:
    if name not in catalogue.TABLE and name not in own:
        raise errors.RequestError(add_on_names.tell_unknown(name, own), status=404)
