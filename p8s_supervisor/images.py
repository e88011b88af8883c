"""The node's images: what there is, and archives that are streamed in."""

from __future__ import annotations

import collections.abc
import platform
import re
import secrets
import tarfile
import typing

from p8s_supervisor import commands, context, errors, image_stream, oci, paths, setup, wait

NAMESPACE = "k8s.io"
# Images that are not unpacked yet are named like this, by no name that a pod has.
LOADING = "p8s.local/loading"
# CRI has seen an image when it has this label. Source: containerd's internal/cri/labels.
MANAGED = "io.cri-containerd.image=managed"
SEEN_SECONDS = 5.0
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_UNCOMPRESSED = re.compile(r"containerd\.io/uncompressed=(sha256:[0-9a-f]{64})")


def run_ctr(places: paths.Paths, *arguments: str) -> str:
    """Run ctr and give its output.

    Raises:
        RequestError: see `explain`.
    """
    try:
        return commands.run(ctr(places, *arguments), seconds=120)
    except errors.CommandError as error:
        raise explain(error) from error


def ctr(places: paths.Paths, *arguments: str) -> list[str]:
    """ctr's command."""
    return ["ctr", f"--address={places.containerd_socket}", f"--namespace={NAMESPACE}", *arguments]


class Store:
    """containerd's content store, as it was when this was made."""

    def __init__(self, places: paths.Paths) -> None:
        self._root = places.containerd_root / "io.containerd.content.v1.content/blobs"
        self._digests: dict[str, str] = {}
        for line in run_ctr(places, "content", "ls").splitlines():
            found = _DIGEST.match(line)
            if found is None:
                continue
            uncompressed = _UNCOMPRESSED.search(line)
            if uncompressed:
                self._digests.setdefault(uncompressed[1], found[0])
            self._digests[found[0]] = found[0]

    @property
    def digests(self) -> list[str]:
        """Every blob's digest, and those of the uncompressed forms that are known."""
        return sorted(self._digests)

    def find(self, digest: str) -> image_stream.Blob | None:
        """See `image_stream.Store`."""
        stored = self._digests.get(digest)
        if stored is None:
            return None
        file = self._root / stored.replace(":", "/")
        try:
            with file.open("rb") as content:
                return image_stream.Blob(
                    stored, file.stat().st_size, image_stream.compression_of(content.read(4))
                )
        except OSError:
            return None  # collected since


def list_images(run: context.Context) -> dict[str, typing.Any]:
    """The node's images by name, with their configuration's digest, and what its content store holds.

    The configuration is what an engine knows an image by: by it `p8s load` sees that there is
    nothing to send.

    Raises:
        RequestError: 503, containerd does not answer.
    """
    places = run.plan.paths
    found = _read_images(places)
    # containerd's CRI keeps each image under its configuration's digest too.
    configurations = {digest: name for name, digest, _ in found if name.startswith("sha256:")}
    images = [
        {"name": name, "digest": digest, "config": configurations.get(digest, "")}
        for name, digest, _ in found
        if not name.startswith(("sha256:", LOADING))
    ]
    return {"images": images, "blobs": Store(places).digests}


def _read_images(places: paths.Paths, *filters: str) -> list[tuple[str, str, str]]:
    """Name, digest and labels of each image."""
    found = []
    for line in run_ctr(places, "images", "ls", *filters).splitlines()[1:]:
        words = line.split()
        digest = _DIGEST.search(line, len(words[0])) if words else None
        if digest:
            found.append((words[0], digest[0], words[-1]))
    return found


def load(run: context.Context, stream: typing.IO[bytes]) -> list[str]:
    """Import an archive, unpacked, so that a pod starts at once.

    The images get their names when everything is there: one that fails leaves no name, and the
    names that there were stay with what they had.

    Args:
        run: the cluster.
        stream: what `docker save` writes, or an OCI layout as a tar; gzip, bzip2 and xz are seen
            through. Layers that the node has already (`list_images`) may be left out.

    Returns:
        The images' names in full.

    Raises:
        RequestError: 400, what is wrong with the archive; 503, containerd does not answer; 507,
            the disk is full.
    """
    places = run.plan.paths
    folder = f"{LOADING}-{secrets.token_hex(8)}"
    imported: list[str] = []
    try:
        found = _import(run, stream, folder, imported)
        for passing, image in zip(imported, found, strict=True):
            run_ctr(places, "images", "tag", passing, *image.names)
        names = sorted({name for image in found for name in image.names})
        _await_seen(run, names)
    finally:
        _clear(places, imported, folder)
    run.tell(f"images: loaded {', '.join(names)}")
    run.journal.record("images", f"loaded {', '.join(names)}", names=names)
    return names


def _import(
    run: context.Context, stream: typing.IO[bytes], folder: str, imported: list[str]
) -> list[oci.Image]:
    """Import and unpack under passing names, which are put into `imported`."""
    places = run.plan.paths
    store = Store(places)
    snapshotter = setup.choose_snapshotter(places.state)
    command = ctr(places, "images", "import", "--local", f"--snapshotter={snapshotter}", "-")
    machine = platform.machine()
    try:
        with commands.feed(command) as stdin:
            # Not closed on an error: the index, without which there is no image, is not in it then.
            pipe = typing.cast("typing.IO[bytes]", image_stream.Pipe(stdin))
            target = tarfile.open(fileobj=pipe, mode="w")  # noqa: SIM115
            archive = image_stream.Copier(target, folder, store).copy(stream)
            found = oci.find_images(
                archive, store=store, architecture=ARCHITECTURES.get(machine, machine)
            )
            imported += oci.finish(target, found, folder=folder)
            target.close()
    except errors.CommandError as error:
        raise explain(error) from error
    return found


def _await_seen(run: context.Context, names: collections.abc.Iterable[str]) -> None:
    """Wait until CRI, which follows containerd's events, knows the names.

    One that it does not know in time is no error: it will.
    """

    def look() -> str | None:
        filters = [f"name=={name}" for name in names]
        unseen = [
            name
            for name, _, labels in _read_images(run.plan.paths, *filters)
            if MANAGED not in labels
        ]
        return ", ".join(unseen) or None

    try:
        wait.until(
            look,
            awaited="CRI to see the images",
            seconds=SEEN_SECONDS,
            cancelled=run.stop.is_set,
        )
    except errors.WaitTimeoutError as error:
        run.tell(f"images: {error}")


def _clear(places: paths.Paths, imported: list[str], folder: str) -> None:
    """Remove the passing names, and with the last one what nothing refers to any more."""
    try:
        if imported:
            run_ctr(places, "images", "rm", "--sync", *imported)
            return
        # A lease is the one thing that can be made and removed to have the garbage collected now.
        lease = folder.rpartition("/")[2]
        run_ctr(places, "leases", "create", "--id", lease)
        run_ctr(places, "leases", "rm", "--sync", lease)
    except errors.RequestError:
        return  # containerd collects it by itself later; the first error is the one to tell


def explain(error: errors.CommandError) -> errors.RequestError:
    """What ctr said, with the status that fits."""
    # Without containerd's log lines, which are warnings about the host.
    told = "\n".join(line for line in str(error).splitlines() if "level=warning" not in line)
    if "no space left on device" in told or "disk quota exceeded" in told:
        return errors.RequestError(
            "the disk is full: the images were not loaded",
            status=507,
            hint="make room on the disk of the docker engine (docker system df), or remove images "
            "from the node",
        )
    if "wrong diff id" in told or "archive/tar" in told or "unexpected EOF" in told:
        return image_stream.refuse(f"a layer in it is damaged: {told}")
    if "failed to dial" in told or "connection error" in told:
        return errors.RequestError(
            "containerd does not answer", status=503, hint="GET /status shows what p8s is doing"
        )
    return errors.RequestError(told, status=500, hint="/var/log/p8s/containerd.log may tell more")
