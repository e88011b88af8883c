"""The `p8s` command: start-up time, arguments, what is printed, errors and exit codes."""

from __future__ import annotations

import collections.abc
import json
import os
import pathlib
import signal
import stat
import statistics
import subprocess
import sys
import tarfile
import time
import typing

import click
import click.testing
import pytest
import yaml

from p8s_supervisor import errors, settings, wait
from p8s_supervisor.host import cli, cli_run, clusters, console, docker_host, follow, runs
from tests import fakes, host_fakes

Invoke = collections.abc.Callable[..., click.testing.Result]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> host_fakes.Engine:
    """What `docker_host.connect` gives, and an environment without settings."""
    made = host_fakes.Engine()
    monkeypatch.setattr(docker_host, "connect", lambda: made)
    monkeypatch.setattr(cli_run, "check_host", lambda _: None)
    monkeypatch.setattr(settings, "DEFAULT_FILE", tmp_path / "none.yaml")
    for name in os.environ:
        if name.startswith("P8S_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    return made


@pytest.fixture
def invoke() -> Invoke:
    def run(*arguments: str) -> click.testing.Result:
        result = click.testing.CliRunner().invoke(cli.main, arguments, prog_name="p8s")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def api(engine: host_fakes.Engine) -> typing.Iterator[host_fakes.Api]:
    """The API of a running cluster `default`."""
    with host_fakes.Api({"GET /status": [host_fakes.STATUS]}) as made:
        engine.clusters["default"] = host_fakes.cluster(http=made.port)
        yield made


def test_help_is_there_at_once() -> None:
    program = pathlib.Path(sys.executable).with_name("p8s")
    spent = []
    for _ in range(7):
        started = time.monotonic()
        subprocess.run([program, "--help"], check=True, capture_output=True)
        spent.append(time.monotonic() - started)
    # 0.05 s on an idle machine; the bound is three times what it may be, for one that is busy.
    assert statistics.median(spent) < 0.45


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, p8s_supervisor.host.cli as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'docker', 'requests', 'rich', 'yaml', 'p8s_supervisor.settings'}\n"
        "print(heavy & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "set()\n"
    assert "Exit codes:" in done.stdout


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_each_command_can_be_imported_and_has_help(name: str, invoke: Invoke) -> None:
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: p8s {name} ")
    assert cli.COMMANDS[name].help.endswith(".")


def test_run_has_an_option_for_each_setting(invoke: Invoke) -> None:
    told = invoke("run", "--help").output
    for name in settings.FIELDS:
        assert settings.flag_name(name) in told
        assert settings.env_name(name).replace("_", "") in told.replace("\n", "").replace(
            " ", ""
        ).replace("_", "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["nonsense"], "No such command 'nonsense'", id="no such command"),
        pytest.param(["run", "--nonsense=1"], "No such option", id="no such option"),
        pytest.param(["run", "--name=A_b"], "'--name'", id="a name that docker's cannot be"),
        pytest.param(["run", "--name=" + "a" * 41], "40 at most", id="a long name"),
        pytest.param(["run", "--restart=often", "-d"], "on-failure:TIMES", id="no such policy"),
        pytest.param(["run", "--restart=always:3", "-d"], "on-failure:TIMES", id="always 3 times"),
        pytest.param(["run", "--restart=always"], "needs --detach", id="restarts in foreground"),
        pytest.param(
            ["run", "--restart=always", "-d", "--rm"], "gone when it ends", id="restarts, thrown away"
        ),
        pytest.param(["run", "--bind=here"], "an IP address", id="no address"),
        pytest.param(["run", "--bind=0.0.0.0"], "set P8S_API_TOKEN", id="open to the world"),
        pytest.param(["run", "--publish-http=0"], "1<=x<=65535", id="no port"),
        pytest.param(
            ["run", "--publish-http=5000", "--publish-api=5000"], "are both 5000", id="the same port"
        ),
        pytest.param(["run", "--publish=80"], "such as 8080:80", id="half a port"),
        pytest.param(
            ["run", "--http-port=9898", "-p80:9898", "-p1:1", "-p1:2"], "2 wrong settings",
            id="ports that clash",
        ),
        pytest.param(["run", "--config=/nowhere.yaml"], "does not exist", id="no such file"),
        pytest.param(["run", "--timeout=soon"], "run_timeout = 'soon'", id="no duration"),
        pytest.param(["delete"], "name a cluster, or --all", id="delete what?"),
        pytest.param(["clean", "--what=state,dust"], "dust: not of state", id="no such part"),
        pytest.param(["kubeconfig", "--internal", "--host=a"], "one of them", id="both"),
        pytest.param(["wait", "--timeout=x"], "'x': not a duration", id="wait for x"),
        pytest.param(["logs", "--tail=-1"], "'--tail'", id="negative tail"),
        pytest.param(["reset"], "NAMESPACE", id="reset what?"),
        pytest.param(["exec"], "COMMAND", id="exec what?"),
        pytest.param(["completion", "tcsh"], "'tcsh' is not one of", id="another shell"),
    ],
)  # fmt: skip
def test_bad_input(
    engine: host_fakes.Engine, invoke: Invoke, arguments: list[str], told: str
) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())
    assert engine.calls == []


def test_every_wrong_setting_is_told_before_anything_starts(
    engine: host_fakes.Engine, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P8S_DRAIN", "maybe")
    monkeypatch.setenv("P8S_DARIN", "pods")
    result = invoke("run", "--pod-cidr=10.0.0.0", "--verbosity=11")
    assert result.exit_code == 2
    assert result.stderr.startswith("p8s: 4 wrong settings:\n")
    for part in ("P8S_DRAIN?", "drain = 'maybe' (from environment)", "pod_cidr", "verbosity"):
        assert part in result.stderr
    assert engine.calls == []


@pytest.mark.usefixtures("engine")
def test_flags_stay_flags_and_variables_stay_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P8S_VERBOSITY", "2")
    monkeypatch.setenv("P8S_IMAGE", "p8s:mine")
    made = make_wanted("--name=dev", "--drain=none", "--timeout=30m", "--http-port=9898")
    assert made.spec.flags == ("--drain=none", "--run-timeout=30m", "--http-port=9898")
    assert made.spec.environment == {"P8S_VERBOSITY": "2"}
    assert (made.spec.image, made.spec.inside) == ("p8s:mine", (9898, 6443))
    assert made.names_server is False


@pytest.mark.usefixtures("engine")
def test_what_may_be_given_more_than_once() -> None:
    made = make_wanted(
        "--extra-config=kubelet.maxPods=9",
        "--extra-config=etcd.v=1",
        "--volume=/srv:/srv:ro",
        "-v",
        "cache:/cache",
        "--publish=8080:80",
        "-p",
        "127.0.0.2:53:53/udp",
        "--bind=127.0.0.3",
    )
    assert made.spec.flags == ("--extra-config=kubelet.maxPods=9", "--extra-config=etcd.v=1")
    assert [mount["Target"] for mount in made.spec.mounts] == ["/srv", "/cache"]
    assert [str(port) for port in made.spec.ports] == ["127.0.0.3:8080:80", "127.0.0.2:53:53/udp"]
    assert len(made.settings.extra_config) == 2


def make_wanted(*arguments: str) -> runs.Wanted:
    """What `p8s run` makes of its arguments."""
    with cli_run.run.make_context("run", list(arguments)) as context:
        options = dict(context.params)
    fields = cli_run.Asked.__dataclass_fields__
    asked = cli_run.Asked(**{name: options.pop(name) for name in fields})
    return cli_run.make_wanted(asked, options, dict(os.environ))


@pytest.mark.usefixtures("engine")
def test_a_configuration_file_goes_along(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "p8s.yaml"
    file.write_text("api_port: 7443\napi_server: https://kube.example:1\n")
    found = [make_wanted(f"--config={file}")]
    monkeypatch.setenv("P8S_CONFIG", str(file))
    found.append(make_wanted())
    monkeypatch.delenv("P8S_CONFIG")
    monkeypatch.setattr(settings, "DEFAULT_FILE", file)
    found.append(make_wanted())
    for made in found:
        assert made.spec.config == file.read_bytes()
        assert made.spec.inside == (8989, 7443)
        assert made.spec.flags == ()
        assert made.names_server is True
    monkeypatch.setattr(settings, "DEFAULT_FILE", tmp_path / "none")
    assert make_wanted().spec.config is None


def test_a_detached_run(engine: host_fakes.Engine, api: host_fakes.Api, invoke: Invoke) -> None:
    del engine.clusters["default"]
    engine._http = api.port
    starting = host_fakes.STATUS | {"state": "starting", "phases": host_fakes.STATUS["phases"][:1]}
    api.answers["GET /status"] = [starting, host_fakes.STATUS]
    api.answers["GET /kubeconfig"] = [host_fakes.KUBECONFIG]
    result = invoke("run", "--detach", "--name=dev", "--publish-api=16443")
    assert result.output == (
        "  setup: 0.1 s\n"
        "  readiness: 1.4 s\n"
        "dev is ready after 3.9 s: Kubernetes v1.37.2 at https://127.0.0.1:16443\n"
        "  kubectl get pods -A   (context p8s-dev)\n"
        f"  p8s status --name dev   (HTTP API: {api.url})\n"
    )
    assert result.exit_code == 0
    assert engine.calls == [("create", "dev"), ("start", "dev")]
    (spec,) = engine.specs
    assert spec.published[1] == 16443
    assert spec.flags == ("--api-server=https://127.0.0.1:16443",)
    merged = yaml.safe_load(pathlib.Path(spec.kubeconfig).read_text())
    assert merged["current-context"] == "p8s-dev"


TO_COME = {"add-on/metrics": "Deployment metrics-server: 0 of 1 pods are available"}
REFUSED = {"manifests/web.yaml": 'Deployment web: Deployment.apps "web" is invalid: spec.selector'}


def make_statuses(*states: tuple[str, float]) -> list[object]:
    """What /status says in turn: states, each with the seconds since the container's start."""
    missing = {"ready": {}, "slow": TO_COME}
    return [
        host_fakes.STATUS
        | {
            "state": "degraded" if state == "slow" else state,
            "uptime": uptime,
            "missing": missing.get(state, REFUSED),
        }
        for state, uptime in states
    ]


@pytest.mark.parametrize(
    ("states", "code", "told"),
    [
        pytest.param([("degraded", 4), ("degraded", 13.9), ("ready", 14)], 0, "is ready", id="healed"),
        pytest.param([("degraded", 4), ("degraded", 14)], 3, "runs, and is degraded", id="refused"),
        pytest.param(
            [("degraded", 4), ("not ready", 9), ("degraded", 14), ("degraded", 24)],
            3,
            "runs, and is degraded",
            id="refused, with a restart between",
        ),
        pytest.param(
            [("starting", 119), ("not ready", 119), ("not ready", 121)],
            1,
            "runs, and is not ready",
            id="nobody mends it",
        ),
        pytest.param([("not ready", 119), ("ready", 125)], 0, "is ready", id="mended in time"),
        pytest.param(
            [("slow", 4), ("slow", 14), ("slow", 30), ("ready", 31)], 0, "is ready", id="a slow add-on"
        ),
        pytest.param(
            [("slow", 4), ("slow", 121)], 3, "runs, and is degraded", id="an add-on that does not come"
        ),
    ],
)  # fmt: skip
def test_a_detached_run_ends_while_the_cluster_runs(
    *,
    engine: host_fakes.Engine,
    api: host_fakes.Api,
    invoke: Invoke,
    states: list[tuple[str, float]],
    code: int,
    told: str,
) -> None:
    del engine.clusters["default"]
    engine._http = api.port
    api.answers["GET /status"] = make_statuses(*states)
    api.answers["GET /kubeconfig"] = [host_fakes.KUBECONFIG]
    result = invoke("run", "--detach")
    assert result.exit_code == code
    assert f"default {told}" in result.output
    assert "(context p8s-default)" in result.output
    reasons = [f"p8s: {name}: {why}" for name, why in (REFUSED | TO_COME).items()]
    is_told = any(reason in result.stderr for reason in reasons)
    assert is_told == ("`p8s wait`" in result.stderr) == (code != 0)
    assert engine.calls == [("create", "default"), ("start", "default")]
    assert len(api.answers["GET /status"]) == 1  # it was asked until then, and no longer


def test_a_foreground_run_goes_on_with_what_is_refused(
    engine: host_fakes.Engine, api: host_fakes.Api, invoke: Invoke
) -> None:
    del engine.clusters["default"]
    engine._http = api.port
    api.answers["GET /status"] = make_statuses(("degraded", 4), ("degraded", 14))
    api.answers["GET /kubeconfig"] = [host_fakes.KUBECONFIG]
    result = invoke("run")
    assert result.exit_code == 0  # the container's own
    assert "manifests/web.yaml: Deployment web" in result.stderr
    assert engine.calls[-1] == ("remove", "default")


def test_without_a_context(engine: host_fakes.Engine, api: host_fakes.Api, invoke: Invoke) -> None:
    del engine.clusters["default"]
    engine._http = api.port
    result = invoke("run", "--detach", "--no-kubeconfig", "--api-server=https://kube.example")
    assert "p8s kubeconfig > p8s.kubeconfig" in result.output
    assert api.asked == ["GET /status"]
    assert engine.specs[0].flags == ("--api-server=https://kube.example",)


def test_a_broken_kubeconfig_is_a_warning(
    engine: host_fakes.Engine, api: host_fakes.Api, invoke: Invoke, tmp_path: pathlib.Path
) -> None:
    del engine.clusters["default"]
    engine._http = api.port
    api.answers["GET /kubeconfig"] = [host_fakes.KUBECONFIG]
    (tmp_path / "kubeconfig").write_text("- broken\n")
    result = invoke("run", "--detach")
    assert result.exit_code == 0
    assert "is left alone: it is no mapping" in result.stderr
    assert "default is ready" in result.output
    assert (tmp_path / "kubeconfig").read_text() == "- broken\n"


def test_a_foreground_run_leaves_its_volume_alone(
    engine: host_fakes.Engine, api: host_fakes.Api, invoke: Invoke, tmp_path: pathlib.Path
) -> None:
    del engine.clusters["default"]
    engine._http = api.port
    engine.ends = 3
    engine.log = b"p8s [ 1.0s] stop: asked\n"
    api.answers["GET /kubeconfig"] = [host_fakes.KUBECONFIG]
    result = invoke("run")
    assert result.exit_code == 3
    assert "default ended with exit code 3" in result.stderr
    assert engine.calls == [("create", "default"), ("start", "default"), ("remove", "default")]
    assert not (tmp_path / "kubeconfig").exists()


def test_a_failed_start_shows_the_end_of_the_log(
    engine: host_fakes.Engine,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
) -> None:
    engine.ends = 1
    engine.log = b"p8s [ 1.0s] etcd failed: no disk\n"
    create = engine.create

    def create_ended(spec: typing.Any) -> typing.Any:
        made = create(spec)
        engine.clusters[spec.name] = host_fakes.cluster(state="exited", exit_code=1)
        return made

    monkeypatch.setattr(engine, "create", create_ended)
    file = tmp_path / "bundle.tar.gz"
    result = invoke("run", f"--bundle-on-failure={file}")
    assert result.exit_code == 1
    assert "p8s: | p8s [ 1.0s] etcd failed: no disk\n" in result.stderr
    assert "ended with exit code 1" in result.stderr
    with tarfile.open(file) as archive:
        assert archive.getnames() == ["p8s-bundle/container.json", "p8s-bundle/docker.log"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert engine.calls[-1] == ("remove", "default")
    result = invoke("run", "--detach")
    assert result.exit_code == 1
    assert "its container is kept" in result.output
    assert engine.calls[-1] != ("remove", "default")


@pytest.mark.parametrize(
    ("fixed", "failures", "starts", "code"),
    [
        pytest.param([], 1, 2, 0, id="others are chosen"),
        pytest.param([], 3, 3, 1, id="three times at most"),
        pytest.param(["--publish-http=1", "--publish-api=2"], 1, 1, 1, id="no others may be chosen"),
    ],
)  # fmt: skip
def test_ports_that_are_taken_meanwhile(
    *,
    engine: host_fakes.Engine,
    api: host_fakes.Api,
    invoke: Invoke,
    fixed: list[str],
    failures: int,
    starts: int,
    code: int,
) -> None:
    engine._http = api.port
    taken = [docker_host.PortTakenError("a port is taken: 8989") for _ in range(failures)]
    engine.failures["start"] = list(taken)
    result = invoke("run", "-d", "--no-kubeconfig", "--name=dev", *fixed)
    assert result.exit_code == code
    assert engine.calls.count(("start", "dev")) == starts
    assert engine.calls.count(("remove", "dev")) == failures
    assert ("--publish-http" in result.stderr) is bool(code)


def test_a_container_that_cannot_start_is_removed(
    engine: host_fakes.Engine, invoke: Invoke
) -> None:
    engine.failures["start"] = [errors.P8sError("docker: no space left")]
    result = invoke("run", "--name=dev")
    assert (result.exit_code, result.stderr) == (1, "p8s: docker: no space left\n")
    assert engine.clusters == {}


@pytest.mark.parametrize(
    ("state", "own", "told"),
    [
        ("running", True, "is running already"),
        ("paused", True, "is paused already"),
        ("exited", False, "`p8s run` did not make"),
    ],
)
def test_a_name_that_is_in_use(
    engine: host_fakes.Engine, invoke: Invoke, state: str, own: bool, told: str
) -> None:
    engine.clusters["dev"] = host_fakes.cluster("dev", state=state, own=own)
    result = invoke("run", "--name=dev")
    assert result.exit_code == 1
    assert told in result.stderr
    assert "hint:" in result.stderr
    assert engine.calls == []


def test_a_reader_that_has_gone_ends_the_cluster_in_order(
    engine: host_fakes.Engine, api: host_fakes.Api, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine._http = api.port

    def refuse(_: str) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(console, "tell", refuse)
    result = invoke("run", "--name=dev", "--no-kubeconfig")
    assert result.exit_code == 1
    assert engine.calls[-2:] == [("stop", "dev"), ("remove", "dev")]


@pytest.mark.parametrize(("count", "actions"), [(1, ["stop"]), (2, ["stop", "kill"])])
def test_signals(engine: host_fakes.Engine, count: int, actions: list[str]) -> None:
    cluster = host_fakes.cluster("dev")
    before = signal.getsignal(signal.SIGTERM)
    with follow.Interrupts() as interrupts:
        signal.raise_signal(signal.SIGTERM)
        interrupts.watch(cluster)
        for _ in range(count - 1):
            signal.raise_signal(signal.SIGINT)
        wait.until(
            lambda: None if len(engine.calls) == count else str(engine.calls),
            awaited="what the signals do",
            seconds=5,
            interval=0.01,
        )
    assert sorted(method for method, _ in engine.calls) == sorted(actions)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with follow.Interrupts() as interrupts:
            signal.raise_signal(signal.SIGHUP)
        assert interrupts.count == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_usual_ports_are_for_the_default_cluster() -> None:
    spec = clusters.Spec(name="default")
    chosen = settings.load(["--config=/dev/null"], {}).settings
    free = [runs.is_free(port, "127.0.0.1") for port in (8989, 6443)]
    http, api = runs.choose_ports(runs.Wanted(spec=spec, settings=chosen))
    assert [http == 8989, api == 6443] == free
    other = clusters.Spec(name="other")
    found = runs.choose_ports(runs.Wanted(spec=other, settings=chosen, publish_api=7))
    assert found[1] == 7
    assert found[0] not in (8989, 7)


def test_status(api: host_fakes.Api, invoke: Invoke) -> None:
    assert invoke("status").output == (
        "CLUSTER  STATE  VERSION  API                      NODE        UP\n"
        "default  ready  v1.37.2  https://127.0.0.1:16443  172.17.0.5  1m\n"
        "\n"
        "PHASE      START  SECONDS\n"
        "setup      0.3    0.1\n"
        "readiness  2.5    1.4\n"
        "\n"
        "CONDITION    SINCE\n"
        "etcd         0.5\n"
        "cluster-dns  3.9\n"
        "\n"
        "COMPONENT  KIND     STATE    RESTARTS\n"
        "etcd       process  RUNNING  2\n"
    )
    assert json.loads(invoke("status", "-o", "json").output) == host_fakes.STATUS


def test_list(engine: host_fakes.Engine, api: host_fakes.Api, invoke: Invoke) -> None:
    engine.volumes = {"default", "old"}
    engine.clusters["gone"] = host_fakes.cluster("gone", http=fakes.free_port())
    engine.clusters["x-p8s-1"] = host_fakes.cluster("x-p8s-1", own=False, state="exited")
    lines = invoke("list").output.splitlines()
    assert lines[0].split() == ["NAME", "STATE", "READY", "VERSION", "HTTP", "API", "AGE"]
    assert lines[1].split()[:4] == ["default", "ready", "yes", "v1.37.2"]
    assert lines[2].split()[:4] == ["gone", "no", "answer", "no"]
    assert lines[3].split() == ["old", "stopped", "no", "-", "-", "-", "-"]
    assert lines[4].split()[:3] == ["x-p8s-1", "exited", "no"]
    found = {entry["name"]: entry for entry in json.loads(invoke("list", "-o", "json").output)}
    assert found["default"]["ports"] == {
        "http": f"127.0.0.1:{api.port}",
        "api": "127.0.0.1:16443",
    }
    assert (found["default"]["ready"], found["old"]["age"]) == (True, None)


def test_wait(api: host_fakes.Api, invoke: Invoke) -> None:
    missing = host_fakes.problem(503, "not ready", missing={"node": "NotReady: no network"})
    api.answers["GET /ready"] = [missing, host_fakes.Answer(b"ok\n")]
    assert invoke("wait").output == "default is ready\n"
    api.answers["GET /ready"] = [missing]
    for state, code in (("not ready", 1), ("degraded", 3)):
        api.answers["GET /status"] = [host_fakes.STATUS | {"state": state}]
        result = invoke("wait", "--timeout=0.2s")
        assert result.exit_code == code
        assert "not within 0.2 s; last reason: node: NotReady: no network" in result.stderr


def test_wait_for_a_cluster_that_ends(engine: host_fakes.Engine, invoke: Invoke) -> None:
    engine.clusters["default"] = host_fakes.cluster(state="exited", exit_code=1)
    result = invoke("wait")
    assert result.exit_code == 1
    assert "its container is exited (1)" in result.stderr
    assert "p8s logs" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "asked", "answer", "printed"),
    [
        pytest.param(
            ["config"], "GET /settings",
            {"drain": {"value": "pods", "source": "default"}, "api_server": {"value": "", "source": "flag"}},
            "SETTING     VALUE  SOURCE\ndrain       pods   default\napi_server  -      flag\n",
            id="config",
        ),
        pytest.param(
            ["apply"], "POST /apply", {"applied": ["Deployment kube-system/coredns"]},
            "applied Deployment kube-system/coredns\n", id="apply",
        ),
        pytest.param(
            ["reset", "dev"], "POST /reset/dev", {"namespace": "dev", "deleted": ["pods/x"]},
            "deleted dev: pods/x\n", id="reset",
        ),
        pytest.param(
            ["reset", "dev"], "POST /reset/dev", {"namespace": "dev", "deleted": []},
            "dev is empty\n", id="reset of nothing",
        ),
        pytest.param(
            ["logs", "--list"], "GET /logs", {"components": ["audit", "etcd"]}, "audit\netcd\n",
            id="logs there are",
        ),
        pytest.param(
            ["logs", "etcd", "--tail=1"], "GET /logs/etcd?follow=false&tail=1",
            host_fakes.Answer(b"one\n"), "one\n", id="a log",
        ),
        pytest.param(
            ["kubeconfig"], "GET /kubeconfig", host_fakes.Answer(b"{}\n"), "{}\n", id="kubeconfig"
        ),
        pytest.param(
            ["kubeconfig", "--host=p8s"], "GET /kubeconfig?host=p8s", host_fakes.Answer(b"{}\n"),
            "{}\n", id="kubeconfig for a name",
        ),
        pytest.param(
            ["user", "ann", "--group=dev"], "POST /users", host_fakes.Answer(b"{}\n", 201), "{}\n",
            id="user",
        ),
        pytest.param(
            ["events", "-o", "json"], "GET /events?follow=false",
            host_fakes.Answer(b'id: 1\nevent: phase\ndata: {"time": 1.5, "message": "setup"}\n\n'),
            '{"id": "1", "kind": "phase", "time": 1.5, "message": "setup"}\n', id="events",
        ),
    ],
)  # fmt: skip
def test_what_is_asked_and_printed(
    *,
    api: host_fakes.Api,
    invoke: Invoke,
    arguments: list[str],
    asked: str,
    answer: object,
    printed: str,
) -> None:
    api.answers[asked] = [answer]
    result = invoke(*arguments)
    assert (result.exit_code, result.output) == (0, printed)
    assert api.asked == [asked]


def test_reset_then_apply(api: host_fakes.Api, invoke: Invoke) -> None:
    for name in ("a", "b"):
        api.answers[f"POST /reset/{name}"] = [{"namespace": name, "deleted": ["pods/x"]}]
    api.answers["POST /apply"] = [{"applied": ["x"]}]
    assert invoke("reset", "a", "b", "--apply").exit_code == 0
    assert api.asked == ["POST /reset/a", "POST /reset/b", "POST /apply"]


def test_events_on_a_line_each(api: host_fakes.Api, invoke: Invoke) -> None:
    told = b'id: 1\nevent: phase\ndata: {"time": 0, "message": "setup took 1 s"}\n\n'
    api.answers["GET /events?follow=true"] = [host_fakes.Answer(told + b"data: {}\n\n")]
    first, second = invoke("events", "--follow").output.splitlines()
    assert first.endswith("  phase      setup took 1 s")
    assert second == "-  message"


def test_kubeconfig_for_other_containers(api: host_fakes.Api, invoke: Invoke) -> None:
    api.answers["GET /settings"] = [{"api_port": {"value": "7443", "source": "flag"}}]
    api.answers["GET /kubeconfig?host=172.17.0.5%3A7443"] = [host_fakes.Answer(b"{}\n")]
    assert invoke("kubeconfig", "--internal").output == "{}\n"


def test_a_users_kubeconfig_in_a_file(
    api: host_fakes.Api, invoke: Invoke, tmp_path: pathlib.Path
) -> None:
    api.answers["POST /users"] = [host_fakes.Answer(b"{}\n", 201)]
    file = tmp_path / "ann"
    result = invoke("user", "ann", "--group=a", "--group=b", "--ttl=8h", "--token", "-o", str(file))
    assert (result.exit_code, result.output) == (0, "")
    assert file.read_text() == "{}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(api.requests[0].body) == {
        "name": "ann",
        "groups": ["a", "b"],
        "kind": "token",
        "ttl": "8h",
    }
    result = invoke("user", "ann", "-o", f"{file}/x")
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


def test_a_refusal_is_told_with_its_hint(api: host_fakes.Api, invoke: Invoke) -> None:
    api.answers["POST /reset/kube-system"] = [host_fakes.problem(403, "the system's", hint="no")]
    result = invoke("reset", "kube-system")
    assert (result.exit_code, result.stderr) == (1, "p8s: the system's\n  hint: no\n")


def test_logs_of_a_cluster_that_has_ended(engine: host_fakes.Engine, invoke: Invoke) -> None:
    engine.clusters["default"] = host_fakes.cluster(state="exited")
    engine.log = b"p8s [ 1.0s] the end\n"
    assert invoke("logs").output == "p8s [ 1.0s] the end\n"


@pytest.mark.parametrize("state", ["running", "exited"])
def test_bundle(
    engine: host_fakes.Engine,
    api: host_fakes.Api,
    invoke: Invoke,
    tmp_path: pathlib.Path,
    state: str,
) -> None:
    engine.clusters["default"] = host_fakes.cluster(state=state, http=api.port)
    api.answers["GET /bundle"] = [host_fakes.Answer(b"\x1f\x8b", content_type="application/gzip")]
    file = tmp_path / "b.tar.gz"
    assert invoke("bundle", "-o", str(file)).output == f"{file}\n"
    assert (file.read_bytes() == b"\x1f\x8b") is (state == "running")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(tmp_path.iterdir()) == [file]


def test_ctrl_c_while_reading(
    engine: host_fakes.Engine, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> typing.NoReturn:
        raise KeyboardInterrupt

    engine.clusters["default"] = host_fakes.cluster()
    monkeypatch.setattr(engine, "read_logs", interrupt)
    result = invoke("logs", "--follow")
    assert (result.exit_code, result.stderr) == (130, "")


def test_stop_keeps_the_volume(engine: host_fakes.Engine, invoke: Invoke) -> None:
    engine.clusters["dev"] = host_fakes.cluster("dev")
    engine.volumes = {"dev"}
    assert invoke("stop", "--name=dev").output == "dev has stopped\n"
    assert engine.calls == [("stop", "dev"), ("remove", "dev")]
    assert invoke("stop", "--name=dev").output == "dev is stopped already\n"
    assert invoke("stop", "--name=other").exit_code == 1


def test_stop_leaves_what_compose_made(engine: host_fakes.Engine, invoke: Invoke) -> None:
    engine.clusters["x-p8s-1"] = host_fakes.cluster("x-p8s-1", own=False)
    assert invoke("stop", "--name=x-p8s-1").exit_code == 0
    assert engine.calls == [("stop", "x-p8s-1")]


def test_delete(engine: host_fakes.Engine, invoke: Invoke) -> None:
    engine.clusters = {
        "a": host_fakes.cluster("a"),
        "x-p8s-1": host_fakes.cluster("x-p8s-1", own=False),
    }
    engine.volumes = {"a", "b", "c"}
    result = invoke("delete", "a", "nowhere", "x-p8s-1")
    assert result.exit_code == 1
    assert "no cluster nowhere, x-p8s-1 that `p8s run` made" in result.stderr
    assert engine.calls == [("remove", "a"), ("remove_volume", "a")]
    assert invoke("delete", "--all").output == "b is deleted\nc is deleted\n"
    assert engine.volumes == set()
    assert list(engine.clusters) == ["x-p8s-1"]


@pytest.mark.parametrize(
    ("what", "done", "told"),
    [
        ("all", ["remove", "remove_volume"], "dev: removed container, state\n"),
        ("container", ["remove"], "dev: removed container\n"),
        ("state", ["remove", "remove_volume"], "dev: removed container, state\n"),
        ("context,kubeconfig", [], "dev: nothing to remove\n"),
        ("none", [], "dev: nothing to remove\n"),
    ],
)
def test_clean(
    engine: host_fakes.Engine, invoke: Invoke, what: str, done: list[str], told: str
) -> None:
    engine.clusters["dev"] = host_fakes.cluster("dev", state="exited")
    engine.volumes = {"dev"}
    assert invoke("clean", "--name=dev", f"--what={what}").output == told
    assert [method for method, _ in engine.calls] == done


@pytest.mark.parametrize(("state", "own"), [("running", True), ("exited", False)])
def test_clean_does_not_end_anything(
    engine: host_fakes.Engine, invoke: Invoke, state: str, own: bool
) -> None:
    engine.clusters["dev"] = host_fakes.cluster("dev", state=state, own=own)
    result = invoke("clean", "--name=dev")
    assert result.exit_code == 1
    assert "hint:" in result.stderr
    assert engine.calls == []
    assert invoke("clean", "--name=dev", "--what=context").exit_code == 0


def test_clean_of_nothing(engine: host_fakes.Engine, invoke: Invoke) -> None:
    assert invoke("clean").output == "default: nothing to remove\n"


def test_exec_becomes_dockers_command(
    engine: host_fakes.Engine, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.clusters["dev"] = host_fakes.cluster("dev")
    called: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(os, "execvp", lambda program, words: called.append((program, words)))
    invoke("exec", "--name", "dev", "ls", "-l", "--name=x")
    invoke("exec", "-n", "dev", "--", "-odd")
    start = ["docker", "exec", "--interactive", "p8s-dev"]
    assert called == [("docker", [*start, "ls", "-l", "--name=x"]), ("docker", [*start, "-odd"])]

    def refuse(*_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "execvp", refuse)
    result = invoke("exec", "--name", "dev", "ls")
    assert result.exit_code == 1
    assert "docker-cli" in result.stderr


@pytest.mark.parametrize("arguments", [["status"], ["list"], ["run"], ["exec", "ls"], ["setup"]])
def test_without_an_engine(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke, arguments: list[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{fakes.free_port()}")
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("p8s: no docker engine answers: ")
    assert "DOCKER_HOST" in result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(invoke: Invoke, shell: str) -> None:
    assert "_P8S_COMPLETE" in invoke("completion", shell).output


def test_names_are_completed(engine: host_fakes.Engine) -> None:
    engine.clusters = {"dev": host_fakes.cluster("dev"), "ci": host_fakes.cluster("ci")}
    complete = click.shell_completion.ShellComplete(cli.main, {}, "p8s", "_P8S_COMPLETE")
    found = [item.value for item in complete.get_completions(["status", "--name"], "d")]
    assert found == ["dev"]
    commands = [item.value for item in complete.get_completions([], "st")]
    assert commands == ["stop", "status"]


def test_version(api: host_fakes.Api, invoke: Invoke) -> None:
    found = json.loads(invoke("version", "-o", "json").output)
    assert (found["docker"], found["kubernetes"]) == ("26.1.5", "v1.37.2")


@pytest.mark.parametrize(
    ("published", "labels", "told", "url"),
    [
        pytest.param({8989: ("127.0.0.1", 1)}, {}, "", "http://127.0.0.1:1", id="usual"),
        pytest.param({8989: ("0.0.0.0", 1)}, {}, "", "http://127.0.0.1:1", id="all addresses"),
        pytest.param({9898: ("127.0.0.1", 1)}, {"p8s.http-port": "9898"}, "", "http://127.0.0.1:1", id="by label"),
        pytest.param({9898: ("127.0.0.1", 1)}, {}, "127.0.0.1 9898", "http://127.0.0.1:1", id="asked"),
        pytest.param({}, {}, "127.0.0.1 9898", "http://172.17.0.5:9898", id="not published"),
        pytest.param({}, {}, "", "http://172.17.0.5:8989", id="not published, too early"),
    ],
)  # fmt: skip
def test_where_the_api_is(
    published: dict[int, tuple[str, int]], labels: dict[str, str], told: str, url: str
) -> None:
    import dataclasses

    from p8s_supervisor.host import cli_options

    made = host_fakes.Engine()
    made.token = told
    found = dataclasses.replace(host_fakes.cluster(labels=labels), ports=published)
    assert cli_options.find_url(made, found) == url


def test_a_terminal_is_not_assumed() -> None:
    assert console.is_terminal() is False
