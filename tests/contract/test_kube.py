"""The apiserver's client against a real HTTPS server, with the project's own PKI on both sides."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import http.server
import json
import pathlib
import socket
import ssl
import threading
import time
import typing

import pytest

from p8s_supervisor import errors, kube, pki, probes
from tests import fakes

SERVER = pki.Leaf(
    name="apiserver",
    authority="ca",
    common_name="kube-apiserver",
    sans=("127.0.0.1",),
    client=False,
)
CLIENT = pki.Leaf(name="p8s", authority="ca", common_name="p8s", organization="system:masters")
STRANGER = dataclasses.replace(CLIENT, name="stranger", authority="etcd-ca")
NOT_FOUND = json.dumps({"kind": "Status", "message": 'pods "x" not found', "code": 404})


@pytest.fixture(scope="module")
def crypto(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A directory with CAs and leaves."""
    directory = tmp_path_factory.mktemp("pki")
    now = datetime.datetime.now(datetime.UTC)
    authorities = pki.ensure_authorities(directory, fresh=True, now=now)
    pki.write_leaves([SERVER, CLIENT, STRANGER], authorities, directory, now=now)
    return directory


@pytest.fixture
def server(crypto: pathlib.Path) -> typing.Iterator[fakes.Server]:
    """A server that demands a certificate of the cluster's CA."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.verify_flags |= ssl.VERIFY_X509_STRICT
    tls.load_verify_locations(crypto / "ca.crt")
    tls.load_cert_chain(crypto / "apiserver.crt", crypto / "apiserver.key")
    with fakes.Server(tls) as running:
        yield running


Connect = collections.abc.Callable[..., kube.Client]


@pytest.fixture
def connect(crypto: pathlib.Path) -> typing.Iterator[Connect]:
    """Makes clients, and closes their connections."""
    made: list[kube.Client] = []

    def make(url: str, *, leaf: str = "p8s", ca: str = "ca") -> kube.Client:
        client = kube.Client(
            url,
            ca=crypto / f"{ca}.crt",
            certificate=crypto / f"{leaf}.crt",
            key=crypto / f"{leaf}.key",
        )
        made.append(client)
        return client

    yield make
    for client in made:
        client._session.close()


@pytest.fixture
def client(server: fakes.Server, connect: Connect) -> kube.Client:
    """The sidecar's client of `server`."""
    return connect(server.url)


# --- requests


def test_get_parses_the_answer_and_sends_the_query(
    server: fakes.Server, client: kube.Client
) -> None:
    target = "/api/v1/pods?labelSelector=app%3Dweb&limit=5"
    server.answers[f"GET {target}"] = fakes.HttpAnswer(200, '{"items": []}')
    assert client.get("/api/v1/pods", labelSelector="app=web", limit="5") == {"items": []}
    assert server.requests == [fakes.HttpRequest("GET", target, None, b"")]


def test_a_body_is_sent_as_json(server: fakes.Server, client: kube.Client) -> None:
    path = "/api/v1/namespaces/a/pods/x"
    server.answers[f"DELETE {path}"] = fakes.HttpAnswer(200, "{}")
    client.delete(path, body={"gracePeriodSeconds": 0})
    assert server.requests == [
        fakes.HttpRequest("DELETE", path, "application/json", b'{"gracePeriodSeconds": 0}')
    ]


def test_a_proxy_of_the_environment_is_not_for_the_node(
    server: fakes.Server, client: kube.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server.answers["GET /readyz"] = fakes.HttpAnswer(200, "ok", "text/plain")
    assert client.request("GET", "/readyz") == "ok"


def test_a_client_can_be_shared_between_threads(server: fakes.Server, client: kube.Client) -> None:
    server.answers["GET /version"] = fakes.HttpAnswer(200, '{"major": "1"}')
    found: list[kube.Object] = []

    def ask() -> None:
        found.append(client.get("/version"))
        client._session.close()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert found == [{"major": "1"}] * 4


def test_what_is_waited_for_in_vain_within_a_limit_takes_so_long_in_all(
    server: fakes.Server, client: kube.Client, connect: Connect
) -> None:
    server.answers["GET /version"] = fakes.HttpAnswer(200, '{"major": "1"}')
    with socket.create_server(("127.0.0.1", 0)) as silent:
        lost = connect(f"https://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with kube.limited(0.3):
            with kube.limited(60):
                assert client.get("/version") == {"major": "1"}
                assert kube.limit(5) == 0.3
                with pytest.raises(errors.KubeError, match="timed out"):
                    lost.get("/version")
            with pytest.raises(errors.KubeError, match="has not answered in time") as raised:
                lost.get("/version")
            assert raised.value.status == 0
        took = time.monotonic() - began
    assert 0.3 <= took < 3
    assert client.get("/version") == {"major": "1"}


def test_forgotten_connections_are_not_used_again(
    server: fakes.Server, client: kube.Client, crypto: pathlib.Path
) -> None:
    """kube-apiserver looks at the connection's certificate at each request."""
    server.answers["GET /version"] = fakes.HttpAnswer(200, '{"major": "1"}')
    client.get("/version")
    before = client._session
    assert client._session is before
    client.forget_connections()
    assert client._session is not before
    before.close()
    assert client.get("/version") == {"major": "1"}


# --- errors


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        pytest.param(
            fakes.HttpAnswer(404, NOT_FOUND), 'pods "x" not found', id="the apiserver's words"
        ),
        pytest.param(
            fakes.HttpAnswer(403, '{"message": "forbidden"}'), "forbidden", id="forbidden"
        ),
        pytest.param(
            fakes.HttpAnswer(500, "no etcd\n", "text/plain"), "HTTP 500: no etcd", id="plain text"
        ),
        pytest.param(fakes.HttpAnswer(503, ""), "HTTP 503: Service Unavailable", id="nothing"),
        pytest.param(fakes.HttpAnswer(500, "[]"), "HTTP 500: []", id="JSON without a message"),
        pytest.param(fakes.HttpAnswer(500, '"x"'), 'HTTP 500: "x"', id="JSON of another kind"),
    ],
)
def test_an_answer_that_says_no_is_an_error(
    server: fakes.Server, client: kube.Client, answer: fakes.HttpAnswer, message: str
) -> None:
    server.answers["GET /x"] = answer
    with pytest.raises(errors.KubeError) as caught:
        client.get("/x")
    assert (caught.value.message, caught.value.status) == (message, answer.status)


def test_a_connection_that_is_refused_has_status_0(connect: Connect) -> None:
    with pytest.raises(errors.KubeError) as caught:
        connect(f"https://127.0.0.1:{fakes.free_port()}").get("/x")
    assert (caught.value.message, caught.value.status) == ("[Errno 111] Connection refused", 0)


def test_a_server_of_another_ca_is_not_trusted(server: fakes.Server, connect: Connect) -> None:
    with pytest.raises(errors.KubeError) as caught:
        connect(server.url, ca="etcd-ca").get("/x")
    assert caught.value.status == 0
    assert "certificate verify failed" in caught.value.message
    assert server.requests == []


def test_a_server_by_another_name_is_not_trusted(server: fakes.Server, connect: Connect) -> None:
    with pytest.raises(errors.KubeError) as caught:
        connect(server.url.replace("127.0.0.1", "localhost")).get("/x")
    assert caught.value.status == 0
    assert "localhost" in caught.value.message
    assert server.requests == []


def test_a_client_of_another_ca_is_not_let_in(server: fakes.Server, connect: Connect) -> None:
    server.answers["GET /x"] = fakes.HttpAnswer(200, "{}")
    with pytest.raises(errors.KubeError) as caught:
        connect(server.url, leaf="stranger").get("/x")
    assert caught.value.status == 0
    assert server.requests == []


@pytest.mark.parametrize(
    ("status", "raised"),
    [
        pytest.param(200, None, id="deleted"),
        pytest.param(404, None, id="gone already"),
        pytest.param(403, 403, id="forbidden"),
        pytest.param(409, 409, id="conflict"),
    ],
)
def test_delete(server: fakes.Server, client: kube.Client, status: int, raised: int | None) -> None:
    server.answers["DELETE /x"] = fakes.HttpAnswer(status, "{}")
    found = None
    try:
        client.delete("/x")
    except errors.KubeError as error:
        found = error.status
    assert found == raised


# --- watch

POD_WATCH = "/api/v1/pods?watch=true&resourceVersion=7&timeoutSeconds=60&fieldSelector=a%3Db"
Chunks = collections.abc.Iterable[str]


def send_chunks(handler: http.server.BaseHTTPRequestHandler, chunks: Chunks) -> None:
    """An answer in pieces, as the apiserver streams a watch."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for chunk in chunks:
        handler.wfile.write(f"{len(chunk):x}\r\n{chunk}\r\n".encode())
        handler.wfile.flush()


def watch_pods(client: kube.Client) -> collections.abc.Iterator[kube.Object]:
    return client.watch("/api/v1/pods", resource_version="7", seconds=60, fieldSelector="a=b")


def test_a_watch_gives_each_change_as_soon_as_it_comes(
    server: fakes.Server, client: kube.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = threading.Event()
    asked: list[str] = []

    def stream() -> Chunks:
        yield '{"type": "ADDED", "object": {"n": 1}}\n'
        yield '{"type": "MODIFIED", "obj'
        yield 'ect": {"n": 2}}\n'
        assert seen.wait(timeout=30)  # the client has both while the answer goes on
        yield '{"type": "DELETED", "object": {"n": 3}}\n{"type": "ADDED", "object": {"n": 4}}\n'
        yield ""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        send_chunks(handler, stream())

    monkeypatch.setattr(server, "answer", answer)
    numbers = []
    for change in watch_pods(client):
        numbers.append(change["object"]["n"])
        if numbers == [1, 2]:
            seen.set()
    assert (numbers, asked) == ([1, 2, 3, 4], [POD_WATCH])


def test_a_watch_that_is_refused_is_an_error(server: fakes.Server, client: kube.Client) -> None:
    server.answers[f"GET {POD_WATCH}"] = fakes.HttpAnswer(410, '{"message": "too old"}')
    with pytest.raises(errors.KubeError) as caught:
        list(watch_pods(client))
    assert (caught.value.message, caught.value.status) == ("too old", 410)


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param("", id="between two changes"),
        pytest.param('{"type": "ADD', id="within a change"),
    ],
)
def test_a_watch_whose_connection_breaks_is_an_error(
    server: fakes.Server, client: kube.Client, monkeypatch: pytest.MonkeyPatch, rest: str
) -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        first = '{"type": "ADDED", "object": {}}\n'
        send_chunks(handler, [first, rest] if rest else [first])
        handler.close_connection = True

    monkeypatch.setattr(server, "answer", answer)
    found = watch_pods(client)
    assert next(found)["type"] == "ADDED"
    with pytest.raises(errors.KubeError) as caught:
        list(found)
    assert caught.value.status == 0


def test_a_watch_of_nobody_is_an_error(connect: Connect) -> None:
    client = connect(f"https://127.0.0.1:{fakes.free_port()}")
    with pytest.raises(errors.KubeError) as caught:
        list(watch_pods(client))
    assert (caught.value.message, caught.value.status) == ("[Errno 111] Connection refused", 0)


# --- the apiserver's readiness, as kube-apiserver 1.37 words it

CHECKS = [
    "ping",
    "log",
    "etcd",
    "etcd-readiness",
    "informer-sync",
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/generic-apiserver-start-informers",
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/priority-and-fairness-filter",
    "poststarthook/storage-object-count-tracker-hook",
    "poststarthook/start-apiextensions-informers",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "autoregister-completion",
    "shutdown",
]


@pytest.mark.parametrize(
    "failed",
    [
        pytest.param("ping", id="the first"),
        pytest.param("poststarthook/scheduling/bootstrap-system-priority-classes", id="a late one"),
        pytest.param("shutdown", id="the last"),
    ],
)
def test_the_check_that_failed_is_told_however_many_come_before_it(
    server: fakes.Server, client: kube.Client, failed: str
) -> None:
    lines = [
        f"[-]{check} failed: reason withheld" if check == failed else f"[+]{check} ok"
        for check in CHECKS
    ]
    text = "\n".join([*lines, "readyz check failed"]) + "\n"
    server.answers["GET /readyz"] = fakes.HttpAnswer(500, text, "text/plain; charset=utf-8")
    reason = probes.apiserver(client) or ""
    assert reason.removeprefix("HTTP 500: ") == f"[-]{failed} failed: reason withheld"


# --- server-side apply

QUERY = "fieldManager=p8s&force=true"


def make_manifest(version: str, kind: str, **metadata: str) -> kube.Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "x", **metadata}}


@pytest.mark.parametrize(
    ("manifest", "path"),
    [
        pytest.param(
            make_manifest("v1", "ConfigMap", namespace="kube-system"),
            "/api/v1/namespaces/kube-system/configmaps/x",
            id="core, namespaced",
        ),
        pytest.param(
            make_manifest("v1", "ServiceAccount"),
            "/api/v1/namespaces/default/serviceaccounts/x",
            id="the namespace default",
        ),
        pytest.param(
            make_manifest("apps/v1", "Deployment", namespace="a"),
            "/apis/apps/v1/namespaces/a/deployments/x",
            id="a group, namespaced",
        ),
        pytest.param(
            make_manifest("rbac.authorization.k8s.io/v1", "ClusterRole"),
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/x",
            id="cluster-scoped",
        ),
    ],
)
def test_apply_is_a_patch_with_force(
    server: fakes.Server, client: kube.Client, manifest: kube.Object, path: str
) -> None:
    target = f"{path}?{QUERY}"
    server.answers[f"PATCH {target}"] = fakes.HttpAnswer(201, "{}")
    client.apply(manifest)
    (request,) = server.requests
    assert (request.method, request.target) == ("PATCH", target)
    assert request.content_type == "application/apply-patch+yaml"
    assert json.loads(request.body) == manifest


STORAGE = {
    "resources": [
        {"name": "storageclasses/status", "kind": "StorageClass", "namespaced": False},
        {"name": "storageclasses", "kind": "StorageClass", "namespaced": False},
        {"name": "csistoragecapacities", "kind": "CSIStorageCapacity", "namespaced": True},
    ]
}


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        pytest.param("StorageClass", "storageclasses/x", id="cluster-scoped"),
        pytest.param("CSIStorageCapacity", "namespaces/a/csistoragecapacities/x", id="namespaced"),
    ],
)
def test_apply_asks_for_the_resource_of_a_kind_that_it_does_not_know(
    server: fakes.Server, client: kube.Client, kind: str, path: str
) -> None:
    group = "/apis/storage.k8s.io/v1"
    server.answers |= {
        f"GET {group}": fakes.HttpAnswer(200, json.dumps(STORAGE)),
        f"PATCH {group}/{path}?{QUERY}": fakes.HttpAnswer(200, "{}"),
    }
    client.apply(make_manifest("storage.k8s.io/v1", kind, namespace="a"))
    assert [f"{request.method} {request.target}" for request in server.requests] == list(
        server.answers
    )


@pytest.mark.parametrize(
    ("version", "group", "answer", "message", "status"),
    [
        pytest.param(
            "storage.k8s.io/v1",
            "/apis/storage.k8s.io/v1",
            fakes.HttpAnswer(200, json.dumps(STORAGE)),
            "Widget x: the apiserver has no Widget in storage.k8s.io/v1",
            404,
            id="a group without the kind",
        ),
        pytest.param(
            "v1",
            "/api/v1",
            fakes.HttpAnswer(200, '{"resources": []}'),
            "Widget x: the apiserver has no Widget in v1",
            404,
            id="the core group without the kind",
        ),
        pytest.param(
            "widgets.example/v1",
            "/apis/widgets.example/v1",
            fakes.HttpAnswer(404, '{"message": "not found"}'),
            "Widget x: not found",
            404,
            id="no such group",
        ),
    ],
)
def test_apply_of_a_kind_that_the_apiserver_lacks_names_the_object(
    *,
    server: fakes.Server,
    client: kube.Client,
    version: str,
    group: str,
    answer: fakes.HttpAnswer,
    message: str,
    status: int,
) -> None:
    server.answers[f"GET {group}"] = answer
    with pytest.raises(errors.KubeError) as caught:
        client.apply(make_manifest(version, "Widget"))
    assert (caught.value.message, caught.value.status) == (message, status)


def test_apply_that_is_refused_names_the_object(server: fakes.Server, client: kube.Client) -> None:
    target = f"/api/v1/namespaces/default/configmaps/x?{QUERY}"
    server.answers[f"PATCH {target}"] = fakes.HttpAnswer(422, '{"message": "data: invalid"}')
    with pytest.raises(errors.KubeError) as caught:
        client.apply(make_manifest("v1", "ConfigMap"))
    assert (caught.value.message, caught.value.status) == ("ConfigMap x: data: invalid", 422)
