"""Every component's flags and configuration, option and value side by side.

Pure: from settings, facts and paths to text. A flag is one line here.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import shlex
import typing
import urllib.parse

from p8s_supervisor import audit, node, overrides, parsers, paths, pki, settings

BIN = "/usr/local/bin"
ETCD_URL = "https://127.0.0.1:2379"
ETCD_PEER_URL = "https://127.0.0.1:2380"

# client-go's default of 20 requests a second makes kube-controller-manager wait 4.5 s for the
# service accounts of its own controllers; the only apiserver it can overload is its own.
CLIENT_LIMITS = ("--kube-api-qps=2000", "--kube-api-burst=2000")

# Of TLS 1.2, for the clients that have no 1.3: those with forward secrecy and authenticated
# encryption that the cluster's EC certificates can be used with.
TLS_CIPHERS = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the components' configuration is made from; `files` are of `overrides.read_files`."""

    settings: settings.Settings
    facts: node.Facts
    paths: paths.Paths
    files: collections.abc.Mapping[str, typing.Any] = dataclasses.field(default_factory=dict)

    @property
    def given(self) -> tuple[overrides.Entry, ...]:
        """The flags and fields that the user gives."""
        return overrides.with_gates(self.settings.extra_config, self.settings.feature_gates)

    @property
    def audit(self) -> str:
        """The setting `audit`; with a policy of the user's there is a log in any case."""
        own = overrides.AUDIT_POLICY in self.files
        return overrides.AUDIT_POLICY if own else self.settings.audit

    @property
    def node_addresses(self) -> tuple[str, ...]:
        """The node's address in each of the cluster's families; the first is what it is called by."""
        own = {4: self.facts.address, 6: self.facts.ipv6_address}
        found = (own[family] for family in self.settings.pod_cidr.families)
        # Where it has none of IPv6 the start is refused, see `network.check_ranges`.
        return tuple(filter(None, found)) or (self.facts.address,)

    def configures(self, component: str) -> bool:
        """Whether the user gives anything of a component's configuration."""
        fields = (entry.is_field for entry in self.given if entry.component == component)
        return f"{component}.yaml" in self.files or any(fields)


Maker = collections.abc.Callable[[Plan], list[str]]


def _open_to_users(make: Maker) -> Maker:
    """A component's command with the user's flags in place of those here."""

    @functools.wraps(make)
    def made(plan: Plan) -> list[str]:
        return overrides.merge_flags(make(plan), plan.given)

    return made


def leaves(plan: Plan, names: tuple[str, ...] = ()) -> list[pki.Leaf]:
    """The certificates that the components need, at each start anew.

    Args:
        plan: settings and facts.
        names: more names for kube-apiserver's certificate, see `users.kubeconfig_for`.
    """
    node_name, addresses = plan.settings.node_name, plan.node_addresses
    domain = plan.settings.cluster_domain
    server = urllib.parse.urlsplit(plan.settings.host_server).hostname or ""
    api_names = (
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{domain}",
        "localhost",
        node_name,
        "127.0.0.1",
        *addresses,
        plan.settings.kubernetes_service_ip,
        plan.settings.pod_gateway,
        server,
        *plan.settings.extra_sans,
        *names,
    )
    local = ("localhost", "127.0.0.1")
    cluster, etcd, proxy = pki.CLUSTER, pki.ETCD, pki.FRONT_PROXY
    return [
        pki.Leaf(
            name="apiserver",
            authority=cluster,
            common_name="kube-apiserver",
            sans=api_names,
            client=False,
        ),
        pki.Leaf(
            name="apiserver-kubelet-client",
            authority=cluster,
            common_name="kube-apiserver-kubelet-client",
        ),
        pki.Leaf(name="front-proxy-client", authority=proxy, common_name="front-proxy-client"),
        pki.Leaf(name="etcd-server", authority=etcd, common_name="etcd", sans=(*local, node_name)),
        pki.Leaf(name="apiserver-etcd-client", authority=etcd, common_name="kube-apiserver"),
        pki.Leaf(
            name="kubelet",
            authority=cluster,
            common_name=f"system:node:{node_name}",
            organization="system:nodes",
            sans=(node_name, *addresses, *local),
            client=False,
        ),
        pki.Leaf(
            name="kubelet-client",
            authority=cluster,
            common_name=f"system:node:{node_name}",
            organization="system:nodes",
        ),
        # Own serving certificates: without one, controller-manager and scheduler make an RSA key
        # each while they start.
        pki.Leaf(
            name="controller-manager",
            authority=cluster,
            common_name="system:kube-controller-manager",
            sans=local,
        ),
        # In a directory of its own, which its pod mounts: of a mounted file a renewal is not seen.
        pki.Leaf(
            name="scheduler",
            folder="scheduler",
            authority=cluster,
            common_name="system:kube-scheduler",
            sans=local,
        ),
        pki.Leaf(
            name="admin",
            authority=cluster,
            common_name="kubernetes-admin",
            organization="system:masters",
        ),
        pki.Leaf(
            name="p8s", authority=cluster, common_name="p8s-sidecar", organization="system:masters"
        ),
    ]


# The leaves that have a kubeconfig, with its file's name. The administrator's is inline; the
# others name files, which client-go reads again.
KUBECONFIGS = {
    "kubelet-client": "kubelet.conf",
    "controller-manager": "controller-manager.conf",
    "scheduler": "scheduler.conf",
    "admin": "admin.conf",
}


@_open_to_users
def etcd(plan: Plan) -> list[str]:
    """etcd: one member, mutual TLS, on loopback."""
    crypto = plan.paths.pki
    return [
        f"{BIN}/etcd",
        "--name=p8s",
        f"--data-dir={plan.paths.etcd_data}",
        f"--listen-client-urls={ETCD_URL}",
        f"--advertise-client-urls={ETCD_URL}",
        f"--cert-file={crypto}/etcd-server.crt",
        f"--key-file={crypto}/etcd-server.key",
        f"--trusted-ca-file={crypto}/etcd-ca.crt",
        "--client-cert-auth=true",
        f"--listen-peer-urls={ETCD_PEER_URL}",
        f"--initial-advertise-peer-urls={ETCD_PEER_URL}",
        f"--initial-cluster=p8s={ETCD_PEER_URL}",
        f"--peer-cert-file={crypto}/etcd-server.crt",
        f"--peer-key-file={crypto}/etcd-server.key",
        f"--peer-trusted-ca-file={crypto}/etcd-ca.crt",
        "--peer-client-cert-auth=true",
        # The seed is put in one transaction: all of it or nothing.
        "--max-txn-ops=5000",
        f"--quota-backend-bytes={plan.settings.etcd_quota}",
        # A cluster of one has nobody to wait for: the election timeout is only a delay at start.
        "--heartbeat-interval=100",
        "--election-timeout=500",
        "--log-level=info",
        *(["--unsafe-no-fsync"] if plan.settings.etcd_fsync == "never" else []),
    ]


def containerd(plan: Plan) -> list[str]:
    """containerd, with the configuration of `containerd_config`."""
    return [f"{BIN}/containerd", f"--config={plan.paths.containerd_config}"]


@_open_to_users
def kubelet(plan: Plan) -> list[str]:
    """kubelet, with the configuration of `kubelet_config`."""
    return [
        f"{BIN}/kubelet",
        f"--config={plan.paths.kubelet_config}",
        f"--kubeconfig={plan.paths.kubernetes}/kubelet.conf",
        f"--root-dir={plan.paths.kubelet_root}",
        f"--hostname-override={plan.settings.node_name}",
        f"--node-ip={','.join(plan.node_addresses)}",
        f"--v={plan.settings.verbosity}",
    ]


@_open_to_users
def kube_apiserver(plan: Plan) -> list[str]:
    """kube-apiserver."""
    crypto, kept, chosen = plan.paths.pki, plan.paths.authorities, plan.settings
    return [
        "kube-apiserver",
        f"--advertise-address={plan.node_addresses[0]}",
        f"--secure-port={chosen.api_port}",
        # The sidecar holds the port until then, see `ports`.
        "--permit-port-sharing=true",
        f"--service-cluster-ip-range={chosen.service_cidr}",
        "--allow-privileged=true",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--enable-bootstrap-token-auth=true",
        "--profiling=false",
        f"--authentication-config={plan.paths.authentication}",
        f"--client-ca-file={crypto}/ca.crt",
        f"--tls-cert-file={crypto}/apiserver.crt",
        f"--tls-private-key-file={crypto}/apiserver.key",
        f"--tls-cipher-suites={','.join(TLS_CIPHERS)}",
        f"--etcd-servers={ETCD_URL}",
        f"--etcd-cafile={crypto}/etcd-ca.crt",
        f"--etcd-certfile={crypto}/apiserver-etcd-client.crt",
        f"--etcd-keyfile={crypto}/apiserver-etcd-client.key",
        f"--kubelet-certificate-authority={crypto}/ca.crt",
        f"--kubelet-client-certificate={crypto}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={crypto}/apiserver-kubelet-client.key",
        # There is one. The default keeps the address of one that was killed for 15 s more, and sends
        # every other client of the service `kubernetes` there.
        "--endpoint-reconciler-type=master-count",
        # Asked of etcd for each of 80 resources; after three minutes the apiserver trusts a count no more.
        "--etcd-count-metric-poll-period=2m",
        "--kubelet-preferred-address-types=InternalIP,Hostname",
        f"--proxy-client-cert-file={crypto}/front-proxy-client.crt",
        f"--proxy-client-key-file={crypto}/front-proxy-client.key",
        f"--requestheader-client-ca-file={crypto}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--service-account-issuer=https://kubernetes.default.svc.{chosen.cluster_domain}",
        f"--service-account-key-file={kept}/sa.pub",
        f"--service-account-signing-key-file={kept}/sa.key",
        *audit.flags(plan.audit, policy=plan.paths.audit_policy, log=plan.paths.audit_log),
        f"--v={chosen.verbosity}",
    ]


@_open_to_users
def kube_controller_manager(plan: Plan) -> list[str]:
    """kube-controller-manager."""
    crypto, kept, chosen = plan.paths.pki, plan.paths.authorities, plan.settings
    own = f"{plan.paths.kubernetes}/controller-manager.conf"
    return [
        "kube-controller-manager",
        f"--kubeconfig={own}",
        f"--authentication-kubeconfig={own}",
        f"--authorization-kubeconfig={own}",
        "--bind-address=127.0.0.1",
        f"--tls-cert-file={crypto}/controller-manager.crt",
        f"--tls-private-key-file={crypto}/controller-manager.key",
        "--leader-elect=false",
        *CLIENT_LIMITS,
        "--controllers=*,bootstrapsigner,tokencleaner",
        "--use-service-account-credentials=true",
        # Of pods that have ended and that nobody removes; Kubernetes' 12500 are for many nodes.
        "--terminated-pod-gc-threshold=1000",
        "--allocate-node-cidrs=true",
        f"--cluster-cidr={chosen.pod_cidr}",
        *node_cidr_sizes(chosen.pod_cidr),
        f"--service-cluster-ip-range={chosen.service_cidr}",
        "--cluster-name=p8s",
        f"--client-ca-file={crypto}/ca.crt",
        f"--root-ca-file={crypto}/ca.crt",
        f"--requestheader-client-ca-file={crypto}/front-proxy-ca.crt",
        f"--cluster-signing-cert-file={kept}/ca.crt",
        f"--cluster-signing-key-file={kept}/ca.key",
        f"--service-account-private-key-file={kept}/sa.key",
        "--profiling=false",
        f"--v={chosen.verbosity}",
    ]


def node_cidr_sizes(pods: parsers.Ranges) -> list[str]:
    """kube-controller-manager's flags for the one node, which gets the whole range."""
    if len(pods.networks) == 1:
        return [f"--node-cidr-mask-size={pods.networks[0].prefixlen}"]
    return [f"--node-cidr-mask-size-ipv{one.version}={one.prefixlen}" for one in pods.networks]


@_open_to_users
def kube_scheduler(plan: Plan) -> list[str]:
    """kube-scheduler; with a file of configuration it looks at none of the flags that are in it."""
    own = f"{plan.paths.kubernetes}/scheduler.conf"
    flags = [f"--kubeconfig={own}", *CLIENT_LIMITS, "--profiling=false", "--leader-elect=false"]
    if plan.configures("kube-scheduler"):
        flags = [f"--config={plan.paths.scheduler_config}"]
    return [
        "kube-scheduler",
        *flags,
        f"--authentication-kubeconfig={own}",
        f"--authorization-kubeconfig={own}",
        "--bind-address=127.0.0.1",
        f"--tls-cert-file={plan.paths.pki}/scheduler/scheduler.crt",
        f"--tls-private-key-file={plan.paths.pki}/scheduler/scheduler.key",
        f"--v={plan.settings.verbosity}",
    ]


def kubelet_config(plan: Plan) -> dict[str, typing.Any]:
    """KubeletConfiguration (kubelet.config.k8s.io/v1beta1)."""
    crypto = plan.paths.pki
    config: dict[str, typing.Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "staticPodPath": str(plan.paths.static_pods),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{crypto}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{crypto}/kubelet.crt",
        "tlsPrivateKeyFile": f"{crypto}/kubelet.key",
        "tlsCipherSuites": list(TLS_CIPHERS),
        "readOnlyPort": 0,
        # Threads too. A pod that forks without end stops before the host has no process id left,
        # which on a small one is at 32768.
        "podPidsLimit": 16384,
        "containerRuntimeEndpoint": f"unix://{plan.paths.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": True,
        # cgroup v1 is out of support upstream, but many a CI host still has it.
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [plan.settings.dns_service_ip],
        "clusterDomain": plan.settings.cluster_domain,
        "resolvConf": str(plan.paths.resolv_conf),
        "registerNode": True,
        "serializeImagePulls": False,
        "kubeAPIQPS": 500,
        "kubeAPIBurst": 1000,
        "eventRecordQPS": 50,
        "eventBurst": 100,
        "containerLogMaxSize": "10Mi",
        "containerLogMaxFiles": 3,
        # A developer's disk is often nearly full; kubelet's default of 15 % would evict there. For
        # bytes see `limits.eviction_room`.
        "evictionHard": {"memory.available": "100Mi", "nodefs.inodesFree": "2%"},
        # For so long the node takes no pod after there is room again; 5 min are for a node of many.
        "evictionPressureTransitionPeriod": "30s",
        # The first wait is 10 s and the longest 5 min otherwise, also for the control plane's pods.
        "crashLoopBackOff": {
            "maxContainerRestartPeriod": f"{plan.settings.max_container_restart_period:g}s"
        },
        # Images go where room is short, see above, and not before: on a full disk one that was
        # loaded would be gone within minutes, and no registry has it.
        "imageGCHighThresholdPercent": 100,
    }
    if not plan.facts.can_raise_limits:
        # Without CAP_SYS_RESOURCE kubelet cannot write oom_score_adj or raise rlimits; this gate
        # makes it log that instead of ending.
        config["featureGates"] = {"KubeletInUserNamespace": True}
        # kubelet's default of -999 is refused too, and tried again for 0.2 s.
        config["oomScoreAdj"] = 0
    return config


def command_script(command: list[str], environment: dict[str, str] | None = None) -> str:
    """A shell script that becomes the command; a person can read it and run it."""
    given = (environment or {}).items()
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in given)
    return exports + "exec " + " \\\n  ".join(shlex.quote(word) for word in command) + "\n"
