"""The PKI: what certificates say, whom TLS lets in, and that a kept CA is never made anew."""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress
import pathlib
import ssl
import typing

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from p8s_supervisor import components, errors, pki
from tests import fakes

NOW = datetime.datetime(2026, 5, 4, 3, 2, 1, tzinfo=datetime.UTC)
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


@dataclasses.dataclass(frozen=True)
class Made:
    """All that a start makes, in a directory as in the node."""

    directory: pathlib.Path
    authorities: dict[str, pki.Pair]
    leaves: dict[str, pki.Pair]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The CAs and the leaves of a default cluster, as of now."""
    directory = tmp_path_factory.mktemp("pki")
    now = datetime.datetime.now(datetime.UTC)
    authorities = pki.ensure_authorities(directory, fresh=True, now=now)
    plan = fakes.make_plan(directory, "--extra-sans=*.p8s.example,2001:db8::7")
    leaves = pki.write_leaves(components.leaves(plan), authorities, directory, now=now)
    return Made(directory, authorities, leaves)


def list_files(directory: pathlib.Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def key_usage(certificate: x509.Certificate) -> set[str]:
    """The names of the usages that are set."""
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    names = ("digital_signature", "key_cert_sign", "crl_sign", "key_encipherment", "key_agreement")
    return {name for name in names if getattr(usage, name)}


def extensions(certificate: x509.Certificate) -> dict[x509.ObjectIdentifier, bool]:
    """Each extension with whether it is critical."""
    return {extension.oid: extension.critical for extension in certificate.extensions}


# --- what certificates say


@pytest.mark.parametrize("name", ["ca", "etcd-ca", "front-proxy-ca"])
def test_an_authority_is_as_rfc_5280_wants_it(made: Made, name: str) -> None:
    certificate = made.authorities[name].certificate
    assert extensions(certificate) == {
        ExtensionOID.SUBJECT_KEY_IDENTIFIER: False,
        ExtensionOID.BASIC_CONSTRAINTS: True,
        ExtensionOID.KEY_USAGE: True,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER: False,
    }
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (True, 0)
    assert key_usage(certificate) == {"digital_signature", "key_cert_sign", "crl_sign"}
    assert certificate.subject == certificate.issuer
    assert certificate.serial_number > 0
    certificate.verify_directly_issued_by(certificate)


@pytest.mark.parametrize(
    ("name", "issuer", "subject", "usages"),
    [
        pytest.param("apiserver", "p8s", "CN=kube-apiserver", [SERVER], id="apiserver"),
        pytest.param(
            "apiserver-kubelet-client",
            "p8s",
            "CN=kube-apiserver-kubelet-client",
            [CLIENT],
            id="apiserver to kubelet",
        ),
        pytest.param(
            "front-proxy-client",
            "p8s-front-proxy",
            "CN=front-proxy-client",
            [CLIENT],
            id="front proxy",
        ),
        pytest.param("etcd-server", "p8s-etcd", "CN=etcd", [CLIENT, SERVER], id="etcd"),
        pytest.param(
            "apiserver-etcd-client", "p8s-etcd", "CN=kube-apiserver", [CLIENT], id="etcd's client"
        ),
        pytest.param(
            "kubelet", "p8s", "CN=system:node:p8s,O=system:nodes", [SERVER], id="kubelet's server"
        ),
        pytest.param(
            "kubelet-client", "p8s", "CN=system:node:p8s,O=system:nodes", [CLIENT], id="kubelet"
        ),
        pytest.param(
            "controller-manager",
            "p8s",
            "CN=system:kube-controller-manager",
            [CLIENT, SERVER],
            id="controller-manager",
        ),
        pytest.param(
            "scheduler", "p8s", "CN=system:kube-scheduler", [CLIENT, SERVER], id="scheduler"
        ),
        pytest.param("admin", "p8s", "CN=kubernetes-admin,O=system:masters", [CLIENT], id="admin"),
        pytest.param("p8s", "p8s", "CN=p8s-sidecar,O=system:masters", [CLIENT], id="sidecar"),
    ],
)
def test_a_leaf_is_as_rfc_5280_wants_it(
    made: Made, name: str, issuer: str, subject: str, usages: list[x509.ObjectIdentifier]
) -> None:
    certificate = made.leaves[name].certificate
    wanted = {
        ExtensionOID.SUBJECT_KEY_IDENTIFIER: False,
        ExtensionOID.BASIC_CONSTRAINTS: True,
        ExtensionOID.KEY_USAGE: True,
        ExtensionOID.EXTENDED_KEY_USAGE: False,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER: False,
    }
    if SERVER in usages:
        wanted[ExtensionOID.SUBJECT_ALTERNATIVE_NAME] = False
    assert extensions(certificate) == wanted
    assert certificate.subject.rfc4514_string() == subject
    assert certificate.issuer.rfc4514_string() == f"CN={issuer}"
    extended = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(extended) == usages
    assert key_usage(certificate) == {"digital_signature"}
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_the_table_above_names_every_leaf(made: Made) -> None:
    (table,) = typing.cast("typing.Any", test_a_leaf_is_as_rfc_5280_wants_it).pytestmark
    assert {case.values[0] for case in table.args[1]} == set(made.leaves)


def test_key_identifiers_link_each_leaf_to_its_authority(made: Made) -> None:
    authorities = {pair.certificate.subject: pair for pair in made.authorities.values()}
    for pair in made.leaves.values():
        leaf = pair.certificate
        authority = authorities[leaf.issuer].certificate
        own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        linked = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        assert linked.key_identifier == own.digest
        leaf.verify_directly_issued_by(authority)


def test_every_key_is_another_ec_key_on_p256(made: Made) -> None:
    pairs = [*made.authorities.values(), *made.leaves.values()]
    numbers = {pair.key.private_numbers().private_value for pair in pairs}
    assert len(numbers) == len(pairs) == 14
    assert {pair.key.curve.name for pair in pairs} == {"secp256r1"}
    assert len({pair.certificate.serial_number for pair in pairs}) == len(pairs)
    for pair in pairs:
        assert pair.certificate.public_key() == pair.key.public_key()


def test_sans_are_names_and_addresses_once_each() -> None:
    authority = pki.make_authority("ca", now=NOW)
    leaf = pki.Leaf(
        name="x",
        authority="ca",
        common_name="x",
        sans=("localhost", "127.0.0.1", "*.p8s.example", "localhost", "::1"),
    )
    certificate = pki.make_leaf(leaf, authority, now=NOW).certificate
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.DNSName("*.p8s.example"),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]


def test_lifetimes_count_from_now_and_allow_for_a_clock_that_is_set_back_by_a_day() -> None:
    authority = pki.make_authority("ca", now=NOW)
    leaf = pki.make_leaf(pki.Leaf(name="x", authority="ca", common_name="x"), authority, now=NOW)
    for pair, days in ((authority, 3650), (leaf, 365)):
        certificate = pair.certificate
        assert certificate.not_valid_before_utc <= NOW - datetime.timedelta(days=1)
        assert certificate.not_valid_after_utc == NOW + datetime.timedelta(days=days)


def test_pem_forms_can_be_read_back() -> None:
    pair = pki.make_authority("ca", now=NOW)
    loaded = serialization.load_pem_private_key(pair.key_pem, password=None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    assert loaded.private_numbers() == pair.key.private_numbers()
    assert x509.load_pem_x509_certificate(pair.certificate_pem) == pair.certificate
    assert serialization.load_pem_public_key(pki.public_pem(pair.key)) == pair.key.public_key()


# --- whom TLS lets in


def make_tls(made: Made, protocol: int, *, own: str, trusted: str) -> ssl.SSLContext:
    """A strict context that shows `own` and demands a certificate of the other side."""
    context = ssl.SSLContext(protocol)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(made.directory / f"{trusted}.crt")
    (certificate,) = made.directory.rglob(f"{own}.crt")
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    return context


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, *, name: str) -> None:
    """A whole handshake in memory, and a byte each way, so that late alerts are seen."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    calling = client.wrap_bio(to_client, to_server, server_hostname=name)
    done = {"server": False, "client": False}
    for _ in range(10):
        for side, tls in (("client", calling), ("server", serving)):
            try:
                tls.do_handshake()
                done[side] = True
            except ssl.SSLWantReadError:
                continue
    assert done == {"server": True, "client": True}
    calling.write(b"?")
    assert serving.read(1) == b"?"
    serving.write(b"!")
    assert calling.read(1) == b"!"


@pytest.mark.parametrize(
    ("server", "client", "name", "authority"),
    [
        pytest.param("apiserver", "kubelet-client", "127.0.0.1", "ca", id="kubelet to apiserver"),
        pytest.param("apiserver", "controller-manager", "127.0.0.1", "ca", id="controllers"),
        pytest.param("apiserver", "scheduler", "localhost", "ca", id="scheduler"),
        pytest.param("apiserver", "admin", "kubernetes.default.svc", "ca", id="by service name"),
        pytest.param("apiserver", "admin", "192.168.254.1", "ca", id="by service address"),
        pytest.param("apiserver", "p8s", "172.17.0.2", "ca", id="by the node's address"),
        pytest.param("apiserver", "p8s", "p8s", "ca", id="by the node's name"),
        pytest.param("apiserver", "admin", "one.p8s.example", "ca", id="by an extra wildcard"),
        pytest.param("apiserver", "admin", "2001:db8::7", "ca", id="by an extra address"),
        pytest.param(
            "kubelet", "apiserver-kubelet-client", "172.17.0.2", "ca", id="apiserver to kubelet"
        ),
        pytest.param(
            "etcd-server", "apiserver-etcd-client", "127.0.0.1", "etcd-ca", id="apiserver to etcd"
        ),
        pytest.param("etcd-server", "etcd-server", "127.0.0.1", "etcd-ca", id="etcd to its peer"),
        pytest.param("controller-manager", "admin", "127.0.0.1", "ca", id="controllers' server"),
        pytest.param("scheduler", "admin", "localhost", "ca", id="scheduler's server"),
    ],
)
def test_strict_mutual_tls_works(
    made: Made, server: str, client: str, name: str, authority: str
) -> None:
    shake_hands(
        make_tls(made, ssl.PROTOCOL_TLS_SERVER, own=server, trusted=authority),
        make_tls(made, ssl.PROTOCOL_TLS_CLIENT, own=client, trusted=authority),
        name=name,
    )


@pytest.mark.parametrize(
    ("server", "client", "name", "trusted", "reason"),
    [
        pytest.param(
            "etcd-server",
            "admin",
            "127.0.0.1",
            ("etcd-ca", "etcd-ca"),
            "unable to get local issuer certificate",
            id="the administrator at etcd",
        ),
        pytest.param(
            "apiserver",
            "front-proxy-client",
            "127.0.0.1",
            ("ca", "ca"),
            "unable to get local issuer certificate",
            id="the front proxy as a client",
        ),
        pytest.param(
            "apiserver",
            "apiserver-etcd-client",
            "127.0.0.1",
            ("ca", "ca"),
            "unable to get local issuer certificate",
            id="etcd's client at the apiserver",
        ),
        pytest.param(
            "kubelet",
            "apiserver",
            "172.17.0.2",
            ("ca", "ca"),
            "unsuitable certificate purpose",
            id="a server as a client",
        ),
        pytest.param(
            "kubelet-client",
            "admin",
            "p8s",
            ("ca", "ca"),
            "unsuitable certificate purpose",
            id="a client as a server",
        ),
        pytest.param(
            "etcd-server",
            "apiserver-etcd-client",
            "127.0.0.1",
            ("etcd-ca", "ca"),
            "self-signed certificate in certificate chain",
            id="a server of another CA",
        ),
        pytest.param(
            "apiserver",
            "admin",
            "p8s.example",
            ("ca", "ca"),
            "Hostname mismatch, certificate is not valid for 'p8s.example'",
            id="another name",
        ),
        pytest.param(
            "etcd-server",
            "apiserver-etcd-client",
            "172.17.0.2",
            ("etcd-ca", "etcd-ca"),
            "IP address mismatch, certificate is not valid for '172.17.0.2'",
            id="etcd by another address than loopback",
        ),
    ],
)
def test_strict_mutual_tls_refuses(
    *, made: Made, server: str, client: str, name: str, trusted: tuple[str, str], reason: str
) -> None:
    of_server, of_client = trusted
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        shake_hands(
            make_tls(made, ssl.PROTOCOL_TLS_SERVER, own=server, trusted=of_server),
            make_tls(made, ssl.PROTOCOL_TLS_CLIENT, own=client, trusted=of_client),
            name=name,
        )
    assert caught.value.verify_message.startswith(reason)


# --- files


def test_keys_are_for_their_owner_alone(made: Made) -> None:
    files = [file for file in made.directory.rglob("*") if file.is_file()]
    modes = {file.name: file.stat().st_mode & 0o777 for file in files}
    names = [*made.authorities, *made.leaves]
    expected = {f"{name}.key": 0o600 for name in [*names, "sa"]}
    assert modes == expected | {f"{name}.crt": 0o644 for name in names} | {"sa.pub": 0o644}


def test_authorities_are_made_once_and_then_kept(tmp_path: pathlib.Path) -> None:
    made = pki.ensure_authorities(tmp_path, fresh=True, now=NOW)
    before = list_files(tmp_path)
    later = NOW + datetime.timedelta(days=30)
    for fresh in (False, True):
        kept = pki.ensure_authorities(tmp_path, fresh=fresh, now=later)
        assert {name: pair.certificate for name, pair in kept.items()} == {
            name: pair.certificate for name, pair in made.items()
        }
        assert {name: pair.key_pem for name, pair in kept.items()} == {
            name: pair.key_pem for name, pair in made.items()
        }
    assert list_files(tmp_path) == before
    assert sorted(before) == [
        "ca.crt",
        "ca.key",
        "etcd-ca.crt",
        "etcd-ca.key",
        "front-proxy-ca.crt",
        "front-proxy-ca.key",
        "sa.key",
        "sa.pub",
    ]


def test_the_service_account_key_has_its_public_half_beside_it(tmp_path: pathlib.Path) -> None:
    pki.ensure_authorities(tmp_path, fresh=True, now=NOW)
    (tmp_path / "sa.pub").unlink()
    pki.ensure_authorities(tmp_path, fresh=False, now=NOW)
    private = serialization.load_pem_private_key((tmp_path / "sa.key").read_bytes(), password=None)
    public = serialization.load_pem_public_key((tmp_path / "sa.pub").read_bytes())
    assert private.public_key() == public


def test_a_first_start_that_was_cut_off_is_completed(tmp_path: pathlib.Path) -> None:
    made = pki.ensure_authorities(tmp_path, fresh=True, now=NOW)
    for name in ("front-proxy-ca.crt", "front-proxy-ca.key", "sa.key"):
        (tmp_path / name).unlink()
    again = pki.ensure_authorities(tmp_path, fresh=True, now=NOW)
    assert again["ca"].certificate == made["ca"].certificate
    assert again["front-proxy-ca"].certificate != made["front-proxy-ca"].certificate
    assert (tmp_path / "sa.key").stat().st_mode & 0o777 == 0o600


def make_rsa_key() -> bytes:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def make_other_key() -> bytes:
    return pki.private_pem(ec.generate_private_key(ec.SECP256R1()))


def make_encrypted_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        *(
            pytest.param(name, None, "it is missing", id=f"{name} is missing")
            for name in (
                "ca.crt",
                "ca.key",
                "etcd-ca.crt",
                "etcd-ca.key",
                "front-proxy-ca.crt",
                "front-proxy-ca.key",
                "sa.key",
            )
        ),
        pytest.param("ca.crt", b"", "", id="an empty certificate"),
        pytest.param("etcd-ca.crt", b"not PEM", "", id="a certificate that is none"),
        pytest.param(
            "ca.crt",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "",
            id="a certificate of garbage",
        ),
        pytest.param("front-proxy-ca.key", b"", "", id="an empty key"),
        pytest.param("sa.key", b"not PEM", "", id="a service account key that is none"),
        pytest.param(
            "ca.key", make_other_key(), "it does not belong to ca.crt", id="the key of another CA"
        ),
        pytest.param("etcd-ca.key", make_rsa_key(), "not an EC key", id="an RSA key"),
        pytest.param("sa.key", make_rsa_key(), "not an EC key", id="an RSA service account key"),
        pytest.param("ca.key", make_encrypted_key(), "", id="an encrypted key"),
    ],
)
def test_damaged_authorities_are_refused_and_nothing_is_written(
    tmp_path: pathlib.Path, name: str, content: bytes | None, reason: str
) -> None:
    pki.ensure_authorities(tmp_path, fresh=True, now=NOW)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    before = list_files(tmp_path)
    with pytest.raises(errors.P8sError) as caught:
        pki.ensure_authorities(tmp_path, fresh=False, now=NOW)
    assert caught.value.message.startswith(f"{tmp_path / name} is damaged: {reason}")
    assert "put it back from a copy" in caught.value.hint
    assert list_files(tmp_path) == before


def test_an_empty_directory_of_a_cluster_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.P8sError, match="is damaged: it is missing"):
        pki.ensure_authorities(tmp_path / "pki", fresh=False, now=NOW)
    assert not (tmp_path / "pki").exists()


@pytest.mark.parametrize("name", ["ca", "etcd-ca", "front-proxy-ca"])
def test_an_expired_authority_is_told_with_its_date(tmp_path: pathlib.Path, name: str) -> None:
    pki.ensure_authorities(tmp_path, fresh=True, now=NOW)
    old = pki.make_authority("old", now=NOW - pki.CA_LIFETIME)
    (tmp_path / f"{name}.crt").write_bytes(old.certificate_pem)
    (tmp_path / f"{name}.key").write_bytes(old.key_pem)
    before = list_files(tmp_path)
    with pytest.raises(errors.P8sError) as caught:
        pki.ensure_authorities(tmp_path, fresh=False, now=NOW)
    assert caught.value.message == (
        f"{tmp_path / name}.crt has expired: the CA was good until {NOW:%Y-%m-%d %H:%M} UTC"
    )
    assert "a new volume" in caught.value.hint
    assert list_files(tmp_path) == before


@pytest.mark.parametrize(
    ("lifetime", "end"),
    [
        pytest.param(datetime.timedelta(minutes=2), NOW + datetime.timedelta(minutes=2), id="its"),
        pytest.param(pki.CA_LIFETIME * 2, NOW + pki.CA_LIFETIME, id="not beyond the CA's"),
    ],
)
def test_a_leaf_has_the_lifetime_that_is_asked_for(
    lifetime: datetime.timedelta, end: datetime.datetime
) -> None:
    authority = pki.make_authority("ca", now=NOW)
    leaf = pki.Leaf(name="x", authority="ca", common_name="x")
    made = pki.make_leaf(leaf, authority, now=NOW, lifetime=lifetime).certificate
    assert made.not_valid_after_utc == end
    assert made.not_valid_before_utc == NOW - pki.BACKDATED


def test_a_leaf_is_due_at_two_thirds_of_its_lifetime(tmp_path: pathlib.Path) -> None:
    authority = pki.make_authority("ca", now=NOW)
    leaf = pki.Leaf(name="x", authority="ca", common_name="x")
    lifetime = datetime.timedelta(hours=3)
    pki.write_leaves([leaf], {"ca": authority}, tmp_path, now=NOW, lifetime=lifetime)
    assert pki.renewal_due(tmp_path / "x.crt") == NOW + datetime.timedelta(hours=2)


def test_a_leaf_has_each_of_its_groups() -> None:
    authority = pki.make_authority("ca", now=NOW)
    leaf = pki.Leaf(name="x", authority="ca", common_name="jane", groups=("a", "b c"))
    subject = pki.make_leaf(leaf, authority, now=NOW).certificate.subject
    assert [(name.rfc4514_attribute_name, name.value) for name in subject] == [
        ("O", "a"),
        ("O", "b c"),
        ("CN", "jane"),
    ]


def test_leaves_are_made_anew_each_time(made: Made, tmp_path: pathlib.Path) -> None:
    leaf = pki.Leaf(name="admin", authority="ca", common_name="kubernetes-admin")
    first = pki.write_leaves([leaf], made.authorities, tmp_path, now=NOW)
    second = pki.write_leaves([leaf], made.authorities, tmp_path, now=NOW)
    assert first["admin"].key_pem != second["admin"].key_pem
    assert list_files(tmp_path) == {
        "admin.crt": second["admin"].certificate_pem,
        "admin.key": second["admin"].key_pem,
    }
