"""The user's configuration over p8s' own: what each component is given for it."""

from __future__ import annotations

import dataclasses
import pathlib
import typing

import pytest
import yaml

from p8s_supervisor import component_files, components, manifests, overrides
from tests import fakes

ROOT = pathlib.Path("/")
JWT = {"issuer": {"url": "https://issuer.example", "audiences": ["me"]}}


def make_plan(
    *arguments: str, files: dict[str, typing.Any] | None = None, kernel: tuple[int, int] = (6, 12)
) -> components.Plan:
    facts = dataclasses.replace(fakes.FACTS, kernel=kernel)
    return dataclasses.replace(fakes.make_plan(ROOT, *arguments, facts=facts), files=files or {})


def make_pod(plan: components.Plan, name: str) -> dict[str, typing.Any]:
    pod = yaml.safe_load(manifests.static_pod(name, manifests.values(plan)))
    return typing.cast("dict[str, typing.Any]", pod["spec"])


def make_config_maps(plan: components.Plan) -> dict[str, dict[str, str]]:
    made = manifests.system(manifests.values(plan))
    component_files.change_system(plan, made)
    return {each["metadata"]["name"]: each["data"] for each in made if each["kind"] == "ConfigMap"}


def test_fields_win_over_the_file_and_the_file_over_p8s() -> None:
    plan = make_plan(
        "--extra-config=kubelet.maxPods=50",
        "--extra-config=kubelet.evictionHard={memory.available: 1Gi}",
        "--feature-gates=A=true",
        files={"kubelet.yaml": {"maxPods": 40, "failSwapOn": True, "clusterDNS": ["10.0.0.9"]}},
    )
    own = components.kubelet_config(plan)
    found = component_files.merge(plan, "kubelet", own)
    assert found["maxPods"] == 50
    assert found["failSwapOn"] is True
    assert found["clusterDNS"] == ["10.0.0.9"]
    assert found["evictionHard"] == own["evictionHard"] | {"memory.available": "1Gi"}
    assert found["featureGates"] == {"A": True}
    untouched = own.keys() - {"failSwapOn", "clusterDNS", "evictionHard"}
    assert {key: found[key] for key in untouched} == {key: own[key] for key in untouched}


def test_flags_reach_the_commands() -> None:
    plan = make_plan(
        "--extra-config=kube-apiserver.v=4",
        "--extra-config=etcd.snapshot-count=1000",
        "--extra-config=kubelet.max-pods=30",
    )
    assert components.kube_apiserver(plan)[-1] == "--v=4"
    assert "--v=1" not in components.kube_apiserver(plan)
    assert components.etcd(plan)[-1] == "--snapshot-count=1000"
    assert components.kubelet(plan)[-1] == "--max-pods=30"


def test_issuers_of_jwts_are_added_and_probes_stay() -> None:
    plan = make_plan(files={"authentication.yaml": {"jwt": [JWT]}})
    found = component_files.authentication(plan)
    assert found["jwt"] == [JWT]
    assert found["anonymous"] == component_files.authentication(make_plan())["anonymous"]


def test_a_scheduler_with_configuration_has_nothing_of_it_as_flags() -> None:
    plan = make_plan(files={"kube-scheduler.yaml": {"percentageOfNodesToScore": 100}})
    command = components.kube_scheduler(plan)
    assert "--config=/etc/kubernetes/scheduler.yaml" in command
    flags = {word.partition("=")[0] for word in command}
    assert not flags & {"--kubeconfig", "--kube-api-qps", "--profiling", "--leader-elect"}
    config = component_files.kube_scheduler(plan)
    assert config["percentageOfNodesToScore"] == 100
    assert config["clientConnection"]["kubeconfig"] == "/etc/kubernetes/scheduler.conf"
    assert config["leaderElection"] == {"leaderElect": False}
    assert list(component_files.list_texts(plan)) == [plan.paths.scheduler_config]
    mounts = make_pod(plan, "kube-scheduler")["containers"][0]["volumeMounts"]
    assert "/etc/kubernetes/scheduler.yaml" in [mount["mountPath"] for mount in mounts]


@pytest.mark.parametrize(
    ("name", "is_mounted"),
    [("kube-apiserver", True), ("kube-controller-manager", False), ("kube-scheduler", False)],
)
def test_a_pod_whose_flags_name_the_directory_sees_it(name: str, is_mounted: bool) -> None:
    plan = make_plan(
        "--extra-config=kube-apiserver.admission-control-config-file=/etc/p8s/config/a.yaml"
    )
    spec = make_pod(plan, name)
    mounts = [mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]]
    assert ("/etc/p8s/config" in mounts) is is_mounted
    volumes = [volume["name"] for volume in spec["volumes"]]
    assert sorted(volumes) == sorted(
        mount["name"] for mount in spec["containers"][0]["volumeMounts"]
    )


def test_a_policy_of_the_user_s_makes_an_audit_log() -> None:
    policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Request"}]}
    plan = make_plan(files={"audit-policy.yaml": policy})
    assert f"--audit-policy-file={plan.paths.audit_policy}" in components.kube_apiserver(plan)
    assert yaml.safe_load(component_files.list_texts(plan)[plan.paths.audit_policy]) == policy
    mounts = make_pod(plan, "kube-apiserver")["containers"][0]["volumeMounts"]
    assert str(plan.paths.audit_policy) in [mount["mountPath"] for mount in mounts]


def test_the_config_maps_of_the_system() -> None:
    usual = make_config_maps(make_plan())
    plan = make_plan(
        "--extra-config=kube-proxy.nftables.minSyncPeriod=2s",
        files={"Corefile": ".:53 {\n}\n", "kube-proxy.yaml": {"nodePortAddresses": ["primary"]}},
    )
    found = make_config_maps(plan)
    assert found["coredns"] == {"Corefile": ".:53 {\n}\n"}
    before, after = (yaml.safe_load(made["kube-proxy"]["config.conf"]) for made in (usual, found))
    assert after["nftables"] == {"minSyncPeriod": "2s", "syncPeriod": "30s"}
    assert after.pop("nodePortAddresses") == ["primary"]
    assert after == before | {"nftables": after["nftables"]}
    assert found["kube-proxy"]["kubeconfig.conf"] == usual["kube-proxy"]["kubeconfig.conf"]


@pytest.mark.parametrize(
    ("setting", "kernel", "mode"),
    [
        pytest.param("auto", (6, 12), "nftables", id="a new kernel"),
        pytest.param("auto", (5, 13), "nftables", id="the oldest that has it"),
        pytest.param("auto", (5, 10), "iptables", id="an old kernel"),
        pytest.param("iptables", (6, 12), "iptables", id="asked for"),
        pytest.param("nftables", (5, 10), "nftables", id="asked for all the same"),
    ],
)
def test_proxy_mode(setting: str, kernel: tuple[int, int], mode: str) -> None:
    plan = make_plan(f"--proxy-mode={setting}", kernel=kernel)
    assert component_files.proxy_mode(plan) == mode
    assert f"mode: {mode}" in make_config_maps(plan)["kube-proxy"]["config.conf"]


@pytest.mark.parametrize(
    ("arguments", "files", "kernel", "fits"),
    [
        pytest.param([], [], (6, 12), True, id="nothing given"),
        pytest.param(["--extra-config=kubelet.maxPods=9"], [], (6, 12), True, id="kubelet's"),
        pytest.param(["--extra-config=etcd.snapshot-count=9"], [], (6, 12), True, id="etcd's"),
        pytest.param(["--extra-config=kube-apiserver.v=3"], [], (6, 12), False, id="apiserver's"),
        pytest.param(["--feature-gates=A=true"], [], (6, 12), False, id="gates"),
        pytest.param(["--proxy-mode=iptables"], [], (6, 12), False, id="another mode"),
        pytest.param([], [], (5, 10), False, id="another mode for the kernel's sake"),
        pytest.param([], ["Corefile"], (6, 12), False, id="a Corefile"),
        pytest.param([], ["kube-scheduler.yaml"], (6, 12), False, id="the scheduler's"),
        pytest.param(
            [],
            ["kubelet.yaml", overrides.AUDIT_POLICY, overrides.AUTHENTICATION],
            (6, 12),
            True,
            id="what makes no object",
        ),
    ],
)
def test_the_seed_is_only_for_what_it_was_made_with(
    arguments: list[str], files: list[str], kernel: tuple[int, int], fits: bool
) -> None:
    plan = make_plan(*arguments, files={name: {} for name in files}, kernel=kernel)
    assert component_files.fits_seed(plan) is fits
