"""The gates of the start: wait until something holds, or say at once that it will not."""

from __future__ import annotations

import collections.abc
import pathlib
import re

from p8s_supervisor import context, damage, errors, files, paths, probes, wait

LOG_LINES = 20
# A Go program that ends in a panic says why, and then where it was, in hundreds of lines.
TRACE_LINES = 500
_TRACE = re.compile(r"goroutine \d+ ")
_SAID = re.compile(r'\{"level"|time="|[IWEF]\d{4} |panic: |fatal error: |unexpected fault address ')
_STACK = re.compile(r',"stacktrace":"(?:[^"\\]|\\.)*"')
# A static pod that has ended this often in one start is not waited for any longer.
ATTEMPTS = 2


def pass_gate(run: context.Context, component: str, awaited: str, probe: wait.Probe) -> None:
    """Wait until the probe holds, until a component fails for good, or until the deadline.

    Raises:
        ComponentFailedError: with the last lines of the failed component's log.
    """

    def guarded() -> str | None:
        reason = probe()
        if reason is not None:
            raise_failure(run)
        return reason

    left = run.plan.settings.start_timeout - run.timeline.now()
    try:
        wait.until(guarded, awaited=awaited, seconds=max(left, 0), cancelled=run.stop.is_set)
    except errors.WaitTimeoutError as error:
        raise errors.ComponentFailedError(
            component, str(error), log_tail=log_tail(run.plan.paths, component)
        ) from error


def raise_failure(run: context.Context) -> None:
    """Say so at once when a component will not come up any more.

    Raises:
        ComponentFailedError: supervisord gave a process up, or a static pod ended twice.
    """
    for process in run.supervisor.list_processes():
        if process.state == "FATAL":
            raise errors.ComponentFailedError(
                process.name,
                process.reason,
                log_tail=log_tail(run.plan.paths, process.name),
                hint=damage.hint(run, process.name),
            )
    for name, before in run.attempts.items():
        first = before
        if before < 0:
            # A new container, and maybe on an older volume: there kubelet goes on counting.
            first = run.attempts[name] = first_attempt(run.plan.paths, name) - 1
        if last_attempt(run.plan.paths, name) - first > ATTEMPTS:
            raise errors.ComponentFailedError(
                name, "it keeps ending", log_tail=log_tail(run.plan.paths, name)
            )


def static_pod_logs(places: paths.Paths, name: str) -> list[pathlib.Path]:
    """A static pod's container logs, newest last; kubelet keeps those of its latest attempts."""
    logs = places.pod_logs.glob(f"kube-system_{name}-*/{name}/*.log")
    return sorted(logs, key=lambda log: log.lstat().st_mtime)


def last_attempt(places: paths.Paths, name: str) -> int:
    """The number of a static pod's latest attempt, which kubelet names its log by; -1: none."""
    return max(_attempts(places, name), default=-1)


def first_attempt(places: paths.Paths, name: str) -> int:
    """The number of the earliest attempt that there is a log of; 0: none yet."""
    return min(_attempts(places, name), default=0)


def _attempts(places: paths.Paths, name: str) -> list[int]:
    stems = [log.stem for log in static_pod_logs(places, name)]
    return [int(stem) for stem in stems if stem.isdigit()]


def log_tail(places: paths.Paths, component: str) -> list[str]:
    """The last lines of a component's log, whether it is a process or a static pod."""
    if component in probes.STATIC_PODS:
        # The newest one may be that of an attempt which has not said anything yet.
        for log in reversed(static_pod_logs(places, component)):
            # kubelet's format: time, stream, a tag, then the line itself.
            lines = [line.split(" ", 3)[-1] for line in files.tail(log, lines=LOG_LINES)]
            if lines:
                return lines
        return []
    lines = files.tail(places.logs / f"{component}.log", lines=TRACE_LINES)
    return without_traces(lines)[-LOG_LINES:]


def without_traces(lines: collections.abc.Sequence[str]) -> list[str]:
    """What a process said, without Go's traces of where it was."""
    traced = any(_TRACE.match(line) for line in lines)
    return [_STACK.sub("", line) for line in lines if not traced or _SAID.match(line)]
