"""What the documents say is there: commands, options, settings, files, YAML."""

from __future__ import annotations

import pathlib
import re
import shlex
import typing

import click
import pytest
import yaml

from p8s_supervisor import settings, testing
from p8s_supervisor.host import cli

ROOT = pathlib.Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Of the command and the plugin, not of the node.
HOST_VARIABLES = {
    "P8S_IMAGE",
    "P8S_NAME",
    "P8S_CONFIG",
    "P8S_INGRESS_HTTP_PORT",
    "P8S_INGRESS_HTTPS_PORT",
    "P8S_REGISTRY_PORT",
}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
# Not into what another command gives, as in $(…).
# Not into what another command gives, as in $(…).
COMMAND = re.compile(r"(?:^|[\s\"'`(;&|:])p8s ([a-z]+)((?: (?:[^;&|>#`\n$]|\$(?!\())*)?)")
# After these words "p8s" is an image, a container or a package, and no command.
NOT_A_COMMAND = re.compile(r"docker [^;&|\n]*\bp8s |pip install|FROM p8s")

# Every option, endpoint and metric of pupernetes, and the parts that clean and drain knew.
PUPERNETES = """
--api-address --apply --bind-address --clean --client-timeout --cni-version --container-runtime
--containerd-version --dns-check --dns-queries --download-timeout --drain --etcd-version --gc
--hyperkube-version --job-type --keep --kubeconfig-path --kubectl-link --kubelet-root-dir
--kubernetes-cluster-ip-range --logging-since --pod-ip-range --run-timeout --skip-binaries-version
--skip-probes --systemd-job-name --systemd-unit-prefix --unit-to-watch --vault-listen-address
--vault-version --verbose --version --wait-timeout
/stop /apply /reset/{namespace} /ready /metrics /debug/pprof/
binaries etcd iptables kubectl kubelet logs manifests mounts network secrets systemd all none pods
kubeletgc fg
pupernetes_dns_failures pupernetes_kubelet_api_pods_running pupernetes_kubelet_logs_pods_running
pupernetes_kubelet_probe_failures pupernetes_ready pupernetes_version
"""


def list_code(text: str) -> list[str]:
    """Code of a document: fenced, indented and inline."""
    fenced = [block for _, block in FENCE.findall(text)]
    rest = FENCE.sub("", text)
    return [*fenced, *INDENTED.findall(rest), *INLINE.findall(INDENTED.sub("", rest))]


def list_commands(text: str) -> list[tuple[str, str]]:
    """Uses of the `p8s` command: its name and the rest of its line."""
    lines = [
        part for code in list_code(text) for line in code.splitlines() for part in line.split(" / ")
    ]
    return [
        found for line in lines if not NOT_A_COMMAND.search(line) for found in COMMAND.findall(line)
    ]


def find_command(name: str) -> click.Command | None:
    with click.Context(cli.main) as context:
        return cli.main.get_command(context, name)


def list_options(command: click.Command) -> set[str]:
    return {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {
        "--help"
    }


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_every_yaml_block_can_be_read(file: pathlib.Path) -> None:
    for language, block in FENCE.findall(file.read_text()):
        if language in ("yaml", "yml"):
            assert isinstance(yaml.safe_load(block), dict)


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_every_command_and_its_options_exist(file: pathlib.Path) -> None:
    wrong = []
    for name, rest in list_commands(file.read_text()):
        command = find_command(name)
        if command is None:
            wrong.append(f"p8s {name}: no such command")
            continue
        given = re.findall(r"(?<=\s)(--?[a-z][a-z0-9-]*)", rest)
        wrong += [f"p8s {name} {one}" for one in given if one not in list_options(command)]
    assert wrong == []


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_every_variable_exists(file: pathlib.Path) -> None:
    known = {settings.env_name(name) for name in settings.FIELDS} | HOST_VARIABLES
    assert set(re.findall(r"\bP8S_[A-Z_]*[A-Z]\b", file.read_text())) <= known


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_every_link_into_the_repository_leads_somewhere(file: pathlib.Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", file.read_text())
    assert [link for link in links if not (file.parent / link).exists()] == []


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_every_part_of_the_plugin_exists(file: pathlib.Path) -> None:
    text, source = file.read_text(), pathlib.Path(testing.__file__).read_text()
    options = set(re.findall(r"--p8s-[a-z-]*[a-z]", text))
    assert [option for option in options if f'"{option}"' not in source] == []
    fixtures = set(re.findall(r"`(p8s_(?!supervisor)[a-z_]+)`", text))
    if file.name == "ci.md":
        assert len(fixtures) == 5
        assert [name for name in fixtures if not hasattr(testing, name)] == []


def test_everything_of_pupernetes_is_mapped() -> None:
    text = (ROOT / "docs" / "from-pupernetes.md").read_text()
    named = " ".join(re.findall(r"^\| (.*?) \|", text, re.MULTILINE))
    words = set(re.findall(r"[\w/{}-]+", named))
    assert [one for one in PUPERNETES.split() if one not in words] == []


def test_every_command_is_told_of() -> None:
    told = {name for file in DOCUMENTS for name, _ in list_commands(file.read_text())}
    assert told >= set(cli.COMMANDS)


def test_its_successors_exist() -> None:
    """Options in the second column: the command's, or the image's."""
    text = (ROOT / "docs" / "from-pupernetes.md").read_text()
    cells = re.findall(r"^\| [^|]* \| ([^|]*) \|", text, re.MULTILINE)
    known = {settings.flag_name(name) for name in settings.FIELDS}
    for name in cli.COMMANDS:
        command = find_command(name)
        assert command is not None
        known |= list_options(command)
    named = {flag for cell in cells for flag in re.findall(r"(?<=[`\s])--[a-z-]*[a-z]", cell)}
    assert named - known == set()
    assert len(named) > 10


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("`p8s run --detach`", [("run", " --detach")], id="inline"),
        pytest.param("\n    p8s stop; p8s list\n", [("stop", ""), ("list", "")], id="indented"),
        pytest.param("```yaml\n- run: p8s wait\n```\n", [("wait", "")], id="fenced"),
        pytest.param("`docker run p8s run`", [], id="an image"),
        pytest.param("`p8s run / docker run --rm`", [("run", "")], id="one of two"),
        pytest.param("p8s is fine", [], id="prose"),
    ],
)
def test_the_check_finds(text: str, found: list[tuple[str, str]]) -> None:
    assert [(name, rest.rstrip()) for name, rest in list_commands(text)] == found


def test_the_action_passes_its_inputs_by_the_environment() -> None:
    """An expression inside a script would let an input's text run as a part of it."""
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    steps: list[dict[str, typing.Any]] = action["runs"]["steps"]
    assert [step["name"] for step in steps if "${{" in step["run"]] == []
    used = {found for step in steps for text in step["env"].values() for found in shlex.split(text)}
    assert {f"inputs.{name}" for name in action["inputs"]} <= used
