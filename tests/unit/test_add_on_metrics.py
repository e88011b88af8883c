"""The add-on metrics: whom its certificate convinces, and what is told while its API is not passed on."""

from __future__ import annotations

import base64
import datetime
import json
import pathlib

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import verification

from p8s_supervisor import add_on_metrics, context, errors, manifests, pki
from tests import fakes

PATH = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io"
API = "/apis/metrics.k8s.io/v1beta1"
NAME = "metrics-server.p8s-metrics.svc"


@pytest.fixture
def run(tmp_path: pathlib.Path) -> context.Context:
    """A run with CAs."""
    made = fakes.make_context(tmp_path)
    now = datetime.datetime.now(datetime.UTC)
    pki.ensure_authorities(made.plan.paths.authorities, fresh=True, now=now)
    return made


def decode(run: context.Context) -> tuple[x509.Certificate, x509.Certificate, bytes]:
    """The CA, the certificate and the key (PEM) of an application."""
    found = {name: base64.b64decode(text) for name, text in add_on_metrics.values(run).items()}
    authority = x509.load_pem_x509_certificate(found["METRICS_CA"])
    certificate = x509.load_pem_x509_certificate(found["METRICS_CERTIFICATE"])
    return authority, certificate, found["METRICS_KEY"]


def verify(authority: x509.Certificate, certificate: x509.Certificate, name: str) -> None:
    """As a TLS client does; raises VerificationError."""
    builder = verification.PolicyBuilder().store(verification.Store([authority]))
    builder.build_server_verifier(x509.DNSName(name)).verify(certificate, [])


def test_the_certificate_is_of_the_cluster_ca_for_the_service(run: context.Context) -> None:
    authority, certificate, key = decode(run)
    kept = (run.plan.paths.authorities / "ca.crt").read_bytes()
    assert authority == x509.load_pem_x509_certificate(kept)
    verify(authority, certificate, NAME)
    loaded = serialization.load_pem_private_key(key, password=None)
    assert loaded.public_key() == certificate.public_key()


def test_it_is_good_for_no_other_name(run: context.Context) -> None:
    authority, certificate, _ = decode(run)
    with pytest.raises(verification.VerificationError):
        verify(authority, certificate, "kubernetes.default.svc")


def test_it_is_good_for_as_long_as_the_ca(run: context.Context) -> None:
    authority, certificate, _ = decode(run)
    assert certificate.not_valid_after_utc == authority.not_valid_after_utc


def test_a_damaged_ca_is_told(run: context.Context) -> None:
    (run.plan.paths.authorities / "ca.key").write_text("nothing")
    with pytest.raises(errors.P8sError, match=r"ca\.key is damaged"):
        add_on_metrics.values(run)


def test_the_manifests_have_all_that_they_name(run: context.Context) -> None:
    values = manifests.values(run.plan) | add_on_metrics.values(run)
    found = {
        document["kind"]: document
        for documents in manifests.add_on_by_file("metrics", values).values()
        for document in documents
    }
    # Nothing is skipped, neither on the way to kubelet nor on the way to it.
    command = found["Deployment"]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert not [flag for flag in command if "insecure" in flag]
    assert [flag for flag in command if flag.startswith("--kubelet-certificate-authority=")]
    api = found["APIService"]["spec"]
    assert api["caBundle"] == values["METRICS_CA"]
    assert "insecureSkipTLSVerify" not in api
    service = api["service"]
    assert f"{service['name']}.{service['namespace']}.svc" == NAME
    assert list(found)[-1] == "APIService"


def test_the_rights_are_those_that_it_needs(run: context.Context) -> None:
    values = manifests.values(run.plan) | add_on_metrics.values(run)
    text = manifests.render(manifests.DIRECTORY / "add-ons/metrics/10-metrics-server.yaml", values)
    (own,) = [
        document["rules"]
        for document in yaml.safe_load_all(text)
        if document["kind"] == "ClusterRole"
        and document["metadata"]["name"] == "system:metrics-server"
    ]
    verbs = {resource: rule["verbs"] for rule in own for resource in rule["resources"]}
    watched = ["list", "watch"]
    assert verbs == {"nodes/metrics": ["get"], "pods": watched, "nodes": watched}


def answer(status: str, message: str = "") -> str:
    condition = {"type": "Available", "status": status, "message": message}
    return json.dumps({"status": {"conditions": [condition]}})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        pytest.param(answer("True", "all checks passed"), None, id="available"),
        pytest.param(
            answer("False", "x509: certificate signed by unknown authority"),
            "APIService v1beta1.metrics.k8s.io: x509: certificate signed by unknown authority",
            id="not trusted",
        ),
        pytest.param(
            "{}",
            "APIService v1beta1.metrics.k8s.io: kube-apiserver has not looked at it yet",
            id="new",
        ),
        pytest.param(errors.KubeError("not found", status=404), "not found", id="deleted"),
    ],
)
def test_what_is_missing(run: context.Context, given: fakes.Answer, told: str | None) -> None:
    run.client = fakes.KubeClient({f"GET {PATH}": [given], f"GET {API}": ["{}"]})
    assert add_on_metrics.find_lack(run) == told


def test_kube_apiserver_calls_it_available_and_passes_nothing_on(run: context.Context) -> None:
    """As 1.35's does where it does not trust the certificate."""
    refused = errors.KubeError("error trying to reach service: x509: unknown", status=503)
    available = answer("True", "all checks passed")
    run.client = fakes.KubeClient({f"GET {PATH}": [available], f"GET {API}": [refused]})
    assert add_on_metrics.find_lack(run) == refused.message


def test_no_apiserver_yet(run: context.Context) -> None:
    assert add_on_metrics.find_lack(run) == "kube-apiserver is not started yet"
