"""What an image carries in each of its layers, also where a later one hides it; and images made of it."""

from __future__ import annotations

import base64
import collections.abc
import contextlib
import dataclasses
import io
import json
import re
import subprocess
import tarfile
import typing

from cryptography import exceptions
from cryptography.hazmat.primitives import serialization

from tests.cluster import nodes

# Of a key's first line, as no program has it that only looks for keys.
PEM = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}")
CERTIFICATE = re.compile(
    rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----"
)
# Base64 of "-----BEGIN", as kubeconfigs and Secrets have keys.
ENCODED = re.compile(rb"LS0tLS1CRUdJTi[A-Za-z0-9+/]{40}")
# What follows the length in DER: PKCS#8 with each kind of key, SEC 1, PKCS#1 with 1024, 2048 and 4096 bits.
DER = (
    bytes.fromhex("020100301306072a8648ce3d0201"),
    bytes.fromhex("020100300d06092a864886f70d010101"),
    bytes.fromhex("020100300506032b6570"),
    bytes.fromhex("0201010420"),
    bytes.fromhex("02010002818100"),
    bytes.fromhex("0201000282010100"),
    bytes.fromhex("0201000282020100"),
)
TOKENS = {
    b"eyJhbGciOi": re.compile(rb"eyJhbGciOi[\w-]+\.eyJ[\w-]+\.[\w-]{20}"),
    b"ghp_": re.compile(rb"ghp_[A-Za-z0-9]{36}"),
    b"ghs_": re.compile(rb"ghs_[A-Za-z0-9]{36}"),
    b"glpat-": re.compile(rb"glpat-[\w-]{20}"),
    b"npm_": re.compile(rb"npm_[A-Za-z0-9]{36}"),
    b"pypi-AgEI": re.compile(rb"pypi-AgEI[\w-]{40}"),
    b"AKIA": re.compile(rb"AKIA[0-9A-Z]{16}"),
}
# Where tools keep what they log in with, and how they reach a registry.
PLACES = re.compile(
    r"(^|/)(\.netrc|\.npmrc|\.pypirc|\.git-credentials|\.docker/config\.json|pip/pip\.conf|"
    r"pip\.conf|go/env|auth\.conf|auth\.conf\.d/.+|apt\.conf\.d/.*proxy.*|run/secrets/.+|"
    r"usr/local/share/ca-certificates/.+)$"
)
SEED = "usr/share/p8s/seed.json"


@dataclasses.dataclass(frozen=True, order=True)
class Finding:
    """What must not be there: in which layer (from 0 on), in which file, and what."""

    layer: int
    path: str
    what: str


@dataclasses.dataclass
class Layers:
    """What was read of an image.

    Attributes:
        config: its configuration, with the history.
        findings: keys, tokens and places of such.
        certificates: layer and path → fingerprints of the certificates in it.
        files: how many files were looked at, by layer.
    """

    config: dict[str, typing.Any]
    findings: list[Finding]
    certificates: dict[tuple[int, str], set[bytes]]
    files: list[int]


def read(image: str) -> Layers:
    """Look at every file of every layer, as `docker save` streams them."""
    documents: dict[str, typing.Any] = {}
    found: dict[str, _Layer] = {}
    with (
        subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving,
        tarfile.open(fileobj=saving.stdout, mode="r|") as archive,
    ):
        for entry in archive:
            file = archive.extractfile(entry) if entry.isfile() else None
            if file is None:
                continue
            if file.peek(1)[:1] in (b"{", b"["):  # type: ignore[attr-defined]
                documents[entry.name] = json.load(file)
            else:
                found[entry.name] = _Layer(file)
    assert saving.returncode == 0
    (manifest,) = documents["manifest.json"]
    layers = [found[name] for name in manifest["Layers"]]  # all of them, or a KeyError
    numbered = list(enumerate(layers))
    return Layers(
        config=documents[manifest["Config"]],
        findings=sorted(
            Finding(number, path, what) for number, layer in numbered for path, what in layer.found
        ),
        certificates={
            (number, path): prints
            for number, layer in numbered
            for path, prints in layer.certificates.items()
        },
        files=[layer.files for layer in layers],
    )


class _Layer:
    def __init__(self, packed: typing.IO[bytes]) -> None:
        self.found: list[tuple[str, str]] = []
        self.certificates: dict[str, set[bytes]] = {}
        self.files = 0
        with tarfile.open(fileobj=packed, mode="r|*") as archive:
            for entry in archive:
                file = archive.extractfile(entry) if entry.isfile() else None
                if file is not None:
                    self.files += 1
                    self._look(entry.name, file.read())

    def _look(self, path: str, content: bytes) -> None:
        if PLACES.search(path):
            self.found.append((path, "a place of credentials"))
        self.found += [(path, what) for what in find_secrets(content)]
        prints = find_certificates(content)
        if prints:
            self.certificates[path] = prints
        if path == SEED:
            for key, value in json.loads(content)["entries"].items():
                self._look(f"{path}: {key}", base64.b64decode(value))


def find_secrets(content: bytes) -> set[str]:
    """What kinds of keys and tokens there are in a file."""
    found = set()
    if b"PRIVATE KEY-----" in content and PEM.search(content):
        found.add("a key in PEM")
    if b"LS0tLS1CRUdJTi" in content and any(
        b"PRIVATE KEY" in base64.b64decode(match[0][:52]) for match in ENCODED.finditer(content)
    ):
        found.add("a key in PEM in base64")
    if any(_has_der(content, marker) for marker in DER):
        found.add("a key in DER")
    if any(marker in content and form.search(content) for marker, form in TOKENS.items()):
        found.add("a token")
    return found


def _has_der(content: bytes, marker: bytes) -> bool:
    """Whether there is a key that begins so, and that can be read as one."""
    at = content.find(marker)
    while at >= 0:
        for form, width in ((b"\x30", 1), (b"\x30\x81", 1), (b"\x30\x82", 2)):
            start = at - len(form) - width
            if start < 0 or not content.startswith(form, start):
                continue  # no sequence with a length of that form
            size = int.from_bytes(content[at - width : at], "big")
            with contextlib.suppress(ValueError, TypeError, exceptions.UnsupportedAlgorithm):
                serialization.load_der_private_key(content[start : at + size], password=None)
                return True
        at = content.find(marker, at + 1)
    return False


def find_certificates(content: bytes) -> set[bytes]:
    """The certificates in a file, as DER."""
    if b"-----BEGIN CERTIFICATE-----" not in content:
        return set()
    return {base64.b64decode(match[1]) for match in CERTIFICATE.finditer(content)}


@contextlib.contextmanager
def derive(
    dockerfile: str, files: collections.abc.Mapping[str, bytes]
) -> collections.abc.Iterator[str]:
    """An image that is built of the tested one, gone at the end.

    Args:
        dockerfile: what follows FROM.
        files: the build's context: name → content.
    """
    tag = f"{nodes.unique('p8s-test')}:1"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        given = {"Dockerfile": f"FROM {nodes.IMAGE}\n{dockerfile}".encode()}
        for name, content in (given | dict(files)).items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    done = subprocess.run(
        ["docker", "build", "--quiet", f"--tag={tag}", "-"],
        input=packed.getvalue(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    try:
        yield tag
    finally:
        nodes.docker("image", "rm", tag)
