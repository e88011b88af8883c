"""A typed client of a cluster's HTTP API, over one `_request`."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import json
import typing
import urllib.parse

from p8s_supervisor import errors

if typing.TYPE_CHECKING:
    import requests

SECONDS = 10.0
# Deleting a namespace's content and applying manifests wait for the cluster.
LONG_SECONDS = 300.0

Object = dict[str, typing.Any]


@dataclasses.dataclass(frozen=True)
class Event:
    """One event of GET /events.

    Attributes:
        identity: what Last-Event-ID takes up from.
        kind: its type.
        data: what was recorded.
    """

    identity: str
    kind: str
    data: Object


class Client:
    """A cluster's HTTP API.

    Args:
        url: where it is, as in http://127.0.0.1:8989.
        token: for the first request; empty for none.
        find_token: asked once where the API wants a token and none was given.

    Every method raises `errors.RequestError`: with the answer's status and hint, or with status 0
    where nothing answers.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        find_token: collections.abc.Callable[[], str] = lambda: "",
    ) -> None:
        import requests  # late: `--help` needs no HTTP

        self.url = url
        self._token = token
        self._find_token = find_token
        self._session = requests.Session()
        # A proxy of the environment is not for this host's own ports.
        self._session.trust_env = False

    def missing(self) -> dict[str, str]:
        """What keeps the cluster from being ready: condition → reason; empty when it is."""
        response = self._send("GET", "/ready")
        if response.status_code == 200:
            return {}
        missing = _read_problem(response).get("missing")
        if not isinstance(missing, dict):
            raise _explain(response)
        return {str(name): str(reason) for name, reason in missing.items()}

    def status(self, *, seconds: float = SECONDS) -> Object:
        """What GET /status shows."""
        return typing.cast("Object", self._json("GET", "/status", seconds=seconds))

    def kubeconfig(self, host: str = "") -> str:
        """An administrator's kubeconfig; with `host` its server has that name."""
        return self._request("GET", "/kubeconfig", params={"host": host} if host else None).text

    def settings(self) -> dict[str, dict[str, str]]:
        """The settings in force: name → {"value", "source"}."""
        return typing.cast("dict[str, dict[str, str]]", self._json("GET", "/settings"))

    def stop(self) -> None:
        """Ask for the stop."""
        self._request("POST", "/stop")

    def apply(self) -> list[str]:
        """Apply the manifests again; what was applied."""
        return list(self._json("POST", "/apply", seconds=LONG_SECONDS)["applied"])

    def reset(self, namespace: str) -> list[str]:
        """Delete what is in a namespace; what was deleted."""
        path = f"/reset/{urllib.parse.quote(namespace, safe='')}"
        return list(self._json("POST", path, seconds=LONG_SECONDS)["deleted"])

    def add_ons(self) -> list[Object]:
        """Every add-on: name, summary, enabled, usable, and the reason where it is not usable."""
        return typing.cast("list[Object]", self._json("GET", "/addons")["addons"])

    def enable_add_on(self, name: str) -> list[str]:
        """Apply an add-on's manifests, and keep it enabled; what was applied."""
        path = f"/addons/{urllib.parse.quote(name, safe='')}"
        return list(self._json("POST", path, seconds=LONG_SECONDS)["applied"])

    def disable_add_on(self, name: str) -> list[str]:
        """Delete what an add-on's manifests brought; what was deleted."""
        path = f"/addons/{urllib.parse.quote(name, safe='')}"
        return list(self._json("DELETE", path, seconds=LONG_SECONDS)["deleted"])

    def list_logs(self) -> list[str]:
        """The components that have a log."""
        return list(self._json("GET", "/logs")["components"])

    def read_logs(
        self, component: str, *, follow: bool = False, tail: int | None = None
    ) -> collections.abc.Iterator[bytes]:
        """A component's log in pieces; with `follow` until the cluster ends."""
        params = {"follow": "true" if follow else "false"}
        if tail is not None:
            params["tail"] = str(tail)
        path = f"/logs/{urllib.parse.quote(component, safe='')}"
        yield from self._stream(path, params, follow=follow)

    def read_events(self, *, follow: bool, after: str = "") -> collections.abc.Iterator[Event]:
        """The events since the start, or after one; with `follow` until the cluster ends."""
        headers = {"Last-Event-ID": after} if after else None
        pieces = self._stream(
            "/events", {"follow": "true" if follow else "false"}, follow=follow, headers=headers
        )
        yield from parse_events(pieces)

    def make_user(
        self, name: str, *, groups: collections.abc.Sequence[str], ttl: str, kind: str
    ) -> str:
        """A kubeconfig for a user; kind is "certificate" or "token"."""
        body: Object = {"name": name, "groups": list(groups), "kind": kind}
        if ttl:
            body["ttl"] = ttl
        return self._request("POST", "/users", body=body, seconds=60).text

    def images(self) -> Object:
        """Images and blobs that the node has."""
        return typing.cast("Object", self._json("GET", "/images", seconds=60))

    def load(self, content: collections.abc.Iterable[bytes]) -> list[str]:
        """Stream an archive of images in; the images' names."""
        response = self._request("POST", "/images", data=content, seconds=LONG_SECONDS)
        return list(_read_json(response)["images"])

    def read_bundle(self) -> collections.abc.Iterator[bytes]:
        """The support bundle, a tar.gz, in pieces."""
        yield from self._stream("/bundle", {}, seconds=LONG_SECONDS)

    def request(self, method: str, path: str, *, seconds: float = SECONDS) -> bytes:
        """What the API answers at a path, as it is."""
        return self._request(method, path, seconds=seconds).content

    def _json(self, method: str, path: str, *, seconds: float = SECONDS) -> typing.Any:
        return _read_json(self._request(method, path, seconds=seconds))

    def _stream(
        self,
        path: str,
        params: dict[str, str],
        *,
        follow: bool = False,
        headers: dict[str, str] | None = None,
        seconds: float = 60,
    ) -> collections.abc.Iterator[bytes]:
        import requests

        response = self._request(
            "GET",
            path,
            params=params,
            headers=headers,
            stream=True,
            seconds=None if follow else seconds,
        )
        with contextlib.closing(response):
            try:
                yield from response.iter_content(None)
            except requests.RequestException as error:
                if follow:
                    return  # the cluster has ended: nothing more will come
                raise self._unreachable(path, error) from error

    def _request(self, method: str, path: str, **options: typing.Any) -> requests.Response:
        response = self._send(method, path, **options)
        if response.ok:
            return response
        raise _explain(response)

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        body: Object | None = None,
        data: collections.abc.Iterable[bytes] | None = None,
        stream: bool = False,
        seconds: float | None = SECONDS,
    ) -> requests.Response:
        """The one door to the API: any answer, also a refusal."""
        import requests

        def send() -> requests.Response:
            bearer = {"Authorization": f"Bearer {self._token}"} if self._token else {}
            return self._session.request(
                method,
                self.url + path,
                params=params,
                headers={**bearer, **(headers or {})},
                json=body,
                data=data,
                stream=stream,
                timeout=(SECONDS, seconds),
                allow_redirects=False,
            )

        try:
            response = send()
            # What was streamed cannot be sent twice: `load` asks for `images` first.
            if response.status_code == 401 and data is None:
                found = self._find_token()
                if found and found != self._token:
                    self._token = found
                    response = send()
        except requests.RequestException as error:
            raise self._unreachable(path, error) from error
        return response

    def _unreachable(self, path: str, error: Exception) -> errors.RequestError:
        return errors.RequestError(
            f"the cluster does not answer at {self.url}{path}: {find_cause(error)}",
            status=0,
            hint="`p8s list` shows whether it runs, `p8s logs` what it says",
        )


def parse_events(
    pieces: collections.abc.Iterable[bytes],
) -> collections.abc.Iterator[Event]:
    """Server-sent events from a stream, whatever pieces it comes in.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, 9.2.6.
    """
    fields: dict[str, str] = {}
    for line in split_lines(pieces):
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data" and "data" in fields:
                value = f"{fields['data']}\n{value}"
            fields[name] = value  # a comment has an empty name, and nobody asks for it
        else:
            if "data" in fields:
                data = _parse(fields["data"])
                yield Event(fields.get("id", ""), fields.get("event", "message"), data)
            fields = {}


def split_lines(pieces: collections.abc.Iterable[bytes]) -> collections.abc.Iterator[str]:
    """Lines of text, without their ends, from pieces that end anywhere."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r").decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


def _parse(text: str) -> Object:
    try:
        parsed = json.loads(text)
    except ValueError:
        return {"message": text}
    return parsed if isinstance(parsed, dict) else {"message": str(parsed)}


def _read_json(response: requests.Response) -> typing.Any:
    try:
        return response.json()
    except ValueError as error:
        raise errors.RequestError(
            f"{response.url} answered {response.headers.get('Content-Type')}, not JSON",
            status=response.status_code,
            hint="something other than p8s may listen there: `p8s list` shows the ports",
        ) from error


def _read_problem(response: requests.Response) -> Object:
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _explain(response: requests.Response) -> errors.RequestError:
    problem = _read_problem(response)
    detail = problem.get("detail") or f"{response.url} answered {response.status_code}"
    return errors.RequestError(
        str(detail), status=response.status_code, hint=str(problem.get("hint", ""))
    )


def find_cause(error: BaseException) -> str:
    """Why something does not answer: requests wraps urllib3's errors, which wrap the system's."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return getattr(error, "strerror", None) or str(error)
