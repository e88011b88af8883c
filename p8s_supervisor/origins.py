"""How the settings are read that say where images come from: mirrors and proxies."""

from __future__ import annotations

import dataclasses
import re
import urllib.parse

# Where Docker Hub is, for images whose registry is docker.io.
HUB_HOSTS = ("index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com")

# Everybody's variables that are settings too, in either case. No other program of the node may see
# them: what is said within the node goes through no proxy.
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mirror:
    """Where a registry's images are looked for before it is asked itself.

    Attributes:
        registry: its name in images; `_default` for all that have no mirror of their own.
        url: of the mirror.
    """

    registry: str
    url: str


def parse_mirrors(text: str) -> tuple[Mirror, ...]:
    """Mirrors as REGISTRY=URL, by commas, in the order in which they are tried.

    Raises:
        ValueError: one of them is of another form.
    """
    return tuple(_parse_mirror(entry.strip()) for entry in text.split(",") if entry.strip())


def _parse_mirror(entry: str) -> Mirror:
    registry, equals, url = entry.partition("=")
    if not equals:
        raise ValueError(f"{entry}: not REGISTRY=URL, such as docker.io=https://mirror:5000")
    if "@" in url:
        raise ValueError(
            f"the mirror of {registry}: a user or password does not belong into its URL, but into "
            "the file of docker_config"
        )
    name = "_default" if registry == "*" else parse_registry(registry)
    try:
        parts = urllib.parse.urlsplit(url)
        good = parts.hostname and parts.port != 0  # reading an odd port raises
    except ValueError:
        good = False
    if not good or not url.isascii() or not re.fullmatch(r"https?://[^?#\s\"\\]+", url):
        raise ValueError(
            f"the mirror of {registry}: {url or 'nothing'} is no URL such as https://mirror:5000 or "
            "http://cache:5000"
        )
    return Mirror(registry=name, url=url.rstrip("/"))


def parse_registry(text: str) -> str:
    """A registry as images name it: a host, with its port where that is not 443.

    Raises:
        ValueError: it is none, or one that no image's name begins with.
    """
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, port = text, "443"
    if not re.fullmatch(
        r"[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\]", host
    ) or not (port.isascii() and port.isdigit()):
        raise ValueError(f"{text or 'nothing'}: not a registry such as docker.io or registry:5000")
    if host in HUB_HOSTS:
        raise ValueError(f"{text}: the registry of Docker Hub's images is docker.io")
    if host != "localhost" and "." not in host and not colon:
        raise ValueError(
            f"{text}: an image's name has a dot or a port in its registry, as docker.io or "
            f"{text}:5000; others are images of docker.io"
        )
    return text


def parse_proxy(text: str) -> str:
    """The URL of an HTTP proxy; empty for none.

    Raises:
        ValueError: not [SCHEME://][USER:PASSWORD@]HOST[:PORT], or not one of Go's schemes. Source:
            golang.org/x/net/http/httpproxy, parseProxy, and net/http, Transport.Proxy.
    """
    if not text:
        return ""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urllib.parse.urlsplit(url)
        good = parts.hostname and parts.port != 0  # reading an odd port raises
    except ValueError:
        good = False
    if not good or parts.scheme not in ("http", "https", "socks5", "socks5h"):
        raise ValueError("not the URL of a proxy such as http://proxy:3128")
    if parts.path.strip("/") or parts.query or parts.fragment or not re.fullmatch(r"[!-~]+", url):
        raise ValueError("the URL of a proxy ends after its port, as in http://proxy:3128")
    return url.rstrip("/")


def parse_no_proxy(text: str) -> tuple[str, ...]:
    """What is reached without a proxy: names, .domains, addresses and ranges, by commas.

    Raises:
        ValueError: a URL is among them.
    """
    names = tuple(name for name in re.split(r"[,\s]+", text) if name)
    for name in names:
        if "://" in name:
            raise ValueError(f"{name}: a name, an address or a range has no scheme: leave it out")
    return names
