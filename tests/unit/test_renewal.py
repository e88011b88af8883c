"""Renewal of the certificates: when, what, and what is done about old connections."""

from __future__ import annotations

import datetime
import pathlib
import socket
import ssl
import threading

import pytest
from cryptography import x509

from p8s_supervisor import commands, context, credentials, errors, pki, renewal
from tests import fakes

HEALTHZ = "GET /api/v1/nodes/p8s/proxy/healthz"


class At(threading.Event):
    """A stop that is never asked for, and that is waited for without time passing."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout)
        return self.is_set()


@pytest.fixture
def told() -> list[str]:
    return []


def make_run(
    root: pathlib.Path, *arguments: str, told: list[str], answers: list[fakes.Answer] | None = None
) -> context.Context:
    client = fakes.KubeClient({HEALTHZ: answers or ["ok"]})
    run = fakes.make_context(root, *arguments, client=client, story=told)
    run.stop = At()
    run.admin = credentials.write(run.plan, fresh=True)
    run.supervisor = Kubelet(run)
    return run


@pytest.fixture(autouse=True)
def served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks at kubelet's port finds the `Kubelet` of the run whose renewal asks."""
    renew = renewal.renew_kubelet

    def renew_kubelet(run: context.Context) -> None:
        assert isinstance(run.supervisor, Kubelet)
        monkeypatch.setattr(ssl, "get_server_certificate", run.supervisor.serve)
        renew(run)

    monkeypatch.setattr(renewal, "renew_kubelet", renew_kubelet)
    monkeypatch.setattr(renewal, "SERVING_SECONDS", 0.3)


class Kubelet(fakes.Supervisor):
    """kubelet's serving port, and supervisord that starts it.

    Attributes:
        reads: it serves what is in its file; else what was there when it was started.
        refusals: how often it does not answer after a start.
    """

    def __init__(self, run: context.Context, *, reads: bool = True, refusals: int = 0) -> None:
        super().__init__()
        self._run, self.reads, self.refusals = run, reads, refusals
        self._left, self._begun_with = 0, self.read()

    def read(self) -> str:
        return (self._run.plan.paths.pki / "kubelet.crt").read_text()

    def start(self, name: str) -> None:
        super().start(name)
        self._left, self._begun_with = self.refusals, self.read()

    def serve(self, at: tuple[str, int], timeout: float) -> str:
        """In place of `ssl.get_server_certificate`."""
        assert at == ("172.17.0.2", renewal.KUBELET_PORT)
        assert timeout > 0
        self._left -= 1
        if self._left >= 0:
            raise ConnectionRefusedError("refused")
        return self.read() if self.reads else self._begun_with


def read_serials(root: pathlib.Path) -> dict[str, int]:
    return {
        file.name: x509.load_pem_x509_certificate(file.read_bytes()).serial_number
        for file in root.glob("etc/kubernetes/pki/**/*.crt")
    }


@pytest.fixture
def ss(monkeypatch: pytest.MonkeyPatch) -> fakes.Commands:
    fake = fakes.Commands({"ss": ""})
    monkeypatch.setattr(commands, "run", fake)
    monkeypatch.setattr(renewal, "list_own_ports", lambda: [40000])
    return fake


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@pytest.mark.parametrize(
    ("lifetime", "minutes", "left"),
    [
        pytest.param("1h", 39, 60, id="soon"),
        pytest.param("365d", 0, renewal.LOOK_SECONDS, id="not for long"),
    ],
)
def test_nothing_is_done_before_its_time(
    *,
    tmp_path: pathlib.Path,
    told: list[str],
    ss: fakes.Commands,
    lifetime: str,
    minutes: int,
    left: float,
) -> None:
    run = make_run(tmp_path, f"--cert-lifetime={lifetime}", told=told)
    passed = datetime.timedelta(minutes=minutes)
    before = read_serials(tmp_path)
    assert renewal.renew_if_due(run, now=now() + passed) == pytest.approx(left, abs=5)
    assert read_serials(tmp_path) == before
    assert (told, ss.calls) == ([], [])


def test_at_two_thirds_every_leaf_is_made_anew(
    tmp_path: pathlib.Path, told: list[str], ss: fakes.Commands
) -> None:
    run = make_run(tmp_path, told=told)
    before, admin = read_serials(tmp_path), run.admin
    kubeconfig = (tmp_path / "etc/kubernetes/admin.conf").read_text()
    left = renewal.renew_if_due(run, now=now() + datetime.timedelta(days=244))
    assert left <= renewal.LOOK_SECONDS
    after = read_serials(tmp_path)
    kept = {f"{name}.crt" for name in pki.AUTHORITIES}
    assert {name for name in before if before[name] == after[name]} == kept
    assert run.admin != admin
    assert (tmp_path / "etc/kubernetes/admin.conf").read_text() != kubeconfig
    assert told == ["certificates: renewed, good for 365 days, 0:00:00"]
    # Connections that are good for months end by themselves before.
    assert ss.calls == []
    assert isinstance(run.client, fakes.KubeClient)
    assert (run.client.asked, run.client.forgotten) == ([HEALTHZ], 1)


def test_for_a_short_lifetime_old_connections_are_closed(
    tmp_path: pathlib.Path, told: list[str], ss: fakes.Commands
) -> None:
    run = make_run(tmp_path, "--cert-lifetime=2m", "--api-port=7443", told=told)
    renewal.renew_if_due(run, now=now() + datetime.timedelta(seconds=81))
    assert [" ".join(call[0]) for call in ss.calls] == [
        f"ss --kill --tcp --numeric dst {chosen} and sport != :40000"
        for chosen in ("127.0.0.1 and dport = :7443", "[172.17.0.2] and dport = :10250")
    ]


def test_a_kernel_that_closes_no_connection_is_told(
    tmp_path: pathlib.Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = errors.CommandError("ss --kill", code=1, output="not supported")
    monkeypatch.setattr(commands, "run", fakes.Commands({"ss": error}))
    run = make_run(tmp_path, told=told)
    renewal.drop_connections(run)
    assert (
        told
        == ["certificates: old connections are kept: `ss --kill` ended with 1: not supported"] * 2
    )


def test_own_connections_are_known() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as connection:
            own = connection.getsockname()[1]
            assert {port, own} <= set(renewal.list_own_ports())
        assert own not in renewal.list_own_ports()


@pytest.mark.parametrize(
    ("failures", "asked"), [(0, 1), (1, 2), (5, renewal.ATTEMPTS)], ids=["no", "one", "every"]
)
def test_the_kubelet_is_asked_until_it_answers(
    tmp_path: pathlib.Path, told: list[str], failures: int, asked: int
) -> None:
    closed = errors.KubeError("use of closed network connection", status=500)
    run = make_run(tmp_path, told=told, answers=[*[closed] * failures, "ok"])
    renewal.ask_kubelet(run)
    assert isinstance(run.client, fakes.KubeClient)
    assert len(run.client.asked) == asked


@pytest.mark.parametrize(
    ("reads", "refusals", "calls"),
    [
        pytest.param(True, 0, [], id="it reads the new one"),
        pytest.param(False, 0, [("stop", "kubelet"), ("start", "kubelet")], id="it does not"),
        pytest.param(False, 1, [("stop", "kubelet"), ("start", "kubelet")], id="and starts slowly"),
    ],
)
def test_a_kubelet_that_goes_on_with_its_old_certificate_is_started_again(
    *,
    tmp_path: pathlib.Path,
    told: list[str],
    ss: fakes.Commands,
    reads: bool,
    refusals: int,
    calls: list[tuple[str, str]],
) -> None:
    run = make_run(tmp_path, told=told)
    run.supervisor = kubelet = Kubelet(run, reads=reads, refusals=refusals)
    renewal.renew(run)
    assert kubelet.calls == calls
    lines = [line for line in told if line.startswith("kubelet ")]
    again = "kubelet is started again, for its new certificate: it still serves the old one"
    assert lines == [again] * (len(calls) // 2)
    # The renewal is at its end when kubelet answers again, and not before.
    assert kubelet.serve(("172.17.0.2", 10250), 1.0) == kubelet.read()
    assert isinstance(run.client, fakes.KubeClient)
    assert (run.client.asked, ss.calls) == ([HEALTHZ], [])


def test_a_kubelet_is_not_started_in_the_stop(tmp_path: pathlib.Path, told: list[str]) -> None:
    run = make_run(tmp_path, told=told)

    class Last(Kubelet):
        def serve(self, at: tuple[str, int], timeout: float) -> str:
            run.stop.set()
            return super().serve(at, timeout)

    run.supervisor = kubelet = Last(run, reads=False)
    credentials.renew(run.plan)
    renewal.renew_kubelet(run)
    assert (kubelet.calls, told) == ([], [])


def test_names_that_were_asked_for_stay_in_the_certificate(
    tmp_path: pathlib.Path, told: list[str], ss: fakes.Commands
) -> None:
    run = make_run(tmp_path, told=told)
    credentials.keep_api_names(run.plan, ("box.example",))
    renewal.renew(run)
    pem = (run.plan.paths.pki / "apiserver.crt").read_bytes()
    names = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert "box.example" in names.value.get_values_for_type(x509.DNSName)
    assert ss.calls == []


def test_a_renewal_that_fails_is_told_and_tried_again(
    tmp_path: pathlib.Path, told: list[str]
) -> None:
    run = make_run(tmp_path, told=told)
    (run.plan.paths.pki / "p8s.crt").unlink()
    stop = run.stop
    assert isinstance(stop, At)

    class Twice(At):
        def wait(self, timeout: float | None = None) -> bool:
            self.waited.append(timeout)
            return len(self.waited) > 2

    run.stop = Twice()
    renewal.start(run)
    for thread in threading.enumerate():
        if thread.name == "renewal":
            thread.join(timeout=5)
    assert run.stop.waited == [0.0, renewal.RETRY_SECONDS, renewal.RETRY_SECONDS]
    assert len(told) == 2
    assert told[0].startswith("certificates: not renewed, tried again in 60 s: ")
