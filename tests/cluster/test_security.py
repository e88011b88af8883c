"""Who may what: RBAC, the kubelet's API, certificates, the front proxy, the HTTP API."""

from __future__ import annotations

import base64
import datetime
import http.client
import json
import pathlib
import socket
import ssl
import typing

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from p8s_supervisor import pki
from tests.cluster import nodes, pods


@pytest.fixture
def ca(admin: nodes.Kubectl, tmp_path: pathlib.Path) -> str:
    """A file with the cluster's CA."""
    file = tmp_path / "ca.crt"
    file.write_text(admin.read_ca())
    return str(file)


@pytest.fixture
def token(admin: nodes.Kubectl, namespace: str) -> str:
    """A token of the service account `robot`, which may do nothing."""
    admin("create", "serviceaccount", "robot")
    return admin("create", "token", "robot").strip()


def test_rbac_denies_and_grants(admin: nodes.Kubectl, namespace: str) -> None:
    admin("create", "serviceaccount", "robot")
    robot = f"--as=system:serviceaccount:{namespace}:robot"
    denied = admin.attempt("get", "pods", robot)
    assert denied.returncode == 1
    assert (
        f'User "system:serviceaccount:{namespace}:robot" cannot list resource "pods"'
        in denied.stderr
    )
    admin("create", "role", "reader", "--verb=list", "--resource=pods")
    admin("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:robot")
    assert admin.attempt("get", "pods", robot).returncode == 0
    assert admin.attempt("get", "secrets", robot).returncode == 1


def test_the_apiserver_knows_a_token_and_nobody_without(
    cluster: nodes.Node, token: str, namespace: str, ca: str
) -> None:
    url = f"https://127.0.0.1:{cluster.api_port}/api/v1/namespaces/{namespace}/pods"
    anonymous = requests.get(url, verify=ca, timeout=5)
    assert anonymous.status_code == 401, "refused before RBAC is asked"
    wrong = requests.get(url, verify=ca, timeout=5, headers={"Authorization": "Bearer x"})
    assert wrong.status_code == 401
    robot = requests.get(url, verify=ca, timeout=5, headers={"Authorization": f"Bearer {token}"})
    assert (robot.status_code, f"system:serviceaccount:{namespace}:robot" in robot.text) == (
        403,
        True,
    )


def test_a_role_binding_for_everybody_opens_nothing_without_credentials(
    cluster: nodes.Node, admin: nodes.Kubectl, namespace: str, ca: str
) -> None:
    url = f"https://127.0.0.1:{cluster.api_port}"
    role = ("--clusterrole=view", "--user=system:anonymous", "--group=system:unauthenticated")
    admin("create", "rolebinding", "everybody", *role)
    # In the group of those that may ask what they may.
    him = ("--as=system:anonymous", "--as-group=system:authenticated")
    may = admin.attempt("auth", "can-i", "list", "pods", *him)
    assert may.stdout.strip() == "yes", "RBAC would let him in"
    pods_url = f"{url}/api/v1/namespaces/{namespace}/pods"
    assert requests.get(pods_url, verify=ca, timeout=5).status_code == 401
    for path in ("/livez", "/readyz", "/healthz", "/version"):
        assert requests.get(url + path, verify=ca, timeout=5).status_code == 200, path
    # Of the issuer's addresses RBAC keeps the say.
    keys = requests.get(f"{url}/openid/v1/jwks", verify=ca, timeout=5)
    assert (keys.status_code, "system:anonymous" in keys.text) == (403, True)


def test_a_pod_that_forks_without_end_stops(
    cluster: nodes.Node, admin: nodes.Kubectl, namespace: str
) -> None:
    admin.apply(pods.sleeper("forks"))
    admin.await_ready("pod/forks")
    uid = admin("get", "pod", "forks", "--output=jsonpath={.metadata.uid}")
    found = cluster.execute("find", "/sys/fs/cgroup", "-path", f"*pod{uid}/pids.max").split()
    assert found
    assert [cluster.execute("cat", file).strip() for file in found] == ["16384"] * len(found)


def test_the_kubelet_asks_the_apiserver_who_calls_and_whether_he_may(
    cluster: nodes.Node, token: str, namespace: str, admin: nodes.Kubectl, ca: str
) -> None:
    url = f"https://{cluster.address}:10250/pods"
    as_robot = {"Authorization": f"Bearer {token}"}
    assert requests.get(url, verify=ca, timeout=5).status_code == 401, "without a token"
    invalid = requests.get(url, verify=ca, timeout=5, headers={"Authorization": "Bearer x"})
    assert invalid.status_code == 401
    denied = requests.get(url, verify=ca, timeout=5, headers=as_robot)
    assert denied.status_code == 403
    # The name comes from the webhook look-up (TokenReview): the token does not spell it like this.
    assert f"user=system:serviceaccount:{namespace}:robot" in denied.text
    role = nodes.unique("kubelet")
    admin("create", "clusterrole", role, "--verb=get", "--resource=nodes/proxy,nodes/pods")
    admin(
        "create",
        "clusterrolebinding",
        role,
        f"--clusterrole={role}",
        f"--serviceaccount={namespace}:robot",
    )
    try:
        # A refusal is cached for 30 s by default: another token is another question.
        fresh = admin("create", "token", "robot", "--duration=20m").strip()
        granted = requests.get(
            f"https://{cluster.address}:10250/runningpods/",
            verify=ca,
            timeout=5,
            headers={"Authorization": f"Bearer {fresh}"},
        )
        assert granted.status_code == 200, granted.text
        assert granted.json()["kind"] == "PodList"
    finally:
        admin("delete", "clusterrolebinding,clusterrole", role)


def test_a_node_may_touch_no_other_node(cluster: nodes.Node) -> None:
    """NodeRestriction and the Node authorizer, with the kubelet's own kubeconfig."""
    kubelet = ("kubectl", "--kubeconfig=/etc/kubernetes/kubelet.conf")
    own = cluster.execute(*kubelet, "get", "node", "p8s", "-o", "name")
    assert own.strip() == "node/p8s"
    script = " ".join(
        (*kubelet, "label", "node", "p8s", "node-restriction.kubernetes.io/x=y", "2>&1")
    )
    assert "is not allowed to modify labels" in cluster.execute("sh", "-c", f"{script} || true")
    script = " ".join((*kubelet, "get", "secrets", "--all-namespaces", "2>&1"))
    assert "Forbidden" in cluster.execute("sh", "-c", f"{script} || true")


@pytest.mark.parametrize("port", [6443, 10250], ids=["kube-apiserver", "kubelet"])
def test_serving_certificates_pass_strict_verification(
    cluster: nodes.Node, ca: str, port: int
) -> None:
    context = ssl.create_default_context(cafile=ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    for name in (cluster.address, "p8s", "localhost"):
        with (
            socket.create_connection((cluster.address, port), timeout=5) as connection,
            context.wrap_socket(connection, server_hostname=name) as tls,
        ):
            certificate = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)


def test_private_keys_are_for_root_alone(cluster: nodes.Node) -> None:
    files = cluster.execute(
        "sh", "-c", "grep -rl 'PRIVATE KEY' /etc/kubernetes /var/lib/p8s/pki /run/p8s || true"
    ).split()
    assert {pathlib.Path(file).name for file in files} >= {"ca.key", "sa.key", "apiserver.key"}
    kubeconfigs = cluster.execute(
        "sh", "-c", "grep -rlE 'client-key(-data)?' /etc/kubernetes /run/p8s || true"
    ).split()
    assert len(kubeconfigs) >= 4
    modes = cluster.execute("stat", "--format=%a %U %n", *files, *kubeconfigs).splitlines()
    assert [line for line in modes if not line.startswith("600 root")] == []


@pytest.mark.parametrize("url", ["https://127.0.0.1:2379/health", "https://127.0.0.1:2380/"])
def test_etcd_answers_nobody_without_a_certificate(cluster: nodes.Node, url: str) -> None:
    script = (
        "import ssl, sys, urllib.request\n"
        "context = ssl._create_unverified_context()\n"
        "try: print(urllib.request.urlopen(sys.argv[1], context=context, timeout=3).status)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    told = cluster.execute("python3", "-c", script, url)
    assert "CERTIFICATE_REQUIRED" in told.upper().replace(" ", "_"), told


@pytest.mark.parametrize("port", [2379, 2380, 10248, 10249, 10256, 10257, 10259])
def test_the_nodes_own_ports_are_not_for_others(cluster: nodes.Node, port: int) -> None:
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((cluster.address, port), timeout=3)


def test_nothing_but_the_two_ports_is_published_and_only_on_loopback(cluster: nodes.Node) -> None:
    bindings = json.loads(cluster.inspect("{{json .NetworkSettings.Ports}}"))
    published = {port: bound for port, bound in bindings.items() if bound}
    assert set(published) == {"6443/tcp", "8989/tcp"}
    assert {entry["HostIp"] for bound in published.values() for entry in bound} == {"127.0.0.1"}


def test_supervisord_answers_on_a_private_unix_socket_alone(cluster: nodes.Node) -> None:
    assert (
        cluster.execute("stat", "--format=%a %F", "/run/p8s/supervisor.sock").strip()
        == "700 socket"
    )
    assert cluster.execute("stat", "--format=%a", "/run/p8s").strip() == "700"
    command = cluster.execute("cat", "/proc/1/cmdline")
    assert "p8s_supervisor.init" in command
    listening = cluster.execute("cat", "/proc/net/tcp", "/proc/net/tcp6")
    assert ":2329" not in listening, "9001, supervisord's usual port"


# An API server behind the aggregation layer: it takes only callers with a certificate of the
# front proxy's CA, and answers who the front proxy says is calling.
EXTENSION = """
import http.server, json, ssl
GROUP = "test.p8s.local"
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path.startswith(f"/apis/{GROUP}/v1/whoami"):
            body = {"user": self.headers.get("X-Remote-User"),
                    "groups": self.headers.get_all("X-Remote-Group"),
                    "proxy": dict(entry[0] for entry in self.connection.getpeercert()["subject"])}
        else:
            body = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/v1",
                    "resources": []}
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile="/tmp/tls/front-proxy-ca.crt")
context.verify_mode = ssl.CERT_REQUIRED
context.load_cert_chain("/tmp/tls/tls.crt", "/tmp/tls/tls.key")
server = http.server.ThreadingHTTPServer(("", 8443), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def test_the_aggregation_layer_passes_the_callers_name_on(
    admin: nodes.Kubectl, namespace: str
) -> None:
    now = datetime.datetime.now(datetime.UTC)
    authority = pki.make_authority("extension", now=now)
    serving = pki.make_leaf(
        pki.Leaf(
            name="extension",
            authority="extension",
            common_name="extension",
            sans=(f"extension.{namespace}.svc",),
        ),
        authority,
        now=now,
    )
    shown = admin.get("configmap", "extension-apiserver-authentication", "--namespace=kube-system")
    secret: pods.Manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "tls"},
        "stringData": {
            "tls.crt": serving.certificate_pem.decode(),
            "tls.key": serving.key_pem.decode(),
            "front-proxy-ca.crt": shown["data"]["requestheader-client-ca-file"],
        },
    }
    extension = pods.pod("extension", pods.python(EXTENSION))
    extension["spec"]["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 8443}}
    extension["spec"]["volumes"].append({"name": "tls", "secret": {"secretName": "tls"}})
    extension["spec"]["containers"][0]["volumeMounts"].append(
        {"name": "tls", "mountPath": "/tmp/tls"}
    )
    admin.apply(secret, extension, pods.service("extension", port=443, target=8443))
    admin.await_ready("pod/extension")
    api_service: pods.Manifest = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1.test.p8s.local"},
        "spec": {
            "group": "test.p8s.local",
            "version": "v1",
            "groupPriorityMinimum": 1000,
            "versionPriority": 10,
            "service": {"name": "extension", "namespace": namespace},
            "caBundle": base64.b64encode(authority.certificate_pem).decode(),
        },
    }
    admin.apply(api_service)
    try:
        admin("wait", "--for=condition=Available", "apiservice/v1.test.p8s.local", "--timeout=60s")
        told = json.loads(admin("get", "--raw", "/apis/test.p8s.local/v1/whoami"))
    finally:
        admin("delete", "apiservice", "v1.test.p8s.local")
    assert told["user"] == "kubernetes-admin"
    assert "system:masters" in told["groups"]
    assert told["proxy"] == {"commonName": "front-proxy-client"}


REFUSED: list[tuple[str, str, dict[str, str], int]] = [
    ("POST", "/stop", {"Origin": "https://example.org"}, 403),
    ("POST", "/stop", {"Sec-Fetch-Site": "cross-site"}, 403),
    ("POST", "/stop", {"Host": "rebound.example.org"}, 403),
    ("GET", "/kubeconfig", {"Origin": "https://example.org"}, 403),
    ("GET", "/kubeconfig", {"Host": "rebound.example.org:8989"}, 403),
    ("GET", "/status", {"Host": "rebound.example.org"}, 403),
    ("GET", "/stop", {}, 405),
    ("GET", "/no-such-thing", {}, 404),
]


@pytest.mark.parametrize(("method", "path", "headers", "code"), REFUSED)
def test_web_pages_cannot_use_the_http_api(
    cluster: nodes.Node, method: str, path: str, headers: dict[str, str], code: int
) -> None:
    answer = requests.request(method, cluster.url(path), headers=headers, timeout=5)
    assert answer.status_code == code
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert cluster.get("/ready").status_code == 200


def test_a_pod_may_look_and_nothing_more(
    cluster: nodes.Node, admin: nodes.Kubectl, namespace: str
) -> None:
    script = """
import sys, urllib.error, urllib.request
for method, path in (("GET", "/ready"), ("GET", "/kubeconfig"), ("POST", "/stop")):
    request = urllib.request.Request(sys.argv[1] + path, method=method)
    try:
        print(urllib.request.urlopen(request, timeout=5).status)
    except urllib.error.HTTPError as error:
        print(error.code)
"""
    admin.apply(pods.sleeper("client"))
    admin.await_ready("pod/client")
    base = f"http://{cluster.address}:8989"
    told = admin("exec", "client", "--", *pods.python(script, base)).split()
    assert told == ["200", "401", "401"]
    token = cluster.execute("cat", "/run/p8s/token").strip()
    opener = (
        "import sys, urllib.request; print(urllib.request.urlopen(urllib.request.Request("
        "sys.argv[1], headers={'Authorization': 'Bearer ' + sys.argv[2]})).status)"
    )
    told = admin("exec", "client", "--", *pods.python(opener, f"{base}/kubeconfig", token)).split()
    assert told == ["200"]


def test_metrics_are_in_prometheus_format(cluster: nodes.Node) -> None:
    answer = cluster.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    samples = dict(
        line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#")
    )
    assert samples["p8s_ready"] == "1.0"
    assert float(samples["p8s_running_pods"]) >= 5
    versions: dict[str, typing.Any] = cluster.status()["versions"]
    assert f'kubernetes="{versions["kubernetes"]}"' in answer.text


def test_a_request_that_never_ends_does_not_keep_others_out(cluster: nodes.Node) -> None:
    connections = [http.client.HTTPConnection("127.0.0.1", cluster.http_port) for _ in range(20)]
    try:
        for connection in connections:
            connection.connect()
            connection.sock.send(b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        assert cluster.get("/livez").status_code == 200
    finally:
        for connection in connections:
            connection.close()
