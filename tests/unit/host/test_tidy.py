"""What a cluster leaves that ended by itself, or never ran; and what is said of one that is stopped."""

from __future__ import annotations

import pathlib

import click.testing
import pytest
import yaml

from p8s_supervisor import errors, settings
from p8s_supervisor.host import cli, cli_options, cli_run, clusters, contexts, docker_host, runs
from tests import host_fakes

CHOSEN = settings.load(["--config=/dev/null"], {}).settings


def add(file: pathlib.Path, *names: str) -> None:
    for name in names:
        contexts.merge(file, f"p8s-{name}", host_fakes.KUBECONFIG)


def ended(name: str, file: pathlib.Path, *, state: str = "exited") -> clusters.Cluster:
    labels = {clusters.KUBECONFIG_LABEL: str(file)}
    return host_fakes.cluster(name, state=state, labels=labels)


def test_the_context_of_an_ended_cluster_is_taken_out(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config"
    add(file, "dev", "old")
    runs.tidy_contexts(
        host_fakes.Engine(), [ended("old", file), ended("dev", file, state="running")]
    )
    assert "p8s-old" not in file.read_text()
    assert "p8s-dev" in file.read_text()
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == f"p8s: old has ended: its context is taken out of {file}\n"
    runs.tidy_contexts(host_fakes.Engine(), [ended("old", file)])
    assert capsys.readouterr().err == "", "there is nothing left to tell"


@pytest.mark.parametrize("state", ["running", "paused", "restarting", "created"])
def test_one_that_has_not_ended_keeps_its_context(tmp_path: pathlib.Path, state: str) -> None:
    file = tmp_path / "config"
    add(file, "dev")
    before = file.read_text()
    runs.tidy_contexts(host_fakes.Engine(), [ended("dev", file, state=state)])
    assert file.read_text() == before


def test_a_name_within_a_longer_one_is_another(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "config"
    add(file, "dev-2")
    before = file.read_text()
    runs.tidy_contexts(host_fakes.Engine(), [ended("dev", file)])
    assert file.read_text() == before


def test_a_kubeconfig_that_is_not_there_or_broken_ends_nothing(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("- p8s-dev\n")
    runs.tidy_contexts(host_fakes.Engine(), [ended("dev", tmp_path / "none"), ended("dev", broken)])
    assert "is left alone: it is no mapping" in capsys.readouterr().err
    assert broken.read_text() == "- p8s-dev\n"
    assert sorted(tmp_path.iterdir()) == [broken]


def test_a_throw_away_clusters_context_is_known_by_its_engine(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config"
    monkeypatch.setenv("KUBECONFIG", str(file))
    add(file, "kept")
    before = file.read_text()
    for name, identity in (("there", "ENGINE"), ("gone", "ENGINE"), ("elsewhere", "OTHER")):
        contexts.merge(file, f"p8s-{name}", host_fakes.KUBECONFIG, engine=identity)
    engine = host_fakes.Engine()
    runs.tidy_contexts(engine, [host_fakes.cluster("there")])
    found = [context["name"] for context in yaml.safe_load(file.read_text())["contexts"]]
    assert found == ["p8s-kept", "p8s-there", "p8s-elsewhere"]
    assert "p8s-gone has ended" in capsys.readouterr().err
    runs.tidy_contexts(engine, [])
    contexts.remove(file, "p8s-elsewhere")
    assert file.read_text() == before


@pytest.mark.parametrize(
    "failure",
    [errors.P8sError("docker: no space left"), docker_host.PortTakenError("a port is taken: 7")],
)
@pytest.mark.parametrize(("before", "after"), [((), set()), (("dev",), {"dev"})])
def test_a_cluster_that_never_ran_leaves_no_volume(
    failure: errors.P8sError, before: tuple[str, ...], after: set[str]
) -> None:
    engine = host_fakes.Engine(volumes=before)
    engine.failures["start"] = [failure]
    wanted = runs.Wanted(
        spec=clusters.Spec(name="dev"), settings=CHOSEN, publish_http=7, publish_api=8
    )
    create = engine.create

    def create_with_volume(spec: clusters.Spec) -> clusters.Cluster:
        engine.make_volume(spec.name)
        return create(spec)

    engine.create = create_with_volume  # type: ignore[method-assign]
    with pytest.raises(errors.P8sError):
        runs.start(engine, wanted)
    assert engine.volumes == after
    assert engine.clusters == {}


@pytest.mark.parametrize(
    ("state", "own", "hint"),
    [
        pytest.param("paused", True, "`docker unpause p8s-dev` lets it go on", id="paused"),
        pytest.param("exited", True, "`p8s run --name dev` starts it again", id="ended"),
        pytest.param("created", False, "`docker start dev` starts it again", id="of docker run"),
    ],
)
def test_how_one_that_does_not_run_goes_on(state: str, own: bool, hint: str) -> None:
    engine = host_fakes.Engine(host_fakes.cluster("dev", state=state, own=own))
    with pytest.raises(errors.P8sError, match="the cluster dev does not run") as raised:
        cli_options.find_running(engine, "dev")
    assert raised.value.hint.endswith(hint)


def test_what_the_cluster_calls_a_wrong_argument_has_the_code_of_one() -> None:
    with host_fakes.Api({"POST /users": [host_fakes.problem(400, "ttl: not a duration")]}) as api:
        engine = host_fakes.Engine(host_fakes.cluster(http=api.port))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(docker_host, "connect", lambda: engine)
            result = click.testing.CliRunner().invoke(cli.main, ["user", "ann", "--ttl=x"])
    assert (result.exit_code, result.stderr) == (2, "p8s: ttl: not a duration\n")


def test_why_a_cluster_stopped_before_it_was_ready(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = ["p8s [ 1.0s] setup: 0.1 s", "p8s [ 6.0s] stop: the run timeout of 6 s"]
    cli_run._tell_end(host_fakes.cluster("dev"), 0, lines)
    assert capsys.readouterr().out == f"{lines[1]}\ndev has stopped\n"
