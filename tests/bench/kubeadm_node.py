"""PID 1 of the node that `kubeadm init` is measured in: the same node as ours, up to kubelet.

cgroups, mounts, packet rules, containerd and the pod network are prepared by p8s' own code, before
the clock starts. kubelet is started as kubeadm's systemd unit would be.

usage: kubeadm_node.py IMAGE_REPOSITORY
"""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import subprocess
import sys
import time
import typing

from p8s_supervisor import (
    bootstrap,
    commands,
    components,
    files,
    init,
    network,
    node,
    paths,
    probes,
    settings,
    setup,
    wait,
)

CONFIGURATION = pathlib.Path("/etc/kubeadm.yaml")
PREPARED = pathlib.Path("/run/p8s/prepared")
# kubeadm's own default, and what the documentation of most pod networks gives.
RANGES = ("--service-cidr=10.96.0.0/12", "--pod-cidr=10.244.0.0/16")
# What of our kubelet's configuration the container forces, not our choice of speed.
FORCED = (
    "cgroupDriver",
    "failCgroupV1",
    "failSwapOn",
    "resolvConf",
    "evictionHard",
    "featureGates",
    "oomScoreAdj",
)


def kubeadm_config(plan: components.Plan, *, repository: str, version: str) -> str:
    """kubeadm's defaults, but for what a container forces on it.

    Args:
        plan: see `components.Plan`.
        repository: what the names of the imported images begin with.
        version: of Kubernetes; not given, kubeadm would ask the network for the newest.
    """
    kubelet = components.kubelet_config(plan)
    documents: list[dict[str, typing.Any]] = [
        {
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "InitConfiguration",
            "nodeRegistration": {"criSocket": f"unix://{plan.paths.containerd_socket}"},
        },
        {
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "ClusterConfiguration",
            "kubernetesVersion": version,
            "imageRepository": repository,
            "networking": {"podSubnet": str(plan.settings.pod_cidr)},
            # Where the port is published.
            "apiServer": {"certSANs": ["127.0.0.1"]},
        },
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            **{name: kubelet[name] for name in FORCED if name in kubelet},
        },
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            # The conntrack table is the host's, and a container cannot write its size.
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        },
    ]
    return "---\n".join(json.dumps(document, indent=2) + "\n" for document in documents)


def prepare(plan: components.Plan, *, repository: str) -> None:
    """All that is there before kubeadm is called, containerd with its small images included."""
    init.prepare_cgroups(plan.facts.cgroup_version)
    init.prepare_mounts(plan.paths)
    init.hide_host_sysctls(plan.paths.run)
    resolv = network.set_up(plan, own_resolv_conf=pathlib.Path("/etc/resolv.conf"))
    files.write(plan.paths.resolv_conf, resolv)
    setup.write_runtime_configuration(plan)
    version = json.loads(plan.paths.versions.read_text())["kubernetes"]
    files.write(CONFIGURATION, kubeadm_config(plan, repository=repository, version=version))
    start("containerd", components.containerd(plan))
    wait.until(
        lambda: probes.unix_socket(str(plan.paths.containerd_socket)),
        awaited="containerd's socket",
        seconds=60,
    )
    bootstrap.import_images(plan.paths)


def import_components(archive: typing.IO[bytes], *, name: str) -> None:
    """Import the image of all components, under each of the names that kubeadm looks for.

    Args:
        archive: what `docker save` gives.
        name: the image's own name in it.
    """
    ctr = ("ctr", "--namespace=k8s.io", "images")
    subprocess.run([*ctr, "import", "-"], stdin=archive, check=True, stdout=subprocess.DEVNULL)
    wanted = commands.run(["kubeadm", "config", "images", "list", f"--config={CONFIGURATION}"])
    for alias in wanted.split():
        commands.run([*ctr, "tag", name, alias])


def start(name: str, command: list[str]) -> int:
    """Start a process with a log of its own and give its pid."""
    with (paths.Paths().logs / f"{name}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log).pid


def kubelet_command() -> list[str]:
    """What kubeadm's drop-in for the systemd unit runs (kubeadm package, 10-kubeadm.conf)."""
    flags = pathlib.Path("/var/lib/kubelet/kubeadm-flags.env")
    text = flags.read_text().strip().removeprefix("KUBELET_KUBEADM_ARGS=") if flags.exists() else ""
    return [
        f"{components.BIN}/kubelet",
        "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf",
        "--kubeconfig=/etc/kubernetes/kubelet.conf",
        "--config=/var/lib/kubelet/config.yaml",
        *(word for words in shlex.split(text) for word in shlex.split(words)),
    ]


def run_kubelet() -> typing.NoReturn:
    """kubelet from the moment that kubeadm would start its unit; reaps what else ends."""
    needed = [
        pathlib.Path("/var/lib/kubelet/config.yaml"),
        pathlib.Path("/etc/kubernetes/kubelet.conf"),
    ]
    while not all(file.exists() and file.stat().st_size for file in needed):
        time.sleep(0.01)
    while True:
        kubelet = start("kubelet", kubelet_command())
        while os.wait()[0] != kubelet:
            pass
        time.sleep(1)


def main() -> None:
    """The container's entry point; `import NAME` takes an archive on standard input."""
    if sys.argv[1] == "import":
        import_components(sys.stdin.buffer, name=sys.argv[2])
        return
    loaded = settings.load(RANGES, {})
    plan = components.Plan(loaded.settings, node.find_facts(), paths.Paths())
    prepare(plan, repository=sys.argv[1])
    files.write(PREPARED, "")
    run_kubelet()


if __name__ == "__main__":
    main()
