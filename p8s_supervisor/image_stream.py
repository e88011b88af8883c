"""Image archives are read as a stream, and what is in them is handed on as it comes.

Nothing is known of an archive before its end: docker writes `manifest.json` last. So every blob is
handed on, and what makes images of them, the index, is written by `oci` once all has been checked.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import posixpath
import re
import tarfile
import typing

from p8s_supervisor import errors

BUFFER = 1024 * 1024
# Manifests and configurations; an archive with more of them is none that a tool writes.
MOST_JSON_BYTES, MOST_JSON = 8 * 1024 * 1024, 64 * 1024 * 1024
SAVE_HINT = "send what `docker save NAME:TAG` writes, or an OCI layout as a tar"
_MAGIC = {b"\x1f\x8b": "+gzip", b"\x28\xb5\x2f\xfd": "+zstd"}
_DIGEST_PATH = re.compile(r"blobs/sha256/([0-9a-f]{64})")


@dataclasses.dataclass(frozen=True)
class Blob:
    """Some content.

    Attributes:
        digest: sha256 and its hexadecimal form.
        size: in bytes.
        compression: as a layer's media type ends: empty, `+gzip` or `+zstd`.
    """

    digest: str
    size: int
    compression: str = ""


class Store(typing.Protocol):
    """What the node has already."""

    def find(self, digest: str) -> Blob | None:
        """The blob with that digest, or the one whose uncompressed form has it."""


@dataclasses.dataclass
class Archive:
    """What an archive holds, by the names of its files.

    Attributes:
        blobs: what was handed on or is in the store.
        documents: the JSON files' bytes.
    """

    blobs: dict[str, Blob] = dataclasses.field(default_factory=dict)
    documents: dict[str, bytes] = dataclasses.field(default_factory=dict)

    def find_document(self, digest: str) -> bytes | None:
        """A JSON file by its digest."""
        for name, blob in self.blobs.items():
            if blob.digest == digest and name in self.documents:
                return self.documents[name]
        return None

    def has(self, digest: str) -> Blob | None:
        """A file by its digest."""
        return next((blob for blob in self.blobs.values() if blob.digest == digest), None)


def compression_of(head: bytes) -> str:
    """A layer's compression by its first bytes, as its media type ends."""
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")


def refuse(reason: str, *, hint: str = SAVE_HINT) -> errors.RequestError:
    """An archive that cannot be taken."""
    return errors.RequestError(f"not an image archive: {reason}", status=400, hint=hint)


class Pipe(io.RawIOBase):
    """What `tarfile` needs of a file to write to: one that knows how far it is."""

    def __init__(self, target: typing.IO[bytes]) -> None:
        self._target, self._written = target, 0

    def write(self, data: typing.Any) -> int:
        """Write all of it."""
        self._target.write(data)
        self._written += len(data)
        return len(data)

    def tell(self) -> int:
        """Bytes that have been written."""
        return self._written


class _Hashed(io.RawIOBase):
    """A file that is hashed while it is read."""

    def __init__(self, head: bytes, rest: typing.IO[bytes]) -> None:
        self._head, self._rest = head, rest
        self.hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._head[:size] if size >= 0 else self._head
        self._head = self._head[len(data) :]
        if len(data) < size or size < 0:
            data += self._rest.read(size - len(data) if size >= 0 else -1)
        self.hash.update(data)
        return data


@dataclasses.dataclass
class Copier:
    """Reads an archive and hands its blobs on.

    Attributes:
        target: gets each blob under a name in `folder`; containerd knows blobs by their content.
        folder: a name that no other import uses: containerd goes on with what another one of the
            same name has begun.
        store: what is in it already is not handed on.
        archive: what has been read.
    """

    target: tarfile.TarFile
    folder: str
    store: Store
    archive: Archive = dataclasses.field(default_factory=Archive)

    def copy(self, source: typing.IO[bytes]) -> Archive:
        """Read an archive to its end.

        Args:
            source: a tar, compressed or not.

        Raises:
            RequestError: 400, it is no tar, or cut off.
        """
        links: dict[str, str] = {}
        try:
            with tarfile.open(fileobj=source, mode="r|*", bufsize=BUFFER) as tar:
                for member in tar:
                    name = posixpath.normpath(member.name).lstrip("/")
                    if member.issym():
                        aim = posixpath.join(posixpath.dirname(name), member.linkname)
                        links[name] = posixpath.normpath(aim)
                    elif member.islnk():
                        links[name] = posixpath.normpath(member.linkname)
                    elif file := tar.extractfile(member):
                        self._copy_file(name, member.size, file)
        except (tarfile.TarError, EOFError) as error:
            raise refuse(f"{error}") from error
        for name, aim in links.items():
            if aim in self.archive.blobs:
                self.archive.blobs[name] = self.archive.blobs[aim]
        return self.archive

    def _copy_file(self, name: str, size: int, file: typing.IO[bytes]) -> None:
        archive = self.archive
        head = file.read(4)
        hashed = _Hashed(head, file)
        if head[:1] in (b"{", b"[") and size <= MOST_JSON_BYTES:
            if sum(map(len, archive.documents.values())) + size > MOST_JSON:
                raise refuse("it holds too many JSON files")
            archive.documents[name] = hashed.read()
            archive.blobs[name] = add(self.target, self.folder, archive.documents[name])
            return
        found = _DIGEST_PATH.fullmatch(name)
        if found and (known := self.store.find(f"sha256:{found[1]}")):
            while file.read(BUFFER):
                pass  # to the next one: an archive that is cut off here is not a whole one either
            archive.blobs[name] = known
            return
        header = tarfile.TarInfo(f"{self.folder}/{len(archive.blobs)}")
        header.size = size
        self.target.addfile(header, hashed)
        digest = f"sha256:{hashed.hash.hexdigest()}"
        archive.blobs[name] = Blob(digest, size, compression_of(head))


def add(target: tarfile.TarFile, folder: str, content: bytes, name: str = "") -> Blob:
    """Write some content; under its digest where it has no name."""
    digest = hashlib.sha256(content).hexdigest()
    header = tarfile.TarInfo(name or f"{folder}/{digest}")
    header.size = len(content)
    target.addfile(header, io.BytesIO(content))
    return Blob(f"sha256:{digest}", len(content))
