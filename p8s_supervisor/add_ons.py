"""Add-ons: applied, looked at, and taken away again.

The table's are manifests beside this package, and what the image has of them in
/usr/share/p8s/add-ons; a user's own is a directory, read as the user's manifests are.
"""

from __future__ import annotations

import collections.abc
import importlib
import threading
import time
import typing

from p8s_supervisor import (
    add_on_names,
    add_on_record,
    add_on_removal,
    applying,
    catalogue,
    context,
    errors,
    health,
    kube,
    manifests,
    probes,
    processes,
    setup,
    user_manifests,
)

PREFIX = context.ADD_ON
# For all objects of one add-on, and for each.
SECONDS, LONGEST_SECONDS = 60.0, 12.0
# One that nobody asked for may come up for so long before it counts for readiness.
GRACE_SECONDS, LOOK_SECONDS = 60.0, 0.25
# How long its part of the sidecar may take to end.
END_SECONDS = 10.0
WORKLOADS = {"Deployment": "deployments", "DaemonSet": "daemonsets", "StatefulSet": "statefulsets"}


def choose(run: context.Context) -> None:
    """Set `run.add_ons`: those that the settings ask for, as they were switched by hand since."""
    record = read_record(run)
    chosen, sources = run.plan.settings, run.loaded.sources
    setting = run.loaded.texts["add_ons"]
    by_hand = record.find_switched(setting)
    own = list_own(run)
    for name in record.choose(setting, chosen.add_ons):
        asked = sources["add_ons"] != "default" or by_hand.get(name, False)
        lack = find_absence(run, name, own)
        if lack is None:
            run.add_ons[name] = context.AddOn(is_counted=asked)
        elif asked:
            run.refused[f"{PREFIX}{name}"] = lack


def list_own(run: context.Context) -> list[str]:
    """The names of the user's own."""
    return add_on_names.list_own(add_on_names.directory(run.plan.settings, run.plan.paths))


def find_absence(run: context.Context, name: str, own: list[str]) -> str | None:
    """Why there is no such add-on here; None where there is."""
    return add_on_names.find_absence(name, run.plan.settings, run.plan.paths, own)


def announce(run: context.Context) -> None:
    """Say which are still to come: those that were asked for are there before /ready is green."""
    choose(run)
    for name, standing in run.add_ons.items():
        if standing.is_counted:
            run.refused[f"{PREFIX}{name}"] = "it is not applied yet"


def apply_refused(run: context.Context, client: kube.Client) -> None:
    """Apply those again of which something is refused."""
    for name in list(run.add_ons):
        own = f"{PREFIX}{name}"
        if any(found == own or found.startswith(f"{own}/") for found in list(run.refused)):
            try_to_apply(run, client, name)


def try_to_apply(run: context.Context, client: kube.Client, name: str) -> None:
    """See `apply`; whatever goes wrong is a condition, and tried again."""
    try:
        apply(run, client, name)
    except Exception as error:  # noqa: BLE001 — what is wrong with one must not keep the others
        told = error.message if isinstance(error, errors.P8sError) else repr(error)
        run.refused[f"{PREFIX}{name}"] = told


def apply(run: context.Context, client: kube.Client, name: str) -> list[str]:
    """Apply one, take away what it has no more, and begin its part of the sidecar.

    What is refused is noted, by its file, as a condition.

    Returns:
        The objects, such as `Deployment p8s-metrics/metrics-server`.
    """
    standing = run.add_ons[name]
    items, broken = read(run, name)
    record = read_record(run)
    before = record.applied.get(name, [])
    now = [add_on_record.refer(item.manifest) for item in items]
    gone = [reference for reference in before if reference not in now]
    # Before they are: what a killed sidecar has applied is known to the next one.
    record.applied[name] = gone + now
    write_record(run, record)
    outcome = applying.apply(
        client, items, seconds=SECONDS, longest=LONGEST_SECONDS, cancelled=run.stop.is_set
    )
    if run.stop.is_set():
        return outcome.applied  # what was not tried is not refused
    refused = user_manifests.join(broken, outcome.by_file())
    applying.note(run, f"{PREFIX}{name}/", refused)
    if not refused and gone:
        try:
            add_on_removal.remove(client, gone, cancelled=run.stop.is_set)
        except errors.P8sError as error:  # tried again when it is applied again
            run.tell(f"add-on {name}: what it has no more is not taken away: {error.message}")
        else:
            record.applied[name] = now
            write_record(run, record)
    standing.workloads = [
        f"/apis/{version}/namespaces/{namespace or 'default'}/{WORKLOADS[kind]}/{called}"
        for version, kind, namespace, called in now
        if version == "apps/v1" and kind in WORKLOADS
    ]
    standing.is_applied = True
    change_kubelet(run)
    begin_part(run, name)
    # Before the condition goes: a look of before knows nothing of the add-on, and may have been green.
    run.changed_at = time.monotonic()
    run.refused.pop(f"{PREFIX}{name}", None)
    return outcome.applied


def read(run: context.Context, name: str) -> user_manifests.Found:
    """The objects of one; see `user_manifests.read`."""
    if name not in catalogue.TABLE:
        chosen, places = run.plan.settings, run.plan.paths
        return user_manifests.read(add_on_names.directory(chosen, places) / name)
    values = manifests.values(run.plan)
    make_values = find_function(name, "values")
    if make_values is not None:
        values |= make_values(run)
    brought, broken = user_manifests.read(run.plan.paths.add_ons / name, required=False)
    return [
        *brought,
        *(
            applying.Item(file=file, manifest=manifest)
            for file, found in manifests.add_on_by_file(name, values).items()
            for manifest in found
        ),
    ], broken


def find_function(name: str, function: str) -> typing.Any:
    """A function of an add-on's part of the sidecar; None where it has none. See `catalogue`."""
    part = catalogue.TABLE[name].part if name in catalogue.TABLE else ""
    if not part:
        return None
    return getattr(importlib.import_module(f"p8s_supervisor.{part}"), function, None)


def change_kubelet(run: context.Context) -> None:
    """Start kubelet again where the add-ons that are on now want another configuration of it."""
    if setup.write_kubelet_config(run, run.add_ons):
        run.tell("kubelet is started again, with the configuration that the add-ons want")
        processes.restart(run.supervisor, "kubelet")


def begin_part(run: context.Context, name: str) -> None:
    """Start an add-on's part of the sidecar, unless it runs."""
    standing, begin = run.add_ons[name], find_function(name, "begin")
    if begin is None or standing.thread is not None or run.stop.is_set():
        return

    def work() -> None:
        try:
            begin(run, standing.ended)
        except Exception as error:  # noqa: BLE001 — whatever it was, the add-on is not usable
            standing.failure = f"its part of the sidecar ended: {type(error).__name__}: {error}"
            run.tell(f"add-on {name}: {standing.failure}")

    standing.thread = threading.Thread(target=work, name=f"add-on {name}", daemon=True)
    standing.thread.start()


def find_lack(run: context.Context, name: str) -> str | None:
    """Why an add-on cannot be used; None where it can."""
    standing, client = run.add_ons.get(name), run.client
    if standing is None or client is None or not standing.is_applied:
        return "it is not applied yet"
    if standing.failure:
        return standing.failure
    for path in standing.workloads:
        lack = probes.find_unavailable(client, path, since=run.timeline.started_at())
        if lack is not None:
            return lack
    look = find_function(name, "find_lack")
    return None if look is None else typing.cast("str | None", look(run))


# --- at the start


def start(run: context.Context, monitor: health.Monitor) -> None:
    """Bring up those that nobody asked for, and take away what is not wanted any more; in a thread."""
    client = run.client
    if client is None:
        return
    threading.Thread(
        target=settle, args=(run, client, monitor), name="add-ons", daemon=True
    ).start()


def settle(run: context.Context, client: kube.Client, monitor: health.Monitor) -> None:
    """See `start`."""
    from p8s_supervisor import completion  # it applies what is asked for, and imports this

    awaited = [name for name, standing in run.add_ons.items() if not standing.is_counted]
    with run.applying:
        remove_unwanted(run, client)
        for name in awaited:
            try_to_apply(run, client, name)
    await_usable(run, awaited)
    if run.refused and not run.stop.is_set():
        completion.start(run, monitor)


def remove_unwanted(run: context.Context, client: kube.Client) -> None:
    """Take away what the settings do not ask for any more."""
    for name in read_record(run).applied.keys() - run.add_ons.keys():
        if f"{PREFIX}{name}" in run.refused:
            continue  # wanted, and not here: a directory that was not mounted takes nothing along
        try:
            remove(run, client, name)
        except errors.P8sError as error:
            run.tell(f"add-on {name} is not taken away: {error.message}")


def await_usable(run: context.Context, names: collections.abc.Iterable[str]) -> None:
    """Have each count for readiness once it can be used, or after `GRACE_SECONDS`."""
    begun, left = run.timeline.now(), set(names)
    while left and not run.stop.is_set():
        is_late = run.timeline.now() - begun > GRACE_SECONDS
        for name in sorted(left):
            standing = run.add_ons.get(name)
            if standing is None or is_late or find_lack(run, name) is None:
                left.discard(name)
                if standing is not None:
                    standing.is_counted = True
        run.stop.wait(LOOK_SECONDS)


def remove(run: context.Context, client: kube.Client, name: str) -> list[str]:
    """Take one away; see `add_on_removal.remove`."""
    standing = run.add_ons.pop(name, None)
    if standing is not None:
        standing.ended.set()
        if standing.thread is not None:
            standing.thread.join(END_SECONDS)
    own = f"{PREFIX}{name}"
    for found in [at for at in run.refused if at == own or at.startswith(f"{own}/")]:
        run.refused.pop(found, None)
    record = read_record(run)
    deleted = add_on_removal.remove(client, record.applied.get(name, []), cancelled=run.stop.is_set)
    clear = find_function(name, "clear")
    if clear is not None:
        clear(run, client)
    record.applied.pop(name, None)
    write_record(run, record)
    change_kubelet(run)
    return deleted


def read_record(run: context.Context) -> add_on_record.Record:
    """What the state volume says; of one that is damaged, as `setup` has told, nothing is taken."""
    try:
        return add_on_record.read(run.plan.paths.add_on_record)
    except ValueError:
        return add_on_record.Record()


def write_record(run: context.Context, record: add_on_record.Record) -> None:
    """See `add_on_record.write`."""
    add_on_record.write(run.plan.paths.add_on_record, record)
