"""kubeconfig files: with everything inline to be handed on, with file names for the components."""

from __future__ import annotations

import base64
import json
import pathlib


def render(*, server: str, user: str, ca_pem: bytes, certificate_pem: bytes, key_pem: bytes) -> str:
    """A kubeconfig with a client certificate, everything inline.

    Args:
        server: URL of the apiserver.
        user: name of the user entry; the certificate says who it really is.
        ca_pem: the CA that signed the apiserver's certificate.
        certificate_pem: the client's certificate.
        key_pem: its private key.

    Returns:
        JSON, which every reader of YAML takes and which needs no YAML library to write.
    """
    credentials = {
        "client-certificate-data": _inline(certificate_pem),
        "client-key-data": _inline(key_pem),
    }
    return _render({"server": server, **_trust(ca_pem)}, user, credentials)


def render_token(*, server: str, user: str, ca_pem: bytes, token: str) -> str:
    """A kubeconfig with a bearer token, everything inline; see `render`."""
    return _render({"server": server, **_trust(ca_pem)}, user, {"token": token})


def render_files(
    *, server: str, user: str, ca: pathlib.Path, certificate: pathlib.Path, key: pathlib.Path
) -> str:
    """A kubeconfig that names files: client-go reads the certificate again when it is renewed."""
    credentials = {"client-certificate": str(certificate), "client-key": str(key)}
    return _render({"server": server, "certificate-authority": str(ca)}, user, credentials)


def _render(cluster: dict[str, str], user: str, credentials: dict[str, str]) -> str:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "p8s", "cluster": cluster}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "p8s", "context": {"cluster": "p8s", "user": user}}],
        "current-context": "p8s",
    }
    return json.dumps(config, indent=2) + "\n"


def _trust(ca_pem: bytes) -> dict[str, str]:
    return {"certificate-authority-data": _inline(ca_pem)}


def _inline(pem: bytes) -> str:
    return base64.b64encode(pem).decode()
