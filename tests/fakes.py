"""Stand-ins that record what they are asked and answer what they were given; no logic."""

from __future__ import annotations

import collections.abc
import dataclasses
import http.server
import ipaddress
import json
import pathlib
import socket
import ssl
import threading
import typing

from p8s_supervisor import (
    components,
    context,
    errors,
    etcd,
    kube,
    node,
    paths,
    ports,
    processes,
    settings,
    status,
)

FACTS = node.Facts(
    address="172.17.0.2",
    gateway="172.17.0.1",
    ipv6_address=None,
    networks=(ipaddress.IPv4Network("172.17.0.0/16"),),
    mtu=1500,
    cgroup_version=2,
    privileged=True,
    can_raise_limits=True,
    kernel=(6, 12),
)
STARTED_AT = 1767225600.0  # 2026-01-01T00:00:00Z
VERSIONS = {"kubernetes": "v1.37.2", "etcd": "3.6.16"}
TOKEN = "token-of-this-start"


class Clock:
    """Time that passes only in `sleep`, or when a test sets `now`."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


def running(name: str, *, pid: int = 100) -> processes.Process:
    return processes.Process(name, "RUNNING", pid, 5.0, "")


def stopped(name: str, *, state: str = "STOPPED", reason: str = "Not started") -> processes.Process:
    return processes.Process(name, state, 0, 0.0, reason)


class Supervisor:
    """A process supervisor.

    Attributes:
        calls: method and name of each call that changes something.
        now: what it lists.
        after: (method, name) → what it lists for that name after the call.
        failures: (method, name) → what the call raises.
    """

    def __init__(
        self,
        now: collections.abc.Iterable[processes.Process] = (),
        *,
        after: collections.abc.Mapping[tuple[str, str], processes.Process] | None = None,
        failures: collections.abc.Mapping[tuple[str, str], Exception] | None = None,
    ) -> None:
        self.calls: list[tuple[str, str]] = []
        self.now = {process.name: process for process in now}
        self.after = dict(after or {})
        self.failures = dict(failures or {})

    def _record(self, method: str, name: str) -> None:
        self.calls.append((method, name))
        if (method, name) in self.failures:
            raise self.failures[method, name]
        if (method, name) in self.after:
            self.now[name] = self.after[method, name]

    def start(self, name: str) -> None:
        self._record("start", name)

    def stop(self, name: str) -> None:
        self._record("stop", name)

    def list_processes(self) -> list[processes.Process]:
        if ("list_processes", "") in self.failures:
            raise self.failures["list_processes", ""]
        return list(self.now.values())

    def shutdown(self) -> None:
        self._record("shutdown", "")


Answer = kube.Object | str | Exception


@dataclasses.dataclass(frozen=True)
class Request:
    """A request that was made of `KubeClient`."""

    method: str
    path: str
    body: kube.Object | None
    content_type: str
    params: dict[str, str] | None


class KubeClient(kube.Client):
    """The apiserver's client, replaced at its one seam, `request`.

    Attributes:
        answers: "METHOD PATH" → the answers in turn; the last one is given ever after.
        requests: what was asked.
        limits: how long each might have taken, in seconds.
        forgotten: how often its connections were.
    """

    def __init__(self, answers: collections.abc.Mapping[str, list[Answer]]) -> None:
        self.answers = {asked: list(given) for asked, given in answers.items()}
        self.requests: list[Request] = []
        self.limits: list[float] = []
        self.forgotten = 0

    def forget_connections(self) -> None:
        self.forgotten += 1

    def request(
        self,
        method: str,
        path: str,
        *,
        body: kube.Object | None = None,
        content_type: str = "application/json",
        params: dict[str, str] | None = None,
        seconds: float = 5,
    ) -> str:
        self.limits.append(kube.limit(seconds))
        self.requests.append(Request(method, path, body, content_type, params))
        given = self.answers[f"{method} {path}"]
        answer = given.pop(0) if len(given) > 1 else given[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, str) else json.dumps(answer)

    def watch(
        self, path: str, *, resource_version: str, seconds: int, **params: str
    ) -> collections.abc.Iterator[kube.Object]:
        """Gives the items of the answer to "WATCH PATH", then ends; see `kube.Client.watch`."""
        given = {"resourceVersion": resource_version, **params}
        answer = json.loads(self.request("WATCH", path, params=given, seconds=seconds))
        yield from answer["items"]

    @property
    def asked(self) -> list[str]:
        """Each request as "METHOD PATH"."""
        return [f"{request.method} {request.path}" for request in self.requests]


class Etcd(etcd.Client):
    """etcd's client, without an etcd.

    Attributes:
        answer: what `has` and `put_into_empty` say.
        calls: method and key or prefix of each call.
        put: the entries that came with `put_into_empty`.
        statuses: what `read_status` gives in turn; the last one is given ever after.
    """

    def __init__(self, *statuses: etcd.Status | errors.P8sError, answer: bool = False) -> None:
        self.answer = answer
        self.statuses = list(statuses) or [etcd_status()]
        self.calls: list[tuple[str, str]] = []
        self.put: dict[str, bytes] = {}

    def list_entries(self, prefix: str) -> list[etcd.Entry]:
        self.calls.append(("list_entries", prefix))
        return []

    def has(self, key: str) -> bool:
        self.calls.append(("has", key))
        return self.answer

    def put_into_empty(self, entries: collections.abc.Mapping[str, bytes], *, prefix: str) -> bool:
        self.calls.append(("put_into_empty", prefix))
        self.put.update(entries)
        return self.answer

    def read_status(self) -> etcd.Status:
        found = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if isinstance(found, errors.P8sError):
            raise found
        return found

    def compact(self, revision: int) -> None:
        self.calls.append(("compact", str(revision)))

    def defragment(self) -> None:
        self.calls.append(("defragment", ""))

    def disarm(self) -> None:
        self.calls.append(("disarm", ""))


def etcd_status(
    revision: int = 1, *, size: int = 0, in_use: int = 0, quota: int = 2**31, full: bool = False
) -> etcd.Status:
    alarms = ("memberID:758 alarm:NOSPACE ",) if full else ()
    return etcd.Status(revision=revision, size=size, size_in_use=in_use, quota=quota, errors=alarms)


class Placeholder(ports.Placeholder):
    """A placeholder that holds no port.

    Attributes:
        reasons: what `find_other` says in turn; the last one is said ever after.
        calls: each method that was called.
    """

    def __init__(self, *reasons: str | None) -> None:
        self.reasons = list(reasons)
        self.calls: list[str] = []

    def find_other(self, proc: pathlib.Path = pathlib.Path("/proc")) -> str | None:
        self.calls.append("find_other")
        return self.reasons.pop(0) if len(self.reasons) > 1 else self.reasons[0]

    def close(self) -> None:
        self.calls.append("close")


class Commands:
    """In place of `commands.run`.

    Attributes:
        calls: each command with its standard input.
        answers: program → its output; an exception is raised.
    """

    def __init__(self, answers: collections.abc.Mapping[str, str | Exception]) -> None:
        self.calls: list[tuple[list[str], str | None]] = []
        self.answers = dict(answers)

    def __call__(
        self,
        command: collections.abc.Sequence[str],
        *,
        stdin: str | None = None,
        seconds: float = 30,
    ) -> str:
        self.calls.append((list(command), stdin))
        answer = self.answers[command[0]]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Rooted:
    """In place of the module `pathlib`: absolute paths are looked up under a root."""

    def __init__(self, root: pathlib.Path) -> None:
        self._root = root

    def Path(self, path: str | pathlib.Path) -> pathlib.Path:  # noqa: N802 — as pathlib has it
        found = pathlib.Path(path)
        return found if found.is_relative_to(self._root) else self._root / str(found).lstrip("/")


def forbid(*arguments: object, **_: object) -> typing.NoReturn:
    """In place of what would change the machine that runs the tests."""
    raise AssertionError(f"a test must not do this for real: {arguments}")


@dataclasses.dataclass(frozen=True)
class HttpRequest:
    """A request as `Server` got it."""

    method: str
    target: str
    content_type: str | None
    body: bytes


@dataclasses.dataclass(frozen=True)
class HttpAnswer:
    """An answer that `Server` gives."""

    status: int
    body: str
    content_type: str = "application/json"


class Server:
    """An HTTPS server on loopback.

    Attributes:
        answers: "METHOD TARGET" → the answer.
        requests: what it was asked.
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        self.answers: dict[str, HttpAnswer] = {}
        self.requests: list[HttpRequest] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            def do_POST(self) -> None:
                outer.answer(self)

            def do_PATCH(self) -> None:
                outer.answer(self)

            def do_DELETE(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                """Nothing: a test's output is its own."""

        class Http(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Nothing: handshakes that fail are what some tests are about."""

        self._http = Http(("127.0.0.1", 0), Handler)
        self._http.socket = tls.wrap_socket(
            self._http.socket, server_side=True, do_handshake_on_connect=False
        )
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._http.server_port}"

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        self.requests.append(
            HttpRequest(handler.command, handler.path, handler.headers.get("Content-Type"), body)
        )
        answer = self.answers[f"{handler.command} {handler.path}"]
        data = answer.body.encode()
        handler.send_response(answer.status)
        handler.send_header("Content-Type", answer.content_type)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def __enter__(self) -> typing.Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def free_port() -> int:
    """A TCP port that nobody has at any address, not even for a connection of its own."""
    with socket.socket() as taken:
        taken.bind(("", 0))
        return int(taken.getsockname()[1])


def load_settings(*arguments: str) -> settings.Loaded:
    """Settings from flags alone, whatever the machine has in /etc/p8s."""
    return settings.load(["--config=/dev/null", *arguments], {})


# The ranges of a cluster of IPv6 alone.
IPV6_RANGES = ("--pod-cidr=fd42:97::/64", "--service-cidr=fd42:96::/112")


def make_plan(root: pathlib.Path, *arguments: str, facts: node.Facts = FACTS) -> components.Plan:
    return components.Plan(load_settings(*arguments).settings, facts, paths.Paths(root))


def make_context(
    root: pathlib.Path,
    *arguments: str,
    supervisor: Supervisor | None = None,
    client: kube.Client | None = None,
    clock: Clock | None = None,
    story: list[str] | None = None,
) -> context.Context:
    """A context with fakes, of a container started at STARTED_AT; `story` gets what is told."""
    loaded = load_settings(*arguments)
    paths.Paths(root).state.mkdir(parents=True, exist_ok=True)
    told: list[str] = [] if story is None else story
    time = clock or Clock()
    return context.Context(
        plan=components.Plan(loaded.settings, FACTS, paths.Paths(root)),
        loaded=loaded,
        supervisor=supervisor or Supervisor(),
        timeline=status.Timeline(origin=0.0, clock=time, wall_clock=lambda: STARTED_AT + time.now),
        versions=dict(VERSIONS),
        tell=told.append,
        token=TOKEN,
        client=client,
    )
