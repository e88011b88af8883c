"""What /status, /metrics and the status line say: the context in words and figures."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import pathlib
import re
import typing

import prometheus_client
import prometheus_client.core
import prometheus_client.registry

from p8s_supervisor import (
    add_on_switches,
    context,
    errors,
    health,
    kube,
    probes,
    status,
    user_images,
    user_manifests,
)

# Why a container waits for its image. Source: pkg/kubelet/images/types.go, cri-api/pkg/errors.
PULL_REASONS = (
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImageInspectError",
    "ImagePullBackOff",
    "InvalidImageName",
    "RegistryUnavailable",
    "SignatureValidationFailed",
)
CGROUPS = pathlib.Path("/sys/fs/cgroup")
# What conditions begin with that are of the user's own.
USERS = (user_manifests.PREFIX, user_images.PREFIX, context.ADD_ON)
# pupernetes' names of the same figures, for dashboards that have them: theirs → ours.
PUPERNETES_METRICS = {
    "pupernetes_ready": "p8s_ready",
    "pupernetes_version": "p8s_info",
    "pupernetes_dns_failures": "p8s_dns_failures_total",
    "pupernetes_kubelet_probe_failures": "p8s_probe_failures_total",
    "pupernetes_kubelet_api_pods_running": "p8s_running_pods",
    "pupernetes_kubelet_logs_pods_running": "p8s_logged_pods",
}


def components(run: context.Context, monitor: health.Monitor) -> list[status.Component]:
    """The supervised processes and the pods of kube-system, as far as they can be seen now."""
    found = [
        status.Component(
            name=process.name,
            kind="process",
            state=process.state,
            restarts=monitor.restarts(process),
        )
        for process in run.supervisor.list_processes()
    ]
    for pod in _pods(run, "/api/v1/namespaces/kube-system/pods"):
        containers = pod.get("status", {}).get("containerStatuses", [])
        found.append(
            status.Component(
                name=pod["metadata"]["name"],
                kind="pod",
                state=pod.get("status", {}).get("phase", "Unknown"),
                restarts=sum(container["restartCount"] for container in containers),
            )
        )
    return found


def failing_pulls(run: context.Context) -> list[dict[str, str]]:
    """Images that pods wait for in vain, and why; a pod is Pending as long as it waits for one."""
    found = []
    for pod in _pods(run, "/api/v1/pods", fieldSelector="status.phase=Pending"):
        metadata, told = pod["metadata"], pod.get("status", {})
        for container in [
            *told.get("initContainerStatuses", []),
            *told.get("containerStatuses", []),
        ]:
            waiting = container.get("state", {}).get("waiting", {})
            if waiting.get("reason") in PULL_REASONS:
                found.append(
                    {
                        "pod": f"{metadata['namespace']}/{metadata['name']}",
                        "image": container["image"],
                        "reason": waiting["reason"],
                        # A registry may have signed a URL for whoever pulls.
                        "message": re.sub(r"\?[^\s\"]+", "?…", waiting.get("message", "")),
                    }
                )
    return found


def _pods(run: context.Context, path: str, **params: str) -> list[kube.Object]:
    if run.client is None:
        return []
    try:
        return list(run.client.get(path, **params)["items"])
    except errors.KubeError:
        return []  # readiness names the reason


def _limited(missing: collections.abc.Container[str]) -> contextlib.AbstractContextManager[None]:
    # Without etcd kube-apiserver would be waited for in vain.
    return kube.limited(0 if "etcd" in missing else kube.ASK_SECONDS)


def describe(run: context.Context, monitor: health.Monitor) -> dict[str, typing.Any]:
    """What GET /status shows. Times are in seconds since the container's start.

    Where kube-apiserver does not answer, what it would tell is left out.
    """
    chosen = run.plan.settings
    missing, state = monitor.missing(), run.state
    if state == status.State.READY and missing:
        # The cluster itself is whole where only manifests and images of the user's are refused.
        users = all(
            any(name.startswith(prefix) and name != prefix for prefix in USERS) for name in missing
        )
        state = status.State.DEGRADED if users else status.State.NOT_READY
    with _limited(missing):
        asked = {
            "failing_pulls": failing_pulls(run),
            "components": [dataclasses.asdict(component) for component in components(run, monitor)],
            "addons": add_on_switches.describe(run),
        }
    return {
        "state": state,
        "uptime": round(run.timeline.now(), 3),
        "missing": missing,
        "phases": [_rounded(dataclasses.asdict(phase)) for phase in run.timeline.phases()],
        "conditions": _rounded(run.timeline.turned_true()),
        "versions": run.versions,
        **asked,
        "addresses": {
            "node": run.plan.node_addresses[0],
            "apiserver": chosen.host_server,
            "kubernetes_service": chosen.kubernetes_service_ip,
            "dns_service": chosen.dns_service_ip,
            "service_cidr": str(chosen.service_cidr),
            "pod_cidr": str(chosen.pod_cidr),
        },
    }


def _rounded(values: dict[str, typing.Any]) -> dict[str, typing.Any]:
    return {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in values.items()
    }


class _Collector(prometheus_client.registry.Collector):
    def __init__(
        self, run: context.Context, monitor: health.Monitor, missing: dict[str, str]
    ) -> None:
        self._run, self._monitor, self._missing = run, monitor, missing

    def collect(self) -> typing.Iterator[prometheus_client.core.Metric]:
        found = list(self._collect_own())
        yield from found
        samples = {sample.name: sample for family in found for sample in family.samples}
        for alias, own in PUPERNETES_METRICS.items():
            # Untyped: as counters their names would have to end in _total, which pupernetes' do not.
            family = prometheus_client.core.UntypedMetricFamily(alias, f"The same as {own}.")
            family.add_sample(alias, samples[own].labels, samples[own].value)
            yield family

    def _collect_own(self) -> typing.Iterator[prometheus_client.core.Metric]:
        gauge = prometheus_client.core.GaugeMetricFamily
        counter = prometheus_client.core.CounterMetricFamily
        run, counters = self._run, self._monitor.counters
        yield gauge("p8s_ready", "1 when the cluster is ready.", value=float(not self._missing))
        info = gauge("p8s_info", "Versions of the components.", labels=list(run.versions))
        info.add_metric(list(run.versions.values()), 1)
        yield info
        yield gauge("p8s_uptime_seconds", "Since the container's start.", value=run.timeline.now())
        phases = gauge("p8s_phase_seconds", "Duration of each phase.", labels=["phase"])
        for phase in run.timeline.phases():
            if phase.duration is not None:
                phases.add_metric([phase.name], phase.duration)
        yield phases
        yield counter("p8s_probes", "Looks at the conditions of readiness.", counters.probes)
        yield counter(
            "p8s_probe_failures", "Looks that found something missing.", counters.probe_failures
        )
        yield counter("p8s_dns_failures", "Cluster DNS did not answer.", counters.dns_failures)
        pods = _pods(run, "/api/v1/pods")
        running = [pod for pod in pods if pod.get("status", {}).get("phase") == "Running"]
        yield gauge("p8s_running_pods", "Pods in phase Running, by the API.", value=len(running))
        yield gauge(
            "p8s_logged_pods",
            "Pods in phase Running, by the logs that kubelet keeps of them.",
            value=count_logged(run.plan.paths.pod_logs, running),
        )
        restarts = counter(
            "p8s_component_restarts", "Restarts of components.", labels=["component", "kind"]
        )
        for component in components(run, self._monitor):
            restarts.add_metric([component.name, component.kind], component.restarts)
        yield restarts


def count_logged(logs: pathlib.Path, pods: list[kube.Object]) -> int:
    """How many of some pods have a directory with logs, which kubelet names NAMESPACE_NAME_UID.

    The UID is left aside: a static pod's is another one in the API.
    """
    found = {directory.name.rpartition("_")[0] for directory in logs.glob("*_*_*")}
    names = {f"{pod['metadata']['namespace']}_{pod['metadata']['name']}" for pod in pods}
    return len(found & names)


def metrics(run: context.Context, monitor: health.Monitor) -> str:
    """What GET /metrics shows: Prometheus' text format."""
    registry = prometheus_client.CollectorRegistry(auto_describe=False)
    missing = monitor.missing()
    registry.register(_Collector(run, monitor, missing))
    with _limited(missing):
        return prometheus_client.generate_latest(registry).decode()


def line(run: context.Context, monitor: health.Monitor) -> str:
    """How things are, in one line."""
    missing = monitor.missing()
    if missing:
        return "not ready: " + "; ".join(f"{name}: {reason}" for name, reason in missing.items())
    pods = _pods(run, "/api/v1/pods")
    ready = sum(probes.pod_reason(pod) is None for pod in pods)
    namespaces = {pod["metadata"]["namespace"] for pod in pods}
    memory = memory_in_use()
    return f"running: {ready} of {len(pods)} pods ready in {len(namespaces)} namespaces" + (
        f", {memory / 2**20:.0f} MiB of memory" if memory else ""
    )


def memory_in_use() -> int | None:
    """Working set of the container's cgroup, in bytes: usage less the inactive page cache."""
    for file, inactive in (  # cgroup v2, then v1
        ("memory.current", "inactive_file"),
        ("memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        usage = CGROUPS / file
        if usage.exists():
            statistics = dict(
                entry.split()[:2]
                for entry in usage.with_name("memory.stat").read_text().splitlines()
            )
            return int(usage.read_text()) - int(statistics.get(inactive, 0))
    return None
