"""Every path that p8s reads or writes in the node, from one root."""

from __future__ import annotations

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class Paths:
    """Where things live.

    State (`/var/lib/p8s`, a volume) survives a restart; `/run` is a tmpfs and does not;
    `/etc/kubernetes` is written anew at each start.

    Attributes:
        root: `/` in the node, a temporary directory in tests.
    """

    root: pathlib.Path = pathlib.Path("/")

    @property
    def state(self) -> pathlib.Path:
        """The state volume."""
        return self.root / "var/lib/p8s"

    @property
    def cluster_record(self) -> pathlib.Path:
        """The settings that the state was made with and that cannot change under it."""
        return self.state / "cluster.json"

    @property
    def etcd_mark(self) -> pathlib.Path:
        """What etcd is known to have held; see `etcd_mark`."""
        return self.state / "etcd-mark.json"

    @property
    def authorities(self) -> pathlib.Path:
        """CAs and the service account key: the part of the PKI that is kept."""
        return self.state / "pki"

    @property
    def api_names(self) -> pathlib.Path:
        """Names that kubeconfigs were asked for with: kube-apiserver's certificate keeps them."""
        return self.state / "api-names.json"

    @property
    def etcd_data(self) -> pathlib.Path:
        """etcd's data directory."""
        return self.state / "etcd"

    @property
    def loaded_images(self) -> pathlib.Path:
        """Which of the user's image archives are loaded; see `user_images`."""
        return self.state / "loaded-images.json"

    @property
    def add_on_record(self) -> pathlib.Path:
        """Which add-ons were switched by hand, and what was applied; see `add_on_record`."""
        return self.state / "add-ons.json"

    @property
    def containerd_root(self) -> pathlib.Path:
        """containerd's images, snapshots and metadata."""
        return self.state / "containerd"

    @property
    def kubelet_state(self) -> pathlib.Path:
        """What is bound at `kubelet_root`."""
        return self.state / "kubelet"

    @property
    def kubelet_root(self) -> pathlib.Path:
        """kubelet's root directory, where CSI drivers and tools expect it."""
        return self.root / "var/lib/kubelet"

    @property
    def kubernetes(self) -> pathlib.Path:
        """Component configuration and kubeconfigs."""
        return self.root / "etc/kubernetes"

    @property
    def pki(self) -> pathlib.Path:
        """Leaf certificates with their keys, and copies of the CA certificates."""
        return self.kubernetes / "pki"

    @property
    def static_pods(self) -> pathlib.Path:
        """kubelet's staticPodPath."""
        return self.kubernetes / "manifests"

    @property
    def kubelet_config(self) -> pathlib.Path:
        """KubeletConfiguration."""
        return self.kubernetes / "kubelet.yaml"

    @property
    def authentication(self) -> pathlib.Path:
        """Where kube-apiserver answers who shows no credentials."""
        return self.kubernetes / "authentication.yaml"

    @property
    def audit_policy(self) -> pathlib.Path:
        """What kube-apiserver's audit log holds."""
        return self.kubernetes / "audit-policy.yaml"

    @property
    def scheduler_config(self) -> pathlib.Path:
        """KubeSchedulerConfiguration, where the user has some of it."""
        return self.kubernetes / "scheduler.yaml"

    @property
    def component_config(self) -> pathlib.Path:
        """The user's own files for components; see `overrides.read_files`."""
        return self.root / "etc/p8s/config"

    @property
    def given_files(self) -> pathlib.Path:
        """What PID 1 read there."""
        return self.run / "component-config.json"

    @property
    def cni_config(self) -> pathlib.Path:
        """The one network configuration.

        Its directory is written into, never replaced: containerd's watcher does not follow a
        new directory.
        """
        return self.root / "etc/cni/net.d/10-p8s.conflist"

    @property
    def containerd_config(self) -> pathlib.Path:
        """containerd's configuration."""
        return self.root / "etc/containerd/config.toml"

    @property
    def registry_hosts(self) -> pathlib.Path:
        """Where containerd looks for REGISTRY/hosts.toml; see `registries`."""
        return self.root / "etc/containerd/certs.d"

    @property
    def kubelet_docker_config(self) -> pathlib.Path:
        """Where kubelet looks first for registries' passwords."""
        return self.kubelet_root / "config.json"

    @property
    def certificates(self) -> pathlib.Path:
        """The CAs that the node's programs trust, PEM."""
        return self.root / "etc/ssl/certs/ca-certificates.crt"

    @property
    def run(self) -> pathlib.Path:
        """p8s' own run directory (0700)."""
        return self.root / "run/p8s"

    @property
    def commands(self) -> pathlib.Path:
        """A shell script with one `exec` for each supervised component."""
        return self.run / "commands"

    @property
    def mirrors(self) -> pathlib.Path:
        """REGISTRY/hosts.toml for each mirror of the settings."""
        return self.run / "mirrors"

    @property
    def container_spec(self) -> pathlib.Path:
        """What every container's OCI spec begins with, where the settings want more than the usual."""
        return self.run / "container-spec.json"

    @property
    def supervisor_socket(self) -> pathlib.Path:
        """supervisord's XML-RPC socket."""
        return self.run / "supervisor.sock"

    @property
    def settings(self) -> pathlib.Path:
        """The settings in force, as PID 1 read them."""
        return self.run / "settings.json"

    @property
    def token(self) -> pathlib.Path:
        """The API token of this start."""
        return self.run / "token"

    @property
    def ready(self) -> pathlib.Path:
        """There as soon as the start is complete; Docker's health check waits for it."""
        return self.run / "ready"

    @property
    def new_volume(self) -> pathlib.Path:
        """There where this start found an empty state volume, until the container ends."""
        return self.run / "new-volume"

    @property
    def stopping(self) -> pathlib.Path:
        """There once the stop has begun; holds who asked for it."""
        return self.run / "stopping"

    @property
    def seen_processes(self) -> pathlib.Path:
        """The process ids that each supervised process has had: restarts are counted by them."""
        return self.run / "seen-processes.json"

    @property
    def http_address(self) -> pathlib.Path:
        """Address and port at which the node itself reaches the HTTP API: for the health check."""
        return self.run / "http-address"

    @property
    def exit_code(self) -> pathlib.Path:
        """The container's exit code, where it is not 0."""
        return self.run / "exit-code"

    @property
    def resolv_conf(self) -> pathlib.Path:
        """What pods with dnsPolicy Default (coredns among them) get as resolv.conf."""
        return self.run / "resolv.conf"

    @property
    def containerd_socket(self) -> pathlib.Path:
        """containerd's gRPC socket."""
        return self.root / "run/containerd/containerd.sock"

    @property
    def logs(self) -> pathlib.Path:
        """Logs of the supervised components, rotated by supervisord."""
        return self.root / "var/log/p8s"

    @property
    def audit_log(self) -> pathlib.Path:
        """kube-apiserver's audit log, rotated by itself; only there with the setting `audit`."""
        return self.logs / "audit.log"

    @property
    def pod_logs(self) -> pathlib.Path:
        """Where kubelet keeps containers' logs."""
        return self.root / "var/log/pods"

    @property
    def images(self) -> pathlib.Path:
        """Image archives that are imported at each start."""
        return self.root / "usr/share/p8s/images"

    @property
    def add_ons(self) -> pathlib.Path:
        """Manifests of add-ons that the image's build has brought: a directory for each."""
        return self.root / "usr/share/p8s/add-ons"

    @property
    def seed(self) -> pathlib.Path:
        """What a new cluster's etcd begins with, made when the image is built."""
        return self.root / "usr/share/p8s/seed.json"

    @property
    def versions(self) -> pathlib.Path:
        """The components' versions, written when the image is built."""
        return self.root / "usr/share/p8s/versions.json"
