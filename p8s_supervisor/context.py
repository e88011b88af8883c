"""What one run of the sidecar works with, wired once in `sidecar`."""

from __future__ import annotations

import collections.abc
import dataclasses
import threading

from p8s_supervisor import (
    components,
    endpoints,
    events,
    kube,
    ports,
    processes,
    settings,
    status,
)

# What the conditions of add-ons begin with.
ADD_ON = "add-on/"


@dataclasses.dataclass
class AddOn:
    """How an add-on that is to run stands.

    Attributes:
        is_counted: whether /ready is not green without it: it was asked for, or has been usable.
        is_applied: whether its manifests were applied.
        workloads: the paths of its Deployments, DaemonSets and StatefulSets at the apiserver.
        ended: set when it is disabled or the stop has begun; its part of the sidecar then ends.
        thread: that part; None where it does not run.
        failure: why it has ended by itself.
    """

    is_counted: bool = False
    is_applied: bool = False
    workloads: list[str] = dataclasses.field(default_factory=list)
    ended: threading.Event = dataclasses.field(default_factory=threading.Event)
    thread: threading.Thread | None = None
    failure: str = ""


@dataclasses.dataclass
class Context:
    """The objects that the flows share, and the little state that they change.

    Attributes:
        plan: settings, facts and paths.
        loaded: the settings with where each came from.
        supervisor: the process supervisor.
        timeline: phases and conditions with their times.
        versions: the components' versions, as the image has them.
        tell: prints one line of the story that `docker logs` shows.
        token: what callers of the HTTP API show who are not on the host.
        journal: what happened, for readers of the HTTP API.
        stop: set once, by whatever asks for the stop first.
        stop_reason: who that was.
        failure: what ended the start; None as long as nothing did.
        state: where the cluster's life stands.
        fresh: whether there was no cluster in the state volume when this start began.
        resumed: whether the cluster was ready before this sidecar began: it is adopted as it runs.
        populated: whether etcd had a cluster's content before the apiserver was started.
        placeholder: holds the apiserver's port until the apiserver does.
        attempts: for each static pod the number of its last attempt before kubelet started.
        kubelet_log: how long kubelet's log was before this start, in bytes.
        client: the apiserver's client; None until the PKI is there.
        marked: whether what etcd holds was compared with `etcd_mark` in this start.
        troubles: conditions of readiness that were found not to hold in the background → reason.
        endpoints: components that are asked for their own health; none until the PKI is there.
        refused: manifests, and what else of the start, that could not be applied yet: condition →
            reason. Changed in place, by several threads.
        silent_files: the user's manifests that were not answered in time when last applied.
        add_ons: the add-ons that are to run, by their names.
        changed_at: when what has to run was last changed: a look at the cluster that began before is
            out of date; a moment of `time.monotonic`.
        applying: held while manifests are applied.
        completing: held by the thread that completes the start.
        admin: credentials for kubeconfigs: CA, certificate and key (PEM); None until then.
    """

    plan: components.Plan
    loaded: settings.Loaded
    supervisor: processes.Supervisor
    timeline: status.Timeline
    versions: dict[str, str]
    tell: collections.abc.Callable[[str], None]
    token: str
    journal: events.Journal = dataclasses.field(default_factory=events.Journal)
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)
    stop_reason: str = ""
    failure: Exception | None = None
    state: status.State = status.State.STARTING
    fresh: bool = False
    resumed: bool = False
    populated: bool = False
    marked: bool = False
    troubles: dict[str, str] = dataclasses.field(default_factory=dict)
    placeholder: ports.Placeholder | None = None
    kubelet_log: int = 0
    client: kube.Client | None = None
    endpoints: dict[str, endpoints.Asked] = dataclasses.field(default_factory=dict)
    attempts: dict[str, int] = dataclasses.field(default_factory=dict)
    refused: dict[str, str] = dataclasses.field(default_factory=dict)
    silent_files: set[str] = dataclasses.field(default_factory=set)
    add_ons: dict[str, AddOn] = dataclasses.field(default_factory=dict)
    changed_at: float = 0.0
    applying: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    completing: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    admin: tuple[bytes, bytes, bytes] | None = None

    def request_stop(self, reason: str) -> None:
        """Ask for the stop; the first reason is kept."""
        if not self.stop.is_set():
            self.stop_reason = reason
            # Before the flag, at which readers of the journal end.
            self.journal.record("stop", f"stop: {reason}", reason=reason)
            self.stop.set()

    def fail(self, error: Exception) -> None:
        """Keep what ended the start, and ask for the stop; the first failure is kept."""
        if self.failure is None and not self.stop.is_set():
            self.failure = error
            self.journal.record("failure", f"the start failed: {error}", error=str(error))
            self.request_stop("the start failed")
