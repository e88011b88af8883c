"""Makes the archive with the node's own images: two rootfs of some KB, the same at each build.

p8s.local/pause:1 holds a pod's namespaces. p8s.local/node:1 is an empty root with the directories
of a merged-/usr Debian: a container of it mounts the node's /usr, so that no binary is copied.

usage: make_images.py PAUSE ARCHITECTURE ARCHIVE
"""

import hashlib
import io
import json
import pathlib
import sys
import tarfile

DIRECTORIES = ("dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "var")
LINKS = {
    "bin": "usr/bin",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "sbin": "usr/sbin",
    "var/run": "/run",
}
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OCI = "application/vnd.oci.image"


def entry(name: str, **fields: object) -> tarfile.TarInfo:
    """A tar header that depends on nothing but its arguments."""
    info = tarfile.TarInfo(name)
    info.mode = 0o755
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def pause_layer(binary: bytes) -> bytes:
    """The layer of the pause image."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(entry("pause", size=len(binary)), io.BytesIO(binary))
    return out.getvalue()


def node_layer() -> bytes:
    """The layer of the node image."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in DIRECTORIES:
            mode = 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry(name, type=tarfile.DIRTYPE, mode=mode))
        for name, target in LINKS.items():
            tar.addfile(entry(name, type=tarfile.SYMTYPE, linkname=target))
    return out.getvalue()


def main(pause: str, architecture: str, archive: str) -> None:
    """Write the archive (an OCI image layout as a tar)."""
    blobs: dict[str, bytes] = {}

    def add(media_type: str, content: bytes) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    manifests = []
    for name, layer, config in (
        (
            "p8s.local/pause:1",
            pause_layer(pathlib.Path(pause).read_bytes()),
            {"Entrypoint": ["/pause"]},
        ),
        ("p8s.local/node:1", node_layer(), {}),
    ):
        described = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": [PATH], **config},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"],
            },
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": add(f"{OCI}.config.v1+json", json.dumps(described).encode()),
            "layers": [add(f"{OCI}.layer.v1.tar", layer)],
        }
        descriptor = add(f"{OCI}.manifest.v1+json", json.dumps(manifest).encode())
        descriptor["annotations"] = {"io.containerd.image.name": name}
        manifests.append(descriptor)
    index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": manifests}
    files = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(index).encode(),
    }
    files |= {f"blobs/sha256/{digest}": content for digest, content in sorted(blobs.items())}
    with tarfile.open(archive, "w") as tar:
        for path, content in files.items():
            tar.addfile(entry(path, size=len(content), mode=0o644), io.BytesIO(content))


if __name__ == "__main__":
    main(*sys.argv[1:])
