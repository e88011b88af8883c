"""The stop: in reverse order of the start; each part guarded, so that none blocks the next."""

from __future__ import annotations

import collections.abc

from p8s_supervisor import (
    admission,
    applying,
    catalogue,
    containers,
    context,
    errors,
    etcd_mark,
    gates,
    inotify,
    kube,
    probes,
    status,
    wait,
)

# How long a container gets between SIGTERM and SIGKILL where no pod says otherwise: the control
# plane, and everything where there is no drain.
GRACE_SECONDS = 5.0
# The apiserver's, once its clients have gone: it would wait a second for connections of its own, and
# what it has acknowledged is in etcd.
SERVER_GRACE_SECONDS = 0.3
# Deletions that are asked for at the same time.
WORKERS = 32
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
        ("drain", lambda run: drain(run, graces, deadline=deadline)),
        ("kubelet", lambda run: run.supervisor.stop("kubelet")),
        ("containers", lambda run: end_containers(run, graces, deadline=deadline)),
        ("containerd", lambda run: run.supervisor.stop("containerd")),
        ("etcd", stop_etcd),
    ):
        try:
            with run.timeline.phase(f"stop {name}"):
                part(run)
        except Exception as error:  # noqa: BLE001 — the next part has to be stopped all the same
            problems.append(f"stop {name}: {error}")
    return problems


def stop_etcd(run: context.Context) -> None:
    """Nothing writes any more: what etcd holds is marked, and has to be there at the next start."""
    try:
        etcd_mark.keep(run)
    finally:
        run.supervisor.stop("etcd")


def drain(run: context.Context, graces: dict[str, float], *, deadline: float) -> None:
    """Delete the pods that a controller brings back at the next start, with their grace.

    Pods of their own (no controller) are not deleted: the object would be lost. Their containers
    are ended with all others in `end_containers`, as when a machine is shut down.

    Args:
        run: the context.
        graces: is given the grace of each pod that is not deleted: UID → seconds.
        deadline: the end of it all, in seconds since the container's start.

    Raises:
        P8sError: pods were left at the deadline, could not be deleted, or the apiserver did not
            answer.
    """
    client = run.client
    if run.plan.settings.drain == "none" or client is None or probes.apiserver(client):
        return
    stop_controllers(run)
    # Add-ons are of the system: volumes and names are there until the last pod has ended.
    own = {"kube-system", *map(catalogue.namespace, catalogue.TABLE)}
    deleted = []
    for pod in client.get("/api/v1/pods")["items"]:
        if pod["metadata"]["namespace"] in own:
            continue
        if _controller(pod) in CONTROLLERS:
            deleted.append(pod)
        else:
            graces[pod["metadata"]["uid"]] = pod["spec"]["terminationGracePeriodSeconds"]
    if not deleted:
        return
    run.tell(f"stop: draining {len(deleted)} pods")
    refused = _delete(run, client, deleted, deadline=deadline)
    for pod in deleted:
        if _uid(pod) in refused:
            graces[_uid(pod)] = pod["spec"]["terminationGracePeriodSeconds"]
    problems = _list_refused(deleted, refused)
    awaited = {_uid(pod) for pod in deleted} - refused.keys()
    try:
        wait.until(
            lambda: _left(client, awaited),
            awaited="the drain",
            seconds=max(0.0, deadline - run.timeline.now()),
            interval=0.1,
        )
    except errors.WaitTimeoutError as error:
        problems.append(error.message)
    if problems:
        raise errors.P8sError("; ".join(problems))


def _delete(
    run: context.Context,
    client: kube.Client,
    pods: collections.abc.Sequence[kube.Object],
    *,
    deadline: float,
) -> dict[str, str]:
    """Delete pods, many at a time: a webhook may hold each up for as long as it likes.

    Returns:
        Why some could not be deleted: UID → reason.
    """
    import concurrent.futures  # late: only the stop needs it

    def delete(pod: kube.Object) -> str | None:
        left = deadline - run.timeline.now()
        if left <= 0:
            return "not asked for: others took all of the drain's time"
        try:
            client.delete(_path(pod), seconds=left)
        except errors.KubeError as error:
            return admission.explain(client, error)
        return None

    with concurrent.futures.ThreadPoolExecutor(max_workers=WORKERS) as pool:
        reasons = zip(pods, pool.map(delete, pods), strict=True)
        return {_uid(pod): reason for pod, reason in reasons if reason is not None}


def _list_refused(
    pods: collections.abc.Iterable[kube.Object], refused: collections.abc.Mapping[str, str]
) -> list[str]:
    """The reasons, each once with the pods that it is of."""
    by_reason: dict[str, list[str]] = {}
    for pod in pods:
        if _uid(pod) in refused:
            by_reason.setdefault(refused[_uid(pod)], []).append(_name(pod))
    return [f"{applying.shorten(names)} not deleted: {why}" for why, names in by_reason.items()]


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


def _uid(pod: kube.Object) -> str:
    return str(pod["metadata"]["uid"])


def _name(pod: kube.Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _path(pod: kube.Object) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _left(client: kube.Client, uids: collections.abc.Set[str]) -> str | None:
    left = [
        _name(pod)
        for pod in client.get("/api/v1/pods")["items"]
        if _uid(pod) in uids and not _has_ended(pod)
    ]
    return f"still there: {', '.join(left)}" if left else None


def _has_ended(pod: kube.Object) -> bool:
    """Whether kubelet is done with a deleted pod, and only finalizers keep the object.

    Source: pkg/kubelet/status/status_manager.go, syncPod: it deletes it again, with no grace left.
    """
    metadata = pod["metadata"]
    return bool(metadata.get("finalizers")) and metadata.get("deletionGracePeriodSeconds") == 0


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
    lack = inotify.find_lack()
    if lack is not None:
        run.tell(lack)
    if isinstance(error, errors.P8sError):
        run.tell(f"the start failed: {error}")
        return error.exit_code
    import traceback

    run.tell("the start failed: " + "".join(traceback.format_exception(error)))
    for name in ("etcd", "containerd", "kubelet"):
        for line in gates.log_tail(run.plan.paths, name):
            run.tell(f"  {name} | {line}")
    return errors.ExitCode.START_FAILED
