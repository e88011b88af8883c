"""kubeconfig files."""

from __future__ import annotations

import base64
import json

import yaml

from p8s_supervisor import kubeconfig


def test_render_has_everything_inline() -> None:
    text = kubeconfig.render(
        server="https://127.0.0.1:6443",
        user="admin",
        ca_pem=b"the CA",
        certificate_pem=b"the certificate",
        key_pem=b"the key",
    )
    expected = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "p8s",
                "cluster": {
                    "server": "https://127.0.0.1:6443",
                    "certificate-authority-data": base64.b64encode(b"the CA").decode(),
                },
            }
        ],
        "users": [
            {
                "name": "admin",
                "user": {
                    "client-certificate-data": base64.b64encode(b"the certificate").decode(),
                    "client-key-data": base64.b64encode(b"the key").decode(),
                },
            }
        ],
        "contexts": [{"name": "p8s", "context": {"cluster": "p8s", "user": "admin"}}],
        "current-context": "p8s",
    }
    assert json.loads(text) == expected
    assert yaml.safe_load(text) == expected
    assert text.endswith("}\n")
