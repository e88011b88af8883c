"""The node's images, as far as no containerd is needed."""

from __future__ import annotations

import pathlib

import pytest

from p8s_supervisor import commands, errors, images
from tests import fakes

PACKED, PLAIN, OPEN = (f"sha256:{letter * 64}" for letter in "abc")
CONTENT = f"""\
DIGEST\tSIZE\tAGE\tLABELS
{PACKED}\t1.5MB\t2 minutes\tcontainerd.io/distribution.source.a=b,containerd.io/uncompressed={OPEN}
{PLAIN}\t500B\t2 minutes\t-
"""
IMAGES = f"""\
REF TYPE DIGEST SIZE PLATFORMS LABELS
docker.io/library/box:1 application/vnd.oci.image.manifest.v1+json {PLAIN} 80.0 MiB linux/amd64 \
io.cri-containerd.image=managed
p8s.local/loading-0123/0:1 application/vnd.oci.image.manifest.v1+json {PLAIN} 80.0 MiB linux/amd64 -
{PACKED} application/vnd.oci.image.manifest.v1+json {PLAIN} 80.0 MiB linux/amd64 -
"""


class Ctr(fakes.Commands):
    """ctr: answers by its first two arguments."""

    def __init__(self, **answers: str | Exception) -> None:
        super().__init__({name.replace("_", " "): answer for name, answer in answers.items()})

    def __call__(self, command: object, **_: object) -> str:
        assert isinstance(command, list)
        return super().__call__([" ".join(command[3:5])])


@pytest.fixture
def ctr(monkeypatch: pytest.MonkeyPatch) -> Ctr:
    fake = Ctr(content_ls=CONTENT, images_ls=IMAGES)
    monkeypatch.setattr(commands, "run", fake)
    return fake


@pytest.mark.usefixtures("ctr")
def test_what_there_is(tmp_path: pathlib.Path) -> None:
    assert images.list_images(fakes.make_context(tmp_path)) == {
        "images": [{"name": "docker.io/library/box:1", "digest": PLAIN, "config": PACKED}],
        "blobs": sorted([PACKED, PLAIN, OPEN]),
    }


@pytest.mark.usefixtures("ctr")
def test_a_blob_is_found_by_its_digest_or_its_uncompressed_form(tmp_path: pathlib.Path) -> None:
    places = fakes.make_plan(tmp_path).paths
    root = places.containerd_root / "io.containerd.content.v1.content/blobs/sha256"
    root.mkdir(parents=True)
    (root / ("a" * 64)).write_bytes(b"\x1f\x8b and more")
    store = images.Store(places)
    for digest in (PACKED, OPEN):
        blob = store.find(digest)
        assert blob is not None
        assert (blob.digest, blob.size, blob.compression) == (PACKED, 11, "+gzip")
    assert store.find(PLAIN) is None, "collected since"
    assert store.find(f"sha256:{'d' * 64}") is None


@pytest.mark.parametrize(
    ("output", "status", "message"),
    [
        pytest.param(
            "ctr: failed to copy: write /var/lib/p8s/x: no space left on device",
            507,
            "the disk is full",
            id="full",
        ),
        pytest.param(
            'ctr: failed to dial "/run/containerd/containerd.sock": context deadline exceeded',
            503,
            "containerd does not answer",
            id="no containerd",
        ),
        pytest.param(
            "ctr: wrong diff id calculated on extraction",
            400,
            "not an image archive: a layer in it is damaged",
            id="another content",
        ),
        pytest.param("ctr: something else", 500, "ctr: something else", id="anything else"),
    ],
)
def test_what_ctr_says_becomes_a_status(output: str, status: int, message: str) -> None:
    warning = 'time="…" level=warning msg="DEPRECATION: cgroup v1"\n'
    found = images.explain(errors.CommandError("ctr", code=1, output=warning + output))
    assert found.status == status
    assert found.message.startswith(message)
    assert "DEPRECATION" not in found.message
    assert found.hint


def test_images_that_cri_does_not_see_in_time_are_told(
    tmp_path: pathlib.Path, ctr: Ctr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "SEEN_SECONDS", 0.0)
    ctr.answers["images ls"] = IMAGES.replace("io.cri-containerd.image=managed", "-")
    story: list[str] = []
    images._await_seen(fakes.make_context(tmp_path, story=story), ["docker.io/library/box:1"])
    assert story[0].startswith("images: CRI to see the images: not within 0 s")
