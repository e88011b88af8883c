"""What facts about a host mean, and how the facts are read."""

from __future__ import annotations

import dataclasses
import ipaddress
import pathlib
import socket
import typing

import pytest

from p8s_supervisor import errors
from p8s_supervisor.host import doctor, doctor_facts
from tests import fakes

ALL = (1 << 41) - 1
GOOD = doctor_facts.Facts(
    version="28.3.0",
    options=("seccomp",),
    kernel="6.12.1-amd64",
    architecture="x86_64",
    cgroup_version=2,
    storage="overlay2",
    backing="extfs",
    data_root="/var/lib/docker",
    nameservers=("192.0.2.53",),
    networks={"bridge": (ipaddress.IPv4Network("172.17.0.0/16"),)},
    image=True,
    image_architecture="amd64",
    capabilities=ALL,
    inotify_instances=1024,
    inotify_watches=524288,
    inotify_free=64,
    memory_available=8 * 1024 * doctor.MIB,
    disk_free=50 * 1024 * doctor.MIB,
    disk_size=100 * 1024 * doctor.MIB,
    cgroup="ok",
    overlay="ok",
    nftables="ok",
)
OK, WARNING, ERROR = doctor.Level.OK, doctor.Level.WARNING, doctor.Level.ERROR


def wanted(*ports: int, arguments: tuple[str, ...] = ()) -> doctor.Wanted:
    chosen = fakes.load_settings(*arguments).settings
    return doctor.Wanted(settings=chosen, image="p8s:latest", ports=ports)


def judge(what: doctor.Wanted | None = None, **changed: typing.Any) -> dict[str, doctor.Finding]:
    found = doctor.judge(dataclasses.replace(GOOD, **changed), what or wanted())
    assert len({finding.name for finding in found}) == len(found)
    return {finding.name: finding for finding in found}


def test_a_good_host_has_nothing_to_mend() -> None:
    found = judge()
    assert set(found) == {
        "engine",
        "kernel",
        "cgroups",
        "capabilities",
        "inotify",
        "memory",
        "disk",
        "overlay",
        "nftables",
        "ports",
        "proxy",
        "dns",
        "ranges",
        "image",
    }
    assert {finding.level for finding in found.values()} == {OK}
    assert not any(finding.mend for finding in found.values())


@pytest.mark.parametrize(
    ("changed", "name", "level", "told", "mend"),
    [
        pytest.param({"version": "20.10.5"}, "engine", ERROR, "too old", "install", id="old"),
        pytest.param(
            {"os_type": "windows"}, "engine", ERROR, "windows", "Linux", id="windows containers"
        ),
        pytest.param(
            {"options": ("userns",)}, "engine", ERROR, "userns", "daemon.json", id="mapped users"
        ),
        pytest.param(
            {"options": ("rootless",)}, "engine", WARNING, "without root", "context", id="rootless"
        ),
        pytest.param(
            {"engine": "podman", "version": "5.2"}, "engine", WARNING, "podman", "", id="podman"
        ),
        pytest.param(
            {"kernel": "5.4.0-1-generic"}, "kernel", WARNING, "5.13", "linux-image", id="old kernel"
        ),
        pytest.param({"kernel": "strange"}, "kernel", OK, "strange", "", id="a kernel without one"),
        pytest.param(
            {"cgroup_version": 1}, "cgroups", OK, "failCgroupV1=false", "", id="cgroup v1"
        ),
        pytest.param(
            {"cgroup": "mkdir: Read-only file system"},
            "cgroups",
            ERROR,
            "Read-only",
            "--privileged",
            id="cgroups that cannot be written",
        ),
        pytest.param(
            {"capabilities": ALL & ~(1 << 24)},
            "capabilities",
            OK,
            "CAP_SYS_RESOURCE",
            "",
            id="no CAP_SYS_RESOURCE",
        ),
        pytest.param(
            {"capabilities": 0x00000000A80425FB},
            "capabilities",
            ERROR,
            "CAP_SYS_ADMIN",
            "--privileged",
            id="an engine without privileges",
        ),
        pytest.param(
            {"inotify_instances": 128, "inotify_free": 40},
            "inotify",
            WARNING,
            "128 instances (40 are free)",
            "fs.inotify.max_user_instances",
            id="few instances left",
        ),
        pytest.param(
            {"inotify_instances": 128, "inotify_free": 25},
            "inotify",
            ERROR,
            "needs 26",
            "sysctl",
            id="no instances left",
        ),
        pytest.param(
            {"inotify_watches": 1024}, "inotify", WARNING, "1024", "sysctl", id="few watches"
        ),
        pytest.param(
            {"memory_available": 800 * doctor.MIB}, "memory", WARNING, "800 MiB", "docker", id="low"
        ),
        pytest.param(
            {"memory_available": 300 * doctor.MIB}, "memory", ERROR, "300 MiB", "docker", id="none"
        ),
        pytest.param(
            {"disk_free": 3000 * doctor.MIB}, "disk", WARNING, "3,000 MiB", "prune", id="disk low"
        ),
        pytest.param(
            {"disk_free": 500 * doctor.MIB}, "disk", ERROR, "500 MiB", "prune", id="disk full"
        ),
        pytest.param(
            {"disk_size": 10_000 * 1024 * doctor.MIB},
            "disk",
            ERROR,
            "51,200 MiB",
            "prune",
            id="below the part at which kubelet evicts",
        ),
        pytest.param(
            {"overlay": "mount: unknown filesystem type"},
            "overlay",
            ERROR,
            "unknown filesystem",
            "modprobe overlay",
            id="no overlayfs",
        ),
        pytest.param(
            {"nftables": "Operation not supported"},
            "nftables",
            ERROR,
            "not supported",
            "modprobe -a nf_tables",
            id="no nftables",
        ),
        pytest.param(
            {"taken": {6443: "container other"}},
            "ports",
            OK,
            "6443 by container other",
            "",
            id="a usual port is taken",
        ),
        pytest.param(
            {"proxies": {"HttpsProxy": "http://proxy:3128"}},
            "proxy",
            WARNING,
            "HttpsProxy (the engine's)",
            "p8s load",
            id="the engine's proxy",
        ),
        pytest.param(
            {"own_proxies": {"https_proxy": "http://proxy:3128"}},
            "proxy",
            WARNING,
            "https_proxy (yours)",
            "p8s load",
            id="a proxy of one's own",
        ),
        pytest.param(
            {"own_cas": ("SSL_CERT_FILE", "/ca.crt")},
            "proxy",
            WARNING,
            "SSL_CERT_FILE and 1 more",
            "p8s load",
            id="TLS is opened on the way",
        ),
        pytest.param(
            {"nameservers": ("127.0.0.1",)}, "dns", WARNING, "127.0.0.1", "daemon.json", id="stub"
        ),
        pytest.param(
            {"nameservers": ("127.0.0.53",), "systemd_resolved": True},
            "dns",
            OK,
            "127.0.0.53",
            "",
            id="systemd-resolved, whose list docker reads",
        ),
        pytest.param(
            {"networks": {"bridge": (ipaddress.IPv4Network("192.168.0.0/16"),)}},
            "ranges",
            ERROR,
            "pod_cidr 192.168.253.0/24 overlaps docker's network bridge",
            "P8S_POD_CIDR",
            id="the default network overlaps",
        ),
        pytest.param(
            {"networks": {"other": (ipaddress.IPv4Network("192.168.254.0/25"),)}},
            "ranges",
            WARNING,
            "service_cidr 192.168.254.0/24 overlaps docker's network other",
            "P8S_SERVICE_CIDR",
            id="another network overlaps",
        ),
        pytest.param({"image": False}, "image", WARNING, "not there", "make image", id="no image"),
        pytest.param(
            {"probe_error": "exec format error"},
            "image",
            ERROR,
            "exec format error",
            "docker run",
            id="the probe does not run",
        ),
    ],
)
def test_a_finding(
    changed: dict[str, typing.Any], name: str, level: doctor.Level, told: str, mend: str
) -> None:
    found = judge(**changed)
    assert (found[name].level, told in found[name].message) == (level, True), found[name]
    assert mend in found[name].mend
    assert bool(found[name].mend) == (level != OK)
    others = {finding.level for other, finding in found.items() if other != name}
    assert others == {OK}


def test_a_port_that_is_asked_for_and_taken() -> None:
    found = judge(wanted(7000, 7001), taken={7001: ""})["ports"]
    assert found.level == ERROR
    assert "7001 by another process" in found.message


def test_without_an_engine_nothing_else_is_said() -> None:
    found = doctor.judge(doctor_facts.Facts(engine_error="no engine: no such file"), wanted())
    assert [(finding.name, finding.level) for finding in found] == [("engine", ERROR)]
    assert found[0].message == "no engine: no such file"


def test_what_could_not_be_found_out_is_not_judged() -> None:
    found = {finding.name for finding in doctor.judge(doctor_facts.Facts(), wanted())}
    unknown = {"capabilities", "inotify", "memory", "disk", "nftables", "dns"}
    assert not found & unknown


def test_errors_are_refused_all_at_once() -> None:
    found = judge(version="19.3", nftables="no", image=False)
    with pytest.raises(errors.P8sError) as raised:
        doctor.refuse_errors(found.values())
    assert "engine: docker 19.3" in raised.value.message
    assert "nftables: " in raised.value.message
    assert "image" not in raised.value.message
    assert "p8s doctor" in raised.value.hint


def test_warnings_pass() -> None:
    doctor.refuse_errors(judge(image=False).values())


def test_facts_of_the_engine() -> None:
    found = doctor_facts.read_engine(
        {
            "ServerVersion": "26.1.5",
            "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"],
            "DriverStatus": [["Backing Filesystem", "xfs"], ["Supports d_type", "true"]],
            "Driver": "overlay2",
            "CgroupVersion": "2",
            "KernelVersion": "6.1.0",
            "OSType": "linux",
            "Architecture": "aarch64",
            "DockerRootDir": "/data/docker",
            "MemTotal": 1024,
            "HttpProxy": "",
            "HttpsProxy": "http://proxy:3128",
        },
        {"Components": [{"Name": "Engine"}]},
    )
    assert doctor_facts.Facts(**found) == doctor_facts.Facts(
        version="26.1.5",
        options=("seccomp", "rootless"),
        kernel="6.1.0",
        architecture="aarch64",
        cgroup_version=2,
        storage="overlay2",
        backing="xfs",
        data_root="/data/docker",
        memory_available=1024,
        proxies={"HttpsProxy": "http://proxy:3128"},
    )


def test_podman_behind_dockers_socket() -> None:
    found = doctor_facts.read_engine({}, {"Components": [{"Name": "Podman Engine"}]})
    assert found["engine"] == "podman"


def test_facts_of_the_host(tmp_path: pathlib.Path) -> None:
    for name, text in {
        "etc/resolv.conf": "# mine\nnameserver 127.0.0.53\noptions edns0\nnameserver ::1\n",
        "run/systemd/resolve/resolv.conf": "",
        "proc/meminfo": "MemTotal: 2 kB\nMemAvailable:  1000 kB\n",
        "proc/sys/fs/inotify/max_user_instances": "128\n",
        "proc/sys/fs/inotify/max_user_watches": "8192\n",
        "usr/local/share/ca-certificates/firm/ca.crt": "",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    found = doctor_facts.read_host(
        tmp_path, {"HTTPS_PROXY": "http://p:1", "no_proxy": "*", "SSL_CERT_FILE": "/ca", "ALL": ""}
    )
    assert found == {
        "nameservers": ("127.0.0.53", "::1"),
        "systemd_resolved": True,
        "own_proxies": {"HTTPS_PROXY": "http://p:1"},
        "own_cas": (
            "SSL_CERT_FILE",
            str(tmp_path / "usr/local/share/ca-certificates/firm/ca.crt"),
        ),
        "inotify_instances": 128,
        "inotify_watches": 8192,
        "memory_available": 1000 * 1024,
    }


def test_a_host_without_these_files(tmp_path: pathlib.Path) -> None:
    found = doctor_facts.read_host(tmp_path, {})
    assert doctor_facts.Facts(**found).nameservers == ()
    assert doctor_facts.measure_disk(tmp_path / "missing") == {}
    assert doctor_facts.measure_disk(tmp_path)["disk_size"] > 0


def test_a_port_that_somebody_listens_on_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = doctor_facts.find_taken([port, fakes.free_port()], {port: "x"})
    assert found == {port: "container x"}


@pytest.mark.parametrize(
    ("output", "found"),
    [
        pytest.param(
            "capabilities=000001fffeffffff \ndisk_free=4096 \ncgroup=ok \noverlay=no = not ok \n",
            {
                "capabilities": 0x1FFFEFFFFFF,
                "disk_free": 4096,
                "cgroup": "ok",
                "overlay": "no = not ok",
            },
            id="facts",
        ),
        pytest.param(
            "capabilities=1\nnftables=\n",
            {"capabilities": 1, "nftables": "no reason given"},
            id="no reason",
        ),
        pytest.param(
            "sh: not found\n", {"probe_error": "the probe said sh: not found"}, id="another image"
        ),
        pytest.param("", {"probe_error": "the probe said nothing"}, id="nothing"),
    ],
)
def test_facts_of_the_probe(output: str, found: dict[str, typing.Any]) -> None:
    assert doctor_facts.read_probe(output) == found
