"""Every key and token of a run, looked for everywhere that they must not be."""

from __future__ import annotations

import base64
import gzip
import io
import json
import pathlib
import secrets
import subprocess
import tarfile
import typing

import pytest
import requests
import yaml
from cryptography.hazmat.primitives import serialization

from tests.cluster import nodes, pods

# A flag, which stands in the arguments, shows that it does not stay there.
TOKEN = f"token-{secrets.token_hex(16)}"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
VALUE = f"value-{secrets.token_hex(24)}"
# The highest verbosity at which Kubernetes' components do not log what they send and are sent.
VERBOSITY = 5

Places = dict[str, bytes]


@pytest.fixture(scope="module")
def told() -> typing.Iterator[nodes.Node]:
    """A cluster that tells as much as it can of what it does."""
    settings = (f"--api-token={TOKEN}", "--audit=request-response", f"--verbosity={VERBOSITY}")
    with nodes.run(*settings, "--drain=none") as node:
        node.await_ready()
        yield node


def add_user(node: nodes.Node, kind: str) -> dict[str, str]:
    """The credentials that POST /users hands out."""
    wanted = {"name": f"ann-{kind}", "kind": kind, "ttl": "1h"}
    answer = requests.post(node.url("/users"), json=wanted, headers=BEARER, timeout=30)
    assert answer.status_code == 201, answer.text
    return typing.cast("dict[str, str]", answer.json()["users"][0]["user"])


def forms_of_key(pem: bytes) -> set[bytes]:
    """A key's own part in PEM, DER, base64 of either, and hexadecimal."""
    key = serialization.load_pem_private_key(pem, password=None)
    der = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    lines = pem.splitlines()
    # The first line is much the same in every key, and the last one may be short.
    found = {lines[2], base64.b64encode(pem)[100:200], base64.b64encode(der)[60:120]}
    number = getattr(key.private_numbers(), "private_value", None)  # type: ignore[union-attr]
    if number is not None:
        scalar = number.to_bytes(32, "big")
        found |= {scalar, scalar.hex().encode(), base64.b64encode(scalar)[:40]}
    return found


def forms_of_text(text: str) -> set[bytes]:
    """A token or a value, and its base64 wherever it begins."""
    encoded = {base64.b64encode(b"\0" * offset + text.encode())[4:-4] for offset in range(3)}
    return {text.encode(), *encoded}


def collect(
    node: nodes.Node, kubectl: nodes.Kubectl, admin: dict[str, str]
) -> dict[str, set[bytes]]:
    """Every secret that the run has made: what it is → the forms that it may have."""
    found = {"the API token": forms_of_text(TOKEN), "a Secret": forms_of_text(VALUE)}
    packed = subprocess.run(
        [
            *("docker", "exec", node.name, "tar", "-c", "--ignore-failed-read", "/etc/kubernetes"),
            *("/var/lib/p8s/pki", "/var/lib/kubelet/pods"),
        ],
        capture_output=True,
        check=True,
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for entry in archive:
            file = archive.extractfile(entry) if entry.isfile() else None
            if file is not None and entry.name.endswith(".key"):
                found[entry.name] = forms_of_key(file.read())
            elif file is not None and entry.name.endswith("/token"):
                found[entry.name] = forms_of_text(file.read().decode().strip())
    issued = [admin, add_user(node, "certificate"), add_user(node, "token")]
    for number, user in enumerate(issued):
        if "client-key-data" in user:
            pem = base64.b64decode(user["client-key-data"])
            found[f"a user's key {number}"] = forms_of_key(pem)
        else:
            found[f"a user's token {number}"] = forms_of_text(user["token"])
    asked = kubectl("create", "token", "default", "--namespace=default").strip()
    return found | {"a token that was asked for": forms_of_text(asked)}


def read_logs(node: nodes.Node) -> Places:
    """docker's log, and every file under /var/log."""
    packed = subprocess.run(
        ["docker", "exec", node.name, "tar", "-c", "/var/log"],
        capture_output=True,
        check=False,  # a file may grow meanwhile
    ).stdout
    places: Places = {"docker logs": node.logs().encode()}
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for entry in archive:
            file = archive.extractfile(entry) if entry.isfile() else None
            if file is not None:
                content = file.read()
                places[entry.name] = (
                    gzip.decompress(content) if entry.name.endswith(".gz") else content
                )
    return places


def read_answers(node: nodes.Node) -> Places:
    """What the HTTP API tells, and each file of the bundle."""
    paths = ["/status", "/metrics", "/settings", "/openapi.json", "/events?follow=false", "/images"]
    listed = requests.get(node.url("/logs"), headers=BEARER, timeout=30).json()["components"]
    paths += [f"/logs/{component}" for component in listed]
    places: Places = {}
    for path in (*paths, "/bundle"):
        answer = requests.get(node.url(path), headers=BEARER, timeout=60)
        assert answer.status_code == 200, (path, answer.text)
        places[path] = answer.content
    with tarfile.open(fileobj=io.BytesIO(places.pop("/bundle"))) as archive:
        for entry in archive:
            file = archive.extractfile(entry)
            assert file is not None
            places[f"/bundle: {entry.name}"] = file.read()
    return places


ARGUMENTS = """
import pathlib, sys
for file in pathlib.Path("/proc").glob("[0-9]*/" + sys.argv[1]):
    try:
        print(file, file.read_bytes().replace(b"\\0", b" "))
    except OSError:
        pass
"""


def read_processes(node: nodes.Node) -> Places:
    """Arguments and environment of every process, in the node and as the host sees them."""
    places: Places = {"the host's ps": nodes.docker("top", node.name, "-eo", "pid,args").encode()}
    for name in ("cmdline", "environ"):
        shown = node.execute("python3", "-c", ARGUMENTS, name)
        assert "p8s_supervisor.init" in shown or name == "environ"
        places[name] = shown.encode()
    places["docker's environment"] = node.inspect("{{json .Config.Env}}").encode()
    return places


def test_no_secret_is_anywhere_else(
    told: nodes.Node, kubectl_program: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    config = requests.get(told.url("/kubeconfig"), headers=BEARER, timeout=30).text
    file = tmp_path / "config"
    file.write_text(config)
    kubectl = nodes.Kubectl(kubectl_program, file)
    kubectl("create", "secret", "generic", "kept", f"--from-literal=value={VALUE}")
    pod = pods.sleeper("reader")
    pod["spec"]["volumes"].append({"name": "kept", "secret": {"secretName": "kept"}})
    pod["spec"]["containers"][0]["volumeMounts"].append({"name": "kept", "mountPath": "/kept"})
    kubectl.apply(pod)
    kubectl.await_ready("pod/reader")
    kubectl("patch", "secret", "kept", "--patch", json.dumps({"stringData": {"more": VALUE}}))
    assert VALUE in kubectl("exec", "reader", "--", "cat", "/kept/value")

    made = collect(told, kubectl, yaml.safe_load(config)["users"][0]["user"])
    for wanted in (
        "pki/sa.key",
        "pki/ca.key",
        "etcd-ca.key",
        "apiserver.key",
        "admin.key",
        "/token",
    ):
        assert any(name.endswith(wanted) for name in made), wanted

    places = read_logs(told) | read_answers(told) | read_processes(told)
    for wanted in ("var/log/p8s/audit.log", "var/log/p8s/kubelet.log", "/logs/etcd", "cmdline"):
        assert places[wanted], wanted
    assert any("kube-apiserver" in name and name.startswith("var/log/pods") for name in places)
    assert [
        f"{secret} in {place}"
        for secret, forms in made.items()
        for place, content in places.items()
        if any(form in content for form in forms)
    ] == []
