"""The cluster's credentials: what is made at each start and renewed, and the clients that use it."""

from __future__ import annotations

import collections.abc
import contextlib
import datetime
import json
import threading

from p8s_supervisor import (
    component_files,
    components,
    errors,
    etcd,
    files,
    kube,
    kubeconfig,
    pki,
)

_lock = threading.Lock()


@contextlib.contextmanager
def alone() -> collections.abc.Iterator[None]:
    """For who makes certificates anew: nobody else does within the block."""
    with _lock:
        yield


def write(plan: components.Plan, *, fresh: bool) -> tuple[bytes, bytes, bytes]:
    """The PKI and the kubeconfigs, and who is let in without any.

    Returns:
        The administrator's credentials: CA, certificate and key, PEM.

    Raises:
        P8sError: what is kept of the PKI is damaged, or a CA has expired.
    """
    now = datetime.datetime.now(datetime.UTC)
    authorities = pki.ensure_authorities(plan.paths.authorities, fresh=fresh, now=now)
    for name, pair in authorities.items():
        files.write(plan.paths.pki / f"{name}.crt", pair.certificate_pem)
    files.write(
        plan.paths.authentication,
        json.dumps(component_files.authentication(plan), indent=2) + "\n",
        mode=0o600,
    )
    return write_leaves(plan, authorities, now=now)


def renew(plan: components.Plan) -> tuple[bytes, bytes, bytes]:
    """Every certificate but the CAs' anew, while the components run; they read them by themselves.

    Returns:
        As `write`.

    Raises:
        P8sError: what is kept of the PKI is damaged, or a CA has expired.
    """
    now = datetime.datetime.now(datetime.UTC)
    authorities = pki.ensure_authorities(plan.paths.authorities, fresh=False, now=now)
    return write_leaves(plan, authorities, now=now)


def write_leaves(
    plan: components.Plan, authorities: dict[str, pki.Pair], *, now: datetime.datetime
) -> tuple[bytes, bytes, bytes]:
    """The certificates that the CAs sign, and the kubeconfigs; see `write`."""
    crypto = plan.paths.pki
    leaves = {leaf.name: leaf for leaf in components.leaves(plan, read_api_names(plan))}
    made = pki.write_leaves(
        leaves.values(),
        authorities,
        crypto,
        now=now,
        lifetime=datetime.timedelta(seconds=plan.settings.cert_lifetime),
    )
    server = f"https://127.0.0.1:{plan.settings.api_port}"
    ca, admin = authorities[pki.CLUSTER].certificate_pem, made["admin"]
    for name, file in components.KUBECONFIGS.items():
        stem = leaves[name].stem
        text = kubeconfig.render_files(
            server=server,
            user=name,
            ca=crypto / f"{pki.CLUSTER}.crt",
            certificate=crypto / f"{stem}.crt",
            key=crypto / f"{stem}.key",
        )
        if name == "admin":
            text = kubeconfig.render(
                server=server,
                user=name,
                ca_pem=ca,
                certificate_pem=admin.certificate_pem,
                key_pem=admin.key_pem,
            )
        files.write(plan.paths.kubernetes / file, text, mode=0o600)
    return ca, admin.certificate_pem, admin.key_pem


def read(plan: components.Plan) -> tuple[bytes, bytes, bytes]:
    """The administrator's credentials from the files of this start; see `write`.

    Raises:
        P8sError: a certificate and its key do not belong together: a renewal was cut off.
        OSError: a file cannot be read.
        ValueError: a file is damaged.
    """
    crypto = plan.paths.pki
    for leaf in components.leaves(plan):
        if not pki.is_pair(crypto / f"{leaf.stem}.crt", crypto / f"{leaf.stem}.key"):
            raise errors.P8sError(f"{crypto / leaf.stem}.crt is not of the key beside it")
    sources = (crypto / f"{pki.CLUSTER}.crt", crypto / "admin.crt", crypto / "admin.key")
    ca, certificate, key = (file.read_bytes() for file in sources)
    return ca, certificate, key


def extend_apiserver(plan: components.Plan) -> None:
    """kube-apiserver's serving certificate anew, with the names that are kept by now.

    Raises:
        P8sError: what is kept of the PKI is damaged, or a CA has expired.
    """
    now = datetime.datetime.now(datetime.UTC)
    authorities = pki.ensure_authorities(plan.paths.authorities, fresh=False, now=now)
    pki.write_leaves(
        [
            leaf
            for leaf in components.leaves(plan, read_api_names(plan))
            if leaf.name == "apiserver"
        ],
        authorities,
        plan.paths.pki,
        now=now,
        lifetime=datetime.timedelta(seconds=plan.settings.cert_lifetime),
    )


def read_api_names(plan: components.Plan) -> tuple[str, ...]:
    """The names that kubeconfigs were asked for with, oldest first.

    Raises:
        P8sError: the file that keeps them is damaged.
    """
    file = plan.paths.api_names
    try:
        names = json.loads(file.read_text())
        wrong = None if isinstance(names, list) else "not a list"
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        wrong = str(error)
    if wrong is not None:
        raise errors.P8sError(
            f"{file} is damaged: {wrong}",
            hint="remove it; kubeconfigs that were made for other names are asked for again",
        )
    return tuple(str(name) for name in names)


def keep_api_names(plan: components.Plan, names: tuple[str, ...]) -> None:
    """Keep the names for later starts."""
    files.write(plan.paths.api_names, json.dumps(names) + "\n", durable=True)


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
