"""The routes that do more than hand on an answer, and what is told of a wrong request."""

from __future__ import annotations

import json
import typing

import pytest

from p8s_supervisor import answers, errors, events, openapi, routes
from tests import fakes
from tests.unit import http

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("request_", "body", "answer"),
    [
        pytest.param(
            "POST /apply", None, {"applied": ["Service kube-system/kube-dns"]}, id="apply"
        ),
        pytest.param(
            "POST /reset/shop", None, {"namespace": "shop", "deleted": ["pods/a"]}, id="reset"
        ),
        pytest.param("GET /logs", None, {"components": ["etcd", "kubelet"]}, id="logs"),
        pytest.param("GET /images", None, {"images": [], "blobs": []}, id="images"),
        pytest.param("POST /images", b"a tar", {"images": ["app:1"]}, id="an archive"),
        pytest.param(
            "GET /settings", None, {"node_name": {"value": "p8s", "source": "default"}}, id="set"
        ),
    ],
)
def test_a_route_answers_json(request_: str, body: bytes | None, answer: object) -> None:
    answered = http.call(http.make_client(), request_, data=body)
    assert (answered.status_code, answered.content_type) == (200, "application/json")
    assert json.loads(answered.text) == answer


def test_an_archive_may_be_larger_than_other_bodies() -> None:
    cluster = http.Cluster()
    archive = b"x" * 200_000
    assert http.call(http.make_client(cluster), "POST /images", data=archive).status_code == 200
    assert cluster.calls == [("load", archive)]
    refused = http.call(http.make_client(), "POST /users", data=archive, headers=JSON)
    assert refused.status_code == 413


def test_a_kubeconfig_is_for_the_name_that_is_asked_for() -> None:
    assert http.call(http.make_client(), "GET /kubeconfig?host=ci:6443").text == "for ci:6443"


def test_a_bundle_is_an_attachment() -> None:
    answer = http.call(http.make_client(), "GET /bundle")
    assert (answer.data, answer.content_type) == (b"an archive", "application/gzip")
    assert "p8s-bundle.tar.gz" in answer.headers["Content-Disposition"]


# --- users


def test_a_user_gets_a_kubeconfig_that_no_cache_keeps() -> None:
    cluster = http.Cluster()
    wanted = {"name": "ann", "groups": ["dev"], "ttl": "1h", "kind": "token"}
    client = http.make_client(cluster)
    answer = http.call(client, "POST /users", data=json.dumps(wanted), headers=JSON)
    assert (answer.status_code, answer.text) == (201, "a user's kubeconfig")
    assert answer.headers["Cache-Control"] == "no-store"
    assert cluster.calls == [("user", wanted)]


def test_a_user_has_what_the_document_says_by_default() -> None:
    cluster = http.Cluster()
    http.call(http.make_client(cluster), "POST /users", data='{"name": "ann"}', headers=JSON)
    wanted = {"name": "ann", "groups": [], "ttl": "24h", "kind": "certificate"}
    assert cluster.calls == [("user", wanted)]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        pytest.param("[]", "not a JSON object", id="a list"),
        pytest.param("{}", "name: missing", id="nothing"),
        pytest.param(
            '{"nam": "ann", "ttl": 5}',
            "nam: no such field; name: missing; ttl: not a string",
            id="everything at once",
        ),
        pytest.param(
            '{"name": "a", "groups": "dev"}', "groups: not a list of strings", id="no list"
        ),
        pytest.param(
            '{"name": "a", "groups": [1]}', "groups: not a list of strings", id="a list of numbers"
        ),
    ],
)
def test_a_wrong_user_is_told_what_is_wrong(body: str, detail: str) -> None:
    cluster = http.Cluster()
    answer = http.call(http.make_client(cluster), "POST /users", data=body, headers=JSON)
    assert (answer.status_code, json.loads(answer.text)["detail"]) == (400, detail)
    assert cluster.calls == []


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        pytest.param("{", JSON, 400, id="no JSON"),
        pytest.param("", JSON, 400, id="empty"),
        pytest.param('{"name": "a"}', {"Content-Type": "text/plain"}, 415, id="another type"),
        pytest.param('{"name": "a"}', {}, 415, id="no type"),
    ],
)
def test_a_user_is_sent_as_json(body: str, headers: dict[str, str], status: int) -> None:
    answer = http.call(http.make_client(), "POST /users", data=body, headers=headers)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")


# --- events


def make_events(*ids: int) -> list[events.Event]:
    return [
        events.Event(id=number, time=float(number), kind="phase", message="setup", data={"s": 1})
        for number in ids
    ]


def test_events_are_sent_by_the_servers_rules() -> None:
    cluster = http.Cluster(recorded=make_events(1, 2))
    answer = http.call(http.make_client(cluster), "GET /events?follow=false")
    assert answer.content_type == "text/event-stream"
    assert answer.text == (
        'id: 1\nevent: phase\ndata: {"time": 1.0, "message": "setup", "s": 1}\n\n'
        'id: 2\nevent: phase\ndata: {"time": 2.0, "message": "setup", "s": 1}\n\n'
    )
    assert cluster.calls == [("events", 0, 0)]


def test_events_go_on_where_a_reader_left_off() -> None:
    cluster = http.Cluster(recorded=make_events(1, 2))
    headers = {"Last-Event-ID": "1"}
    answer = http.call(http.make_client(cluster), "GET /events?follow=false", headers=headers)
    assert answer.text.startswith("id: 2\n")
    assert answer.text.count("id: ") == 1


def test_an_idle_stream_of_events_says_that_it_lives() -> None:
    cluster = http.Cluster(recorded=make_events(1))
    client = http.make_client(cluster)
    answer = client.get("/events", headers={"Host": "localhost"})
    pieces = typing.cast("typing.Iterator[bytes]", iter(answer.response))
    assert [next(pieces)[:5], next(pieces)] == [b"id: 1", b": nothing new\n\n"]
    assert cluster.calls[:2] == [
        ("events", 0, routes.IDLE_SECONDS),
        ("events", 1, routes.IDLE_SECONDS),
    ]
    answer.close()


@pytest.mark.parametrize("number", ["-1", "x", "1.5", "٣"])
def test_a_wrong_last_event_is_told(number: str) -> None:
    headers = {"Last-Event-ID": number.encode().decode("latin-1")}
    answer = http.call(http.make_client(), "GET /events?follow=false", headers=headers)
    assert answer.status_code == 400


# --- logs


@pytest.mark.parametrize(
    ("query", "call"),
    [
        pytest.param("", ("log", "etcd", False, None), id="all there is"),
        pytest.param("?follow=true&tail=10", ("log", "etcd", True, 10), id="the end, and on"),
        pytest.param("?tail=0", ("log", "etcd", False, 0), id="nothing of it"),
    ],
)
def test_a_log_is_read_as_asked_for(query: str, call: object) -> None:
    cluster = http.Cluster()
    answer = http.call(http.make_client(cluster), f"GET /logs/etcd{query}")
    assert (answer.text, answer.content_type) == ("a line\n", "text/plain; charset=utf-8")
    assert cluster.calls == [call]


def test_too_many_streams_are_refused_until_one_ends() -> None:
    client = http.make_client()
    host = {"Host": "localhost"}
    held = [client.get("/logs/etcd", headers=host) for _ in range(answers.STREAMS)]
    refused = http.call(client, "GET /logs/etcd")
    assert refused.status_code == 503
    assert json.loads(refused.text)["hint"] == "end one of them, or ask with follow=false"
    assert http.call(client, "GET /status").status_code == 200
    held.pop().close()
    assert http.call(client, "GET /logs/etcd").status_code == 200
    for answer in held:
        answer.close()


# --- parameters


@pytest.mark.parametrize(
    ("request_", "detail"),
    [
        pytest.param("GET /status?x=1", "x: no such parameter", id="none is known"),
        pytest.param(
            "GET /kubeconfig?hots=a", "hots: no such parameter; host?", id="a slip of the pen"
        ),
        pytest.param("GET /kubeconfig?host=a&host=b", "host: given 2 times", id="twice"),
        pytest.param(
            "GET /kubeconfig?host=",
            "host = '': not 1 to 253 printable ASCII characters",
            id="empty",
        ),
        pytest.param(
            "GET /logs/etcd?follow=yes&tail=-1",
            "follow = 'yes': not true or false; tail = '-1': not a whole number from 0 to 1000000",
            id="everything at once",
        ),
        pytest.param(
            "GET /logs/etcd?component=kubelet",
            "component: no such parameter; component?",
            id="path",
        ),
        pytest.param(
            "POST /reset/%20a", "namespace = ' a': not 1 to 253 printable ASCII characters", id="b"
        ),
    ],
)
def test_a_wrong_parameter_is_told(request_: str, detail: str) -> None:
    cluster = http.Cluster()
    answer = http.call(http.make_client(cluster), request_)
    assert (answer.status_code, json.loads(answer.text)["detail"]) == (400, detail)
    assert cluster.calls == []


@pytest.mark.parametrize(
    ("failure", "status", "detail", "hint"),
    [
        pytest.param(
            errors.RequestError("no such namespace", status=404, hint="kubectl get namespaces"),
            404,
            "no such namespace",
            "kubectl get namespaces",
            id="a request that cannot be met",
        ),
        pytest.param(
            errors.KubeError("refused", status=0), 503, "kube-apiserver: refused", None, id="away"
        ),
        pytest.param(
            errors.KubeError("denied by webhook", status=400),
            502,
            "kube-apiserver: denied by webhook",
            None,
            id="the apiserver says no",
        ),
        pytest.param(
            errors.P8sError("no", hint="do this"), 500, "no", "do this", id="another of p8s"
        ),
    ],
)
def test_a_failure_is_told(failure: Exception, status: int, detail: str, hint: str | None) -> None:
    answer = http.call(http.make_client(http.Cluster(failure=failure)), "POST /apply")
    told = json.loads(answer.text)
    assert (answer.status_code, told["detail"], told.get("hint")) == (status, detail, hint)


# --- the document


def test_the_document_has_every_route() -> None:
    document = json.loads(http.call(http.make_client(), "GET /openapi.json").text)
    described = {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
    }
    assert described == {route.request for route in routes.ROUTES} | {"GET /openapi.json"}
    assert document["info"]["version"] == openapi.VERSION


def test_every_operation_has_a_name_of_its_own() -> None:
    document = openapi.describe(routes.ROUTES)
    names = [
        operation["operationId"]
        for methods in document["paths"].values()
        for operation in methods.values()
    ]
    assert len(set(names)) == len(names) == len(routes.ROUTES)
    assert "post-reset-namespace" in names


def test_parameters_stand_where_they_are_sent() -> None:
    log = openapi.describe(routes.ROUTES)["paths"]["/logs/{component}"]["get"]
    assert [(one["name"], one["in"], one["required"]) for one in log["parameters"]] == [
        ("component", "path", True),
        ("follow", "query", False),
        ("tail", "query", False),
    ]


def test_the_token_is_for_no_document() -> None:
    assert fakes.TOKEN not in http.call(http.make_client(), "GET /openapi.json").text
