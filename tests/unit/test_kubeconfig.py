"""kubeconfig files."""

from __future__ import annotations

import base64
import json
import pathlib

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


def test_a_token_takes_the_certificate_s_place() -> None:
    text = kubeconfig.render_token(
        server="https://a.example", user="bot", ca_pem=b"the CA", token="a.b.c"
    )
    made = json.loads(text)
    assert made["users"] == [{"name": "bot", "user": {"token": "a.b.c"}}]
    assert made["clusters"][0]["cluster"]["certificate-authority-data"] == "dGhlIENB"


def test_a_component_s_kubeconfig_names_files() -> None:
    text = kubeconfig.render_files(
        server="https://127.0.0.1:6443",
        user="kubelet-client",
        ca=pathlib.Path("/pki/ca.crt"),
        certificate=pathlib.Path("/pki/k.crt"),
        key=pathlib.Path("/pki/k.key"),
    )
    made = json.loads(text)
    assert made["clusters"][0]["cluster"]["certificate-authority"] == "/pki/ca.crt"
    assert made["users"][0]["user"] == {
        "client-certificate": "/pki/k.crt",
        "client-key": "/pki/k.key",
    }
    assert "-data" not in text
