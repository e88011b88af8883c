"""The bundle of a real cluster: that it explains, and that no key and no token is in it."""

from __future__ import annotations

import base64
import io
import json
import secrets
import subprocess
import tarfile
import typing

import pytest
import requests

from p8s_supervisor import wait
from tests.cluster import conftest, nodes

TOKEN = f"token-{secrets.token_hex(16)}"


@pytest.fixture(scope="module")
def guarded() -> typing.Iterator[nodes.Node]:
    """A cluster whose API needs a token."""
    with nodes.run(f"--api-token={TOKEN}") as node:
        node.await_ready()
        yield node


def unpack(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        return {
            entry.name.removeprefix("p8s-bundle/"): file.read()
            for entry in archive
            if (file := archive.extractfile(entry)) is not None
        }


def fetch(node: nodes.Node) -> dict[str, bytes]:
    answer = requests.get(
        node.url("/bundle"), headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/gzip"
    return unpack(answer.content)


def make_kubectl_with_token(node: nodes.Node, make: conftest.MakeKubectl) -> nodes.Kubectl:
    class Authorized(nodes.Node):
        def get(self, path: str, **headers: str) -> requests.Response:
            return super().get(path, Authorization=f"Bearer {TOKEN}", **headers)

    return make(Authorized(node.name, node.http_port, node.api_port))


def list_secrets(node: nodes.Node, kubectl: nodes.Kubectl) -> dict[str, str]:
    """Everything in the run that must not leave it: what it is → a piece of it in one line."""
    found = {"the API token": TOKEN}
    for file in node.execute(
        *("find", "/etc/kubernetes", "/var/lib/p8s/pki", "/var/lib/kubelet", "-name", "*.key")
    ).split():
        lines = node.execute("cat", file).strip().splitlines()
        found |= {f"{file}:{number}": line for number, line in enumerate(lines[1:-1])}
    tokens = node.execute(
        *("find", "/var/lib/kubelet/pods", "-path", "*serviceaccount/token", "-o"),
        *("-path", "*kube-api-access*/token"),
    ).split()
    for file in tokens:
        found[file] = node.execute("cat", file).strip()
    for secret in kubectl.get("secrets", "--all-namespaces")["items"]:
        name = secret["metadata"]["name"]
        for key in ("token", "password", "tls.key"):
            if key in secret.get("data", {}):
                encoded = secret["data"][key]
                found[f"{name}/{key} in base64"] = encoded
                value = base64.b64decode(encoded).decode()
                found[f"{name}/{key}"] = value if "\n" not in value else value.splitlines()[1]
    return found


def test_no_key_and_no_token_is_in_it(
    guarded: nodes.Node, make_kubectl: conftest.MakeKubectl
) -> None:
    kubectl = make_kubectl_with_token(guarded, make_kubectl)
    password = f"secret-{secrets.token_hex(12)}"
    key = guarded.execute("cat", "/etc/kubernetes/pki/admin.key")
    objects: dict[str, dict[str, typing.Any]] = {
        "password": {"stringData": {"password": password}},
        "tls": {"stringData": {"tls.key": key, "tls.crt": "any"}, "type": "kubernetes.io/tls"},
        "account": {
            "type": "kubernetes.io/service-account-token",
            "metadata": {
                "name": "account",
                "annotations": {"kubernetes.io/service-account.name": "default"},
            },
        },
    }
    for name, more in objects.items():
        kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}} | more)
    # It stands where no rule for Secrets looks: in a plain object.
    kubectl("create", "configmap", "copied", f"--from-literal=value={password}")
    kubectl("create", "configmap", "kubeconfig", f"--from-literal=value={key}")

    def look() -> str | None:
        return None if kubectl.get("secret", "account").get("data") else "no token yet"

    wait.until(look, awaited="the account's token", seconds=20)
    kept = list_secrets(guarded, kubectl)
    assert {"password/password", "account/token", "tls/tls.key"} <= set(kept)
    assert any("admin.key" in name for name in kept)
    assert any("/var/lib/p8s/pki/sa.key" in name for name in kept)
    assert any("kube-api-access" in name for name in kept)

    files = fetch(guarded)
    found = [
        f"{what} in {name}"
        for what, value in kept.items()
        for name, content in files.items()
        if value.encode() in content
    ]
    assert found == []
    assert not any(b"PRIVATE KEY" in content for content in files.values())
    listed = {
        item["metadata"]["name"]: item for item in json.loads(files["objects/core/secrets.json"])
    }
    assert listed["password"]["data"] == {"password": "…"}


def test_what_explains_a_cluster_is_in_it(guarded: nodes.Node) -> None:
    files = fetch(guarded)
    assert files["errors.txt"] == b""
    assert json.loads(files["status.json"])["state"] == "ready"
    assert json.loads(files["settings.json"])["api_token"]["value"] == "…"
    assert {event["kind"] for event in json.loads(files["events.json"])} >= {"phase", "ready"}
    for component in ("etcd", "containerd", "kubelet"):
        assert files[f"logs/{component}.log"]
    for component in ("kube-apiserver", "kube-scheduler", "coredns"):
        assert any(name.startswith("pods/") and component in name for name in files)
    pods = json.loads(files["objects/core/pods.json"])
    assert "kube-apiserver-p8s" in {pod["metadata"]["name"] for pod in pods}
    assert not any("managedFields" in pod["metadata"] for pod in pods)
    assert json.loads(files["objects/apps/deployments.json"])[0]["metadata"]["name"] == "coredns"
    assert b"table ip p8s" in files["node/nftables.txt"]
    assert b"MemAvailable" in files["node/proc/meminfo"]
    assert any("memory." in name for name in files if name.startswith("node/sys/fs/cgroup"))


def signal(node: nodes.Node, name: str, program: str) -> None:
    """Send a signal to every process of that name."""
    node.execute(
        *("sh", "-c"),
        f"for file in $(grep --files-with-matches --line-regexp {program} /proc/[0-9]*/comm); do "
        f'file=${{file%/comm}}; kill -s {name} "${{file#/proc/}}"; done',
    )


def test_what_cannot_be_had_is_named_and_the_rest_is_there(guarded: nodes.Node) -> None:
    """The last in this cluster. Nothing waits for an apiserver that refuses connections."""
    signal(guarded, "STOP", "kubelet")  # or it would start another one
    try:
        signal(guarded, "KILL", "kube-apiserver")
        files = fetch(guarded)
    finally:
        signal(guarded, "CONT", "kubelet")
    assert b"objects: Secrets could not be listed, to hide them: " in files["errors.txt"]
    assert files["logs/kubelet.log"]
    assert b"table ip p8s" in files["node/nftables.txt"]


def test_a_start_that_fails_leaves_one() -> None:
    with nodes.run("--failure-bundle=true", "--start-timeout=2s") as node:
        assert node.wait() == 1
        told = node.logs()
        assert "/var/log/p8s/bundle.tar.gz" in told, told
        with tarfile.open(
            fileobj=io.BytesIO(copy_out(node, "/var/log/p8s/bundle.tar.gz"))
        ) as outer:
            packed = outer.extractfile("bundle.tar.gz")
            assert packed is not None
            files = unpack(packed.read())
    assert b"not within" in files["failure.txt"]
    assert json.loads(files["settings.json"])["start_timeout"]["value"] == "2s"
    assert files["logs/etcd.log"]


def copy_out(node: nodes.Node, path: str) -> bytes:
    return subprocess.run(
        ["docker", "cp", f"{node.name}:{path}", "-"], capture_output=True, check=True
    ).stdout
