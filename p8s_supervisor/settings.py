"""The settings: one table, read from flags, the environment and a YAML file.

The fields of `Settings` are the table. A row gives its default, how its text is read, and its
help; the environment variable, the flag and the file key follow from its name.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import json
import pathlib
import typing

from p8s_supervisor import errors, origins, overrides, parsers, sources

PREFIX = "P8S_"
DEFAULT_FILE = pathlib.Path("/etc/p8s/config.yaml")
# Never shown, not even where they are wrong.
SECRETS = ("api_token",)
# May be given more than once.
REPEATED = ("extra_config",)


def _row(default: str, parse: collections.abc.Callable[[str], object], help_: str) -> typing.Any:
    return dataclasses.field(metadata={"default": default, "parse": parse, "help": help_})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one cluster; durations are in seconds."""

    node_name: str = _row("p8s", parsers.parse_node_name, "name of the node")
    service_cidr: parsers.Ranges = _row(
        "192.168.254.0/24",
        # kube-apiserver refuses more than 20 bits.
        parsers.parse_ranges(widest=108),
        "range of service addresses, of IPv4 or IPv6; for a dual-stack cluster: IPV4,IPV6",
    )
    pod_cidr: parsers.Ranges = _row(
        "192.168.253.0/24",
        parsers.parse_ranges(widest=48),
        "range of pod addresses, of the families that service_cidr has",
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
    add_ons: tuple[str, ...] = _row(
        "storage",
        parsers.parse_add_ons,
        "add-ons by commas, or none: storage, metrics, loadbalancer, ingress, registry, and your own; "
        "those that you set are there before /ready is green",
    )
    add_on_directories: pathlib.PurePosixPath = _row(
        "/etc/p8s/add-ons",
        parsers.parse_directory,
        "directory in the node with a directory, or kustomization, for each add-on of your own",
    )
    registry_mirrors: tuple[origins.Mirror, ...] = _row(
        "",
        origins.parse_mirrors,
        "mirrors and pull-through caches, tried before a registry itself: REGISTRY=URL, by commas; "
        "*=URL: of every other registry",
    )
    registries: pathlib.PurePosixPath = _row(
        "/etc/p8s/registries",
        parsers.parse_directory,
        "directory in the node with containerd's REGISTRY/hosts.toml, for what registry_mirrors "
        "cannot say",
    )
    docker_config: pathlib.PurePosixPath = _row(
        "/etc/p8s/docker-config.json",
        parsers.parse_directory,
        "docker's config.json in the node, with the passwords of registries and mirrors",
    )
    ca_bundle: pathlib.PurePosixPath = _row(
        "/etc/p8s/ca-bundle.pem",
        parsers.parse_directory,
        "PEM file in the node with CAs that it trusts beside the public ones; pods find them in the "
        "ConfigMap p8s-ca-bundle of their namespace",
    )
    http_proxy: str = _row(
        "", origins.parse_proxy, "proxy for pulls by http; HTTP_PROXY is taken too"
    )
    https_proxy: str = _row(
        "", origins.parse_proxy, "proxy for pulls by https; HTTPS_PROXY is taken too"
    )
    no_proxy: tuple[str, ...] = _row(
        "",
        origins.parse_no_proxy,
        "names, .domains, addresses and ranges without a proxy, by commas; NO_PROXY is taken too; "
        "the cluster's own are added",
    )
    pod_proxies: str = _row(
        "false",
        parsers.parse_choice("true", "false"),
        "whether every container of a pod has the proxies in its environment; its own variables win",
    )
    images: pathlib.PurePosixPath = _row(
        "/etc/p8s/images",
        parsers.parse_directory,
        "directory in the node with archives of images (docker save, OCI), loaded when the cluster is "
        "ready, before your manifests",
    )
    extra_config: tuple[overrides.Entry, ...] = _row(
        "",
        overrides.parse,
        "COMPONENT.KEY=VALUE, any number of times: a flag of etcd, kube-apiserver, "
        "kube-controller-manager, kube-scheduler or kubelet, or a field of the configuration of "
        "kubelet, kube-proxy or kube-scheduler; whole files go to /etc/p8s/config",
    )
    feature_gates: dict[str, bool] = _row(
        "",
        overrides.parse_gates,
        "feature gates of every Kubernetes component: NAME=true or NAME=false, by commas",
    )
    proxy_mode: str = _row(
        "auto",
        parsers.parse_choice("auto", "nftables", "iptables"),
        "kube-proxy's mode; auto: nftables from Linux 5.13 on, iptables before",
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
        return str(self.service_cidr.networks[0][1])

    @property
    def dns_service_ip(self) -> str:
        """The second address of the service range."""
        return str(self.service_cidr.networks[0][2])

    @property
    def pod_gateway(self) -> str:
        """The first address of the pods' range: the node as pods see it, at whatever address it is."""
        return str(self.pod_cidr.networks[0][1])

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
            name: {"value": _hide(name, self.texts[name]), "source": self.sources[name]}
            for name in FIELDS
        }

    def is_secret(self, name: str) -> bool:
        """Whether a setting's text is not shown as it is."""
        return _hide(name, self.texts[name]) != self.texts[name]

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


def _hide(name: str, text: str) -> str:
    """A setting's text without a secret: a token, or what a URL has before its host."""
    if name in SECRETS:
        return "…" if text else ""
    return f"…@{text.rpartition('@')[2]}" if "@" in text else text


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
        environment: variables that start with P8S_ are settings, and so are the proxies'; others are
            not looked at.

    Raises:
        SettingsError: with every wrong and every unknown setting.
    """
    wrong: list[str] = []
    flags = sources.read_flags(arguments, wrong, repeated=REPEATED)
    variables = _read_variables(environment)
    file, required = DEFAULT_FILE, False
    for given in (variables, flags):
        if "config" in given:
            file, required = pathlib.Path(given.pop("config")), True
    found: dict[str, str] = {}
    texts = {name: str(field.metadata["default"]) for name, field in FIELDS.items()}
    for source, given, shown in (
        (str(file), sources.read_file(file, wrong, required=required, repeated=REPEATED), str),
        ("environment", variables, env_name),
        ("flag", flags, flag_name),
    ):
        for name, text in given.items():
            if name not in FIELDS:
                wrong.append(_unknown(shown(name), [shown(known) for known in FIELDS]))
                continue
            texts[name], found[name] = text, source
    parsed: dict[str, object] = {}
    for name in FIELDS:
        try:
            parsed[name] = parse(name, texts[name])
        except ValueError as error:
            where = found.get(name, "default")
            value = "…" if name in SECRETS else repr(_hide(name, texts[name]))
            wrong.append(f"{name} = {value} (from {where}): {error}")
    wrong += _check_together(parsed)
    if wrong:
        raise errors.SettingsError(wrong)
    return Loaded(
        Settings(**typing.cast("dict[str, typing.Any]", parsed)),
        texts,
        {name: found.get(name, "default") for name in FIELDS},
    )


def _read_variables(environment: collections.abc.Mapping[str, str]) -> dict[str, str]:
    names = origins.PROXY_VARIABLES
    given = {name: environment.get(name.upper()) or environment.get(name, "") for name in names}
    own = {
        key.removeprefix(PREFIX).lower(): value
        for key, value in environment.items()
        if key.startswith(PREFIX)
    }
    return {name: proxy for name, proxy in given.items() if proxy} | own


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"{name}: no such setting" + (f"; did you mean {near[0]}?" if near else "")


def _check_together(parsed: dict[str, object]) -> list[str]:
    wrong = []
    pods, services = parsed.get("pod_cidr"), parsed.get("service_cidr")
    if isinstance(pods, parsers.Ranges) and isinstance(services, parsers.Ranges):
        if pods.overlaps(services):
            wrong.append(f"pod_cidr {pods} and service_cidr {services} overlap: choose others")
        if pods.families != services.families:
            wrong.append(
                f"pod_cidr {pods} and service_cidr {services} are not of the same families in the "
                "same order: give both of IPv4, both of IPv6, or both as IPV4,IPV6"
            )
    if "api_port" in parsed and parsed["api_port"] == parsed.get("http_port"):
        wrong.append(f"api_port and http_port are both {parsed['api_port']}: choose others")
    return wrong
