"""Who may call what of the HTTP API, decided from a request's head alone."""

from __future__ import annotations

import dataclasses
import hmac
import ipaddress
import urllib.parse

# Answered for anybody who can reach the port, whatever name it was reached by: they tell a
# stranger nothing but whether a cluster is up.
OPEN = ("/livez", "/ready")
# Read without a token, unless one was set: nothing in it opens a door.
READABLE = ("/status", "/metrics", "/openapi.json")

# The largest body, and that of an image archive.
BODY_BYTES = 64 * 1024
ARCHIVE_BYTES = 64 * 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Caller:
    """The head of a request, as far as access depends on it.

    Attributes:
        method: GET, POST, …
        path: without the query.
        host: the Host header.
        address: where the request comes from.
        authorization: the Authorization header; empty for none.
        origin: the Origin header; None for none.
        fetch_site: the Sec-Fetch-Site header, which browsers send; "none" for none.
    """

    method: str
    path: str
    host: str
    address: str
    authorization: str
    origin: str | None
    fetch_site: str


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why a request may not pass: an HTTP status, the reason, and a hint."""

    status: int
    reason: str
    hint: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Access:
    """Who may call what.

    Attributes:
        names: the host names and addresses by which a caller may address the API.
        trusted: addresses whose callers need no token: the gateway, by which the host arrives.
        token: opens everything.
        token_required: whether callers at `trusted` need it too.
    """

    names: frozenset[str]
    trusted: frozenset[str]
    token: str
    token_required: bool

    def refuse(self, caller: Caller) -> Refusal | None:
        """The refusal of a request; None where it may pass."""
        cross_site = _find_other_site(caller)
        if cross_site:
            return Refusal(403, cross_site, "p8s answers no page of another site")
        if caller.path in OPEN:
            return None
        # A page whose name was made to point here (DNS rebinding) still sends its own name.
        host = _host_name(caller.host)
        if host not in self.names:
            return Refusal(
                403,
                f"addressed as {host!r}, which is none of this cluster's names",
                f"use 127.0.0.1, or start p8s with P8S_EXTRA_SANS={host}",
            )
        return None if self._is_allowed(caller) else self._ask_for_token(caller)

    def _is_allowed(self, caller: Caller) -> bool:
        if self._has_token(caller):
            return True
        if self.token_required:
            return False
        if caller.method in ("GET", "HEAD") and caller.path in READABLE:
            return True
        return self.is_trusted(caller.address)

    def is_trusted(self, address: str) -> bool:
        """Whether callers at an address need no token, unless one was set."""
        return _canonical(address) in self.trusted

    def _ask_for_token(self, caller: Caller) -> Refusal:
        if self.token_required:
            return Refusal(401, "a token is needed", "send `Authorization: Bearer $P8S_API_TOKEN`")
        hint = (
            "send `Authorization: Bearer TOKEN`; set it with P8S_API_TOKEN, or read the one of "
            "this start from /run/p8s/token in the node; the host needs none where the port is "
            "published at 127.0.0.1 alone"
        )
        return Refusal(401, f"{caller.address} may not be the host: a token is needed", hint)

    def _has_token(self, caller: Caller) -> bool:
        scheme, _, given = caller.authorization.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode(), self.token.encode()
        )


def _find_other_site(caller: Caller) -> str | None:
    if caller.fetch_site not in ("none", "same-origin"):
        return "the request comes from a page of another site"
    if caller.origin is not None and _network_location(caller.origin) != caller.host:
        return f"the request comes from a page at {caller.origin}"
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
