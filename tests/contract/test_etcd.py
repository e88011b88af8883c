"""etcd's client against a real HTTPS server, with the project's own PKI on both sides."""

from __future__ import annotations

import collections.abc
import datetime
import json
import pathlib
import ssl
import typing

import pytest

from p8s_supervisor import errors, etcd, pki
from tests import fakes

SERVER = pki.Leaf(
    name="etcd-server", authority="etcd-ca", common_name="etcd", sans=("127.0.0.1",), client=False
)
CLIENT = pki.Leaf(
    name="apiserver-etcd-client", authority="etcd-ca", common_name="kube-apiserver-etcd-client"
)
STRANGER = pki.Leaf(name="stranger", authority="ca", common_name="stranger")
# As etcd answers; its gateway writes numbers of 64 bits as text, and leaves out what is zero.
REVISION = {"cluster_id": "14841639068965178418", "revision": "7", "raft_term": "2"}
RANGE, TXN = "/v3/kv/range", "/v3/kv/txn"
# base64 of /registry/ and of what comes after all keys that begin so.
PREFIX, END = "L3JlZ2lzdHJ5Lw==", "L3JlZ2lzdHJ5MA=="


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
    """A server that demands a certificate of etcd's CA."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.verify_flags |= ssl.VERIFY_X509_STRICT
    tls.load_verify_locations(crypto / "etcd-ca.crt")
    tls.load_cert_chain(crypto / "etcd-server.crt", crypto / "etcd-server.key")
    with fakes.Server(tls) as running:
        yield running


Connect = collections.abc.Callable[..., etcd.Client]


@pytest.fixture
def connect(crypto: pathlib.Path) -> typing.Iterator[Connect]:
    """Makes clients, and closes their connections."""
    made: list[etcd.Client] = []

    def make(url: str, *, leaf: str = "apiserver-etcd-client", ca: str = "etcd-ca") -> etcd.Client:
        client = etcd.Client(
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
def client(server: fakes.Server, connect: Connect) -> etcd.Client:
    """The sidecar's client of `server`."""
    return connect(server.url)


def set_answer(server: fakes.Server, path: str, answer: dict[str, typing.Any]) -> None:
    server.answers[f"POST {path}"] = fakes.HttpAnswer(200, json.dumps(answer))


def read_requests(server: fakes.Server) -> list[tuple[str, str, str | None, typing.Any]]:
    return [
        (request.method, request.target, request.content_type, json.loads(request.body))
        for request in server.requests
    ]


# --- list_entries


def test_a_list_asks_for_all_keys_with_the_prefix(
    server: fakes.Server, client: etcd.Client
) -> None:
    set_answer(server, RANGE, {"header": REVISION})
    assert client.list_entries("/registry/") == []
    assert read_requests(server) == [
        ("POST", RANGE, "application/json", {"key": PREFIX, "range_end": END})
    ]


def test_a_list_gives_keys_values_and_leases(server: fakes.Server, client: etcd.Client) -> None:
    numbers = {"create_revision": "5", "mod_revision": "7", "version": "2"}
    found = [
        # k8s\0 and bytes that are no text; a lease; a key alone.
        {"key": "L3JlZ2lzdHJ5L2E=", "value": "azhzAAr/", **numbers},
        {
            "key": "L3JlZ2lzdHJ5L2xlYXNlcy9i",
            "value": "eA==",
            "lease": "7587895456787890000",
            **numbers,
        },
        {"key": "L3JlZ2lzdHJ5L8O8", **numbers},
    ]
    set_answer(server, RANGE, {"header": REVISION, "kvs": found, "count": "3"})
    assert client.list_entries("/registry/") == [
        etcd.Entry("/registry/a", b"k8s\x00\x0a\xff"),
        etcd.Entry("/registry/leases/b", b"x", lease=7587895456787890000),
        etcd.Entry("/registry/ü", b""),
    ]


# --- has


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        pytest.param({"header": REVISION, "count": "1"}, True, id="there"),
        pytest.param({"header": REVISION}, False, id="not there"),
        pytest.param({"header": REVISION, "count": "0"}, False, id="not there, in so many words"),
    ],
)
def test_has_asks_for_the_number_alone(
    server: fakes.Server, client: etcd.Client, answer: dict[str, typing.Any], found: bool
) -> None:
    set_answer(server, RANGE, answer)
    assert client.has("/registry/priorityclasses/x") is found
    assert read_requests(server) == [
        (
            "POST",
            RANGE,
            "application/json",
            {"key": "L3JlZ2lzdHJ5L3ByaW9yaXR5Y2xhc3Nlcy94", "count_only": True},
        )
    ]


# --- put_into_empty


@pytest.mark.parametrize(
    ("answer", "put"),
    [
        pytest.param({"header": REVISION, "succeeded": True, "responses": []}, True, id="put"),
        pytest.param({"header": REVISION}, False, id="there is a cluster already"),
        pytest.param({"header": REVISION, "succeeded": False}, False, id="in so many words"),
    ],
)
def test_a_put_is_one_transaction_on_an_empty_range(
    server: fakes.Server, client: etcd.Client, answer: dict[str, typing.Any], put: bool
) -> None:
    set_answer(server, TXN, answer)
    entries = {"/registry/a": b"k8s\x00\x0a\xff", "/registry/ü": b""}
    assert client.put_into_empty(entries, prefix="/registry/") is put
    compared = {
        "target": "CREATE",
        "result": "EQUAL",
        "key": PREFIX,
        "range_end": END,
        "create_revision": "0",
    }
    puts = [
        {"request_put": {"key": "L3JlZ2lzdHJ5L2E=", "value": "azhzAAr/"}},
        {"request_put": {"key": "L3JlZ2lzdHJ5L8O8", "value": ""}},
    ]
    assert read_requests(server) == [
        ("POST", TXN, "application/json", {"compare": [compared], "success": puts})
    ]


# --- upkeep

STATUS, ALARM = "/v3/maintenance/status", "/v3/maintenance/alarm"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        pytest.param(
            {
                "header": REVISION,
                "version": "3.6.16",
                "dbSize": "16801792",
                "raftIndex": "340",
                "dbSizeInUse": "610304",
                "dbSizeQuota": "2147483648",
            },
            etcd.Status(revision=7, size=16801792, size_in_use=610304, quota=2147483648),
            id="well",
        ),
        pytest.param(
            {"header": REVISION, "dbSize": "9", "errors": ["memberID:758 alarm:NOSPACE "]},
            etcd.Status(
                revision=7, size=9, size_in_use=0, quota=0, errors=("memberID:758 alarm:NOSPACE ",)
            ),
            id="full",
        ),
    ],
)
def test_the_status_has_revision_sizes_and_alarms(
    server: fakes.Server, client: etcd.Client, answer: dict[str, typing.Any], found: etcd.Status
) -> None:
    set_answer(server, STATUS, answer)
    assert client.read_status() == found
    assert found.full is bool(found.errors)
    assert read_requests(server) == [("POST", STATUS, "application/json", {})]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(fakes.HttpAnswer(200, "{}"), id="done"),
        pytest.param(
            fakes.HttpAnswer(
                400, '{"error": "etcdserver: mvcc: required revision has been compacted"}'
            ),
            id="kube-apiserver was first",
        ),
    ],
)
def test_a_compaction_is_waited_for(
    server: fakes.Server, client: etcd.Client, answer: fakes.HttpAnswer
) -> None:
    path = "/v3/kv/compaction"
    server.answers[f"POST {path}"] = answer
    client.compact(7)
    assert read_requests(server) == [
        ("POST", path, "application/json", {"revision": "7", "physical": True})
    ]


def test_every_alarm_for_a_full_store_is_taken_back(
    server: fakes.Server, client: etcd.Client
) -> None:
    alarms = [
        {"memberID": "758", "alarm": "NOSPACE"},
        {"memberID": "758", "alarm": "CORRUPT"},
    ]
    set_answer(server, ALARM, {"header": REVISION, "alarms": alarms})
    client.disarm()
    assert [body for *_, body in read_requests(server)] == [
        {"action": "GET"},
        {"action": "DEACTIVATE", "memberID": "758", "alarm": "NOSPACE"},
    ]


# --- errors

Call = collections.abc.Callable[[etcd.Client], object]
CALLS = [
    pytest.param(lambda client: client.list_entries("/registry/"), RANGE, id="list_entries"),
    pytest.param(lambda client: client.has("/registry/x"), RANGE, id="has"),
    pytest.param(
        lambda client: client.put_into_empty({"/registry/x": b""}, prefix="/registry/"),
        TXN,
        id="put_into_empty",
    ),
    pytest.param(lambda client: client.read_status(), STATUS, id="read_status"),
    pytest.param(lambda client: client.compact(7), "/v3/kv/compaction", id="compact"),
    pytest.param(lambda client: client.defragment(), "/v3/maintenance/defragment", id="defragment"),
    pytest.param(lambda client: client.disarm(), ALARM, id="disarm"),
]


@pytest.mark.parametrize(("call", "path"), CALLS)
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        pytest.param(
            fakes.HttpAnswer(400, '{"error": "too many operations", "code": 3}'),
            "HTTP 400",
            id="refused",
        ),
        pytest.param(fakes.HttpAnswer(503, "", "text/plain"), "HTTP 503", id="not ready"),
        pytest.param(fakes.HttpAnswer(200, "ok", "text/plain"), "Expecting value", id="no JSON"),
        pytest.param(fakes.HttpAnswer(200, ""), "Expecting value", id="nothing"),
        pytest.param(
            fakes.HttpAnswer(200, "[]"),
            "",
            id="JSON of another kind",
        ),
        pytest.param(
            fakes.HttpAnswer(400, '{"message": "too many operations", "code": 3}'),
            "too many operations",
            id="etcd's words",
        ),
    ],
)
def test_an_answer_that_says_no_is_an_error(
    *,
    server: fakes.Server,
    client: etcd.Client,
    call: Call,
    path: str,
    answer: fakes.HttpAnswer,
    told: str,
) -> None:
    server.answers[f"POST {path}"] = answer
    with pytest.raises(errors.P8sError) as caught:
        call(client)
    assert caught.value.message.startswith(f"etcd: {path}: ")
    assert told in caught.value.message


@pytest.mark.parametrize(("call", "path"), CALLS)
def test_an_etcd_that_is_not_there_is_an_error(connect: Connect, call: Call, path: str) -> None:
    with pytest.raises(errors.P8sError, match="Connection refused") as caught:
        call(connect(f"https://127.0.0.1:{fakes.free_port()}"))
    assert caught.value.message.startswith(f"etcd: {path}: ")


@pytest.mark.parametrize(
    ("leaf", "ca", "told"),
    [
        pytest.param(
            "apiserver-etcd-client", "ca", "CERTIFICATE_VERIFY_FAILED", id="another CA's server"
        ),
        pytest.param("stranger", "etcd-ca", "", id="another CA's client"),
    ],
)
def test_both_sides_want_a_certificate_of_etcd_s_ca(
    server: fakes.Server, connect: Connect, leaf: str, ca: str, told: str
) -> None:
    set_answer(server, RANGE, {"count": "1"})
    with pytest.raises(errors.P8sError) as caught:
        connect(server.url, leaf=leaf, ca=ca).has("/registry/x")
    assert told in caught.value.message
    assert server.requests == []


def test_a_proxy_of_the_environment_is_not_for_the_node(
    server: fakes.Server, client: etcd.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    set_answer(server, RANGE, {"count": "1"})
    assert client.has("/registry/x")
