"""The settings: one table, read from flags, the environment and a YAML file.

The fields of `Settings` are the table. A row gives its default, how its text is read, and its
help; the environment variable, the flag and the file key follow from its name.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import ipaddress
import json
import pathlib
import re
import typing

from p8s_supervisor import errors

PREFIX = "P8S_"
DEFAULT_FILE = pathlib.Path("/etc/p8s/config.yaml")

# Listened on in the node by etcd, kubelet, controller-manager, scheduler and kube-proxy.
NODE_PORTS = (2379, 2380, 10248, 10249, 10250, 10256, 10257, 10259)

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Seconds from `90`, `90s`, `5m`, `1h30m`.

    Raises:
        ValueError: it is none of these.
    """
    parts = list(_DURATION.finditer(text))
    if not text or "".join(part[0] for part in parts) != text:
        raise ValueError("not a duration such as 90s, 5m or 1h30m")
    return sum(float(part[1]) * _DURATION_UNITS[part[2]] for part in parts)


def parse_port(text: str) -> int:
    """A TCP port.

    Raises:
        ValueError: not a whole number from 1 to 65535, or one that the node itself needs.
    """
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise ValueError("not a port from 1 to 65535")
    if int(text) in NODE_PORTS:
        raise ValueError("a component of the node listens on that port: choose another")
    return int(text)


def parse_cidr(text: str) -> ipaddress.IPv4Network:
    """An IPv4 network in CIDR form, large enough for a cluster.

    Raises:
        ValueError: not one, host bits set, or its prefix is not between /12 and /28.
    """
    if "/" not in text:
        raise ValueError("not a network in CIDR form such as 10.96.0.0/16")
    network = ipaddress.IPv4Network(text)
    # kube-apiserver refuses service ranges of more than 20 bits.
    if not 12 <= network.prefixlen <= 28:
        raise ValueError("the prefix must be between /12 and /28")
    return network


def parse_dns_name(text: str) -> str:
    """A lower-case RFC 1123 subdomain.

    Raises:
        ValueError: it is not one.
    """
    if len(text) > 253 or not all(_DNS_LABEL.fullmatch(label) for label in text.split(".")):
        raise ValueError("not a DNS name (a-z, 0-9, '-' and '.')")
    return text


def parse_names(text: str) -> tuple[str, ...]:
    """DNS names and IP addresses, separated by commas.

    Raises:
        ValueError: one of them is neither.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        try:
            ipaddress.ip_address(name)
        except ValueError:
            try:
                parse_dns_name(name.removeprefix("*."))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    return names


def parse_address(text: str) -> str:
    """An IPv4 or IPv6 address.

    Raises:
        ValueError: it is not one.
    """
    return str(ipaddress.ip_address(text))


def parse_choice(*choices: str) -> collections.abc.Callable[[str], str]:
    """A parser that takes one of a few words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"not one of: {', '.join(choices)}")
        return text

    return parse


def parse_verbosity(text: str) -> int:
    """A klog level.

    Raises:
        ValueError: not a whole number from 0 to 10.
    """
    if not text.isascii() or not text.isdigit() or int(text) > 10:
        raise ValueError("not a number from 0 to 10")
    return int(text)


def parse_token(text: str) -> str:
    """A token for the HTTP API; empty for none.

    Raises:
        ValueError: shorter than 16 characters, or one that no HTTP header can carry.
    """
    if text and (len(text) < 16 or not text.isascii() or not text.isprintable() or " " in text):
        raise ValueError("a token has 16 printable ASCII characters or more, without blanks")
    return text


def parse_server(text: str) -> str:
    """The URL of the apiserver as seen from the host; empty for the default.

    Raises:
        ValueError: not `https://HOST[:PORT]`.
    """
    if text and not re.fullmatch(r"https://[^/@\s]+", text):
        raise ValueError("not of the form https://HOST:PORT")
    return text


def _row(default: str, parse: collections.abc.Callable[[str], object], help_: str) -> typing.Any:
    return dataclasses.field(metadata={"default": default, "parse": parse, "help": help_})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one cluster; durations are in seconds."""

    node_name: str = _row("p8s", parse_dns_name, "name of the node")
    service_cidr: ipaddress.IPv4Network = _row(
        "192.168.254.0/24", parse_cidr, "range of service addresses"
    )
    pod_cidr: ipaddress.IPv4Network = _row("192.168.253.0/24", parse_cidr, "range of pod addresses")
    cluster_domain: str = _row("cluster.local", parse_dns_name, "DNS domain of the cluster")
    api_port: int = _row("6443", parse_port, "port of kube-apiserver")
    api_server: str = _row(
        "",
        parse_server,
        "URL of kube-apiserver in kubeconfigs for the host, where the port is published "
        "elsewhere; empty: https://127.0.0.1:API_PORT",
    )
    extra_sans: tuple[str, ...] = _row(
        "", parse_names, "more names and addresses for kube-apiserver's certificate, by commas"
    )
    http_address: str = _row("0.0.0.0", parse_address, "address of p8s' own HTTP API")
    http_port: int = _row("8989", parse_port, "port of p8s' own HTTP API")
    api_token: str = _row(
        "",
        parse_token,
        "bearer token of p8s' own HTTP API; set, all but /livez and /ready need it; empty: one "
        "is made at each start for callers that are not on the host",
    )
    start_timeout: float = _row("2m", parse_duration, "the start fails after this long")
    run_timeout: float = _row("0", parse_duration, "stop after this long; 0: never")
    drain: str = _row(
        "pods",
        parse_choice("pods", "none"),
        "what a stop does first: pods: end workloads with their grace period; none: nothing",
    )
    drain_timeout: float = _row("30s", parse_duration, "the longest that a drain may take")
    status_interval: float = _row("1m", parse_duration, "between two status lines; 0: none")
    verbosity: int = _row("1", parse_verbosity, "klog level of the Kubernetes components")

    @property
    def kubernetes_service_ip(self) -> str:
        """The first address of the service range."""
        return str(self.service_cidr[1])

    @property
    def dns_service_ip(self) -> str:
        """The second address of the service range."""
        return str(self.service_cidr[2])

    @property
    def host_server(self) -> str:
        """The URL of kube-apiserver as seen from the host."""
        return self.api_server or f"https://127.0.0.1:{self.api_port}"


@dataclasses.dataclass(frozen=True)
class Loaded:
    """Settings with where each came from.

    Attributes:
        settings: the parsed settings.
        texts: each setting as text.
        sources: for each setting "flag", "environment", the file's path, or "default".
    """

    settings: Settings
    texts: dict[str, str]
    sources: dict[str, str]

    def to_json(self) -> str:
        """For `from_json`, in another process of the same container."""
        return json.dumps({"texts": self.texts, "sources": self.sources})


FIELDS: dict[str, dataclasses.Field[typing.Any]] = {
    field.name: field for field in dataclasses.fields(Settings)
}


def from_json(text: str) -> Loaded:
    """What `Loaded.to_json` wrote."""
    stored = json.loads(text)
    parsed = {name: FIELDS[name].metadata["parse"](stored["texts"][name]) for name in FIELDS}
    return Loaded(Settings(**parsed), stored["texts"], stored["sources"])


def env_name(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def flag_name(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def help_text() -> str:
    """Every setting with its flag, its environment variable, its default and what it does."""
    lines = [
        "usage: docker run --privileged [docker's options] p8s [SETTINGS]",
        "",
        "A flag wins over the environment, the environment over the file.",
        f"The file: {env_name('config')} or --config, default {DEFAULT_FILE}; its keys are the",
        "names of the flags with _ for -.",
        "",
    ]
    for name, field in FIELDS.items():
        lines.append(f"  {flag_name(name)}=…  {env_name(name)}")
        default = field.metadata["default"] or "empty"
        lines.append(f"      {field.metadata['help']} (default: {default})")
    return "\n".join(lines)


def load(
    arguments: collections.abc.Sequence[str], environment: collections.abc.Mapping[str, str]
) -> Loaded:
    """Read the settings.

    Args:
        arguments: flags, `--name=value` or `--name value`.
        environment: variables that start with P8S_ are settings; others are not looked at.

    Raises:
        SettingsError: with every wrong and every unknown setting.
    """
    wrong: list[str] = []
    flags = _read_flags(arguments, wrong)
    variables = {
        key.removeprefix(PREFIX).lower(): value
        for key, value in environment.items()
        if key.startswith(PREFIX)
    }
    file, required = DEFAULT_FILE, False
    for given in (variables, flags):
        if "config" in given:
            file, required = pathlib.Path(given.pop("config")), True
    sources: dict[str, str] = {}
    texts = {name: str(field.metadata["default"]) for name, field in FIELDS.items()}
    for source, given, shown in (
        (str(file), _read_file(file, required=required, wrong=wrong), str),
        ("environment", variables, env_name),
        ("flag", flags, flag_name),
    ):
        for name, text in given.items():
            if name not in FIELDS:
                wrong.append(_unknown(shown(name), [shown(known) for known in FIELDS]))
                continue
            texts[name], sources[name] = text, source
    parsed: dict[str, object] = {}
    for name, field in FIELDS.items():
        try:
            parsed[name] = field.metadata["parse"](texts[name])
        except ValueError as error:
            where = sources.get(name, "default")
            # A token is not for logs, not even a wrong one.
            value = "…" if name == "api_token" else repr(texts[name])
            wrong.append(f"{name} = {value} (from {where}): {error}")
    wrong += _check_together(parsed)
    if wrong:
        raise errors.SettingsError(wrong)
    return Loaded(
        Settings(**typing.cast("dict[str, typing.Any]", parsed)),
        texts,
        {name: sources.get(name, "default") for name in FIELDS},
    )


def _read_flags(arguments: collections.abc.Sequence[str], wrong: list[str]) -> dict[str, str]:
    flags: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if not name.startswith("--") or name == "--":
            wrong.append(f"{argument!r}: not a setting; settings are given as --name=value")
            continue
        if not equals:
            if not rest or rest[0].startswith("--"):
                wrong.append(f"{name}: a value is missing, as in {name}=VALUE")
                continue
            value = rest.pop(0)
        flags[name.removeprefix("--").replace("-", "_")] = value
    return flags


def _read_file(file: pathlib.Path, *, required: bool, wrong: list[str]) -> dict[str, str]:
    try:
        text = file.read_text()
    except OSError as error:
        if required or file.exists():
            wrong.append(f"{file}: cannot be read: {error.strerror}")
        return {}
    import yaml  # late: most starts have no file

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        wrong.append(f"{file}: not YAML: {' '.join(str(error).split())}")
        return {}
    if content is None:
        return {}
    if not isinstance(content, dict):
        wrong.append(f"{file}: not a mapping of settings")
        return {}
    return {
        str(key): ",".join(map(str, value))
        if isinstance(value, list)
        else ("" if value is None else str(value))
        for key, value in content.items()
    }


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"{name}: no such setting" + (f"; did you mean {near[0]}?" if near else "")


def _check_together(parsed: dict[str, object]) -> list[str]:
    wrong = []
    pods, services = parsed.get("pod_cidr"), parsed.get("service_cidr")
    if (
        isinstance(pods, ipaddress.IPv4Network)
        and isinstance(services, ipaddress.IPv4Network)
        and pods.overlaps(services)
    ):
        wrong.append(f"pod_cidr {pods} and service_cidr {services} overlap: choose others")
    if "api_port" in parsed and parsed["api_port"] == parsed.get("http_port"):
        wrong.append(f"api_port and http_port are both {parsed['api_port']}: choose others")
    return wrong
