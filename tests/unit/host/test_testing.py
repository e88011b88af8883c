"""The pytest plugin, with a docker that only records and answers."""

from __future__ import annotations

import collections.abc
import http.server
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import threading
import typing

import pytest

from p8s_supervisor import errors, testing, wait
from p8s_supervisor.host import cluster_access, shared_cluster
from tests import engine_fake, host_fakes

pytest_plugins = ["pytester"]

KUBECONFIG = json.dumps({"clusters": [{"name": "p8s", "cluster": {"server": "https://other:1"}}]})
USES = """
def test_one(p8s_kubeconfig): assert p8s_kubeconfig.exists()
def test_two(p8s_cluster): assert p8s_cluster.status() == {"state": "ready"}
"""
FAILS = "def test_it(p8s_cluster): assert not p8s_cluster"


class Handler(http.server.BaseHTTPRequestHandler):
    """p8s' own HTTP API, as far as the plugin asks it."""

    ANSWERS: typing.ClassVar = {
        "/ready": b"ok\n",
        "/kubeconfig?host=127.0.0.1%3A16443": KUBECONFIG.encode(),
        "/settings": b'{"api_port": {"value": "6443"}}',
        "/images": b'{"images": [], "blobs": []}',
        "/status": b'{"state": "ready"}',
        "/bundle": b"a bundle",
    }
    OPEN = ("/ready",)
    IMPORTED: typing.ClassVar[list[bytes]] = []

    def do_GET(self) -> None:
        token = self.headers.get("Authorization")
        allowed = self.path in self.OPEN or token == "Bearer secret"
        body = self.ANSWERS.get(self.path) if allowed else None
        self.send_response(404 if body is None else 200)
        self.end_headers()
        self.wfile.write(body or b"no such thing")

    def do_POST(self) -> None:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size + 2)[:-2]
        self.IMPORTED.append(body)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"images": ["docker.io/library/app:1"]}')

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def http_port() -> collections.abc.Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def engine(
    tmp_path_factory: pytest.TempPathFactory, http_port: int, monkeypatch: pytest.MonkeyPatch
) -> collections.abc.Iterator[engine_fake.Engine]:
    Handler.IMPORTED.clear()
    # No kubectl, and no docker, on PATH.
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tmp")))
    for name in ("P8S_IMAGE", "P8S_NAME", "P8S_API_TOKEN", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tempfile.tempdir", None)
    with engine_fake.Engine({8989: http_port, 6443: 16443}) as made:
        monkeypatch.setenv("DOCKER_HOST", made.host)
        yield made


def run(pytester: pytest.Pytester, source: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(source)
    return pytester.runpytest_inprocess("-Werror", "-pno:cacheprovider", *arguments)


def leftovers() -> list[str]:
    return [entry.name for entry in pathlib.Path(os.environ["TMPDIR"]).glob("p8s-pytest-*")]


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["one process", "xdist"])
def test_a_session_has_one_cluster_and_leaves_none(
    pytester: pytest.Pytester, engine: engine_fake.Engine, workers: list[str]
) -> None:
    run(pytester, USES, *workers).assert_outcomes(passed=2)
    (created,) = engine.list_calls("create")
    (removed,) = engine.list_calls("remove")
    name = re.fullmatch(r"create (p8s-pytest-[0-9a-f]{8})", created)
    assert name
    assert removed == f"remove {name[1]} True True"
    assert leftovers() == []


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["one process", "xdist"])
def test_no_cluster_is_started_where_no_test_asks(
    pytester: pytest.Pytester, engine: engine_fake.Engine, workers: list[str]
) -> None:
    run(pytester, "def test_it(): pass", *workers).assert_outcomes(passed=1)
    assert engine.calls == []
    assert leftovers() == []


@pytest.mark.parametrize("workers", [[], ["-n1"]], ids=["the controller", "a worker"])
def test_a_process_that_dies_leaves_nothing(
    pytester: pytest.Pytester, engine: engine_fake.Engine, workers: list[str]
) -> None:
    pytester.makepyfile("import os\ndef test_it(p8s_cluster): os._exit(9)")
    pytester.runpytest_subprocess("-pno:cacheprovider", *workers)

    def is_gone() -> str | None:
        return None if engine.list_calls("remove") and not leftovers() else "it is there"

    wait.until(is_gone, awaited="the removal", seconds=10)


def test_a_controller_that_is_killed_leaves_nothing(
    pytester: pytest.Pytester, engine: engine_fake.Engine
) -> None:
    pytester.makepyfile("import time\ndef test_it(p8s_cluster): time.sleep(60)")
    command = [sys.executable, "-mpytest", "-n1", "-pno:cacheprovider"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        asked = lambda: None if engine.list_calls("create") else "not started"  # noqa: E731
        wait.until(asked, awaited="the start", seconds=30)
        process.kill()

    def is_gone() -> str | None:
        return None if engine.list_calls("remove") and not leftovers() else "it is there"

    wait.until(is_gone, awaited="the removal", seconds=10)


def test_a_kept_cluster_is_told_and_stays(
    pytester: pytest.Pytester, engine: engine_fake.Engine
) -> None:
    result = run(pytester, USES, "--p8s-keep")
    result.stdout.re_match_lines(
        [r"kept: export KUBECONFIG=.*/kubeconfig", r"remove it: docker rm -fv p8s-pytest-"]
    )
    assert engine.list_calls("remove") == []
    assert len(leftovers()) == 1


def test_an_existing_cluster_is_found_by_its_label_and_left(
    pytester: pytest.Pytester, engine: engine_fake.Engine
) -> None:
    engine.existing = "dev"
    run(pytester, USES, "--p8s-name=dev").assert_outcomes(passed=2)
    assert engine.calls == []
    assert leftovers() == []


def test_settings_and_image_reach_the_container(
    pytester: pytest.Pytester, engine: engine_fake.Engine
) -> None:
    options = ["--p8s-image=mine:2", "--p8s-setting=pod-cidr=10.9.0.0/24"]
    run(pytester, USES, *options, "--p8s-setting=etcd_fsync=always").assert_outcomes(passed=2)
    assert "image mine:2" in engine.calls
    assert engine.settings == [
        "--run-timeout=2h",
        "--etcd-fsync=always",
        "--pod-cidr=10.9.0.0/24",
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["--p8s-setting=drain"], "not NAME=TEXT", id="no value"),
        pytest.param(["--p8s-setting=nodename=a"], "did you mean --node-name", id="unknown"),
        pytest.param(["--p8s-setting=api-port=x"], "not a port from 1 to 65535", id="wrong"),
        pytest.param(
            ["--p8s-name=a", "--p8s-setting=drain=none"], "has its settings", id="no cluster to set"
        ),
    ],
)
def test_wrong_options_end_the_run(
    pytester: pytest.Pytester, engine: engine_fake.Engine, arguments: list[str], told: str
) -> None:
    result = run(pytester, USES, *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{told}*"])
    assert engine.calls == []


def test_all_wrong_settings_are_told_at_once(pytester: pytest.Pytester) -> None:
    result = run(pytester, USES, "--p8s-setting=drain", "--p8s-setting=verbosity=x")
    result.stderr.fnmatch_lines(["*--p8s-setting=drain:*", "*verbosity = 'x'*"])


@pytest.mark.parametrize(
    ("refused", "told", "workers"),
    [
        pytest.param("image", "has no image p8s:latest", [], id="no image"),
        pytest.param("image", "has no image p8s:latest", ["-n2"], id="no image, xdist"),
        pytest.param("api", "does not publish its port 6443", [], id="no port of the apiserver"),
        pytest.param("http", "publishes no port", [], id="no port"),
    ],
)
def test_what_is_missing_is_told_without_a_traceback(
    *,
    pytester: pytest.Pytester,
    engine: engine_fake.Engine,
    refused: str,
    told: str,
    workers: list[str],
) -> None:
    engine.has_image = refused != "image"
    for name, port in {"api": 6443, "http": 8989}.items():
        if name == refused:
            del engine.ports[port]
    result = run(pytester, USES, *workers)
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines([f"p8s: *{told}*", "*hint:*"])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*shared_cluster.py*")
    assert engine.list_calls("image") == ["image p8s:latest"], "the first one's answer is for all"
    assert leftovers() == []


def test_an_engine_that_is_not_there_is_told(
    pytester: pytest.Pytester, engine: engine_fake.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    result = run(pytester, USES)
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["p8s: *no docker engine answers*", "*hint:*"])
    assert engine.calls == leftovers() == []


def test_a_cluster_that_ends_at_once_shows_its_log(
    pytester: pytest.Pytester, engine: engine_fake.Engine
) -> None:
    engine.state = ("exited", 2)
    result = run(pytester, USES)
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*is exited, with code 2:*", "the end of the log*"])
    assert len(engine.list_calls("remove")) == 1


def test_a_failed_test_that_uses_the_cluster_leaves_a_bundle(
    pytester: pytest.Pytester, engine: engine_fake.Engine
) -> None:
    del engine
    result = run(pytester, FAILS, "--p8s-bundle-on-failure=found")
    result.assert_outcomes(failed=1)
    (file,) = (pytester.path / "found").iterdir()
    assert file.read_bytes() == b"a bundle"
    assert file.name.endswith("test_it.tar.gz")
    result.stdout.fnmatch_lines(["*p8s bundle*", f"*{file.name}"])


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("def test_it(p8s_cluster): pass", id="it passed"),
        pytest.param("def test_it(): assert 0", id="it used no cluster"),
    ],
)
def test_no_bundle_is_written_where(
    pytester: pytest.Pytester, engine: engine_fake.Engine, source: str
) -> None:
    del engine
    run(pytester, source, "--p8s-bundle-on-failure=found")
    assert not (pytester.path / "found").exists()


def test_only_the_first_failures_have_bundles(
    pytester: pytest.Pytester, engine: engine_fake.Engine
) -> None:
    del engine
    source = """
    import pytest
    @pytest.mark.parametrize("number", range(5))
    def test_it(p8s_cluster, number): assert 0
    """
    run(pytester, source, "--p8s-bundle-on-failure=found").assert_outcomes(failed=5)
    assert len(list((pytester.path / "found").iterdir())) == testing.MOST_BUNDLES


def test_its_types_are_there_for_annotations(
    pytester: pytest.Pytester, engine: engine_fake.Engine
) -> None:
    source = """
    from p8s_supervisor import testing
    def test_it(p8s_cluster: testing.Cluster, p8s_kubectl: testing.Kubectl):
        assert isinstance(p8s_kubectl, testing.Kubectl)
        assert isinstance(p8s_cluster, testing.Cluster)
    """
    run(pytester, source).assert_outcomes(passed=1)
    assert len(engine.list_calls("create")) == 1


def test_images_are_copied_once(pytester: pytest.Pytester, engine: engine_fake.Engine) -> None:
    source = """
    def test_one(p8s_load_images): p8s_load_images("app:1", "db:2")
    def test_two(p8s_load_images): p8s_load_images("app:1")
    """
    run(pytester, source).assert_outcomes(passed=2)
    assert engine.list_calls("export") == [
        f"export docker.io/library/{name}" for name in ("app:1", "db:2")
    ]
    assert len(Handler.IMPORTED) == 2
    for sent in Handler.IMPORTED:
        with tarfile.open(fileobj=io.BytesIO(sent)) as archive:
            assert archive.getnames() == ["index.json"]


def test_an_image_that_the_engine_has_not_is_told(
    pytester: pytest.Pytester, engine: engine_fake.Engine
) -> None:
    source = "def test_it(p8s_load_images): p8s_load_images('app:1')"
    engine.existing, engine.has_image = "dev", False
    result = run(pytester, source, "--p8s-name=dev")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the docker engine has no image app:1*"])


def test_the_images_kubectl_is_taken_where_path_has_none(
    pytester: pytest.Pytester, engine: engine_fake.Engine
) -> None:
    source = """
    import pathlib
    def test_it(p8s_kubectl):
        program = pathlib.Path(p8s_kubectl.program)
        assert (program.name, program.read_text()) == ("kubectl", "#!/bin/sh\\n")
        assert program.stat().st_mode & 0o100
    """
    run(pytester, source).assert_outcomes(passed=1)
    assert len(engine.list_calls("create")) == 1


def test_fixtures_say_what_they_are(pytester: pytest.Pytester, engine: engine_fake.Engine) -> None:
    del engine
    shown = run(pytester, USES, "--fixtures").stdout.str()
    for name in ("cluster", "kubeconfig", "kubectl", "namespace", "load_images"):
        assert re.search(rf"^p8s_{name}( \[session scope\])? -- .*\n    \w", shown, re.MULTILINE)


def make_kubectl(place: pathlib.Path, script: str) -> cluster_access.Kubectl:
    program = place / "kubectl"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return testing.Kubectl(program=str(program), kubeconfig=place / "config")


def test_kubectl_gives_its_output_and_takes_input(tmp_path: pathlib.Path) -> None:
    kubectl = make_kubectl(tmp_path, 'echo "$@"; cat')
    assert kubectl("apply", "--filename=-", stdin="an object") == (
        f"--kubeconfig={tmp_path}/config apply --filename=-\nan object"
    )
    assert kubectl.within("here")("get", "pods") == (
        f"--kubeconfig={tmp_path}/config --namespace=here get pods\n"
    )


def test_kubectl_raises_with_what_it_said(tmp_path: pathlib.Path) -> None:
    kubectl = make_kubectl(tmp_path, "echo no such pod >&2; exit 3")
    with pytest.raises(errors.CommandError, match="ended with 3: no such pod") as caught:
        kubectl("get", "pod/x")
    assert caught.value.code == 3


def test_kubectl_parses_what_it_gets(tmp_path: pathlib.Path) -> None:
    kubectl = make_kubectl(tmp_path, """echo '{"items": []}'""")
    assert kubectl.get("pods") == {"items": []}


class Elsewhere(host_fakes.Engine):
    """An engine on another host."""

    def reach(self, address: str) -> str:
        return "localhost" if address in ("", "0.0.0.0", "::") else address


@pytest.mark.parametrize(
    ("made", "bind", "sans"),
    [
        pytest.param(host_fakes.Engine(), "127.0.0.1", "web", id="here"),
        pytest.param(Elsewhere(), "0.0.0.0", "web,localhost", id="docker in docker"),
    ],
)
def test_ports_are_where_the_engine_is(made: host_fakes.Engine, bind: str, sans: str) -> None:
    cluster_access.start(made, "pytest-0", "p8s", {"extra_sans": "web", "http_port": "80"})
    (spec,) = made.specs
    assert (spec.bind, spec.inside, spec.keeps_state) == (bind, (80, 6443), False)
    assert f"--extra-sans={sans}" in spec.flags


@pytest.mark.parametrize(
    ("image", "there", "pulled"),
    [
        pytest.param("registry.example/p8s:1", False, True, id="a registry's"),
        pytest.param("registry.example/p8s:1", True, False, id="a registry's, there"),
        pytest.param("p8s:latest", False, False, id="built here"),
    ],
)
def test_an_image_is_pulled_where_a_registry_has_it(
    *, image: str, there: bool, pulled: bool
) -> None:
    made = host_fakes.Engine()
    made.image = there
    cluster_access.start(made, "pytest-0", image, {})
    assert (("pull_image", image) in made.calls) == pulled


def test_a_lock_has_one_holder(tmp_path: pathlib.Path) -> None:
    session = shared_cluster.Session(directory=tmp_path, container="c", image="i", settings={})
    with (
        session.locked(),
        pytest.raises(errors.WaitTimeoutError, match="another process"),
        session.locked(seconds=0),
    ):
        pass
    with session.locked(seconds=0):
        pass


def test_loading_the_plugin_loads_nothing_else() -> None:
    heavy = (
        "'docker', 'requests', 'yaml', 'click', 'rich', 'urllib.request', "
        "'p8s_supervisor.cluster_access', 'p8s_supervisor.shared_cluster'"
    )
    script = (
        "import sys, pytest, p8s_supervisor.testing\n"
        f"print([name for name in ({heavy}) if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"[]\n"
