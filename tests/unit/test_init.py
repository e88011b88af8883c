"""PID 1: what it decides before it is supervisord, on a C library that does nothing."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import signal
import subprocess
import sys
import typing

import pytest

from p8s_supervisor import errors, init, node, paths, settings
from tests import fakes


class Libc:
    """In place of the C library: system calls are recorded, and none is made.

    Attributes:
        calls: each call with its arguments.
        result: what each call gives.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.result = 0

    def __getattr__(self, name: str) -> typing.Callable[..., int]:
        def call(*arguments: object) -> int:
            plain = [getattr(argument, "value", argument) for argument in arguments]
            self.calls.append((name, *plain))
            return self.result

        return call


@pytest.fixture
def libc(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Libc:
    """A node that is a directory: PID 1 can neither mount, signal nor write anything else.

    The door is the C library itself, so that a system call that is added later is caught too.
    """
    fake = Libc()
    monkeypatch.setattr(init, "_libc", fake)
    monkeypatch.setattr(init, "CGROUPS", tmp_path / "sys/fs/cgroup")
    monkeypatch.setattr(init, "pathlib", fakes.Rooted(tmp_path))
    monkeypatch.setattr(paths, "Paths", functools.partial(paths.Paths, tmp_path))
    monkeypatch.setattr(os, "kill", fakes.forbid)
    return fake


def mounted(source: str | None, target: object, kind: str | None, flags: int, data: str) -> object:
    """A call of mount(2)."""
    words = [word.encode() if word else None for word in (source, str(target), kind)]
    return ("mount", *words, flags, data.encode() or None)


def unmounted(target: object) -> object:
    """A call of umount2(2) that takes a mount away lazily."""
    return ("umount2", str(target).encode(), init.MNT_DETACH)


def write_proc(root: pathlib.Path, name: str, text: str) -> None:
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self" / name).write_text(text)


def call_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """The exit code of PID 1 with these arguments."""
    monkeypatch.setattr(sys, "argv", ["init", *arguments])
    with pytest.raises(SystemExit) as caught:
        init.main()
    return caught.value.code


QUIET = init.MS_NOSUID | init.MS_NODEV | init.MS_NOEXEC


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_told_whatever_else_is_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], libc: Libc, flag: str
) -> None:
    assert call_main(monkeypatch, "--api-port=0", flag) == 0
    assert "--api-port=…  P8S_API_PORT" in capsys.readouterr().out
    assert libc.calls == []


def test_wrong_settings_end_with_2_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], libc: Libc
) -> None:
    assert call_main(monkeypatch, "--config=/dev/null", "--api-port=0") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("p8s: 1 wrong setting:\n  - api_port = '0' (from flag): ")
    assert libc.calls == []


def test_a_container_that_is_not_privileged_ends_with_1_before_anything_is_mounted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], libc: Libc
) -> None:
    facts = dataclasses.replace(fakes.FACTS, privileged=False)
    monkeypatch.setattr(node, "find_facts", lambda: facts)
    assert call_main(monkeypatch, "--config=/dev/null") == 1
    assert capsys.readouterr().err == (
        "p8s: the container is not privileged: kubelet and containerd cannot work in it\n"
        "  hint: docker run --privileged …\n"
    )
    assert libc.calls == []


@pytest.mark.parametrize(
    ("arguments", "address"),
    [
        pytest.param([], "127.0.0.1 8989", id="every address"),
        pytest.param(["--http-address=::"], "::1 8989", id="every IPv6 address"),
        pytest.param(
            ["--http-address=192.0.2.7", "--http-port=9090"], "192.0.2.7 9090", id="one address"
        ),
        pytest.param(["--http-address=2001:DB8::7"], "2001:db8::7 8989", id="one IPv6 address"),
    ],
)
def test_prepare_leaves_what_the_sidecar_and_the_health_check_read(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    libc: Libc,
    arguments: list[str],
    address: str,
) -> None:
    monkeypatch.setattr(
        node, "find_facts", lambda: dataclasses.replace(fakes.FACTS, cgroup_version=1)
    )
    write_proc(tmp_path, "cgroup", "1:memory:/\n")
    environment = {"P8S_API_TOKEN": fakes.TOKEN}
    init.prepare(["--config=/dev/null", *arguments], environment)
    places = paths.Paths()
    loaded = settings.load(["--config=/dev/null", *arguments], environment)
    assert settings.from_json(places.settings.read_text()) == loaded
    assert places.settings.stat().st_mode & 0o777 == 0o600
    assert places.http_address.read_text() == address
    # /run is mounted before anything is written there.
    assert [call[0] for call in libc.calls] == ["mount"] * 8


def test_a_system_call_that_the_kernel_refuses_says_what_to_do(libc: Libc) -> None:
    libc.result = -1
    target = pathlib.Path("/somewhere")
    calls: list[tuple[typing.Callable[[], None], str]] = [
        (lambda: init.mount("x", target, kind="tmpfs"), "cannot mount x at /somewhere: "),
        (lambda: init.mount("", target), "cannot mount over at /somewhere: "),
        (lambda: init.unmount(target), "cannot unmount /somewhere: "),
    ]
    for call, message in calls:
        with pytest.raises(errors.P8sError) as caught:
            call()
        assert caught.value.message.startswith(message)
        assert caught.value.hint == "run the container with --privileged"


def test_prepare_mounts(tmp_path: pathlib.Path, libc: Libc) -> None:
    places = paths.Paths()
    init.prepare_mounts(places)
    kubelet = places.kubelet_root
    assert libc.calls == [
        mounted(None, tmp_path, None, init.MS_SHARED | init.MS_REC, ""),
        mounted("tmpfs", tmp_path / "run/p8s", "tmpfs", QUIET, "mode=0700"),
        mounted("tmpfs", tmp_path / "run/containerd", "tmpfs", QUIET, "mode=0711"),
        mounted("tmpfs", tmp_path / "run/cni", "tmpfs", QUIET, "mode=0700"),
        mounted("tmpfs", tmp_path / "run/netns", "tmpfs", QUIET, "mode=0755"),
        mounted(str(places.kubelet_state), kubelet, None, init.MS_BIND | init.MS_REC, ""),
        mounted(None, kubelet, None, init.MS_PRIVATE, ""),
        mounted(None, kubelet, None, init.MS_SHARED, ""),
    ]
    for directory in (places.run, places.kubelet_state, places.kubelet_root, places.logs):
        assert directory.is_dir()


def test_host_sysctls_are_shown_as_kubelet_wants_them(tmp_path: pathlib.Path, libc: Libc) -> None:
    panic = tmp_path / "proc/sys/kernel/panic"
    panic.parent.mkdir(parents=True)
    panic.write_text("0\n")
    run = tmp_path / "run/p8s"
    init.hide_host_sysctls(run)
    # Those that this kernel lacks are left out.
    shown = run / "sysctls/kernel.panic"
    assert libc.calls == [mounted(str(shown), panic, None, init.MS_BIND, "")]
    assert (shown.read_text(), panic.read_text()) == ("10\n", "0\n")


def test_remount_cgroups_keeps_each_hierarchy_of_v1(tmp_path: pathlib.Path, libc: Libc) -> None:
    write_proc(
        tmp_path,
        "mounts",
        "overlay / overlay rw 0 0\n"
        "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,nodev,noexec,relatime,cpu,cpuacct 0 0\n"
        "cgroup /sys/fs/cgroup/systemd cgroup ro,relatime,xattr,name=systemd 0 0\n",
    )
    init.remount_cgroups(1)
    cpu, systemd = (tmp_path / "sys/fs/cgroup" / name for name in ("cpu,cpuacct", "systemd"))
    assert libc.calls == [
        unmounted(cpu),
        mounted("cgroup", cpu, "cgroup", 0, "cpu,cpuacct"),
        unmounted(systemd),
        mounted("cgroup", systemd, "cgroup", 0, "xattr,name=systemd"),
    ]


def test_remount_cgroups_mounts_v2_anew(tmp_path: pathlib.Path, libc: Libc) -> None:
    init.remount_cgroups(2)
    top = tmp_path / "sys/fs/cgroup"
    assert libc.calls == [unmounted(top), mounted("cgroup2", top, "cgroup2", QUIET, "")]


@pytest.mark.parametrize(
    ("cgroups", "unshared"),
    [
        pytest.param("2:cpu:/\n1:memory:/\n", [], id="a namespace of its own already"),
        pytest.param(
            "2:cpu:/docker/0123\n1:memory:/docker/0123\n",
            [("unshare", init.CLONE_NEWCGROUP)],
            id="the host's namespace",
        ),
    ],
)
def test_a_cgroup_namespace_is_made_where_the_host_s_is_seen(
    tmp_path: pathlib.Path, libc: Libc, cgroups: str, unshared: list[object]
) -> None:
    write_proc(tmp_path, "cgroup", cgroups)
    write_proc(tmp_path, "mounts", "overlay / overlay rw 0 0\n")
    init.prepare_cgroups(1)
    assert libc.calls == unshared


@pytest.mark.usefixtures("libc")
def test_controllers_are_delegated_once_the_root_is_empty(tmp_path: pathlib.Path) -> None:
    top = tmp_path / "sys/fs/cgroup"
    top.mkdir(parents=True)
    for name, text in (
        ("cgroup.procs", "1\n7\n"),
        ("cgroup.controllers", "cpu memory pids\n"),
        ("cgroup.subtree_control", ""),
    ):
        (top / name).write_text(text)
    init.delegate_controllers()
    # A real cgroup.procs takes one process at a time; a file keeps the last one.
    assert (top / "p8s/cgroup.procs").read_text() == "7"
    assert (top / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


@pytest.mark.usefixtures("libc")
def test_what_kubelet_made_is_removed_and_the_rest_is_kept(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    top = tmp_path / "sys/fs/cgroup"
    for directory in ("kubepods/besteffort/pod1", "memory/kubepods/pod2", "memory/other", "p8s"):
        (top / directory).mkdir(parents=True)
    init.remove_cgroups()
    left = sorted(str(path.relative_to(top)) for path in top.rglob("*"))
    assert left == ["memory", "memory/other", "p8s"]
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("libc")
def test_what_is_frozen_is_ended_and_let_go(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[tuple[int, int]] = []

    def kill(pid: int, number: int) -> None:
        killed.append((pid, number))
        if pid == 8:
            raise ProcessLookupError  # it has ended meanwhile

    monkeypatch.setattr(os, "kill", kill)
    freezer = tmp_path / "sys/fs/cgroup/freezer"
    for name, state in (
        ("kubepods/pod1", "FROZEN"),
        ("kubepods/pod2", "THAWED"),
        ("own", "FROZEN"),
    ):
        (freezer / name).mkdir(parents=True)
        (freezer / name / "freezer.state").write_text(f"{state}\n")
        (freezer / name / "cgroup.procs").write_text("8\n9\n")
    init.thaw_cgroups()
    assert killed == [(8, signal.SIGKILL), (9, signal.SIGKILL)]
    assert (freezer / "kubepods/pod1/freezer.state").read_text() == "THAWED"
    assert (freezer / "own/freezer.state").read_text() == "FROZEN\n"


def test_nothing_runs_any_more_once_the_last_processes_are_ended(tmp_path: pathlib.Path) -> None:
    """As PID 1 of a namespace of its own, with an orphan of an orphan in it."""
    program = (
        "import os, pathlib, subprocess, sys; from p8s_supervisor import init;"
        "init.CGROUPS = pathlib.Path(sys.argv[1]);"
        "subprocess.run(['sh', '-c', 'setsid sleep 60 & setsid sleep 60 &'], check=True);"
        "running = lambda: sorted(name for name in os.listdir('/proc') if name.isdecimal());"
        "print(len(running())); init.end_processes(); print(running())"
    )
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", program, tmp_path],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert done.stdout == "3\n['1']\n"


@pytest.mark.usefixtures("libc")
def test_a_cgroup_that_is_in_use_is_told_and_does_not_end_the_stop(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pods = tmp_path / "sys/fs/cgroup/kubepods"
    (pods / "pod1").mkdir(parents=True)
    (pods / "pod1/busy").touch()
    init.remove_cgroups()
    assert capsys.readouterr().out.splitlines() == [
        f"p8s: {pods}/pod1 is left: Directory not empty",
        f"p8s: {pods} is left: Directory not empty",
    ]


def test_a_secret_is_blotted_out_of_the_arguments() -> None:
    program = (
        "import pathlib, sys; from p8s_supervisor import init; init.hide_arguments(['', 'the-secret']);"
        "print(pathlib.Path('/proc/self/cmdline').read_text().split(chr(0))[3:-1], sys.argv[1:])"
    )
    given = ["--api-token=the-secret", "--x=y", "the-secret"]
    done = subprocess.run(
        [sys.executable, "-c", program, *given], capture_output=True, text=True, check=True
    )
    hidden = ["--api-token=**********", "--x=y", "**********"]
    assert done.stdout == f"{hidden} {given}\n"


def test_a_stop_before_there_is_anything_to_stop_ends_it_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["p8s-init"])
    monkeypatch.setattr(init, "prepare", lambda *_: signal.raise_signal(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as raised:
            init.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert raised.value.code == errors.ExitCode.STOPPED
