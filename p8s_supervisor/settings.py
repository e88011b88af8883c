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
import typing

from p8s_supervisor import errors, parsers

PREFIX = "P8S_"
DEFAULT_FILE = pathlib.Path("/etc/p8s/config.yaml")
# Never shown, not even where they are wrong.
SECRETS = ("api_token",)


def _row(default: str, parse: collections.abc.Callable[[str], object], help_: str) -> typing.Any:
    return dataclasses.field(metadata={"default": default, "parse": parse, "help": help_})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one cluster; durations are in seconds."""

    node_name: str = _row("p8s", parsers.parse_node_name, "name of the node")
    service_cidr: ipaddress.IPv4Network = _row(
        "192.168.254.0/24", parsers.parse_cidr, "range of service addresses"
    )
    pod_cidr: ipaddress.IPv4Network = _row(
        "192.168.253.0/24", parsers.parse_cidr, "range of pod addresses"
    )
    cluster_domain: str = _row("cluster.local", parsers.parse_dns_name, "DNS domain of the cluster")
    api_port: int = _row("6443", parsers.parse_port, "port of kube-apiserver")
    api_server: str = _row(
        "",
        parsers.parse_server,
        "URL of kube-apiserver in kubeconfigs for the host, where the port is published "
        "elsewhere; empty: https://127.0.0.1:API_PORT",
    )
    extra_sans: tuple[str, ...] = _row(
        "",
        parsers.parse_names,
        "more names and addresses for kube-apiserver's certificate, by commas",
    )
    http_address: str = _row("0.0.0.0", parsers.parse_address, "address of p8s' own HTTP API")
    http_port: int = _row("8989", parsers.parse_port, "port of p8s' own HTTP API")
    api_token: str = _row(
        "",
        parsers.parse_token,
        "bearer token of p8s' own HTTP API; set, all but /livez and /ready need it; empty: one "
        "is made at each start for callers that are not on the host",
    )
    start_timeout: float = _row("2m", parsers.parse_duration, "the start fails after this long")
    run_timeout: float = _row("0", parsers.parse_duration, "stop after this long; 0: never")
    drain: str = _row(
        "pods",
        parsers.parse_choice("pods", "none"),
        "what a stop does first: pods: end workloads with their grace period; none: nothing",
    )
    drain_timeout: float = _row("30s", parsers.parse_duration, "the longest that a drain may take")
    etcd_fsync: str = _row(
        "always",
        parsers.parse_choice("always", "never"),
        "whether etcd has a write on disk before it acknowledges it; never: quicker, and what was "
        "acknowledged survives a kill of anything, but not a crash of the host",
    )
    etcd_quota: int = _row(
        "2Gi",
        parsers.parse_size,
        "the size at which etcd refuses writes, until something is deleted; from 32Mi to 8Gi",
    )
    status_interval: float = _row("1m", parsers.parse_duration, "between two status lines; 0: none")
    cert_lifetime: float = _row(
        "365d",
        parsers.parse_cert_lifetime,
        "how long the components' certificates are good for; they are renewed at two thirds of it",
    )
    max_container_restart_period: float = _row(
        "1s",
        parsers.parse_restart_period,
        "the longest that kubelet waits before it starts a container again that has ended twice "
        "(crashLoopBackOff.maxContainerRestartPeriod); Kubernetes' own is 5m, from 10s on",
    )
    manifests: pathlib.PurePosixPath = _row(
        "/etc/p8s/manifests",
        parsers.parse_directory,
        "directory in the node with your own manifests and kustomizations, applied when the cluster "
        "is ready and by POST /apply",
    )
    audit: str = _row(
        "none",
        parsers.parse_choice("none", "metadata", "request", "request-response"),
        "kube-apiserver's audit log: who asked for what; request: with what was sent; "
        "request-response: with the answer too; never the content of a Secret or a token",
    )
    failure_bundle: str = _row(
        "false",
        parsers.parse_choice("true", "false"),
        "whether a start that fails leaves /var/log/p8s/bundle.tar.gz in the container, with logs, "
        "events, objects and status; docker cp brings it out",
    )
    verbosity: int = _row("1", parsers.parse_verbosity, "klog level of the Kubernetes components")

    @property
    def kubernetes_service_ip(self) -> str:
        """The first address of the service range."""
        return str(self.service_cidr[1])

    @property
    def dns_service_ip(self) -> str:
        """The second address of the service range."""
        return str(self.service_cidr[2])

    @property
    def pod_gateway(self) -> str:
        """The first address of the pods' range: the node as pods see it, at whatever address it is."""
        return str(self.pod_cidr[1])

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

    def describe(self) -> dict[str, dict[str, str]]:
        """For each setting its value as text and its source; secrets are not shown."""
        return {
            name: {
                "value": "…" if name in SECRETS and self.texts[name] else self.texts[name],
                "source": self.sources[name],
            }
            for name in FIELDS
        }

    def to_json(self) -> str:
        """For `from_json`, in another process of the same container."""
        return json.dumps({"texts": self.texts, "sources": self.sources})


FIELDS: dict[str, dataclasses.Field[typing.Any]] = {
    field.name: field for field in dataclasses.fields(Settings)
}


def from_json(text: str) -> Loaded:
    """What `Loaded.to_json` wrote."""
    stored = json.loads(text)
    parsed: dict[str, typing.Any] = {name: parse(name, stored["texts"][name]) for name in FIELDS}
    return Loaded(Settings(**parsed), stored["texts"], stored["sources"])


def parse(name: str, text: str) -> object:
    """The value that a setting has by a text.

    Raises:
        ValueError: it is none of that setting's.
    """
    return FIELDS[name].metadata["parse"](text)


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
    for name in FIELDS:
        try:
            parsed[name] = parse(name, texts[name])
        except ValueError as error:
            where = sources.get(name, "default")
            value = "…" if name in SECRETS else repr(texts[name])
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
    except UnicodeDecodeError as error:
        wrong.append(f"{file}: not UTF-8 text: {error.reason} at byte {error.start}")
        return {}
    content = _parse_yaml(file, text, wrong)
    return {
        str(key): ",".join(map(str, value))
        if isinstance(value, list)
        else ("" if value is None else str(value))
        for key, value in content.items()
    }


def _parse_yaml(file: pathlib.Path, text: str, wrong: list[str]) -> dict[object, object]:
    import yaml  # late: most starts have no file

    try:
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        # Not the error's own text: it shows the line, and a token may stand there.
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        wrong.append(f"{file}: not YAML: {where}{error.problem}")
        return {}
    except yaml.YAMLError:
        wrong.append(f"{file}: not YAML: it has characters that YAML does not allow")
        return {}
    if content is not None and not isinstance(content, dict):
        wrong.append(f"{file}: not a mapping of settings")
        return {}
    return content or {}


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
