"""The settings: sources, precedence, files, errors."""

from __future__ import annotations

import collections.abc
import dataclasses
import ipaddress
import pathlib
import typing

import pytest

from p8s_supervisor import errors, parsers, settings

FILES = pathlib.Path(__file__).parent / "settings"
DEFAULTS = {
    "node_name": "p8s",
    "add_ons": ("storage",),
    "add_on_directories": pathlib.PurePosixPath("/etc/p8s/add-ons"),
    "service_cidr": parsers.Ranges((ipaddress.IPv4Network("192.168.254.0/24"),)),
    "pod_cidr": parsers.Ranges((ipaddress.IPv4Network("192.168.253.0/24"),)),
    "cluster_domain": "cluster.local",
    "api_port": 6443,
    "api_server": "",
    "extra_sans": (),
    "http_address": "0.0.0.0",
    "http_port": 8989,
    "api_token": "",
    "start_timeout": 120.0,
    "run_timeout": 0.0,
    "drain": "pods",
    "drain_timeout": 30.0,
    "etcd_fsync": "always",
    "etcd_quota": 2**31,
    "status_interval": 60.0,
    "failure_bundle": "false",
    "cert_lifetime": 31536000.0,
    "max_container_restart_period": 1.0,
    "manifests": pathlib.PurePosixPath("/etc/p8s/manifests"),
    "registry_mirrors": (),
    "registries": pathlib.PurePosixPath("/etc/p8s/registries"),
    "docker_config": pathlib.PurePosixPath("/etc/p8s/docker-config.json"),
    "ca_bundle": pathlib.PurePosixPath("/etc/p8s/ca-bundle.pem"),
    "http_proxy": "",
    "https_proxy": "",
    "no_proxy": (),
    "pod_proxies": "false",
    "images": pathlib.PurePosixPath("/etc/p8s/images"),
    "extra_config": (),
    "feature_gates": {},
    "proxy_mode": "auto",
    "audit": "none",
    "verbosity": 1,
}
PORT = "not a port from 1 to 65535"
NOT_THE_SAME = (
    " are not of the same families in the same order: give both of IPv4, both of IPv6, or both as "
    "IPV4,IPV6"
)
NODE_PORT = "a component of the node listens on that port: choose another"
DNS_NAME = "not a DNS name (a-z, 0-9, '-' and '.')"
DURATION = "not a duration such as 90s, 5m or 1h30m"


@pytest.fixture
def no_default_file(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> pathlib.Path:
    """The place of the default file, where none is unless the test writes it."""
    file = tmp_path / "config.yaml"
    monkeypatch.setattr(settings, "DEFAULT_FILE", file)
    return file


def find_wrong(
    arguments: collections.abc.Sequence[str] = (),
    environment: collections.abc.Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """The errors of settings that are wrong."""
    with pytest.raises(errors.SettingsError) as caught:
        settings.load(arguments, environment or {})
    return caught.value.errors


@pytest.mark.usefixtures("no_default_file")
def test_without_anything_given_every_setting_has_its_default() -> None:
    loaded = settings.load([], {"PATH": "/bin", "P8SX": "1"})
    assert vars(loaded.settings) == DEFAULTS
    assert loaded.sources == dict.fromkeys(DEFAULTS, "default")


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_text_is_read_as_the_setting_of_that_name(name: str) -> None:
    assert settings.parse(name, settings.FIELDS[name].metadata["default"]) == DEFAULTS[name]
    if DEFAULTS[name] not in ("", (), {}):  # these may be empty
        with pytest.raises(ValueError):
            settings.parse(name, "")


@pytest.mark.parametrize(
    ("arguments", "environment", "content", "value", "source"),
    [
        pytest.param([], {}, "", "p8s", "default", id="default"),
        pytest.param([], {}, "node_name: file", "file", "FILE", id="file over default"),
        pytest.param(
            [],
            {"P8S_NODE_NAME": "env"},
            "node_name: file",
            "env",
            "environment",
            id="environment over file",
        ),
        pytest.param(
            ["--node-name=flag"],
            {"P8S_NODE_NAME": "env"},
            "node_name: file",
            "flag",
            "flag",
            id="flag over environment",
        ),
        pytest.param(
            ["--node-name", "flag"], {}, "", "flag", "flag", id="flag with its value as a word"
        ),
        pytest.param(
            ["--node-name=a", "--node-name=b"], {}, "", "b", "flag", id="the last flag wins"
        ),
    ],
)
def test_precedence(
    *,
    no_default_file: pathlib.Path,
    arguments: list[str],
    environment: dict[str, str],
    content: str,
    value: str,
    source: str,
) -> None:
    no_default_file.write_text(content)
    loaded = settings.load(arguments, environment)
    assert loaded.settings.node_name == value
    assert loaded.texts["node_name"] == value
    assert loaded.sources["node_name"] == source.replace("FILE", str(no_default_file))


def test_the_file_can_be_named_by_variable_and_by_flag(tmp_path: pathlib.Path) -> None:
    for name in ("env", "flag"):
        (tmp_path / name).write_text(f"node_name: {name}")
    environment = {"P8S_CONFIG": str(tmp_path / "env")}
    by_variable = settings.load([], environment)
    by_flag = settings.load([f"--config={tmp_path / 'flag'}"], environment)
    assert (by_variable.settings.node_name, by_flag.settings.node_name) == ("env", "flag")
    assert by_flag.sources["node_name"] == str(tmp_path / "flag")


VALID_FILES: dict[str, dict[str, object]] = {
    "valid-empty.yaml": {},
    "valid-values.yaml": {
        "node_name": "box",
        "api_port": 7443,
        "start_timeout": 300.0,
        "run_timeout": 90.0,
        "drain": "none",
        "extra_sans": ("p8s.example.org", "192.0.2.7"),
    },
    "valid-quoted.yaml": {
        "api_port": 7443,
        "extra_sans": ("a.example", "b.example"),
        "api_token": "0123456789abcdef",
    },
    "valid-flow-list.yaml": {"extra_sans": ("*.example.org",)},
}
# Where the rest of a sentence is a library's, its beginning is compared.
INVALID_FILES: dict[str, tuple[str, ...]] = {
    "invalid-syntax.yaml": ("FILE: not YAML",),
    "invalid-sequence.yaml": ("FILE: not a mapping of settings",),
    "invalid-scalar.yaml": ("FILE: not a mapping of settings",),
    "invalid-encoding.yaml": ("FILE: ",),
    "invalid-names.yaml": (
        "node_nmae: no such setting; did you mean node_name?",
        "api-port: no such setting; did you mean api_port?",
        "1: no such setting",
        "config: no such setting",
    ),
    "invalid-values.yaml": (
        f"node_name = 'My_Node' (from FILE): {DNS_NAME}",
        f"api_port = '10250' (from FILE): {NODE_PORT}",
        "drain = 'False' (from FILE): not one of: pods, none",
        "verbosity = '11' (from FILE): not a number from 0 to 10",
    ),
}


@pytest.mark.parametrize("name", VALID_FILES)
def test_a_valid_file(name: str) -> None:
    loaded = settings.load(["--config", str(FILES / name)], {})
    assert vars(loaded.settings) == DEFAULTS | VALID_FILES[name]


@pytest.mark.parametrize("name", INVALID_FILES)
def test_an_invalid_file(name: str) -> None:
    file = str(FILES / name)
    found = find_wrong(["--config", file])
    expected = [sentence.replace("FILE", file) for sentence in INVALID_FILES[name]]
    assert [
        sentence[: len(wanted)] for sentence, wanted in zip(found, expected, strict=True)
    ] == expected


def test_every_file_of_the_folder_is_tested() -> None:
    assert {file.name for file in FILES.iterdir()} == {*VALID_FILES, *INVALID_FILES}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("missing.yaml", "No such file or directory", id="missing"),
        pytest.param(".", "Is a directory", id="a directory"),
    ],
)
def test_a_named_file_must_be_readable(tmp_path: pathlib.Path, name: str, reason: str) -> None:
    file = tmp_path / name
    assert find_wrong([f"--config={file}"]) == (f"{file}: cannot be read: {reason}",)


def test_a_default_file_that_cannot_be_read_is_not_passed_over(
    no_default_file: pathlib.Path,
) -> None:
    no_default_file.mkdir()
    assert find_wrong() == (f"{no_default_file}: cannot be read: Is a directory",)


@pytest.mark.usefixtures("no_default_file")
@pytest.mark.parametrize(
    ("arguments", "environment", "wrong"),
    [
        pytest.param(
            ["--api-prt=1"],
            {},
            "--api-prt: no such setting; did you mean --api-port?",
            id="unknown flag",
        ),
        pytest.param(
            [],
            {"P8S_API_PRT": "1"},
            "P8S_API_PRT: no such setting; did you mean P8S_API_PORT?",
            id="unknown variable",
        ),
        pytest.param(["--zzz=1"], {}, "--zzz: no such setting", id="nothing near"),
        pytest.param(
            ["--api-port"],
            {},
            "--api-port: a value is missing, as in --api-port=VALUE",
            id="no value at the end",
        ),
        pytest.param(
            ["--api-port", "--node-name=a"],
            {},
            "--api-port: a value is missing, as in --api-port=VALUE",
            id="no value before a flag",
        ),
        pytest.param(
            ["start"],
            {},
            "'start': not a setting; settings are given as --name=value",
            id="a word",
        ),
        pytest.param(
            ["-v=1"],
            {},
            "'-v=1': not a setting; settings are given as --name=value",
            id="one hyphen",
        ),
        pytest.param(
            ["--"], {}, "'--': not a setting; settings are given as --name=value", id="two hyphens"
        ),
        pytest.param(
            ["--node-name="],
            {},
            f"node_name = '' (from flag): {DNS_NAME}",
            id="an empty value is a value",
        ),
        pytest.param(
            [f"--node-name={'a' * 53}"],
            {},
            # The node's certificate says system:node:NAME, and a common name has 64 characters.
            f"node_name = '{'a' * 53}' (from flag): longer than 52 characters",
            id="a node name too long for a certificate",
        ),
        pytest.param(
            ["--pod-cidr=10.0.0.0/16", "--service-cidr=10.0.128.0/20"],
            {},
            "pod_cidr 10.0.0.0/16 and service_cidr 10.0.128.0/20 overlap: choose others",
            id="overlapping ranges",
        ),
        pytest.param(
            ["--pod-cidr=192.168.0.0/16"],
            {},
            "pod_cidr 192.168.0.0/16 and service_cidr 192.168.254.0/24 overlap: choose others",
            id="a range over a default",
        ),
        pytest.param(
            ["--pod-cidr=10.1.0.0/16,fd00::/64", "--service-cidr=10.2.0.0/16,fd00::1:0/112"],
            {},
            "pod_cidr 10.1.0.0/16,fd00::/64 and service_cidr 10.2.0.0/16,fd00::1:0/112 overlap: "
            "choose others",
            id="overlapping IPv6 ranges",
        ),
        pytest.param(
            ["--pod-cidr=10.1.0.0/16,fd00::/64"],
            {},
            "pod_cidr 10.1.0.0/16,fd00::/64 and service_cidr 192.168.254.0/24" + NOT_THE_SAME,
            id="an IPv6 range for pods alone",
        ),
        pytest.param(
            ["--service-cidr=fd00::/112"],
            {},
            "pod_cidr 192.168.253.0/24 and service_cidr fd00::/112" + NOT_THE_SAME,
            id="an IPv6 range for services alone",
        ),
        pytest.param(
            ["--pod-cidr=10.1.0.0/16,fd00:1::/64", "--service-cidr=fd00::/112,10.2.0.0/16"],
            {},
            "pod_cidr 10.1.0.0/16,fd00:1::/64 and service_cidr fd00::/112,10.2.0.0/16"
            + NOT_THE_SAME,
            id="families in another order",
        ),
        pytest.param(
            ["--api-port=8989"],
            {},
            "api_port and http_port are both 8989: choose others",
            id="equal ports",
        ),
    ],
)
def test_a_wrong_setting_is_told(
    arguments: list[str], environment: dict[str, str], wrong: str
) -> None:
    assert find_wrong(arguments, environment) == (wrong,)


def test_all_errors_are_told_at_once(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("verbosity: high\nunknown_key: 1\n")
    found = find_wrong(
        ["oops", f"--config={file}", "--api-port=0", "--drain=all", "--pod-cidr=192.168.254.0/24"],
        {"P8S_HTTP_PORT": "http", "P8S_NOD_NAME": "x", "P8S_START_TIMEOUT": "soon"},
    )
    assert found == (
        "'oops': not a setting; settings are given as --name=value",
        "unknown_key: no such setting",
        "P8S_NOD_NAME: no such setting; did you mean P8S_NODE_NAME?",
        f"api_port = '0' (from flag): {PORT}",
        f"http_port = 'http' (from environment): {PORT}",
        f"start_timeout = 'soon' (from environment): {DURATION}",
        "drain = 'all' (from flag): not one of: pods, none",
        f"verbosity = 'high' (from {file}): not a number from 0 to 10",
        "pod_cidr 192.168.254.0/24 and service_cidr 192.168.254.0/24 overlap: choose others",
    )


def test_wrong_settings_end_the_container_with_2() -> None:
    with pytest.raises(errors.SettingsError) as caught:
        settings.load(["--config=/dev/null", "--api-port=0"], {})
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith("1 wrong setting:\n  - api_port")


SECRET = "sésame-0123456789"


@pytest.mark.parametrize(
    ("arguments", "environment", "content"),
    [
        pytest.param([f"--api-token={SECRET}"], {}, "", id="flag"),
        pytest.param(["--api-token", SECRET], {}, "", id="flag and word"),
        pytest.param([f"--api-tokn={SECRET}"], {}, "", id="misspelt flag"),
        pytest.param([], {"P8S_API_TOKEN": SECRET}, "", id="environment"),
        pytest.param([], {"P8S_API_TOKN": SECRET}, "", id="misspelt variable"),
        pytest.param([], {}, f"api_token: {SECRET}", id="file"),
        pytest.param([], {}, f"api_tokn: {SECRET}", id="misspelt key"),
        pytest.param([], {}, f"api_token: [{SECRET}\n", id="a file that is not YAML"),
        pytest.param([], {}, f'api_token: "{SECRET}\n', id="a file with an open quote"),
    ],
)
def test_a_token_is_never_told_not_even_a_wrong_one(
    no_default_file: pathlib.Path,
    arguments: list[str],
    environment: dict[str, str],
    content: str,
) -> None:
    no_default_file.write_text(content)
    with pytest.raises(errors.SettingsError) as caught:
        settings.load(arguments, environment)
    assert SECRET not in str(caught.value)
    assert len(caught.value.errors) == 1


def test_loaded_settings_go_through_json_unchanged(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("extra_sans: [a.example, 192.0.2.1]\n")
    loaded = settings.load(
        [f"--config={file}", "--pod-cidr=10.1.0.0/16", "--run-timeout=1h"],
        {"P8S_API_TOKEN": "0123456789abcdef"},
    )
    assert settings.from_json(loaded.to_json()) == loaded


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(
            [], ("192.168.254.1", "192.168.254.2", "https://127.0.0.1:6443"), id="defaults"
        ),
        pytest.param(
            ["--service-cidr=10.96.0.0/12", "--api-port=7443"],
            ("10.96.0.1", "10.96.0.2", "https://127.0.0.1:7443"),
            id="other range and port",
        ),
        pytest.param(
            ["--api-server=https://p8s.example:443"],
            ("192.168.254.1", "192.168.254.2", "https://p8s.example:443"),
            id="a server of its own",
        ),
    ],
)
def test_what_follows_from_settings(arguments: list[str], expected: tuple[str, str, str]) -> None:
    chosen = settings.load(["--config=/dev/null", *arguments], {}).settings
    assert (chosen.kubernetes_service_ip, chosen.dns_service_ip, chosen.host_server) == expected


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_help_names_every_setting(name: str) -> None:
    flag, variable = "--" + name.replace("_", "-"), "P8S_" + name.upper()
    lines = settings.help_text().splitlines()
    at = lines.index(f"  {flag}=…  {variable}")
    default = settings.FIELDS[name].metadata["default"] or "empty"
    described = " ".join(lines[at + 1].split())
    assert described.endswith(f"(default: {default})")
    assert described.startswith(settings.FIELDS[name].metadata["help"])


def test_the_help_names_the_file_and_the_precedence() -> None:
    text = " ".join(settings.help_text().split())
    assert "A flag wins over the environment, the environment over the file" in text
    assert all(word in text for word in ("P8S_CONFIG", "--config", "/etc/p8s/config.yaml"))


def test_settings_cannot_be_changed() -> None:
    chosen: typing.Any = settings.load(["--config=/dev/null"], {}).settings
    with pytest.raises(dataclasses.FrozenInstanceError):
        chosen.node_name = "other"
