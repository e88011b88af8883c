"""PID 1: checks the settings, prepares the container as a node, then is supervisord.

supervisord runs in this process, so that the container's exit code is the cluster's, and so that
SIGTERM goes to the sidecar, which stops the cluster in order, rather than to everything at once.
"""

from __future__ import annotations

import collections.abc
import contextlib
import ctypes
import json
import os
import pathlib
import signal
import sys
import time
import typing

from p8s_supervisor import (
    add_on_names,
    errors,
    files,
    node,
    origins,
    overrides,
    paths,
    registries,
    settings,
)

CONFIGURATION = "/etc/supervisor/supervisord.conf"
CGROUPS = pathlib.Path("/sys/fs/cgroup")
# How long the last processes may take to end once they are killed.
END_SECONDS = 2.0

# What kubelet sets, and what it is on most hosts. These sysctls have no namespace: kubelet would
# change the host's. It writes only where the value differs, so it is shown these values.
# Source: pkg/kubelet/cm/container_manager_linux.go, setupKernelTunables.
HOST_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}

# Source: linux/mount.h
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC = 0x2, 0x4, 0x8, 0x1000, 0x4000
MS_PRIVATE, MS_SHARED = 0x40000, 0x100000
MNT_DETACH = 0x2
CLONE_NEWCGROUP = 0x02000000

_libc = ctypes.CDLL(None, use_errno=True)


def mount(
    source: str, target: pathlib.Path, *, kind: str = "", flags: int = 0, data: str = ""
) -> None:
    """Mount a file system; the arguments are those of the system call.

    Raises:
        P8sError: the kernel refused.
    """
    encoded = [value.encode() or None for value in (source, str(target), kind)]
    if _libc.mount(*encoded, ctypes.c_ulong(flags), data.encode() or None) != 0:
        number = ctypes.get_errno()
        raise errors.P8sError(
            f"cannot mount {source or kind or 'over'} at {target}: {os.strerror(number)}",
            hint="run the container with --privileged",
        )


def unmount(target: pathlib.Path) -> None:
    """Take a mount away, whoever uses it: the kernel puts no file system over itself.

    Raises:
        P8sError: the kernel refused.
    """
    if _libc.umount2(str(target).encode(), MNT_DETACH) != 0:
        number = ctypes.get_errno()
        raise errors.P8sError(
            f"cannot unmount {target}: {os.strerror(number)}",
            hint="run the container with --privileged",
        )


def prepare_mounts(places: paths.Paths) -> None:
    """Mount propagation, what must not outlive a restart, and kubelet's root directory."""
    # kubelet's volumes must show up in containers that ask for it (mountPropagation).
    mount("", places.root, flags=MS_SHARED | MS_REC)
    # A restarted container keeps its file system, but none of its processes and mounts.
    for name, mode in (("p8s", "0700"), ("containerd", "0711"), ("cni", "0700"), ("netns", "0755")):
        target = places.root / "run" / name
        target.mkdir(parents=True, exist_ok=True)
        mount(
            "tmpfs",
            target,
            kind="tmpfs",
            flags=MS_NOSUID | MS_NODEV | MS_NOEXEC,
            data=f"mode={mode}",
        )
    for directory in (places.kubelet_state, places.kubelet_root, places.logs):
        directory.mkdir(parents=True, exist_ok=True)
    mount(str(places.kubelet_state), places.kubelet_root, flags=MS_BIND | MS_REC)
    # A peer group of its own, or every volume would be mounted under both names.
    mount("", places.kubelet_root, flags=MS_PRIVATE)
    mount("", places.kubelet_root, flags=MS_SHARED)


def hide_host_sysctls(run: pathlib.Path) -> None:
    """Show kubelet the values that it wants, without setting them on the host."""
    for name, value in HOST_SYSCTLS.items():
        shown = run / "sysctls" / name.replace("/", ".")
        files.write(shown, value + "\n")
        target = pathlib.Path("/proc/sys") / name
        if target.exists():
            mount(str(shown), target, flags=MS_BIND)


def prepare_cgroups(version: int) -> None:
    """A cgroup namespace whose root is the container's own cgroup, with delegated controllers.

    With it /proc/self/cgroup and /sys/fs/cgroup agree, which kubelet, containerd and crun need,
    whatever --cgroupns the container was started with.
    """
    own = dict(
        line.split(":", 2)[1:]
        for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines()
    )
    # Docker's default on v1 hosts is the host's namespace: a path other than / shows it.
    if any(path != "/" for path in own.values()):
        if _libc.unshare(CLONE_NEWCGROUP) != 0:
            raise errors.P8sError(
                f"no cgroup namespace: {os.strerror(ctypes.get_errno())}",
                hint="run the container with --privileged on Linux 4.6 or later",
            )
        remount_cgroups(version)
    if version == 2:
        delegate_controllers()


def remount_cgroups(version: int) -> None:
    """Mount the cgroup hierarchies anew, as the new namespace sees them."""
    if version == 2:
        unmount(CGROUPS)
        mount("cgroup2", CGROUPS, kind="cgroup2", flags=MS_NOSUID | MS_NODEV | MS_NOEXEC)
        return
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, options = line.split()[:4]
        if kind == "cgroup":
            wanted = {"rw", "ro", "nosuid", "nodev", "noexec", "relatime"}
            data = ",".join(option for option in options.split(",") if option not in wanted)
            unmount(pathlib.Path(target))
            mount("cgroup", pathlib.Path(target), kind="cgroup", data=data)


def delegate_controllers() -> None:
    """cgroup v2: controllers can be given to children only by a cgroup without processes."""
    own = CGROUPS / "p8s"
    own.mkdir(exist_ok=True)
    for pid in (CGROUPS / "cgroup.procs").read_text().split():
        try:
            (own / "cgroup.procs").write_text(pid)
        except ProcessLookupError:
            continue  # it has ended meanwhile
    controllers = (CGROUPS / "cgroup.controllers").read_text().split()
    (CGROUPS / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))


def thaw_cgroups() -> None:
    """cgroup v1: let go what is frozen, or the container never ends: SIGKILL waits for a thaw there.

    A runtime that is ended while it deletes a container leaves it so.
    """
    for state in (CGROUPS / "freezer/kubepods").rglob("freezer.state"):
        if state.read_text().strip() == "THAWED":
            continue
        for pid in (state.parent / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        state.write_text("THAWED")


def end_processes() -> None:
    """End what is left of processes, and wait for it: they would keep their cgroups.

    A container that was in the making while the others were ended is one.
    """
    if os.getpid() == 1:  # else it would be all of the machine's
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
    thaw_cgroups()
    deadline = time.monotonic() + END_SECONDS
    with contextlib.suppress(ChildProcessError):  # none is left
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.005)


def remove_cgroups() -> None:
    """Remove what kubelet made, so that the engine finds its cgroup as it left it."""
    for top in (CGROUPS, *CGROUPS.glob("*")):
        for directory, _, _ in os.walk(top / "kubepods", topdown=False):
            try:
                pathlib.Path(directory).rmdir()
            except OSError as error:
                print(f"p8s: {directory} is left: {error.strerror}", flush=True)


def hide_arguments(secrets: collections.abc.Iterable[str]) -> None:
    """Blot secrets out of this process' arguments, which every user of the host can read.

    Source: proc_pid_stat(5), arg_start.
    """
    wanted = [secret.encode() for secret in secrets if secret]
    if not wanted:
        return
    numbers = pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, shown = int(numbers[45]), pathlib.Path("/proc/self/cmdline").read_bytes()
    for secret in wanted:
        at = shown.find(secret)
        while at >= 0:
            ctypes.memset(start + at, ord("*"), len(secret))
            at = shown.find(secret, at + 1)


class WakeUp:
    """Ends supervisord's wait at each signal, as a dispatcher in its loop.

    Its loop looks at signals, ended children among them, only after a wait of up to a second,
    which Python has resumed after signals since 3.5 (PEP 475).
    """

    def __init__(self) -> None:
        self.descriptor, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def readable(self) -> bool:
        """Always waited for."""
        return True

    def writable(self) -> bool:
        """Never."""
        return False

    def handle_read_event(self) -> None:
        """Forget the signals: the loop looks after them itself."""
        os.read(self.descriptor, 4096)

    def handle_error(self) -> None:
        """What supervisord calls where `handle_read_event` raises."""
        print("p8s: cannot read the wake-up pipe", flush=True)


def run_supervisord() -> int:
    """Be supervisord until the cluster has stopped, and give the container's exit code."""
    import supervisor.options
    import supervisor.states
    import supervisor.supervisord

    class Supervisor(supervisor.supervisord.Supervisor):  # type: ignore[misc]
        """supervisord that asks the sidecar to stop the cluster before it stops by itself."""

        asked: int = 0  # the sidecar's pid when it was asked

        def runforever(self) -> None:
            wake_up = WakeUp()
            self.options.get_socket_map()[wake_up.descriptor] = wake_up
            for group in self.process_groups.values():
                group.transition()  # start the sidecar now, not after the loop's first wait
            super().runforever()

        def handle_signal(self) -> None:
            sidecar = self.process_groups["sidecar"].processes["sidecar"]
            number = self.options.get_signal()
            if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                if sidecar.pid and not self.asked:
                    self.asked = sidecar.pid
                    os.kill(sidecar.pid, number)
                else:  # a second signal, or nobody to ask: stop by priority, at once
                    self.options.mood = supervisor.states.SupervisorStates.SHUTDOWN
            elif number:
                self.options._signal = number  # noqa: SLF001 — get_signal has taken it out
                super().handle_signal()
            if self.asked and sidecar.pid != self.asked:
                self.options.mood = supervisor.states.SupervisorStates.SHUTDOWN
            if sidecar.get_state() == supervisor.states.ProcessStates.FATAL:
                print("p8s: the sidecar does not stay up; stopping", flush=True)
                files.write_once(paths.Paths().exit_code, f"{errors.ExitCode.START_FAILED:d}")
                self.options.mood = supervisor.states.SupervisorStates.SHUTDOWN

    supervisor.supervisord.Supervisor = Supervisor
    supervisor.supervisord.main(["-c", CONFIGURATION])
    try:
        return int(paths.Paths().exit_code.read_text())
    except FileNotFoundError:
        return errors.ExitCode.STOPPED


def read(
    arguments: collections.abc.Sequence[str],
    environment: collections.abc.Mapping[str, str],
    places: paths.Paths,
) -> tuple[settings.Loaded, dict[str, typing.Any]]:
    """The settings, and the user's files for components; those for registries and add-ons are only checked.

    Raises:
        SettingsError: with all that is wrong in any.
    """
    wrong: list[str] = []
    loaded, given = None, {}
    try:
        loaded = settings.load(arguments, environment)
        wrong += registries.find_mistakes(loaded, places)
        wrong += add_on_names.find_mistakes(loaded, places)
    except errors.SettingsError as error:
        wrong += error.errors
    try:
        given = overrides.read_files(places.component_config)
    except errors.SettingsError as error:
        wrong += error.errors
    if loaded is None or wrong:
        raise errors.SettingsError(wrong)
    return loaded, given


def prepare(
    arguments: collections.abc.Sequence[str], environment: collections.abc.Mapping[str, str]
) -> None:
    """Everything before supervisord.

    Raises:
        P8sError: the settings are wrong, or the container is not privileged.
    """
    places = paths.Paths()
    loaded, given = read(arguments, environment, places)
    hide_arguments(
        loaded.texts[name]
        for name in settings.FIELDS
        if loaded.sources[name] == "flag" and loaded.is_secret(name)
    )
    facts = node.find_facts()
    if not facts.privileged:
        raise errors.P8sError(
            "the container is not privileged: kubelet and containerd cannot work in it",
            hint="docker run --privileged …",
        )
    prepare_cgroups(facts.cgroup_version)
    prepare_mounts(places)
    hide_host_sysctls(places.run)
    files.write(places.settings, loaded.to_json(), mode=0o600)
    files.write(places.given_files, json.dumps(given), mode=0o600)
    chosen = loaded.settings
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(chosen.http_address, chosen.http_address)
    files.write(places.http_address, f"{local} {chosen.http_port}")


def main() -> typing.NoReturn:
    """The image's entry point."""
    arguments = sys.argv[1:]
    if "--help" in arguments or "-h" in arguments:
        print(settings.help_text())
        sys.exit(0)
    # PID 1 has no default for it: a stop this early would be lost, until supervisord looks after it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(errors.ExitCode.STOPPED))
    try:
        prepare(arguments, os.environ)
    except errors.P8sError as error:
        print(f"p8s: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    # No other process is to have them: containerd is given them in its command, see `proxies`.
    for name in (*origins.PROXY_VARIABLES, "all_proxy"):
        os.environ.pop(name, None)
        os.environ.pop(name.upper(), None)
    code = run_supervisord()
    end_processes()
    remove_cgroups()
    sys.exit(code)


if __name__ == "__main__":
    main()
