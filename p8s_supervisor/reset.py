"""Back to the beginning: the system's manifests applied again, or a namespace emptied."""

from __future__ import annotations

import re
import time
import typing

from p8s_supervisor import (
    add_ons,
    admission,
    applying,
    context,
    errors,
    kube,
    sweep,
    user_images,
    user_manifests,
    wait,
)

SYSTEM_NAMESPACES = ("kube-system", "kube-public", "kube-node-lease")
# What the API server itself calls a namespace's name: a DNS label.
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# For all manifests of one kind, the system's and the user's, and for each object: a webhook may
# take 10 s by default, and is then named by the apiserver.
APPLY_SECONDS, LONGEST_APPLY_SECONDS = 30.0, 12.0
# How long a namespace may take to get empty beyond its pods' grace, and at most.
SECONDS = 30.0
LONGEST_SECONDS = 300.0
# How long the operators of custom resources get for their finalizers before they are deleted too.
OPERATOR_SECONDS = 10.0
# What the apiserver refuses to delete for this long it will refuse: a webhook's verdict, most likely.
REFUSED_SECONDS = 5.0

# What conditions begin with that POST /apply is about.
PREFIXES = (applying.SYSTEM, add_ons.PREFIX, user_images.PREFIX, user_manifests.PREFIX)

Clock = wait.Clock


def apply(run: context.Context) -> list[str]:
    """The user's archives of images that are new or have changed, then server-side apply of the system's manifests again, of the add-ons', and of the user's.

    What was deleted comes back, what was changed too.

    Returns:
        The objects, such as `Deployment kube-system/coredns`.

    Raises:
        RequestError: 503, there is no apiserver to ask, or the start applies them just now; 502,
            some could not be applied, with each file.
    """
    client = applying.find_client(run)
    if not run.applying.acquire(timeout=APPLY_SECONDS):
        raise errors.RequestError(
            "manifests are being applied already", status=503, hint="/status says what is refused"
        )
    try:
        own = applying.apply_system(
            run, client, seconds=APPLY_SECONDS, longest=LONGEST_APPLY_SECONDS
        )
        if user_images.is_asked(run):  # before the manifests: pods of theirs may want them
            user_images.load(run)
        added = [
            applied for name in list(run.add_ons) for applied in add_ons.apply(run, client, name)
        ]
        users = user_manifests.apply(
            run, client, seconds=APPLY_SECONDS, longest=LONGEST_APPLY_SECONDS
        )
    finally:
        run.applying.release()
    failed = [f"{name}: {why}" for name, why in run.refused.items() if name.startswith(PREFIXES)]
    applied = own.applied + added + users.applied
    if failed:
        raise errors.RequestError(
            "not applied: " + "; ".join(failed),
            status=502,
            hint=f"{len(applied)} objects were applied; GET /logs/kube-apiserver says more",
        )
    run.journal.record("apply", f"{len(applied)} objects applied", applied=len(applied))
    return applied


def _client(run: context.Context) -> kube.Client:
    if run.client is None:
        raise _unavailable("it is not started yet")
    return run.client


def _unavailable(reason: str) -> errors.RequestError:
    return errors.RequestError(
        f"kube-apiserver does not answer: {reason}", status=503, hint="wait for /ready"
    )


def reset(run: context.Context, namespace: str, *, clock: Clock = time) -> list[str]:
    """Delete everything in a namespace, and wait until it is gone; the namespace itself stays.

    Custom resources go first, while their operators still run. Pods get their grace.

    Args:
        run: the context.
        namespace: its name.
        clock: time, or a fake in tests.

    Returns:
        What was deleted, such as `pods/web`.

    Raises:
        RequestError: 403, a namespace of the system; 404, there is no such namespace; 502, the
            apiserver refuses to delete something; 503, there is no apiserver to ask; 504, something
            is left. The last three with each object and why.
    """
    client = _client(run)
    try:
        _check(client, namespace)
        return _reset(run, sweep.Sweep(client, namespace, clock=clock), namespace, clock)
    except errors.CancelledError as error:
        raise errors.RequestError(error.message, status=503) from error
    except errors.KubeError as error:
        if error.status == 0:
            raise _unavailable(admission.explain(client, error)) from error
        raise


def _check(client: kube.Client, namespace: str) -> None:
    if namespace in SYSTEM_NAMESPACES:
        raise errors.RequestError(
            f"{namespace} holds the cluster itself",
            status=403,
            hint="POST /apply puts the system's objects back as they were",
        )
    # Nothing else goes into a path.
    missing = not NAME.fullmatch(namespace)
    if not missing:
        try:
            client.get(f"/api/v1/namespaces/{namespace}")
        except errors.KubeError as error:
            if error.status != 404:
                raise
            missing = True
    if missing:
        raise errors.RequestError(
            f"there is no namespace {namespace!r}",
            status=404,
            hint="`kubectl get namespaces` lists them",
        )


def _reset(run: context.Context, sweeping: sweep.Sweep, namespace: str, clock: Clock) -> list[str]:
    sweeping.discover()
    for said in sweeping.silent:
        run.tell(f"reset {namespace}: skipped, its server does not answer: {said}")
    if any(resource.is_custom for resource in sweeping.resources):
        try:
            left = _await(run, sweeping, OPERATOR_SECONDS, clock, custom_only=True)
        except errors.WaitTimeoutError as error:
            left = error.reason
        if left is not None:
            run.tell(f"reset {namespace}: custom resources are left, going on with the rest")
    sweeping.go_on()
    seconds = min(LONGEST_SECONDS, SECONDS + sweeping.grace)
    try:
        left = _await(run, sweeping, seconds, clock)
    except errors.WaitTimeoutError as error:
        raise errors.RequestError(
            f"after {seconds:g} s there is still left in {namespace}: {error.reason}",
            status=504,
            hint="an object with finalizers waits for whoever set them: start that again, or "
            'take them off with `kubectl patch … --type=merge -p \'{"metadata":{"finalizers":null}}\'`',
        ) from error
    if left is not None:
        raise errors.RequestError(
            f"the apiserver refuses to delete what is left in {namespace}: {left}",
            status=502,
            hint="a webhook that is named there has to allow it, or to go: `kubectl delete "
            "validatingwebhookconfiguration …`; what was not refused is deleted",
        )
    for name, why in sweeping.refused.items():
        run.tell(f"reset {namespace}: {name}: {why}")
    deleted = sorted(sweeping.deleted)
    run.journal.record(
        "reset",
        f"{namespace}: {len(deleted)} objects deleted",
        namespace=namespace,
        deleted=len(deleted),
        skipped=[*sweeping.silent, *(f"{name}: {why}" for name, why in sweeping.refused.items())],
    )
    return deleted


def _await(
    run: context.Context, sweeping: sweep.Sweep, seconds: float, clock: Clock, **which: typing.Any
) -> str | None:
    """Wait until nothing is left; what is, where it is refused."""
    left: str | None = None

    def look() -> str | None:
        nonlocal left
        left = sweeping.go_on(**which)
        return None if sweeping.refused_for() >= REFUSED_SECONDS else left

    wait.until(
        look,
        awaited="an empty namespace",
        seconds=seconds,
        interval=0.3,
        cancelled=run.stop.is_set,
        clock=clock,
    )
    return left
