"""The cluster's credentials: what is made at each start, and the clients that use it."""

from __future__ import annotations

import datetime

from p8s_supervisor import components, etcd, files, kube, kubeconfig, pki


def write(plan: components.Plan, *, fresh: bool) -> tuple[bytes, bytes, bytes]:
    """The PKI and the kubeconfigs.

    Returns:
        The administrator's credentials: CA, certificate and key, PEM.

    Raises:
        P8sError: what is kept of the PKI is damaged.
    """
    now = datetime.datetime.now(datetime.UTC)
    authorities = pki.ensure_authorities(plan.paths.authorities, fresh=fresh, now=now)
    for name, pair in authorities.items():
        files.write(plan.paths.pki / f"{name}.crt", pair.certificate_pem)
    leaves = pki.write_leaves(components.leaves(plan), authorities, plan.paths.pki, now=now)
    ca = authorities[pki.CLUSTER].certificate_pem
    for leaf, file in components.KUBECONFIGS.items():
        files.write(
            plan.paths.kubernetes / file,
            kubeconfig.render(
                server=f"https://127.0.0.1:{plan.settings.api_port}",
                user=leaf,
                ca_pem=ca,
                certificate_pem=leaves[leaf].certificate_pem,
                key_pem=leaves[leaf].key_pem,
            ),
            mode=0o600,
        )
    return ca, leaves["admin"].certificate_pem, leaves["admin"].key_pem


def connect_etcd(plan: components.Plan) -> etcd.Client:
    """A client of etcd with the apiserver's certificate."""
    return etcd.Client(
        components.ETCD_URL,
        ca=plan.paths.pki / "etcd-ca.crt",
        certificate=plan.paths.pki / "apiserver-etcd-client.crt",
        key=plan.paths.pki / "apiserver-etcd-client.key",
    )


def connect_apiserver(plan: components.Plan) -> kube.Client:
    """A client of the apiserver with the sidecar's own certificate."""
    return kube.Client(
        f"https://127.0.0.1:{plan.settings.api_port}",
        ca=plan.paths.pki / "ca.crt",
        certificate=plan.paths.pki / "p8s.crt",
        key=plan.paths.pki / "p8s.key",
    )
