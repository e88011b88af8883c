"""Objects of an add-on taken away, in the reverse order of their application, and waited for."""

from __future__ import annotations

import collections.abc
import time

from p8s_supervisor import add_on_record, errors, kube, wait

# Pods get their grace, and a namespace its content, one after the other.
SECONDS = 90.0


def remove(
    client: kube.Client,
    references: collections.abc.Sequence[add_on_record.Reference],
    *,
    seconds: float = SECONDS,
    cancelled: collections.abc.Callable[[], bool] = lambda: False,
    clock: wait.Clock = time,
) -> list[str]:
    """Delete objects, and wait until they are gone.

    Returns:
        What was deleted, such as `Deployment p8s-metrics/metrics-server`.

    Raises:
        KubeError: the apiserver does not answer, or refuses.
        WaitTimeoutError: some are left.
        CancelledError: it was cancelled meanwhile.
    """
    begun = clock.monotonic()
    deleted: list[str] = []
    left: dict[str, str] = {}
    for reference in reversed(references):
        path = find_path(client, reference)
        if path is None:
            continue
        try:
            client.request("DELETE", path, body={"propagationPolicy": "Background"})
        except errors.KubeError as error:
            if error.status == 404:
                continue
            raise
        deleted.append(name(reference))
        left[path] = name(reference)

    def look() -> str | None:
        for path in list(left):
            try:
                client.get(path)
            except errors.KubeError as error:
                if error.status != 404:
                    return error.message
                del left[path]
            else:
                return f"{left[path]} is still there"
        return None

    wait.until(
        look,
        awaited="the end of what was deleted",
        seconds=max(0.0, begun + seconds - clock.monotonic()),
        interval=0.1,
        cancelled=cancelled,
        clock=clock,
    )
    return deleted


def find_path(client: kube.Client, reference: add_on_record.Reference) -> str | None:
    """Where an object is at the apiserver; None where its kind is gone, and so it is too.

    Raises:
        KubeError: there is no answer.
    """
    version, kind, namespace, called = reference
    metadata = {"name": called} | ({"namespace": namespace} if namespace else {})
    try:
        return client.find_path({"apiVersion": version, "kind": kind, "metadata": metadata})
    except errors.KubeError as error:
        if error.status == 404:
            return None
        raise


def name(reference: add_on_record.Reference) -> str:
    """An object as it is told."""
    _, kind, namespace, called = reference
    return f"{kind} {'/'.join(filter(None, (namespace, called)))}"
