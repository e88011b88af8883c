"""The start's first step: everything that components read, and the packet rules."""

from __future__ import annotations

import collections.abc
import json
import pathlib

from p8s_supervisor import (
    add_on_record,
    audit,
    catalogue,
    commands,
    component_files,
    components,
    context,
    credentials,
    damage,
    files,
    health,
    limits,
    network,
    overrides,
    proxies,
    record,
    registries,
    runtime,
    space,
    trust,
)


def set_up(run: context.Context, monitor: health.Monitor) -> None:
    """Everything that components read: PKI, kubeconfigs, configuration, static pods, rules.

    containerd, which needs least of it, is started first: kubelet waits for its socket.
    """
    plan = run.plan
    network.check_ranges(plan)
    record.check_version(run)
    damage.check(run)
    run.fresh = record.check(run) or plan.paths.new_volume.exists()
    if run.fresh:
        # Kept until the container ends: a sidecar that is killed in the first start begins again.
        files.write_once(plan.paths.new_volume, "")
    else:
        record.keep_version(run)
    write_runtime_configuration(plan)
    run.supervisor.start("containerd")
    run.admin = credentials.write(plan, fresh=run.fresh)
    write_configuration(run)
    if run.fresh:
        record.write(run)


def write_runtime_configuration(plan: components.Plan) -> None:
    """containerd's configuration and command, and CNI's; whom it trusts, and where images are."""
    trust.install(plan)
    registries.write(plan)
    if variables := proxies.for_pods(plan):
        spec = proxies.container_spec(commands.run(["ctr", "oci", "spec"]), variables)
        files.write(plan.paths.container_spec, spec, mode=0o600)
    files.write(
        plan.paths.containerd_config,
        runtime.containerd_config(plan, snapshotter=choose_snapshotter(plan.paths.state)),
    )
    cni = runtime.cni_config(plan, port_map_backend="nftables")
    files.write(plan.paths.cni_config, cni, mode=0o600)
    write_command(plan, "containerd", components.containerd(plan), proxies.environment(plan))


def write_command(
    plan: components.Plan,
    name: str,
    command: list[str],
    environment: dict[str, str] | None = None,
) -> None:
    """A command that supervisord runs."""
    script = components.command_script(command, environment)
    files.write(plan.paths.commands / name, script, mode=0o600)


def write_configuration(run: context.Context) -> None:
    """The other components' configuration and commands, and the packet rules."""
    plan = run.plan
    resolv = network.set_up(plan, own_resolv_conf=pathlib.Path("/etc/resolv.conf"))
    files.write(plan.paths.resolv_conf, resolv)
    if (lack := limits.find_lack(limits.find())) is not None:
        run.tell(lack)
    write_kubelet_config(run, list_add_ons(run))
    audit.write_policy(plan.paths.audit_policy, plan.settings.audit)
    for path, text in component_files.list_texts(plan).items():
        files.write(path, text, mode=0o600)
    # A start of its own for each static pod, see STEPS: what an earlier start left goes first. Not
    # where kubelet runs: this start was begun before, and those are its own.
    if "kubelet" not in {found.name for found in run.supervisor.list_processes() if found.pid}:
        for manifest in plan.paths.static_pods.glob("*.yaml"):
            manifest.unlink()
    write_command(plan, "etcd", components.etcd(plan))
    write_command(plan, "kubelet", components.kubelet(plan))


def list_add_ons(run: context.Context) -> list[str]:
    """The add-ons that are to run; where what is kept of them is damaged, those of the settings."""
    try:
        record = add_on_record.read(run.plan.paths.add_on_record)
    except ValueError as error:
        run.tell(f"add-ons: {error}: only the settings say which run")
        record = add_on_record.Record()
    return record.choose(run.loaded.texts["add_ons"], run.plan.settings.add_ons)


def write_kubelet_config(run: context.Context, add_ons: collections.abc.Collection[str]) -> bool:
    """kubelet's configuration, with what these add-ons want; whether it is another one now."""
    plan, minor = run.plan, record.find_minor(run.versions["kubernetes"])
    config = limits.fit(components.kubelet_config(plan), limits.find())
    config["evictionHard"] |= limits.eviction_room(space.size(plan.paths.state))
    for name in catalogue.TABLE:
        if name in add_ons:
            config = overrides.merge(config, catalogue.TABLE[name].find_kubelet_fields(minor))
    text = json.dumps(component_files.merge(plan, "kubelet", config), indent=2)
    file = plan.paths.kubelet_config
    if file.exists() and file.read_text() == text:
        return False
    files.write(file, text, mode=0o600)
    return True


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
