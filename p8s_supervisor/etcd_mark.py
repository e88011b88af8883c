"""The mark: a revision that etcd is known to have had, kept beside its data, compared at each start.

etcd cuts a torn end off its log in silence, and begins anew where it finds nothing. A torn end is
what a kill leaves, and was acknowledged to nobody. Where something else was lost, or an older copy
was put back, the revision is lower than one that was seen.
"""

from __future__ import annotations

import json

from p8s_supervisor import context, credentials, errors, etcd, files, paths


def read(places: paths.Paths) -> int | None:
    """The mark: etcd had this revision, or a newer; None where there is none.

    Raises:
        P8sError: it is damaged.
    """
    file = places.etcd_mark
    try:
        return int(json.loads(file.read_text())["revision"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.P8sError(
            f"{file} is damaged: {error!r}",
            hint="remove it: it is made anew; whether etcd lost something is not seen this time",
        ) from error


def write(places: paths.Paths, revision: int) -> None:
    """Keep a mark, durably."""
    files.write(places.etcd_mark, json.dumps({"revision": revision}) + "\n", durable=True)


def check(run: context.Context, found: etcd.Status) -> int | None:
    """Compare what etcd holds with the mark, before kube-apiserver serves it.

    Returns:
        The mark, see `read`.

    Raises:
        P8sError: etcd lost something.
    """
    places = run.plan.paths
    mark = read(places)
    if mark is not None and found.revision < mark:
        raise errors.P8sError(
            f"etcd has lost writes: in {places.etcd_data} it is at revision {found.revision}, and "
            f"was at {mark}",
            hint=f"put {places.etcd_data} back from a copy, as a whole; or remove "
            f"{places.etcd_mark} to go on with what is left",
        )
    return mark


def begin(run: context.Context, store: etcd.Client) -> None:
    """Mark what etcd holds now that it was compared.

    Raises:
        P8sError: etcd does not answer.
    """
    write(run.plan.paths, store.read_status().revision)
    run.marked = True


def keep(run: context.Context) -> None:
    """Raise the mark to what etcd holds, where this start has compared it.

    An etcd that does not answer leaves the mark as it is.

    Raises:
        OSError: it cannot be written.
    """
    if not run.marked:
        return
    try:
        mark, found = read(run.plan.paths), credentials.connect_etcd(run.plan).read_status()
    except errors.P8sError:
        return  # the older mark stands: it asks for less
    if mark is None or found.revision > mark:
        write(run.plan.paths, found.revision)
