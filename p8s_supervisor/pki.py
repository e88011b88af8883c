"""The cluster's x509: three CAs, the service account key, and the leaf certificates.

EC P-256 throughout. Python 3.13's TLS is strict (RFC 5280): every certificate carries AKI, SKI
and keyUsage. CAs are kept in the state volume; leaves are made anew at each start, so that they
follow the container's address, and while the cluster runs (`renewal`), so that they never get old.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import ipaddress
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from p8s_supervisor import errors, files

CA_LIFETIME = datetime.timedelta(days=3650)
LEAF_LIFETIME = datetime.timedelta(days=365)
# Certificates that were made while the host's clock was ahead, by a wrong time zone or date, must be
# good still once it is set right.
BACKDATED = datetime.timedelta(hours=26)

CLUSTER, ETCD, FRONT_PROXY = "ca", "etcd-ca", "front-proxy-ca"
AUTHORITIES = {CLUSTER: "p8s", ETCD: "p8s-etcd", FRONT_PROXY: "p8s-front-proxy"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leaf:
    """A certificate to be made.

    Attributes:
        name: its file's name, without suffix.
        folder: below the PKI's directory, where a pod may see these files and no others.
        authority: the CA that signs it, a key of `AUTHORITIES`.
        common_name: the user, for Kubernetes.
        organization: the group, for Kubernetes; empty for none.
        groups: more of them.
        sans: names and addresses; with any, it is good for servers.
        client: whether it is good for clients.
    """

    name: str
    authority: str
    common_name: str
    folder: str = ""
    organization: str = ""
    groups: tuple[str, ...] = ()
    sans: tuple[str, ...] = ()
    client: bool = True

    @property
    def stem(self) -> str:
        """The path of its files below the PKI's directory, without suffix."""
        return f"{self.folder}/{self.name}" if self.folder else self.name


@dataclasses.dataclass(frozen=True)
class Pair:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate, PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key, PEM (PKCS #8)."""
        return private_pem(self.key)


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key, PEM (PKCS #8), not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key's public half, PEM."""
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    end: datetime.datetime,
    now: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def make_authority(common_name: str, *, now: datetime.datetime) -> Pair:
    """A self-signed CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        _builder(name, name, key, now + CA_LIFETIME, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
    )
    return Pair(builder.sign(key, hashes.SHA256()), key)


def make_leaf(
    leaf: Leaf,
    authority: Pair,
    *,
    now: datetime.datetime,
    lifetime: datetime.timedelta = LEAF_LIFETIME,
) -> Pair:
    """A certificate signed by a CA, which it does not outlive."""
    end = min(now + lifetime, authority.certificate.not_valid_after_utc)
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, leaf.common_name)]
    groups = ([leaf.organization] if leaf.organization else []) + list(leaf.groups)
    attributes[:0] = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH] if leaf.client else []
    if leaf.sans:
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    builder = (
        _builder(x509.Name(attributes), authority.certificate.subject, key, end, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
    )
    if leaf.sans:
        names = [_general_name(san) for san in dict.fromkeys(leaf.sans)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Pair(builder.sign(authority.key, hashes.SHA256()), key)


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _load_key(path: pathlib.Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _damaged(path, "not an EC key")
    return key


def _damaged(path: pathlib.Path, reason: str) -> errors.P8sError:
    return errors.P8sError(
        f"{path} is damaged: {reason}",
        hint="put it back from a copy; without it the cluster in this volume cannot be trusted "
        "again, and a new cluster needs a new volume",
    )


def _expired(path: pathlib.Path, end: datetime.datetime) -> errors.P8sError:
    return errors.P8sError(
        f"{path} has expired: the CA was good until {end:%Y-%m-%d %H:%M} UTC",
        hint="no certificate of this cluster is trusted any more, and a CA is not made anew under "
        "its objects: begin a new cluster with a new volume; if the date is wrong, set the host's "
        "clock",
    )


def is_pair(certificate: pathlib.Path, key: pathlib.Path) -> bool:
    """Whether a certificate is of a key.

    Raises:
        OSError: one of the files cannot be read.
        ValueError: it is damaged.
        P8sError: the key is damaged.
    """
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    return found.public_key() == _load_key(key).public_key()


def renewal_due(certificate: pathlib.Path) -> datetime.datetime:
    """When a leaf is to be made anew: at two thirds of its lifetime.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no certificate.
    """
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    made = found.not_valid_before_utc + BACKDATED
    return made + (found.not_valid_after_utc - made) * 2 / 3


def ensure_authorities(
    directory: pathlib.Path, *, fresh: bool, now: datetime.datetime
) -> dict[str, Pair]:
    """The CAs and the service account key from the state volume, made where it is new.

    Args:
        directory: where `NAME.crt` and `NAME.key` are kept.
        fresh: whether there is no cluster in the volume yet; without, nothing is made.
        now: the time that new certificates are counted from.

    Raises:
        P8sError: a file is damaged, or missing from a volume that holds a cluster, or a CA has
            expired.
    """
    pairs = {}
    for name, common_name in AUTHORITIES.items():
        certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
        if not (certificate.exists() and key.exists()):
            _require(fresh, certificate if key.exists() else key)
            made = make_authority(common_name, now=now)
            files.write(key, made.key_pem, mode=0o600, durable=True)
            files.write(certificate, made.certificate_pem, durable=True)
        try:
            loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
        except ValueError as error:
            raise _damaged(certificate, str(error)) from error
        pairs[name] = Pair(loaded, _load_key(key))
        if loaded.public_key() != pairs[name].key.public_key():
            raise _damaged(key, f"it does not belong to {certificate.name}")
        if loaded.not_valid_after_utc <= now:
            raise _expired(certificate, loaded.not_valid_after_utc)
    signing = directory / "sa.key"
    if not signing.exists():
        _require(fresh, signing)
        made_key = ec.generate_private_key(ec.SECP256R1())
        files.write(signing, private_pem(made_key), mode=0o600, durable=True)
    # kube-apiserver reads no private key as its verification key but in one of the older formats.
    files.write(directory / "sa.pub", public_pem(_load_key(signing)))
    return pairs


def _require(fresh: bool, path: pathlib.Path) -> None:
    if not fresh:
        raise _damaged(path, "it is missing")


def write_leaves(
    leaves: collections.abc.Iterable[Leaf],
    authorities: collections.abc.Mapping[str, Pair],
    directory: pathlib.Path,
    *,
    now: datetime.datetime,
    lifetime: datetime.timedelta = LEAF_LIFETIME,
) -> dict[str, Pair]:
    """Make certificates and write `NAME.crt` and `NAME.key` (0600) for each.

    Between the two renames a reader may find a pair that does not match. Those that read while
    the cluster runs check that, keep what they had, and look again at the second rename's event.
    Source: k8s.io/apiserver/pkg/server/dynamiccertificates/dynamic_serving_content.go.
    """
    made = {}
    for leaf in leaves:
        pair = make_leaf(leaf, authorities[leaf.authority], now=now, lifetime=lifetime)
        files.write(directory / f"{leaf.stem}.key", pair.key_pem, mode=0o600)
        files.write(directory / f"{leaf.stem}.crt", pair.certificate_pem)
        made[leaf.name] = pair
    return made
