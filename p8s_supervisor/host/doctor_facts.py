"""What can be found out about a docker engine and its host within a second."""

from __future__ import annotations

import collections.abc
import concurrent.futures
import dataclasses
import ipaddress
import os
import pathlib
import platform
import shutil
import socket
import typing

from p8s_supervisor import errors
from p8s_supervisor.host import clusters, docker_host

PROBE = """\
say() { echo "$1=$2" | tr '\\n' ' '; echo; }
say capabilities "$(sed -n 's/^CapBnd:[[:space:]]*//p' /proc/self/status)"
say inotify_instances "$(cat /proc/sys/fs/inotify/max_user_instances)"
say inotify_watches "$(cat /proc/sys/fs/inotify/max_user_watches)"
say inotify_free "$(python3 -ISc 'import ctypes
print(sum(ctypes.CDLL(None).inotify_init() >= 0 for _ in range(64)))')"
say memory_available "$(awk '/^MemAvailable:/ {print $2 * 1024}' /proc/meminfo)"
say disk_free "$(df --output=avail -B1 /var/lib/p8s | tail -n1)"
say disk_size "$(df --output=size -B1 /var/lib/p8s | tail -n1)"
cgroup=/sys/fs/cgroup; [ -e $cgroup/cgroup.controllers ] || cgroup=$cgroup/memory
say cgroup "$(mkdir $cgroup/p8s-doctor 2>&1 && rmdir $cgroup/p8s-doctor && echo ok)"
cd /var/lib/p8s && mkdir lower upper work merged
say overlay "$(mount -t overlay overlay -olowerdir=lower,upperdir=upper,workdir=work merged 2>&1 \
  && umount merged && echo ok)"
say nftables "$(nft -f - 2>&1 <<RULES && echo ok
table ip p8s {
  map services { type ipv4_addr . inet_proto . inet_service : verdict; }
  chain endpoint { meta l4proto tcp dnat to 192.0.2.1:80; }
  chain service { numgen random mod 1 vmap { 0 : goto endpoint }; }
  chain output {
    type nat hook output priority -100;
    ip daddr . meta l4proto . th dport vmap @services
    fib daddr type local counter
  }
  chain outgoing { type nat hook postrouting priority 100; masquerade; }
  chain refused {
    type filter hook output priority 0;
    ct state new limit rate 1/second counter reject
  }
}
RULES
)"
"""
# As the probe has it.
INOTIFY_ENOUGH = 64
PROBE_SECONDS = 10.0
# Over the image's own title, by which `p8s list` finds clusters.
PROBE_LABELS = {"org.opencontainers.image.title": "p8s doctor"}
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_CAS = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
_OWN_CAS = pathlib.Path("usr/local/share/ca-certificates")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What was found out about the engine and its host; None where it could not be.

    Attributes:
        engine_error: that no engine answers, and why; empty where one does.
        engine: its product name.
        version: its version.
        options: its security options: "rootless", "userns", "seccomp", …
        kernel: the kernel's release.
        os_type: "linux", or "windows".
        architecture: the engine's, in uname's words.
        cgroup_version: 1 or 2.
        storage: the storage driver.
        backing: the file system under it.
        data_root: the engine's directory.
        proxies: the engine's proxy settings by name.
        own_proxies: those in this process' environment.
        own_cas: signs that TLS is opened on the way: variables and files that name a CA.
        nameservers: of the host's resolv.conf; empty where the engine is on another host.
        systemd_resolved: whether the host has resolved's own list, which docker then takes.
        networks: docker's networks by name.
        taken: ports of loopback that somebody listens on → who, empty where that is unknown.
        image: whether the image is there.
        image_architecture: its architecture, in Go's words.
        probe_error: why no probe was made in a container; empty where it was made or not tried.
        capabilities: the bounding set of a privileged container.
        inotify_instances: the limit for one user.
        inotify_watches: the limit for one user.
        inotify_free: how many more instances root can make; counted to `INOTIFY_ENOUGH`.
        memory_available: bytes.
        disk_free: bytes free where the engine keeps its data.
        disk_size: bytes.
        cgroup: "ok", or why a privileged container cannot make a cgroup.
        overlay: "ok", or why overlayfs cannot be mounted on a volume.
        nftables: "ok", or what the kernel refused of rules such as kube-proxy's.
    """

    engine_error: str = ""
    engine: str = "docker"
    version: str = ""
    options: tuple[str, ...] = ()
    kernel: str = ""
    os_type: str = "linux"
    architecture: str = ""
    cgroup_version: int | None = None
    storage: str = ""
    backing: str = ""
    data_root: str = ""
    proxies: dict[str, str] = dataclasses.field(default_factory=dict)
    own_proxies: dict[str, str] = dataclasses.field(default_factory=dict)
    own_cas: tuple[str, ...] = ()
    nameservers: tuple[str, ...] = ()
    systemd_resolved: bool = False
    networks: dict[str, tuple[ipaddress.IPv4Network, ...]] = dataclasses.field(default_factory=dict)
    taken: dict[int, str] = dataclasses.field(default_factory=dict)
    image: bool = False
    image_architecture: str = ""
    probe_error: str = ""
    capabilities: int | None = None
    inotify_instances: int | None = None
    inotify_watches: int | None = None
    inotify_free: int | None = None
    memory_available: int | None = None
    disk_free: int | None = None
    disk_size: int | None = None
    cgroup: str | None = None
    overlay: str | None = None
    nftables: str | None = None


def gather(image: str, *, ports: collections.abc.Iterable[int]) -> Facts:
    """Ask the engine, look at this host where the engine is here, and run one short container.

    Args:
        image: the container is of this image; without it there is none.
        ports: the ports of loopback to look at.
    """
    found: dict[str, typing.Any] = {}
    try:
        engine = docker_host.connect(seconds=PROBE_SECONDS)
        with concurrent.futures.ThreadPoolExecutor(1) as beside:
            about_image = read_image(engine.find_image(image))
            probe = beside.submit(run_probe, engine, image) if about_image["image"] else None
            found |= about_image | read_engine(*engine.describe())
            found["networks"] = read_networks(engine.list_networks())
            # A socket here may lead to an engine in a machine of its own, with another kernel.
            if engine.is_local() and found["kernel"] == platform.release():
                found |= read_host(pathlib.Path("/"), os.environ)
                found |= measure_disk(pathlib.Path(found["data_root"]))
                found["taken"] = find_taken(ports, engine.list_published())
            if probe is not None:
                found |= probe.result()
    except errors.P8sError as error:
        return Facts(engine_error=error.message)
    return Facts(**found)


def read_engine(
    info: collections.abc.Mapping[str, typing.Any],
    version: collections.abc.Mapping[str, typing.Any],
) -> dict[str, typing.Any]:
    """Facts from what the engine tells: GET /info and GET /version."""
    names = [str(part.get("Name", "")) for part in version.get("Components") or ()]
    options = [option.split(",")[0] for option in info.get("SecurityOptions") or ()]
    status = dict(pair[:2] for pair in info.get("DriverStatus") or ())
    return {
        "engine": "podman" if any("podman" in name.lower() for name in names) else "docker",
        "version": str(info.get("ServerVersion", "")),
        "options": tuple(option.removeprefix("name=") for option in options),
        "kernel": str(info.get("KernelVersion", "")),
        "os_type": str(info.get("OSType", "linux")),
        "architecture": str(info.get("Architecture", "")),
        "cgroup_version": int(info.get("CgroupVersion") or 1),
        "storage": str(info.get("Driver", "")),
        "backing": str(status.get("Backing Filesystem", "")),
        "data_root": str(info.get("DockerRootDir", "")),
        "memory_available": info.get("MemTotal"),  # the host or a probe knows better
        "proxies": {key: str(info[key]) for key in ("HttpProxy", "HttpsProxy") if info.get(key)},
    }


def read_image(found: clusters.Image | None) -> dict[str, typing.Any]:
    """Whether the image is there, and for which architecture."""
    if found is None:
        return {"image": False}
    return {"image": True, "image_architecture": found.architecture}


def read_networks(
    networks: collections.abc.Iterable[docker_host.Answer],
) -> dict[str, tuple[ipaddress.IPv4Network, ...]]:
    """docker's networks with their IPv4 ranges."""
    found = {}
    for network in networks:
        ranges = [entry.get("Subnet", "") for entry in network["IPAM"].get("Config") or ()]
        found[str(network["Name"])] = tuple(
            ipaddress.IPv4Network(text) for text in ranges if text and ":" not in text
        )
    return found


def find_taken(
    ports: collections.abc.Iterable[int], published: collections.abc.Mapping[int, str]
) -> dict[int, str]:
    """The ports of loopback that cannot be listened on, and who has them where docker knows."""
    taken = {}
    for port in sorted(set(ports)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT is no owner
            try:
                probe.bind(("127.0.0.1", port))
            except PermissionError:
                pass  # the engine may, where we may not
            except OSError:
                taken[port] = f"container {published[port]}" if port in published else ""
    return taken


def read_host(
    root: pathlib.Path, environment: collections.abc.Mapping[str, str]
) -> dict[str, typing.Any]:
    """Facts from this host's /proc and /etc, and from this process' environment."""
    lines = _read(root / "etc/resolv.conf").splitlines()
    fields = [line.split() for line in lines]
    found: dict[str, typing.Any] = {
        "nameservers": tuple(
            field[1] for field in fields if len(field) > 1 and field[0] == "nameserver"
        ),
        "systemd_resolved": (root / "run/systemd/resolve/resolv.conf").exists(),
        "own_proxies": {
            name: value for name, value in environment.items() if name.lower() in _PROXIES and value
        },
        "own_cas": (
            *(name for name in _CAS if environment.get(name)),
            *(str(file) for file in sorted((root / _OWN_CAS).glob("**/*.crt"))),
        ),
    }
    for name, file in (
        ("inotify_instances", "max_user_instances"),
        ("inotify_watches", "max_user_watches"),
    ):
        text = _read(root / "proc/sys/fs/inotify" / file).strip()
        if text.isdigit():
            found[name] = int(text)
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            found["memory_available"] = int(line.split()[1]) * 1024
    return found


def measure_disk(directory: pathlib.Path) -> dict[str, int]:
    """Facts about the disk that a directory is on; none where it cannot be seen."""
    try:
        usage = shutil.disk_usage(directory)
    except OSError:
        return {}
    return {"disk_free": usage.free, "disk_size": usage.total}


def run_probe(engine: docker_host.Engine, image: str) -> dict[str, typing.Any]:
    """Facts that a privileged container of the image tells. It is gone at the end."""
    try:
        output = engine.run_script(image, PROBE, labels=PROBE_LABELS, seconds=PROBE_SECONDS)
    except errors.P8sError as error:
        return {"probe_error": error.message}
    return read_probe(output)


def read_probe(output: str) -> dict[str, typing.Any]:
    """Facts from the probe's output: lines of `name=value`."""
    found: dict[str, typing.Any] = {}
    for line in output.splitlines():
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            continue
        if name in ("cgroup", "overlay", "nftables"):
            found[name] = value or "no reason given"
        elif name == "capabilities":
            found[name] = int(value, 16)
        elif value.isdigit():
            found[name] = int(value)
    if "capabilities" not in found:
        return {"probe_error": f"the probe said {output.strip()[:200] or 'nothing'}"}
    return found


def _read(file: pathlib.Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""  # not every host has every file
