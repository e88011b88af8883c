"""The CA bundle: checked, and added to what the node trusts."""

from __future__ import annotations

import datetime
import pathlib

import pytest

from p8s_supervisor import pki, trust
from tests import fakes

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def pair() -> pki.Pair:
    return pki.make_authority("a company", now=NOW)


def test_certificates_among_comments_are_right(tmp_path: pathlib.Path, pair: pki.Pair) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes("Büro\n".encode("latin-1") + pair.certificate_pem * 2)
    assert trust.find_bundle_mistake(file) is None


def test_what_is_no_bundle(tmp_path: pathlib.Path, pair: pki.Pair) -> None:
    told = {}
    for name, content in (
        ("empty", b""),
        ("text", b"hello"),
        ("cut", pair.certificate_pem[:200]),
        ("key", pair.certificate_pem + pair.key_pem),
        ("large", pair.certificate_pem + b"#" * trust.MOST_BYTES),
    ):
        (tmp_path / name).write_bytes(content)
        told[name] = trust.find_bundle_mistake(tmp_path / name)
    told["none"] = trust.find_bundle_mistake(tmp_path / "absent")
    told["directory"] = trust.find_bundle_mistake(tmp_path)
    no_pem = "no PEM file with certificates (-----BEGIN CERTIFICATE-----)"
    assert told == {
        "empty": no_pem,
        "text": no_pem,
        "cut": no_pem,
        "key": "it holds a private key: leave only certificates in it",
        "large": "larger than 900 KiB, which a ConfigMap has no room for",
        "none": "cannot be read: No such file or directory; mount a PEM file there",
        "directory": "a directory: docker makes one where the host has no such file; mount a PEM "
        "file",
    }


def test_the_bundle_is_added_once(tmp_path: pathlib.Path) -> None:
    """Also by a start of the same container with another bundle."""
    plan = fakes.make_plan(tmp_path)
    plan.paths.certificates.parent.mkdir(parents=True)
    plan.paths.certificates.write_bytes(b"public\n")
    trust.install(plan)
    assert plan.paths.certificates.read_bytes() == b"public\n"
    bundle = tmp_path / "etc/p8s/ca-bundle.pem"
    bundle.parent.mkdir(parents=True)
    for content in (b"one\n", b"two\n"):
        bundle.write_bytes(content)
        trust.install(plan)
        assert plan.paths.certificates.read_bytes() == b"public\n" + trust.MARK + content
