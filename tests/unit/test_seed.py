"""The seed: protobuf's varint, what each cluster gets anew, the file, the CAs' ConfigMaps."""

from __future__ import annotations

import base64
import json
import pathlib
import re
import typing
import uuid

import pytest

from p8s_supervisor import seed

# --- varint


@pytest.mark.parametrize(
    ("number", "encoded"),
    [
        pytest.param(0, "00", id="zero"),
        pytest.param(1, "01", id="one"),
        pytest.param(127, "7f", id="the largest in one byte"),
        pytest.param(128, "8001", id="the smallest in two"),
        # Source: protobuf.dev/programming-guides/encoding, base 128 varints.
        pytest.param(150, "9601", id="the documentation's example"),
        pytest.param(300, "ac02", id="the documentation's other example"),
        pytest.param(16383, "ff7f", id="the largest in two bytes"),
        pytest.param(16384, "808001", id="the smallest in three"),
        pytest.param(1767225600, "80f2d6ca06", id="2026-01-01T00:00:00Z"),
        pytest.param(2**31 - 1, "ffffffff07", id="the largest int32"),
        pytest.param(2**32 - 1, "ffffffff0f", id="the largest uint32"),
        pytest.param(2**35 - 1, "ffffffff7f", id="the largest in five bytes"),
        pytest.param(2**63 - 1, "ffffffffffffffff7f", id="the largest int64"),
        pytest.param(2**64 - 1, "ffffffffffffffffff01", id="the largest uint64"),
    ],
)
def test_a_varint_is_protobuf_s(number: int, encoded: str) -> None:
    assert seed.encode_varint(number).hex() == encoded
    assert seed.decode_varint(bytes.fromhex(encoded)) == number


# --- render

BEGUN, ENDED, NOW = 1767225600, 1767225660, 1800000000
ONE = b"0f8b1c6e-3a53-4d27-9c11-6a3d5b7e9f01"
TWO = b"c0ffee00-1234-4abc-8def-001122334455"
# As protobuf has a metav1.Time: its length, field 1 with the seconds, field 2 with no nanoseconds.
TIME = b"\x0a\x08\x08%b\x10\x00"


def make_time(seconds: int) -> bytes:
    return TIME % seed.encode_varint(seconds)


def make_seed(entries: dict[str, bytes], *, made: tuple[int, int] = (BEGUN, ENDED)) -> seed.Seed:
    return seed.Seed({"api_port": "6443"}, made, entries)


def render(value: bytes, *, made: tuple[int, int] = (BEGUN, ENDED), now: int = NOW) -> bytes:
    return seed.render(make_seed({"/registry/x": value}, made=made), now=now)["/registry/x"]


def test_a_uid_is_the_same_new_one_in_all_values() -> None:
    entries = {
        "/registry/replicasets/a/x": b"uid " + ONE + b"\x12 owner " + TWO,
        "/registry/pods/a/x": b"owner " + ONE,
        "/registry/deployments/a/x": TWO + TWO,
    }
    rendered = seed.render(make_seed(entries), now=NOW)
    one = rendered["/registry/pods/a/x"].removeprefix(b"owner ")
    two = rendered["/registry/deployments/a/x"][:36]
    assert rendered == {
        key: value.replace(ONE, one).replace(TWO, two) for key, value in entries.items()
    }
    assert len({ONE, TWO, one, two}) == 4
    for new in (one, two):
        assert uuid.UUID(new.decode()).version == 4
        assert str(uuid.UUID(new.decode())).encode() == new


def test_two_clusters_share_no_uid() -> None:
    made = make_seed({"/registry/x": ONE + TWO})
    found = [seed.render(made, now=NOW)["/registry/x"] for _ in range(2)]
    uids = {value[start : start + 36] for value in found for start in (0, 36)}
    assert len(uids) == 4
    assert made.entries == {"/registry/x": ONE + TWO}


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"0f8b1c6e-3a53-1d27-9c11-6a3d5b7e9f01", id="of another version"),
        pytest.param(b"0f8b1c6e-3a53-4d27-7c11-6a3d5b7e9f01", id="of another variant"),
        pytest.param(ONE.upper(), id="in capitals"),
        pytest.param(ONE[:-1], id="too short"),
        pytest.param(ONE.replace(b"-", b"_"), id="without hyphens"),
    ],
)
def test_what_is_no_uid_of_kubernetes_stays(value: bytes) -> None:
    assert render(value) == value


@pytest.mark.parametrize(
    ("seconds", "replaced"),
    [
        pytest.param(BEGUN - 1, False, id="before the making"),
        pytest.param(BEGUN, True, id="its first second"),
        pytest.param(BEGUN + 30, True, id="meanwhile"),
        pytest.param(ENDED, True, id="its last second"),
        pytest.param(ENDED + 1, False, id="after it"),
        pytest.param(2**28, False, id="1978, the first of five bytes"),
        pytest.param(2**31 - 1, False, id="2038"),
        pytest.param(0, False, id="none"),
    ],
)
def test_times_of_the_making_alone_are_replaced(seconds: int, replaced: bool) -> None:
    assert render(make_time(seconds)) == make_time(NOW if replaced else seconds)


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(2**28 + 5, id="1978"),
        pytest.param(2**31 - 1, id="the last second of an int32"),
        pytest.param(2**31, id="the first after it"),
        pytest.param(2**35 - 1, id="3058, the last of five bytes"),
    ],
)
def test_times_are_found_until_the_year_3058(made: int) -> None:
    assert render(make_time(made), made=(made, made)) == make_time(NOW)


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(b"\x08", id="the tag's byte as a length"),
        pytest.param(b"\x08\x80", id="another number before"),
        pytest.param(b"\x08\x80\x80\x80\x80", id="a number that is cut off"),
        pytest.param(b"\xff", id="no text"),
    ],
)
def test_a_time_is_found_behind_any_byte(before: bytes) -> None:
    assert render(before + make_time(BEGUN)) == before + make_time(NOW)


def test_all_else_is_as_it_was() -> None:
    every = bytes(range(256))
    outside = make_time(BEGUN - 1) + make_time(ENDED + 1)
    pieces = [b"k8s\x00", every, ONE, outside, make_time(BEGUN), every[::-1], make_time(ENDED), TWO]
    value = b"".join(pieces)
    found = render(value)
    assert len(found) == len(value)
    places, end = [], 0
    for piece in pieces:
        places.append(found[end : end + len(piece)])
        end += len(piece)
    for index, piece in enumerate(pieces):
        if piece in (ONE, TWO):
            assert re.fullmatch(rb"[0-9a-f-]{36}", places[index])
            assert places[index] != piece
        elif index in (4, 6):
            assert places[index] == make_time(NOW)
        else:
            assert places[index] == piece


def test_keys_and_lengths_stay() -> None:
    entries = {
        f"/registry/configmaps/a/{ONE.decode()}": ONE + make_time(BEGUN) * 3 + TWO,
        "/registry/ranges/serviceips": b"",
        "/registry/x": b"\x00" * 100,
    }
    rendered = seed.render(make_seed(entries), now=NOW)
    assert {key: len(value) for key, value in rendered.items()} == {
        key: len(value) for key, value in entries.items()
    }


# --- the file


def test_a_seed_is_read_as_it_was_written(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "seed.json"
    made = seed.Seed(
        {name: f"text of {name}" for name in seed.SETTINGS},
        (BEGUN, ENDED),
        {"/registry/a": bytes(range(256)), "/registry/ü": b"", "/registry/c": b'{"a": 1}\n'},
    )
    file.write_text(made.to_json())
    assert seed.load(file) == made
    assert json.loads(file.read_text())["entries"]["/registry/c"] == (
        base64.b64encode(b'{"a": 1}\n').decode()
    )


def test_a_file_that_is_missing_is_told_as_such(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        seed.load(tmp_path / "seed.json")


# --- the CAs

CA, REQUESTHEADER_CA = (
    f"-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n" for name in ("ca", "front")
)
MOMENT = "2026-01-01T00:00:00Z"


def read_config_maps() -> dict[str, dict[str, typing.Any]]:
    made = seed.config_maps(ca=CA, requestheader_ca=REQUESTHEADER_CA, moment=MOMENT)
    return {key: json.loads(value) for key, value in made.items()}


def test_each_namespace_has_the_ca_that_pods_mount() -> None:
    made = read_config_maps()
    assert set(made) == {
        "/registry/configmaps/default/kube-root-ca.crt",
        "/registry/configmaps/kube-node-lease/kube-root-ca.crt",
        "/registry/configmaps/kube-public/kube-root-ca.crt",
        "/registry/configmaps/kube-system/kube-root-ca.crt",
        "/registry/configmaps/kube-system/extension-apiserver-authentication",
    }
    for namespace in seed.NAMESPACES:
        found = made[f"/registry/configmaps/{namespace}/kube-root-ca.crt"]
        assert found["data"] == {"ca.crt": CA}


def test_each_config_map_is_a_whole_object_of_its_own() -> None:
    uids = set()
    for key, found in read_config_maps().items():
        assert set(found) == {"apiVersion", "kind", "metadata", "data"}
        assert (found["apiVersion"], found["kind"]) == ("v1", "ConfigMap")
        metadata = found["metadata"]
        assert set(metadata) == {"name", "namespace", "uid", "creationTimestamp"}
        assert key == f"/registry/configmaps/{metadata['namespace']}/{metadata['name']}"
        assert metadata["creationTimestamp"] == MOMENT
        uids.add(str(uuid.UUID(metadata["uid"])))
    assert len(uids) == 5


def test_servers_of_extensions_find_both_cas() -> None:
    made = read_config_maps()
    data = made["/registry/configmaps/kube-system/extension-apiserver-authentication"]["data"]
    assert data["client-ca-file"] == CA
    assert data["requestheader-client-ca-file"] == REQUESTHEADER_CA
    lists = {
        key: json.loads(value)
        for key, value in data.items()
        if key not in ("client-ca-file", "requestheader-client-ca-file")
    }
    assert lists == {
        "requestheader-allowed-names": ["front-proxy-client"],
        "requestheader-extra-headers-prefix": ["X-Remote-Extra-"],
        "requestheader-group-headers": ["X-Remote-Group"],
        "requestheader-uid-headers": [],
        "requestheader-username-headers": ["X-Remote-User"],
    }
