"""An OIDC issuer: a key, what it says of itself over HTTPS, and the tokens that it signs."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import pathlib
import time
import typing

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import NameOID

from tests.cluster import nodes

# In the node: kube-apiserver is on its network.
ADDRESS, PORT = "127.0.0.1", 9443
URL = f"https://{ADDRESS}:{PORT}"
AUDIENCE = "kubernetes"
SERVE = """
import http.server, os, ssl, sys
os.chdir(sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("tls.crt", "tls.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def encode(data: bytes) -> str:
    """base64url without its padding, as JOSE has it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """An issuer whose files lie in a directory of the host."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer of a test")])
        now = datetime.datetime.now(datetime.UTC)
        address = x509.IPAddress(ipaddress.ip_address(ADDRESS))
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca = certificate.public_bytes(serialization.Encoding.PEM).decode()
        point = self._key.public_key().public_numbers()
        key = {"kty": "EC", "crv": "P-256", "kid": "1", "alg": "ES256", "use": "sig"}
        key |= {"x": encode(point.x.to_bytes(32)), "y": encode(point.y.to_bytes(32))}
        discovery = {
            "issuer": URL,
            "jwks_uri": f"{URL}/keys",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }
        form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        private = self._key.private_bytes(serialization.Encoding.PEM, *form)
        for file, text in {
            "tls.crt": self.ca,
            "tls.key": private.decode(),
            "keys": json.dumps({"keys": [key]}),
            ".well-known/openid-configuration": json.dumps(discovery),
        }.items():
            (directory / file).parent.mkdir(parents=True, exist_ok=True)
            (directory / file).write_text(text)

    def configuration(self) -> dict[str, typing.Any]:
        """What kube-apiserver is told of it."""
        return {
            "issuer": {"url": URL, "audiences": [AUDIENCE], "certificateAuthority": self.ca},
            "claimMappings": {
                "username": {"claim": "email", "prefix": ""},
                "groups": {"claim": "groups", "prefix": "sso:"},
            },
        }

    def sign(self, **claims: typing.Any) -> str:
        """A token that is good for ten minutes."""
        now = int(time.time())
        body = {"iss": URL, "aud": AUDIENCE, "sub": "1", "iat": now, "exp": now + 600} | claims
        parts = [encode(json.dumps(part).encode()) for part in ({"alg": "ES256", "kid": "1"}, body)]
        signature = self._key.sign(".".join(parts).encode(), ec.ECDSA(hashes.SHA256()))
        r, s = utils.decode_dss_signature(signature)
        return ".".join([*parts, encode(r.to_bytes(32) + s.to_bytes(32))])


def serve(node: nodes.Node, directory: str) -> None:
    """Serve an issuer's directory, which is in the node, until the node ends."""
    nodes.docker("exec", "--detach", node.name, "python3", "-c", SERVE, directory, str(PORT))
