"""Kubeconfigs for other names and other users, on the real image."""

from __future__ import annotations

import base64
import concurrent.futures
import json
import pathlib
import socket
import ssl
import time
import typing

import pytest
import requests

from p8s_supervisor import wait
from tests.cluster import nodes


def ask(node: nodes.Node, **asked: typing.Any) -> requests.Response:
    return requests.post(node.url("/users"), json=asked, timeout=10)


@pytest.fixture
def make_user(
    cluster: nodes.Node, kubectl_program: pathlib.Path, tmp_path: pathlib.Path
) -> typing.Callable[..., nodes.Kubectl]:
    """kubectl with the kubeconfig of a new user."""

    def make(**asked: typing.Any) -> nodes.Kubectl:
        answer = ask(cluster, **asked)
        assert answer.status_code == 201, answer.text
        file = tmp_path / f"{asked['name']}.kubeconfig"
        file.touch(mode=0o600)
        file.write_text(answer.text)
        return nodes.Kubectl(kubectl_program, file)

    return make


MakeUser = typing.Callable[..., nodes.Kubectl]


def who_is(kubectl: nodes.Kubectl) -> dict[str, typing.Any]:
    review = json.loads(kubectl("auth", "whoami", "--output=json"))
    return typing.cast("dict[str, typing.Any]", review["status"]["userInfo"])


# --- users


def test_a_certificate_s_user_may_what_his_groups_may(
    make_user: MakeUser, admin: nodes.Kubectl, namespace: str
) -> None:
    jane = make_user(name="jane doe", groups=["developers", "ops"], ttl="1h")
    who = who_is(jane)
    assert who["username"] == "jane doe"
    assert sorted(who["groups"]) == ["developers", "ops", "system:authenticated"]
    forbidden = jane.attempt("get", "pods", f"--namespace={namespace}")
    assert 'User "jane doe" cannot list resource "pods"' in forbidden.stderr
    admin("create", "rolebinding", "ops", "--clusterrole=view", "--group=ops")
    wait.until(
        lambda: (
            jane.attempt("get", "pods", f"--namespace={namespace}").stderr.partition("No res")[0]
            or None
        ),
        awaited="the binding to count",
        seconds=5,
    )
    assert jane.attempt("get", "pods", "--namespace=kube-system").returncode == 1


def test_an_administrator_can_be_made(make_user: MakeUser) -> None:
    root = make_user(name="root", groups=["system:masters"], ttl="10m")
    assert root("auth", "can-i", "*", "*").strip() == "yes"


def test_a_token_s_user_is_a_service_account(
    make_user: MakeUser, admin: nodes.Kubectl, namespace: str
) -> None:
    name = nodes.unique("bot")
    bot = make_user(name=name, kind="token", ttl="10m")
    who = who_is(bot)
    assert who["username"] == f"system:serviceaccount:p8s-users:{name}"
    assert "system:serviceaccounts:p8s-users" in who["groups"]
    assert bot.attempt("get", "pods", f"--namespace={namespace}").returncode == 1
    account = f"--serviceaccount=p8s-users:{name}"
    admin("create", "rolebinding", name, "--clusterrole=view", account)
    wait.until(
        lambda: (
            bot.attempt("get", "pods", f"--namespace={namespace}").stderr.partition("No res")[0]
            or None
        ),
        awaited="the binding to count",
        seconds=5,
    )
    claims = json.loads(bot.kubeconfig.read_text())["users"][0]["user"]["token"].split(".")[1]
    expires = json.loads(base64.urlsafe_b64decode(claims + "=="))["exp"]
    assert 590 <= expires - time.time() <= 600
    # The token is gone with its ServiceAccount. One that was not used: of others kube-apiserver knows
    # for ten seconds that they were good.
    unused = make_user(name=name, kind="token", ttl="10m")
    admin("delete", "serviceaccount", name, "--namespace=p8s-users")
    wait.until(
        lambda: None if "Unauthorized" in unused.attempt("get", "pods").stderr else "still good",
        awaited="the token's end",
        seconds=15,
        interval=0.5,
    )


def test_wrong_input_is_told_all_at_once(cluster: nodes.Node) -> None:
    answer = ask(cluster, name="system:admin", groups=[""], ttl="30s", kind="certificate")
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (400, 400)
    for part in ("name = 'system:admin'", "group ''", "ttl = 30 s"):
        assert part in problem["detail"]
    assert problem["hint"]


# --- other names


def read_config(text: str) -> tuple[str, str]:
    """Server and CA of a kubeconfig."""
    entry = json.loads(text)["clusters"][0]["cluster"]
    return entry["server"], base64.b64decode(entry["certificate-authority-data"]).decode()


def verify(port: int, ca: str, name: str) -> str | None:
    """Why a strict client refuses kube-apiserver by a name; None where it does not."""
    context = ssl.create_default_context(cadata=ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as connection,
            context.wrap_socket(connection, server_hostname=name),
        ):
            return None
    except ssl.SSLCertVerificationError as error:
        return error.verify_message


@pytest.mark.parametrize(
    ("host", "name", "server"),
    [
        pytest.param("box.example", "box.example", "https://box.example:6443", id="a name"),
        pytest.param("Ci.Example:7443", "ci.example", "https://ci.example:7443", id="a port"),
        pytest.param("203.0.113.7", "203.0.113.7", "https://203.0.113.7:6443", id="IPv4"),
        pytest.param("[2001:db8::7]:9", "2001:db8::7", "https://[2001:db8::7]:9", id="IPv6"),
        pytest.param("p8s", "p8s", "https://p8s:6443", id="a name that it has"),
    ],
)
def test_the_certificate_carries_the_name_at_once(
    cluster: nodes.Node, host: str, name: str, server: str
) -> None:
    answer = requests.get(cluster.url("/kubeconfig"), params={"host": host}, timeout=10)
    assert answer.status_code == 200, answer.text
    found, ca = read_config(answer.text)
    assert found == server
    assert verify(cluster.api_port, ca, name) is None
    assert verify(cluster.api_port, ca, "other.example") is not None
    assert answer.elapsed.total_seconds() < 1


@pytest.mark.parametrize("host", ["a_b", "*.example", "a:0", "1.2.3", "https://a", "-x"])
def test_a_host_that_is_none_is_refused(cluster: nodes.Node, host: str) -> None:
    answer = requests.get(cluster.url("/kubeconfig"), params={"host": host}, timeout=10)
    assert answer.status_code == 400
    assert answer.json()["hint"]


def test_many_at_once_all_have_their_names(cluster: nodes.Node) -> None:
    names = [f"many-{number}.example" for number in range(8)]
    with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        answers = list(pool.map(lambda name: cluster.get(f"/kubeconfig?host={name}"), names))
    assert [answer.status_code for answer in answers] == [200] * len(names)
    _, ca = read_config(answers[0].text)
    assert [verify(cluster.api_port, ca, name) for name in names] == [None] * len(names)
