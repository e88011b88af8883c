"""Kubeconfigs that are handed out: for the host, for another name of it, for other users."""

from __future__ import annotations

import collections.abc
import datetime
import ipaddress
import json
import re
import socket
import ssl

from p8s_supervisor import (
    components,
    context,
    credentials,
    errors,
    kube,
    kubeconfig,
    parsers,
    pki,
    wait,
)

NAMESPACE = "p8s-users"
KINDS = ("certificate", "token")
# RFC 5280's upper bounds for a common name and an organization name.
LONGEST_NAME = 64
MOST_GROUPS = 32
SHORTEST_TTL, LONGEST_TTL = 60.0, 365 * 86400.0
# kube-apiserver gives no token for less. Source: pkg/apis/authentication/validation.
SHORTEST_TOKEN_TTL = 600.0
# Names in kube-apiserver's certificate that were asked for: a certificate is sent at each handshake.
MOST_NAMES = 100
HANDSHAKE_SECONDS = 5.0

_HOST = re.compile(
    r"(?:\[(?P<six>[^\[\]]+)\]|(?P<name>[^\[\]:]+))(?::(?P<port>\d{1,5}))?", re.ASCII
)

Admin = tuple[bytes, bytes, bytes]


# --- for another name


def kubeconfig_for(run: context.Context, host: str | None) -> str:
    """The administrator's kubeconfig.

    Args:
        run: the cluster.
        host: the name or address by which kube-apiserver is reached, `NAME` or `NAME:PORT`; None
            for the host's own. Its certificate carries the name when this returns, and after
            later starts too.

    Raises:
        RequestError: 400, no such name; 409, too many names; 503, there are no certificates yet,
            or kube-apiserver does not show the new one.
    """
    ca, certificate, key = _require_admin(run)
    server = run.plan.settings.host_server
    if host is not None:
        name, port = parse_host(host, port=run.plan.settings.api_port)
        ensure_name(run, name)
        server = f"https://[{name}]:{port}" if ":" in name else f"https://{name}:{port}"
    return kubeconfig.render(
        server=server, user="p8s", ca_pem=ca, certificate_pem=certificate, key_pem=key
    )


def _require_admin(run: context.Context) -> Admin:
    if run.admin is None:
        raise errors.RequestError(
            "the certificates are not made yet", status=503, hint="wait for /ready"
        )
    return run.admin


def parse_host(text: str, *, port: int) -> tuple[str, int]:
    """Name and port of `NAME`, `NAME:PORT`, an address, or `[IPV6]:PORT`.

    Raises:
        RequestError: 400, it is none of these.
    """
    try:
        return _split_host(text, port=port)
    except ValueError as error:
        raise errors.RequestError(
            f"host = {text!r}: {error}",
            status=400,
            hint="host=NAME, host=NAME:PORT or host=ADDRESS, as clients reach kube-apiserver by it",
        ) from error


def _split_host(text: str, *, port: int) -> tuple[str, int]:
    if "%" in text:
        raise ValueError("an address with a zone is good on one machine alone")
    if text.count(":") > 1 and not text.startswith("["):
        return str(ipaddress.IPv6Address(text)), port
    found = _HOST.fullmatch(text)
    if found is None:
        raise ValueError("neither a name nor an address, with or without a port")
    number = int(found["port"] or port)
    if not 1 <= number <= 65535:
        raise ValueError("the port is not from 1 to 65535")
    if found["six"]:
        return str(ipaddress.IPv6Address(found["six"])), number
    return _parse_name(found["name"]), number


def _parse_name(text: str) -> str:
    try:
        return parsers.parse_address(text)
    except ValueError:
        name = text.lower().rstrip(".")
        if name.rpartition(".")[2].isdigit():
            # Clients take it for an address, and no certificate carries it as one.
            raise ValueError("not an IPv4 address") from None
        return parsers.parse_dns_name(name)


def ensure_name(run: context.Context, name: str) -> None:
    """See that kube-apiserver's certificate carries a name, now and after later starts.

    Raises:
        RequestError: 409, too many names; 503, kube-apiserver does not show the new certificate.
    """
    plan = run.plan
    with credentials.alone():
        kept = credentials.read_api_names(plan)
        # What the certificate has of itself needs no place among the names that are kept.
        if name not in kept and shown_reason(plan, name) is not None:
            if len(kept) >= MOST_NAMES:
                raise errors.RequestError(
                    f"kube-apiserver's certificate has {len(kept)} names that were asked for, and "
                    "takes no more",
                    status=409,
                    hint="start p8s with P8S_EXTRA_SANS, which takes wildcards such as "
                    f"*.example.org; or remove {plan.paths.api_names} and start again",
                )
            credentials.keep_api_names(plan, (*kept, name))
            credentials.extend_apiserver(plan)
    try:
        wait.until(
            lambda: shown_reason(plan, name),
            awaited=f"{name} in kube-apiserver's certificate",
            seconds=HANDSHAKE_SECONDS,
            interval=0.02,
            cancelled=run.stop.is_set,
        )
    except errors.WaitTimeoutError as error:
        raise errors.RequestError(str(error), status=503, hint="wait for /ready") from error


def shown_reason(plan: components.Plan, name: str) -> str | None:
    """Why a client that verifies would not take kube-apiserver for `name`; None where it would."""
    try:
        tls = ssl.create_default_context(cafile=str(plan.paths.pki / f"{pki.CLUSTER}.crt"))
        with (
            socket.create_connection(
                ("127.0.0.1", plan.settings.api_port), timeout=2
            ) as connection,
            tls.wrap_socket(connection, server_hostname=name),
        ):
            return None
    except (OSError, ValueError) as error:  # ssl's errors are OSErrors
        return str(error)


# --- for other users


def make(
    run: context.Context,
    *,
    name: str,
    groups: collections.abc.Sequence[str],
    ttl: float,
    kind: str,
) -> str:
    """A kubeconfig for a user, who may do nothing until RBAC says so.

    Args:
        run: the cluster.
        name: of the user; with a token, of a ServiceAccount in the namespace `p8s-users`.
        groups: the user's groups, each an O of the certificate's subject. `system:masters` may do
            everything: whoever may call this gets the administrator's kubeconfig as well.
        ttl: seconds until the credentials expire. A certificate does not outlive the CA.
        kind: `certificate`, or `token`: bound to the ServiceAccount and gone with it.

    Raises:
        RequestError: 400, with everything that is wrong; 503, there are no certificates yet.
        KubeError: the apiserver refused the ServiceAccount or the token.
    """
    wrong = find_wrong(run.plan, name=name, groups=groups, ttl=ttl, kind=kind)
    if wrong:
        raise errors.RequestError(
            "; ".join(wrong),
            status=400,
            hint='such as {"name": "jane", "groups": ["developers"], "ttl": "8h"}',
        )
    ca, _, _ = _require_admin(run)
    server = run.plan.settings.host_server
    if kind == "token":
        token = request_token(_require_client(run), name=name, ttl=ttl)
        return kubeconfig.render_token(server=server, user=name, ca_pem=ca, token=token)
    pair = make_certificate(run.plan, name=name, groups=groups, ttl=ttl)
    return kubeconfig.render(
        server=server,
        user=name,
        ca_pem=ca,
        certificate_pem=pair.certificate_pem,
        key_pem=pair.key_pem,
    )


def find_wrong(
    plan: components.Plan,
    *,
    name: str,
    groups: collections.abc.Sequence[str],
    ttl: float,
    kind: str,
) -> list[str]:
    """A sentence for each wrong input of `make`."""
    wrong = []
    reason = _find_wrong_name(plan, name, kind=kind)
    if reason:
        wrong.append(f"name = {name!r}: {reason}")
    if kind not in KINDS:
        wrong.append(f"kind = {kind!r}: not one of: {', '.join(KINDS)}")
    if kind == "token" and groups:
        wrong.append(
            "groups: the groups of a token are those of its ServiceAccount "
            f"(system:serviceaccounts, system:serviceaccounts:{NAMESPACE}) and no others: bind "
            "roles to the ServiceAccount, or take kind = certificate"
        )
    if len(groups) > MOST_GROUPS:
        wrong.append(f"groups: {len(groups)} are more than {MOST_GROUPS}")
    wrong += [
        f"group {group!r}: not 1 to {LONGEST_NAME} printable characters"
        for group in groups
        if not _is_printable(group)
    ]
    shortest = SHORTEST_TOKEN_TTL if kind == "token" else SHORTEST_TTL
    if not shortest <= ttl <= LONGEST_TTL:
        least = "10m, the apiserver's least for a token," if kind == "token" else "1m"
        wrong.append(f"ttl = {ttl:g} s: not from {least} to 365d")
    return wrong


def _is_printable(text: str) -> bool:
    return 1 <= len(text) <= LONGEST_NAME and text.isprintable() and text == text.strip()


def _find_wrong_name(plan: components.Plan, name: str, *, kind: str) -> str | None:
    if kind == "token":
        try:
            parsers.parse_dns_name(name)
        except ValueError as error:
            return f"a ServiceAccount's name is a DNS name: {error}"
        return None
    if not _is_printable(name):
        return f"not 1 to {LONGEST_NAME} printable characters"
    # Not for what it may do, which the groups say, but for what logs and bindings would mean.
    if name.startswith("system:"):
        return "names that begin with system: are those of Kubernetes' own components"
    if name in {leaf.common_name for leaf in components.leaves(plan)}:
        return "a component of this node has that name"
    return None


def make_certificate(
    plan: components.Plan, *, name: str, groups: collections.abc.Sequence[str], ttl: float
) -> pki.Pair:
    """A client certificate of the cluster's CA.

    Raises:
        P8sError: what is kept of the PKI is damaged, or a CA has expired.
    """
    now = datetime.datetime.now(datetime.UTC)
    authorities = pki.ensure_authorities(plan.paths.authorities, fresh=False, now=now)
    leaf = pki.Leaf(
        name="user",
        authority=pki.CLUSTER,
        common_name=name,
        groups=tuple(dict.fromkeys(groups)),
    )
    lifetime = datetime.timedelta(seconds=ttl)
    return pki.make_leaf(leaf, authorities[pki.CLUSTER], now=now, lifetime=lifetime)


def _require_client(run: context.Context) -> kube.Client:
    if run.client is None:
        raise errors.RequestError(
            "kube-apiserver is not asked yet", status=503, hint="wait for /ready"
        )
    return run.client


def request_token(client: kube.Client, *, name: str, ttl: float) -> str:
    """A token of a ServiceAccount in `NAMESPACE`, which is made where it is missing.

    Raises:
        KubeError: the apiserver refused.
    """
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    client.apply(namespace)
    client.apply(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": name, "namespace": NAMESPACE},
        }
    )
    answer = client.request(
        "POST",
        f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{name}/token",
        body={
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": int(ttl)},
        },
    )
    return str(json.loads(answer)["status"]["token"])
