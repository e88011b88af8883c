"""The start of the control plane: etcd's first content, and what the apiserver is waited for."""

from __future__ import annotations

import datetime
import json
import pathlib
import time

import pytest

from p8s_supervisor import (
    bootstrap,
    components,
    content,
    context,
    credentials,
    errors,
    etcd_mark,
    files,
    health,
    seed,
)
from tests import fakes

# --- etcd's first content

UID = b"0f8b1c6e-3a53-4d27-9c11-6a3d5b7e9f01"
MADE = (1767225600, 1767225660)
VALUE = b"k8s\x00%b\x08" % UID
LOOKED_FOR = "/registry/priorityclasses/system-node-critical"
OTHERS = {
    "api_port": "7443",
    "cluster_domain": "example.org",
    "node_name": "n1",
    "pod_cidr": "10.1.0.0/16",
    "service_cidr": "10.2.0.0/16",
    "verbosity": "4",
}
CAS = {"ca.crt": "the CA\n", "front-proxy-ca.crt": "the front proxy's CA\n"}


def make_run(root: pathlib.Path, *arguments: str, fresh: bool) -> context.Context:
    """A run whose CAs are written, and whose image has a seed of the default settings."""
    run = fakes.make_context(root, *arguments)
    run.fresh = fresh
    for name, text in CAS.items():
        files.write(run.plan.paths.pki / name, text)
    texts = fakes.load_settings().texts
    made = seed.Seed(
        {name: texts[name] for name in seed.SETTINGS},
        MADE,
        {"/registry/namespaces/default": VALUE + seed.encode_varint(MADE[0])},
    )
    files.write(run.plan.paths.seed, made.to_json())
    return run


def connect(monkeypatch: pytest.MonkeyPatch, store: fakes.Etcd) -> list[components.Plan]:
    """Every client of etcd is `store`; gives the plans that they are made for."""
    plans: list[components.Plan] = []

    def connect_etcd(plan: components.Plan) -> fakes.Etcd:
        plans.append(plan)
        return store

    monkeypatch.setattr(credentials, "connect_etcd", connect_etcd)
    return plans


PUT, LOOK = ("put_into_empty", "/registry/"), ("has", LOOKED_FOR)


@pytest.mark.parametrize(
    ("answer", "calls"),
    [pytest.param(True, [PUT], id="put"), pytest.param(False, [PUT, LOOK], id="not empty")],
)
def test_a_new_cluster_begins_with_the_seed(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: bool,
    calls: list[tuple[str, str]],
) -> None:
    run = make_run(tmp_path, fresh=True)
    store = fakes.Etcd(fakes.etcd_status(1), fakes.etcd_status(2), answer=answer)
    plans = connect(monkeypatch, store)
    before = int(time.time())
    assert content.populate(run) is answer
    after = int(time.time())
    assert plans == [run.plan]
    assert store.calls == calls
    assert etcd_mark.read(run.plan.paths) == 2
    assert run.marked
    value = store.put["/registry/namespaces/default"]
    assert value[:4] == VALUE[:4]
    assert value[4:40] != UID
    assert before <= seed.decode_varint(value[41:]) <= after


def test_the_seed_comes_with_this_cluster_s_own_cas(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, store = make_run(tmp_path, fresh=True), fakes.Etcd(answer=True)
    connect(monkeypatch, store)
    content.populate(run)
    expected = seed.config_maps(
        ca=CAS["ca.crt"], requestheader_ca=CAS["front-proxy-ca.crt"], moment=""
    )
    assert set(store.put) == {"/registry/namespaces/default", *expected}
    for key, value in expected.items():
        found = json.loads(store.put[key])
        assert found["data"] == json.loads(value)["data"]
        made = datetime.datetime.fromisoformat(found["metadata"]["creationTimestamp"])
        assert abs(made.timestamp() - time.time()) < 60


def test_each_setting_of_the_seed_has_a_case_below() -> None:
    assert set(OTHERS) == set(seed.SETTINGS)


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_with_any_other_setting_a_cluster_begins_empty(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    flag = f"--{name.replace('_', '-')}={OTHERS[name]}"
    run, store = make_run(tmp_path, flag, fresh=True), fakes.Etcd(answer=False)
    connect(monkeypatch, store)
    assert not content.populate(run)
    assert (store.calls, store.put) == ([LOOK], {})


@pytest.mark.parametrize(
    "flag",
    [
        pytest.param("--http-port=9999", id="one that the content does not depend on"),
        pytest.param("--service-cidr=192.168.254.0/24", id="a default, given"),
        pytest.param("--api-port=06443", id="a default, written otherwise"),
    ],
)
def test_with_the_same_values_a_cluster_begins_with_the_seed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    run, store = make_run(tmp_path, flag, fresh=True), fakes.Etcd(answer=True)
    connect(monkeypatch, store)
    assert content.populate(run)


def test_an_image_without_a_seed_begins_empty(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, store = make_run(tmp_path, fresh=True), fakes.Etcd(answer=False)
    run.plan.paths.seed.unlink()
    connect(monkeypatch, store)
    assert not content.populate(run)
    assert store.calls == [LOOK]


@pytest.mark.parametrize("answer", [True, False], ids=["there", "not there"])
@pytest.mark.parametrize("flag", ["--verbosity=1", "--verbosity=4"], ids=["same", "other"])
def test_in_a_cluster_that_was_there_is_only_looked(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, flag: str, answer: bool
) -> None:
    run, store = make_run(tmp_path, flag, fresh=False), fakes.Etcd(answer=answer)
    etcd_mark.write(run.plan.paths, 1)
    connect(monkeypatch, store)
    assert content.populate(run) is answer
    assert (store.calls, store.put) == ([LOOK], {})
    assert etcd_mark.read(run.plan.paths) == 1


def test_a_first_start_that_was_cut_short_is_made_up_for(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, store = make_run(tmp_path, fresh=False), fakes.Etcd(answer=True)
    connect(monkeypatch, store)
    assert content.populate(run)
    assert store.calls == [PUT]


def test_an_etcd_that_has_lost_writes_is_given_none(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, store = make_run(tmp_path, fresh=False), fakes.Etcd(fakes.etcd_status(41), answer=True)
    etcd_mark.write(run.plan.paths, 42)
    connect(monkeypatch, store)
    with pytest.raises(errors.P8sError, match="is at revision 41, and was at 42"):
        content.populate(run)
    assert store.calls == []
    etcd_mark.keep(run)  # as the stop does that follows
    assert etcd_mark.read(run.plan.paths) == 42


# --- what the apiserver is waited for

NO_ANSWER = errors.KubeError("Connection refused", status=0)
FORBIDDEN = errors.KubeError("forbidden", status=403)
NOT_READY = errors.KubeError("[-]etcd failed", status=500)


@pytest.mark.parametrize(
    ("populated", "answers", "asked"),
    [
        pytest.param(
            False,
            {"GET /readyz": [NO_ANSWER, NOT_READY, "ok"]},
            ["GET /readyz"] * 3,
            id="an empty cluster: until it is ready",
        ),
        pytest.param(
            True,
            {"GET /version": [NO_ANSWER, NO_ANSWER, FORBIDDEN]},
            ["GET /version"] * 3,
            id="one with content: until any answer",
        ),
    ],
)
@pytest.mark.parametrize("held", [True, False], ids=["held port", "free port"])
def test_the_apiserver_is_waited_for(
    tmp_path: pathlib.Path,
    populated: bool,
    held: bool,
    answers: dict[str, list[fakes.Answer]],
    asked: list[str],
) -> None:
    client = fakes.KubeClient(answers)
    run = fakes.make_context(tmp_path, client=client)
    placeholder = fakes.Placeholder("not listened at", "not listened at", None)
    run.populated, run.placeholder = populated, placeholder if held else None
    bootstrap.start_apiserver(run, health.Monitor(run))
    assert client.asked == asked
    assert placeholder.calls == (["find_other"] * 3 + ["close"] if held else [])


def test_the_port_is_let_go_before_anything_is_asked(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = fakes.KubeClient({"GET /readyz": ["ok"]})
    run = fakes.make_context(tmp_path, client=client)
    placeholder = run.placeholder = fakes.Placeholder(None)
    asked: list[list[str]] = []
    monkeypatch.setattr(placeholder, "close", lambda: asked.append(client.asked))
    bootstrap.start_apiserver(run, health.Monitor(run))
    assert asked == [[]]
    assert client.asked == ["GET /readyz"]


@pytest.mark.parametrize(
    ("populated", "held", "told"),
    [
        pytest.param(False, "port 6443 is free", "port: not within 0 s", id="does not listen"),
        pytest.param(False, None, "/readyz: not within 0 s", id="is not ready"),
        pytest.param(True, None, "first answer: not within 0 s", id="does not answer"),
    ],
)
def test_an_apiserver_that_does_not_come_is_told(
    tmp_path: pathlib.Path, populated: bool, held: str | None, told: str
) -> None:
    answers: dict[str, list[fakes.Answer]] = {
        "GET /readyz": [NO_ANSWER],
        "GET /version": [NO_ANSWER],
    }
    run = fakes.make_context(
        tmp_path, client=fakes.KubeClient(answers), clock=fakes.Clock(now=1000.0)
    )
    placeholder = run.placeholder = fakes.Placeholder(held)
    run.populated = populated
    with pytest.raises(errors.ComponentFailedError) as caught:
        bootstrap.start_apiserver(run, health.Monitor(run))
    reason = held or "Connection refused"
    assert str(caught.value) == (
        f"kube-apiserver failed: kube-apiserver's {told}; last reason: {reason}"
    )
    assert placeholder.calls == (["find_other"] if held else ["find_other", "close"])
