"""etcd over its JSON gateway (/v3/kv): what the seed needs of it."""

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

    def _call(self, path: str, body: dict[str, typing.Any]) -> dict[str, typing.Any]:
        try:
            answer = self._session.post(self._server + path, json=body, timeout=10)
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


def _end_of(prefix: str) -> str:
    """The first key after all that begin with a prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _encode(text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    return base64.b64encode(data).decode()
