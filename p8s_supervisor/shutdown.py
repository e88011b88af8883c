"""The stop: in reverse order of the start; each part guarded, so that none blocks the next."""

from __future__ import annotations

import collections.abc

from p8s_supervisor import bootstrap, containers, context, errors, kube, probes, status, wait

# How long what is not drained gets between SIGTERM and SIGKILL: the control plane and the pods
# that no controller would bring back.
GRACE_SECONDS = 5.0
# The controllers that make a deleted pod anew when the cluster starts again.
CONTROLLERS = ("ReplicaSet", "ReplicationController", "StatefulSet", "Job")


def stop(run: context.Context) -> list[str]:
    """Drain, then stop containers, kubelet, containerd and etcd.

    Returns:
        What went wrong, in sentences; the stop goes on whatever happens.
    """
    run.state = status.State.STOPPING
    problems: list[str] = []
    for name, part in (
        ("drain", drain),
        ("kubelet", lambda run: run.supervisor.stop("kubelet")),
        ("containers", end_containers),
        ("containerd", lambda run: run.supervisor.stop("containerd")),
        ("etcd", lambda run: run.supervisor.stop("etcd")),
    ):
        try:
            with run.timeline.phase(f"stop {name}"):
                part(run)
        except Exception as error:  # noqa: BLE001 — the next part has to be stopped all the same
            problems.append(f"stop {name}: {error}")
    return problems


def drain(run: context.Context) -> None:
    """Delete the pods that a controller brings back at the next start, with their grace.

    Pods of their own (no controller) are not deleted: the object would be lost. Their containers
    are ended with all others in `end_containers`, as when a machine is shut down.

    Raises:
        P8sError: pods were left at the deadline, or the apiserver did not answer.
    """
    client = run.client
    if run.plan.settings.drain == "none" or client is None or probes.apiserver(client):
        return
    stop_controllers(run)
    pods = [
        pod
        for pod in client.get("/api/v1/pods")["items"]
        if _controller(pod) in CONTROLLERS and pod["metadata"]["namespace"] != "kube-system"
    ]
    for pod in pods:
        client.delete(_path(pod))
    if not pods:
        return
    run.tell(f"stop: draining {len(pods)} pods")
    wait.until(
        lambda: _left(client, {pod["metadata"]["uid"] for pod in pods}),
        awaited="the drain",
        seconds=run.plan.settings.drain_timeout,
        interval=0.1,
    )


def stop_controllers(run: context.Context) -> None:
    """End controller-manager and scheduler first, or they would replace what is deleted."""
    names = ("kube-controller-manager", "kube-scheduler")
    for name in names:
        (run.plan.paths.static_pods / f"{name}.yaml").unlink(missing_ok=True)
    # /proc cuts names after 15 bytes. kubelet ends them too, but not as soon.
    short = {name[:15] for name in names}
    containers.end(
        [pid for pid, name in containers.first_processes().items() if name in short],
        seconds=GRACE_SECONDS,
    )


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


def end_containers(run: context.Context) -> None:
    """End what still runs: the control plane, DaemonSets, pods without a controller.

    Raises:
        P8sError: some had to be killed.
    """
    killed = containers.end(containers.first_processes(), seconds=GRACE_SECONDS)
    if killed:
        raise errors.P8sError(
            f"{len(killed)} containers did not end in {GRACE_SECONDS:g} s and were killed"
        )


def tell_failure(run: context.Context, error: Exception) -> errors.ExitCode:
    """Say why the start failed, and give the exit code for it."""
    if isinstance(error, errors.P8sError):
        run.tell(f"the start failed: {error}")
        return error.exit_code
    import traceback

    run.tell("the start failed: " + "".join(traceback.format_exception(error)))
    for name in ("etcd", "containerd", "kubelet"):
        for line in bootstrap.log_tail(run.plan.paths, name):
            run.tell(f"  {name} | {line}")
    return errors.ExitCode.START_FAILED
