"""Stand-ins for what the command on the host talks to: the engine and a cluster's HTTP API."""

from __future__ import annotations

import collections.abc
import dataclasses
import http.server
import json
import threading
import typing

from p8s_supervisor import errors
from p8s_supervisor.host import clusters, docker_host

STATUS: dict[str, typing.Any] = {
    "state": "ready",
    "uptime": 75.2,
    "missing": {},
    "phases": [
        {"name": "setup", "start": 0.3, "duration": 0.11},
        {"name": "readiness", "start": 2.5, "duration": 1.44},
    ],
    "conditions": {"etcd": 0.5, "cluster-dns": 3.9},
    "versions": {"kubernetes": "v1.37.2", "etcd": "3.6.16"},
    "components": [{"name": "etcd", "kind": "process", "state": "RUNNING", "restarts": 2}],
    "addresses": {"node": "172.17.0.5", "apiserver": "https://127.0.0.1:16443"},
}
KUBECONFIG: dict[str, typing.Any] = {
    "clusters": [{"name": "p8s", "cluster": {"server": "https://127.0.0.1:16443"}}],
    "users": [{"name": "p8s", "user": {"token": "secret"}}],
    "contexts": [{"name": "p8s", "context": {"cluster": "p8s", "user": "p8s"}}],
    "current-context": "p8s",
}


@dataclasses.dataclass(frozen=True)
class Request:
    """A request that `Api` was sent."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclasses.dataclass(frozen=True)
class Answer:
    """What `Api` answers with; an empty body with status 0 closes the connection."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"


def problem(status: int, detail: str, **more: object) -> Answer:
    body = json.dumps({"status": status, "detail": detail} | more).encode()
    return Answer(body, status, "application/problem+json")


class Api:
    """A cluster's HTTP API on loopback.

    Attributes:
        answers: "METHOD TARGET" → the answers in turn; the last one is given ever after. What is
            no Answer is sent as JSON.
        requests: what it was asked.
    """

    def __init__(self, answers: collections.abc.Mapping[str, list[object]]) -> None:
        self.answers = {asked: list(given) for asked, given in answers.items()}
        self.requests: list[Request] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            def do_POST(self) -> None:
                outer.answer(self)

            def do_DELETE(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                """Nothing: a test's output is its own."""

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        return self._http.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def asked(self) -> list[str]:
        """Each request as "METHOD TARGET"."""
        return [f"{request.method} {request.target}" for request in self.requests]

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        self.requests.append(
            Request(handler.command, handler.path, dict(handler.headers.items()), body)
        )
        given = self.answers[f"{handler.command} {handler.path}"]
        found = given.pop(0) if len(given) > 1 else given[0]
        answer = found if isinstance(found, Answer) else Answer(json.dumps(found).encode())
        handler.send_response(answer.status)
        handler.send_header("Content-Type", answer.content_type)
        handler.send_header("Content-Length", str(len(answer.body)))
        handler.end_headers()
        handler.wfile.write(answer.body)

    def __enter__(self) -> typing.Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def cluster(
    name: str = "default",
    *,
    state: str = "running",
    own: bool = True,
    http: int = 1,
    exit_code: int = 0,
    labels: collections.abc.Mapping[str, str] | None = None,
) -> clusters.Cluster:
    """A cluster with the usual ports in the node."""
    own_labels = {clusters.LABEL: name} if own else {}
    return clusters.Cluster(
        name=name,
        container=f"p8s-{name}" if own else name,
        identity=f"id-{name}",
        state=state,
        exit_code=exit_code,
        created=1767225600.0,
        ports={8989: ("127.0.0.1", http), 6443: ("127.0.0.1", 16443)},
        address="172.17.0.5",
        labels=own_labels | dict(labels or {}),
    )


class Engine(docker_host.Engine):
    """An engine without docker.

    Attributes:
        clusters: those it has, by name.
        volumes: the names of clusters that have a volume.
        calls: each call that changes something, with what it was about.
        specs: what it was to create.
        failures: method → what it raises, in turn; then it works.
        log: what a container printed.
        ends: the exit code of whatever is waited for.
    """

    def __init__(
        self,
        *found: clusters.Cluster,
        volumes: collections.abc.Iterable[str] = (),
        http: int = 1,
    ) -> None:
        self.clusters = {each.name: each for each in found}
        self.volumes = set(volumes)
        self.calls: list[tuple[str, str]] = []
        self.specs: list[clusters.Spec] = []
        self.failures: dict[str, list[errors.P8sError]] = {}
        self.log = b""
        self.ends = 0
        self.image = True
        self.token = ""
        self._http = http

    def _record(self, method: str, about: str) -> None:
        self.calls.append((method, about))
        if self.failures.get(method):
            raise self.failures[method].pop(0)

    def version(self) -> str:
        return "26.1.5"

    def identity(self) -> str:
        return "ENGINE"

    def reach(self, address: str) -> str:
        return "127.0.0.1" if address in ("", "0.0.0.0", "::") else address

    def find_image(self, name: str) -> clusters.Image | None:
        if not self.image:
            return None
        return clusters.Image(identity="sha256:1", size=1, architecture="amd64", tags=(name,))

    def pull_image(self, name: str) -> None:
        self._record("pull_image", name)

    def list_clusters(self) -> list[clusters.Cluster]:
        return list(self.clusters.values())

    def list_volumes(self) -> dict[str, str]:
        return {name: f"p8s-{name}" for name in sorted(self.volumes)}

    def find(self, name: str) -> clusters.Cluster | None:
        return self.clusters.get(name)

    def refresh(self, cluster: clusters.Cluster) -> clusters.Cluster | None:
        return self.clusters.get(cluster.name)

    def make_volume(self, name: str) -> str:
        self._record("make_volume", name)
        self.volumes.add(name)
        return f"p8s-{name}"

    def create(self, spec: clusters.Spec) -> clusters.Cluster:
        self._record("create", spec.name)
        self.specs.append(spec)
        labels = {clusters.KUBECONFIG_LABEL: spec.kubeconfig} if spec.kubeconfig else {}
        self.clusters[spec.name] = cluster(spec.name, http=self._http, labels=labels)
        return self.clusters[spec.name]

    def start(self, cluster: clusters.Cluster) -> None:
        self._record("start", cluster.name)

    def stop(self, cluster: clusters.Cluster, *, seconds: float = clusters.STOP_SECONDS) -> None:
        self._record("stop", cluster.name)

    def kill(self, cluster: clusters.Cluster) -> None:
        self._record("kill", cluster.name)

    def wait(self, cluster: clusters.Cluster) -> int:
        return self.ends

    def remove(self, cluster: clusters.Cluster) -> None:
        self._record("remove", cluster.name)
        self.clusters.pop(cluster.name, None)

    def remove_volume(self, name: str) -> bool:
        self._record("remove_volume", name)
        found = name in self.volumes
        self.volumes.discard(name)
        return found

    def read_logs(
        self, cluster: clusters.Cluster, *, follow: bool = False, tail: int | None = None
    ) -> collections.abc.Iterator[bytes]:
        yield self.log

    def execute(self, cluster: clusters.Cluster, *command: str) -> str:
        self._record("execute", " ".join(command))
        return self.token

    def copy(self, cluster: clusters.Cluster, path: str) -> bytes:
        return b""
