"""Kubeconfigs that are handed out, without an apiserver."""

from __future__ import annotations

import base64
import collections.abc
import datetime
import json
import pathlib
import typing

import pytest
from cryptography import x509

from p8s_supervisor import context, credentials, errors, users
from tests import fakes

TOKEN_PATH = "/api/v1/namespaces/p8s-users/serviceaccounts/bot/token"


def make_run(
    root: pathlib.Path,
    *arguments: str,
    answers: collections.abc.Mapping[str, list[fakes.Answer]] | None = None,
) -> context.Context:
    run = fakes.make_context(root, *arguments, client=fakes.KubeClient(answers or {}))
    run.admin = credentials.write(run.plan, fresh=True)
    return run


def read_user(text: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(text)["users"][0]["user"]
    return found


def read_server(text: str) -> str:
    return str(json.loads(text)["clusters"][0]["cluster"]["server"])


def read_certificate(text: str) -> x509.Certificate:
    pem = base64.b64decode(read_user(text)["client-certificate-data"])
    return x509.load_pem_x509_certificate(pem)


def read_names(run: context.Context) -> set[str]:
    """What kube-apiserver's certificate carries."""
    pem = (run.plan.paths.pki / "apiserver.crt").read_bytes()
    extension = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return {str(name.value) for name in extension.value}


# --- for another name


@pytest.mark.parametrize("host", [None, "box.example"])
def test_before_the_pki_there_is_no_kubeconfig(tmp_path: pathlib.Path, host: str | None) -> None:
    with pytest.raises(errors.RequestError) as caught:
        users.kubeconfig_for(fakes.make_context(tmp_path), host)
    assert (caught.value.status, caught.value.hint) == (503, "wait for /ready")


@pytest.mark.parametrize(
    ("arguments", "server"),
    [
        pytest.param([], "https://127.0.0.1:6443", id="default"),
        pytest.param(["--api-server=https://p8s.example"], "https://p8s.example", id="another URL"),
    ],
)
def test_the_kubeconfig_is_for_the_host(
    tmp_path: pathlib.Path, arguments: list[str], server: str
) -> None:
    run = make_run(tmp_path, *arguments)
    text = users.kubeconfig_for(run, None)
    assert read_server(text) == server
    assert run.admin is not None
    assert base64.b64decode(read_user(text)["client-key-data"]) == run.admin[2]


@pytest.mark.parametrize(
    ("text", "name", "port"),
    [
        ("box", "box", 6443),
        ("Box.Example.", "box.example", 6443),
        ("box.example:7443", "box.example", 7443),
        ("10.0.0.1", "10.0.0.1", 6443),
        ("10.0.0.1:443", "10.0.0.1", 443),
        ("fd00::1", "fd00::1", 6443),
        ("[fd00::1]", "fd00::1", 6443),
        ("[FD00:0::1]:443", "fd00::1", 443),
    ],
)
def test_a_host_is_read(text: str, name: str, port: int) -> None:
    assert users.parse_host(text, port=6443) == (name, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a_b",
        "-a",
        "*.example",
        "a b",
        "https://a",
        "a/b",
        "a:b",
        "a:0",
        "a:65536",
        "a:1:2",
        "1.2.3",
        "1.2.3.256",
        "[a]:1",
        "fd00::x",
        "fe80::1%eth0",
        "a\nb",
        "x" * 64,
        "é.example",
    ],
)
def test_a_host_that_is_none_is_refused(tmp_path: pathlib.Path, text: str) -> None:
    run = make_run(tmp_path)
    before = read_names(run)
    with pytest.raises(errors.RequestError) as caught:
        users.kubeconfig_for(run, text)
    assert caught.value.status == 400
    assert caught.value.message.startswith(f"host = {text!r}: ")
    assert read_names(run) == before
    assert not run.plan.paths.api_names.exists()


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """An apiserver that shows the certificate of the file."""

    def look(plan: typing.Any, name: str) -> str | None:
        pem = (plan.paths.pki / "apiserver.crt").read_bytes()
        extension = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        return None if name in {str(one.value) for one in extension.value} else "another name"

    monkeypatch.setattr(users, "shown_reason", look)


@pytest.mark.usefixtures("shown")
def test_the_certificate_is_extended_and_stays_so(tmp_path: pathlib.Path) -> None:
    run = make_run(tmp_path)
    before = read_names(run)
    for host, server in (
        ("box.example", "https://box.example:6443"),
        ("fd00::7", "https://[fd00::7]:6443"),
        ("10.1.2.3:7443", "https://10.1.2.3:7443"),
        ("box.example:443", "https://box.example:443"),
    ):
        assert read_server(users.kubeconfig_for(run, host)) == server
    added = {"box.example", "fd00::7", "10.1.2.3"}
    assert read_names(run) == before | added
    credentials.write(run.plan, fresh=False)
    assert read_names(run) == before | added


@pytest.mark.usefixtures("shown")
def test_a_name_that_it_has_is_not_kept(tmp_path: pathlib.Path) -> None:
    run = make_run(tmp_path)
    certificate = (run.plan.paths.pki / "apiserver.crt").read_bytes()
    users.kubeconfig_for(run, "172.17.0.2")
    assert (run.plan.paths.pki / "apiserver.crt").read_bytes() == certificate
    assert credentials.read_api_names(run.plan) == ()


@pytest.mark.usefixtures("shown")
def test_names_are_bounded(tmp_path: pathlib.Path) -> None:
    run = make_run(tmp_path)
    kept = tuple(f"n{number}.example" for number in range(users.MOST_NAMES))
    credentials.keep_api_names(run.plan, kept)
    credentials.extend_apiserver(run.plan)
    users.kubeconfig_for(run, kept[0])
    with pytest.raises(errors.RequestError) as caught:
        users.kubeconfig_for(run, "one-more.example")
    assert caught.value.status == 409
    assert "P8S_EXTRA_SANS" in caught.value.hint
    assert credentials.read_api_names(run.plan) == kept


def test_an_apiserver_that_does_not_show_the_name_is_told(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "HANDSHAKE_SECONDS", 0.05)
    run = make_run(tmp_path, f"--api-port={fakes.free_port()}")
    with pytest.raises(errors.RequestError) as caught:
        users.kubeconfig_for(run, "box.example")
    assert caught.value.status == 503
    assert caught.value.message.startswith(
        "box.example in kube-apiserver's certificate: not within"
    )


@pytest.mark.parametrize("text", ["", "[", "5", '{"a": 1}'], ids=repr)
def test_a_damaged_file_of_names_is_told(tmp_path: pathlib.Path, text: str) -> None:
    run = make_run(tmp_path)
    run.plan.paths.api_names.write_text(text)
    with pytest.raises(errors.P8sError, match=r"api-names\.json is damaged"):
        credentials.write(run.plan, fresh=False)


# --- for other users


def make(run: context.Context, **more: typing.Any) -> str:
    asked: dict[str, typing.Any] = {
        "name": "jane",
        "groups": (),
        "ttl": 3600,
        "kind": "certificate",
    }
    return users.make(run, **asked | more)


def test_a_certificate_says_who_it_is(tmp_path: pathlib.Path) -> None:
    run = make_run(tmp_path)
    begun = datetime.datetime.now(datetime.UTC)
    text = make(run, groups=("developers", "ops", "developers"), ttl=90)
    certificate = read_certificate(text)
    assert [(one.rfc4514_attribute_name, one.value) for one in certificate.subject] == [
        ("O", "developers"),
        ("O", "ops"),
        ("CN", "jane"),
    ]
    left = (certificate.not_valid_after_utc - begun).total_seconds()
    assert 88 <= left <= 91
    assert certificate.not_valid_before_utc < begun
    authority = x509.load_pem_x509_certificate((run.plan.paths.authorities / "ca.crt").read_bytes())
    certificate.verify_directly_issued_by(authority)
    assert json.loads(text)["users"][0]["name"] == "jane"


def test_a_token_is_asked_of_the_apiserver(tmp_path: pathlib.Path) -> None:
    run = make_run(
        tmp_path,
        answers={
            "GET /api/v1": [
                {"resources": [{"kind": "Namespace", "name": "namespaces", "namespaced": False}]}
            ],
            "PATCH /api/v1/namespaces/p8s-users": ["{}"],
            "PATCH /api/v1/namespaces/p8s-users/serviceaccounts/bot": ["{}"],
            f"POST {TOKEN_PATH}": [{"status": {"token": "a.b.c"}}],
        },
    )
    text = make(run, name="bot", kind="token", ttl=1200)
    assert read_user(text) == {"token": "a.b.c"}
    assert isinstance(run.client, fakes.KubeClient)
    assert run.client.asked[-1] == f"POST {TOKEN_PATH}"
    assert (run.client.requests[-1].body or {})["spec"] == {"expirationSeconds": 1200}


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        pytest.param({"name": ""}, ["name = '': not 1 to 64 printable characters"], id="no name"),
        pytest.param({"name": "a" * 65}, [f"name = '{'a' * 65}': not 1 to 64"], id="a long name"),
        pytest.param({"name": "a\n"}, ["name = 'a\\n': not 1 to 64 printable"], id="a line end"),
        pytest.param(
            {"name": "system:admin"},
            ["name = 'system:admin': names that begin with system: are"],
            id="a name of Kubernetes",
        ),
        pytest.param(
            {"name": "kubernetes-admin"},
            ["name = 'kubernetes-admin': a component of this node has that name"],
            id="a name of p8s",
        ),
        pytest.param({"kind": "key"}, ["kind = 'key': not one of: certificate, token"], id="kind"),
        pytest.param({"ttl": 59}, ["ttl = 59 s: not from 1m to 365d"], id="too short"),
        pytest.param({"ttl": 366 * 86400}, ["ttl = 3.16224e+07 s: not from 1m"], id="too long"),
        pytest.param({"ttl": float("nan")}, ["ttl = nan s: not from 1m to 365d"], id="no number"),
        pytest.param(
            {"name": "bot", "kind": "token", "ttl": 599},
            ["ttl = 599 s: not from 10m, the apiserver's least for a token, to 365d"],
            id="too short for a token",
        ),
        pytest.param(
            {"name": "Bot", "kind": "token"},
            ["name = 'Bot': a ServiceAccount's name is a DNS name"],
            id="no name of a ServiceAccount",
        ),
        pytest.param(
            {"kind": "token", "groups": ("a",)},
            ["groups: the groups of a token are those of its ServiceAccount"],
            id="a token with groups",
        ),
        pytest.param({"groups": ("",)}, ["group '': not 1 to 64 printable"], id="a group"),
        pytest.param({"groups": ("g",) * 33}, ["groups: 33 are more than 32"], id="many groups"),
        pytest.param(
            {"name": "", "kind": "x", "ttl": 1, "groups": ("\t",)},
            ["name = ''", "kind = 'x'", "group '\\t'", "ttl = 1 s"],
            id="everything at once",
        ),
    ],
)
def test_wrong_input_is_told_all_at_once(
    tmp_path: pathlib.Path, asked: dict[str, typing.Any], wrong: list[str]
) -> None:
    with pytest.raises(errors.RequestError) as caught:
        make(make_run(tmp_path), **asked)
    assert caught.value.status == 400
    found = caught.value.message.split("; ")
    assert len(found) == len(wrong)
    for sentence, beginning in zip(found, wrong, strict=True):
        assert sentence.startswith(beginning)


def test_the_administrators_group_can_be_given(tmp_path: pathlib.Path) -> None:
    certificate = read_certificate(make(make_run(tmp_path), groups=("system:masters",)))
    assert "system:masters" in [one.value for one in certificate.subject]


@pytest.mark.parametrize("kind", users.KINDS)
def test_before_the_start_is_there_nobody_gets_one(tmp_path: pathlib.Path, kind: str) -> None:
    with pytest.raises(errors.RequestError) as caught:
        make(fakes.make_context(tmp_path), kind=kind)
    assert caught.value.status == 503
