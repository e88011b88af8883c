"""One look at each thing that readiness is made of: a reason, or None where it holds."""

from __future__ import annotations

import collections.abc
import datetime
import math
import socket
import typing

from p8s_supervisor import dns, errors, kube, processes

# What a whole cluster has in kube-system; static pods carry the node's name after it.
STATIC_PODS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
SYSTEM_LABELS = {"kube-proxy": "kube-proxy", "coredns": "kube-dns"}


def port(address: str, number: int) -> str | None:
    """Whether something accepts TCP connections there."""
    try:
        with socket.create_connection((address, number), timeout=1):
            return None
    except OSError as error:
        return f"{address}:{number}: {error.strerror or error}"


def unix_socket(path: str) -> str | None:
    """Whether something accepts connections on a unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1)
        try:
            connection.connect(path)
        except OSError as error:
            return f"{path}: {error.strerror or error}"
    return None


def supervised(
    supervisor: processes.Supervisor, names: collections.abc.Iterable[str]
) -> dict[str, str | None]:
    """For each process, why it does not run."""
    try:
        found = {process.name: process for process in supervisor.list_processes()}
    except OSError as error:
        return dict.fromkeys(names, str(error))
    reasons: dict[str, str | None] = {}
    for name in names:
        process = found.get(name)
        if process is None:
            reasons[name] = "supervisord does not know it"
        elif process.pid:
            reasons[name] = None
        else:
            reasons[name] = f"{process.state.lower()}: {process.reason}"
    return reasons


def apiserver(client: kube.Client) -> str | None:
    """Whether kube-apiserver says of itself that it is ready."""
    try:
        client.request("GET", "/readyz", seconds=2)
    except errors.KubeError as error:
        return _first_failed_check(error.message)
    return None


def apiserver_answers(client: kube.Client) -> str | None:
    """Whether kube-apiserver answers requests, ready or not."""
    try:
        client.request("GET", "/version", seconds=2)
    except errors.KubeError as error:
        return None if error.status else error.message
    return None


def _first_failed_check(message: str) -> str:
    # /readyz lists every check; the failed ones start with [-].
    failed = [line for line in message.splitlines() if "[-]" in line]
    return " ".join(failed) if failed else message


def node(client: kube.Client, name: str, *, since: float) -> str | None:
    """Whether the node has the condition Ready, told by kubelet after `since`.

    Args:
        client: the apiserver's client.
        name: the node's name.
        since: the container's start, in seconds since the epoch. What is older was told by an
            earlier kubelet on the same state.
    """
    try:
        found = client.get(f"/api/v1/nodes/{name}")
    except errors.KubeError as error:
        return f"node {name}: {error.message}"
    for condition in found.get("status", {}).get("conditions", []):
        if condition["type"] == "Ready":
            if is_older(condition.get("lastHeartbeatTime"), since):
                return f"kubelet has not told of node {name} since the start"
            return None if condition["status"] == "True" else str(condition.get("message"))
    return f"node {name} has no condition Ready yet"


def default_service_account(client: kube.Client) -> str | None:
    """Whether pods can be made in the namespace default."""
    try:
        client.get("/api/v1/namespaces/default/serviceaccounts/default")
    except errors.KubeError as error:
        return error.message
    return None


def system_pods(
    client: kube.Client,
    node_name: str,
    *,
    since: float,
    static: collections.abc.Iterable[str] = STATIC_PODS,
) -> dict[str, str | None]:
    """For each pod in kube-system, and each that ought to be there, why it is not Ready.

    Args:
        client: the apiserver's client.
        node_name: the node's name.
        since: the container's start, in seconds since the epoch; see `pod_reason`.
        static: the names of the static pods.
    """
    try:
        pods = client.get("/api/v1/namespaces/kube-system/pods")["items"]
    except errors.KubeError as error:
        return {"kube-system": error.message}
    found: dict[str, str | None] = {}
    wanted = {f"{name}-{node_name}" for name in static}
    labels = set(SYSTEM_LABELS)
    for pod in pods:
        name = pod["metadata"]["name"]
        wanted.discard(name)
        label = pod["metadata"].get("labels", {}).get("k8s-app")
        labels -= {key for key, value in SYSTEM_LABELS.items() if value == label}
        if pod.get("status", {}).get("phase") != "Succeeded":
            found[name] = pod_reason(pod, since=since)
    return found | dict.fromkeys(wanted | labels, "there is no such pod yet")


def find_unavailable(client: kube.Client, path: str, *, since: float) -> str | None:
    """Why a Deployment, a DaemonSet or a StatefulSet is not available.

    Args:
        client: the apiserver's client.
        path: of the object.
        since: the container's start, in seconds since the epoch; see `pod_reason`.
    """
    try:
        found = client.get(path)
        labels = found["spec"]["selector"].get("matchLabels", {})
        pods = client.get(
            f"/api/v1/namespaces/{found['metadata']['namespace']}/pods",
            labelSelector=",".join(f"{name}={value}" for name, value in labels.items()),
        )["items"]
    except errors.KubeError as error:
        return error.message
    told, state = f"{found['kind']} {found['metadata']['name']}", found.get("status", {})
    if state.get("observedGeneration", 0) < found["metadata"]["generation"]:
        return f"{told}: its controller has not seen it yet"
    wanted = state.get("desiredNumberScheduled", found["spec"].get("replicas", 1))
    current = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    for pod in current:
        reason = pod_reason(pod, since=since)
        if reason is not None:
            return f"{told}: {reason}"
    if len(current) < wanted:
        return f"{told}: {len(current)} of {wanted} pods are made"
    available = state.get("numberAvailable", state.get("availableReplicas", 0))
    return None if available >= wanted else f"{told}: {available} of {wanted} pods are available"


def pod_reason(pod: dict[str, typing.Any], *, since: float = 0) -> str | None:
    """Why a pod is not Ready, as precisely as its status says.

    Args:
        pod: the object.
        since: a container that was started before is of an earlier life of the node, and the
            status that says so is out of date; seconds since the epoch.
    """
    state = pod.get("status", {})
    if "deletionTimestamp" in pod["metadata"]:
        return "it is being deleted"
    conditions = {entry["type"]: entry for entry in state.get("conditions", [])}
    if conditions.get("Ready", {}).get("status") == "True":
        started = [
            container.get("state", {}).get("running", {}).get("startedAt")
            for container in state.get("containerStatuses", [])
        ]
        if any(is_older(moment, since) for moment in started):
            return "kubelet has not told of it since the start"
        return None
    containers = state.get("initContainerStatuses", []) + state.get("containerStatuses", [])
    for container in containers:
        waiting = container.get("state", {}).get("waiting")
        if waiting:
            return (
                f"{container['name']}: {waiting.get('reason')} {waiting.get('message', '')}".strip()
            )
    for kind in ("PodScheduled", "Ready"):
        entry = conditions.get(kind, {})
        if entry.get("status") == "False" and entry.get("message"):
            return str(entry["message"])
    return str(state.get("phase", "Pending"))


def is_older(moment: str | None, since: float) -> bool:
    """Whether a timestamp of the API, which is in whole seconds (RFC 3339), is before `since`."""
    if moment is None:
        return False
    parsed = datetime.datetime.fromisoformat(moment)
    return parsed.timestamp() < math.floor(since)


def cluster_dns(*, server: str, domain: str, expected: str) -> str | None:
    """Whether coredns answers kubernetes.default through its service address."""
    name = f"kubernetes.default.svc.{domain}"
    try:
        addresses = dns.query(name, server=server, seconds=0.5)
    except (OSError, ValueError) as error:
        return f"{name} at {server}: {error}"
    if addresses != [expected]:
        return f"{name} at {server}: {addresses or 'no address'} instead of {expected}"
    return None
