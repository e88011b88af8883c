"""The start: an ordered list of steps, each safe to repeat, each with its readiness gate."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import json
import pathlib
import threading

from p8s_supervisor import (
    audit,
    commands,
    components,
    content,
    context,
    credentials,
    errors,
    files,
    health,
    kube,
    manifests,
    network,
    paths,
    ports,
    probes,
    settings,
    status,
    wait,
)

# Settings that objects in etcd were made with; they cannot change under them.
KEPT_SETTINGS = ("service_cidr", "pod_cidr", "cluster_domain", "node_name")
LOG_LINES = 20
# A static pod that has ended this often in one start is not waited for any longer.
ATTEMPTS = 2
# Between two requests to kubelet to look at the same pod.
NUDGE_SECONDS = 0.2


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


# --- setup


def set_up(run: context.Context, monitor: health.Monitor) -> None:
    """Everything that components read: PKI, kubeconfigs, configuration, static pods, rules.

    containerd, which needs least of it, is started first: kubelet waits for its socket.
    """
    plan = run.plan
    network.check_ranges(plan)
    run.fresh = check_record(run)
    write_runtime_configuration(plan)
    run.supervisor.start("containerd")
    run.admin = credentials.write(plan, fresh=run.fresh)
    write_configuration(run)
    if run.fresh:
        record = {name: run.loaded.texts[name] for name in KEPT_SETTINGS}
        record["kubernetes"] = run.versions["kubernetes"]
        files.write(plan.paths.cluster_record, json.dumps(record, indent=2) + "\n", durable=True)


def check_record(run: context.Context) -> bool:
    """Compare the settings with those that the state volume was made with.

    Returns:
        Whether the volume is new.

    Raises:
        SettingsError: they differ, with each difference.
        P8sError: the record cannot be read.
    """
    file = run.plan.paths.cluster_record
    if not file.exists():
        return True
    try:
        record: dict[str, str] = json.loads(file.read_text())
        wrong = [
            f"{name} = {run.loaded.texts[name]!r}, but the cluster in this volume was made with "
            f"{record[name]!r}: use that, or a new volume"
            for name in KEPT_SETTINGS
            if settings.parse(name, record[name]) != getattr(run.plan.settings, name)
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.P8sError(
            f"{file} is damaged: {error!r}",
            hint="put it back from a copy; it holds the settings that the cluster was made with: "
            + ", ".join(KEPT_SETTINGS),
        ) from error
    if wrong:
        raise errors.SettingsError(wrong)
    return False


def write_runtime_configuration(plan: components.Plan) -> None:
    """containerd's configuration and command, and CNI's."""
    files.write(
        plan.paths.containerd_config,
        components.containerd_config(plan, snapshotter=choose_snapshotter(plan.paths.state)),
    )
    files.write(plan.paths.cni_config, components.cni_config(plan, port_map_backend="nftables"))
    write_command(plan, "containerd", components.containerd(plan))


def write_command(plan: components.Plan, name: str, command: list[str]) -> None:
    """A command that supervisord runs."""
    files.write(plan.paths.commands / name, components.command_script(command), mode=0o600)


def write_configuration(run: context.Context) -> None:
    """The other components' configuration and commands, and the packet rules."""
    plan = run.plan
    resolv = network.set_up(plan, own_resolv_conf=pathlib.Path("/etc/resolv.conf"))
    files.write(plan.paths.resolv_conf, resolv)
    files.write(plan.paths.kubelet_config, json.dumps(components.kubelet_config(plan), indent=2))
    audit.write_policy(plan.paths.audit_policy, plan.settings.audit)
    # A start of its own for each static pod, see STEPS: what an earlier start left goes first.
    for manifest in plan.paths.static_pods.glob("*.yaml"):
        manifest.unlink()
    write_command(plan, "etcd", components.etcd(plan))
    write_command(plan, "kubelet", components.kubelet(plan))


def choose_snapshotter(state: pathlib.Path) -> str:
    """overlayfs where the state can hold an upper directory, else native (which copies).

    overlayfs on overlayfs has no upper directory: the state is not a volume then.
    """
    best, kind = "", ""
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        _, mounted_at, type_ = line.split()[:3]
        inside = f"{state}/".startswith(mounted_at.rstrip("/") + "/")
        if inside and len(mounted_at) >= len(best):
            best, kind = mounted_at, type_
    return "native" if kind == "overlay" else "overlayfs"


# --- processes


def start_processes(run: context.Context, monitor: health.Monitor) -> None:
    """etcd and kubelet beside containerd; the node's images, and etcd's first content."""
    run.supervisor.start("etcd")
    _await(
        run,
        "containerd",
        "containerd's socket",
        lambda: probes.unix_socket(str(run.plan.paths.containerd_socket)),
    )
    run.attempts = {name: last_attempt(run.plan.paths, name) for name in probes.STATIC_PODS}
    if run.fresh:
        # Before kubelet: a client that is refused waits for seconds before it tries again. Not
        # where there are pods' volumes from before: kubelet then asks for the node before it mounts
        # any, kube-apiserver's own too, and has to be refused to go on.
        run.placeholder = ports.Placeholder(run.plan.settings.api_port)
    # kubelet finds it when it starts, and takes longer to act on it than etcd to have the seed.
    write_static_pods(run, "kube-apiserver")
    run.supervisor.start("kubelet")
    import_images(run.plan.paths)
    _await(run, "etcd", "etcd's port", lambda: probes.port("127.0.0.1", 2379))
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
    client = connect(run)
    if run.placeholder is not None:
        _await(run, "kube-apiserver", "kube-apiserver's port", run.placeholder.find_other)
        run.placeholder.close()
    awaited, probe = "/readyz", probes.apiserver
    if run.populated:
        awaited, probe = "first answer", probes.apiserver_answers
    _await(run, "kube-apiserver", f"kube-apiserver's {awaited}", lambda: probe(client))


def connect(run: context.Context) -> kube.Client:
    """The apiserver's client, made once."""
    if run.client is None:
        run.client = credentials.connect_apiserver(run.plan)
    return run.client


def start_controllers(run: context.Context, monitor: health.Monitor) -> None:
    """kubelet starts kube-controller-manager and kube-scheduler.

    Not before the apiserver answers: they would only compete with it for the processor. In an empty
    cluster not before it is ready: kubelet shows a static pod in the API up to a minute later where
    it could not at the pod's start, and its priority class is made by the apiserver.
    """
    write_static_pods(run, "kube-controller-manager", "kube-scheduler")


def write_static_pods(run: context.Context, *names: str) -> None:
    """Give kubelet the manifests of static pods; it sees them at once."""
    for name in names:
        text = manifests.static_pod(name, manifests.values(run.plan))
        files.write(run.plan.paths.static_pods / f"{name}.yaml", text, mode=0o600)


def apply_manifests(run: context.Context, monitor: health.Monitor) -> None:
    """Server-side apply of the add-ons."""
    client = connect(run)
    for manifest in manifests.add_ons(manifests.values(run.plan)):
        client.apply(manifest)


def await_ready(run: context.Context, monitor: health.Monitor) -> None:
    """Every condition of readiness holds."""
    client = connect(run)
    nudged: dict[str, float] = {}

    def look() -> str | None:
        missing = monitor.look()
        if missing.keys() & {"apiserver", "setup"}:
            return _listed(missing)
        for name in missing:
            now = run.timeline.now()
            if name.startswith("pod/") and now - nudged.get(name, 0) > NUDGE_SECONDS:
                nudged[name] = now
                nudge(client, name.removeprefix("pod/"))
        return _listed(missing)

    _await(run, "kubelet", "readiness", look)


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
    Step("setup", set_up),
    Step("processes", start_processes),
    Step("apiserver", start_apiserver),
    Step("controllers", start_controllers),
    Step("manifests", apply_manifests),
    Step("readiness", await_ready),
)


# --- gates


def _await(run: context.Context, component: str, awaited: str, probe: wait.Probe) -> None:
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
                process.name, process.reason, log_tail=log_tail(run.plan.paths, process.name)
            )
    for name, before in run.attempts.items():
        if last_attempt(run.plan.paths, name) - before > ATTEMPTS:
            raise errors.ComponentFailedError(
                name, "it keeps ending", log_tail=log_tail(run.plan.paths, name)
            )


def static_pod_logs(places: paths.Paths, name: str) -> list[pathlib.Path]:
    """A static pod's container logs, newest last; kubelet keeps those of its latest attempts."""
    logs = places.pod_logs.glob(f"kube-system_{name}-*/{name}/*.log")
    return sorted(logs, key=lambda log: log.lstat().st_mtime)


def last_attempt(places: paths.Paths, name: str) -> int:
    """The number of a static pod's latest attempt, which kubelet names its log by; -1: none."""
    stems = [log.stem for log in static_pod_logs(places, name)]
    return max((int(stem) for stem in stems if stem.isdigit()), default=-1)


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
    return files.tail(places.logs / f"{component}.log", lines=LOG_LINES)


def start_in_background(
    run: context.Context,
    monitor: health.Monitor,
    *,
    on_ready: collections.abc.Callable[[], None],
) -> threading.Thread:
    """The start in a thread of its own; its failure is kept and asks for the stop."""

    def work() -> None:
        try:
            start(run, monitor)
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
