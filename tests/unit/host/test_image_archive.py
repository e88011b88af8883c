"""Archives without what a node has: what goes, what stays, and that it is a tar archive still."""

from __future__ import annotations

import collections.abc
import gzip
import hashlib
import io
import json
import tarfile

import pytest

from p8s_supervisor import errors
from p8s_supervisor.host import image_archive

LARGE = bytes(range(256)) * 5000  # more than one chunk, and no multiple of a block
SMALL = b"a small layer"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def blob_of(content: bytes) -> str:
    return f"blobs/{digest_of(content).replace(':', '/')}"


OCI = {
    blob_of(LARGE): LARGE,
    blob_of(SMALL): SMALL,
    "index.json": b"{}",
    "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
}
LEGACY = {
    "0123/layer.tar": LARGE,
    f"{digest_of(SMALL)[7:]}.json": SMALL,
    "manifest.json": json.dumps([{"Layers": ["0123/layer.tar"]}]).encode(),
}


def pack(files: collections.abc.Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def unpack(packed: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as archive:
        return {
            entry.name: content.read()
            for entry in archive
            if (content := archive.extractfile(entry)) is not None
        }


def cut(content: bytes, *, size: int) -> collections.abc.Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def strip(
    packed: bytes, *present: bytes, size: int = 4096
) -> tuple[dict[str, bytes], image_archive.Tally]:
    tally = image_archive.Tally()
    source = image_archive.Chunks(cut(packed, size=size))
    made = b"".join(image_archive.strip(source, set(map(digest_of, present)), tally))
    assert tally.sent == len(made)
    return unpack(made), tally


@pytest.mark.parametrize(
    ("packed", "present", "gone"),
    [
        pytest.param(pack(OCI), [], [], id="nothing is there"),
        pytest.param(pack(OCI), [LARGE], [blob_of(LARGE)], id="a layer is there"),
        pytest.param(
            pack(OCI), [LARGE, SMALL], [blob_of(LARGE), blob_of(SMALL)], id="all blobs are there"
        ),
        pytest.param(pack(OCI), [b"another"], [], id="something else is there"),
        pytest.param(gzip.compress(pack(OCI)), [LARGE], [blob_of(LARGE)], id="compressed"),
    ],
)
def test_blobs_that_are_present_are_left_out(
    packed: bytes, present: list[bytes], gone: list[str]
) -> None:
    made, tally = strip(packed, *present)
    assert made == {name: content for name, content in OCI.items() if name not in gone}
    assert tally.skipped == sum(len(OCI[name]) for name in gone)
    assert tally.blobs == {digest_of(OCI[name]) for name in OCI if "blobs" in name} - set(
        map(digest_of, present)
    )


@pytest.mark.parametrize("size", [1, 511, 512, 1 << 20])
def test_chunks_may_end_anywhere(size: int) -> None:
    files = {blob_of(SMALL): SMALL, "index.json": b"{}"}
    made, _ = strip(pack(files), size=size)
    assert made == files


def test_names_that_begin_with_a_dot_are_the_same() -> None:
    made, tally = strip(pack({f"./{name}": content for name, content in OCI.items()}), LARGE)
    assert f"./{blob_of(LARGE)}" not in made
    assert tally.skipped == len(LARGE)


def test_an_archive_of_the_older_form_passes_whole() -> None:
    made, tally = strip(pack(LEGACY), LARGE, SMALL)
    assert made == LEGACY
    assert tally.skipped == 0


def test_of_the_older_form_as_a_file_the_layers_are_known() -> None:
    config = json.dumps({"rootfs": {"diff_ids": [digest_of(LARGE), digest_of(SMALL)]}}).encode()
    manifest = [{"Config": "c.json", "Layers": ["0123/layer.tar", "./4567/layer.tar"]}]
    files = {
        "./0123/layer.tar": LARGE,
        "4567/layer.tar": SMALL,
        "c.json": config,
        "manifest.json": json.dumps(manifest).encode(),
    }
    file = io.BytesIO(pack(files))
    layers = image_archive.find_layers(file)
    assert layers == {"0123/layer.tar": digest_of(LARGE), "4567/layer.tar": digest_of(SMALL)}
    tally = image_archive.Tally()
    made = b"".join(image_archive.strip(file, {digest_of(LARGE)}, tally, layers=layers))
    files.pop("./0123/layer.tar")
    assert unpack(made) == files
    assert tally.blobs == {digest_of(SMALL)}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"no tar" * 1000, id="no tar"),
        pytest.param(gzip.compress(pack(LEGACY)), id="compressed"),
        pytest.param(pack(LEGACY), id="no configuration"),
        pytest.param(pack({"manifest.json": b"[1]"}), id="no image"),
        pytest.param(pack({"manifest.json": b"{"}), id="no JSON"),
        pytest.param(pack({"index.json": b"{}"}), id="an OCI layout"),
    ],
)
def test_where_layers_cannot_be_found_none_are(content: bytes) -> None:
    file = io.BytesIO(content)
    assert image_archive.find_layers(file) == {}
    assert file.tell() == 0


def test_links_pass_as_they_are() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        link = tarfile.TarInfo("4567/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../0123/layer.tar"
        archive.addfile(link)
        index = tarfile.TarInfo("manifest.json")
        archive.addfile(index)
    packed.seek(0)
    made = b"".join(image_archive.strip(packed, set(), image_archive.Tally()))
    with tarfile.open(fileobj=io.BytesIO(made)) as archive:
        assert archive.getmember("4567/layer.tar").linkname == "../0123/layer.tar"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(b"", "not a whole image archive", id="nothing"),
        pytest.param(b"no tar" * 1000, "not a whole image archive", id="no tar"),
        pytest.param(pack(OCI)[:100_000], "not a whole image archive", id="cut off"),
        pytest.param(pack({"etc/passwd": b""}), "none of images", id="another tar"),
    ],
)
def test_what_is_no_image_archive_is_refused(content: bytes, told: str) -> None:
    with pytest.raises(errors.P8sError, match=told):
        strip(content)


def test_an_archive_is_never_whole_in_memory() -> None:
    taken = 0
    packed = pack({blob_of(LARGE * 10): LARGE * 10, "index.json": b"{}"})

    def give() -> collections.abc.Iterator[bytes]:
        nonlocal taken
        for chunk in cut(packed, size=65536):
            taken += len(chunk)
            yield chunk

    made = image_archive.strip(image_archive.Chunks(give()), set(), image_archive.Tally())
    assert len(next(made)) == 513
    next(made)
    assert taken < len(packed) / 4


def test_whoever_asks_is_told_of_each_chunk() -> None:
    told: list[int] = []
    chunks = image_archive.Chunks([b"ab", b"", b"c"], told=told.append)
    assert [chunks.read(), chunks.read(), chunks.read(), chunks.read()] == [b"ab", b"c", b"", b""]
    assert told == [2, 1]


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.37", "docker.io/library/busybox:1.37"),
        ("someone/app", "docker.io/someone/app:latest"),
        ("docker.io/app:1", "docker.io/library/app:1"),
        ("localhost/app:1", "localhost/app:1"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("registry.example/team/app:2", "registry.example/team/app:2"),
        ("registry.example/app@sha256:0123", "registry.example/app@sha256:0123"),
    ],
)
def test_a_full_name(name: str, full: str) -> None:
    assert image_archive.full_name(name) == full


@pytest.mark.parametrize(
    ("identity", "listed", "loaded"),
    [
        pytest.param("sha256:c1", {"digest": "sha256:m1", "config": "sha256:c1"}, True, id="it"),
        pytest.param("sha256:m1", {"digest": "sha256:m1"}, True, id="an engine on containerd"),
        pytest.param("sha256:c1", {"digest": "sha256:m1"}, False, id="a node that does not say"),
        pytest.param(
            "sha256:c2", {"digest": "sha256:m1", "config": "sha256:c1"}, False, id="an older one"
        ),
    ],
)
def test_whether_a_node_has_an_image(identity: str, listed: dict[str, str], loaded: bool) -> None:
    images = [{"name": "app:1"} | listed, {"name": "app:2", "digest": "sha256:m9"}]
    assert image_archive.is_loaded("app:1", identity, images) is loaded
    assert not image_archive.is_loaded("app:3", identity, images)


def test_what_the_node_reads_from_the_archive_alone_stays() -> None:
    config = b'{"rootfs": {}}'
    made, tally = strip(pack(OCI | {blob_of(config): config}), config, LARGE)
    assert made[blob_of(config)] == config
    assert tally.skipped == len(LARGE)
