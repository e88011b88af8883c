"""The stop: in reverse order of the start; each part guarded, so that none blocks the next."""

from __future__ import annotations

import collections.abc

from p8s_supervisor import containers, context, errors, gates, kube, probes, status, wait

# How long a container gets between SIGTERM and SIGKILL where no pod says otherwise: the control
# plane, and everything where there is no drain.
GRACE_SECONDS = 5.0
# The apiserver's, once its clients have gone: it would wait a second for connections of its own, and
# what it has acknowledged is in etcd.
SERVER_GRACE_SECONDS = 0.3
# The controllers that make a deleted pod anew when the cluster starts again.
CONTROLLERS = ("ReplicaSet", "ReplicationController", "StatefulSet", "Job")


def stop(run: context.Context) -> list[str]:
    """Drain, then stop containers, kubelet, containerd and etcd.

    Returns:
        What went wrong, in sentences; the stop goes on whatever happens.
    """
    run.state = status.State.STOPPING
    problems: list[str] = []
    graces: dict[str, float] = {}
    deadline = run.timeline.now() + run.plan.settings.drain_timeout
    for name, part in (
        ("drain", lambda run: drain(run, graces)),
        ("kubelet", lambda run: run.supervisor.stop("kubelet")),
        ("containers", lambda run: end_containers(run, graces, deadline=deadline)),
        ("containerd", lambda run: run.supervisor.stop("containerd")),
        ("etcd", lambda run: run.supervisor.stop("etcd")),
    ):
        try:
            with run.timeline.phase(f"stop {name}"):
                part(run)
        except Exception as error:  # noqa: BLE001 — the next part has to be stopped all the same
            problems.append(f"stop {name}: {error}")
    return problems


def drain(run: context.Context, graces: dict[str, float]) -> None:
    """Delete the pods that a controller brings back at the next start, with their grace.

    Pods of their own (no controller) are not deleted: the object would be lost. Their containers
    are ended with all others in `end_containers`, as when a machine is shut down.

    Args:
        run: the context.
        graces: is given the grace of each pod that is not deleted: UID → seconds.

    Raises:
        P8sError: pods were left at the deadline, or the apiserver did not answer.
    """
    client = run.client
    if run.plan.settings.drain == "none" or client is None or probes.apiserver(client):
        return
    stop_controllers(run)
    deleted = []
    for pod in client.get("/api/v1/pods")["items"]:
        if pod["metadata"]["namespace"] == "kube-system":
            continue
        if _controller(pod) in CONTROLLERS:
            deleted.append(pod)
        else:
            graces[pod["metadata"]["uid"]] = pod["spec"]["terminationGracePeriodSeconds"]
    if not deleted:
        return
    run.tell(f"stop: draining {len(deleted)} pods")
    refused: list[str] = []
    awaited: set[str] = set()
    for pod in deleted:
        refusal = _delete(client, pod)
        if refusal is None:
            awaited.add(pod["metadata"]["uid"])
        else:
            refused.append(refusal)
            graces[pod["metadata"]["uid"]] = pod["spec"]["terminationGracePeriodSeconds"]
    wait.until(
        lambda: _left(client, awaited),
        awaited="the drain",
        seconds=run.plan.settings.drain_timeout,
        interval=0.1,
    )
    if refused:
        raise errors.P8sError("; ".join(refused))


def _delete(client: kube.Client, pod: kube.Object) -> str | None:
    """Delete a pod; why it could not be, where that is so."""
    try:
        client.delete(_path(pod))
    except errors.KubeError as error:
        return f"{_path(pod)}: {error.message}"
    return None


def stop_controllers(run: context.Context) -> None:
    """End controller-manager and scheduler first, or they would replace what is deleted."""
    names = ("kube-controller-manager", "kube-scheduler")
    for name in names:
        (run.plan.paths.static_pods / f"{name}.yaml").unlink(missing_ok=True)
    # /proc cuts names after 15 bytes. kubelet ends them too, but not as soon.
    short = {name[:15] for name in names}
    found = [container for container in containers.first_processes() if container.name in short]
    containers.end({container.pid: GRACE_SECONDS for container in found})


def _controller(pod: kube.Object) -> str | None:
    owners = pod["metadata"].get("ownerReferences", [])
    return next((owner["kind"] for owner in owners if owner.get("controller")), None)


def _path(pod: kube.Object) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _left(client: kube.Client, uids: collections.abc.Set[str]) -> str | None:
    left = [
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        for pod in client.get("/api/v1/pods")["items"]
        if pod["metadata"]["uid"] in uids
    ]
    return f"still there: {', '.join(left)}" if left else None


def end_containers(
    run: context.Context, graces: collections.abc.Mapping[str, float], *, deadline: float
) -> None:
    """End what still runs: the control plane, DaemonSets, pods without a controller.

    Args:
        run: the context.
        graces: pod UID → seconds; `GRACE_SECONDS` for others.
        deadline: no pod's own grace goes beyond it, in seconds since the container's start.

    Raises:
        P8sError: some had to be killed.
    """
    longest = max(GRACE_SECONDS, deadline - run.timeline.now())
    found = containers.first_processes()
    graces_by_pid = {
        container.pid: min(graces.get(container.pod_uid, GRACE_SECONDS), longest)
        for container in found
    }
    # The apiserver last: pods may need it to end well.
    servers = [container.pid for container in found if container.name == "kube-apiserver"]
    others = graces_by_pid.keys() - set(servers)
    killed = containers.end({pid: graces_by_pid[pid] for pid in others})
    containers.end(dict.fromkeys(servers, SERVER_GRACE_SECONDS))
    if killed:
        names = ", ".join(container.name for container in found if container.pid in killed)
        raise errors.P8sError(f"did not end within their grace and were killed: {names}")


def tell_failure(run: context.Context, error: Exception) -> errors.ExitCode:
    """Say why the start failed, and give the exit code for it."""
    if isinstance(error, errors.P8sError):
        run.tell(f"the start failed: {error}")
        return error.exit_code
    import traceback

    run.tell("the start failed: " + "".join(traceback.format_exception(error)))
    for name in ("etcd", "containerd", "kubelet"):
        for line in gates.log_tail(run.plan.paths, name):
            run.tell(f"  {name} | {line}")
    return errors.ExitCode.START_FAILED
