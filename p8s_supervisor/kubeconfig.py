"""kubeconfig files with everything inline, so that one file can be handed on."""

from __future__ import annotations

import base64
import json


def render(*, server: str, user: str, ca_pem: bytes, certificate_pem: bytes, key_pem: bytes) -> str:
    """A kubeconfig with a client certificate.

    Args:
        server: URL of the apiserver.
        user: name of the user entry; the certificate says who it really is.
        ca_pem: the CA that signed the apiserver's certificate.
        certificate_pem: the client's certificate.
        key_pem: its private key.

    Returns:
        JSON, which every reader of YAML takes and which needs no YAML library to write.
    """
    cluster = {"server": server, "certificate-authority-data": _inline(ca_pem)}
    credentials = {
        "client-certificate-data": _inline(certificate_pem),
        "client-key-data": _inline(key_pem),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "p8s", "cluster": cluster}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "p8s", "context": {"cluster": "p8s", "user": user}}],
        "current-context": "p8s",
    }
    return json.dumps(config, indent=2) + "\n"


def _inline(pem: bytes) -> str:
    return base64.b64encode(pem).decode()
