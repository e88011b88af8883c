"""The HTTP API: parse, call, map errors. It is given callables and imports no flow."""

from __future__ import annotations

import collections.abc
import dataclasses
import hmac
import ipaddress
import json
import typing
import urllib.parse

import flask
import werkzeug.exceptions

# Answered for anybody who can reach the port, whatever name it was reached by: they tell a
# stranger nothing but whether a cluster is up.
OPEN = ("/livez", "/ready")
# Read without a token, unless one was set.
READABLE = ("/status", "/metrics")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Api:
    """What the routes call.

    Attributes:
        missing: condition → reason; empty when the cluster is ready.
        status: what /status shows.
        metrics: Prometheus' text format.
        kubeconfig: a kubeconfig for the host; None while there is none yet.
        stop: asks for the stop and returns at once; given who asked.
    """

    missing: collections.abc.Callable[[], dict[str, str]]
    status: collections.abc.Callable[[], dict[str, typing.Any]]
    metrics: collections.abc.Callable[[], str]
    kubeconfig: collections.abc.Callable[[], str | None]
    stop: collections.abc.Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Access:
    """Who may call what.

    Attributes:
        names: the host names and addresses by which a caller may address the API.
        trusted: addresses whose callers need no token: loopback and the host's gateway.
        token: opens everything.
        token_required: whether callers at `trusted` need it too.
    """

    names: frozenset[str]
    trusted: frozenset[str]
    token: str
    token_required: bool

    def refuse(self, request: flask.Request) -> tuple[int, str, str] | None:
        """Status, reason and hint of a refusal; None where the request may pass."""
        cross_site = self._cross_site(request)
        if cross_site:
            return 403, cross_site, "p8s answers no page of another site"
        if request.path in OPEN:
            return None
        # A page whose name was made to point here (DNS rebinding) still sends its own name.
        host = _host_name(request.host)
        if host not in self.names:
            return (
                403,
                f"addressed as {host!r}, which is none of this cluster's names",
                f"use 127.0.0.1, or start p8s with P8S_EXTRA_SANS={host}",
            )
        return None if self._is_allowed(request) else self._ask_for_token(request)

    def _is_allowed(self, request: flask.Request) -> bool:
        if self._has_token(request):
            return True
        if self.token_required:
            return False
        if request.method in ("GET", "HEAD") and request.path in READABLE:
            return True
        return _canonical(request.remote_addr or "") in self.trusted

    def _ask_for_token(self, request: flask.Request) -> tuple[int, str, str]:
        if self.token_required:
            return 401, "a token is needed", "send `Authorization: Bearer $P8S_API_TOKEN`"
        hint = (
            "send `Authorization: Bearer TOKEN`; set it with P8S_API_TOKEN, or read the one of "
            "this start from /run/p8s/token in the node"
        )
        return 401, f"{request.remote_addr} is not the host: a token is needed", hint

    def _has_token(self, request: flask.Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode(), self.token.encode()
        )

    def _cross_site(self, request: flask.Request) -> str | None:
        if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return "the request comes from a page of another site"
        origin = request.headers.get("Origin")
        if origin is not None and _network_location(origin) != request.host:
            return f"the request comes from a page at {origin}"
        return None


def _network_location(origin: str) -> str:
    """The host and port of an Origin header; empty where it has none."""
    try:
        return urllib.parse.urlsplit(origin).netloc
    except ValueError:
        return ""


def _host_name(host: str) -> str:
    """A Host header without its port, lower case, IPv6 without brackets."""
    try:
        return (urllib.parse.urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _canonical(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def problem(status: int, detail: str, *, hint: str = "", **more: object) -> flask.Response:
    """An error as application/problem+json (RFC 9457), with a hint where there is one."""
    body: dict[str, object] = {"status": status, "detail": detail}
    if hint:
        body["hint"] = hint
    return flask.Response(
        json.dumps(body | more, indent=2) + "\n",
        status=status,
        content_type="application/problem+json",
    )


def create_app(api: Api, access: Access) -> flask.Flask:  # noqa: C901 — a function a route
    """The WSGI application."""
    app = flask.Flask("p8s", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = 64 * 1024

    @app.before_request
    def check_access() -> flask.Response | None:
        refusal = access.refuse(flask.request)
        if refusal is None:
            return None
        status, reason, hint = refusal
        return problem(status, reason, hint=hint)

    @app.errorhandler(Exception)
    def explain(error: Exception) -> flask.Response:
        if isinstance(error, werkzeug.exceptions.HTTPException) and error.code:
            detail = str(error.description)
            response = problem(error.code, detail, hint="GET /status shows what p8s is doing")
            allowed = getattr(error, "valid_methods", None)
            if allowed:
                response.headers["Allow"] = ", ".join(sorted(allowed))
            return response
        app.logger.error("%s %s", flask.request.method, flask.request.path, exc_info=error)
        return problem(500, f"{type(error).__name__}: {error}", hint="this is a bug of p8s")

    @app.get("/livez")
    def livez() -> flask.Response:
        """200 as long as the sidecar answers."""
        return _text("ok\n")

    @app.get("/ready")
    def ready() -> flask.Response:
        """200 `ok` when everything is ready; 503 with `missing`: thing → reason otherwise."""
        missing = api.missing()
        if missing:
            return problem(503, "the cluster is not ready", missing=missing)
        return _text("ok\n")

    @app.get("/status")
    def status() -> flask.Response:
        """200: state, phases, conditions, versions, components and addresses, as JSON."""
        return flask.Response(
            json.dumps(api.status(), indent=2) + "\n", content_type="application/json"
        )

    @app.get("/metrics")
    def metrics() -> flask.Response:
        """200: Prometheus' text format."""
        return flask.Response(api.metrics(), content_type="text/plain; version=0.0.4")

    @app.get("/kubeconfig")
    def kubeconfig() -> flask.Response:
        """200: a kubeconfig with the administrator's certificate; 401 for strangers; 503 early."""
        text = api.kubeconfig()
        if text is None:
            return problem(503, "the certificates are not made yet", hint="wait for /ready")
        response = _text(text)
        response.headers["Cache-Control"] = "no-store"
        response.content_type = "application/yaml"
        return response

    @app.post("/stop")
    def stop() -> tuple[flask.Response, int]:
        """202: the stop has begun; the container ends when it is done."""
        api.stop(f"POST /stop from {flask.request.remote_addr}")
        return _text("stopping\n"), 202

    return app


def _text(text: str) -> flask.Response:
    return flask.Response(text, content_type="text/plain; charset=utf-8")
