"""Of an image only what a node lacks: a registry on loopback, for one push of the engine.

`docker save` lays out all layers of an image before it sends the first. A push asks the registry for each
layer, and sends none that is there. The engine asks by the digest of the compressed layer, which it knows
once it has compressed it for a push: for a large layer the first push is slow, and all others are quick.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import hashlib
import http.server
import io
import json
import re
import tarfile
import threading
import typing

from p8s_supervisor import errors
from p8s_supervisor.host import clusters, docker_host

Told = collections.abc.Callable[[int], object]
MIB = 1024 * 1024
# What is missing at most, and what there has to be beside it: else `docker save` takes no longer.
MOST_MISSING, LEAST_PRESENT = 16 * MIB, 32 * MIB
# Of one upload; larger ones are layers that the node has.
MOST_KEPT = 2 * MOST_MISSING
# The engine compresses some 30 MB/s: more is not to be waited for.
MOST_BYTES = 1024 * MIB
# The same each time, as the engine remembers smaller layers for one repository alone.
PORT = 18990
# Source: distribution-spec, spec.md, and what docker sends: dockerd, distribution/push_v2.go.
_BLOB = re.compile(r"/v2/([^?]+)/blobs/(sha256:[0-9a-f]{64})")
_UPLOAD = re.compile(r"/v2/([^?]+)/blobs/uploads/(\d*)(?:\?.*)?")
_MANIFEST = re.compile(r"/v2/([^?]+)/manifests/[\w.:-]+")
_DIGEST = re.compile(r"[?&]digest=sha256(?::|%3[Aa])([0-9a-f]{64})")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """An image that is to be pushed, of which the node has most.

    Attributes:
        name: in full.
        image: what the engine says of it.
        missing: bytes at most of the layers that the node lacks.
    """

    name: str
    image: clusters.Image
    missing: int


def choose(
    engine: docker_host.Engine,
    name: str,
    image: clusters.Image,
    present: collections.abc.Set[str],
) -> Wanted | None:
    """What to push; None where `docker save` is as quick, or the engine is not on this host."""
    lacking = [digest not in present for digest in image.layers]
    count = sum(lacking)
    if count == len(lacking) or any(lacking[:-count]) or not engine.is_local():
        return None
    # Newest first, empty ones left out: of these many at least all that is missing.
    missing = sum([size for size in engine.list_layer_sizes(name) if size][:count])
    if missing > MOST_MISSING or not LEAST_PRESENT <= image.size - missing <= MOST_BYTES:
        return None
    return Wanted(name=name, image=image, missing=missing)


def fetch(
    engine: docker_host.Engine,
    wanted: Wanted,
    present: collections.abc.Set[str],
    *,
    told: Told = lambda _: None,
) -> bytes:
    """An archive of an image without what is present.

    Args:
        engine: where the image is.
        wanted: what `choose` gave.
        present: digests of uncompressed layers.
        told: called with the number of bytes of each part that the engine sends.

    Raises:
        P8sError: the engine cannot reach this process, or did not send what is missing.
    """
    with Registry(engine.identity(), wanted.image.identity, told) as registry:
        engine.push_image(wanted.name, registry.repository)
    return registry.make_archive(wanted, present)


class Registry:
    """A registry that has every layer, for one repository and one push.

    Args:
        secret: what only those know who may use the engine: the repository's name follows from it.
        config: the digest of the image's configuration, which it has not.
        told: see `fetch`.
    """

    def __init__(self, secret: str, config: str, told: Told) -> None:
        self._config, self._told = config, told
        self._blobs: dict[str, bytes] = {}
        self._uploads: list[io.BytesIO] = []
        self._manifest = b""
        self._http = _listen(self)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self.name = f"p8s/{hashlib.sha256(secret.encode()).hexdigest()[:32]}"

    @property
    def repository(self) -> str:
        """Where to push to."""
        return f"127.0.0.1:{self._http.server_port}/{self.name}"

    def __enter__(self) -> typing.Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def make_archive(self, wanted: Wanted, present: collections.abc.Set[str]) -> bytes:
        """See `fetch`."""
        image = wanted.image
        try:
            layers = [str(layer["digest"]) for layer in json.loads(self._manifest)["layers"]]
            needed = {
                digest
                for digest, diff_id in zip(layers, image.layers, strict=True)
                if diff_id not in present
            }
            files = {digest: self._blobs[digest] for digest in (image.identity, *sorted(needed))}
        except (ValueError, KeyError, TypeError) as error:
            raise errors.P8sError(f"the engine did not push all of {wanted.name}") from error
        # The node finds the layers that are not in it by the configuration.
        entry = {"Config": image.identity, "RepoTags": [wanted.name], "Layers": layers}
        files["manifest.json"] = json.dumps([entry]).encode()
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return packed.getvalue()

    def has(self, digest: str) -> bool:
        """Whether a blob need not be sent. A layer that the node lacks is missed at the end."""
        return digest != self._config or digest in self._blobs

    def begin(self) -> int:
        """Begin an upload; its number."""
        self._uploads.append(io.BytesIO())
        return len(self._uploads) - 1

    def receive(self, number: int, chunks: collections.abc.Iterable[bytes]) -> int:
        """Take a part of an upload; how long it is now. What is too long is not kept."""
        upload, size = self._uploads[number], 0
        for chunk in chunks:
            self._told(len(chunk))
            size += len(chunk)
            if size <= MOST_KEPT:
                upload.write(chunk)
        return size

    def end(self, number: int, digest: str) -> None:
        """End an upload. It is kept only if it is what it should be."""
        content = self._uploads[number].getvalue()
        if f"sha256:{hashlib.sha256(content).hexdigest()}" == digest:
            self._blobs[digest] = content

    def put_manifest(self, content: bytes) -> str:
        """Take the manifest; its digest."""
        self._manifest = content
        return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _listen(registry: Registry) -> http.server.ThreadingHTTPServer:
    handler = functools.partial(_Handler, registry)
    try:
        return http.server.ThreadingHTTPServer(("127.0.0.1", PORT), handler)
    except OSError:  # another `p8s load`, say
        return http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)


class _Handler(http.server.BaseHTTPRequestHandler):
    """The requests of a push. Anything else is answered 404."""

    protocol_version = "HTTP/1.1"
    timeout = 60.0  # the engine keeps its connections open

    def __init__(self, registry: Registry, *arguments: typing.Any) -> None:
        self._registry = registry
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """GET /v2/: 200, it is a registry."""
        self._answer(200 if self.path == "/v2/" else 404)

    def do_HEAD(self) -> None:
        """HEAD of a blob: 200, it need not be sent; 404, it must."""
        found = self._match(_BLOB)
        if found is None or not self._registry.has(found):
            self._answer(404)
            return
        self._answer(200, {"Docker-Content-Digest": found, "Content-Length": "1"})

    def do_POST(self) -> None:
        """POST of an upload: 202 with its address."""
        if self._match(_UPLOAD) is None:
            self._answer(404)
            return
        self._accept(self._registry.begin(), 0)

    def do_PATCH(self) -> None:
        """PATCH of an upload: 202, what there is of it."""
        number = self._match(_UPLOAD)
        if not number:
            self._answer(404)
            return
        self._accept(int(number), self._registry.receive(int(number), self._read()))

    def do_PUT(self) -> None:
        """PUT of an upload with its digest, or of the manifest: 201."""
        number, digest = self._match(_UPLOAD), _DIGEST.search(self.path)
        if number and digest:
            self._registry.receive(int(number), self._read())
            told = f"sha256:{digest[1]}"
            self._registry.end(int(number), told)
        elif _MANIFEST.fullmatch(self.path) and self._match(_MANIFEST) is not None:
            told = self._registry.put_manifest(b"".join(self._read()))
        else:
            self._answer(404)
            return
        self._answer(201, {"Docker-Content-Digest": told, "Location": self.path})

    def _match(self, form: re.Pattern[str]) -> str | None:
        """The last part of a path, where it is of this form and in the repository."""
        found = form.fullmatch(self.path)
        if found is None or found[1] != self._registry.name:
            return None
        return found[found.lastindex or 0]

    def _accept(self, number: int, size: int) -> None:
        self._answer(
            202,
            {
                "Location": f"/v2/{self._registry.name}/blobs/uploads/{number}",
                "Docker-Upload-UUID": str(number),
                "Range": f"0-{max(size - 1, 0)}",
            },
        )

    def _answer(
        self, status: int, headers: collections.abc.Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": "0"} | dict(headers or {})).items():
            self.send_header(name, value)
        self.end_headers()

    def _read(self) -> collections.abc.Iterator[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            left = int(self.headers.get("Content-Length", 0))
            while left and (chunk := self.rfile.read(min(left, MIB))):
                left -= len(chunk)
                yield chunk
            return
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def log_message(self, *_: object) -> None:
        """Nothing."""
