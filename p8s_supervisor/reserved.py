"""What p8s needs for itself of the components' flags and fields: users cannot give it.

Each is named with what is to be done instead.
"""

from __future__ import annotations

import fnmatch
import typing

Object = dict[str, typing.Any]

_KEYS = (
    "p8s makes keys and certificates itself; the setting extra_sans adds names to kube-apiserver's"
)
_PLACE = "p8s and the other components look for it there"
_SERVICES, _PODS = "use the setting service_cidr", "use the setting pod_cidr"
_KUBECONFIG = "p8s makes it"
_ADDRESS = "it is the container's own"
_ETCD_MEMBER = "etcd has one member"
_AUTHENTICATION = "write it into /etc/p8s/config/authentication.yaml"
_ETCD_PLACE = "etcd is in the state volume, the volume at /var/lib/p8s"
_SERVING = {"bind-address": _PLACE, "secure-port": _PLACE, "tls-*-file": _KEYS, "cert-dir": _KEYS}
_CLIENT = {
    "*kubeconfig": _KUBECONFIG,
    "master": _KUBECONFIG,
    "client-ca-file": _KEYS,
    "requestheader-*": _KEYS,
}

# Flags that p8s needs for itself (patterns), with what is to be done instead.
FLAGS: dict[str, dict[str, str]] = {
    "etcd": {
        "name": _ETCD_MEMBER,
        "initial-*": _ETCD_MEMBER,
        "discovery*": _ETCD_MEMBER,
        "force-new-cluster": _ETCD_MEMBER,
        "data-dir": _ETCD_PLACE,
        "wal-dir": _ETCD_PLACE,
        "listen-client-urls": _PLACE,
        "listen-peer-urls": _PLACE,
        "advertise-client-urls": _PLACE,
        "*cert-file": _KEYS,
        "*key-file": _KEYS,
        "*trusted-ca-file": _KEYS,
        "*client-cert-auth": _KEYS,
        "*auto-tls": _KEYS,
        "quota-backend-bytes": "use the setting etcd_quota",
        "unsafe-no-fsync": "use the setting etcd_fsync",
        "max-txn-ops": "p8s puts the first objects in one transaction",
        "config-file": "give its fields as flags",
        "log-outputs": "p8s shows its log: docker logs, GET /logs/etcd",
    },
    "kube-apiserver": _SERVING
    | _CLIENT
    | {
        "secure-port": "use the setting api_port",
        "advertise-address": _ADDRESS,
        "permit-port-sharing": _PLACE,
        "service-cluster-ip-range": _SERVICES,
        "allow-privileged": "kube-proxy is a privileged pod",
        "authentication-config": _AUTHENTICATION,
        "oidc-*": _AUTHENTICATION,
        "anonymous-auth": "kubelet's probes of kube-apiserver come without credentials, and are all "
        "that is answered without",
        "etcd-servers": _PLACE,
        "etcd-prefix": "p8s reads what etcd holds",
        "etcd-*file": _KEYS,
        "kubelet-certificate-authority": _KEYS,
        "kubelet-client-*": _KEYS,
        "proxy-client-*": _KEYS,
        "service-account-key-file": _KEYS,
        "service-account-signing-key-file": _KEYS,
        "audit-policy-file": "write it to /etc/p8s/config/audit-policy.yaml",
        "audit-log-path": "use the setting audit",
    },
    "kube-controller-manager": _SERVING
    | _CLIENT
    | {
        "cluster-cidr": _PODS,
        "node-cidr-mask-size*": _PODS,
        "allocate-node-cidrs": _PODS,
        "service-cluster-ip-range": _SERVICES,
        "root-ca-file": _KEYS,
        "cluster-signing-*file": _KEYS,
        "service-account-private-key-file": _KEYS,
    },
    "kube-scheduler": _SERVING
    | _CLIENT
    | {"config": "write it to /etc/p8s/config/kube-scheduler.yaml, or give its fields one by one"},
    "kubelet": {
        "config*": "write it to /etc/p8s/config/kubelet.yaml, or give its fields one by one",
        "*kubeconfig": _KUBECONFIG,
        "root-dir": "kubelet is in the state volume, the volume at /var/lib/p8s",
        "cert-dir": _KEYS,
        "hostname-override": "use the setting node_name",
        "node-ip": _ADDRESS,
        "cluster-domain": "use the setting cluster_domain",
        "pod-manifest-path": "p8s puts the control plane there; use /etc/p8s/manifests",
        "anonymous-auth": "p8s sets who may call kubelet",
        "authentication-*": "p8s sets who may call kubelet",
        "authorization-*": "p8s sets who may call kubelet",
    },
    # With a file of configuration it looks at next to none of its flags.
    "kube-proxy": dict.fromkeys(
        ("*-*", "config", "kubeconfig", "master"),
        "kube-proxy reads its configuration alone: give the field",
    ),
}
# The same for fields of configuration, from the top on, by the component or the file.
FIELDS: dict[str, dict[str, str]] = {
    "kubelet": {
        "staticPodPath": "p8s puts the control plane there; use /etc/p8s/manifests",
        "staticPodURL": "use /etc/p8s/manifests",
        "authentication": "p8s sets who may call kubelet",
        "authorization": "p8s sets who may call kubelet",
        "tlsCertFile": _KEYS,
        "tlsPrivateKeyFile": _KEYS,
        "rotateCertificates": _KEYS,
        "serverTLSBootstrap": _KEYS,
        "containerRuntimeEndpoint": _PLACE,
        "address": _PLACE,
        "port": _PLACE,
        "healthzPort": _PLACE,
        "healthzBindAddress": _PLACE,
        "enableServer": _PLACE,
        "registerNode": "the cluster has one node",
        "cgroupDriver": "containerd has the same",
        "cgroupsPerQOS": "kubelet ends without it where a pod is resized in place",
        "cgroupRoot": "the container has a cgroup of its own: docker run --memory, --cpus",
        "failCgroupV1": "kubelet has to run on hosts with cgroup v1 too",
        "podCIDR": _PODS,
        "clusterDomain": "use the setting cluster_domain",
        "crashLoopBackOff": "use the setting max_container_restart_period",
    },
    "kube-proxy": {
        "mode": "use the setting proxy_mode",
        "clusterCIDR": _PODS,
        "hostnameOverride": "use the setting node_name",
        "clientConnection.kubeconfig": _KUBECONFIG,
        "healthzBindAddress": _PLACE,
        "metricsBindAddress": _PLACE,
        "conntrack.maxPerCore": "the conntrack table belongs to the host",
        "conntrack.min": "the conntrack table belongs to the host",
    },
    "kube-scheduler": {"clientConnection.kubeconfig": _KUBECONFIG},
    "authentication": {
        "anonymous": "kubelet's probes of kube-apiserver come without credentials, and are all that "
        "is answered without"
    },
}
_ABSENT = object()


def find_flag(component: str, flag: str) -> str | None:
    """Why a flag may not be given; None where it may."""
    for pattern, reason in FLAGS[component].items():
        if fnmatch.fnmatchcase(flag, pattern):
            return f"it cannot be given: {reason}"
    # kubelet's flags are its fields' older names.
    words = flag.split("-")
    field = words[0] + "".join(word.title() for word in words[1:])
    found = FIELDS.get(component, {}).get(field)
    return None if found is None else f"it cannot be given: {found}"


def find_fields(name: str, config: Object) -> dict[str, str]:
    """The fields of a configuration that may not be given, with the reason for each."""
    found = {}
    for path, reason in FIELDS.get(name, {}).items():
        inner: typing.Any = config
        for part in path.split("."):
            inner = inner.get(part, _ABSENT) if isinstance(inner, dict) else _ABSENT
        if inner is not _ABSENT:
            found[path] = f"it cannot be given: {reason}"
    return found
