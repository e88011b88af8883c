"""The add-on metrics: its serving certificate, and whether kube-apiserver passes its API on."""

from __future__ import annotations

import base64
import datetime

from p8s_supervisor import context, errors, pki

API_SERVICE, API = "v1beta1.metrics.k8s.io", "/apis/metrics.k8s.io/v1beta1"
# The name that kube-apiserver calls a Service's pods by.
# Source: k8s.io/kube-aggregator/pkg/apiserver/handler_proxy.go.
LEAF = pki.Leaf(
    name="metrics-server",
    authority=pki.CLUSTER,
    common_name="metrics-server",
    sans=("metrics-server.p8s-metrics.svc",),
    client=False,
)


def values(run: context.Context) -> dict[str, str]:
    """A serving certificate with its key, and the CA that kube-apiserver checks it by; base64.

    Made anew whenever the manifests are applied, and good for as long as the CA: nothing renews it.
    metrics-server reads it again by itself, and the one before stays good.

    Raises:
        P8sError: what is kept of the PKI is damaged, or a CA has expired.
    """
    now = datetime.datetime.now(datetime.UTC)
    kept = run.plan.paths.authorities
    authority = pki.ensure_authorities(kept, fresh=False, now=now)[pki.CLUSTER]
    made = pki.make_leaf(LEAF, authority, now=now, lifetime=pki.CA_LIFETIME)
    found = {
        "METRICS_CA": authority.certificate_pem,
        "METRICS_CERTIFICATE": made.certificate_pem,
        "METRICS_KEY": made.key_pem,
    }
    return {name: base64.b64encode(pem).decode() for name, pem in found.items()}


def find_lack(run: context.Context) -> str | None:
    """Why kube-apiserver does not pass its API on; None where it does.

    The APIService has the reason, and is not enough: until 1.35 it is called available without a look at
    the certificate. Source: k8s.io/kube-aggregator/pkg/controllers/status/remote.
    """
    if run.client is None:
        return "kube-apiserver is not started yet"
    try:
        found = run.client.get(f"/apis/apiregistration.k8s.io/v1/apiservices/{API_SERVICE}")
        conditions = {each["type"]: each for each in found.get("status", {}).get("conditions", [])}
        available = conditions.get("Available")
        if available is None:
            return f"APIService {API_SERVICE}: kube-apiserver has not looked at it yet"
        if available["status"] != "True":
            return f"APIService {API_SERVICE}: {available.get('message')}"
        run.client.request("GET", API)
    except errors.KubeError as error:
        return error.message
    return None
