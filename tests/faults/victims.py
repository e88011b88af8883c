"""Processes of a cluster as the host sees them: whom a test may kill."""

from __future__ import annotations

import dataclasses
import os
import signal

from p8s_supervisor import wait
from tests.cluster import nodes

# How each component's command begins, or what is in it.
COMPONENTS = {
    "etcd": "/usr/local/bin/etcd --name=",
    "containerd": "/usr/local/bin/containerd --config",
    "kubelet": "/usr/local/bin/kubelet --config",
    "kube-apiserver": "kube-apiserver --",
    "kube-controller-manager": "kube-controller-manager --",
    "kube-scheduler": "kube-scheduler --",
    "kube-proxy": "kube-proxy --",
    "coredns": "/usr/local/bin/coredns -conf",
    "sidecar": "/usr/bin/python3 -P -s -m p8s_supervisor.sidecar",
}


@dataclasses.dataclass(frozen=True)
class Process:
    """A process of a node, with the host's numbers."""

    pid: int
    parent: int
    command: str


def list_processes(node: nodes.Node) -> list[Process]:
    """All processes of a node but those that have ended."""
    lines = nodes.docker("top", node.name, "-eo", "pid,ppid,stat,args").splitlines()[1:]
    rows = [line.split(None, 3) for line in lines]
    return [
        Process(int(row[0]), int(row[1]), row[3].strip())
        for row in rows
        if len(row) == 4 and not row[2].startswith("Z")
    ]


def find(node: nodes.Node, command: str) -> list[Process]:
    """The processes whose command begins so."""
    return [found for found in list_processes(node) if found.command.startswith(command)]


def find_one(node: nodes.Node, command: str) -> Process:
    """The one process whose command begins so; waits for it."""
    found: list[Process] = []

    def look() -> str | None:
        found[:] = find(node, command)
        return None if len(found) == 1 else f"{len(found)} processes: {found}"

    wait.until(look, awaited=f"one process {command}", seconds=20, interval=0.1)
    return found[0]


def find_shim(node: nodes.Node, command: str) -> Process:
    """The containerd shim of the pod that has a process with this command."""
    parent = find_one(node, command).parent
    return next(found for found in list_processes(node) if found.pid == parent)


def kill(process: Process, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a process of a node."""
    assert process.pid > 1
    os.kill(process.pid, number)
