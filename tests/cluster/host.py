"""What a container could leave behind on its host, as a picture to compare.

Other clusters may come and go on the same machine meanwhile: what carries a mark of theirs (an id, an
address, a name) is left out of both pictures. Nothing else is.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import time
import typing

from p8s_supervisor import wait
from tests.cluster import nodes

# Set by kubelet on real nodes, and without a namespace: a container that sets them sets the host's.
SYSCTLS = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/ip_forward",
    "net/netfilter/nf_conntrack_max",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
DOCKER = pathlib.Path("/var/lib/docker")
RUNTIMES = pathlib.Path("/run/containerd")
# Where the engine keeps a file or a directory for each container. Not /run/docker/netns: the engine
# itself clears that once a minute.
DIRECTORIES = (
    DOCKER / "containers",
    DOCKER / "volumes",
    DOCKER / "image/overlay2/layerdb/mounts",
    RUNTIMES / "s",
    RUNTIMES / "io.containerd.runtime.v2.task/moby",
    pathlib.Path("/run/docker/containerd"),
    pathlib.Path("/run/docker/runtime-runc/moby"),
    pathlib.Path("/var/lib/containerd/io.containerd.runtime.v2.task/moby"),
    pathlib.Path("/dev/shm"),
    pathlib.Path("/run"),
)
# The engine's processes for a container; all others of it are in its cgroup.
HELPERS = ("containerd-shim", "docker-proxy", "runc")
WORDS = re.compile(r"[^\w.-]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """The host at one moment.

    Attributes:
        things: kind → what there is of it.
        containers: those that there are, by id.
        marks: what things of other clusters carry.
        addresses: theirs at that moment; another container may have one later.
    """

    things: dict[str, set[str]]
    containers: frozenset[str]
    marks: frozenset[str]
    addresses: frozenset[str]


def _lines(*command: str) -> set[str]:
    if shutil.which(command[0]) is None:
        return set()  # what no tool of this host can show
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {line for line in done.stdout.splitlines() if line and line[0] not in "#:*"}


def _cgroups() -> set[str]:
    """Without those of the engine's builds."""
    return {
        directory
        for directory, _, _ in os.walk("/sys/fs/cgroup")
        if any(part in directory for part in ("/docker", "kubepods", "p8s"))
        and "/buildkit" not in directory
    }


def _sysctls() -> set[str]:
    files = {name: pathlib.Path("/proc/sys") / name for name in SYSCTLS}
    return {f"{name}={file.read_text().strip()}" for name, file in files.items() if file.exists()}


def _files() -> set[str]:
    """Of the engine, as far as they can be read: it takes root."""
    found = set()
    for directory in DIRECTORIES:
        with contextlib.suppress(OSError):
            found |= {str(entry) for entry in directory.iterdir()}
    with contextlib.suppress(OSError):
        # A container's own layer has a twin with this ending; an image's has none.
        found |= {str(entry) for entry in (DOCKER / "overlay2").glob("*-init")}
    return found


def _processes() -> set[str]:
    """Processes in containers, and the engine's that belong to one."""
    found = set()
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            cgroup = (process / "cgroup").read_text()
            words = (process / "cmdline").read_text().replace("\0", " ")
            inside = re.search(r"docker|kubepods|p8s", cgroup) and "/buildkit" not in cgroup
            if inside or pathlib.Path(words.split(" ")[0]).name.startswith(HELPERS):
                found.add(f"{process.name} {words} {cgroup if inside else ''}")
    return found


def _things() -> dict[str, set[str]]:
    mounts = pathlib.Path("/proc/self/mounts").read_text().splitlines()
    return {
        "mounts": {" ".join(line.split()[:3]) for line in mounts},
        "cgroups": _cgroups(),
        "interfaces": {entry.name for entry in pathlib.Path("/sys/class/net").iterdir()},
        "rules": _lines("iptables-save") | _lines("nft", "--stateless", "list", "ruleset"),
        "loop devices": _lines("losetup", "--all"),
        "volumes": set(nodes.docker("volume", "ls", "--quiet").split()),
        "containers": set(nodes.docker("ps", "--all", "--quiet", "--no-trunc").split()),
        "networks": set(nodes.docker("network", "ls", "--quiet", "--no-trunc").split()),
        "sysctls": _sysctls(),
        "processes": _processes(),
        "files": _files(),
    }


def _inspect(*kind: str) -> list[dict[str, typing.Any]]:
    """What docker tells of all containers, volumes or networks; one that goes meanwhile is left out."""
    listed = nodes.docker(*kind, "ls", "--quiet", *["--all"] * (kind == ("container",))).split()
    told = nodes.docker(*kind, "inspect", *listed, check=False) if listed else "[]"
    return typing.cast("list[dict[str, typing.Any]]", json.loads(told or "[]"))


def _is_own(name: str) -> bool:
    return any(made in name for made in nodes.MADE)


def marks_at_rest(node: nodes.Node) -> set[str]:
    """What is there of a container that is stopped and not removed carries one of these."""
    (told,) = json.loads(nodes.docker("container", "inspect", node.name))
    return _container_marks(told) - {""}


def _container_marks(container: dict[str, typing.Any]) -> set[str]:
    identity = container["Id"]
    marks = {identity, container["NetworkSettings"].get("SandboxID", "")[:12]}
    # The name of a shim's socket. Source: containerd, pkg/shim/util_unix.go, SocketAddress.
    socket = RUNTIMES / "containerd.sock/moby" / identity
    marks.add(hashlib.sha256(str(socket).encode()).hexdigest())
    marks |= {mount.get("Name", "") for mount in container["Mounts"]}
    data = (container.get("GraphDriver") or {}).get("Data") or {}
    if "MergedDir" in data:
        layer = pathlib.Path(data["MergedDir"]).parent.name
        marks |= {layer, f"{layer}-init"}
    with contextlib.suppress(OSError, ValueError):
        # The other end of its interface, by the number that this one tells.
        root = pathlib.Path(f"/proc/{container['State']['Pid']}/root/sys/class/net")
        links = {int(link.read_text()) for link in root.glob("eth*/iflink")}
        for interface in pathlib.Path("/sys/class/net").glob("veth*"):
            if int((interface / "ifindex").read_text()) in links:
                marks.add(interface.name)
    return marks


def _addresses(container: dict[str, typing.Any]) -> set[str]:
    networks = container["NetworkSettings"]["Networks"].values()
    return {network[key] for network in networks for key in ("IPAddress", "GlobalIPv6Address")}


def _others(before: frozenset[str]) -> tuple[set[str], set[str]]:
    """Marks and addresses of what this run has not made, or had before."""
    marks: set[str] = set()
    addresses: set[str] = set()
    for container in _inspect("container"):
        project = container["Config"]["Labels"].get("com.docker.compose.project", "")
        if container["Id"] in before or not _is_own(f"{container['Name']} {project}"):
            marks |= _container_marks(container)
            addresses |= _addresses(container)
    for volume in _inspect("volume"):
        # One without a name belongs to a container; if it is none's, it was left.
        if not _is_own(volume["Name"]) and not re.fullmatch("[0-9a-f]{64}", volume["Name"]):
            marks.add(volume["Name"])
    for network in _inspect("network"):
        if not _is_own(network["Name"]) and network["Name"] != "bridge":
            subnets = [entry.get("Subnet", "") for entry in network["IPAM"]["Config"] or []]
            marks |= {network["Id"], f"br-{network['Id'][:12]}", *subnets}
    return marks - {""}, addresses - {""}


def picture(before: Picture | None = None) -> Picture:
    """Everything that `_things` knows, now.

    Args:
        before: an earlier one: the containers in it are none that could have been left since.
    """
    things = _things()
    present = frozenset(things["containers"])
    # After the things, so that what came last is known too.
    marks, addresses = _others(before.containers if before else present)
    return Picture(
        things=things,
        containers=present,
        marks=frozenset(marks),
        addresses=frozenset(addresses),
    )


def _without(things: set[str], marks: collections.abc.Set[str]) -> set[str]:
    return {thing for thing in things if marks.isdisjoint(_words(thing))}


def _words(thing: str) -> set[str]:
    words = set(WORDS.split(thing))
    # systemd's name for a container's cgroup.
    return words | {word.removeprefix("docker-").removesuffix(".scope") for word in words}


def _is_kept(kind: str, thing: str, kept: collections.abc.Set[str]) -> bool:
    at_rest = kind in ("containers", "volumes") or (
        kind == "files" and pathlib.Path(thing).is_relative_to(DOCKER)
    )
    return at_rest and not kept.isdisjoint(_words(thing))


def difference(
    before: Picture, *, kept: collections.abc.Set[str] = frozenset(), seconds: float = 5
) -> dict[str, set[str]]:
    """What is there now and was not there before, or the other way round.

    Args:
        before: an earlier picture.
        kept: a volume that the user asked to keep, or `marks_at_rest` of a container that is stopped.
        seconds: the engine tidies up a moment after a container has ended: it is given that long.
    """
    deadline = time.monotonic() + seconds
    marks, addresses = before.marks, frozenset[str]()
    while True:
        now = picture(before)
        marks |= now.marks
        addresses |= now.addresses
        changed = {}
        for kind, things in before.things.items():
            earlier = _without(things, marks | before.addresses)
            later = _without(now.things[kind], marks | addresses)
            found = {thing for thing in earlier ^ later if not _is_kept(kind, thing, kept)}
            if found:
                changed[kind] = found
        if not changed or time.monotonic() > deadline:
            return changed
        time.sleep(0.2)


def processes(node: nodes.Node) -> dict[str, str]:
    """The host's process ids of a running container's processes, its shim among them."""
    found = {}
    for line in nodes.docker("top", node.name, "-eo", "pid,comm").splitlines()[1:]:
        pid, name = line.split(None, 1)
        found[pid] = name
    main = node.inspect("{{.State.Pid}}")
    shim = pathlib.Path(f"/proc/{main}/stat").read_text().rpartition(")")[2].split()[1]
    return found | {shim: "containerd-shim"}


def await_end(processes: dict[str, str], *, seconds: float = 5) -> None:
    """Wait until none of the processes is left; the engine ends the shim as the last."""

    def look() -> str | None:
        left = {pid: name for pid, name in processes.items() if _is_alive(pid, name)}
        return f"still there: {left}" if left else None

    wait.until(look, awaited="the end of the container's processes", seconds=seconds)


def _is_alive(pid: str, name: str) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == name[:15]
    except OSError:
        return False
