"""The start: an ordered list of steps, each safe to repeat, each with its readiness gate."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import functools
import threading

from p8s_supervisor import (
    applying,
    commands,
    completion,
    component_files,
    content,
    context,
    credentials,
    damage,
    endpoints,
    errors,
    files,
    gates,
    health,
    kube,
    manifests,
    network,
    paths,
    ports,
    probes,
    rollout,
    setup,
    status,
)

# Between two requests to kubelet to look at the same pod.
NUDGE_SECONDS = 0.2
# Between two attempts to apply what is refused, and before the first where nothing is known to be.
RETRY_SECONDS, RETRY_AFTER_SECONDS = 1.0, 4.0


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of the start.

    Attributes:
        name: as the story and /status show it.
        run: does it; returns once its gate is passed.
    """

    name: str
    run: collections.abc.Callable[[context.Context, health.Monitor], None]


def start(run: context.Context, monitor: health.Monitor) -> None:
    """Go through `STEPS`.

    Raises:
        P8sError: a step failed; the error names the component, with the last lines of its log.
        CancelledError: the stop was asked for meanwhile.
    """
    for step in STEPS:
        with run.timeline.phase(step.name) as phase:
            step.run(run, monitor)
        run.tell(f"{step.name}: done in {phase.duration:.2f} s")


def resume(run: context.Context, monitor: health.Monitor) -> None:
    """Adopt the cluster as it runs: the sidecar alone ended, and was started again.

    Nothing of it takes a cluster down that works: what is wrong is told.
    """
    with run.timeline.phase("resume"):
        connect(run)
        run.fresh, run.populated = False, True
        try:
            with credentials.alone():
                run.admin = credentials.read(run.plan)
        except (errors.P8sError, OSError, ValueError) as error:
            run.tell(f"resume: certificates are made anew: {error}")
            make_certificates(run)
        completion.announce(run)


def make_certificates(run: context.Context) -> None:
    """Certificates in place of those that cannot be used, or why there are none."""
    try:
        with credentials.alone():
            run.admin = credentials.renew(run.plan)
    except (errors.P8sError, OSError, ValueError) as error:
        run.tell(f"resume: there are no certificates to hand out: {error}")


# --- processes


def start_processes(run: context.Context, monitor: health.Monitor) -> None:
    """etcd and kubelet beside containerd; the node's images, and etcd's first content."""
    run.supervisor.start("etcd")
    gates.pass_gate(
        run,
        "containerd",
        "containerd's socket",
        lambda: probes.unix_socket(str(run.plan.paths.containerd_socket)),
    )
    gates.begin(run)
    if run.fresh:
        # Before kubelet: a client that is refused waits for seconds before it tries again. Not
        # where there are pods' volumes from before: kubelet then asks for the node before it mounts
        # any, kube-apiserver's own too, and has to be refused to go on.
        run.placeholder = ports.Placeholder(run.plan.settings.api_port)
    # kubelet finds it when it starts, and takes longer to act on it than etcd to have the seed.
    write_static_pods(run, "kube-apiserver")
    run.supervisor.start("kubelet")
    try:
        import_images(run.plan.paths)
    except errors.CommandError as error:
        hint = damage.hint(run, "containerd")
        raise errors.ComponentFailedError("containerd", error.message, hint=hint) from error
    gates.pass_gate(run, "etcd", "etcd's port", lambda: probes.port("127.0.0.1", 2379))
    run.populated = content.populate(run)


def import_images(places: paths.Paths) -> None:
    """Import the image archives that the node brings along; what is there already is skipped.

    Raises:
        CommandError: containerd refused one.
    """
    for archive in sorted(places.images.glob("*.tar")):
        commands.run(
            [
                "ctr",
                f"--address={places.containerd_socket}",
                "--namespace=k8s.io",
                "images",
                "import",
                "--local",
                str(archive),
            ]
        )


# --- control plane


def start_apiserver(run: context.Context, monitor: health.Monitor) -> None:
    """kube-apiserver, which kubelet starts as a static pod.

    It is waited for until it is ready, or where etcd has a cluster's content only until it answers
    anything: it says that it is ready a second later, without need.
    """
    if run.placeholder is not None:
        gates.pass_gate(run, "kube-apiserver", "kube-apiserver's port", run.placeholder.find_other)
        run.placeholder.close()
    # Not before: whoever asks for /status would wait at the placeholder too.
    client = connect(run)
    awaited, probe = "/readyz", probes.apiserver
    if run.populated:
        awaited, probe = "first answer", probes.apiserver_answers
    gates.pass_gate(run, "kube-apiserver", f"kube-apiserver's {awaited}", lambda: probe(client))


def connect(run: context.Context) -> kube.Client:
    """The apiserver's client, made once."""
    if run.client is None:
        run.client = credentials.connect_apiserver(run.plan)
        run.endpoints = endpoints.connect(run.plan)
    return run.client


def start_controllers(run: context.Context, monitor: health.Monitor) -> None:
    """kubelet starts kube-controller-manager and kube-scheduler.

    Not before the apiserver answers: they would only compete with it for the processor. In an empty
    cluster not before it is ready: kubelet shows a static pod in the API up to a minute later where
    it could not at the pod's start, and its priority class is made by the apiserver.
    """
    write_static_pods(run, *network.static_pods(run.plan)[1:])


def write_static_pods(run: context.Context, *names: str) -> None:
    """Give kubelet the manifests of static pods; it sees them at once."""
    for name in names:
        text = manifests.static_pod(name, manifests.values(run.plan))
        files.write(run.plan.paths.static_pods / f"{name}.yaml", text, mode=0o600)


def apply_manifests(run: context.Context, monitor: health.Monitor) -> None:
    """Server-side apply of the system's manifests.

    In a cluster that was there before, the user may have a webhook that refuses them: whoever can
    take that away needs the API, so the start goes on as far as it can.

    Raises:
        KubeError: the apiserver refused one in a new cluster.
    """
    client = connect(run)
    if not run.fresh:
        before = rollout.read(client)
        applying.apply_system(
            run, client, seconds=completion.START_SECONDS, longest=completion.START_SECONDS
        )
        rollout.replace(run, client, before)
        if run.refused:
            run.tell("the start is complete when these are applied; it goes on as far as it can")
        return
    made = manifests.system(manifests.values(run.plan))
    for manifest in component_files.change_system(run.plan, made):
        gates.pass_gate(
            run,
            "kube-apiserver",
            f"its answer to {manifest['kind']} {manifest['metadata']['name']}",
            functools.partial(_apply, client, manifest),
        )


def _apply(client: kube.Client, manifest: kube.Object) -> str | None:
    try:
        client.apply(manifest)
    except errors.KubeError as error:
        if error.status:
            raise
        return error.message  # an answer may take longer than a request on a very slow machine
    return None


def await_ready(run: context.Context, monitor: health.Monitor) -> None:
    """Every condition of readiness holds, of the system's own.

    What a user has in kube-system makes /ready red, and does not end the start; nor does what
    admission refuses in a cluster that was there before.

    Raises:
        ComponentFailedError: see `gates.pass_gate`.
    """
    client = connect(run)
    nudged: dict[str, float] = {}
    began = run.timeline.now()
    retried = began if run.refused else began + RETRY_AFTER_SECONDS

    def look() -> str | None:
        nonlocal retried
        missing = monitor.look()
        if missing.keys() & {"apiserver", "setup"}:
            return _listed(missing)
        for name in missing:
            now = run.timeline.now()
            if name.startswith("pod/") and now - nudged.get(name, 0) > NUDGE_SECONDS:
                nudged[name] = now
                nudge(client, name.removeprefix("pod/"))
        if not run.fresh and run.timeline.now() - retried > RETRY_SECONDS:
            completion.retry(run, client, missing)
            retried = run.timeline.now()
        return _listed({name: why for name, why in missing.items() if not is_users(name)})

    try:
        gates.pass_gate(run, "kubelet", "readiness", look)
    except errors.ComponentFailedError as error:
        if run.fresh or not run.refused or not isinstance(error.__cause__, errors.WaitTimeoutError):
            raise
        run.tell(f"the start is not complete: {error.__cause__.reason}")
    gates.refuse_unknown_fields(run)
    completion.announce(run)


def is_users(condition: str) -> bool:
    """Whether a condition is that of a pod which a user has put into kube-system."""
    own = (*network.SYSTEM_PODS, "kube-system")
    return condition.startswith("pod/") and not condition.removeprefix("pod/").startswith(own)


def _listed(missing: dict[str, str]) -> str | None:
    return "; ".join(f"{name}: {reason}" for name, reason in missing.items()) or None


def nudge(client: kube.Client, pod: str) -> None:
    """Have kubelet look at a pod's readiness now rather than at the next full second.

    It probes once a second, and besides whenever it syncs a pod that is not ready, which it does
    when the object changes. Source: pkg/kubelet/prober/prober_manager.go, UpdatePodStatus.
    """
    moment = datetime.datetime.now(datetime.UTC).isoformat()
    try:
        client.request(
            "PATCH",
            f"/api/v1/namespaces/kube-system/pods/{pod}",
            body={"metadata": {"annotations": {"p8s/awaited": moment}}},
            content_type="application/merge-patch+json",
        )
    except errors.KubeError:
        return  # there is no such pod yet, or it was replaced: the next look tells


STEPS = (
    Step("setup", setup.set_up),
    Step("processes", start_processes),
    Step("apiserver", start_apiserver),
    Step("controllers", start_controllers),
    Step("manifests", apply_manifests),
    Step("readiness", await_ready),
)


# --- in a thread


def start_in_background(
    run: context.Context,
    monitor: health.Monitor,
    *,
    on_ready: collections.abc.Callable[[], None],
) -> threading.Thread:
    """The start in a thread of its own; its failure is kept and asks for the stop."""
    begin = resume if run.resumed else start

    def work() -> None:
        try:
            begin(run, monitor)
        except errors.CancelledError:
            return  # whoever asked for the stop has said so already
        except Exception as error:  # noqa: BLE001 — whatever it was ends the start
            run.fail(error)
            return
        run.state = status.State.READY
        on_ready()

    thread = threading.Thread(target=work, name="bootstrap", daemon=True)
    thread.start()
    return thread
