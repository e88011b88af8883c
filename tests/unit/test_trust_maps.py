"""The ConfigMap with the CA bundle, in each namespace."""

from __future__ import annotations

import pathlib
import threading
import typing

import pytest

from p8s_supervisor import errors, trust_maps
from tests import fakes

PATCH = "PATCH /api/v1/namespaces/{}/configmaps/p8s-ca-bundle"


def namespace(name: str, phase: str = "Active") -> dict[str, typing.Any]:
    return {"metadata": {"name": name, "uid": f"uid-of-{name}"}, "status": {"phase": phase}}


def test_each_namespace_gets_it_once(tmp_path: pathlib.Path) -> None:
    client = fakes.KubeClient({PATCH.format("dev"): ["{}"]})
    offers = trust_maps.Offers(fakes.make_context(tmp_path), client, "pem")
    offers.see(namespace("ending", "Terminating"))
    offers.see(namespace("dev"))
    offers.see(namespace("dev"))  # its labels have changed
    assert client.asked == [PATCH.format("dev")]
    assert client.requests[0].body == trust_maps.make("dev", "pem")
    offers.forget([])
    offers.see(namespace("dev"))
    assert len(client.asked) == 2


def test_a_refusal_is_told_once_and_keeps_no_other_from_it(tmp_path: pathlib.Path) -> None:
    refusal = errors.KubeError("a webhook says no", status=403)
    client = fakes.KubeClient({PATCH.format("dev"): [refusal], PATCH.format("next"): ["{}"]})
    run = fakes.make_context(tmp_path)
    offers = trust_maps.Offers(run, client, "pem")
    for name in ("dev", "next", "dev"):
        offers.see(namespace(name))
    told = [event.message for event in run.journal.read() if event.kind == "warning"]
    assert told == ["namespace dev: no CA bundle: ConfigMap p8s-ca-bundle: a webhook says no"]


@pytest.mark.parametrize("status", [0, 500])
def test_an_apiserver_that_is_away_is_asked_again(tmp_path: pathlib.Path, status: int) -> None:
    client = fakes.KubeClient({PATCH.format("dev"): [errors.KubeError("away", status=status)]})
    with pytest.raises(errors.KubeError):
        trust_maps.Offers(fakes.make_context(tmp_path), client, "pem").see(namespace("dev"))


def test_without_a_bundle_nothing_is_watched(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "Thread", fakes.forbid)
    trust_maps.start(fakes.make_context(tmp_path, client=fakes.KubeClient({})))
