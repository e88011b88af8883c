"""The seed: what a new cluster's etcd holds after its first minute, made when the image is built.

With it nothing waits for what the apiserver and its controllers make in every new cluster: RBAC,
namespaces, priority classes, service accounts, the system's manifests. No key or certificate is in it. What
tells one cluster from another is made anew for each: UIDs, and the moments of creation.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import pathlib
import re
import uuid

PREFIX = "/registry/"
NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
# All settings that the content depends on: with others than the defaults a cluster begins empty.
SETTINGS = ("api_port", "cluster_domain", "node_name", "pod_cidr", "service_cidr", "verbosity")
_UID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
# The seconds of a metav1.Time in protobuf: field 1, a varint, of five bytes until the year 3058.
_TIME = re.compile(rb"\x08([\x80-\xff]{4}[\x01-\x7f])")


@dataclasses.dataclass(frozen=True)
class Seed:
    """A cluster's content without what makes it that cluster.

    Attributes:
        settings: setting → text, for all that the content depends on.
        made: when it was made: from and to, in seconds since the epoch.
        entries: key in etcd → value, in Kubernetes' protobuf form.
    """

    settings: dict[str, str]
    made: tuple[int, int]
    entries: dict[str, bytes]

    def to_json(self) -> str:
        """For `load`."""
        entries = {key: base64.b64encode(value).decode() for key, value in self.entries.items()}
        return json.dumps({"settings": self.settings, "made": self.made, "entries": entries})


def load(file: pathlib.Path) -> Seed:
    """Read what `Seed.to_json` gave.

    Raises:
        OSError: there is no such file.
    """
    stored = json.loads(file.read_text())
    return Seed(
        stored["settings"],
        (stored["made"][0], stored["made"][1]),
        {key: base64.b64decode(value) for key, value in stored["entries"].items()},
    )


def render(seed: Seed, *, now: int) -> dict[str, bytes]:
    """The entries for one cluster: with UIDs of its own, made now.

    Args:
        seed: the seed.
        now: in seconds since the epoch.
    """
    uids: dict[bytes, bytes] = {}
    moment = encode_varint(now)

    def new_uid(match: re.Match[bytes]) -> bytes:
        return uids.setdefault(match[0], str(uuid.uuid4()).encode())

    def new_time(match: re.Match[bytes]) -> bytes:
        within = seed.made[0] <= decode_varint(match[1]) <= seed.made[1]
        return b"\x08" + moment if within else match[0]

    return {
        key: _TIME.sub(new_time, _UID.sub(new_uid, value)) for key, value in seed.entries.items()
    }


def encode_varint(number: int) -> bytes:
    """A number as protobuf's varint."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def decode_varint(encoded: bytes) -> int:
    """The number that protobuf's varint is."""
    return sum((byte & 0x7F) << 7 * index for index, byte in enumerate(encoded))


def config_maps(*, ca: str, requestheader_ca: str, moment: str) -> dict[str, bytes]:
    """The objects that hold the installation's own CAs, by their keys in etcd, as JSON.

    Pods mount `kube-root-ca.crt` before kube-controller-manager has made it.

    Args:
        ca: the cluster's CA, PEM.
        requestheader_ca: the front proxy's CA, PEM.
        moment: of creation, RFC 3339.
    """
    objects = [(namespace, "kube-root-ca.crt", {"ca.crt": ca}) for namespace in NAMESPACES]
    objects.append(
        (
            "kube-system",
            "extension-apiserver-authentication",
            {
                "client-ca-file": ca,
                "requestheader-allowed-names": '["front-proxy-client"]',
                "requestheader-client-ca-file": requestheader_ca,
                "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
                "requestheader-group-headers": '["X-Remote-Group"]',
                "requestheader-uid-headers": "[]",
                "requestheader-username-headers": '["X-Remote-User"]',
            },
        )
    )
    return {
        f"{PREFIX}configmaps/{namespace}/{name}": json.dumps(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "uid": str(uuid.uuid4()),
                    "creationTimestamp": moment,
                },
                "data": data,
            }
        ).encode()
        for namespace, name, data in objects
    }
