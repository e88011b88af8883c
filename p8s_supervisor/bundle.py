"""One archive that explains a cluster: logs, events, objects, status, settings; and no secret."""

from __future__ import annotations

import base64
import collections.abc
import dataclasses
import functools
import gzip
import io
import json
import pathlib
import re
import tarfile
import time
import typing

from p8s_supervisor import commands, context, errors, health, kube, registries, report

FILE = "bundle.tar.gz"
# Bounds: of the end of each log, of all logs, of the objects of one kind, and of the time after
# which what is not in yet is left out.
LOG_BYTES = 8 * 1024 * 1024
LOGS_BYTES = 256 * 1024 * 1024
OBJECTS_OF_A_KIND = 5000
SECONDS = 60.0
# So many kinds of objects in a row that the apiserver does not list: it will not list the next.
PATIENCE = 3
_PAGE = 500
SECRETS = "/api/v1/secrets"
HIDDEN = "…"

_PROC = ("cmdline", "loadavg", "meminfo", "mounts", "net/route", "pressure/memory", "version")
_CGROUP = (  # v2, then v1
    *("memory.current", "memory.events", "memory.max", "memory.stat", "pids.current", "pids.max"),
    *(f"memory/memory.{name}" for name in ("limit_in_bytes", "stat", "usage_in_bytes")),
)
_COMMANDS = {
    "nftables.txt": ("nft", "list", "ruleset"),
    "disk.txt": ("df", "--human-readable", "--all"),
    "images.txt": ("ctr", "--namespace=k8s.io", "images", "list"),
    "tasks.txt": ("ctr", "--namespace=k8s.io", "tasks", "list"),
}

# Private keys: in PEM, with line ends or as JSON writes them, and PEM once more in base64.
_BASE64_KEYS = b"|".join(
    re.escape(base64.b64encode(f"-----BEGIN {kind}".encode())[:20])
    for kind in ("PRIVATE KEY", "RSA PRIVATE", "EC PRIVATE", "ENCRYPTED", "OPENSSH PRI")
)
_SECRETS = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"
    rb"(?:[A-Za-z0-9+/=\s\\:,-]*?-----END [A-Z ]*PRIVATE KEY-----|[A-Za-z0-9+/=\s\\]*)"
    rb"|(?:" + _BASE64_KEYS + rb")[A-Za-z0-9+/=]*"
    # A JSON web token, such as a ServiceAccount's.
    rb"|eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+"
)
# Shorter values of Secrets, and shorter lines of them, are words that stand everywhere; so is what
# these keys hold.
_LEAST_VALUE, _LEAST_LINE = 8, 16
_PUBLIC_KEYS = ("namespace", "ca.crt", "tls.crt", "username")

Part = collections.abc.Callable[[], bytes]


@dataclasses.dataclass
class Scrubber:
    """Takes secrets out of what is written.

    Attributes:
        values: what is hidden wherever it stands, beside what looks like a key or a token.
    """

    values: set[bytes] = dataclasses.field(default_factory=set)

    def add(self, value: bytes) -> None:
        """Hide a value, also its longer lines, and also in base64 and as JSON writes it."""
        lines = [line for line in value.splitlines() if not line.startswith(b"-----")]
        for one, least in ((value, _LEAST_VALUE), *((line, _LEAST_LINE) for line in lines)):
            if len(one.strip()) >= least:
                text = one.strip().decode(errors="replace")
                self.values |= {one.strip(), base64.b64encode(one)}
                self.values |= {json.dumps(text, ensure_ascii=False)[1:-1].encode()}

    def scrub(self, content: bytes) -> bytes:
        """The content without secrets."""
        for value in sorted(self.values, key=len, reverse=True):
            content = content.replace(value, HIDDEN.encode())
        return _SECRETS.sub(HIDDEN.encode(), content)


class Bundle:
    """The archive as it is written, with what could not be had.

    Args:
        archive: what it is written to.
        clock: seconds; for the deadline.
    """

    def __init__(
        self,
        archive: tarfile.TarFile,
        *,
        clock: collections.abc.Callable[[], float] = time.monotonic,
    ) -> None:
        self._archive, self._clock = archive, clock
        self._end = clock() + SECONDS
        self.scrubber = Scrubber()
        self.missing: list[str] = []

    def add(self, name: str, part: Part) -> bool:
        """Make one file; where that fails, the bundle says so and goes on.

        Returns:
            Whether it was made.
        """
        if self._clock() > self._end:
            self.missing.append(f"{name}: left out, the bundle took {SECONDS:g} s already")
            return False
        try:
            content = part()
        except Exception as error:  # noqa: BLE001 — the rest of the bundle is worth having
            self.missing.append(f"{name}: {type(error).__name__}: {error}")
            return False
        self.write(name, content)
        return True

    def write(self, name: str, content: bytes) -> None:
        """Write one file; a target that fails ends the bundle."""
        data = self.scrubber.scrub(content)
        entry = tarfile.TarInfo(f"p8s-bundle/{name}")
        entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
        self._archive.addfile(entry, io.BytesIO(data))


def write(run: context.Context, monitor: health.Monitor, target: typing.BinaryIO) -> None:
    """Write the bundle: a tar.gz, as it is made; no more than one file of it is in memory.

    Args:
        run: the cluster, in whatever state.
        monitor: what its status comes from.
        target: is written to only.

    Raises:
        OSError: the target does not take it.
    """
    with (
        gzip.GzipFile(fileobj=target, mode="wb", compresslevel=5) as zipped,
        tarfile.open(fileobj=zipped, mode="w|") as archive,
    ):
        bundle = Bundle(archive)
        learned = _learn_secrets(run, bundle)
        _add_state(run, monitor, bundle)
        _add_logs(run, bundle)
        _add_node(bundle)
        if run.client is not None and learned:
            _add_objects(run.client, bundle)
        bundle.write("errors.txt", "".join(f"{line}\n" for line in bundle.missing).encode())


def write_on_failure(run: context.Context, monitor: health.Monitor) -> None:
    """Keep a bundle in the container where the start failed and the settings ask for it.

    `docker cp CONTAINER:/var/log/p8s/bundle.tar.gz .` has it when the container has ended. Call it
    before anything is stopped.
    """
    if run.failure is None or run.plan.settings.failure_bundle != "true":
        return
    file = run.plan.paths.logs / FILE
    temporary = file.with_name(f".{FILE}.new")
    try:
        with temporary.open("wb") as target:
            temporary.chmod(0o600)
            write(run, monitor, target)
        temporary.rename(file)
    except OSError as error:
        run.tell(f"no bundle: {file}: {error.strerror}")
        return
    run.tell(f"what happened is in the node's {file} (docker cp brings it out)")


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1, default=str, ensure_ascii=False) + "\n").encode()


def _learn_secrets(run: context.Context, bundle: Bundle) -> bool:
    """Everything secret that this run has, so that it is hidden wherever it may stand.

    Returns:
        Whether objects may be shown: not where copies of Secrets in them would not be known.
    """
    for word in (run.token, *registries.list_secrets(run.plan)):
        bundle.scrubber.add(word.encode())
    paths = run.plan.paths
    for file in (*paths.authorities.glob("*.key"), *paths.pki.glob("*.key")):
        try:
            bundle.scrubber.add(file.read_bytes())
        except OSError as error:
            bundle.missing.append(f"{file}, in order to hide it: {error.strerror}")
    if run.client is None:
        bundle.missing.append("objects: there is no apiserver yet")
        return False
    try:
        secrets = _list_objects(run.client, SECRETS, "secrets", bundle.missing)
    except errors.KubeError as error:
        bundle.missing.append(f"objects: Secrets could not be listed, to hide them: {error}")
        return False
    for secret in secrets:
        for key, value in (secret.get("data") or {}).items():
            if key not in _PUBLIC_KEYS:
                bundle.scrubber.add(base64.b64decode(value))
    return True


def _add_state(run: context.Context, monitor: health.Monitor, bundle: Bundle) -> None:
    bundle.add("status.json", lambda: _json(report.describe(run, monitor)))
    bundle.add("metrics.txt", lambda: report.metrics(run, monitor).encode())
    bundle.add("settings.json", lambda: _json(run.loaded.describe()))
    bundle.add("versions.json", lambda: _json(run.versions))
    bundle.add("events.json", lambda: _json(list(map(dataclasses.asdict, run.journal.read(0)))))
    if run.failure is not None:
        bundle.write("failure.txt", f"{run.failure}\n".encode())


def _add_logs(run: context.Context, bundle: Bundle) -> None:
    left = LOGS_BYTES
    # The node's own first: they are few, and say most.
    for place, directory in (("logs", run.plan.paths.logs), ("pods", run.plan.paths.pod_logs)):
        for file in sorted(directory.glob("**/*.log*")):
            if not file.is_file():
                continue
            name = f"{place}/{file.relative_to(directory)}"
            try:
                size = file.stat().st_size
            except OSError as error:  # rotated away meanwhile
                bundle.missing.append(f"{name}: {error.strerror}")
                continue
            taken = min(size, LOG_BYTES, left)
            if taken < size:
                bundle.missing.append(f"{name}: only the last {taken} of {size} bytes")
            left -= taken
            if taken or not size:
                bundle.add(name, functools.partial(_read_end, file, taken))


def _read_end(file: pathlib.Path, size: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(0, io.SEEK_END)
        cut = opened.tell() > size
        opened.seek(-min(size, opened.tell()), io.SEEK_END)
        if cut:
            opened.readline()  # half a line could hold half a secret, which nothing knows
        return opened.read(size)


def _add_node(bundle: Bundle) -> None:
    for root, names in (("/proc", _PROC), ("/sys/fs/cgroup", _CGROUP)):
        for name in names:
            file = pathlib.Path(root, name)
            if file.exists():  # of cgroup v1 and v2 there is one
                bundle.add(f"node{file}", file.read_bytes)
    for name, command in _COMMANDS.items():
        bundle.add(f"node/{name}", functools.partial(_run, command))


def _run(command: collections.abc.Sequence[str]) -> bytes:
    return commands.run(command).encode()


def _add_objects(client: kube.Client, bundle: Bundle) -> None:
    try:
        resources = list(_list_resources(client, bundle.missing))
    except errors.KubeError as error:
        bundle.missing.append(f"objects: {error}")
        return
    failed = 0
    for number, (path, name) in enumerate(resources):
        if failed == PATIENCE:
            bundle.missing.append(
                f"objects: {len(resources) - number} more kinds are not asked for, from {name} on"
            )
            return
        added = bundle.add(
            f"objects/{name}.json",
            functools.partial(_render_objects, client, path, name, bundle.missing),
        )
        failed = 0 if added else failed + 1


def _list_resources(
    client: kube.Client, missing: list[str]
) -> collections.abc.Iterator[tuple[str, str]]:
    """Path and name of each kind of object that can be listed."""
    groups = client.get("/apis")["groups"]
    versions = [("/api/v1", "core")]
    versions += [
        (f"/apis/{group['preferredVersion']['groupVersion']}", group["name"])
        for group in groups
        if group["name"] != "events.k8s.io"  # the core's, once more
    ]
    for prefix, group in versions:
        try:
            resources = client.get(prefix)["resources"]
        except errors.KubeError as error:  # an aggregated API whose server is away
            missing.append(f"objects/{group}: {error}")
            continue
        for resource in resources:
            if "list" in resource["verbs"]:
                yield f"{prefix}/{resource['name']}", f"{group}/{resource['name']}"


def _list_objects(
    client: kube.Client, path: str, name: str, missing: list[str]
) -> list[kube.Object]:
    found: list[kube.Object] = []
    token = ""
    while True:
        page = client.get(path, limit=str(_PAGE), **{"continue": token} if token else {})
        found += page["items"]
        token = page["metadata"].get("continue", "")
        if not token:
            return found
        if len(found) >= OBJECTS_OF_A_KIND:
            missing.append(f"objects/{name}: only the first {len(found)}")
            return found


def _render_objects(client: kube.Client, path: str, name: str, missing: list[str]) -> bytes:
    objects = _list_objects(client, path, name, missing)
    return _json([clean(item, is_secret=path == SECRETS) for item in objects])


def clean(item: kube.Object, *, is_secret: bool) -> kube.Object:
    """An object without what nobody reads: who set which field, and the same once more as text."""
    metadata = dict(item.get("metadata", {}))
    metadata.pop("managedFields", None)
    notes = dict(metadata.get("annotations") or {})
    notes.pop("kubectl.kubernetes.io/last-applied-configuration", None)
    if "annotations" in metadata:
        metadata["annotations"] = notes
    cleaned = item | {"metadata": metadata}
    if is_secret:
        cleaned["data"] = dict.fromkeys(item.get("data") or {}, HIDDEN)
        cleaned.pop("stringData", None)
    return cleaned
