"""etcd over its JSON gateway (/v3): its keys, as the seed needs them, and its upkeep."""

from __future__ import annotations

import base64
import collections.abc
import dataclasses
import pathlib
import typing

from p8s_supervisor import errors


@dataclasses.dataclass(frozen=True)
class Entry:
    """A key with its value.

    Attributes:
        key: the key.
        value: the value.
        lease: the lease that it ends with; 0 for none.
    """

    key: str
    value: bytes
    lease: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Status:
    """What etcd says of its store.

    Attributes:
        revision: of the newest write; each write raises it.
        size: of the database's file, in bytes.
        size_in_use: of what the file holds; the rest is free pages, used again before it grows.
        quota: the size at which etcd refuses writes, in bytes.
        errors: etcd's own words, the alarms among them; empty where all is well.
    """

    revision: int
    size: int
    size_in_use: int
    quota: int
    errors: tuple[str, ...] = ()

    @property
    def full(self) -> bool:
        """Whether etcd refuses writes because its quota was met."""
        return any("NOSPACE" in error for error in self.errors)


class Client:
    """A client of one etcd, with a client certificate."""

    def __init__(
        self, server: str, *, ca: pathlib.Path, certificate: pathlib.Path, key: pathlib.Path
    ) -> None:
        import requests  # late: 40 ms that the start has when it first asks

        self._server = server
        self._session = requests.Session()
        self._session.verify, self._session.cert = str(ca), (str(certificate), str(key))
        self._session.trust_env = False

    def _call(
        self, path: str, body: dict[str, typing.Any], *, seconds: float = 10
    ) -> dict[str, typing.Any]:
        try:
            answer = self._session.post(self._server + path, json=body, timeout=seconds)
            if not answer.ok:
                raise errors.P8sError(f"etcd: {path}: HTTP {answer.status_code}: {answer.text}")
            found = answer.json()
        except (OSError, ValueError) as error:  # requests' own errors are OSErrors
            raise errors.P8sError(f"etcd: {path}: {error}") from error
        if not isinstance(found, dict):
            raise errors.P8sError(f"etcd: {path}: not an object: {answer.text}")
        return typing.cast("dict[str, typing.Any]", found)

    def list_entries(self, prefix: str) -> list[Entry]:
        """All entries whose key begins with a prefix.

        Raises:
            P8sError: etcd did not answer as it should.
        """
        answer = self._call(
            "/v3/kv/range", {"key": _encode(prefix), "range_end": _encode(_end_of(prefix))}
        )
        return [
            Entry(
                base64.b64decode(found["key"]).decode(),
                base64.b64decode(found.get("value", "")),
                int(found.get("lease", 0)),
            )
            for found in answer.get("kvs", [])
        ]

    def has(self, key: str) -> bool:
        """Whether there is such a key.

        Raises:
            P8sError: etcd did not answer as it should.
        """
        answer = self._call("/v3/kv/range", {"key": _encode(key), "count_only": True})
        return int(answer.get("count", 0)) > 0

    def put_into_empty(self, entries: collections.abc.Mapping[str, bytes], *, prefix: str) -> bool:
        """Put all entries in one transaction, if there is no key with the prefix yet.

        Returns:
            Whether they were put.

        Raises:
            P8sError: etcd refused, or did not answer as it should.
        """
        nothing = {
            "target": "CREATE",
            "result": "EQUAL",
            "key": _encode(prefix),
            "range_end": _encode(_end_of(prefix)),
            "create_revision": "0",
        }
        puts = [
            {"request_put": {"key": _encode(key), "value": _encode(value)}}
            for key, value in entries.items()
        ]
        answer = self._call("/v3/kv/txn", {"compare": [nothing], "success": puts})
        return bool(answer.get("succeeded"))

    def read_status(self) -> Status:
        """What etcd says of its store, without asking the other members (it has none).

        Raises:
            P8sError: etcd did not answer as it should.
        """
        found = self._call("/v3/maintenance/status", {}, seconds=5)
        return Status(
            revision=int(found.get("header", {}).get("revision", 0)),
            size=int(found.get("dbSize", 0)),
            size_in_use=int(found.get("dbSizeInUse", 0)),
            quota=int(found.get("dbSizeQuota", 0)),
            errors=tuple(map(str, found.get("errors", []))),
        )

    def compact(self, revision: int) -> None:
        """Forget what keys were before a revision; returns once it is forgotten.

        Raises:
            P8sError: etcd refused, or did not answer as it should.
        """
        try:
            self._call("/v3/kv/compaction", {"revision": str(revision), "physical": True})
        except errors.P8sError as error:
            if "has been compacted" not in error.message:  # kube-apiserver was first
                raise

    def defragment(self) -> None:
        """Give free pages back to the file system. etcd answers nothing else meanwhile.

        Raises:
            P8sError: etcd refused, or did not answer as it should.
        """
        self._call("/v3/maintenance/defragment", {}, seconds=120)

    def disarm(self) -> None:
        """Take the alarm for a full store back: etcd takes writes again.

        Raises:
            P8sError: etcd refused, or did not answer as it should.
        """
        path = "/v3/maintenance/alarm"
        for alarm in self._call(path, {"action": "GET"}).get("alarms", []):
            if alarm.get("alarm") == "NOSPACE":
                self._call(path, alarm | {"action": "DEACTIVATE"})


def _end_of(prefix: str) -> str:
    """The first key after all that begin with a prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _encode(text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    return base64.b64encode(data).decode()
