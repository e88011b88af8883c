"""`p8s run --publish`: what is a port, what clashes, and what the engine is asked for."""

from __future__ import annotations

import pytest

from p8s_supervisor import errors, settings
from p8s_supervisor.host import clusters, docker_host, publishing, runs
from tests import host_fakes

APIS: dict[str, tuple[int, int | None]] = {
    "--publish-http": (8989, 9000),
    "--publish-api": (6443, None),
}


def settle(*texts: str, bind: str = "127.0.0.1") -> tuple[publishing.Port, ...]:
    return publishing.settle(map(publishing.parse, texts), bind)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("8080:80", publishing.Port(host=8080, node=80), id="two ports"),
        pytest.param("8080:80/tcp", publishing.Port(host=8080, node=80), id="tcp"),
        pytest.param("53:53/udp", publishing.Port(host=53, node=53, protocol="udp"), id="udp"),
        pytest.param(
            "0.0.0.0:80:30080", publishing.Port(host=80, node=30080, address="0.0.0.0"), id="all"
        ),
        pytest.param(
            "[::1]:80:80/udp",
            publishing.Port(host=80, node=80, protocol="udp", address="::1"),
            id="IPv6",
        ),
    ],
)
def test_parse(text: str, expected: publishing.Port) -> None:
    assert publishing.parse(text) == expected
    assert str(expected) == text.removesuffix("/tcp")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("8080", "such as 8080:80", id="one port"),
        pytest.param("", "such as 8080:80", id="nothing"),
        pytest.param("http:80", "such as 8080:80", id="a name"),
        pytest.param("8000-8010:80", "such as 8080:80", id="a range"),
        pytest.param("0:80", "0 is no port: from 1 to 65535", id="no port of the host"),
        pytest.param("80:65536", "65536 is no port", id="no port of the node"),
        pytest.param("80:80/sctp", "/sctp is neither /tcp nor /udp", id="a protocol"),
        pytest.param("80:80/", "/ is neither /tcp nor /udp", id="half a protocol"),
        pytest.param("localhost:80:80", "'localhost' is no IP address", id="a host's name"),
        pytest.param(":80:80", "'' is no IP address", id="an empty address"),
        pytest.param("::1:80:80", "such as 8080:80", id="IPv6 without brackets"),
        pytest.param("[::x]:80:80", "is no IP address", id="no IPv6"),
    ],
)
def test_what_is_no_port(text: str, told: str) -> None:
    with pytest.raises(ValueError) as raised:
        publishing.parse(text)
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        pytest.param(["8080:80", "8081:80", "53:53/udp"], [], id="nothing wrong"),
        pytest.param(["53:53", "53:53/udp"], [], id="two protocols"),
        pytest.param(["127.0.0.2:80:80", "80:80"], [], id="two addresses"),
        pytest.param(["0.0.0.0:80:80", "[::]:80:80"], [], id="two families"),
        pytest.param(["80:80", "80:80"], [], id="the same said twice"),
        pytest.param(["9000:80/udp"], [], id="an API's number over UDP"),
        pytest.param(["127.0.0.2:9000:80"], [], id="an API's number at another address"),
        pytest.param(["80:8989/udp"], [], id="an API's number in the node over UDP"),
        pytest.param(
            ["80:80", "80:81"],
            ["--publish=127.0.0.1:80:80 and --publish=127.0.0.1:80:81 are one port of the host"],
            id="one port for two",
        ),
        pytest.param(
            ["80:80", "0.0.0.0:80:81"], ["are one port of the host"], id="at every address"
        ),
        pytest.param(
            ["9000:80"],
            ["--publish=127.0.0.1:9000:80 and --publish-http=9000: give them different ports"],
            id="the HTTP API's",
        ),
        pytest.param(
            ["0.0.0.0:9000:80"], ["and --publish-http=9000"], id="the HTTP API's at every address"
        ),
        pytest.param(
            ["1:8989", "2:6443"],
            ["8989 is an API of p8s: --publish-http and", "6443 is an API of p8s: --publish-api and"],
            id="the APIs themselves",
        ),
    ],
)  # fmt: skip
def test_what_clashes(texts: list[str], told: list[str]) -> None:
    found = publishing.find_wrong(settle(*texts), bind="127.0.0.1", apis=APIS)
    assert len(found) == len(told)
    for wrong, part in zip(found, told, strict=True):
        assert part in wrong


def test_the_address_is_that_of_the_apis_unless_given() -> None:
    found = settle("80:80", "127.0.0.1:81:80", bind="10.0.0.1")
    assert [port.address for port in found] == ["10.0.0.1", "127.0.0.1"]


def test_which_must_be_free_on_loopback() -> None:
    texts = ("1:80", "0.0.0.0:2:80", "127.0.0.2:3:80", "4:80/udp", "[::1]:5:80")
    assert publishing.list_loopback(settle(*texts)) == [1, 2]


def test_what_the_engine_is_asked_for() -> None:
    spec = clusters.Spec(name="dev", ports=settle("8080:80", "0.0.0.0:8081:80", "[::1]:53:53/udp"))
    assert clusters.host_options(spec)["port_bindings"] == {
        8989: ("127.0.0.1", 8989),
        6443: ("127.0.0.1", 6443),
        "80/tcp": [("127.0.0.1", 8080), ("0.0.0.0", 8081)],
        "53/udp": [("::1", 53)],
    }
    exposed = clusters.container_options(spec)["ports"]
    assert exposed == [8989, 6443, (80, "tcp"), (80, "tcp"), (53, "udp")]


def test_the_apis_take_no_port_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "is_free", lambda *_: True)
    wanted = runs.Wanted(
        spec=clusters.Spec(name="default", ports=settle("8989:80")),
        settings=settings.load(["--config=/dev/null"], {}).settings,
        publish_api=6443,
    )
    http, api = runs.choose_ports(wanted)
    assert http not in (8989, 6443)
    assert api == 6443


def test_the_next_run_publishes_what_it_is_given() -> None:
    engine = host_fakes.Engine(host_fakes.cluster("dev", state="exited"), volumes=["dev"])
    wanted = runs.Wanted(
        spec=clusters.Spec(name="dev", ports=settle("81:80")),
        settings=settings.load(["--config=/dev/null"], {}).settings,
    )
    runs.start(engine, wanted)
    assert engine.calls == [("remove", "dev"), ("create", "dev"), ("start", "dev")]
    assert engine.specs[0].ports == wanted.spec.ports


def test_a_port_that_somebody_else_has_is_told_with_the_option() -> None:
    engine = host_fakes.Engine()
    taken = docker_host.PortTakenError("a port is taken: Bind for 127.0.0.1:80 failed")
    engine.failures["start"] = [taken] * runs.ATTEMPTS
    wanted = runs.Wanted(
        spec=clusters.Spec(name="dev", ports=settle("80:80")),
        settings=settings.load(["--config=/dev/null"], {}).settings,
    )
    with pytest.raises(errors.P8sError, match=r"127\.0\.0\.1:80 failed") as raised:
        runs.start(engine, wanted)
    assert "--publish;" in raised.value.hint
    assert (engine.clusters, engine.volumes) == ({}, set())
