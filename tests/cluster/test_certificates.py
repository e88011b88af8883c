"""Certificates that end within minutes, and the audit log, in a cluster that waits while others run.

Its first test is the first of all, before those that need no cluster, and its last one the last (the
mark `turn`): a certificate is good for two minutes at least, and its end is not waited for by anybody
who has something else to do. By its name the rest comes before the tests with the most clusters.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import json
import pathlib
import time
import typing

import pytest
from cryptography import x509

from p8s_supervisor import wait
from tests.cluster import conftest, nodes, pods, test_users

ASK_ETCD = """
from p8s_supervisor import components, credentials, node, paths, settings
places = paths.Paths()
chosen = settings.from_json(places.settings.read_text()).settings
store = credentials.connect_etcd(components.Plan(chosen, node.find_facts(), places))
print(store.has("/registry/namespaces/default"))
"""
RENEWED, AGAIN = "certificates: renewed", "kubelet is started again, for its new certificate"
# The minor whose kubelet is started again at a renewal. See docs/versions.md.
KUBELET_STARTED_AGAIN = "1.35"
Moments = dict[str, datetime.datetime]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Begun:
    """A cluster whose certificates are good for two minutes, as it was when it was new.

    Attributes:
        node: its node.
        admin: an administrator's kubeconfig of then.
        user: one that was good for a minute.
        named: a kubeconfig for another name.
        ends: when each certificate ends.
        restarts: of the containers of kube-system.
    """

    node: nodes.Node
    admin: nodes.Kubectl
    user: nodes.Kubectl
    named: str
    ends: Moments
    restarts: dict[str, int]


@pytest.fixture(scope="session")
def begun(
    make_kubectl: conftest.MakeKubectl,
    kubectl_program: pathlib.Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> typing.Iterator[Begun]:
    with nodes.run("--cert-lifetime=2m", "--audit=request-response") as node:
        node.await_ready()
        admin = make_kubectl(node)
        short = tmp_path_factory.mktemp("short") / "config"
        answer = test_users.ask(node, name="short", groups=["system:masters"], ttl="1m")
        short.write_text(answer.text)
        user = nodes.Kubectl(kubectl_program, short)
        user("get", "pods")
        yield Begun(
            node=node,
            admin=admin,
            user=user,
            named=node.get("/kubeconfig?host=kept.example").text,
            ends=read_ends(node),
            restarts=read_restarts(admin),
        )


@pytest.fixture(scope="session")
def stopped(begun: Begun) -> Moments:
    """The cluster is stopped: when the certificates end that it had at last."""
    ends = read_ends(begun.node)
    nodes.docker("stop", "--time=60", begun.node.name)
    return ends


def read_ends(node: nodes.Node) -> Moments:
    """The end of each certificate in the node."""
    script = (
        "cd /etc/kubernetes/pki; for f in $(find . -name '*.crt'); do echo \"= $f\"; cat $f; done"
    )
    found = {}
    for part in node.execute("sh", "-c", script).split("= ./")[1:]:
        name, _, pem = part.partition("\n")
        found[name] = x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc
    return found


def is_leaf(name: str) -> bool:
    """Whether a certificate is no CA's."""
    return not name.endswith("ca.crt")


def sleep_until_all_have_ended(ends: Moments, *, seconds: float) -> None:
    """Return so long after the end of the last certificate but the CAs'."""
    last = max(moment for name, moment in ends.items() if is_leaf(name))
    left = (last - datetime.datetime.now(datetime.UTC)).total_seconds() + seconds
    time.sleep(max(left, 0))


def await_renewal(node: nodes.Node) -> None:
    """Return after the next renewal, and kubelet's start after it: there is none for a minute then."""
    before = node.count_restarts()["kubelet"]
    wait.until(
        lambda: None if node.count_restarts()["kubelet"] > before else node.logs(),
        awaited="the next renewal",
        seconds=120,
        interval=0.5,
    )
    node.await_ready()


def read_restarts(admin: nodes.Kubectl) -> dict[str, int]:
    return {
        pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["restartCount"]
        for pod in admin.get("pods", "--namespace=kube-system")["items"]
    }


def check_everything_works(node: nodes.Node, admin: nodes.Kubectl, name: str) -> None:
    """New pods run, and what passes kube-apiserver to kubelet does too."""
    admin.apply(pods.pod(name, ["sh", "-c", "echo hello; exec sleep 600"]))
    admin.await_ready(f"pod/{name}")
    assert admin("logs", name) == "hello\n"
    assert admin("exec", name, "--", "echo", "there") == "there\n"
    admin("create", "deployment", f"{name}-many", "--image=p8s.local/pause:1")
    admin("rollout", "status", f"deployment/{name}-many", "--timeout=60s")
    assert node.get("/ready").status_code == 200
    assert node.execute("kubectl", "get", "nodes", "--output=name").strip() == "node/p8s"
    # A new connection, with a new handshake: the components' own may be older than the renewal.
    assert node.execute("python3", "-P", "-c", ASK_ETCD).strip() == "True"


# --- the audit log


def read_audit_log(node: nodes.Node) -> list[dict[str, typing.Any]]:
    lines = node.execute("cat", "/var/log/p8s/audit.log").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


@pytest.mark.turn(-1)
def test_the_audit_log_tells_who_did_what(begun: Begun, make_kubectl: conftest.MakeKubectl) -> None:
    """With bodies; no Secret's content, and no noise."""
    node, admin = begun.node, make_kubectl(begun.node)
    admin("create", "configmap", "told", "--from-literal=key=a-value-to-see")
    admin("create", "secret", "generic", "untold", "--from-literal=key=a-value-to-hide")
    token = admin("create", "token", "default").strip()
    time.sleep(0.5)
    entries = read_audit_log(node)
    text = json.dumps(entries)
    assert "a-value-to-see" in text
    hidden = base64.b64encode(b"a-value-to-hide").decode()
    assert not [secret for secret in ("a-value-to-hide", hidden, token) if secret in text]
    about = {
        (entry["verb"], (entry.get("objectRef") or {}).get("resource"), entry["level"])
        for entry in entries
        if entry["user"]["username"] == "kubernetes-admin"
    }
    assert ("create", "configmaps", "RequestResponse") in about
    assert ("create", "secrets", "Metadata") in about
    assert ("create", "serviceaccounts", "Metadata") in about
    assert not [entry for entry in entries if entry["stage"] == "RequestReceived"]
    resources = {(entry.get("objectRef") or {}).get("resource") for entry in entries}
    assert not resources & {"leases", "events"}


def test_without_the_setting_there_is_no_audit_log(cluster: nodes.Node) -> None:
    assert "audit" not in cluster.execute("ls", "/var/log/p8s", "/etc/kubernetes")


# --- renewal


def test_certificates_are_renewed(begun: Begun, make_kubectl: conftest.MakeKubectl) -> None:
    node = begun.node
    sleep_until_all_have_ended(begun.ends, seconds=8)
    assert "must be logged in" in begun.user.attempt("get", "pods").stderr, "expired long since"
    assert begun.admin.attempt("get", "pods").returncode == 1, "so has what was handed out first"
    if node.minor == KUBELET_STARTED_AGAIN:
        await_renewal(node)
    now = read_ends(node)
    assert {name for name in begun.ends if now[name] > begun.ends[name]} == set(
        filter(is_leaf, begun.ends)
    )
    admin = make_kubectl(node)
    check_everything_works(node, admin, "renewed")
    assert read_restarts(admin).items() >= begun.restarts.items()
    restarts = node.count_restarts()
    assert restarts
    # None was started again, but the kubelet that has a new certificate in no other way.
    again = node.logs().count(AGAIN)
    assert restarts == dict.fromkeys(restarts, 0) | {"kubelet": again}
    assert (again > 0) == (node.minor == KUBELET_STARTED_AGAIN), node.logs()
    assert RENEWED in node.logs()


def test_a_cluster_with_renewed_certificates_stops(begun: Begun, stopped: Moments) -> None:
    """In order, which takes them; the last test needs it to be stopped for two minutes."""
    assert stopped
    assert begun.node.inspect("{{.State.ExitCode}}") == "0", begun.node.logs()


@pytest.mark.turn(1)
def test_a_start_after_all_have_ended(
    begun: Begun, stopped: Moments, make_kubectl: conftest.MakeKubectl
) -> None:
    node = begun.node
    sleep_until_all_have_ended(stopped, seconds=2)
    nodes.docker("start", node.name)
    node.await_ready()
    check_everything_works(node, make_kubectl(node), "late")
    _, ca = test_users.read_config(begun.named)
    assert test_users.verify(node.api_port, ca, "kept.example") is None
