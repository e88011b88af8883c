"""What a container uses, seen from the host; one command in it tells what only it knows."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
import typing

from p8s_supervisor import paths
from tests.bench import cgroups
from tests.cluster import nodes

MB = 1e6
# The components that are measured one by one; everything else in the container is of pods.
COMPONENTS = (
    "etcd",
    "containerd",
    "kubelet",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "coredns",
    "p8s_supervisor.init",
    "p8s_supervisor.sidecar",
)
# In the node: its network's and containerd's figures, and etcd's, which are JSON.
ASK = """
cat /proc/sys/net/netfilter/nf_conntrack_count
ls /sys/class/net | grep -c veth
ctr --namespace k8s.io containers ls --quiet 2>/dev/null | wc -l
ctr --namespace k8s.io snapshots ls 2>/dev/null | wc -l
nft --stateless list ruleset | wc -l
export ETCDCTL_ENDPOINTS=https://127.0.0.1:2379 ETCDCTL_CACERT={pki}/etcd-ca.crt \
  ETCDCTL_CERT={pki}/apiserver-etcd-client.crt ETCDCTL_KEY={pki}/apiserver-etcd-client.key
etcdctl get /registry/events --prefix --count-only --write-out=fields | sed -n 's/"Count" : //p'
etcdctl endpoint status --write-out=json
"""


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Looks at one running cluster.

    Attributes:
        node: the container.
        usage: its cgroups.
        pid: the host's process id of its first process.
        places: directories on the host: the volume, the container's own layer.
    """

    node: nodes.Node
    usage: cgroups.Usage
    pid: int
    places: dict[str, pathlib.Path]

    def look(self) -> dict[str, float]:
        """Every figure, now."""
        return {
            **self._memory(),
            **self._processes(),
            **{f"{name} (disk)": size_on_disk(place) / MB for name, place in self.places.items()},
            "cgroups": sum(1 for _ in os.walk(self.usage.memory)),
            "mounts": len(pathlib.Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()),
            **self._told_inside(),
        }

    def _memory(self) -> dict[str, float]:
        text = (self.usage.memory / "memory.stat").read_text()
        statistics = {name: int(value) for name, value in map(str.split, text.splitlines())}
        kernel = self.usage.memory / "memory.kmem.usage_in_bytes"
        return {
            "memory": statistics.get("total_rss", statistics.get("anon", 0)) / MB,
            "kernel memory": (
                int(kernel.read_text()) if kernel.exists() else statistics.get("kernel", 0)
            )
            / MB,
        }

    def _processes(self) -> dict[str, float]:
        """Memory, file descriptors and threads; those of pods, shims among them, in one sum."""
        found: dict[str, float] = collections.defaultdict(float)
        for pid in self.usage.processes():
            process = pathlib.Path("/proc", str(pid))
            try:
                words = (process / "cmdline").read_text().split("\0")
                status = dict(
                    line.split(":", 1) for line in (process / "status").read_text().splitlines()
                )
                descriptors = len(os.listdir(process / "fd"))  # noqa: PTH208 — counted, not read
            except OSError:
                continue  # it has ended
            name = component(words)
            if any(word.endswith("/p8s-healthcheck") for word in words):
                continue  # the engine's look, now and then
            if name is None:
                found["processes of pods"] += 1
                continue
            found[f"{name} (memory)"] += int(status.get("RssAnon", "0").split()[0]) * 1024 / MB
            found["file descriptors"] += descriptors
            found["threads"] += int(status["Threads"])
        return found

    def _told_inside(self) -> dict[str, float]:
        script = ASK.format(pki=paths.Paths().pki)
        *counts, status = self.node.execute("sh", "-c", script).splitlines()
        names = (
            "connections tracked",
            "veths",
            "containers",
            "snapshots",
            "packet rules",
            "events",
        )
        database = typing.cast("dict[str, int]", json.loads(status)[0]["Status"])
        return {
            **dict(zip(names, map(float, counts), strict=True)),
            "etcd (file)": database["dbSize"] / MB,
            "etcd (in use)": database["dbSizeInUse"] / MB,
        }


def component(words: list[str]) -> str | None:
    """Which of `COMPONENTS` a command line is; None: it belongs to a pod."""
    named = {pathlib.Path(words[0]).name, *words[1:6]}
    return next((name for name in COMPONENTS if name in named), None)


def size_on_disk(top: pathlib.Path) -> float:
    """Bytes that the files below a directory take, each counted once; what goes meanwhile is not."""
    seen: dict[int, int] = {}
    for directory, _, files in os.walk(top):
        for name in files:
            try:
                status = pathlib.Path(directory, name).lstat()
            except OSError:
                continue
            seen[status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


def find(node: nodes.Node) -> Sampler:
    """For a running cluster whose state is a volume."""
    template = '{{range .Mounts}}{{if eq .Destination "/var/lib/p8s"}}{{.Source}}{{end}}{{end}}'
    return Sampler(
        node,
        cgroups.find(node),
        int(node.inspect("{{.State.Pid}}")),
        {
            "volume": pathlib.Path(node.inspect(template)),
            "container": pathlib.Path(node.inspect("{{.GraphDriver.Data.UpperDir}}")),
        },
    )
