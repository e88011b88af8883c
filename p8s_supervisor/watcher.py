"""Watches the cluster once it is ready: warnings and restarts of pods go into the journal."""

from __future__ import annotations

import collections.abc
import threading
import typing

from p8s_supervisor import context, errors, kube, probes

EVENTS = "/api/v1/events"
SYSTEM_PODS = "/api/v1/namespaces/kube-system/pods"
# How long one watch stays open: without anything to tell it costs nothing.
WATCH_SECONDS = 1800
# Between two attempts where the apiserver does not answer: the first, and the longest.
RETRY_SECONDS, LONGEST_RETRY_SECONDS = 1.0, 10.0


class Handler(typing.Protocol):
    """What is done with the objects that are watched."""

    def forget(self, listed: collections.abc.Sequence[kube.Object]) -> None:
        """All objects that there are now: what is known of others can be forgotten."""

    def see(self, found: kube.Object) -> None:
        """An object as it is now; may be the same as before."""

    def drop(self, found: kube.Object) -> None:
        """An object that is gone."""


class Warnings:
    """Records Kubernetes' events of type Warning, each once for each time that it was counted."""

    def __init__(self, run: context.Context) -> None:
        self._run = run
        self._counts: dict[str, int] = {}

    def forget(self, listed: collections.abc.Sequence[kube.Object]) -> None:
        """See `Handler`."""
        there = {event["metadata"]["uid"] for event in listed}
        self._counts = {uid: count for uid, count in self._counts.items() if uid in there}

    def drop(self, found: kube.Object) -> None:
        """See `Handler`."""
        self._counts.pop(found["metadata"]["uid"], None)

    def see(self, found: kube.Object) -> None:
        """See `Handler`. What happened before the start is of an earlier life of the cluster."""
        if found.get("type") != "Warning":
            return
        if probes.is_older(_moment(found), self._run.timeline.started_at()):
            return
        uid, count = found["metadata"]["uid"], _count(found)
        if count <= self._counts.get(uid, 0):
            return
        self._counts[uid] = count
        about = found.get("involvedObject", {})
        name = "/".join(filter(None, (about.get("namespace"), about.get("name"))))
        reason, message = found.get("reason") or "", found.get("message") or ""
        self._run.journal.record(
            "warning",
            f"{about.get('kind', '')} {name}: {reason}: {message}".strip(),
            object={key: about.get(key, "") for key in ("kind", "namespace", "name")},
            reason=reason,
            count=count,
        )


class Restarts:
    """Records restarts of the containers of kube-system's pods."""

    def __init__(self, run: context.Context) -> None:
        self._run = run
        self._counts: dict[tuple[str, str], int] = {}
        self._begun = False

    def forget(self, listed: collections.abc.Sequence[kube.Object]) -> None:
        """See `Handler`; what the first list has was before the watch."""
        there = {pod["metadata"]["name"] for pod in listed}
        self._counts = {key: count for key, count in self._counts.items() if key[0] in there}
        if not self._begun:
            self._begun = True
            for pod in listed:
                self._counts |= {
                    (pod["metadata"]["name"], name): n for name, n, _ in _restarts(pod)
                }

    def drop(self, found: kube.Object) -> None:
        """See `Handler`; a static pod's comes back at once, with the counts that it had."""

    def see(self, found: kube.Object) -> None:
        """See `Handler`."""
        pod = found["metadata"]["name"]
        for name, count, reason in _restarts(found):
            if count <= self._counts.get((pod, name), 0):
                continue
            self._counts[pod, name] = count
            self._run.journal.record(
                "restart",
                f"{pod}: {name} was started again" + (f": {reason}" if reason else ""),
                component=pod,
                kind="pod",
                container=name,
                restarts=count,
            )


def _restarts(pod: kube.Object) -> list[tuple[str, int, str]]:
    """For each container of a pod its name, how often it was restarted, and why the last time."""
    found = []
    for container in pod.get("status", {}).get("containerStatuses", []):
        ended = container.get("lastState", {}).get("terminated", {})
        reason = f"{ended.get('reason', 'ended')}, exit code {ended['exitCode']}" if ended else ""
        found.append((container["name"], int(container["restartCount"]), reason))
    return found


def _moment(event: kube.Object) -> str | None:
    """When an event was last seen; components fill in different fields."""
    found: str | None = (
        (event.get("series") or {}).get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp")
    )
    return found


def _count(event: kube.Object) -> int:
    return int((event.get("series") or {}).get("count") or event.get("count") or 1)


def follow(
    client: kube.Client,
    path: str,
    handler: Handler,
    *,
    ended: threading.Event,
    seconds: int = WATCH_SECONDS,
    **params: str,
) -> None:
    """List and watch until the end, again and again whatever breaks.

    Args:
        client: the apiserver's.
        path: of the list.
        handler: is shown each object of each list, and each that changes.
        ended: set at the end, which a watch that is open sees when something changes.
        seconds: how long one watch stays open.
        params: more of the query, such as a field selector.
    """
    pause = RETRY_SECONDS
    while not ended.is_set():
        try:
            for found in look(client, path, ended=ended, seconds=seconds, **params):
                show(handler, found)
                pause = RETRY_SECONDS
        except (errors.KubeError, ValueError, KeyError):
            # The apiserver is away, cannot go on from that version, or ended in the middle of an
            # answer: readiness names the reason, and the next list has what was missed.
            pause = min(2 * pause, LONGEST_RETRY_SECONDS)
        ended.wait(pause)


def look(
    client: kube.Client,
    path: str,
    *,
    ended: threading.Event,
    seconds: int = WATCH_SECONDS,
    **params: str,
) -> collections.abc.Iterator[kube.Object]:
    """The list, then each change of it, until the watch ends.

    Raises:
        KubeError: see `kube.Client.watch`; also where the stream says so itself.
    """
    listed = client.get(path, **params)
    yield listed
    version = listed["metadata"]["resourceVersion"]
    for change in client.watch(path, resource_version=version, seconds=seconds, **params):
        if ended.is_set():
            return
        if change["type"] == "ERROR":
            said = change["object"]
            raise errors.KubeError(str(said.get("message")), status=int(said.get("code") or 0))
        if change["type"] != "BOOKMARK":
            yield change


def show(handler: Handler, found: kube.Object) -> None:
    """Show a handler a list, or a change of one."""
    if "type" not in found:
        handler.forget(found["items"])
        for listed in found["items"]:
            handler.see(listed)
    elif found["type"] == "DELETED":
        handler.drop(found["object"])
    else:
        handler.see(found["object"])


def start(run: context.Context) -> None:
    """Watch from threads of their own, which end with the cluster."""
    if run.client is None:
        return
    for name, path, handler, params in (
        ("warnings", EVENTS, Warnings(run), {"fieldSelector": "type=Warning"}),
        ("restarts", SYSTEM_PODS, Restarts(run), {}),
    ):
        threading.Thread(
            target=follow,
            args=(run.client, path, handler),
            kwargs={"ended": run.stop, **params},
            name=name,
            daemon=True,
        ).start()
