"""What is left after the start: what was refused is tried again until nothing is missing."""

from __future__ import annotations

import collections.abc
import threading

from p8s_supervisor import (
    admission,
    applying,
    context,
    gates,
    health,
    kube,
    user_images,
    user_manifests,
)

ADMISSION = "admission"
# Between two looks, and between two attempts to apply: at first, and at most.
LOOK_SECONDS, LONGEST_LOOK_SECONDS = 0.5, 5.0
# With this pause, some eight seconds after the start, it is told that it is not complete.
TOLD_PAUSE = 2.0
APPLY_SECONDS, LONGEST_APPLY_SECONDS = 2.0, 30.0
# For all objects of one attempt: in the background, and while the start waits.
ATTEMPT_SECONDS, START_SECONDS = 60.0, 5.0


def retry(
    run: context.Context, client: kube.Client, missing: collections.abc.Mapping[str, str]
) -> None:
    """During the start of a cluster with data: the system's manifests again, and what admission refuses."""
    if _is_refused(run, applying.SYSTEM):
        applying.apply_system(run, client, seconds=START_SECONDS, longest=START_SECONDS)
    look_at_admission(run, client, missing)
    if run.refused:
        # kube-controller-manager ends where its tokens are refused: that is no failure of its own.
        run.attempts = {name: gates.last_attempt(run.plan.paths, name) for name in run.attempts}


def look_at_admission(
    run: context.Context, client: kube.Client, missing: collections.abc.Mapping[str, str]
) -> None:
    """Where the node or pods of the system are missing, find out whether their writes are refused.

    kubelet's writes are its own affair: it logs that they are refused, and tries again.
    """
    reason = None
    if any(name == "node" or name.startswith("pod/") for name in missing):
        reason = admission.find_refusal(client, run.plan.settings.node_name)
    if reason is None:
        run.refused.pop(ADMISSION, None)
        return
    if ADMISSION not in run.refused:
        run.tell(f"{ADMISSION}: {reason}")
    run.refused[ADMISSION] = reason


def announce(run: context.Context) -> None:
    """Say that the user's manifests and images are still to come: /ready is not green before."""
    if user_manifests.is_asked(run):
        run.refused[user_manifests.PREFIX] = "they are not applied yet"
    if user_images.is_asked(run):
        run.refused[user_images.PREFIX] = "they are not loaded yet"
    from p8s_supervisor import add_ons  # late: nothing of them is on the way here

    add_ons.announce(run)


def start(
    run: context.Context,
    monitor: health.Monitor,
    on_complete: collections.abc.Callable[[], None] = lambda: None,
) -> None:
    """Complete the start: at once where nothing is missing, else in a thread.

    Args:
        run: the context.
        monitor: says what is missing.
        on_complete: called once, when nothing is missing any more.
    """
    client = run.client
    if client is None or (not run.refused and not monitor.look()):
        on_complete()
        return
    if not run.completing.acquire(blocking=False):
        return  # POST /apply, while the start is not complete yet
    threading.Thread(
        target=complete, args=(run, client, monitor, on_complete), name="completion", daemon=True
    ).start()


def complete(
    run: context.Context,
    client: kube.Client,
    monitor: health.Monitor,
    on_complete: collections.abc.Callable[[], None],
) -> None:
    """Apply what is refused again and again, until nothing is missing or the stop is asked for."""
    look_pause, apply_pause, next_apply = LOOK_SECONDS, APPLY_SECONDS, 0.0
    told = False
    while not run.stop.is_set():
        if run.timeline.now() >= next_apply:
            attempt(run, client)
            next_apply = run.timeline.now() + apply_pause
            apply_pause = min(2 * apply_pause, LONGEST_APPLY_SECONDS)
        missing = monitor.look()
        if not run.refused and not missing:
            break
        look_at_admission(run, client, missing)
        if not told and look_pause > TOLD_PAUSE:
            told = True
            listed = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
            run.tell(f"the start is not complete: {listed}")
        run.stop.wait(look_pause)
        look_pause = min(1.2 * look_pause, LONGEST_LOOK_SECONDS)
    run.completing.release()
    if not run.stop.is_set():
        on_complete()


def attempt(run: context.Context, client: kube.Client) -> None:
    """Apply what is refused once more."""
    with run.applying:
        longest = admission.LONGEST_SECONDS
        if _is_refused(run, applying.SYSTEM):
            applying.apply_system(run, client, seconds=ATTEMPT_SECONDS, longest=longest)
        if _is_refused(run, user_images.PREFIX):
            user_images.load(run)
        if _is_refused(run, context.ADD_ON):
            from p8s_supervisor import add_ons

            add_ons.apply_refused(run, client)
        if _is_refused(run, user_manifests.PREFIX):
            user_manifests.apply(run, client, seconds=ATTEMPT_SECONDS, longest=longest)


def _is_refused(run: context.Context, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in list(run.refused))
