"""No key or token, and nothing of the machine that built the image, is in any layer or in the history."""

from __future__ import annotations

import base64
import datetime
import json
import re
import typing

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from p8s_supervisor import pki
from tests.cluster import image_layers, nodes

# Of Debian's own package, and what certifi brings along.
KNOWN_CERTIFICATES = re.compile(
    r"usr/share/ca-certificates/mozilla/.+\.crt"
    r"|usr/local/lib/python3\.\d+/dist-packages/certifi/cacert\.pem"
)
# `openssl speed` measures with keys that everybody has. Source: openssl, apps/testrsa.h.
KNOWN_KEY = image_layers.Finding(0, "usr/bin/openssl", "a key in DER")
# Set by the Dockerfile, for everybody.
VARIABLES = {"PATH", "KUBECONFIG", "LANG", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
# Mirrors, proxies and logins of the building machine.
BUILDERS = re.compile(r"\w+://\S*|(GOPROXY|GOSUMDB|PIP_INDEX_URL|\w+_proxy)=\S+", re.IGNORECASE)
# What a layer holds is in the image, though a later one hides it.
DOCKERFILE = """
COPY . /planted/
COPY seed.json /usr/share/p8s/
COPY pip.conf /etc/
RUN rm -r /planted
ENV HTTPS_PROXY=http://somebody:word@proxy.invalid:3128
"""
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzb21lYm9keSJ9." + 43 * "x"


def in_pem(key: typing.Any, form: str = "PKCS8") -> bytes:
    return _encode(key, serialization.Encoding.PEM, form)


def in_der(key: typing.Any, form: str = "PKCS8") -> bytes:
    return _encode(key, serialization.Encoding.DER, form)


def _encode(key: typing.Any, encoding: serialization.Encoding, form: str) -> bytes:
    chosen = getattr(serialization.PrivateFormat, form)
    return bytes(key.private_bytes(encoding, chosen, serialization.NoEncryption()))


def make_files() -> dict[str, tuple[str, bytes]]:
    """Files that must be found: name → as what, content."""
    curve, long = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
    old = "TraditionalOpenSSL"
    in_config = b"client-key-data: " + base64.b64encode(in_pem(curve))
    proxy = pki.make_authority("a proxy", now=datetime.datetime.now(datetime.UTC))
    return {
        "pkcs8.pem": ("a key in PEM", in_pem(curve)),
        "sec1.pem": ("a key in PEM", in_pem(curve, old)),
        "sec1.der": ("a key in DER", in_der(curve, old)),
        "pkcs8.der": ("a key in DER", b"before" + in_der(curve) + b"after"),
        "rsa.der": ("a key in DER", in_der(long, old)),
        "rsa8.der": ("a key in DER", in_der(long)),
        "ed25519.der": ("a key in DER", in_der(ed25519.Ed25519PrivateKey.generate())),
        "kubeconfig": ("a key in PEM in base64", in_config),
        "login": ("a token", f"token: {JWT}".encode()),
        "proxy.crt": ("a certificate of somebody's", proxy.certificate_pem),
        "pip.conf": ("a place of credentials", b"[global]\n"),
    }


def make_seed(entry: bytes) -> bytes:
    """The image's seed with one entry more."""
    shown = ("--rm", "--tmpfs=/var/lib/p8s", "--entrypoint=cat", nodes.IMAGE)
    stored = json.loads(nodes.docker("run", *shown, f"/{image_layers.SEED}"))
    stored["entries"]["/registry/secrets/default/planted"] = base64.b64encode(entry).decode()
    return json.dumps(stored).encode()


class Images(typing.NamedTuple):
    """The derived image as it was read, and what was planted in it as findings."""

    read: image_layers.Layers
    planted: set[image_layers.Finding]


@pytest.fixture(scope="module")
def images() -> Images:
    """An image whose first layers are the real one's: read once for both."""
    files = make_files()
    seed = make_seed(files["pkcs8.pem"][1])
    context = {name: content for name, (_, content) in files.items()} | {"seed.json": seed}
    with image_layers.derive(DOCKERFILE, context) as name:
        read = image_layers.read(name)
    first = len(
        json.loads(nodes.docker("inspect", "--format={{json .RootFS.Layers}}", nodes.IMAGE))
    )
    planted = {
        image_layers.Finding(first, f"planted/{name}", what) for name, (what, _) in files.items()
    }
    key, encoded = (
        f"{image_layers.SEED}: /registry/secrets/default/planted",
        "a key in PEM in base64",
    )
    planted.add(image_layers.Finding(first + 1, key, "a key in PEM"))
    planted.add(image_layers.Finding(first + 1, image_layers.SEED, encoded))
    planted.add(image_layers.Finding(first, "planted/seed.json", encoded))
    planted.add(image_layers.Finding(first + 2, "etc/pip.conf", "a place of credentials"))
    return Images(read, planted)


def list_certificates(read: image_layers.Layers) -> set[image_layers.Finding]:
    """Files with a certificate that Debian does not bring along."""
    found = read.certificates.items()
    known = {
        each
        for (_, path), certificates in found
        if KNOWN_CERTIFICATES.fullmatch(path)
        for each in certificates
    }
    assert len(known) > 100
    return {
        image_layers.Finding(layer, path, "a certificate of somebody's")
        for (layer, path), certificates in found
        if certificates - known
    }


def test_what_is_planted_is_found_in_whatever_layer_and_nothing_else(images: Images) -> None:
    found = set(images.read.findings) | list_certificates(images.read)
    assert found - {KNOWN_KEY} == images.planted
    assert all(images.read.files[:-1]), "every layer but the last, which only removes, has files"


def find_in_config(config: dict[str, typing.Any]) -> list[str]:
    """What the configuration and the history of an image tell of the machine that built it."""
    names = {line.partition("=")[0] for line in config["config"]["Env"]}
    text = json.dumps(config)
    return [
        *sorted(names - VARIABLES),
        *(match[0] for match in BUILDERS.finditer(text)),
        *image_layers.find_secrets(text.encode()),
    ]


def test_configuration_and_history_tell_nothing_of_the_builder(images: Images) -> None:
    config = images.read.config
    derived = find_in_config(config)
    assert "HTTPS_PROXY" in derived
    assert any("http://somebody:word@proxy.invalid" in found for found in derived)
    # The last instruction of the real image.
    own = max(n for n, line in enumerate(config["history"]) if "image.title" in line["created_by"])
    history = config["history"][: own + 1]
    assert any("ENTRYPOINT" in line["created_by"] for line in history)
    real = json.loads(nodes.docker("inspect", "--format={{json .Config}}", nodes.IMAGE))
    assert find_in_config({"config": real, "history": history}) == []
