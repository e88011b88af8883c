"""Image archives: what is read, what is refused, what is written."""

from __future__ import annotations

import bz2
import collections.abc
import gzip
import hashlib
import io
import json
import lzma
import tarfile
import typing

import pytest

from p8s_supervisor import errors, image_stream, oci

Files = dict[str, bytes]
BASE, TOP = b"base layer\n" * 200, b"top layer\n" * 100
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def path_of(content: bytes) -> str:
    return "blobs/" + digest(content).replace(":", "/")


def encode(document: object) -> bytes:
    return json.dumps(document).encode()


def make_config(*layers: bytes, architecture: str = "amd64") -> bytes:
    diff_ids = [digest(layer) for layer in layers]
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    return encode({"os": "linux", "architecture": architecture, "rootfs": rootfs})


def make_manifest(config: bytes, *layers: bytes, kind: str = LAYER) -> bytes:
    described = [
        {"mediaType": kind, "digest": digest(layer), "size": len(layer)} for layer in layers
    ]
    return encode(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"digest": digest(config), "size": len(config)},
            "layers": described,
        }
    )


def make_index(*entries: tuple[bytes, dict[str, typing.Any]], kind: str = MANIFEST) -> bytes:
    manifests = [
        {"mediaType": kind, "digest": digest(content), "size": len(content), **more}
        for content, more in entries
    ]
    return encode({"schemaVersion": 2, "manifests": manifests})


def named(name: str) -> dict[str, typing.Any]:
    return {"annotations": {oci.IMAGE_NAME: name}}


def make_layout(index: bytes, *blobs: bytes) -> Files:
    files = {path_of(blob): blob for blob in blobs}
    return {**files, "index.json": index, "oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}


CONFIG = make_config(BASE, TOP)
IMAGE = make_manifest(CONFIG, BASE, TOP)
OCI = make_layout(make_index((IMAGE, named("docker.io/library/box:1"))), BASE, TOP, CONFIG, IMAGE)


def make_docker(
    *tags: str, config: bytes = CONFIG, layers: tuple[bytes, ...] = (BASE, TOP)
) -> Files:
    """The older form of docker-save."""
    files = {f"{number}/layer.tar": layer for number, layer in enumerate(layers)}
    entry = {"Config": "c.json", "RepoTags": list(tags) or None, "Layers": list(files)}
    return {**files, "c.json": config, "manifest.json": encode([entry])}


DOCKER = make_docker("box:1", "localhost:5000/a/box")


def make_tar(files: Files, links: collections.abc.Mapping[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
        for name, aim in (links or {}).items():
            header = tarfile.TarInfo(name)
            header.type, header.linkname = tarfile.SYMTYPE, aim
            tar.addfile(header)
    return out.getvalue()


def without(files: Files, *names: str) -> Files:
    return {name: content for name, content in files.items() if name not in names}


class Store:
    """A content store.

    Attributes:
        blobs: digest asked for → what is there.
    """

    def __init__(self, **blobs: image_stream.Blob) -> None:
        self.blobs = {name.replace("_", ":"): blob for name, blob in blobs.items()}

    def find(self, wanted: str) -> image_stream.Blob | None:
        return self.blobs.get(wanted)


def store_of(*contents: bytes) -> Store:
    store = Store()
    store.blobs = {digest(each): image_stream.Blob(digest(each), len(each)) for each in contents}
    return store


EMPTY = Store()


def import_(content: bytes, store: Store = EMPTY) -> tuple[list[oci.Image], Files, list[str]]:
    """The images that are found, what is written, and the passing names."""
    out = io.BytesIO()
    with tarfile.open(
        fileobj=typing.cast("typing.IO[bytes]", image_stream.Pipe(out)), mode="w"
    ) as target:
        archive = image_stream.Copier(target, "folder", store).copy(io.BytesIO(content))
        images = oci.find_images(archive, store=store, architecture="amd64")
        names = oci.finish(target, images, folder="folder")
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        files = {member.name: (tar.extractfile(member) or out).read() for member in tar}
    return images, files, names


def layers_of(image: oci.Image) -> list[tuple[str, str]]:
    return [(layer["mediaType"], layer["digest"]) for layer in json.loads(image.manifest)["layers"]]


BOTH = [(LAYER, digest(BASE)), (LAYER, digest(TOP))]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        pytest.param(make_tar(OCI), ("docker.io/library/box:1",), id="an OCI layout"),
        pytest.param(
            make_tar(DOCKER),
            ("docker.io/library/box:1", "localhost:5000/a/box:latest"),
            id="the older docker-save",
        ),
        pytest.param(
            make_tar(
                OCI
                | {
                    "manifest.json": encode(
                        [{"Config": path_of(CONFIG), "RepoTags": ["x:1"], "Layers": []}]
                    )
                }
            ),
            ("docker.io/library/box:1",),
            id="docker-save of today, which is both",
        ),
        pytest.param(
            make_tar(
                make_layout(make_index((IMAGE, {})), BASE, TOP, CONFIG, IMAGE)
                | {
                    "manifest.json": encode(
                        [
                            {
                                "Config": path_of(CONFIG),
                                "RepoTags": ["x:1"],
                                "Layers": [path_of(BASE), path_of(TOP)],
                            }
                        ]
                    )
                }
            ),
            ("docker.io/library/x:1",),
            id="both, and only the older form has a name",
        ),
        pytest.param(
            make_tar({f"./{name}": content for name, content in OCI.items()}),
            ("docker.io/library/box:1",),
            id="names that begin with ./",
        ),
        pytest.param(
            make_tar(
                make_layout(
                    make_index((IMAGE, {"annotations": {oci.REF_NAME: "a.example/box:2"}})),
                    BASE,
                    TOP,
                    CONFIG,
                    IMAGE,
                )
            ),
            ("a.example/box:2",),
            id="a whole name where a tag should be",
        ),
        pytest.param(gzip.compress(make_tar(OCI)), ("docker.io/library/box:1",), id="gzip"),
        pytest.param(bz2.compress(make_tar(OCI)), ("docker.io/library/box:1",), id="bzip2"),
        pytest.param(lzma.compress(make_tar(OCI)), ("docker.io/library/box:1",), id="xz"),
    ],
)
def test_an_archive_becomes_a_layout(content: bytes, names: tuple[str, ...]) -> None:
    (image,), files, passing = import_(content)
    assert image.names == names
    assert layers_of(image) == BOTH
    index = json.loads(files["index.json"])
    assert passing == ["folder/0:1"]
    (entry,) = index["manifests"]
    assert entry["annotations"] == {oci.IMAGE_NAME: "folder/0:1"}
    written = {digest(each) for name, each in files.items() if name.startswith("folder/")}
    assert {entry["digest"], digest(BASE), digest(TOP), digest(CONFIG)} <= written
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}


def test_a_whole_layout_keeps_its_manifest() -> None:
    (image,), _, _ = import_(make_tar(OCI))
    assert image.manifest == IMAGE


@pytest.mark.parametrize("form", [OCI, DOCKER], ids=["OCI", "docker"])
@pytest.mark.parametrize("left", [(BASE,), (BASE, TOP)], ids=["one", "all"])
def test_layers_that_the_node_has_may_be_left_out(form: Files, left: tuple[bytes, ...]) -> None:
    stripped = {name: content for name, content in form.items() if content not in left}
    (image,), files, _ = import_(make_tar(stripped), store_of(BASE, TOP))
    assert layers_of(image) == BOTH
    assert not {digest(each) for each in left} & {digest(each) for each in files.values()}


def test_layers_that_the_node_has_are_not_handed_on() -> None:
    _, files, _ = import_(make_tar(OCI), store_of(BASE))
    written = [digest(content) for content in files.values()]
    assert digest(TOP) in written
    assert digest(BASE) not in written


def test_a_layer_that_the_node_has_compressed_takes_its_place() -> None:
    packed = gzip.compress(BASE)
    store = Store()
    store.blobs = {digest(BASE): image_stream.Blob(digest(packed), len(packed), "+gzip")}
    for form in (OCI, DOCKER):
        stripped = {name: content for name, content in form.items() if content != BASE}
        (image,), _, _ = import_(make_tar(stripped), store)
        assert layers_of(image) == [(f"{LAYER}+gzip", digest(packed)), BOTH[1]]


def test_a_compressed_layer_of_an_older_archive_is_seen() -> None:
    files = make_docker("box:1", layers=(gzip.compress(BASE), TOP))
    (image,), _, _ = import_(make_tar(files))
    assert [kind for kind, _ in layers_of(image)] == [f"{LAYER}+gzip", LAYER]


def test_a_link_to_a_layer_is_followed() -> None:
    files = make_docker("box:1", config=make_config(BASE, BASE), layers=(BASE, BASE))
    tar = make_tar(without(files, "1/layer.tar"), {"1/layer.tar": "../0/layer.tar"})
    (image,), _, _ = import_(tar)
    assert layers_of(image) == [BOTH[0], BOTH[0]]


def test_of_an_image_for_several_machines_the_one_for_this_is_taken() -> None:
    other = make_config(BASE, TOP, architecture="arm64")
    others = make_manifest(other, BASE, TOP)
    inner = make_index(
        (others, {"platform": {"os": "linux", "architecture": "arm64"}}),
        (IMAGE, {"platform": {"os": "linux", "architecture": "amd64"}}),
        (b"{}", {"platform": {"os": "unknown", "architecture": "unknown"}}),
    )
    outer = make_index((inner, named("docker.io/library/box:1")), kind=INDEX)
    (image,), _, _ = import_(
        make_tar(make_layout(outer, inner, IMAGE, others, CONFIG, other, BASE, TOP, b"{}"))
    )
    assert image.manifest == IMAGE


ARM = make_config(BASE, TOP, architecture="arm64")
ARM_IMAGE = make_manifest(ARM, BASE, TOP)
ARM_INDEX = make_index((ARM_IMAGE, {"platform": {"os": "linux", "architecture": "arm64"}}))
OTHER_MACHINE = "docker.io/library/box:1 is for linux/arm64, and this node is linux/amd64"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "not an image archive: empty file", id="nothing"),
        pytest.param(b"hello\n" * 400, "not an image archive: invalid header", id="no tar"),
        pytest.param(
            make_tar(OCI)[:3000], "not an image archive: unexpected end of data", id="cut off"
        ),
        pytest.param(
            gzip.compress(make_tar(OCI))[:200],
            "not an image archive: neither an index.json with an oci-layout nor a manifest.json is "
            "in it",
            id="gzip, cut off",
        ),
        pytest.param(
            make_tar({"a": b"b"}),
            "not an image archive: neither an index.json with an oci-layout nor a manifest.json is "
            "in it",
            id="another tar",
        ),
        pytest.param(
            make_tar(without(OCI, path_of(TOP))),
            "not an image archive: layers of docker.io/library/box:1 are neither in it nor in the "
            f"node: {digest(TOP)}",
            id="a layer that nobody has",
        ),
        pytest.param(
            make_tar(without(DOCKER, "0/layer.tar")),
            "not an image archive: layers of docker.io/library/box:1 are neither in it nor in the "
            f"node: {digest(BASE)}",
            id="a layer that nobody has, older form",
        ),
        pytest.param(
            make_tar(without(OCI, path_of(CONFIG))),
            "not an image archive: the configuration of docker.io/library/box:1 "
            f"({digest(CONFIG)}) is not in it",
            id="no configuration",
        ),
        pytest.param(
            make_tar(without(DOCKER, "c.json")),
            "not an image archive: the configuration of docker.io/library/box:1 is not in it",
            id="no configuration, older form",
        ),
        pytest.param(
            make_tar(without(OCI, path_of(IMAGE))),
            "not an image archive: the manifest of docker.io/library/box:1 is not in it",
            id="no manifest",
        ),
        pytest.param(make_tar(make_docker("box:1", config=ARM)), OTHER_MACHINE, id="arm64"),
        pytest.param(
            make_tar(
                make_layout(
                    make_index((ARM_INDEX, named("docker.io/library/box:1")), kind=INDEX),
                    ARM_INDEX,
                    ARM_IMAGE,
                    ARM,
                    BASE,
                    TOP,
                )
            ),
            OTHER_MACHINE,
            id="an index without this machine",
        ),
        pytest.param(
            make_tar(make_docker()), "not an image archive: no image in it has a name", id="no name"
        ),
        pytest.param(
            make_tar(make_docker("-rf /:x")),
            "not an image archive: 'docker.io/-rf /:x' in it is no image's name",
            id="an odd name",
        ),
        pytest.param(
            make_tar(make_docker("box:1", layers=(BASE, TOP[:-1] + b"x"))),
            "not an image archive: a layer of docker.io/library/box:1 is damaged: it is "
            f"{digest(TOP[:-1] + b'x')}, and not {digest(TOP)}",
            id="a damaged layer",
        ),
        pytest.param(
            make_tar(make_docker("box:1", layers=(BASE,))),
            "not an image archive: docker.io/library/box:1 has 1 layers, and its configuration 2",
            id="too few layers",
        ),
        *(
            pytest.param(
                make_tar({**DOCKER, "manifest.json": encode(document)}),
                f"not an image archive: {reason}",
                id=f"an odd manifest.json: {document}",
            )
            for document, reason in (
                ([1], "neither an index.json"),
                ({"a": 1}, "neither an index.json"),
                ([{"Config": "c.json", "RepoTags": "x"}], "its manifest.json has no lists"),
                ([{"Config": 7, "RepoTags": ["x"]}], "the configuration of"),
                ([{"Config": "manifest.json", "RepoTags": ["x"]}], "the configuration of"),
            )
        ),
        *(
            pytest.param(
                make_tar({**DOCKER, "c.json": config}),
                reason,
                id=f"an odd configuration: {config!r}",
            )
            for config, reason in (
                (b"[]", "not an image archive: the configuration of docker.io/library/box:1 is no"),
                (b"{}", "docker.io/library/box:1 is for None/None, and this node is linux/amd64"),
                (
                    b'{"os": "linux", "architecture": "amd64", "rootfs": 1}',
                    "not an image archive: docker.io/library/box:1 has 2 layers, and its",
                ),
            )
        ),
        pytest.param(
            make_tar(make_layout(make_index((b"[]", named("a/b:1"))), b"[]")),
            "not an image archive: the manifest of docker.io/a/b:1 is no JSON object",
            id="an odd manifest",
        ),
        pytest.param(
            make_tar(make_layout(make_index((b'{"layers": 1}', named("a/b:1"))), b'{"layers": 1}')),
            "not an image archive: the configuration of docker.io/a/b:1 (None) is not in it",
            id="an empty manifest",
        ),
        pytest.param(
            make_tar(OCI | {"index.json": b"{"}),
            "not an image archive: index.json in it is not JSON",
            id="a broken index",
        ),
    ],
)
def test_an_archive_is_refused_with_its_reason(content: bytes, reason: str) -> None:
    with pytest.raises(errors.RequestError) as caught:
        import_(content)
    assert caught.value.status == 400
    assert caught.value.message.startswith(reason)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("box", "docker.io/library/box:latest"),
        ("box:1", "docker.io/library/box:1"),
        ("me/box", "docker.io/me/box:latest"),
        ("localhost/box:1", "localhost/box:1"),
        ("localhost:5000/box", "localhost:5000/box:latest"),
        ("a.example/b/c__d:V1.2", "a.example/b/c__d:V1.2"),
    ],
)
def test_names_are_in_full(name: str, full: str) -> None:
    assert oci.normalize(name) == full
