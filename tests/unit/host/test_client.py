"""The HTTP client: what it asks, how it reads answers, refusals and streams."""

from __future__ import annotations

import collections.abc
import json
import typing

import pytest

from p8s_supervisor import errors
from p8s_supervisor.host import client
from tests import fakes, host_fakes

Call = collections.abc.Callable[[client.Client], object]


@pytest.mark.parametrize(
    ("call", "asked", "answer", "expected"),
    [
        pytest.param(
            lambda api: api.status(), "GET /status", {"state": "ready"}, {"state": "ready"},
            id="status",
        ),
        pytest.param(lambda api: api.missing(), "GET /ready", host_fakes.Answer(b"ok\n"), {}, id="ready"),
        pytest.param(
            lambda api: api.missing(), "GET /ready",
            host_fakes.problem(503, "not ready", missing={"node": "NotReady"}),
            {"node": "NotReady"}, id="not ready",
        ),
        pytest.param(
            lambda api: api.kubeconfig(), "GET /kubeconfig", host_fakes.Answer(b"{}\n"), "{}\n",
            id="kubeconfig",
        ),
        pytest.param(
            lambda api: api.kubeconfig("a.example:1"), "GET /kubeconfig?host=a.example%3A1",
            host_fakes.Answer(b"{}\n"), "{}\n", id="kubeconfig for a name",
        ),
        pytest.param(
            lambda api: api.settings(), "GET /settings", {"drain": {"value": "pods"}},
            {"drain": {"value": "pods"}}, id="settings",
        ),
        pytest.param(
            lambda api: api.stop(), "POST /stop", host_fakes.Answer(b"stopping\n", 202), None,
            id="stop",
        ),
        pytest.param(
            lambda api: api.apply(), "POST /apply", {"applied": ["a/b"]}, ["a/b"], id="apply"
        ),
        pytest.param(
            lambda api: api.reset("a/../b"), "POST /reset/a%2F..%2Fb",
            {"namespace": "x", "deleted": ["pods/x"]}, ["pods/x"], id="reset, quoted",
        ),
        pytest.param(
            lambda api: api.add_ons(), "GET /addons", {"addons": [{"name": "storage"}]},
            [{"name": "storage"}], id="add-ons",
        ),
        pytest.param(
            lambda api: api.enable_add_on("a/b"), "POST /addons/a%2Fb", {"applied": ["Pod x"]},
            ["Pod x"], id="enable an add-on, quoted",
        ),
        pytest.param(
            lambda api: api.disable_add_on("a/b"), "DELETE /addons/a%2Fb", {"deleted": ["Pod x"]},
            ["Pod x"], id="disable an add-on, quoted",
        ),
        pytest.param(
            lambda api: api.list_logs(), "GET /logs", {"components": ["etcd"]}, ["etcd"],
            id="list of logs",
        ),
        pytest.param(
            lambda api: b"".join(api.read_logs("etcd", tail=3)), "GET /logs/etcd?follow=false&tail=3",
            host_fakes.Answer(b"one\ntwo\n", content_type="text/plain"), b"one\ntwo\n", id="a log",
        ),
        pytest.param(
            lambda api: b"".join(api.read_logs("etcd", follow=True)), "GET /logs/etcd?follow=true",
            host_fakes.Answer(b"one\n", content_type="text/plain"), b"one\n", id="a log, followed",
        ),
        pytest.param(
            lambda api: list(api.read_events(follow=False)), "GET /events?follow=false",
            host_fakes.Answer(b'id: 4\nevent: phase\ndata: {"message": "setup"}\n\n'),
            [client.Event("4", "phase", {"message": "setup"})], id="events",
        ),
        pytest.param(
            lambda api: api.make_user("ann", groups=["dev"], ttl="", kind="certificate"),
            "POST /users", host_fakes.Answer(b"{}", 201), "{}", id="a user",
        ),
        pytest.param(
            lambda api: api.images(), "GET /images", {"images": [], "blobs": []},
            {"images": [], "blobs": []}, id="images",
        ),
        pytest.param(
            lambda api: b"".join(api.read_bundle()), "GET /bundle",
            host_fakes.Answer(b"\x1f\x8b", content_type="application/octet-stream"), b"\x1f\x8b",
            id="bundle",
        ),
    ],
)  # fmt: skip
def test_each_call(call: Call, asked: str, answer: object, expected: object) -> None:
    with host_fakes.Api({asked: [answer]}) as api:
        assert call(client.Client(api.url)) == expected
        assert api.asked == [asked]


@pytest.mark.parametrize(
    ("ttl", "body"),
    [
        ("", {"name": "ann", "groups": ["dev", "ops"], "kind": "token"}),
        ("8h", {"name": "ann", "groups": ["dev", "ops"], "kind": "token", "ttl": "8h"}),
    ],
)
def test_what_a_user_is_asked_with(ttl: str, body: dict[str, object]) -> None:
    with host_fakes.Api({"POST /users": [host_fakes.Answer(b"{}", 201)]}) as api:
        client.Client(api.url).make_user("ann", groups=("dev", "ops"), ttl=ttl, kind="token")
        assert json.loads(api.requests[0].body) == body


def test_events_go_on_after_one() -> None:
    with host_fakes.Api({"GET /events?follow=true": [host_fakes.Answer(b"")]}) as api:
        assert list(client.Client(api.url).read_events(follow=True, after="7")) == []
        assert api.requests[0].headers["Last-Event-ID"] == "7"


@pytest.mark.parametrize(
    ("answer", "status", "message", "hint"),
    [
        pytest.param(
            host_fakes.problem(403, "kube-system is the system's", hint="choose another"),
            403, "kube-system is the system's", "choose another", id="problem+json",
        ),
        pytest.param(host_fakes.problem(500, "it broke"), 500, "it broke", "", id="no hint"),
        pytest.param(
            host_fakes.Answer(b"<html>", 502, "text/html"), 502, "answered 502", "", id="HTML"
        ),
        pytest.param(
            host_fakes.Answer(b"<html>", 200, "text/html"), 200, "answered text/html, not JSON",
            "something other than p8s", id="another server",
        ),
        pytest.param(host_fakes.Answer(b"[]", 400), 400, "answered 400", "", id="a list"),
        pytest.param(
            host_fakes.Answer(b"", 302, "text/html"), 302, "not JSON", "other than p8s",
            id="redirects are not followed",
        ),
    ],
)  # fmt: skip
def test_refusals(answer: object, status: int, message: str, hint: str) -> None:
    with (
        host_fakes.Api({"GET /status": [answer]}) as api,
        pytest.raises(errors.RequestError) as raised,
    ):
        client.Client(api.url).status()
    assert raised.value.status == status
    assert message in raised.value.message
    assert hint in raised.value.hint


def test_ready_refused_for_another_reason() -> None:
    with (
        host_fakes.Api({"GET /ready": [host_fakes.problem(403, "not this name")]}) as api,
        pytest.raises(errors.RequestError, match="not this name"),
    ):
        client.Client(api.url).missing()


def test_nothing_answers() -> None:
    url = f"http://127.0.0.1:{fakes.free_port()}"
    with pytest.raises(errors.RequestError, match="Connection refused") as raised:
        client.Client(url).status()
    assert raised.value.status == 0
    assert "p8s list" in raised.value.hint


@pytest.mark.parametrize(
    ("given", "found", "sent"),
    [
        pytest.param("", "of-this-start", [None, "Bearer of-this-start"], id="found in the node"),
        pytest.param("mine", "", ["Bearer mine"], id="the caller's own, refused"),
        pytest.param("old", "new", ["Bearer old", "Bearer new"], id="the caller's is another's"),
        pytest.param("", "", [None], id="none anywhere"),
        pytest.param("same", "same", ["Bearer same"], id="not twice the same"),
    ],
)
def test_a_token_is_looked_for_where_it_is_wanted(
    given: str, found: str, sent: list[str | None]
) -> None:
    answers = [host_fakes.problem(401, "a token is needed", hint="send one"), {"state": "ready"}]
    with host_fakes.Api({"GET /status": answers}) as api:
        caller = client.Client(api.url, token=given, find_token=lambda: found)
        if len(sent) == 2:
            assert caller.status() == {"state": "ready"}
            caller.status()  # it is kept
            assert api.requests[-1].headers["Authorization"] == sent[-1]
            api.requests.pop()
        else:
            with pytest.raises(errors.RequestError, match="a token is needed"):
                caller.status()
        assert [request.headers.get("Authorization") for request in api.requests] == sent


def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with host_fakes.Api({"GET /status": [{"state": "ready"}]}) as api:
        assert client.Client(api.url).status() == {"state": "ready"}


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([b"id: 1\nevent: a\nda", b'ta: {"x": 1}\n', b"\n"], [("1", "a", {"x": 1})], id="in pieces"),
        pytest.param([b": nothing new\n\nid: 2\nevent: b\ndata: {}\n\n"], [("2", "b", {})], id="comment"),
        pytest.param([b"data: {}\r\n\r\n"], [("", "message", {})], id="defaults, CRLF"),
        pytest.param([b'data: {"a":\ndata: 1}\n\n'], [("", "message", {"a": 1})], id="two lines"),
        pytest.param([b"data: words\n\n"], [("", "message", {"message": "words"})], id="no JSON"),
        pytest.param([b"data: 3\n\n"], [("", "message", {"message": "3"})], id="no object"),
        pytest.param([b"id: 9\nevent: x\n\ndata: {}\n\n"], [("", "message", {})], id="no data: forgotten"),
        pytest.param([b"data: {}\n"], [], id="cut off"),
    ],
)  # fmt: skip
def test_server_sent_events(
    pieces: list[bytes], expected: list[tuple[str, str, dict[str, typing.Any]]]
) -> None:
    assert list(client.parse_events(pieces)) == [client.Event(*event) for event in expected]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b"a\nb", b"c\n", b"d"], ["a", "bc", "d"]),
        ([b"\xc3", b"\xa9\n"], ["é"]),
        ([b"\xff\r\n"], ["\ufffd"]),
        ([], []),
    ],
)
def test_lines_from_pieces(pieces: list[bytes], expected: list[str]) -> None:
    assert list(client.split_lines(pieces)) == expected
