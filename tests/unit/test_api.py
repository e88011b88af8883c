"""The HTTP API with plain callables: routes, errors, and who may call what."""

from __future__ import annotations

import dataclasses
import json

import pytest

from p8s_supervisor import errors
from tests import fakes
from tests.unit import http

ADDRESS = "10.9.8.7"
BEARER = {"Authorization": f"Bearer {fakes.TOKEN}"}
ASK_FOR_TOKEN = {
    "status": 401,
    "detail": f"{ADDRESS} may not be the host: a token is needed",
    "hint": "send `Authorization: Bearer TOKEN`; set it with P8S_API_TOKEN, or read the one of "
    "this start from /run/p8s/token in the node; the host needs none where the port is "
    "published at 127.0.0.1 alone",
}
TOKEN_REQUIRED = {
    "status": 401,
    "detail": "a token is needed",
    "hint": "send `Authorization: Bearer $P8S_API_TOKEN`",
}
OTHER_SITE = "p8s answers no page of another site"
BUG = "this is a bug of p8s"
LOOK_AT_STATUS = "GET /status shows what p8s is doing"


# --- routes


@pytest.mark.parametrize(
    ("request_", "status", "content_type", "body"),
    [
        pytest.param("GET /livez", 200, "text/plain; charset=utf-8", "ok\n", id="livez"),
        pytest.param("GET /ready", 200, "text/plain; charset=utf-8", "ok\n", id="ready"),
        pytest.param("GET /status", 200, "application/json", '{\n  "state": "ready"\n}\n', id="st"),
        pytest.param(
            "GET /metrics", 200, "text/plain; version=0.0.4", "p8s_ready 1.0\n", id="metrics"
        ),
        pytest.param("GET /kubeconfig", 200, "application/yaml", "a kubeconfig", id="kubeconfig"),
        pytest.param("POST /stop", 202, "text/plain; charset=utf-8", "stopping\n", id="stop"),
        pytest.param("HEAD /ready", 200, "text/plain; charset=utf-8", "", id="HEAD"),
    ],
)
def test_a_route_answers(request_: str, status: int, content_type: str, body: str) -> None:
    answer = http.call(http.make_client(), request_)
    assert (answer.status_code, answer.content_type, answer.text) == (status, content_type, body)


def test_a_kubeconfig_is_not_kept_by_caches() -> None:
    assert http.call(http.make_client(), "GET /kubeconfig").headers["Cache-Control"] == "no-store"


def test_a_stop_says_who_asked() -> None:
    cluster = http.Cluster()
    client = http.make_client(cluster)
    http.call(client, "POST /stop")
    http.call(client, "POST /stop", address=ADDRESS, headers=BEARER)
    assert cluster.stops == ["POST /stop from 127.0.0.1", f"POST /stop from {ADDRESS}"]


@pytest.mark.parametrize(
    ("request_", "cluster", "problem"),
    [
        pytest.param(
            "GET /ready",
            http.Cluster(missing={"node": "no CNI", "apiserver": "refused"}),
            {
                "status": 503,
                "detail": "the cluster is not ready",
                "missing": {"node": "no CNI", "apiserver": "refused"},
            },
            id="not ready",
        ),
        pytest.param(
            "GET /status",
            http.Cluster(failure=RuntimeError("oops")),
            {"status": 500, "detail": "RuntimeError: oops", "hint": BUG},
            id="a bug",
        ),
        pytest.param(
            "GET /status",
            http.Cluster(failure=errors.CommandError("ctr", code=1, output="no")),
            {"status": 500, "detail": "`ctr` ended with 1: no"},
            id="an error whose code is not HTTP's",
        ),
    ],
)
def test_a_problem_is_told_as_json(
    request_: str, cluster: http.Cluster, problem: dict[str, object]
) -> None:
    answer = http.call(http.make_client(cluster), request_)
    assert answer.status_code == problem["status"]
    assert answer.content_type == "application/problem+json"
    assert json.loads(answer.text) == problem


@pytest.mark.parametrize(
    ("request_", "status", "allowed"),
    [
        pytest.param("GET /", 404, None, id="root"),
        pytest.param("GET /nothing", 404, None, id="unknown"),
        pytest.param("GET /status/", 404, None, id="a slash too many"),
        pytest.param("GET /../status", 404, None, id="dots"),
        pytest.param("GET /stop", 405, {"OPTIONS", "POST"}, id="GET of a POST"),
        pytest.param("POST /ready", 405, {"GET", "HEAD", "OPTIONS"}, id="POST of a GET"),
        pytest.param("DELETE /status", 405, {"GET", "HEAD", "OPTIONS"}, id="DELETE"),
        pytest.param("BREW /stop", 405, {"OPTIONS", "POST"}, id="no such method"),
    ],
)
def test_what_is_not_there_is_told_as_json_with_a_hint(
    request_: str, status: int, allowed: set[str] | None
) -> None:
    cluster = http.Cluster()
    answer = http.call(http.make_client(cluster), request_)
    told = json.loads(answer.text)
    assert (answer.status_code, told["status"], told["hint"]) == (status, status, LOOK_AT_STATUS)
    assert answer.content_type == "application/problem+json"
    found = answer.headers.get("Allow")
    assert (None if found is None else set(found.split(", "))) == allowed
    assert cluster.stops == []


# --- access: by which name


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8989",
        "127.0.0.1",
        "localhost:8989",
        "LOCALHOST:8989",
        "localhost.:8989",
        "[::1]:8989",
        "[::1]",
        "p8s.example:443",
    ],
)
def test_the_cluster_answers_by_its_names(host: str) -> None:
    assert http.call(http.make_client(), "GET /status", host=host).status_code == 200


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        pytest.param("evil.example:8989", "evil.example", id="DNS rebinding"),
        pytest.param("127.0.0.1.evil.example", "127.0.0.1.evil.example", id="a look-alike"),
        pytest.param("localhost.evil.example", "localhost.evil.example", id="a subdomain"),
        pytest.param("0.0.0.0:8989", "0.0.0.0", id="any address"),
        pytest.param("2130706433", "2130706433", id="a number that is 127.0.0.1"),
    ],
)
@pytest.mark.parametrize("request_", ["GET /status", "GET /kubeconfig", "POST /stop"])
def test_the_cluster_answers_by_no_other_name_not_even_with_the_token(
    request_: str, host: str, shown: str
) -> None:
    cluster = http.Cluster()
    answer = http.call(http.make_client(cluster), request_, host=host, headers=BEARER)
    assert answer.status_code == 403
    assert json.loads(answer.text) == {
        "status": 403,
        "detail": f"addressed as {shown!r}, which is none of this cluster's names",
        "hint": f"use 127.0.0.1, or start p8s with P8S_EXTRA_SANS={shown}",
    }
    assert cluster.stops == []


@pytest.mark.parametrize("host", ["", "[", "[::1", ":", "///", "a b"])
def test_a_host_that_is_none_is_refused(host: str) -> None:
    answer = http.call(http.make_client(), "POST /stop", host=host)
    assert answer.status_code in (400, 403)
    assert answer.content_type == "application/problem+json"


# --- access: from which page


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        pytest.param(
            {"Sec-Fetch-Site": "cross-site"},
            "the request comes from a page of another site",
            id="another site",
        ),
        pytest.param(
            {"Sec-Fetch-Site": "same-site"},
            "the request comes from a page of another site",
            id="the same site, another origin",
        ),
        pytest.param(
            {"Origin": "http://evil.example"},
            "the request comes from a page at http://evil.example",
            id="another origin",
        ),
        pytest.param(
            {"Origin": "http://127.0.0.1:3000"},
            "the request comes from a page at http://127.0.0.1:3000",
            id="another port",
        ),
        pytest.param(
            {"Origin": "null"}, "the request comes from a page at null", id="no origin to name"
        ),
        pytest.param({"Origin": ""}, "the request comes from a page at ", id="an empty origin"),
        pytest.param(
            {"Origin": "http://[evil"},
            "the request comes from a page at http://[evil",
            id="an origin that is no URL",
        ),
    ],
)
@pytest.mark.parametrize("request_", ["POST /stop", "GET /kubeconfig", "GET /ready"])
def test_no_page_of_another_site_is_answered(
    request_: str, headers: dict[str, str], reason: str
) -> None:
    cluster = http.Cluster()
    answer = http.call(http.make_client(cluster), request_, headers=headers | BEARER)
    assert (answer.status_code, json.loads(answer.text)) == (
        403,
        {"status": 403, "detail": reason, "hint": OTHER_SITE},
    )
    assert cluster.stops == []


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no browser"),
        pytest.param({"Sec-Fetch-Site": "none"}, id="the address bar"),
        pytest.param({"Sec-Fetch-Site": "same-origin"}, id="a page of its own"),
        pytest.param({"Origin": "http://127.0.0.1:8989"}, id="its own origin"),
    ],
)
def test_own_pages_and_other_programs_are_answered(headers: dict[str, str]) -> None:
    assert http.call(http.make_client(), "POST /stop", headers=headers).status_code == 202


def test_no_page_of_another_site_can_read_an_answer() -> None:
    answer = http.call(http.make_client(), "GET /status")
    assert "Access-Control-Allow-Origin" not in answer.headers


# --- access: from where, with what

OPEN = ("GET /livez", "GET /ready", "HEAD /ready")
READABLE = ("GET /status", "GET /metrics", "GET /openapi.json")
GUARDED = (
    "GET /kubeconfig",
    "GET /settings",
    "GET /logs",
    "GET /logs/etcd",
    "GET /events?follow=false",
    "GET /images",
    "GET /bundle",
    "POST /apply",
    "POST /images",
    "POST /reset/default",
    "POST /stop",
    "GET /nothing",
    "OPTIONS /stop",
)
OK = dict.fromkeys((*OPEN, *READABLE, *GUARDED), 200) | {"POST /stop": 202, "GET /nothing": 404}


@dataclasses.dataclass(frozen=True)
class Caller:
    """Who calls."""

    address: str = "127.0.0.1"
    authorization: str | None = None


@pytest.mark.parametrize(
    ("caller", "token_required", "answered"),
    [
        pytest.param(Caller(), False, {*OPEN, *READABLE, *GUARDED}, id="loopback"),
        pytest.param(Caller("::1"), False, {*OPEN, *READABLE, *GUARDED}, id="IPv6 loopback"),
        pytest.param(Caller("172.17.0.1"), False, {*OPEN, *READABLE, *GUARDED}, id="the gateway"),
        pytest.param(
            Caller("::ffff:172.17.0.1"),
            False,
            {*OPEN, *READABLE, *GUARDED},
            id="the gateway, mapped to IPv6",
        ),
        pytest.param(Caller(ADDRESS), False, {*OPEN, *READABLE}, id="a pod"),
        pytest.param(
            Caller(f"::ffff:{ADDRESS}"), False, {*OPEN, *READABLE}, id="a pod, mapped to IPv6"
        ),
        pytest.param(Caller("127.0.0.2"), False, {*OPEN, *READABLE}, id="another loopback"),
        pytest.param(Caller(""), False, {*OPEN, *READABLE}, id="an unknown address"),
        pytest.param(
            Caller(ADDRESS, f"Bearer {fakes.TOKEN}"),
            False,
            {*OPEN, *READABLE, *GUARDED},
            id="a pod with the token",
        ),
        pytest.param(
            Caller(ADDRESS, f"bearer  {fakes.TOKEN} "),
            False,
            {*OPEN, *READABLE, *GUARDED},
            id="the token in another spelling of the header",
        ),
        pytest.param(Caller(ADDRESS, "Bearer wrong"), False, {*OPEN, *READABLE}, id="a wrong one"),
        pytest.param(Caller(ADDRESS, "Bearer "), False, {*OPEN, *READABLE}, id="an empty one"),
        pytest.param(Caller(ADDRESS, "Bearer"), False, {*OPEN, *READABLE}, id="none at all"),
        pytest.param(
            Caller(ADDRESS, f"Bearer {fakes.TOKEN}x"), False, {*OPEN, *READABLE}, id="a longer one"
        ),
        pytest.param(
            Caller(ADDRESS, f"Bearer {fakes.TOKEN[:-1]}"),
            False,
            {*OPEN, *READABLE},
            id="a shorter one",
        ),
        pytest.param(
            Caller(ADDRESS, f"Basic {fakes.TOKEN}"), False, {*OPEN, *READABLE}, id="another scheme"
        ),
        pytest.param(Caller(ADDRESS, "Bearer t\xf6ken"), False, {*OPEN, *READABLE}, id="Latin-1"),
        pytest.param(Caller(), True, set(OPEN), id="loopback where a token was set"),
        pytest.param(Caller(ADDRESS), True, set(OPEN), id="a pod where a token was set"),
        pytest.param(
            Caller("127.0.0.1", "Bearer wrong"), True, set(OPEN), id="a wrong one where one was set"
        ),
        pytest.param(
            Caller(ADDRESS, f"Bearer {fakes.TOKEN}"),
            True,
            {*OPEN, *READABLE, *GUARDED},
            id="the right one where one was set",
        ),
    ],
)
def test_who_may_call_what(
    caller: Caller,
    token_required: bool,
    answered: set[str],
) -> None:
    client = http.make_client(token_required=token_required)
    headers = {} if caller.authorization is None else {"Authorization": caller.authorization}
    found = {
        request: http.call(client, request, address=caller.address, headers=headers).status_code
        for request in OK
    }
    assert found == {request: OK[request] if request in answered else 401 for request in OK}


@pytest.mark.parametrize(
    ("token_required", "problem"),
    [
        pytest.param(False, ASK_FOR_TOKEN, id="not the host"),
        pytest.param(True, TOKEN_REQUIRED, id="a token was set"),
    ],
)
def test_a_refusal_says_how_to_get_in(
    token_required: bool,
    problem: dict[str, object],
) -> None:
    client = http.make_client(token_required=token_required)
    answer = http.call(client, "POST /stop", address=ADDRESS)
    assert (answer.status_code, answer.content_type) == (401, "application/problem+json")
    assert json.loads(answer.text) == problem


def test_a_stranger_may_ask_for_a_head_of_what_he_may_read() -> None:
    client = http.make_client()
    found = {
        path: http.call(client, f"HEAD {path}", address=ADDRESS).status_code
        for path in ("/status", "/metrics", "/kubeconfig")
    }
    assert found == {"/status": 200, "/metrics": 200, "/kubeconfig": 401}
