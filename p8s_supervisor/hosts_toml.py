"""containerd's hosts.toml: what is wrong in one, and one for mirrors.

containerd leaves a file that it cannot read aside, and goes to the registry itself: nobody would
learn why. Source of all of it: containerd, core/remotes/docker/config/hosts.go.
"""

from __future__ import annotations

import collections.abc
import json
import pathlib
import re
import typing
import urllib.parse

from p8s_supervisor import trust

KEYS = ("capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout")
CAPABILITIES = ("pull", "resolve", "push", "referrers")

Table = dict[str, typing.Any]


def find_mistakes(directory: pathlib.Path) -> list[str]:
    """What is wrong in a registry's directory."""
    import tomllib  # late: most clusters have no such file

    file = directory / "hosts.toml"
    if not file.exists():
        found = [one for one in directory.iterdir() if one.suffix in (".crt", ".cert")]
        if not found:
            return ["neither hosts.toml nor a CA (*.crt) is in it"]
        wrong = {one.name: trust.find_mistake(one) for one in found if one.suffix == ".crt"}
        return [f"{name}: {mistake}" for name, mistake in wrong.items() if mistake]
    try:
        content = tomllib.loads(file.read_text())
    except OSError as error:
        return [f"hosts.toml: cannot be read: {error.strerror}"]
    except ValueError as error:  # TOMLDecodeError is one, and so is text that is not UTF-8
        return [f"hosts.toml: not TOML: {error}"]
    return [f"hosts.toml: {mistake}" for mistake in _check(content, directory)]


def _check(content: Table, directory: pathlib.Path) -> list[str]:
    hosts = content.get("host", {})
    if not isinstance(hosts, dict) or not all(isinstance(one, dict) for one in hosts.values()):
        return ['`host` is no table: write [host."https://MIRROR"]']
    wrong = []
    if "server" in content and not _is_server(content["server"]):
        wrong.append(f"server = {content['server']!r}: not a URL such as https://registry:5000")
    own = {key: value for key, value in content.items() if key not in ("server", "host")}
    wrong += _check_host(own, directory, known=("server", "host", *KEYS))
    for host, table in hosts.items():
        if not _is_server(host):
            wrong.append(f"host {host!r}: not a URL such as https://mirror:5000")
        wrong += [f"host {host!r}: {one}" for one in _check_host(table, directory, known=KEYS)]
    return wrong


def _is_server(text: object) -> bool:
    if not isinstance(text, str):
        return False
    try:
        parts = urllib.parse.urlsplit(text if "://" in text else f"https://{text}")
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _check_host(table: Table, directory: pathlib.Path, *, known: tuple[str, ...]) -> list[str]:
    checks: dict[str, collections.abc.Callable[[typing.Any], list[str]]] = {
        "capabilities": _check_capabilities,
        "ca": lambda value: _check_files(_as_list(value), directory, is_ca=True),
        "client": lambda value: _check_client(value, directory),
        "skip_verify": lambda value: [] if isinstance(value, bool) else ["not true or false"],
        "override_path": lambda value: [] if isinstance(value, bool) else ["not true or false"],
        "header": _check_header,
        "dial_timeout": _check_duration,
    }
    wrong = [
        f"{key}: containerd has no such key; it knows {', '.join(known)}"
        for key in table
        if key not in KEYS
    ]
    for key, check in checks.items():
        if key in table:
            wrong += [f"{key}: {one}" for one in check(table[key])]
    return wrong


def _as_list(value: typing.Any) -> list[typing.Any]:
    return value if isinstance(value, list) else [value]


def _check_capabilities(value: typing.Any) -> list[str]:
    if not isinstance(value, list):
        return ["not a list"]
    return [
        f"{one!r} is none of {', '.join(CAPABILITIES)}"
        for one in value
        if not isinstance(one, str) or one.lower() not in CAPABILITIES
    ]


def _check_files(names: list[typing.Any], directory: pathlib.Path, *, is_ca: bool) -> list[str]:
    wrong = []
    for name in names:
        if not isinstance(name, str):
            wrong.append(f"{name!r} is no file's name")
            continue
        file = directory / name  # an absolute name stays what it is
        if not file.is_file():
            wrong.append(f"{file}: there is no such file in the node: mount it with {directory}")
        elif is_ca and (mistake := trust.find_mistake(file)):
            wrong.append(f"{file}: {mistake}")
    return wrong


def _check_client(value: typing.Any, directory: pathlib.Path) -> list[str]:
    names: list[typing.Any] = []
    for pair in _as_list(value):
        if isinstance(pair, list) and len(pair) != 2:
            return [f"{pair!r} is not a certificate and its key"]
        names += _as_list(pair)
    return _check_files(names, directory, is_ca=False)


def _check_header(value: typing.Any) -> list[str]:
    if not isinstance(value, dict):
        return ["not a table"]
    return [
        f"{name}: neither a text nor a list of texts"
        for name, given in value.items()
        if not all(isinstance(one, str) for one in _as_list(given))
    ]


def _check_duration(value: typing.Any) -> list[str]:
    good = isinstance(value, str) and re.fullmatch(r"(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+", value)
    return [] if good else ["not a duration such as 3s"]


def render(headers: collections.abc.Mapping[str, str | None]) -> str:
    """A hosts.toml for mirrors.

    Args:
        headers: URL → the header Authorization, or None. A path in a URL comes before the
            repository's name, as proxies of Harbor and Artifactory have it.
    """
    lines = ["# From the setting registry_mirrors."]
    for url, header in headers.items():
        parts = urllib.parse.urlsplit(url)
        path = f"{parts.path}/".removeprefix("/v2/").strip("/")
        host = json.dumps(f"{parts.scheme}://{parts.netloc}" + (f"/v2/{path}" if path else ""))
        lines += [f"[host.{host}]", '  capabilities = ["pull", "resolve"]']
        lines += ["  override_path = true"] * bool(path)
        if header is not None:
            lines += [f"  [host.{host}.header]", f"    Authorization = {json.dumps(header)}"]
    return "\n".join(lines) + "\n"
