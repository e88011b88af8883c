"""What an image archive holds: docker-save's forms and OCI layouts become one OCI layout.

An archive may leave out layers that the node has already.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import posixpath
import re
import tarfile
import typing

from p8s_supervisor import errors, image_stream

IMAGE_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
_OCI = "application/vnd.oci.image"
_INDEXES = (f"{_OCI}.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_REFERENCE = re.compile(
    r"[a-z0-9.-]+(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+:\w[\w.-]{0,127}", re.ASCII
)

Document = dict[str, typing.Any]


@dataclasses.dataclass(frozen=True)
class Image:
    """An image of an archive.

    Attributes:
        names: as kubelet sees them.
        manifest: the manifest's bytes.
        media_type: of the manifest.
    """

    names: tuple[str, ...]
    manifest: bytes
    media_type: str


def find_images(
    archive: image_stream.Archive, *, store: image_stream.Store, architecture: str
) -> list[Image]:
    """The images of an archive, each with everything that it needs in the archive or the store.

    Raises:
        RequestError: 400, there are none, one is for another machine, or something is missing.
    """
    listed = _parse(archive, "manifest.json", default=[])
    if "index.json" in archive.documents and "oci-layout" in archive.documents:
        index = _parse(archive, "index.json", default={})
        descriptors = _items(index, "manifests")
        named = [(_names_of(descriptor), descriptor) for descriptor in descriptors]
        # Docker's archives are both: where the layout has no names, the older form may have them.
        if any(names for names, _ in named) or not listed:
            found = [
                _from_descriptor(archive, names, descriptor, store, architecture)
                for names, descriptor in named
                if names
            ]
            return _require_named(found)
    if not _is_list(listed, dict) or not listed:
        raise image_stream.refuse(
            "neither an index.json with an oci-layout nor a manifest.json is in it",
            hint=f"it is cut off, or something else; {image_stream.SAVE_HINT}",
        )
    found = [_from_docker(archive, entry, store, architecture) for entry in listed]
    return _require_named([image for image in found if image.names])


def _require_named(images: list[Image]) -> list[Image]:
    if not images:
        raise image_stream.refuse(
            "no image in it has a name",
            hint="save it by NAME:TAG, not by its ID; for an OCI layout set the annotation "
            f"{IMAGE_NAME}",
        )
    return images


def _parse(archive: image_stream.Archive, name: str, *, default: object) -> typing.Any:
    if name not in archive.documents:
        return default
    return _load(archive.documents[name], name)


def _is_list(found: object, kind: type) -> bool:
    return isinstance(found, list) and all(isinstance(item, kind) for item in found)


def _load(content: bytes, name: str) -> typing.Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise image_stream.refuse(f"{name} in it is not JSON: {error}") from error


def _load_object(content: bytes, name: str) -> Document:
    found = _load(content, name)
    if not isinstance(found, dict):
        raise image_stream.refuse(f"{name} is no JSON object")
    return found


def _items(document: object, key: str) -> list[Document]:
    found = document.get(key) if isinstance(document, dict) else None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        return []
    return typing.cast("list[Document]", found)


def _inner(document: Document, key: str) -> Document:
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def _names_of(descriptor: Document) -> tuple[str, ...]:
    annotations = _inner(descriptor, "annotations")
    full = annotations.get(IMAGE_NAME)
    name = str(annotations.get(REF_NAME, ""))
    # The second is by its specification a tag alone; some tools put a whole name there.
    if not full and ("/" in name or ":" in name):
        full = name
    return (normalize(str(full)),) if full else ()


def _from_descriptor(
    archive: image_stream.Archive,
    names: tuple[str, ...],
    descriptor: Document,
    store: image_stream.Store,
    architecture: str,
) -> Image:
    content = archive.find_document(str(descriptor.get("digest")))
    if content is None:
        raise image_stream.refuse(f"the manifest of {names[0]} is not in it")
    document = _load_object(content, f"the manifest of {names[0]}")
    media_type = str(document.get("mediaType") or descriptor.get("mediaType"))
    if media_type in _INDEXES or "manifests" in document:
        inner = _choose(archive, names[0], _items(document, "manifests"), architecture)
        return _from_descriptor(archive, names, inner, store, architecture)
    config = _find_config(
        archive, names[0], str(_inner(document, "config").get("digest")), architecture
    )
    layers = _items(document, "layers")
    wanted = [str(layer.get("digest")) for layer in layers]
    found = _find_layers(archive, names[0], wanted, _diff_ids(config), store)
    if [blob.digest for blob in found] == wanted:
        return Image(names, content, media_type)
    # The node has a layer in another form: compressed, or not.
    for layer, blob in zip(layers, found, strict=True):
        if layer["digest"] != blob.digest:
            layer.update(_describe_layer(blob))
    return Image(names, json.dumps(document).encode(), media_type)


def _choose(
    archive: image_stream.Archive, name: str, descriptors: list[Document], architecture: str
) -> Document:
    """The one for this machine, of an image for several."""
    seen = []
    for descriptor in descriptors:
        platform = _inner(descriptor, "platform")
        found = f"{platform.get('os')}/{platform.get('architecture')}"
        present = archive.find_document(str(descriptor.get("digest"))) is not None
        if found == f"linux/{architecture}" and present:
            return descriptor
        if present and platform.get("os") != "unknown":  # that is an attestation, not an image
            seen.append(found)
    raise _other_machine(name, ", ".join(seen) or "nothing", architecture)


def _other_machine(name: str, found: str, architecture: str) -> errors.RequestError:
    return errors.RequestError(
        f"{name} is for {found}, and this node is linux/{architecture}",
        status=400,
        hint=f"docker build --platform linux/{architecture}, or "
        f"docker pull --platform linux/{architecture}, and save it again",
    )


def _find_config(
    archive: image_stream.Archive, name: str, digest: str, architecture: str
) -> Document:
    content = archive.find_document(digest)
    if content is None:
        raise image_stream.refuse(f"the configuration of {name} ({digest}) is not in it")
    config = _load_object(content, f"the configuration of {name}")
    machine = (config.get("os"), config.get("architecture"))
    if machine != ("linux", architecture):
        raise _other_machine(name, "/".join(map(str, machine)), architecture)
    return config


def _diff_ids(config: Document) -> list[str]:
    found = _inner(config, "rootfs").get("diff_ids")
    return [str(digest) for digest in found] if isinstance(found, list) else []


def _find_layers(
    archive: image_stream.Archive,
    name: str,
    wanted: list[str],
    diff_ids: list[str],
    store: image_stream.Store,
) -> list[image_stream.Blob]:
    if len(wanted) != len(diff_ids):
        raise image_stream.refuse(
            f"{name} has {len(wanted)} layers, and its configuration {len(diff_ids)}"
        )
    found, missing = [], []
    for digest, diff_id in zip(wanted, diff_ids, strict=True):
        blob = archive.has(digest) or store.find(digest) or store.find(diff_id)
        if blob is None:
            missing.append(digest)
            continue
        if not blob.compression and blob.digest != diff_id:
            raise image_stream.refuse(
                f"a layer of {name} is damaged: it is {blob.digest}, and not {diff_id}"
            )
        found.append(blob)
    if missing:
        raise image_stream.refuse(
            f"layers of {name} are neither in it nor in the node: {', '.join(missing)}",
            hint="the archive is cut off, or was made for a node that had them; save it whole",
        )
    return found


def _describe_layer(blob: image_stream.Blob) -> Document:
    return {
        "mediaType": f"{_OCI}.layer.v1.tar{blob.compression}",
        "digest": blob.digest,
        "size": blob.size,
    }


def _from_docker(
    archive: image_stream.Archive, entry: Document, store: image_stream.Store, architecture: str
) -> Image:
    """An image as `manifest.json` has it: layers are files, and their digests nowhere."""
    tags, paths = entry.get("RepoTags") or [], entry.get("Layers") or []
    if not _is_list(tags, str) or not _is_list(paths, str):
        raise image_stream.refuse("its manifest.json has no lists of tags and layers")
    names = tuple(map(normalize, tags))
    shown = names[0] if names else "an image without a name"
    described = archive.blobs.get(posixpath.normpath(str(entry.get("Config"))))
    if described is None:
        raise image_stream.refuse(f"the configuration of {shown} is not in it")
    config = _find_config(archive, shown, described.digest, architecture)
    diff_ids = _diff_ids(config)
    files = [posixpath.normpath(path) for path in paths]
    known = {name: blob.digest for name, blob in archive.blobs.items()}
    wanted = [
        known.get(file, diff_ids[n] if n < len(diff_ids) else "") for n, file in enumerate(files)
    ]
    layers = _find_layers(archive, shown, wanted, diff_ids, store)
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": {
            "mediaType": f"{_OCI}.config.v1+json",
            "digest": described.digest,
            "size": described.size,
        },
        "layers": [_describe_layer(blob) for blob in layers],
    }
    return Image(names, json.dumps(manifest).encode(), f"{_OCI}.manifest.v1+json")


def normalize(name: str) -> str:
    """An image's name in full, as kubelet and containerd know it.

    Raises:
        RequestError: 400, it is none.
    """
    first, slash, _ = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        name = f"docker.io/{name}" if slash else f"docker.io/library/{name}"
    if ":" not in name.rpartition("/")[2]:
        name += ":latest"
    if not _REFERENCE.fullmatch(name):
        raise image_stream.refuse(f"{name!r} in it is no image's name")
    return name


# --- writing


def finish(
    target: tarfile.TarFile, images: collections.abc.Sequence[Image], *, folder: str
) -> list[str]:
    """Write what makes the blobs images.

    Returns:
        The passing name of each image: it gets its own ones when it has been unpacked.
    """
    names, manifests = [], []
    for number, image in enumerate(images):
        blob = image_stream.add(target, folder, image.manifest)
        names.append(f"{folder}/{number}:1")
        manifests.append(
            {
                "mediaType": image.media_type,
                "digest": blob.digest,
                "size": blob.size,
                "annotations": {IMAGE_NAME: names[-1]},
            }
        )
    index = {"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json", "manifests": manifests}
    image_stream.add(target, folder, b'{"imageLayoutVersion": "1.0.0"}', "oci-layout")
    image_stream.add(target, folder, json.dumps(index).encode(), "index.json")
    return names
