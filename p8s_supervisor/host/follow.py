"""A cluster that `p8s run` has started: what it prints, until when it is waited for, what signals do."""

from __future__ import annotations

import collections
import collections.abc
import os
import signal
import threading
import time
import types
import typing

from p8s_supervisor import errors
from p8s_supervisor.host import cli_options, client, clusters, console, docker_host

INTERVAL = 0.1
# What is refused is tried again after 2 s and after 4 more: it may only have needed another object.
DEGRADED_SECONDS = 10.0
LOG_LINES = 30
# What the node says when it is ready is right inside it; on the host, `tell_started` says it.
_INSIDE = ("ready: ", "  curl ", "  kubectl ")


class Interrupts:
    """SIGINT, SIGTERM and SIGHUP end the cluster in order; a second one kills it.

    Attributes:
        count: how many came.
    """

    def __init__(self) -> None:
        self.count = 0
        self._cluster: clusters.Cluster | None = None
        self._before: dict[signal.Signals, typing.Any] = {}

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup, or a job in a script's background
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def watch(self, cluster: clusters.Cluster) -> None:
        """From now on this cluster is ended; at once, where a signal has come before."""
        self._cluster = cluster
        if self.count:
            self._end(cluster)

    def _handle(self, number: int, _: types.FrameType | None) -> None:
        self.count += 1
        if self._cluster is not None:
            self._end(self._cluster)

    def _end(self, cluster: clusters.Cluster) -> None:
        # A thread with a connection of its own: the main thread is somewhere in another one.
        action = "kill" if self.count > 1 else "stop"
        threading.Thread(target=_end, args=(cluster, action), daemon=True).start()
        if action == "stop":
            os.write(2, b"\np8s: stopping; a second signal kills\n")  # print is not reentrant


def _end(cluster: clusters.Cluster, action: str) -> None:
    engine = docker_host.connect()
    if action == "kill":
        engine.kill(cluster)
    else:
        engine.stop(cluster)


class Follower:
    """Reads what a container prints, from its start to its end; keeps the last lines.

    Attributes:
        lines: the last lines.
        is_shown: whether each line is printed as it comes.
    """

    def __init__(self, cluster: clusters.Cluster) -> None:
        self.lines: collections.deque[str] = collections.deque(maxlen=LOG_LINES)
        self._cluster = cluster
        self.is_shown = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def finish(self) -> list[str]:
        """The last lines of a container that has ended."""
        self._thread.join(timeout=5)
        return list(self.lines)

    def _read(self) -> None:
        engine = docker_host.connect()
        for line in client.split_lines(engine.read_logs(self._cluster, follow=True)):
            self.lines.append(line)
            if self.is_shown and not line.partition("] ")[2].startswith(_INSIDE):
                try:
                    console.tell(line)
                except OSError:  # nobody reads any more; the lines are kept all the same
                    self.is_shown = False


class _Patience:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._degraded_at: float | None = None

    def is_over(self, status: console.Status) -> bool:
        """Whether nothing more is to be waited for, by the cluster's own clock."""
        state, uptime = status["state"], status["uptime"]
        if state != "degraded" or all(map(_is_to_come, status["missing"])):
            self._degraded_at = None
            is_late = uptime > self._seconds
            return bool(state == "ready" or (state in ("not ready", "degraded") and is_late))
        if self._degraded_at is None:
            self._degraded_at = uptime
        return bool(uptime - self._degraded_at >= DEGRADED_SECONDS)


def _is_to_come(condition: str) -> bool:
    """Whether it is an add-on that cannot be used yet: what is refused of one is named by its file."""
    kind, _, name = condition.partition("/")
    return kind == "add-on" and "/" not in name


def await_ready(
    engine: docker_host.Engine,
    cluster: clusters.Cluster,
    show: collections.abc.Callable[[console.Status], None] = lambda _: None,
    *,
    seconds: float,
) -> console.Status | None:
    """Poll /status until the cluster is ready, or runs and will not be ready by itself.

    Args:
        engine: the engine.
        cluster: the cluster.
        show: is shown each status.
        seconds: the cluster's own bound for its start. Beyond it the start has failed, or goes on
            for somebody to mend what is missing.

    Returns:
        The status; None where the container ended first.
    """
    if not cluster.is_running:  # it ended at once, and has no ports any more
        return None
    api = cli_options.make_client(engine, cluster)
    next_look = 0.0
    patience = _Patience(seconds)
    while True:
        try:
            status = api.status()
        except errors.RequestError as error:
            if error.status not in (0, 503):
                raise
            next_look = 0.0  # it may have ended
        else:
            show(status)
            if patience.is_over(status):
                return status
        if time.monotonic() >= next_look:
            next_look = time.monotonic() + 1
            now = engine.refresh(cluster)
            # With a restart policy, a failed start begins again: that is no start either.
            if now is None or not now.is_running or now.restarts > cluster.restarts:
                return None
        time.sleep(INTERVAL)


def tell_started(cluster: clusters.Cluster, status: console.Status, url: str, context: str) -> None:
    """The lines that people wait for; what is missing is told too."""
    versions, addresses = status["versions"], status["addresses"]
    how = f"is ready after {max(status['conditions'].values(), default=0):.1f} s"
    if status["state"] != "ready":
        how = f"runs, and is {status['state']}"
    console.tell(
        f"{cluster.name} {how}: Kubernetes {versions['kubernetes']} at {addresses['apiserver']}"
    )
    option = "" if cluster.name == "default" else f" --name {cluster.name}"
    if context:
        console.tell(f"  kubectl get pods -A   (context {context})")
    else:
        console.tell(f"  p8s kubeconfig{option} > p8s.kubeconfig")
    console.tell(f"  p8s status{option}   (HTTP API: {url})")
    for thing, reason in status["missing"].items():
        console.warn(f"{thing}: {reason}")
    if status["missing"]:
        console.warn(f"it is tried again until it is right: `p8s wait{option}`")
