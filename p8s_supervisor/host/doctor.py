"""Whether a host can run p8s: each judge is a function of the facts (`doctor_facts`) alone."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import re

from p8s_supervisor import errors, settings
from p8s_supervisor.host import doctor_facts

OLDEST_ENGINE = 23
# kube-proxy's nftables mode. Source: kubernetes/pkg/proxy/nftables/README.md
OLDEST_KERNEL = (5, 13)
CAP_SYS_ADMIN, CAP_SYS_RESOURCE = 21, 24
MIB = 1024 * 1024
# An idle node uses 456 MB (docs/performance.md), and evicts pods below 100 MiB.
LEAST_MEMORY, GOOD_MEMORY = 600 * MIB, 1024 * MIB
LEAST_DISK, GOOD_DISK = 1024 * MIB, 4096 * MIB
# What kubelet evicts pods at, as a part of the disk (components: evictionHard).
LEAST_DISK_PART = 0.02
# One node has 26; the kernel's default of 128 is shared by all of root's processes.
INOTIFY_INSTANCES = 26
# kubelet and containerd have some hundreds; kubectl logs -f and pods' own watches come on top.
INOTIFY_WATCHES = 8192
_USUAL_PORTS = (6443, 8989)


class Level(enum.StrEnum):
    """How bad a finding is: a warning leaves a cluster that works in part, an error none."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what was looked at.
        level: see `Level`.
        message: what was found, in one sentence.
        mend: the command, or the setting, that mends it; empty where nothing is to be mended.
    """

    name: str
    level: Level
    message: str
    mend: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the cluster would need.

    Attributes:
        settings: its settings.
        image: the image's name.
        ports: the ports of loopback that have to be free.
    """

    settings: settings.Settings
    image: str
    ports: tuple[int, ...] = ()


def check(
    chosen: settings.Settings,
    *,
    image: str,
    ports: collections.abc.Iterable[int] = (),
) -> list[Finding]:
    """Look at the host: under 2 s, and nothing of it stays.

    Args:
        chosen: the cluster's settings.
        image: its image; where it is there, a container of it is run for what only a container
            can tell.
        ports: the ports of loopback that it is to be published at.
    """
    wanted = Wanted(settings=chosen, image=image, ports=tuple(ports))
    facts = doctor_facts.gather(image, ports=(*wanted.ports, *_USUAL_PORTS))
    return judge(facts, wanted)


def refuse_errors(findings: collections.abc.Iterable[Finding]) -> None:
    """Let pass what has no error.

    Raises:
        P8sError: naming every error with what mends it.
    """
    wrong = [finding for finding in findings if finding.level == Level.ERROR]
    if wrong:
        told = [f"  - {found.name}: {found.message}; mend: {found.mend}" for found in wrong]
        raise errors.P8sError(
            "this host cannot run the cluster:\n" + "\n".join(told), hint="`p8s doctor` shows more"
        )


def judge(facts: doctor_facts.Facts, wanted: Wanted) -> list[Finding]:
    """What the facts mean for the cluster that is wanted; one finding for each thing at least."""
    if facts.engine_error:
        mend = "sudo systemctl start docker; sudo usermod -aG docker $USER (then log in anew)"
        return [Finding("engine", Level.ERROR, facts.engine_error, mend)]
    found = [judge_one(facts, wanted) for judge_one in JUDGES]
    return [finding for finding in found if finding is not None]


def judge_engine(facts: doctor_facts.Facts, _: Wanted) -> Finding:
    """The engine: docker, recent, with Linux containers, as root."""
    told = f"{facts.engine} {facts.version} ({facts.architecture})"
    major = re.match(r"\d+", facts.version)
    if facts.os_type != "linux":
        return Finding(
            "engine", Level.ERROR, f"{told} runs {facts.os_type} containers", "switch it to Linux"
        )
    if "userns" in facts.options:
        return Finding(
            "engine",
            Level.ERROR,
            f"{told} maps users (userns-remap), and refuses --privileged",
            "remove userns-remap from /etc/docker/daemon.json; sudo systemctl restart docker",
        )
    if facts.engine == "docker" and major and int(major[0]) < OLDEST_ENGINE:
        return Finding(
            "engine",
            Level.ERROR,
            f"{told} is too old: {OLDEST_ENGINE} or later is needed",
            "see https://docs.docker.com/engine/install",
        )
    if facts.engine != "docker" or "rootless" in facts.options:
        kind = "without root" if "rootless" in facts.options else "not docker"
        return Finding(
            "engine",
            Level.WARNING,
            f"{told} is {kind}: p8s is not tested there",
            "docker context use default",
        )
    return Finding("engine", Level.OK, told)


def judge_kernel(facts: doctor_facts.Facts, wanted: Wanted) -> Finding:
    """The kernel's age."""
    numbers = re.match(r"(\d+)\.(\d+)", facts.kernel)
    if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST_KERNEL:
        least = ".".join(map(str, OLDEST_KERNEL))
        told = f"Linux {facts.kernel}: kube-proxy's nftables mode needs {least}"
        asked = wanted.settings.proxy_mode == "nftables"
        return Finding(
            "kernel",
            Level.ERROR if asked else Level.WARNING,
            told if asked else f"{told}; iptables mode is taken, and p8s is not tested there",
            "sudo apt-get install --only-upgrade linux-image-generic; sudo reboot",
        )
    return Finding("kernel", Level.OK, f"Linux {facts.kernel}")


def judge_cgroups(facts: doctor_facts.Facts, _: Wanted) -> Finding:
    """The cgroup version, and whether a container may make cgroups."""
    if facts.cgroup not in (None, "ok"):
        return Finding(
            "cgroups",
            Level.ERROR,
            f"a privileged container cannot make a cgroup: {facts.cgroup}",
            "run the outer container with --privileged --cgroupns=private",
        )
    if facts.cgroup_version == 1:
        return Finding(
            "cgroups",
            Level.OK,
            "version 1: kubelet ≥ 1.35 needs failCgroupV1=false, which p8s sets; containerd says "
            "that version 1 goes in 2029",
        )
    return Finding("cgroups", Level.OK, f"version {facts.cgroup_version or 'unknown'}")


def judge_capabilities(facts: doctor_facts.Facts, _: Wanted) -> Finding | None:
    """What --privileged gives here."""
    if facts.capabilities is None:
        return None
    if not facts.capabilities >> CAP_SYS_ADMIN & 1:
        return Finding(
            "capabilities",
            Level.ERROR,
            "a privileged container has no CAP_SYS_ADMIN: the engine itself has not",
            "run the engine as root of its host, or in a container with --privileged",
        )
    if not facts.capabilities >> CAP_SYS_RESOURCE & 1:
        return Finding(
            "capabilities",
            Level.OK,
            "without CAP_SYS_RESOURCE: p8s works, but pods' OOM scores cannot be lowered",
        )
    return Finding("capabilities", Level.OK, "a privileged container has what p8s needs")


def judge_inotify(facts: doctor_facts.Facts, _: Wanted) -> Finding | None:
    """inotify's limits: too few, and kubelet or a pod fails with "too many open files"."""
    instances, watches = facts.inotify_instances, facts.inotify_watches
    if instances is None or watches is None:
        return None
    free = instances if facts.inotify_free is None else facts.inotify_free
    told = f"{instances} instances"
    if facts.inotify_free is not None:
        more = " or more" if free == doctor_facts.INOTIFY_ENOUGH else ""
        told += f" ({free}{more} are free)"
    told += f", {watches} watches for one user"
    if free >= 2 * INOTIFY_INSTANCES and watches >= INOTIFY_WATCHES:
        return Finding("inotify", Level.OK, told)
    return Finding(
        "inotify",
        Level.ERROR if free < INOTIFY_INSTANCES else Level.WARNING,
        f"{told}: a node needs {INOTIFY_INSTANCES} instances, its pods need more",
        "sudo sysctl -w fs.inotify.max_user_instances=1024 fs.inotify.max_user_watches=524288",
    )


def judge_memory(facts: doctor_facts.Facts, _: Wanted) -> Finding | None:
    """Memory that is left."""
    return _judge_amount(
        "memory",
        facts.memory_available,
        least=LEAST_MEMORY,
        good=GOOD_MEMORY,
        told="available",
        mend="docker ps; docker stop CONTAINER; Docker Desktop: Settings, Resources, Memory",
    )


def judge_disk(facts: doctor_facts.Facts, _: Wanted) -> Finding | None:
    """Space that is left where the engine keeps volumes and images."""
    part = int(LEAST_DISK_PART * (facts.disk_size or 0))
    return _judge_amount(
        "disk",
        facts.disk_free,
        least=max(LEAST_DISK, part),
        good=max(GOOD_DISK, 2 * part),
        told=f"free in {facts.data_root}",
        mend="docker system prune --volumes",
    )


def _judge_amount(
    name: str, amount: int | None, *, least: int, good: int, told: str, mend: str
) -> Finding | None:
    if amount is None:
        return None
    message = f"{amount / MIB:,.0f} MiB {told}"
    if amount >= good:
        return Finding(name, Level.OK, message)
    level = Level.ERROR if amount < least else Level.WARNING
    return Finding(name, level, f"{message}: {good / MIB:,.0f} MiB are good", mend)


def judge_overlay(facts: doctor_facts.Facts, _: Wanted) -> Finding:
    """Whether containerd in the node can lay images over one another."""
    told = f"driver {facts.storage}" + (f" on {facts.backing}" if facts.backing else "")
    if facts.overlay not in (None, "ok"):
        return Finding(
            "overlay",
            Level.ERROR,
            f"overlayfs cannot be mounted on a volume ({told}): {facts.overlay}",
            f"sudo modprobe overlay; or move {facts.data_root} to ext4 or xfs with ftype=1",
        )
    return Finding("overlay", Level.OK, told)


def judge_nftables(facts: doctor_facts.Facts, _: Wanted) -> Finding | None:
    """What kube-proxy needs of the kernel."""
    if facts.nftables is None:
        return None
    if facts.nftables != "ok":
        return Finding(
            "nftables",
            Level.ERROR,
            f"the kernel refuses rules such as kube-proxy's: {facts.nftables}",
            "sudo modprobe -a nf_tables nft_chain_nat nft_ct nft_fib_inet nft_masq nft_numgen "
            "nft_reject_inet nft_limit",
        )
    return Finding("nftables", Level.OK, "the kernel takes rules such as kube-proxy's")


def judge_ports(facts: doctor_facts.Facts, wanted: Wanted) -> Finding:
    """The ports of loopback that are asked for."""
    taken = {port: facts.taken[port] or "another process" for port in sorted(facts.taken)}
    told = ", ".join(f"{port} by {owner}" for port, owner in taken.items())
    if set(wanted.ports) & set(taken):
        return Finding(
            "ports",
            Level.ERROR,
            f"taken on 127.0.0.1: {told}",
            "choose others; `sudo ss -ltnp` shows who has them",
        )
    if taken:
        return Finding("ports", Level.OK, f"{told}: `p8s run` takes others")
    shown = sorted({*wanted.ports, *_USUAL_PORTS})
    return Finding("ports", Level.OK, f"free: {', '.join(map(str, shown))}")


def judge_proxy(facts: doctor_facts.Facts, _: Wanted) -> Finding:
    """What stands between the node and the registries."""
    load = "docker pull IMAGE; p8s load IMAGE"
    if facts.own_cas:
        more = f" and {len(facts.own_cas) - 1} more" if len(facts.own_cas) > 1 else ""
        return Finding(
            "proxy",
            Level.WARNING,
            f"a CA of your own ({facts.own_cas[0]}{more}): where it opens TLS on the way, the node, "
            "which does not know it, cannot pull",
            load,
        )
    proxies = facts.proxies or facts.own_proxies
    if proxies:
        whose = "the engine's" if facts.proxies else "yours"
        return Finding(
            "proxy",
            Level.WARNING,
            f"{', '.join(sorted(proxies))} ({whose}): the node pulls images past it",
            load,
        )
    return Finding("proxy", Level.OK, "none")


def judge_dns(facts: doctor_facts.Facts, _: Wanted) -> Finding | None:
    """Whether what resolves names on the host does so for containers."""
    if not facts.nameservers:
        return None
    told = ", ".join(facts.nameservers)
    if facts.systemd_resolved or not all(name.startswith("127.") for name in facts.nameservers):
        return Finding("dns", Level.OK, told)
    return Finding(
        "dns",
        Level.WARNING,
        f"only {told}, which containers cannot reach: docker gives them public servers instead",
        'add {"dns": ["ADDRESS"]} to /etc/docker/daemon.json; sudo systemctl restart docker',
    )


def judge_ranges(facts: doctor_facts.Facts, wanted: Wanted) -> Finding:
    """Whether docker's networks and the cluster's ranges overlap."""
    ranges = {
        "service_cidr": wanted.settings.service_cidr,
        "pod_cidr": wanted.settings.pod_cidr,
    }
    clashes = [
        (name, f"{label} {chosen} overlaps docker's network {name} ({network})")
        for label, chosen in ranges.items()
        for name, networks in facts.networks.items()
        for network in networks
        if any(network.overlaps(part) for part in chosen.networks)
    ]
    if not clashes:
        told = ", ".join(f"{label} {chosen}" for label, chosen in ranges.items())
        return Finding("ranges", Level.OK, told)
    # The node refuses to start only in a network that overlaps: docker run's is "bridge".
    level = Level.ERROR if any(name == "bridge" for name, _ in clashes) else Level.WARNING
    return Finding(
        "ranges",
        level,
        "; ".join(told for _, told in clashes),
        "set P8S_POD_CIDR and P8S_SERVICE_CIDR to free ranges, or `docker network prune`",
    )


def judge_image(facts: doctor_facts.Facts, wanted: Wanted) -> Finding:
    """The image, and whether a container of it could be run."""
    if not facts.image:
        return Finding("image", Level.WARNING, f"{wanted.image} is not there", "make image")
    if facts.probe_error:
        return Finding(
            "image",
            Level.ERROR,
            f"a privileged container of {wanted.image} does not run: {facts.probe_error}",
            f"docker run --rm --privileged --entrypoint /bin/true {wanted.image}",
        )
    return Finding("image", Level.OK, f"{wanted.image} ({facts.image_architecture})")


JUDGES: tuple[collections.abc.Callable[[doctor_facts.Facts, Wanted], Finding | None], ...] = (
    judge_engine,
    judge_kernel,
    judge_cgroups,
    judge_capabilities,
    judge_inotify,
    judge_memory,
    judge_disk,
    judge_overlay,
    judge_nftables,
    judge_ports,
    judge_proxy,
    judge_dns,
    judge_ranges,
    judge_image,
)
