"""A docker engine for other processes: its HTTP API, as far as p8s asks it; it records and answers."""

from __future__ import annotations

import base64
import http.server
import io
import json
import re
import struct
import tarfile
import threading
import time
import typing
import urllib.parse

VERSION = {"Version": "28.0.0", "ApiVersion": "1.45", "MinAPIVersion": "1.24"}
STAT = base64.b64encode(b'{"name": "it", "size": 1, "mode": 420}').decode()


def pack(name: str, content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def frame(text: bytes) -> bytes:
    """As the engine sends what a process writes to its standard output."""
    return struct.pack(">BxxxL", 1, len(text)) + text


class Engine:
    """An engine with one image and, once it was asked for, one container.

    Attributes:
        calls: what it was asked to change, and images that it was asked for: words of each.
        created: what the container was to be.
        existing: the name of a cluster that is there already; empty for none.
        state: docker's word for the container's state, and its exit code.
        has_image: whether there is any.
        ports: the container's port → the host's.
        labels: of the image.
    """

    LABELS: typing.ClassVar = {"org.opencontainers.image.title": "p8s"}

    def __init__(self, ports: dict[int, int]) -> None:
        self.calls: list[str] = []
        self.created: dict[str, typing.Any] = {}
        self.created_with: list[str] = []
        self.existing = ""
        self.state = ("running", 0)
        self.has_image = True
        self.ports = ports
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                url = urllib.parse.urlsplit(self.path)
                path = re.sub(r"^/v[\d.]+", "", url.path)
                query = dict(urllib.parse.parse_qsl(url.query))
                status, given = outer.answer(f"{self.command} {path}", query, body)
                content = given if isinstance(given, bytes) else json.dumps(given).encode()
                self.send_response(status)
                self.send_header("X-Docker-Container-Path-Stat", STAT)
                self.send_header("Content-Length", str(len(content) if status != 204 else 0))
                self.end_headers()
                if path.startswith("/exec/"):  # what follows is a stream, to the connection's end
                    self.close_connection = True
                    time.sleep(0.05)  # the SDK reads it past its buffer of the head
                if status != 204:
                    self.wfile.write(content)

            do_GET = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815 — as http.server has them

            def log_message(self, *_: object) -> None:
                """Nothing: a test's output is its own."""

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def host(self) -> str:
        """For DOCKER_HOST."""
        return f"tcp://127.0.0.1:{self._http.server_port}"

    @property
    def settings(self) -> list[str]:
        """The container's flags, without that of how it is reached."""
        return [flag for flag in self.created_with if not flag.startswith("--api-server=")]

    def list_calls(self, word: str) -> list[str]:
        return [call for call in self.calls if call.startswith(word)]

    def answer(
        self, asked: str, query: dict[str, str], body: bytes
    ) -> tuple[int, bytes | dict[str, typing.Any] | list[typing.Any]]:
        for form, method in ROUTES:
            match = re.fullmatch(form, asked)
            if match:
                return method(self, match[1] if match.re.groups else "", query, body)
        return 404, {"message": f"the fake knows no {asked}"}

    def inspect(self) -> dict[str, typing.Any]:
        name = f"p8s-{self.existing}" if self.existing else self.created["name"]
        cluster = self.existing or self.created["Labels"]["p8s.cluster"]
        ports = {f"{inside}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(outside)}] for inside, outside in self.ports.items()}  # fmt: skip
        return {
            "Id": "it",
            "Name": f"/{name}",
            "Created": "2026-01-01T00:00:00Z",
            "State": {"Status": self.state[0], "ExitCode": self.state[1]},
            "Config": {"Labels": self.LABELS | {"p8s.cluster": cluster}, "Tty": False},
            "NetworkSettings": {"Ports": ports, "Networks": {}},
        }

    def __enter__(self) -> typing.Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _create(self, _: str, query: dict[str, str], body: bytes) -> tuple[int, typing.Any]:
        self.created = json.loads(body) | {"name": query["name"]}
        self.created_with = list(self.created["Cmd"])
        self.calls.append(f"create {query['name']}")
        return 201, {"Id": "it"}

    def _remove(self, _: str, query: dict[str, str], __: bytes) -> tuple[int, typing.Any]:
        self.calls.append(f"remove {self.created.get('name')} {query['force']} {query['v']}")
        self.created = {}
        return 204, b""

    def _image(self, name: str, _: dict[str, str], __: bytes) -> tuple[int, typing.Any]:
        self.calls.append(f"image {name}")
        if not self.has_image:
            return 404, {"message": "No such image"}
        return 200, {"Id": "sha256:0", "Size": 1, "RepoTags": [name]}

    def _export(self, name: str, _: dict[str, str], __: bytes) -> tuple[int, typing.Any]:
        self.calls.append(f"export {name}")
        return 200, pack("index.json", b"{}")

    def _list(self, _: str, query: dict[str, str], __: bytes) -> tuple[int, typing.Any]:
        wanted = json.loads(query.get("filters", "{}")).get("label", [])
        return 200, [{"Id": "it"}] if wanted == [f"p8s.cluster={self.existing}"] else []

    def _inspect(self, _: str, __: dict[str, str], ___: bytes) -> tuple[int, typing.Any]:
        if not self.created and not self.existing:
            return 404, {"message": "No such container"}
        return 200, self.inspect()


Answer = typing.Callable[[Engine, str, dict[str, str], bytes], tuple[int, typing.Any]]


def give(status: int, content: typing.Any) -> Answer:
    return lambda *_: (status, content)


ROUTES: list[tuple[str, Answer]] = [
    (r"(?:GET|HEAD) /_ping", give(200, b"OK")),
    (r"GET /version", give(200, VERSION)),
    (r"GET /images/(.+)/json", Engine._image),
    (r"GET /images/(.+)/get", Engine._export),
    (r"GET /containers/json", Engine._list),
    (r"POST /containers/create", Engine._create),
    (r"POST /containers/it/start", give(204, b"")),
    (r"DELETE /containers/it", Engine._remove),
    (r"GET /containers/it/logs", give(200, frame(b"the end of the log\n"))),
    (r"GET /containers/it/archive", give(200, pack("hyperkube", b"#!/bin/sh\n"))),
    (r"GET /containers/([^/]+)/json", Engine._inspect),
    (r"POST /containers/it/exec", give(201, {"Id": "x"})),
    (r"POST /exec/x/start", give(200, frame(b"secret\n"))),
    (r"GET /exec/x/json", give(200, {"ExitCode": 0})),
]
