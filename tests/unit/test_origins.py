"""Mirrors and proxies as settings have them."""

from __future__ import annotations

import pytest

from p8s_supervisor import origins

HUB = "the registry of Docker Hub's images is docker.io"
SHORT = (
    "an image's name has a dot or a port in its registry, as docker.io or mirror:5000; others are"
)


def test_mirrors_are_kept_in_their_order() -> None:
    text = "docker.io=https://a:5000/, docker.io=http://b,reg:5000=https://c/hub,*=https://d,"
    assert [(one.registry, one.url) for one in origins.parse_mirrors(text)] == [
        ("docker.io", "https://a:5000"),
        ("docker.io", "http://b"),
        ("reg:5000", "https://c/hub"),
        ("_default", "https://d"),
    ]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        pytest.param("docker.io", "not REGISTRY=URL, such as", id="no URL"),
        pytest.param("=https://m", "not a registry such as", id="no registry"),
        pytest.param("a b=https://m", "a b: not a registry such as", id="a blank"),
        pytest.param("x.y:port=https://m", "not a registry such as", id="a port that is none"),
        pytest.param("https://x.y=https://m", "not a registry such as", id="a URL as registry"),
        pytest.param("mirror=https://m", SHORT, id="a name that images do not begin with"),
        pytest.param("index.docker.io=https://m", HUB, id="a host of Docker Hub"),
        pytest.param("x.y=mirror:5000", "mirror:5000 is no URL such as", id="no scheme"),
        pytest.param("x.y=ftp://m", "ftp://m is no URL such as", id="another scheme"),
        pytest.param("x.y=", "nothing is no URL such as", id="an empty URL"),
        pytest.param("x.y=https://m:99999", "is no URL such as", id="a port beyond the last"),
        pytest.param("x.y=https://m?a=b", "is no URL such as", id="a query"),
        pytest.param('x.y=https://m"]', "is no URL such as", id="a quote"),
    ],
)
def test_what_is_no_mirror(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        origins.parse_mirrors(text)
    assert wrong in str(caught.value)


def test_a_password_is_not_shown_where_it_does_not_belong() -> None:
    with pytest.raises(ValueError, match="into the file of docker_config") as caught:
        origins.parse_mirrors("x.y=https://user:hunter2@m")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        pytest.param("", "", id="none"),
        pytest.param("proxy:3128", "http://proxy:3128", id="as Go takes it"),
        pytest.param("http://u:p@proxy:3128/", "http://u:p@proxy:3128", id="with a password"),
        pytest.param("socks5://proxy", "socks5://proxy", id="SOCKS"),
    ],
)
def test_a_proxy(text: str, url: str) -> None:
    assert origins.parse_proxy(text) == url


@pytest.mark.parametrize(
    "text",
    ["http://", "ftp://proxy", "http://proxy:x", "http://proxy/path", "http://a b", "http://p?q"],
)
def test_what_is_no_proxy(text: str) -> None:
    with pytest.raises(ValueError, match=r"(as|in) http://proxy:3128"):
        origins.parse_proxy(text)


def test_no_proxy() -> None:
    assert origins.parse_no_proxy("a.b, .c 10.0.0.0/8,,") == ("a.b", ".c", "10.0.0.0/8")
    with pytest.raises(ValueError, match="has no scheme"):
        origins.parse_no_proxy("http://a.b")
