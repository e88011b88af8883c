"""What etcd needs while the cluster runs: free pages given back, a full store opened again, the mark.

kube-apiserver compacts every five minutes, which frees pages in the file; the file itself never
gets smaller. At its quota etcd raises an alarm and refuses writes until the alarm is taken back,
whatever is deleted meanwhile.
"""

from __future__ import annotations

import dataclasses
import threading
import time

from p8s_supervisor import context, credentials, errors, etcd, etcd_mark, space

# Between two looks; one costs two milliseconds.
LOOK_SECONDS = 10.0
# The soonest that the mark is written again: it is on the disk when that returns.
MARK_SECONDS = 60.0
# Below this size a file is left as it is, and above as long as half of it is in use. So it is where
# more than that is in use: etcd answers nothing while it copies it, which takes 10 ms a MB and more.
DEFRAGMENT_BYTES = 128 * space.MIB
# An alarm is taken back where this part of the quota is free again.
ROOM = 0.1
# After a try to make room that was not enough, so many times as long as that has taken.
PAUSES = 10
FULL, DISK = "etcd-space", "disk"


@dataclasses.dataclass
class Upkeep:
    """What is known from one look to the next.

    Attributes:
        store: etcd's client.
        marked_at: when the mark was last written, on the monotonic clock.
        tried: the revision at which nothing could be done about a full store.
        not_before: the next try is not sooner, on the monotonic clock.
    """

    store: etcd.Client
    marked_at: float = 0.0
    tried: int = 0
    not_before: float = 0.0


def start(run: context.Context) -> None:
    """Look in the background until the stop. Called when the cluster is ready."""
    run.marked = True
    threading.Thread(target=_work, args=(run,), name="etcd-upkeep", daemon=True).start()


def _work(run: context.Context) -> None:
    upkeep = Upkeep(credentials.connect_etcd(run.plan), marked_at=time.monotonic())
    while not run.stop.wait(LOOK_SECONDS):
        try:
            look(run, upkeep, now=time.monotonic())
        except (errors.P8sError, OSError):
            # Readiness says what is missing; the next look tries again, on a new connection.
            upkeep.store = credentials.connect_etcd(run.plan)


def look(run: context.Context, upkeep: Upkeep, *, now: float) -> None:
    """One look at the disk and at etcd, and what follows from it.

    Args:
        run: the context.
        upkeep: what is known from the looks before.
        now: on the monotonic clock.

    Raises:
        P8sError: etcd did not answer as it should.
        OSError: the mark cannot be written.
    """
    tell_trouble(run, DISK, space.find_lack(run.plan.paths.state))
    found = upkeep.store.read_status()
    if found.full:
        if found.revision != upkeep.tried and now >= upkeep.not_before:
            began = time.monotonic()
            make_room(run, upkeep, found)
            upkeep.not_before = now + PAUSES * (time.monotonic() - began)
    else:
        tell_trouble(run, FULL, None)
        if found.size > DEFRAGMENT_BYTES and found.size_in_use < min(
            found.size / 2, DEFRAGMENT_BYTES
        ):
            defragment(run, upkeep.store, found)
    if now - upkeep.marked_at >= MARK_SECONDS:
        upkeep.marked_at = now
        etcd_mark.keep(run)


def make_room(run: context.Context, upkeep: Upkeep, found: etcd.Status) -> None:
    """Forget old revisions, give their pages back, and have etcd take writes again if that is enough.

    Raises:
        P8sError: etcd did not answer as it should.
    """
    store = upkeep.store
    tell_trouble(
        run,
        FULL,
        f"etcd's store is full and refuses writes: {found.size_in_use / space.MIB:.0f} MiB in use, "
        f"a file of {found.size / space.MIB:.0f}, a quota of {found.quota / space.MIB:.0f}: delete "
        "objects, or start with a larger --etcd-quota",
    )
    store.compact(found.revision)
    # What is in use by etcd's own count follows only after two more writes: the copy tells.
    left = defragment(run, store, found)
    if left is None:
        return
    if left.size < found.quota * (1 - ROOM):
        store.disarm()
        tell_trouble(run, FULL, None)
    else:
        upkeep.tried = left.revision


def defragment(run: context.Context, store: etcd.Client, found: etcd.Status) -> etcd.Status | None:
    """Give free pages back to the file system, where there is room for the copy.

    Returns:
        etcd's status afterwards; None where there is no room.

    Raises:
        P8sError: etcd did not answer as it should.
    """
    if space.free(run.plan.paths.state) < found.size_in_use + 2 * space.LOW_BYTES:
        return None
    before = time.monotonic()
    store.defragment()
    seconds, after = time.monotonic() - before, store.read_status()
    message = (
        f"etcd: defragmented in {seconds:.2f} s: {found.size / space.MIB:.0f} → "
        f"{after.size / space.MIB:.0f} MiB"
    )
    run.tell(message)
    run.journal.record("etcd", message, size=after.size, seconds=round(seconds, 3))
    return after


def tell_trouble(run: context.Context, condition: str, reason: str | None) -> None:
    """Keep a condition's state for readiness, and tell when it changes."""
    changed = (condition in run.troubles) != (reason is not None)
    if reason is not None:
        run.troubles[condition] = reason
    else:
        run.troubles.pop(condition, None)
    if not changed:
        return
    message = f"{condition}: {reason or 'well again'}"
    run.tell(message)
    run.journal.record("warning", message, condition=condition)
