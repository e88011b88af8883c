"""What a container uses, read from its cgroup on the host, so that reading costs it nothing."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import pathlib

from tests.cluster import nodes

ROOT = pathlib.Path("/sys/fs/cgroup")
PYTHON_MODULES = ("p8s_supervisor.init", "p8s_supervisor.sidecar")


@dataclasses.dataclass(frozen=True)
class Usage:
    """A container's cgroup directories: one for each on cgroup v2, the same twice."""

    memory: pathlib.Path
    cpu: pathlib.Path

    def working_set(self) -> int:
        """Memory in use less the inactive page cache, in bytes, as kubelet counts it."""
        statistics = dict(
            line.split() for line in (self.memory / "memory.stat").read_text().splitlines()
        )
        for usage, inactive in (
            ("memory.current", "inactive_file"),
            ("memory.usage_in_bytes", "total_inactive_file"),
        ):
            if (self.memory / usage).exists():
                return int((self.memory / usage).read_text()) - int(statistics[inactive])
        raise FileNotFoundError(f"no figure of memory in {self.memory}")

    def processes(self) -> list[int]:
        """The ids of all processes in it, as the host has them."""
        found: list[int] = []
        for directory, _, _ in os.walk(self.cpu):  # it leaves out what goes meanwhile
            with contextlib.suppress(OSError):
                text = pathlib.Path(directory, "cgroup.procs").read_text()
                found += map(int, text.split())
        return found

    def cpu_seconds(self) -> float:
        """CPU time used so far."""
        if (self.cpu / "cpuacct.usage").exists():
            return int((self.cpu / "cpuacct.usage").read_text()) / 1e9
        statistics = dict(line.split() for line in (self.cpu / "cpu.stat").read_text().splitlines())
        return int(statistics["usage_usec"]) / 1e6


def memory_by_component(usage: Usage) -> dict[str, float]:
    """Each component's share of memory (PSS) in MiB; a page that n processes share counts 1/n."""
    found: dict[str, float] = collections.defaultdict(float)
    for pid in usage.processes():
        process = pathlib.Path("/proc", str(pid))
        try:
            words = (process / "cmdline").read_text().split("\0")
            rollup = dict(
                line.split(":", 1)
                for line in (process / "smaps_rollup").read_text().splitlines()[1:]
            )
        except OSError:
            continue  # it has ended
        name = next((word for word in words if word in PYTHON_MODULES), pathlib.Path(words[0]).name)
        found[name] += int(rollup["Pss"].split()[0]) / 1024
    return {name: round(size, 1) for name, size in sorted(found.items(), key=lambda i: -i[1])}


def find(node: nodes.Node) -> Usage:
    """A running container's cgroup, in whatever hierarchy the host has."""
    container = node.inspect("{{.Id}}")
    directories = {}
    for line in pathlib.Path(f"/proc/{node.inspect('{{.State.Pid}}')}/cgroup").read_text().split():
        _, controllers, path = line.split(":", 2)
        # Its processes may lie in a child of the container's own cgroup.
        own = path[: path.index(container) + len(container)] if container in path else path
        own = own + ".scope" if f"docker-{container}.scope" in path else own
        for controller in controllers.split(","):
            directories[controller] = ROOT / controller / own.lstrip("/")
        if not controllers:
            directories[""] = ROOT / own.lstrip("/")
    unified = directories.get("")
    memory, cpu = directories.get("memory", unified), directories.get("cpuacct", unified)
    assert memory is not None, "the host has no memory controller"
    assert cpu is not None, "the host has no CPU accounting"
    return Usage(memory, cpu)
