"""The configuration of containerd and of the pod network (CNI)."""

from __future__ import annotations

import json

from p8s_supervisor import components, proxies


def containerd_config(plan: components.Plan, *, snapshotter: str) -> str:
    """containerd's configuration, version 3 (containerd 2.x), as TOML."""
    restrict = "false" if plan.facts.can_raise_limits else "true"
    base = f'base_runtime_spec = "{plan.paths.container_spec}"' if proxies.for_pods(plan) else ""
    return f"""\
version = 3
root = "{plan.paths.containerd_root}"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.nri.v1.nri",
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
  address = "{plan.paths.containerd_socket}"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{snapshotter}"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "p8s.local/pause:1"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{plan.paths.registry_hosts}"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = {restrict}
  # Every pod shares the node's kernel and its lack of limits; so does the node with its host.
  tolerate_missing_hugetlb_controller = true
  # kubelet asks for statistics every ten seconds; collecting them each second costs as much as a shim.
  stats_collect_period = "10s"
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/opt/cni/bin"]
    conf_dir = "{plan.paths.cni_config.parent}"
    max_conf_num = 1
    # containerd sets the loopback up itself: no plugin is started for it.
    use_internal_loopback = true
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "crun"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.crun]
      runtime_type = "io.containerd.runc.v2"
      {base}
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.crun.options]
        BinaryName = "/usr/bin/crun"
        SystemdCgroup = false
"""


def cni_config(plan: components.Plan, *, port_map_backend: str) -> str:
    """The pod network: a routed veth for each pod (ptp), addresses by host-local, hostPorts.

    ptp, not bridge: service traffic between two pods of a node is routed, so that it passes
    kube-proxy's rules without the br_netfilter module.
    """
    pods = plan.settings.pod_cidr
    routes = ["0.0.0.0/0" if family == 4 else "::/0" for family in pods.families]
    config = {
        "cniVersion": "1.0.0",
        "name": "p8s",
        "plugins": [
            {
                "type": "ptp",
                # Masquerading is one rule of `network`, not one for each pod.
                "ipMasq": False,
                # A larger packet would be cut up, or lost where nobody tells its sender.
                "mtu": plan.facts.mtu,
                "ipam": {
                    "type": "host-local",
                    # On a tmpfs: after a restart no pod has its address any more.
                    "dataDir": "/run/cni/networks",
                    "ranges": [[{"subnet": str(one)}] for one in pods.networks],
                    "routes": [{"dst": everywhere} for everywhere in routes],
                },
            },
            {
                "type": "portmap",
                "capabilities": {"portMappings": True},
                "snat": True,
                "backend": port_map_backend,
            },
        ],
    }
    return json.dumps(config, indent=2) + "\n"
