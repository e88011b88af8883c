"""Image archives as `docker save` writes them, without the layers that a node has already."""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import posixpath
import re
import tarfile
import typing

from p8s_supervisor import errors

CHUNK = 1024 * 1024
MOST_JSON_BYTES = 8 * CHUNK
# A file of an OCI layout is named by its digest: docker writes this form since version 25.
_BLOB = re.compile(r"(?:\./)?blobs/sha256/([0-9a-f]{64})")
# One of these is in every archive: the OCI layout's, and the one of docker before it.
_INDEXES = ("index.json", "manifest.json")
_BLOCK = tarfile.BLOCKSIZE


@dataclasses.dataclass
class Tally:
    """What became of an archive's bytes; complete when the last chunk was taken.

    Attributes:
        sent: bytes of the archive that was made.
        skipped: bytes that were in the one given and are not in the one made.
        blobs: digests of the blobs that were sent.
        recognized: whether what was read is an image archive.
    """

    sent: int = 0
    skipped: int = 0
    blobs: set[str] = dataclasses.field(default_factory=set)
    recognized: bool = False


class Chunks:
    """Chunks of bytes as something to read from.

    Args:
        chunks: of any size; empty ones are passed over.
        told: called with the number of bytes of each chunk that was taken.
    """

    def __init__(
        self,
        chunks: collections.abc.Iterable[bytes],
        *,
        told: collections.abc.Callable[[int], object] = lambda _: None,
    ) -> None:
        self._chunks = iter(chunks)
        self._told = told

    def read(self, _: int = -1) -> bytes:
        """The next chunk, however long; empty at the end. tarfile takes what it gets."""
        for chunk in self._chunks:
            if chunk:
                self._told(len(chunk))
                return chunk
        return b""


class Readable(typing.Protocol):
    """What `strip` needs of a file."""

    def read(self, size: int = ..., /) -> bytes:
        """Some bytes; none at the end."""


def find_layers(file: typing.IO[bytes]) -> dict[str, str]:
    """The layers of an archive by the names of their files, each with its uncompressed digest.

    Args:
        file: is read here and there, and left at its begin; of a compressed archive nothing is found.
    """
    found: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for image in _read_json(archive, "manifest.json"):
                config = _read_json(archive, image["Config"])
                names = map(posixpath.normpath, image["Layers"])
                found |= zip(names, config["rootfs"]["diff_ids"], strict=True)
    except (tarfile.TarError, KeyError, TypeError, ValueError, EOFError):
        found = {}  # another form, or damaged: the node says what is wrong with it
    file.seek(0)
    return found


def _read_json(archive: tarfile.TarFile, name: str) -> typing.Any:
    content = archive.extractfile(name)
    return json.loads(content.read(MOST_JSON_BYTES)) if content else None


def strip(
    source: Readable,
    present: collections.abc.Set[str],
    tally: Tally,
    *,
    layers: collections.abc.Mapping[str, str] | None = None,
) -> collections.abc.Iterator[bytes]:
    """The archive without the layers that are present, as it is read: never whole in memory.

    An archive in the form before docker 25 passes whole without `layers`: the names of its layers
    say nothing of their content, and what they are stands at its end.

    Args:
        source: a tar archive, also a compressed one; what comes out is not compressed.
        present: digests, `sha256:…`.
        tally: gets the figures.
        layers: what `find_layers` found.

    Raises:
        P8sError: it is no image archive, or ends too early.
    """
    try:
        # mypy knows the mode for a compressed stream only with a whole file object.
        with tarfile.open(
            fileobj=typing.cast("typing.IO[bytes]", source), mode="r|*", bufsize=CHUNK
        ) as archive:
            yield from _copy_entries(archive, present, tally, layers or {})
    except (tarfile.TarError, EOFError, OSError) as error:
        raise errors.P8sError(
            f"not a whole image archive: {error}", hint="`docker save` makes one"
        ) from error
    if not tally.recognized:
        raise errors.P8sError(
            "a tar archive, but none of images: index.json and manifest.json are missing",
            hint="`docker save` makes one",
        )
    yield bytes(2 * _BLOCK)  # how a tar archive ends
    tally.sent += 2 * _BLOCK


def _copy_entries(
    archive: tarfile.TarFile,
    present: collections.abc.Set[str],
    tally: Tally,
    layers: collections.abc.Mapping[str, str],
) -> collections.abc.Iterator[bytes]:
    for entry in archive:
        blob = _BLOB.fullmatch(entry.name)
        digest = f"sha256:{blob[1]}" if blob else layers.get(posixpath.normpath(entry.name))
        tally.recognized = tally.recognized or entry.name.removeprefix("./") in _INDEXES
        content = archive.extractfile(entry) if entry.isreg() else None
        head = content.read(1) if content else b""
        # The node reads manifests and configurations from the archive alone.
        if digest in present and head not in (b"{", b"["):
            tally.skipped += entry.size
            continue
        for chunk in _copy(entry, head, content):
            tally.sent += len(chunk)
            yield chunk
        if digest is not None:
            tally.blobs.add(digest)


def _copy(
    entry: tarfile.TarInfo, head: bytes, content: typing.IO[bytes] | None
) -> collections.abc.Iterator[bytes]:
    yield entry.tobuf(tarfile.PAX_FORMAT) + head
    if content is None:
        return
    left = entry.size - len(head)
    while left:
        chunk = content.read(min(CHUNK, left))
        if not chunk:
            raise EOFError(f"{entry.name} ends {left} bytes too early")
        left -= len(chunk)
        yield chunk
    if entry.size % _BLOCK:
        yield bytes(-entry.size % _BLOCK)


def full_name(name: str) -> str:
    """An image's name with everything that may be left out: registry, `library/`, `:latest`.

    Source: distribution/reference, ParseNormalizedNamed and TagNameOnly.
    """
    domain, slash, rest = name.partition("/")
    if not slash or not ("." in domain or ":" in domain or domain == "localhost"):
        domain, rest = "docker.io", name
    if domain == "docker.io" and "/" not in rest:
        rest = f"library/{rest}"
    return f"{domain}/{rest}" if _has_tag(rest) else f"{domain}/{rest}:latest"


def _has_tag(path: str) -> bool:
    return "@" in path or ":" in path.rpartition("/")[2]


def is_loaded(
    name: str, identity: str, images: collections.abc.Iterable[collections.abc.Mapping[str, str]]
) -> bool:
    """Whether a node has just this image by just this name.

    Args:
        name: the image's full name.
        identity: the engine's image ID: the digest of the image's configuration, or of its
            manifest where the engine keeps images in containerd.
        images: what the node has: name, digest of the manifest, digest of the configuration.
    """
    there = next((image for image in images if image["name"] == name), {})
    return identity in (there.get("config"), there.get("digest"))
