"""containerd's hosts.toml: read as containerd reads it, and written."""

from __future__ import annotations

import datetime
import pathlib
import tomllib

import pytest

from p8s_supervisor import hosts_toml, pki

VALID = """
server = "https://registry.example.org"
ca = ["ca.crt", "ca.crt"]
capabilities = ["pull", "resolve", "referrers"]

[host."https://mirror:5000/v2/hub"]
  capabilities = ["PULL"]
  ca = "ca.crt"
  client = [["ca.crt", "ca.crt"], "ca.crt"]
  skip_verify = false
  override_path = true
  dial_timeout = "1m3.5s"
  [host."https://mirror:5000/v2/hub".header]
    authorization = "Basic eA=="
    x = ["a", "b"]

[host."plain.mirror"]
"""


@pytest.fixture(scope="module")
def pair() -> pki.Pair:
    return pki.make_authority("x", now=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))


@pytest.fixture
def directory(tmp_path: pathlib.Path, pair: pki.Pair) -> pathlib.Path:
    (tmp_path / "ca.crt").write_bytes(pair.certificate_pem)
    return tmp_path


def find(directory: pathlib.Path, text: str) -> list[str]:
    (directory / "hosts.toml").write_text(text)
    return hosts_toml.find_mistakes(directory)


@pytest.mark.parametrize("text", [VALID, "", 'server = "http://x"'], ids=["all", "empty", "server"])
def test_a_valid_file(directory: pathlib.Path, text: str) -> None:
    assert find(directory, text) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        pytest.param("server = https://x", "not TOML: ", id="no quotes"),
        pytest.param("server = 1", "server = 1: not a URL", id="a number as server"),
        pytest.param('server = "ftp://x"', "server = 'ftp://x': not a URL", id="a scheme"),
        pytest.param("host = 1", "`host` is no table", id="no table"),
        pytest.param("[host]\nx = 1", "`host` is no table", id="a host that is no table"),
        pytest.param('[host."https://"]', "host 'https://': not a URL", id="a host without a name"),
        pytest.param(
            '[host."https://m"]\nskip-verify = true',
            "host 'https://m': skip-verify: containerd has no such key; it knows capabilities, ca, ",
            id="an unknown key",
        ),
        pytest.param("plugins = 1", "it knows server, host, capabilities", id="at the top"),
        pytest.param('capabilities = ["fetch"]', "'fetch' is none of pull, ", id="a capability"),
        pytest.param('capabilities = "pull"', "capabilities: not a list", id="no list"),
        pytest.param('skip_verify = "true"', "skip_verify: not true or false", id="a text"),
        pytest.param("dial_timeout = 3", "dial_timeout: not a duration", id="a number as duration"),
        pytest.param('ca = "gone.crt"', "gone.crt: there is no such file in the node", id="no CA"),
        pytest.param('ca = "hosts.toml"', "hosts.toml: no PEM file with certificates", id="no PEM"),
        pytest.param("ca = [1]", "ca: 1 is no file's name", id="a number as file"),
        pytest.param('client = [["a"]]', "['a'] is not a certificate and its key", id="one of two"),
        pytest.param("header = 1", "header: not a table", id="no headers"),
        pytest.param("header = {a = 1}", "header: a: neither a text nor a list", id="a header"),
    ],
)
def test_an_invalid_file(directory: pathlib.Path, text: str, wrong: str) -> None:
    (told,) = find(directory, text)
    assert told.startswith("hosts.toml: ")
    assert wrong in told


def test_docker_s_own_layout(tmp_path: pathlib.Path, pair: pki.Pair) -> None:
    assert hosts_toml.find_mistakes(tmp_path) == ["neither hosts.toml nor a CA (*.crt) is in it"]
    (tmp_path / "ca.crt").write_bytes(pair.certificate_pem)
    assert hosts_toml.find_mistakes(tmp_path) == []
    (tmp_path / "other.crt").write_text("x")
    (told,) = hosts_toml.find_mistakes(tmp_path)
    assert told.startswith("other.crt: no PEM file")


def test_render() -> None:
    text = hosts_toml.render(
        {"https://a:5000": "Basic eA==", "http://b/hub": None, "https://c/v2/x": None}
    )
    found = tomllib.loads(text)
    both = ["pull", "resolve"]
    assert found == {
        "host": {
            "https://a:5000": {"capabilities": both, "header": {"Authorization": "Basic eA=="}},
            "http://b/v2/hub": {"capabilities": both, "override_path": True},
            "https://c/v2/x": {"capabilities": both, "override_path": True},
        }
    }
    assert next(iter(found["host"])) == "https://a:5000"
