"""Those checks of CIS' benchmark that are more than a flag or a file; see cis."""

from __future__ import annotations

import collections.abc
import typing

from tests.cluster import cis

MASTERS = "system:masters"
TOKEN_PODS = {"kube-proxy", "coredns", "provisioner"}
PROXY_PATH = "kubeconfig.conf"
# CNI plugins that enforce no NetworkPolicy.
PLAIN_PLUGINS = {"bridge", "host-local", "loopback", "portmap", "ptp"}
STRONG_CIPHERS = {
    f"TLS_ECDHE_{key}_WITH_{cipher}"
    for key in ("ECDSA", "RSA")
    for cipher in ("AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256")
}

Check = collections.abc.Callable[[cis.Facts], object]


def containers(facts: cis.Facts) -> list[cis.Object]:
    """All containers of the pods, and of nothing: pods without any would pass everything."""
    found = [
        container
        for pod in facts.of_kind("Pod")
        for container in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]
    ]
    assert found, "there are no pods to look at"
    return found


def context(container: cis.Object) -> cis.Object:
    """A container's own security context."""
    return typing.cast("cis.Object", container.get("securityContext", {}))


def specs(facts: cis.Facts) -> list[cis.Object]:
    """The pods' specs."""
    found = [pod["spec"] for pod in facts.of_kind("Pod")]
    assert found, "there are no pods to look at"
    return found


def volumes(spec: cis.Object, kind: str) -> list[cis.Object]:
    """A pod's volumes of a kind."""
    return [volume for volume in spec.get("volumes", []) if kind in volume]


def capabilities(container: cis.Object, which: str) -> set[str]:
    """What a container adds or drops."""
    return set(context(container).get("capabilities", {}).get(which, []))


def is_strong(ciphers: str | None) -> bool:
    """Whether cipher suites are chosen, and are strong."""
    return ciphers is not None and set(ciphers.split(",")) <= STRONG_CIPHERS


def is_filtered(spec: cis.Object) -> bool:
    """Whether the system calls of each of a pod's containers are filtered."""
    profile = spec.get("securityContext", {}).get("seccompProfile", {}).get("type")
    return all(
        context(container).get("seccompProfile", {}).get("type", profile) == "RuntimeDefault"
        for container in spec["containers"]
    )


def mounts_token(spec: cis.Object) -> bool:
    """Whether a service account's token is mounted in a pod."""
    return any(
        "serviceAccountToken" in source
        for volume in volumes(spec, "projected")
        for source in volume["projected"]["sources"]
    )


def names_secret(container: cis.Object) -> bool:
    """Whether a Secret is in a container's environment."""
    return any("secretRef" in source for source in container.get("envFrom", [])) or any(
        "secretKeyRef" in variable.get("valueFrom", {}) for variable in container.get("env", [])
    )


def namespaces_with(facts: cis.Facts, kind: str) -> set[str]:
    """The namespaces that have an object of a kind."""
    return {found["metadata"]["namespace"] for found in facts.of_kind(kind)}


def proxy_config(facts: cis.Facts) -> str:
    """kube-proxy's configuration, YAML."""
    (found,) = (
        found for found in facts.of_kind("ConfigMap") if found["metadata"]["name"] == "kube-proxy"
    )
    return str(found["data"]["config.conf"])


# --- RBAC


def is_bootstrapped(found: cis.Object) -> bool:
    """Whether an object of RBAC is one that kube-apiserver makes in every cluster."""
    labels = found["metadata"].get("labels", {})
    return bool(labels.get("kubernetes.io/bootstrapping") == "rbac-defaults")


def may(facts: cis.Facts, who: str, verbs: str, resources: str) -> bool:
    """Whether p8s' own role bindings allow nobody but `who` any of the verbs on the resources."""
    roles = {
        (found["kind"], found["metadata"].get("namespace", ""), found["metadata"]["name"]): found
        for found in facts.of_kind("Role", "ClusterRole")
    }
    bindings = [
        found
        for found in facts.of_kind("RoleBinding", "ClusterRoleBinding")
        if not is_bootstrapped(found)
    ]
    assert bindings, "p8s has role bindings of its own"
    allowed = set()
    for binding in bindings:
        reference = binding["roleRef"]
        namespace = binding["metadata"].get("namespace", "")
        place = namespace if reference["kind"] == "Role" else ""
        role = roles[reference["kind"], place, reference["name"]]
        if any(
            grants(rule, verb, resource)
            for rule in role.get("rules") or []
            for verb in verbs.split(",")
            for resource in resources.split(",")
        ):
            allowed |= {subject["name"] for subject in binding.get("subjects", [])}
    return allowed == ({who} if who != "none" else set())


def grants(rule: cis.Object, verb: str, resource: str) -> bool:
    """Whether a rule allows a verb on a resource, of whatever group."""
    named = set(rule.get("resources", []))
    wild = {"*", "*/" + resource.partition("/")[2]} if "/" in resource else {"*"}
    return bool({verb, "*"} & set(rule["verbs"]) and ({resource} | wild) & named)


def has_wildcard(role: cis.Object) -> bool:
    """Whether a role has a wildcard in a rule."""
    return any(
        "*" in rule.get(key, [])
        for rule in role.get("rules") or []
        for key in ("apiGroups", "resources", "verbs")
    )


# --- the checks


def no_more_cluster_admins(facts: cis.Facts) -> bool:
    """Only Kubernetes' own binding names cluster-admin."""
    bound = [
        found["metadata"]["name"]
        for found in facts.of_kind("RoleBinding", "ClusterRoleBinding")
        if found["roleRef"]["name"] == "cluster-admin"
    ]
    return bound == ["cluster-admin"]


def tokens_where_needed(facts: cis.Facts) -> bool:
    """Tokens are mounted in the pods that talk to kube-apiserver with one."""
    tokened = [spec for spec in specs(facts) if mounts_token(spec)]
    return {spec["containers"][0]["name"] for spec in tokened} == TOKEN_PODS


def no_tokens_for_users(facts: cis.Facts) -> bool:
    """There is no service account of a user, nor a Secret with a token that does not end."""
    kinds = [found.get("type") for found in facts.of_kind("Secret")]
    return "kubernetes.io/service-account-token" not in kinds and "p8s-users" not in (
        namespaces_with(facts, "ServiceAccount")
    )


def default_is_empty(facts: cis.Facts) -> bool:
    """The namespace default has nothing but the service that every cluster has."""
    return not any(
        found["metadata"].get("namespace") == "default" and found["metadata"]["name"] != name
        for kind, name in (("Pod", ""), ("Secret", ""), ("Service", "kubernetes"))
        for found in facts.of_kind(kind)
    )


CHECKS: dict[str, Check] = {
    "strong_ciphers_apiserver": lambda facts: is_strong(
        facts.flag("kube-apiserver", "--tls-cipher-suites")
    ),
    "strong_ciphers_kubelet": lambda facts: is_strong(
        cis.read_key(facts.kubelet, "tlsCipherSuites")
    ),
    "etcd_has_its_own_ca": lambda facts: (
        facts.flag("etcd", "--trusted-ca-file") == "/etc/kubernetes/pki/etcd-ca.crt"
        and facts.node["authorities"]["ca"] != facts.node["authorities"]["etcd-ca"]
    ),
    "administrator_has_no_certificate": lambda facts: (
        not any(
            "client-certificate-data" in user["user"] for user in facts.node["admin_conf"]["users"]
        )
    ),
    "administrator_is_no_master": lambda facts: MASTERS not in facts.node["admin_subject"],
    "no_tokens_for_users": no_tokens_for_users,
    "no_bootstrap_tokens": lambda facts: (
        "bootstrap.kubernetes.io/token"
        not in {found.get("type") for found in facts.of_kind("Secret")}
    ),
    "proxy_metrics_on_loopback": lambda facts: (
        "metricsBindAddress: 127.0.0.1:10249\n" in proxy_config(facts)
    ),
    "no_more_cluster_admins": no_more_cluster_admins,
    "no_wildcards": lambda facts: (
        not any(
            has_wildcard(role)
            for role in facts.of_kind("Role", "ClusterRole")
            if not is_bootstrapped(role)
        )
    ),
    "default_accounts_give_no_token": lambda facts: all(
        found.get("automountServiceAccountToken") is False
        for found in facts.of_kind("ServiceAccount")
        if found["metadata"]["name"] == "default"
    ),
    "tokens_where_needed": tokens_where_needed,
    "namespaces_have_a_policy": lambda facts: all(
        "pod-security.kubernetes.io/enforce" in found["metadata"].get("labels", {})
        for found in facts.of_kind("Namespace")
    ),
    "pods_unprivileged": lambda facts: (
        not any(context(container).get("privileged") for container in containers(facts))
    ),
    "pods_without_host_pid": lambda facts: not any(spec.get("hostPID") for spec in specs(facts)),
    "pods_without_host_ipc": lambda facts: not any(spec.get("hostIPC") for spec in specs(facts)),
    "pods_without_host_network": lambda facts: (
        not any(spec.get("hostNetwork") for spec in specs(facts))
    ),
    "pods_gain_no_rights": lambda facts: (
        not any(
            context(container).get("allowPrivilegeEscalation") for container in containers(facts)
        )
    ),
    "pods_without_root": lambda facts: all(
        context(container).get("runAsNonRoot") for container in containers(facts)
    ),
    "pods_without_raw_network": lambda facts: all(
        capabilities(container, "drop") & {"ALL", "NET_RAW"} for container in containers(facts)
    ),
    "pods_without_capabilities": lambda facts: all(
        capabilities(container, "drop") == {"ALL"} and not capabilities(container, "add")
        for container in containers(facts)
    ),
    "pods_without_windows": lambda facts: (
        not any(
            "windowsOptions" in holder.get("securityContext", {})
            for holder in specs(facts) + containers(facts)
        )
    ),
    "pods_without_host_path": lambda facts: (
        not any(volumes(spec, "hostPath") for spec in specs(facts))
    ),
    "pods_without_host_ports": lambda facts: (
        not any(
            "hostPort" in port
            for spec in specs(facts)
            if not spec.get("hostNetwork")
            for container in spec["containers"]
            for port in container.get("ports", [])
        )
    ),
    "network_enforces_policies": lambda facts: (
        not (
            {plugin["type"] for config in facts.node["cni"] for plugin in config["plugins"]}
            <= PLAIN_PLUGINS
        )
    ),
    "namespaces_have_network_policies": lambda facts: (
        {found["metadata"]["name"] for found in facts.of_kind("Namespace")}
        <= namespaces_with(facts, "NetworkPolicy")
    ),
    "pods_without_secret_variables": lambda facts: (
        not any(names_secret(container) for container in containers(facts))
    ),
    "secrets_kept_outside": lambda facts: any(
        "secrets-store" in found["metadata"]["name"] for found in facts.of_kind("CSIDriver")
    ),
    "pods_in_own_namespaces": lambda facts: (
        namespaces_with(facts, "Pod") == {"kube-system", "p8s-storage"}
    ),
    "pods_with_seccomp": lambda facts: all(is_filtered(spec) for spec in specs(facts)),
    "pods_with_security_context": lambda facts: all(
        context(container) for container in containers(facts)
    ),
    "default_is_empty": default_is_empty,
}
