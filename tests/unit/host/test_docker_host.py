"""What docker's SDK is asked for, how its answers are read, and its errors in p8s' words."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import io
import tarfile
import types
import typing

import docker.errors
import pytest
import requests

from p8s_supervisor import errors
from p8s_supervisor.host import clusters, docker_host
from tests import fakes, host_fakes

INSPECTED: dict[str, typing.Any] = {
    "Id": "abc",
    "Name": "/p8s-dev",
    "Created": "2026-01-01T00:00:00.123456789Z",
    "RestartCount": 1,
    "State": {"Status": "running", "ExitCode": 0},
    "Config": {"Labels": {"p8s.cluster": "dev", "p8s.http-port": "8989"}},
    "NetworkSettings": {
        "Ports": {
            "8989/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18989"}],
            "6443/tcp": None,
            "53/udp": [{"HostIp": "0.0.0.0", "HostPort": "53"}],
        },
        "Networks": {"bridge": {"IPAddress": "172.17.0.5"}},
    },
}


def refuse(status: int, told: str) -> docker.errors.APIError:
    response = requests.Response()
    response.status_code = status
    return docker.errors.APIError(told, response=response, explanation=told)


def not_found() -> docker.errors.NotFound:
    return docker.errors.NotFound("no such container")


class SdkApi:
    """docker's low-level client.

    Attributes:
        answers: method → what it gives; an exception is raised.
        calls: method, positional and keyword arguments of each call.
        base_url: where the engine is.
    """

    base_url = "http+docker://localhost"

    def __init__(self, **answers: object) -> None:
        self.answers = answers
        self.calls: list[tuple[str, tuple[object, ...], dict[str, object]]] = []

    def __getattr__(self, method: str) -> collections.abc.Callable[..., typing.Any]:
        def call(*arguments: object, **options: object) -> typing.Any:
            self.calls.append((method, arguments, options))
            answer = self.answers.get(method)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


def make_engine(api: SdkApi) -> docker_host.Engine:
    return docker_host.Engine(
        types.SimpleNamespace(
            api=api,
            volumes=types.SimpleNamespace(create=api.create_volume),
            images=types.SimpleNamespace(pull=api.pull),
            version=api.version,
        )
    )


def test_a_cluster_is_read_from_what_the_engine_has() -> None:
    found = clusters.read_cluster(INSPECTED)
    assert found == clusters.Cluster(
        name="dev",
        container="p8s-dev",
        identity="abc",
        state="running",
        restarts=1,
        created=1767225600.0,
        ports={8989: ("127.0.0.1", 18989)},
        address="172.17.0.5",
        labels={"p8s.cluster": "dev", "p8s.http-port": "8989"},
    )
    assert found.is_running
    assert found.is_own


def test_a_container_of_composes_has_its_own_name_and_is_not_ours() -> None:
    labels = {"org.opencontainers.image.title": "p8s"}
    made = INSPECTED | {"Name": "/x-p8s-1", "Config": {"Labels": labels}}
    made["NetworkSettings"] = {"Ports": {}, "Networks": {}}
    found = clusters.read_cluster(made)
    assert (found.name, found.is_own, found.address, found.ports) == ("x-p8s-1", False, "", {})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, {"privileged": True, "auto_remove": False}, id="default"),
        pytest.param(
            {}, {"port_bindings": {8989: ("127.0.0.1", 8989), 6443: ("127.0.0.1", 6443)}},
            id="loopback alone",
        ),
        pytest.param(
            {"inside": (9898, 7443), "published": (1, 2), "bind": "10.0.0.1"},
            {"port_bindings": {9898: ("10.0.0.1", 1), 7443: ("10.0.0.1", 2)}}, id="other ports",
        ),
        pytest.param({}, {"binds": {"p8s-dev": {"bind": "/var/lib/p8s", "mode": "rw"}}}, id="state"),
        pytest.param({"keeps_state": False}, {"binds": None}, id="throw-away"),
        pytest.param({}, {"restart_policy": None}, id="no restarts"),
        pytest.param(
            {"restart": "on-failure:3"},
            {"restart_policy": {"Name": "on-failure", "MaximumRetryCount": 3}}, id="three restarts",
        ),
        pytest.param(
            {"restart": "always"},
            {"restart_policy": {"Name": "always", "MaximumRetryCount": 0}}, id="always",
        ),
        pytest.param({"network": "net"}, {"network_mode": "net"}, id="a network"),
        pytest.param({"auto_remove": True}, {"auto_remove": True}, id="gone at its end"),
    ],
)  # fmt: skip
def test_what_the_host_is_asked_for(
    changes: dict[str, typing.Any], expected: dict[str, object]
) -> None:
    options = clusters.host_options(clusters.Spec(name="dev", **changes))
    assert {name: options.get(name) for name in expected} == expected


def test_what_a_container_is_asked_for() -> None:
    spec = clusters.Spec(
        name="dev", flags=("--drain=none",), environment={"P8S_VERBOSITY": "2"}, kubeconfig="/k"
    )
    options = clusters.container_options(spec)
    assert options["command"] == ["--drain=none"]
    assert options["environment"] == {"P8S_VERBOSITY": "2"}
    assert options["stop_timeout"] == 60
    assert options["labels"] == {
        "p8s.cluster": "dev",
        "p8s.http-port": "8989",
        "p8s.api-port": "6443",
        "p8s.kubeconfig": "/k",
    }
    bare = clusters.container_options(clusters.Spec(name="dev"))
    assert "p8s.kubeconfig" not in bare["labels"]


def test_a_configuration_file_is_put_into_the_container() -> None:
    api = SdkApi(create_container={"Id": "abc"}, inspect_container=INSPECTED)
    make_engine(api).create(clusters.Spec(name="dev", config=b"drain: none\n"))
    methods = [method for method, _, _ in api.calls]
    assert methods == [
        "inspect_image",
        "create_volume",
        "create_host_config",
        "create_container",
        "put_archive",
        "inspect_container",
    ]
    identity, directory, packed = api.calls[4][1]
    assert (identity, directory) == ("abc", "/etc")
    assert isinstance(packed, bytes)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        (entry,) = archive.getmembers()
        content = archive.extractfile(entry)
        assert (entry.name, entry.mode) == ("p8s/config.yaml", 0o600)
        assert content is not None
        assert content.read() == b"drain: none\n"


def test_a_throw_away_cluster_makes_no_volume() -> None:
    api = SdkApi(create_container={"Id": "abc"}, inspect_container=INSPECTED)
    make_engine(api).create(clusters.Spec(name="dev", keeps_state=False))
    assert "create_volume" not in [method for method, _, _ in api.calls]


def test_a_missing_image_says_where_it_comes_from() -> None:
    api = SdkApi(inspect_image=docker.errors.ImageNotFound("no such image"))
    with pytest.raises(errors.P8sError, match="has no image p8s:latest") as raised:
        make_engine(api).create(clusters.Spec(name="dev"))
    assert "make image" in raised.value.hint
    assert [method for method, _, _ in api.calls] == ["inspect_image"], "no volume is made"


def test_an_image_is_found_without_asking_a_registry() -> None:
    about = {"Id": "sha256:1", "Size": 2, "Architecture": "arm64", "RepoTags": None}
    about["RootFS"] = {"Type": "layers", "Layers": ["sha256:2", "sha256:3"]}
    assert make_engine(SdkApi(inspect_image=about)).find_image("x") == clusters.Image(
        identity="sha256:1", size=2, architecture="arm64", tags=(), layers=("sha256:2", "sha256:3")
    )
    missing = SdkApi(inspect_image=docker.errors.ImageNotFound("no"))
    assert make_engine(missing).find_image("x") is None


def test_an_image_is_exported_in_pieces_and_an_error_is_told() -> None:
    assert list(make_engine(SdkApi(get_image=[b"a", b"b"])).export_image("x")) == [b"a", b"b"]
    with pytest.raises(errors.P8sError, match="docker: no space"):
        list(make_engine(SdkApi(get_image=refuse(500, "no space"))).export_image("x"))


@pytest.mark.parametrize("lines", [[], [{"error": "refused"}]], ids=["pushed", "refused"])
def test_an_image_that_is_pushed_has_another_name_meanwhile(lines: list[dict[str, str]]) -> None:
    api = SdkApi(push=[{"status": "Preparing"}, *lines])
    push = functools.partial(make_engine(api).push_image, "x:1", "127.0.0.1:2/y")
    if lines:
        with pytest.raises(errors.P8sError, match="docker: refused"):
            push()
    else:
        push()
    assert [(method, arguments) for method, arguments, _ in api.calls] == [
        ("tag", ("x:1", "127.0.0.1:2/y", "1")),
        ("push", ("127.0.0.1:2/y", "1")),
        ("remove_image", ("127.0.0.1:2/y:1",)),
    ]


def test_layers_of_an_image_by_their_size() -> None:
    steps = [{"Size": 3}, {"Size": 0}, {"Size": 2}]
    assert make_engine(SdkApi(history=steps)).list_layer_sizes("x") == [3, 0, 2]


def test_published_ports_have_their_container() -> None:
    listed = [{"Names": ["/x"], "Ports": [{"PublicPort": 1, "PrivatePort": 2}, {"PrivatePort": 3}]}]
    assert make_engine(SdkApi(containers=listed)).list_published() == {1: "x"}


@pytest.mark.parametrize(
    ("url", "here"),
    [("http+docker://localhost", True), ("http://192.0.2.1:2375", False)],
)
def test_where_the_engine_is(url: str, here: bool) -> None:
    api = SdkApi()
    api.base_url = url
    assert make_engine(api).is_local() is here


@pytest.mark.parametrize("wait", [None, requests.ReadTimeout("too long")], ids=["done", "too slow"])
def test_of_a_script_nothing_stays(wait: object) -> None:
    api = SdkApi(logs=b"said", wait=wait)
    engine = docker_host.Engine(
        types.SimpleNamespace(containers=types.SimpleNamespace(create=lambda *_, **__: api))
    )
    if wait is None:
        assert engine.run_script("x", "echo said", labels={}, seconds=1) == "said"
    else:
        with pytest.raises(errors.P8sError, match="too long"):
            engine.run_script("x", "echo said", labels={}, seconds=1)
    assert api.calls[-1] == ("remove", (), {"v": True, "force": True})


def test_two_starts_of_the_same_name() -> None:
    api = SdkApi(create_container=refuse(409, "Conflict. The container name is in use"))
    with pytest.raises(errors.P8sError, match="somebody else starts the cluster dev"):
        make_engine(api).create(clusters.Spec(name="dev"))
    api = SdkApi(create_container=refuse(400, "bad parameter"))
    with pytest.raises(errors.P8sError, match="docker: bad parameter"):
        make_engine(api).create(clusters.Spec(name="dev"))


@pytest.mark.parametrize(
    "told",
    [
        "driver failed: Bind for 127.0.0.1:8989 failed: port is already allocated",
        "failed to bind host port for 127.0.0.1:8989: address already in use",
    ],
)
def test_a_port_that_is_taken_is_told_from_other_errors(told: str) -> None:
    with pytest.raises(docker_host.PortTakenError):
        make_engine(SdkApi(start=refuse(500, told))).start(host_fakes.cluster())
    with pytest.raises(errors.P8sError, match="docker: no space left") as raised:
        make_engine(SdkApi(start=refuse(500, "no space left"))).start(host_fakes.cluster())
    assert not isinstance(raised.value, docker_host.PortTakenError)


@pytest.mark.parametrize(
    "error",
    [
        docker.errors.DockerException("cannot connect"),
        requests.ConnectionError("refused"),
        PermissionError(13, "Permission denied"),
    ],
)
def test_an_engine_that_does_not_answer(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.P8sError, match="no docker engine answers") as raised:
        make_engine(SdkApi(containers=error)).list_clusters()
    assert "DOCKER_HOST" in raised.value.hint
    host = f"tcp://127.0.0.1:{fakes.free_port()}"
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(errors.P8sError) as raised:
        docker_host.connect()
    assert raised.value.message == (
        f"no docker engine answers: Connection refused (DOCKER_HOST={host})"
    )


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("remove_container", not_found()),
        ("remove_container", refuse(409, "removal of container abc is already in progress")),
        ("kill", refuse(409, "container abc is not running")),
        ("stop", not_found()),
    ],
)
def test_what_has_ended_meanwhile_is_no_error(method: str, error: Exception) -> None:
    engine = make_engine(SdkApi(**{method: error}, logs=[b"p8s"]))
    actions = {"remove_container": engine.remove, "kill": engine.kill, "stop": engine.stop}
    actions[method](host_fakes.cluster())


def test_it_is_stopped_when_it_can_hear_it() -> None:
    said: list[bytes] = []

    def speak() -> collections.abc.Iterator[bytes]:
        said.append(b"setup")
        yield said[0]
        raise AssertionError("one line is enough")

    class Api(SdkApi):
        def stop(self, identity: str, *, timeout: int) -> None:
            assert said, "a signal before the first line is lost"
            self.calls.append(("stop", (identity,), {"timeout": timeout}))

    api = Api(logs=speak())
    make_engine(api).stop(host_fakes.cluster("dev"), seconds=3)
    assert api.calls[-1] == ("stop", ("id-dev",), {"timeout": 3})


@pytest.mark.parametrize(
    "silence", [requests.ReadTimeout("too long"), refuse(500, "driver none"), not_found(), []]
)
def test_one_that_says_nothing_is_stopped_all_the_same(silence: object) -> None:
    api = SdkApi(logs=silence)
    make_engine(api).stop(host_fakes.cluster())
    assert [method for method, _, _ in api.calls] == ["logs", "stop"]


def test_another_conflict_is_an_error() -> None:
    with pytest.raises(errors.P8sError, match="in use"):
        make_engine(SdkApi(kill=refuse(409, "in use"))).kill(host_fakes.cluster())


@pytest.mark.parametrize(
    ("listed", "inspected", "found"),
    [
        pytest.param([{"Id": "abc"}], INSPECTED, "dev", id="by its label"),
        pytest.param([], not_found(), None, id="nowhere"),
        pytest.param(
            [],
            INSPECTED | {"Config": {"Labels": {"org.opencontainers.image.title": "p8s"}}},
            "p8s-dev",
            id="by its container's name",
        ),
    ],
)
def test_a_cluster_is_found(listed: object, inspected: object, found: str | None) -> None:
    engine = make_engine(SdkApi(containers=listed, inspect_container=inspected))
    cluster = engine.find("dev")
    assert (cluster and cluster.name) == found


def test_a_container_that_is_not_p8s_is_refused() -> None:
    made = INSPECTED | {"Config": {"Labels": {}}}
    with pytest.raises(errors.P8sError, match="the container web is not p8s"):
        make_engine(SdkApi(containers=[], inspect_container=made)).find("web")


def test_a_missing_cluster_says_which_there_are() -> None:
    class Api(SdkApi):
        def inspect_container(self, identity: str) -> object:
            if identity == "abc":
                return INSPECTED
            raise not_found()

        def containers(self, *, filters: dict[str, str], **_: object) -> object:
            return [] if filters["label"].endswith("=other") else [{"Id": "abc"}]

    with pytest.raises(errors.P8sError, match="no cluster other") as raised:
        make_engine(Api(volumes={"Volumes": None})).get("other")
    assert raised.value.hint == "there are: dev; choose with --name"
    volumes = {"Volumes": [{"Name": "p8s-other", "Labels": {"p8s.cluster": "other"}}]}
    with pytest.raises(errors.P8sError, match="the cluster other is stopped") as raised:
        make_engine(Api(volumes=volumes)).get("other")
    assert "p8s run --name other" in raised.value.hint


@pytest.mark.parametrize("code", [0, 1])
def test_a_command_that_fails_gives_nothing(code: int) -> None:
    api = SdkApi(exec_create={"Id": "x"}, exec_start=b"text\n", exec_inspect={"ExitCode": code})
    told = make_engine(api).execute(host_fakes.cluster(), "cat", "/f")
    assert told == ("" if code else "text\n")


@pytest.mark.parametrize(
    ("engine", "address", "expected"),
    [
        ("http+docker://localhost", "127.0.0.1", "127.0.0.1"),
        ("http+docker://localhost", "0.0.0.0", "127.0.0.1"),
        ("http+docker://localhost", "10.0.0.1", "10.0.0.1"),
        ("http://docker:2375", "0.0.0.0", "docker"),
        ("https://10.1.2.3:2376", "::", "10.1.2.3"),
        ("http://docker:2375", "127.0.0.1", "127.0.0.1"),
        ("http+docker://ssh", "", "127.0.0.1"),
    ],
)
def test_where_a_published_port_is_reached(engine: str, address: str, expected: str) -> None:
    api = SdkApi()
    api.base_url = engine
    assert make_engine(api).reach(address) == expected


def test_volumes_by_cluster() -> None:
    volumes = {"Volumes": [{"Name": "p8s-dev", "Labels": {"p8s.cluster": "dev"}}]}
    engine = make_engine(SdkApi(volumes=volumes))
    assert engine.list_volumes() == {"dev": "p8s-dev"}
    assert engine.remove_volume("dev") is True
    assert engine.remove_volume("other") is False
    assert make_engine(SdkApi(volumes={"Volumes": None})).list_volumes() == {}


def test_a_file_that_is_not_there_is_empty() -> None:
    assert make_engine(SdkApi(get_archive=not_found())).copy(host_fakes.cluster(), "/x") == b""
    engine = make_engine(SdkApi(get_archive=([b"a", b"b"], {})))
    assert engine.copy(host_fakes.cluster(), "/x") == b"ab"


def test_the_fake_engine_takes_what_the_engine_takes() -> None:
    for name, method in vars(host_fakes.Engine).items():
        if not name.startswith("_"):
            real = getattr(docker_host.Engine, name)
            assert inspect.signature(method) == inspect.signature(real), name


def test_an_image_that_no_registry_has() -> None:
    api = SdkApi(pull=refuse(404, "manifest unknown"))
    with pytest.raises(errors.P8sError, match="docker: manifest unknown"):
        make_engine(api).pull_image("registry.example/p8s:1")
    assert api.calls == [("pull", ("registry.example/p8s:1",), {})]
