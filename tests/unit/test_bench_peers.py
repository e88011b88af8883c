"""`make bench-peers`, but for what needs an engine: ratios, the table, turns, peers' commands."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import json
import pathlib
import subprocess
import sys
import typing

import pytest

from p8s_supervisor import components
from tests import fakes
from tests.bench import clusters, kubeadm_node, peers

SAMPLES = {
    "start": {"p8s": [4.0, 3.0, 5.0], "kubeadm": [20.0, 26.0, 24.0]},
    "pods": {"p8s": [5.0], "kubeadm": [10.0]},
}


def test_a_ratio_is_of_a_peers_median_to_ours() -> None:
    medians = peers.summarize(SAMPLES)
    assert medians["start"] == {"p8s": 4.0, "kubeadm": 24.0}
    assert peers.compare(medians)["start"] == {"p8s": 1.0, "kubeadm": 6.0}


def test_the_table_has_seconds_and_each_peers_ratio() -> None:
    header, start, pods = peers.table(peers.summarize(SAMPLES)).splitlines()
    assert header.split() == ["p8s", "kubeadm"]
    assert start.split() == ["start", "4.00s", "24.00s", "(6.00x)"]
    assert pods.split() == ["pods", "5.00s", "10.00s", "(2.00x)"]
    assert header.index("kubeadm") + len("kubeadm") == start.index("24.00s") + len("24.00s")


@pytest.mark.parametrize(
    ("installed", "found"),
    [
        pytest.param([], ["p8s", "kubeadm"], id="no tool"),
        pytest.param(["k3d"], ["p8s", "kubeadm", "k3d"], id="one"),
        pytest.param(
            ["minikube", "k3d", "kind"],
            ["p8s", "kubeadm", "kind", "k3d", "minikube"],
            id="all",
        ),
    ],
)
def test_tools_are_peers_where_they_are_on_path(installed: list[str], found: list[str]) -> None:
    def which(name: str) -> str | None:
        return f"/usr/bin/{name}" if name in installed else None

    assert list(clusters.find_ways(which)) == found


@pytest.mark.parametrize(
    ("name", "commands", "container"),
    [
        (
            "kind",
            (
                "kind create cluster --name=c1",
                "kind load image-archive DIR/node.tar --name=c1",
                "kind delete cluster --name=c1",
            ),
            "c1-control-plane",
        ),
        (
            "k3d",
            (
                "k3d cluster create c1",
                "k3d image import DIR/node.tar --cluster=c1",
                "k3d cluster delete c1",
            ),
            "k3d-c1-server-0",
        ),
        (
            "minikube",
            (
                "minikube start --profile=c1 --driver=docker --embed-certs",
                "minikube image load DIR/node.tar --profile=c1",
                "minikube delete --profile=c1",
            ),
            "c1",
        ),
    ],
)
def test_a_tools_commands(
    name: str, commands: tuple[str, str, str], container: str, tmp_path: pathlib.Path
) -> None:
    tool = clusters.Tool("c1", clusters.TOOLS[name], tmp_path)
    made = (tool.commands.create, tool.commands.load, tool.commands.delete)
    for words, wanted in zip(made, commands, strict=True):
        assert tool.command(words) == wanted.replace("DIR", str(tmp_path)).split()
    assert tool.container == container
    assert tool.environment["KUBECONFIG"] == str(tmp_path / "kubeconfig")


def test_a_command_that_failed_is_told_with_its_output() -> None:
    command = [sys.executable, "-c", "import sys; print('no room'); sys.exit(3)"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with process, pytest.raises(AssertionError, match="no room"):
        clusters.finish_process(process)


def test_a_command_that_is_still_at_it_has_not_failed() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        clusters.check_process(typing.cast("subprocess.Popen[str]", process))
        process.kill()


def test_peers_take_turns_and_the_first_round_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[str, int]] = []

    def fake_measure(cluster: str, *, pods: int) -> collections.abc.Iterator[tuple[str, float]]:
        calls.append((cluster, pods))
        yield "start", float(len(calls))

    monkeypatch.setattr(peers, "measure", fake_measure)
    ways: typing.Any = {
        name: lambda name=name: contextlib.nullcontext(name) for name in ("p8s", "kubeadm")
    }
    samples = peers.take_turns(ways, runs=2, pods=7)
    assert calls == [(name, pods) for pods in (0, 7, 7) for name in ("p8s", "kubeadm")]
    assert samples == {"start": {"p8s": [3.0, 5.0], "kubeadm": [4.0, 6.0]}}


def make_plan(*, can_raise_limits: bool) -> components.Plan:
    facts = dataclasses.replace(fakes.FACTS, can_raise_limits=can_raise_limits)
    return fakes.make_plan(pathlib.Path("/"), *kubeadm_node.RANGES, facts=facts)


def read_documents(plan: components.Plan) -> dict[str, dict[str, typing.Any]]:
    text = kubeadm_node.kubeadm_config(plan, repository="x/y", version="v1.37.2")
    documents = [json.loads(document) for document in text.split("---\n")]
    return {document["kind"]: document for document in documents}


def test_kubeadm_is_given_no_more_than_what_the_container_forces() -> None:
    documents = read_documents(make_plan(can_raise_limits=True))
    kubelet = documents["KubeletConfiguration"]
    assert kubelet["cgroupDriver"] == "cgroupfs"
    assert "featureGates" not in kubelet
    assert not {name for name in kubelet if name.startswith(("kubeAPI", "event"))}
    assert documents["ClusterConfiguration"]["networking"] == {"podSubnet": "10.244.0.0/16"}
    assert set(documents["InitConfiguration"]) == {"apiVersion", "kind", "nodeRegistration"}


def test_kubeadms_kubelet_gets_the_gate_that_ours_needs() -> None:
    kubelet = read_documents(make_plan(can_raise_limits=False))["KubeletConfiguration"]
    assert kubelet["featureGates"] == {"KubeletInUserNamespace": True}
