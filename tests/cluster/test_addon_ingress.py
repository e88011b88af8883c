"""The add-on ingress through its published ports: the objects are those of docs/ingress.md."""

from __future__ import annotations

import dataclasses
import datetime
import http.client
import os
import pathlib
import re
import secrets
import socket
import ssl
import subprocess
import typing

import pytest
import requests
import urllib3
import yaml

from p8s_supervisor import pki, wait
from tests.cluster import conftest, nodes, pods, talk

ROOT = pathlib.Path(__file__).parents[2]
# For an answer, and for a change until Traefik has seen it.
SECONDS = 10.0
NAMES = ("shop.localhost", "blog.localhost", "grpc.localhost", "calls.localhost")

# Source: RFC 6455, 1.3.
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

# Answers with its name, the caller's X-Forwarded-For and the path; a websocket gets back what it sends.
SERVE = """
import base64, hashlib, http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        key = self.headers.get("Sec-WebSocket-Key")
        if key is not None:
            return self.echo(key)
        body = " ".join((sys.argv[1], self.headers.get("X-Forwarded-For", "-"), self.path)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def echo(self, key):
        found = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(found).decode())
        self.end_headers()
        self.close_connection = True
        while len(head := self.rfile.read(2)) == 2 and head[0] & 15 != 8:
            mask = self.rfile.read(4)
            sent = self.rfile.read(head[1] & 127)
            body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(sent))
            self.wfile.write(bytes([0x81, len(body)]) + body)
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""

# Prints what a URL answers to a name.
FETCH_NAME = """
import sys, urllib.request
asked = urllib.request.Request(sys.argv[1], headers={"Host": sys.argv[2]})
print(urllib.request.urlopen(asked, timeout=5).read().decode())
"""

# A real gRPC server without TLS.
ETCD = (
    "etcd",
    "--data-dir=/tmp/etcd",
    "--listen-client-urls=http://0.0.0.0:2379",
    "--advertise-client-urls=http://127.0.0.1:2379",
    "--listen-peer-urls=http://127.0.0.1:2380",
    "--unsafe-no-fsync",
)


@dataclasses.dataclass(frozen=True)
class Door:
    """A cluster with the add-on, and where its ports are published.

    Attributes:
        authority: the file of the CA that has signed for `NAMES`.
    """

    node: nodes.Node
    http_port: int
    https_port: int
    authority: pathlib.Path

    def get(self, name: str, path: str = "/", *, tls: bool = False) -> urllib3.BaseHTTPResponse:
        """What a name answers, whatever it is."""
        pool: urllib3.HTTPConnectionPool
        if tls:
            pool = urllib3.HTTPSConnectionPool(
                "127.0.0.1",
                self.https_port,
                timeout=SECONDS,
                ca_certs=str(self.authority),
                server_hostname=name,
                assert_hostname=name,
            )
        else:
            pool = urllib3.HTTPConnectionPool("127.0.0.1", self.http_port, timeout=SECONDS)
        with pool:
            return pool.request("GET", path, headers={"Host": name}, retries=False)

    def await_status(self, status: int, name: str, path: str = "/", *, tls: bool = False) -> str:
        """What a name answers, from the moment that it does so with this status."""
        said: list[str] = []

        def look() -> str | None:
            try:
                answer = self.get(name, path, tls=tls)
            except urllib3.exceptions.HTTPError as error:
                return str(error)
            said.append(answer.data.decode(errors="replace"))
            return None if answer.status == status else f"{answer.status} {said[-1]}"

        wait.until(look, awaited=f"{status} by {name}{path}", seconds=SECONDS)
        return said[-1]

    def connect(self, name: str, *, tls: bool) -> socket.socket:
        """A connection, as a client has it that asks for a name."""
        port = self.https_port if tls else self.http_port
        link = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        if not tls:
            return link
        context = ssl.create_default_context(cafile=str(self.authority))
        return context.wrap_socket(link, server_hostname=name)

    def call(self, name: str, *command: str) -> str:
        """etcdctl on the host's network, for which a name is this host."""
        return nodes.docker(
            "run",
            "--rm",
            "--network=host",
            f"--add-host={name}:127.0.0.1",
            f"--volume={self.authority}:/ca.crt:ro",
            "--entrypoint=etcdctl",
            nodes.FULL_IMAGE,
            f"--endpoints=https://{name}:{self.https_port}",
            "--cacert=/ca.crt",
            "--dial-timeout=5s",
            "--command-timeout=5s",
            *command,
            seconds=20,
        )


def read_documented() -> list[pods.Manifest]:
    """The objects of the document."""
    text = (ROOT / "docs/ingress.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [found for found in map(yaml.safe_load, blocks) if "kind" in found]


def make_secret(authority: pki.Pair) -> pods.Manifest:
    """The Secret of the document, with a new certificate for `NAMES`."""
    leaf = pki.Leaf(name="shop", authority="", common_name="shop", sans=NAMES, client=False)
    made = pki.make_leaf(leaf, authority, now=datetime.datetime.now(datetime.UTC))
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "shop-tls"},
        "type": "kubernetes.io/tls",
        "stringData": {
            "tls.crt": made.certificate_pem.decode(),
            "tls.key": made.key_pem.decode(),
        },
    }


@pytest.fixture(scope="module")
def authority() -> pki.Pair:
    return pki.make_authority("a test's", now=datetime.datetime.now(datetime.UTC))


@pytest.fixture(scope="module")
def door(authority: pki.Pair, tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[Door]:
    """The default cluster with the project's overlay."""
    file = tmp_path_factory.mktemp("authority") / "ca.crt"
    file.write_bytes(authority.certificate_pem)
    project = nodes.unique("p8s-test")
    http_api, api, web, websecure = (nodes.free_port() for _ in range(4))
    environment = os.environ | {
        "COMPOSE_PROJECT_NAME": project,
        "P8S_IMAGE": nodes.FULL_IMAGE,
        "P8S_HTTP_PORT": str(http_api),
        "P8S_API_PORT": str(api),
        "P8S_INGRESS_HTTP_PORT": str(web),
        "P8S_INGRESS_HTTPS_PORT": str(websecure),
    }

    def compose(*arguments: str) -> None:
        files = ("--file=docker-compose.yml", "--file=compose/ingress.yml")
        done = subprocess.run(
            ["docker", "compose", *files, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=nodes.START_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    try:
        compose("up", "--detach")
        node = nodes.Node(f"{project}-p8s-1", http_api, api)
        node.await_ready()
        yield Door(node, web, websecure, file)
    finally:
        compose("down", "--volumes", "--timeout=0")


@pytest.fixture(scope="module")
def kubectl(door: Door, authority: pki.Pair, make_kubectl: conftest.MakeKubectl) -> nodes.Kubectl:
    """The documented objects in the default namespace, and their pods; all of them are served."""
    found = make_kubectl(door.node)
    ready = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    shop = pods.pod("shop", pods.python(SERVE, "shop"), readinessProbe=ready)
    listening = {"tcpSocket": {"port": 2379}, "periodSeconds": 1}
    grpc = pods.pod("grpc", list(ETCD), readinessProbe=listening)
    found.apply(make_secret(authority), shop, pods.service("shop"), grpc, *read_documented())
    found.await_ready("pod/shop", "pod/grpc")
    door.await_status(200, "shop.localhost")
    door.await_status(200, "shop.localhost", tls=True)
    return found


def test_it_is_there_when_the_cluster_is_ready(door: Door) -> None:
    """/ready is green: Traefik answers, and knows no rule."""
    answer = door.get("nobody.localhost")
    assert (answer.status, answer.data) == (404, b"404 page not found\n")
    known = {one["name"]: one for one in door.node.get("/addons").json()["addons"]}
    assert known["ingress"]["usable"], known["ingress"]


def test_a_name_that_ends_in_localhost_needs_no_dns(door: Door, kubectl: nodes.Kubectl) -> None:
    def curl(*arguments: str) -> str:
        command = ["curl", "--silent", "--show-error", "--max-time", str(SECONDS), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert curl(f"http://shop.localhost:{door.http_port}/").startswith("shop ")
    trusted = ("--cacert", str(door.authority))
    assert curl(*trusted, f"https://shop.localhost:{door.https_port}/").startswith("shop ")
    there = ("--resolve", f"blog.localhost:{door.http_port}:127.0.0.1")
    assert curl(*there, f"http://blog.localhost:{door.http_port}/posts").endswith(" /articles")


def test_the_status_has_the_address_of_the_node(door: Door, kubectl: nodes.Kubectl) -> None:
    address = door.node.address
    shop = kubectl.get("ingress", "shop")
    assert shop["spec"]["ingressClassName"] == "traefik"
    assert shop["status"]["loadBalancer"]["ingress"] == [{"ip": address}]
    gateway = kubectl.get("gateway", "traefik", "--namespace=p8s-ingress")
    assert [one["value"] for one in gateway["status"]["addresses"]] == [address]
    answer = requests.get(f"http://{address}/", headers={"Host": "shop.localhost"}, timeout=SECONDS)
    assert answer.text.startswith("shop ")


def test_pods_reach_it_by_its_service(door: Door, kubectl: nodes.Kubectl) -> None:
    words = ("http://traefik.p8s-ingress/hello", "shop.localhost")
    said = talk.run_in_pod(kubectl, "shop", FETCH_NAME, *words)
    own = kubectl.get("pod", "shop")["status"]["podIP"]
    assert said == f"shop {own} /hello"


def test_a_path_is_compared_by_its_elements(door: Door, kubectl: nodes.Kubectl) -> None:
    (ingress,) = [one for one in read_documented() if one["metadata"]["name"] == "shop"]
    del ingress["spec"]["tls"]
    ingress["metadata"]["name"] = "strict"
    ingress["spec"]["rules"][0]["host"] = "strict.localhost"
    ingress["spec"]["rules"][0]["http"]["paths"][0]["path"] = "/api"
    kubectl.apply(ingress)
    assert door.await_status(200, "strict.localhost", "/api/1").endswith(" /api/1")
    assert door.get("strict.localhost", "/apis").status == 404
    assert door.get("strict.localhost").status == 404


def test_a_service_without_pods_says_503(door: Door, kubectl: nodes.Kubectl) -> None:
    (ingress,) = [one for one in read_documented() if one["metadata"]["name"] == "shop"]
    del ingress["spec"]["tls"]
    ingress["metadata"]["name"] = "empty"
    ingress["spec"]["rules"][0]["host"] = "empty.localhost"
    ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] = "empty"
    kubectl.apply(pods.service("empty"), ingress)
    door.await_status(503, "empty.localhost")


def test_an_httproute_of_another_namespace(door: Door, kubectl: nodes.Kubectl) -> None:
    assert door.await_status(200, "blog.localhost", "/posts/1").endswith(" /articles/1")
    assert door.get("blog.localhost", "/").status == 404
    assert door.await_status(200, "blog.localhost", "/posts", tls=True).endswith(" /articles")
    for parent in kubectl.get("httproute", "blog")["status"]["parents"]:
        held = {one["type"]: one["status"] for one in parent["conditions"]}
        assert held == {"Accepted": "True", "ResolvedRefs": "True"}, parent


def test_another_certificate_is_shown_at_once(
    door: Door, kubectl: nodes.Kubectl, authority: pki.Pair
) -> None:
    secret = make_secret(authority)
    new = secret["stringData"]["tls.crt"]

    def look() -> str | None:
        # The first is of an Ingress, the other of a Gateway.
        for name in ("shop.localhost", "calls.localhost"):
            with door.connect(name, tls=True) as link:
                assert isinstance(link, ssl.SSLSocket)
                shown = link.getpeercert(binary_form=True)
            if shown is None or ssl.DER_cert_to_PEM_cert(shown) != new:
                return f"{name} shows the one before"
        return None

    assert look() is not None
    kubectl.apply(secret)
    wait.until(look, awaited="the new certificate", seconds=SECONDS)


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize(
    ("name", "path"),
    [("shop.localhost", "/"), ("blog.localhost", "/posts")],
    ids=["ingress", "gateway"],
)
def test_websockets(door: Door, kubectl: nodes.Kubectl, name: str, path: str, tls: bool) -> None:
    lines = (
        f"GET {path} HTTP/1.1",
        f"Host: {name}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {KEY}",
    )
    with door.connect(name, tls=tls) as link, link.makefile("rb") as answers:
        link.sendall("\r\n".join((*lines, "", "")).encode())
        assert answers.readline() == b"HTTP/1.1 101 Switching Protocols\r\n"
        assert http.client.parse_headers(answers)["Sec-WebSocket-Accept"] == ACCEPT
        for text in (b"hello", b"and again"):
            mask = secrets.token_bytes(4)
            sent = bytes(byte ^ mask[at % 4] for at, byte in enumerate(text))
            link.sendall(bytes([0x81, 0x80 | len(text)]) + mask + sent)
            assert answers.read(2 + len(text)) == bytes([0x81, len(text)]) + text


@pytest.mark.parametrize("name", ["grpc.localhost", "calls.localhost"], ids=["ingress", "gateway"])
def test_grpc(door: Door, kubectl: nodes.Kubectl, name: str) -> None:
    """Calls, and `lock`, which has a stream in both directions."""
    assert door.call(name, "put", name, "hello") == "OK\n"
    assert door.call(name, "get", name, "--print-value-only") == "hello\n"
    assert door.call(name, "lock", name, "--", "echo", "inside") == "inside\n"


def test_it_leaves_nothing_and_comes_back(door: Door, kubectl: nodes.Kubectl) -> None:
    """The last: Ingresses stay, and are served again."""
    url = door.node.url("/addons/ingress")
    answer = requests.delete(url, timeout=60)
    assert answer.status_code == 200, answer.text
    for kind, awaited in (
        ("namespaces", "p8s-ingress"),
        ("customresourcedefinitions", "gateway.networking.k8s.io"),
        ("clusterroles", "traefik"),
        ("clusterrolebindings", "traefik"),
        ("ingressclasses", "traefik"),
    ):
        assert awaited not in kubectl("get", kind, "--output=name"), kind
    with pytest.raises(urllib3.exceptions.HTTPError):
        door.get("shop.localhost")
    answer = requests.post(url, timeout=60)
    assert answer.status_code == 200, answer.text
    door.node.await_ready()
    assert door.await_status(200, "shop.localhost").startswith("shop ")
