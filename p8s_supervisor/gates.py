"""The gates of the start: wait until something holds, or say at once that it will not."""

from __future__ import annotations

import collections.abc
import pathlib
import re

from p8s_supervisor import context, damage, errors, files, network, overrides, paths, wait

LOG_LINES = 20
# A Go program that ends in a panic says why, and then where it was, in hundreds of lines; one that does
# not know a flag tells all that it knows.
TRACE_LINES = 1000
_TRACE = re.compile(r"goroutine \d+ ")
_SAID = re.compile(r'\{"level"|time="|[IWEF]\d{4} |panic: |fatal error: |unexpected fault address ')
# How Go's flag package and Kubernetes' components tell of a flag that is wrong.
_WRONG_FLAG = ("Error: ", "flag ", "invalid ")
_STACK = re.compile(r',"stacktrace":"(?:[^"\\]|\\.)*"')
# A pod that has ended this often in one start is not waited for any longer.
ATTEMPTS = 2
# kube-controller-manager ends where kube-apiserver is not healthy within 10 s: on a slow host that is no
# failure of its own. Source: cmd/kube-controller-manager/app/controllermanager.go, CreateControllerContext.
WAITED = "failed to wait for apiserver being healthy"
# What kubelet and kube-proxy say of a field that they do not know, and then go on without it.
LENIENT = "Using lenient decoding as strict decoding failed"


def begin(run: context.Context) -> None:
    """Note what was there before kubelet is started: attempts of pods, and the end of its log."""
    run.attempts = {name: last_attempt(run.plan.paths, name) for name in list_watched(run)}
    log = run.plan.paths.logs / "kubelet.log"
    run.kubelet_log = log.stat().st_size if log.exists() else 0


def list_watched(run: context.Context) -> tuple[str, ...]:
    """The pods that end a start by ending: static pods, and what the user has configured."""
    given_by_pod = {
        "kube-proxy": run.plan.configures("kube-proxy"),
        "coredns": overrides.COREFILE in run.plan.files,
    }
    own = network.static_pods(run.plan)
    return (*own, *(name for name, given in given_by_pod.items() if given))


def refuse_unknown_fields(run: context.Context) -> None:
    """See that kubelet and kube-proxy know every field that the user gives.

    Raises:
        ComponentFailedError: one does not, in its own words.
    """
    logs: dict[str, str] = {}
    if run.plan.configures("kubelet"):
        log = (run.plan.paths.logs / "kubelet.log").read_bytes()
        since = run.kubelet_log if run.kubelet_log <= len(log) else 0  # it was rotated
        logs["kubelet"] = log[since:].decode(errors="replace")
    if run.plan.configures("kube-proxy"):
        newest = pod_logs(run.plan.paths, "kube-proxy")[-1:]
        logs["kube-proxy"] = "".join(file.read_text(errors="replace") for file in newest)
    for name, text in logs.items():
        said = [line for line in text.splitlines() if LENIENT in line]
        if said:
            raise errors.ComponentFailedError(
                name, "its configuration has what it does not know", log_tail=said[-1:]
            )


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
        ComponentFailedError: supervisord gave a process up, or a pod ended twice, and not because
            it waited for kube-apiserver in vain.
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
        first, last = before, last_attempt(run.plan.paths, name)
        if before < 0 or last < before:
            # A new container, and maybe on an older volume: there kubelet goes on counting. Or a pod
            # with other flags than at the last start: there it begins anew.
            first = run.attempts[name] = first_attempt(run.plan.paths, name) - 1
        if last - first > ATTEMPTS and _waited(run.plan.paths, name, since=first):
            run.attempts[name] = last
        elif last - first > ATTEMPTS:
            raise errors.ComponentFailedError(
                name, "it keeps ending", log_tail=log_tail(run.plan.paths, name)
            )


def pod_logs(places: paths.Paths, name: str) -> list[pathlib.Path]:
    """A system pod's container logs, newest last; kubelet keeps those of its latest attempts."""
    logs = places.pod_logs.glob(f"kube-system_{name}-*/{name}/*.log")
    return sorted(logs, key=lambda log: log.lstat().st_mtime)


def last_attempt(places: paths.Paths, name: str) -> int:
    """The number of a system pod's latest attempt, which kubelet names its log by; -1: none."""
    return max(_attempts(places, name), default=-1)


def first_attempt(places: paths.Paths, name: str) -> int:
    """The number of the earliest attempt that there is a log of; 0: none yet."""
    return min(_attempts(places, name), default=0)


def _waited(places: paths.Paths, name: str, *, since: int) -> bool:
    """Whether an attempt after that number ended because kube-apiserver was not healthy yet."""
    counted = [log for attempt, log in _attempts(places, name).items() if attempt > since]
    return any(WAITED in line for log in counted for line in files.tail(log, lines=LOG_LINES))


def _attempts(places: paths.Paths, name: str) -> dict[int, pathlib.Path]:
    """A system pod's attempts, and their logs."""
    logs = pod_logs(places, name)
    # Of an earlier pod of that name there may be some too.
    latest = [log for log in logs if log.parent == logs[-1].parent]
    return {int(log.stem): log for log in latest if log.stem.isdigit()}


def log_tail(places: paths.Paths, component: str) -> list[str]:
    """The last lines of a component's log, whether it is a process or a pod."""
    if component in network.SYSTEM_PODS:
        # The newest one may be that of an attempt which has not said anything yet.
        for log in reversed(pod_logs(places, component)):
            # kubelet's format: time, stream, a tag, then the line itself.
            lines = [line.split(" ", 3)[-1] for line in files.tail(log, lines=TRACE_LINES)]
            if lines:
                return without_usage(lines)[-LOG_LINES:]
        return []
    lines = files.tail(places.logs / f"{component}.log", lines=TRACE_LINES)
    return without_usage(without_traces(lines))[-LOG_LINES:]


def without_traces(lines: collections.abc.Sequence[str]) -> list[str]:
    """What a process said, without Go's traces of where it was."""
    traced = any(_TRACE.match(line) for line in lines)
    return [_STACK.sub("", line) for line in lines if not traced or _SAID.match(line)]


def without_usage(lines: collections.abc.Sequence[str]) -> list[str]:
    """What a component said, without the list of its flags; etcd has that after what is wrong."""
    kept, is_usage = [], False
    for line in lines:
        if line.startswith("Usage:"):
            is_usage = True
        elif is_usage and (line.startswith(_WRONG_FLAG) or _SAID.match(line)):
            is_usage = False
        if not is_usage:
            kept.append(line)
    return kept
