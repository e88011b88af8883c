"""`p8s addon` without an engine and without a cluster: what is asked, and what is said."""

from __future__ import annotations

import json
import typing

import click.shell_completion
import click.testing
import pytest

from p8s_supervisor.host import cli, clusters, docker_host
from tests import host_fakes

NOT_THERE = "deployments p8s-metrics/metrics-server: there is none yet"
NOT_AVAILABLE = "deployments p8s-metrics/metrics-server: 0 of 1 pods are available"


def add_on(name: str, *, enabled: bool, reason: str = "") -> dict[str, object]:
    """An entry of GET /addons; with `enabled` and no reason it is usable."""
    return {
        "name": name,
        "summary": f"what {name} is for",
        "enabled": enabled,
        "usable": enabled and not reason,
        "reason": reason,
    }


def listed(*metrics: dict[str, object]) -> dict[str, object]:
    """What GET /addons answers; the add-on metrics is not enabled unless given."""
    others = [
        add_on("storage", enabled=True),
        *(metrics or [add_on("metrics", enabled=False)]),
        add_on("ingress", enabled=False, reason="not in this image"),
    ]
    return {"addons": others}


WAITED: list[object] = [
    listed(),  # for the names
    listed(add_on("metrics", enabled=True, reason=NOT_THERE)),
    listed(add_on("metrics", enabled=True, reason=NOT_AVAILABLE)),
    listed(add_on("metrics", enabled=True, reason=NOT_AVAILABLE)),
    listed(add_on("metrics", enabled=True)),
]
GONE = host_fakes.Answer(b"", 0)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> host_fakes.Engine:
    made = host_fakes.Engine()
    monkeypatch.setattr(docker_host, "connect", lambda: made)
    monkeypatch.delenv("P8S_NAME", raising=False)
    return made


@pytest.fixture
def api(engine: host_fakes.Engine) -> typing.Iterator[host_fakes.Api]:
    """The API of a running cluster `default`."""
    with host_fakes.Api({"GET /addons": [listed()]}) as made:
        engine.clusters["default"] = host_fakes.cluster(http=made.port)
        yield made


def invoke(*arguments: str) -> click.testing.Result:
    """`p8s addon` with these; what it does not tell on purpose is raised."""
    result = click.testing.CliRunner().invoke(cli.main, ["addon", *arguments], prog_name="p8s")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.usefixtures("api")
def test_list() -> None:
    assert invoke("list").output == (
        "NAME     ENABLED  STATE              SUMMARY\n"
        "storage  yes      usable             what storage is for\n"
        "metrics  no       -                  what metrics is for\n"
        "ingress  no       not in this image  what ingress is for\n"
    )
    assert json.loads(invoke("list", "-o", "json").output) == listed()["addons"]


def test_list_tells_why_one_cannot_be_used(api: host_fakes.Api) -> None:
    api.answers["GET /addons"] = [listed(add_on("metrics", enabled=True, reason=NOT_THERE))]
    lines = invoke("list").output.splitlines()
    assert lines[2] == "metrics  yes      not usable         what metrics is for"
    assert lines[4:] == ["", "NOT USABLE  REASON", f"metrics     {NOT_THERE}"]


def test_enable_waits_and_tells_each_reason_once(api: host_fakes.Api) -> None:
    api.answers["GET /addons"] = list(WAITED)
    api.answers["POST /addons/metrics"] = [{"applied": ["Namespace p8s-metrics", "APIService x"]}]
    result = invoke("enable", "metrics")
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "applied Namespace p8s-metrics",
        "applied APIService x",
        f"waiting: metrics: {NOT_THERE}",
        f"waiting: metrics: {NOT_AVAILABLE}",
        "metrics is usable",
    ]
    assert api.asked == ["GET /addons", "POST /addons/metrics", *["GET /addons"] * 4]


def test_enable_waits_for_what_was_named_alone(api: host_fakes.Api) -> None:
    """Another one that is not usable is not waited for."""
    api.answers["POST /addons/storage"] = [{"applied": []}]
    result = invoke("enable", "storage", "--timeout=5s")
    assert (result.exit_code, result.output) == (0, "storage is usable\n")


def test_enable_tells_at_the_timeout_why(api: host_fakes.Api) -> None:
    api.answers["GET /addons"] = WAITED[:3]
    for name in ("storage", "metrics"):
        api.answers[f"POST /addons/{name}"] = [{"applied": []}]
    result = invoke("enable", "storage", "metrics", "--timeout=0.2s")
    assert result.exit_code == 1
    assert result.stderr == (
        "p8s: storage, metrics to be usable: not within 0.2 s; last reason: "
        f"metrics: {NOT_AVAILABLE}\n"
    )
    assert "is usable" not in result.stdout


def test_enable_goes_on_while_the_api_is_away(api: host_fakes.Api) -> None:
    api.answers["GET /addons"] = [listed(), GONE, listed(add_on("metrics", enabled=True))]
    api.answers["POST /addons/metrics"] = [{"applied": []}]
    result = invoke("enable", "metrics")
    assert result.exit_code == 0
    assert "waiting: the cluster does not answer at " in result.output


def test_enable_ends_with_the_cluster(
    engine: host_fakes.Engine, api: host_fakes.Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = iter([engine.clusters["default"], host_fakes.cluster(state="exited", exit_code=1)])

    def find(_: str) -> clusters.Cluster:
        return next(seen)

    monkeypatch.setattr(engine, "find", find)
    api.answers["GET /addons"] = [listed(), GONE]
    api.answers["POST /addons/metrics"] = [{"applied": []}]
    result = invoke("enable", "metrics")
    assert result.exit_code == 1
    assert "its container is exited (1)" in result.stderr


@pytest.mark.parametrize(
    ("status", "detail"),
    [
        pytest.param(409, "ingress: this image has no traefik", id="not in the image"),
        pytest.param(502, "mine/10.yaml: Deployment x: invalid", id="a user's own is refused"),
    ],
)
def test_a_refusal_is_told_and_not_waited_for(
    api: host_fakes.Api, status: int, detail: str
) -> None:
    api.answers["POST /addons/ingress"] = [host_fakes.problem(status, detail, hint="do this")]
    result = invoke("enable", "ingress")
    assert (result.exit_code, result.stderr) == (1, f"p8s: {detail}\n  hint: do this\n")
    assert api.asked == ["GET /addons", "POST /addons/ingress"]


@pytest.mark.parametrize("command", ["enable", "disable"])
def test_every_unknown_name_is_told_before_anything_is_changed(
    api: host_fakes.Api, command: str
) -> None:
    result = invoke(command, "metrix", "storage", "a/b")
    assert result.exit_code == 2
    assert result.stderr.endswith(
        "Error: Invalid value for 'ADD-ON...': metrix, a/b: not of storage, metrics, ingress\n"
    )
    assert api.asked == ["GET /addons"]


def test_disable(api: host_fakes.Api) -> None:
    api.answers["DELETE /addons/storage"] = [{"deleted": ["StorageClass standard"]}]
    api.answers["DELETE /addons/metrics"] = [{"deleted": []}]
    result = invoke("disable", "storage", "metrics")
    assert (result.exit_code, result.output) == (
        0,
        "deleted StorageClass standard\nstorage is disabled\nmetrics is disabled\n",
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["enable"], "Missing argument 'ADD-ON...'", id="enable what?"),
        pytest.param(["disable"], "Missing argument 'ADD-ON...'", id="disable what?"),
        pytest.param(["enable", "storage", "--timeout=soon"], "'soon'", id="no duration"),
        pytest.param(["install"], "No such command 'install'", id="no such command"),
    ],
)
def test_bad_input(api: host_fakes.Api, arguments: list[str], told: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert told in result.stderr
    assert api.asked == []


@pytest.mark.usefixtures("api")
def test_names_are_completed(engine: host_fakes.Engine) -> None:
    complete = click.shell_completion.ShellComplete(cli.main, {}, "p8s", "_P8S_COMPLETE")

    def find(incomplete: str) -> list[str]:
        found = complete.get_completions(["addon", "enable"], incomplete)
        return [item.value for item in found]

    assert find("m") == ["metrics"]
    engine.clusters.clear()
    assert find("m") == []
