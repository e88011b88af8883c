"""`p8s load`: images of the docker engine, or of an archive, into a cluster."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import functools
import os
import pathlib
import sys

import click

from p8s_supervisor import errors
from p8s_supervisor.host import (
    cli_options,
    client,
    clusters,
    console,
    docker_host,
    image_archive,
    image_push,
)

KIB, MIB = 1024, 1024 * 1024
Told = collections.abc.Callable[[int], object]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loaded:
    """What became of one image, or of one archive.

    Attributes:
        names: the images' names in the cluster.
        sent: bytes that were sent; 0 where the cluster had the image.
        skipped: bytes that the cluster had already.
    """

    names: tuple[str, ...]
    sent: int
    skipped: int


def load_images(
    api: client.Client, engine: docker_host.Engine, names: collections.abc.Iterable[str]
) -> list[Loaded]:
    """Put images of the docker engine into a cluster.

    Args:
        api: the cluster.
        engine: where they are.
        names: of the images.

    Raises:
        P8sError: the engine has not all of them (before anything is sent), or the cluster refuses.
    """
    found = find_images(engine, names)
    known = api.images()
    present = set(known["blobs"])
    done = []
    for name, image in found.items():
        full = image_archive.full_name(name)
        if image_archive.is_loaded(full, image.identity, known["images"]):
            done.append(Loaded(names=(full,), sent=0, skipped=image.size))
            continue
        pushed = _push(api, engine, full, image, present)
        if pushed is not None:
            done.append(pushed)
            continue
        with _progress(full, image.size) as told:
            export = functools.partial(_export, engine, full, told)
            done.append(_send(api, export, present))
    return done


def load_archive(api: client.Client, file: pathlib.Path) -> Loaded:
    """Put the images of an archive into a cluster; see `load_images`."""
    present = set(api.images()["blobs"])

    def read() -> collections.abc.Iterator[bytes]:
        with file.open("rb") as opened:
            while chunk := opened.read(image_archive.CHUNK):
                told(len(chunk))
                yield chunk

    try:
        with file.open("rb") as opened:
            layers = image_archive.find_layers(opened) if opened.seekable() else {}
        with _progress(file.name, file.stat().st_size) as told:
            return _send(api, read, present, layers=layers)
    except OSError as error:
        raise errors.P8sError(f"{file} cannot be read: {error.strerror or error}") from error


def find_images(
    engine: docker_host.Engine, names: collections.abc.Iterable[str]
) -> dict[str, clusters.Image]:
    """Each image by the name that was given.

    Raises:
        P8sError: naming every image that the engine has not, or that has no name for pods.
    """
    found, wrong = {}, []
    for name in names:
        image = engine.find_image(name)
        if image is None:
            wrong.append(f"the docker engine has no image {name}")
            continue
        by_digest = "@" in name or image.identity.partition(":")[2].startswith(
            name.removeprefix("sha256:")
        )
        tags = map(image_archive.full_name, image.tags)
        if by_digest and image_archive.full_name(name) not in tags:
            wrong.append(f"{name} is no name for pods to ask for: `docker tag {name} NAME:TAG`")
            continue
        found[name] = image
    if wrong:
        raise errors.P8sError(
            "\n".join(wrong),
            hint="`docker images` lists the engine's images; docker pull, or build",
        )
    return found


def _push(
    api: client.Client,
    engine: docker_host.Engine,
    name: str,
    image: clusters.Image,
    present: set[str],
) -> Loaded | None:
    """As `_send`, where that is quicker; None where it is not, or has failed for whatever reason."""
    if os.environ.get("CI"):
        return None  # what the engine compresses for its first push pays with later loads, and a job has none
    try:
        wanted = image_push.choose(engine, name, image, present)
        if wanted is None:
            return None
        with _progress(name, image.size) as told:
            archive = image_push.fetch(engine, wanted, present, told=told)
        names = api.load(iter([archive]))
    except errors.P8sError:
        return None  # an export always works, or tells why not
    present.update(image.layers)
    skipped = image.size - wanted.missing
    return Loaded(names=tuple(names), sent=len(archive), skipped=skipped)


def _send(
    api: client.Client,
    read: collections.abc.Callable[[], collections.abc.Iterator[bytes]],
    present: set[str],
    *,
    layers: collections.abc.Mapping[str, str] | None = None,
) -> Loaded:
    """Send an archive without what is present; `present` grows by what was sent."""
    tally = image_archive.Tally()
    source = image_archive.Chunks(read())
    try:
        names = api.load(image_archive.strip(source, present, tally, layers=layers))
    except errors.RequestError as error:
        # What nothing refers to any more may have been removed in the node since it was asked.
        if not tally.skipped or error.status in (0, 401, 403, 503):
            raise
        present.clear()
        tally = image_archive.Tally()
        names = api.load(image_archive.strip(image_archive.Chunks(read()), present, tally))
    present |= tally.blobs
    return Loaded(names=tuple(names), sent=tally.sent, skipped=tally.skipped)


def _export(engine: docker_host.Engine, name: str, told: Told) -> collections.abc.Iterator[bytes]:
    for chunk in engine.export_image(name):
        told(len(chunk))
        yield chunk


@contextlib.contextmanager
def _progress(title: str, size: int) -> collections.abc.Iterator[Told]:
    """A bar on a terminal; nothing elsewhere. What is yielded is told of each chunk's size."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    import rich.console
    import rich.progress

    progress = rich.progress.Progress(
        rich.progress.TextColumn("{task.description}", markup=False),
        rich.progress.BarColumn(),
        rich.progress.DownloadColumn(binary_units=True),
        rich.progress.TransferSpeedColumn(),
        console=rich.console.Console(stderr=True),
        transient=True,
    )
    with progress:
        task = progress.add_task(title, total=size)
        yield lambda taken: progress.advance(task, taken)


def show_size(size: int) -> str:
    """Bytes for people."""
    return f"{size / MIB:.1f} MiB" if size >= MIB else f"{size / KIB:.0f} KiB"


@click.command()
@click.argument("images", nargs=-1, metavar="IMAGE...")
@click.option(
    "--archive",
    "archives",
    multiple=True,
    metavar="FILE.tar",
    type=click.Path(exists=True, dir_okay=False, path_type=pathlib.Path),
    help="an archive that docker save, buildah, skopeo, … made; may be given several times",
)
@cli_options.named
@cli_options.output
def load(
    images: tuple[str, ...], archives: tuple[pathlib.Path, ...], name: str, output: str
) -> None:
    """Put images into a cluster: from the docker engine, or from archives.

    Only layers that the cluster has not are sent. Pods then use them by name, with
    imagePullPolicy IfNotPresent or Never (the default pulls where the tag is :latest).
    """
    if not images and not archives:
        raise click.UsageError("name an image, or an archive with --archive")
    api = cli_options.reach(name)
    done = []
    if images:
        engine = docker_host.connect(seconds=docker_host.EXPORT_SECONDS)
        done += load_images(api, engine, images)
    done += [load_archive(api, file) for file in archives]
    if output == "json":
        console.print_json([dataclasses.asdict(one) for one in done])
        return
    rows = [(", ".join(one.names), show_size(one.sent), show_size(one.skipped)) for one in done]
    console.print_table(("IMAGE", "SENT", "ALREADY THERE"), rows)
