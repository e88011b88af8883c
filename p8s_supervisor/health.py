"""Readiness: every condition looked at, with the reason for each that does not hold."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import threading
import time

from p8s_supervisor import context, files, kube, network, probes, processes, space, status

PROCESSES = ("etcd", "containerd", "kubelet")
# How long one look serves all that ask: many clients that poll cost as much as one.
FRESH_SECONDS = 0.1
# How long one look waits for kube-apiserver in vain: who asks for /ready or /status waits no longer.
LOOK_SECONDS = 4.0


@dataclasses.dataclass
class Counters:
    """What /metrics counts. Written under the monitor's lock."""

    probes: int = 0
    probe_failures: int = 0
    dns_failures: int = 0


class Monitor:
    """Looks at the cluster when asked, at most once per `FRESH_SECONDS` and change of what has to run."""

    def __init__(self, run: context.Context) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._began_at = self._looked_at = -FRESH_SECONDS
        self._missing: dict[str, str] = {}
        self._pids = read_seen(run.plan.paths.seen_processes)
        self.counters = Counters()

    def restarts(self, process: processes.Process) -> int:
        """How often a process has been seen to be another one than before."""
        with self._lock:
            return self._count(process)

    def _count(self, process: processes.Process) -> int:
        seen = self._pids.setdefault(process.name, set())
        if process.pid and process.pid not in seen:
            seen.add(process.pid)
            self._write_seen()
            if len(seen) > 1:
                self._run.journal.record(
                    "restart",
                    f"{process.name}: started again as process {process.pid}",
                    component=process.name,
                    kind="process",
                    restarts=len(seen) - 1,
                )
        return max(0, len(seen) - 1)

    def _write_seen(self) -> None:
        """For the next sidecar, should this one end: it counts on from there."""
        text = json.dumps({name: sorted(pids) for name, pids in self._pids.items()})
        with contextlib.suppress(OSError):  # a count is not worth a failure
            files.write(self._run.plan.paths.seen_processes, text)

    def note_restarts(self) -> None:
        """Tell the journal of processes that are others than before; see `restarts`."""
        with self._lock:
            self._note_restarts()

    def _note_restarts(self) -> None:
        try:
            found = self._run.supervisor.list_processes()
        except OSError:
            return  # the conditions say so
        for process in found:
            self._count(process)

    def missing(self) -> dict[str, str]:
        """What is missing for readiness: condition → reason; empty when the cluster is ready."""
        state = self._run.state
        if self._run.failure is not None:
            return {"p8s": f"the start failed: {self._run.failure}"}
        if state == status.State.STOPPING:
            return {"p8s": f"the cluster is {state}"}
        # A look may be a moment old, of before the start's end: what is refused is known without one.
        missing = self.look() | self._run.refused
        if state == status.State.STARTING:
            return missing or {"p8s": "the start is not complete"}
        return missing

    def look(self) -> dict[str, str]:
        """The conditions that do not hold, whatever the life of the cluster stands at."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked_at >= FRESH_SECONDS or self._began_at < self._run.changed_at:
                self._began_at = now
                with kube.limited(LOOK_SECONDS):
                    conditions = self._conditions()
                self.counters.probes += 1
                self.counters.probe_failures += any(conditions.values())
                self.counters.dns_failures += bool(conditions.get("cluster-dns"))
                for name, reason in conditions.items():
                    self._run.timeline.mark(name, holds=reason is None, reason=reason or "")
                if "cluster-dns" in conditions:  # every pod was looked at: others are gone
                    self._run.timeline.forget(lambda name: name not in conditions)
                self._missing = {
                    name: reason for name, reason in conditions.items() if reason is not None
                }
                if self._run.state == status.State.READY:
                    self._note_restarts()
                self._looked_at = time.monotonic()
            return dict(self._missing)

    def _conditions(self) -> dict[str, str | None]:
        plan, client = self._run.plan, self._run.client
        conditions = probes.supervised(self._run.supervisor, PROCESSES)
        conditions |= self._run.troubles | {"disk": space.find_lack(plan.paths.state)}
        if client is None:
            return conditions | {"setup": "kube-apiserver is not started yet"}
        for name, endpoint in self._run.endpoints.items():
            conditions[name] = conditions.get(name) or endpoint.ask()
        if conditions["etcd"] is not None:
            return conditions  # kube-apiserver would be waited for, and say the same
        conditions["apiserver"] = probes.apiserver(client)
        if conditions["apiserver"] is not None:
            return conditions
        since = self._run.timeline.started_at()
        conditions["node"] = probes.node(
            client, plan.settings.node_name, since=max(since, self._kubelet_start())
        )
        conditions["default-service-account"] = probes.default_service_account(client)
        pods = probes.system_pods(
            client, plan.settings.node_name, since=since, static=network.static_pods(plan)
        )
        conditions |= {f"pod/{name}": reason for name, reason in pods.items()}
        conditions["cluster-dns"] = probes.cluster_dns(
            server=plan.settings.dns_service_ip,
            domain=plan.settings.cluster_domain,
            expected=plan.settings.kubernetes_service_ip,
        )
        return conditions | self._add_ons() | self._run.refused

    def _add_ons(self) -> dict[str, str | None]:
        counted = [
            name for name, standing in list(self._run.add_ons.items()) if standing.is_counted
        ]
        if not counted:
            return {}
        from p8s_supervisor import add_ons  # late: it imports this

        return {f"{context.ADD_ON}{name}": add_ons.find_lack(self._run, name) for name in counted}

    def _kubelet_start(self) -> float:
        """When kubelet's process began, in seconds since the epoch; 0 where it cannot be told."""
        try:
            (kubelet,) = (
                process
                for process in self._run.supervisor.list_processes()
                if process.name == "kubelet"
            )
            return self._run.timeline.epoch_of(status.process_start(kubelet.pid))
        except (OSError, ValueError):
            return 0


def read_seen(file: pathlib.Path) -> dict[str, set[int]]:
    """What an earlier sidecar of this container has seen; see `paths.Paths.seen_processes`."""
    try:
        return {name: set(pids) for name, pids in json.loads(file.read_text()).items()}
    except (OSError, ValueError):
        return {}
