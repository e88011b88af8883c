"""The manifests: what they render to, and that they fit the node."""

from __future__ import annotations

import pathlib
import typing

import pytest
import yaml

from p8s_supervisor import manifests
from tests import fakes

ROOT = pathlib.Path("/")
Object = dict[str, typing.Any]
CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
STATIC = (*CONTROL_PLANE, "resolver")
SYSTEM = [
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "p8s:kube-apiserver-kubelet-client"),
    ("v1", "ServiceAccount", "kube-proxy"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "p8s:kube-proxy"),
    ("v1", "ConfigMap", "kube-proxy"),
    ("apps/v1", "DaemonSet", "kube-proxy"),
    ("v1", "ServiceAccount", "coredns"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", "system:coredns"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "system:coredns"),
    ("v1", "ConfigMap", "coredns"),
    ("v1", "Service", "kube-dns"),
    ("apps/v1", "Deployment", "coredns"),
    (
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicy",
        "networkpolicy-is-not-enforced",
    ),
    (
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicyBinding",
        "networkpolicy-is-not-enforced",
    ),
]


def make_static_pods(*arguments: str) -> dict[str, Object]:
    names = manifests.values(fakes.make_plan(ROOT, *arguments))
    return {name: yaml.safe_load(manifests.static_pod(name, names)) for name in STATIC}


def make_system(*arguments: str) -> dict[tuple[str, str], Object]:
    objects = manifests.system(manifests.values(fakes.make_plan(ROOT, *arguments)))
    return {(made["kind"], made["metadata"]["name"]): made for made in objects}


def pod_specs() -> dict[str, Object]:
    """The spec of each pod that p8s brings along."""
    specs = {name: pod["spec"] for name, pod in make_static_pods().items()}
    for (kind, name), made in make_system().items():
        if kind in ("DaemonSet", "Deployment"):
            specs[name] = made["spec"]["template"]["spec"]
    return specs


PODS = [*STATIC, "kube-proxy", "coredns"]


def test_render_fills_names_in_and_knows_a_dollar_sign(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("a: $NAME\nb: ${NAME}s\nc: $$(NAME)\n")
    assert manifests.render(file, {"NAME": "v"}) == "a: v\nb: vs\nc: $(NAME)\n"


def test_render_refuses_a_name_that_it_does_not_know(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("a: $UNKNOWN\n")
    with pytest.raises(KeyError, match="UNKNOWN"):
        manifests.render(file, {"NAME": "v"})


def test_every_value_is_used_by_a_manifest() -> None:
    names = manifests.values(fakes.make_plan(ROOT))
    texts = "".join(file.read_text() for file in manifests.DIRECTORY.glob("**/*.yaml"))
    assert {name for name in names if f"${name}" in texts} == set(names)


@pytest.mark.parametrize("name", STATIC)
def test_a_static_pod_is_one_pod_without_a_dollar_sign(name: str) -> None:
    text = manifests.static_pod(name, manifests.values(fakes.make_plan(ROOT)))
    pod = yaml.safe_load(text)
    assert "$" not in text
    assert (pod["apiVersion"], pod["kind"]) == ("v1", "Pod")
    assert pod["metadata"]["name"] == name
    assert pod["metadata"]["namespace"] == "kube-system"
    assert pod["spec"]["hostNetwork"] is True


def test_there_is_no_other_static_pod() -> None:
    files = (manifests.DIRECTORY / "static-pods").iterdir()
    assert sorted(file.name for file in files) == [f"{name}.yaml" for name in STATIC]


def test_system_manifests_are_these_objects_in_this_order() -> None:
    objects = manifests.system(manifests.values(fakes.make_plan(ROOT)))
    found = [(made["apiVersion"], made["kind"], made["metadata"]["name"]) for made in objects]
    assert found == SYSTEM
    assert {
        made["metadata"].get("namespace")
        for made in objects
        if not made["kind"].startswith(("Cluster", "ValidatingAdmission"))
    } == {"kube-system"}


def test_the_only_dollar_signs_of_system_manifests_are_the_kubelet_s() -> None:
    objects = manifests.system(manifests.values(fakes.make_plan(ROOT)))
    lines = yaml.safe_dump_all(objects).splitlines()
    assert [line.strip() for line in lines if "$" in line] == ["- --hostname-override=$(NODE_NAME)"]


@pytest.mark.parametrize("name", PODS)
def test_containers_run_the_node_s_own_image_and_nothing_is_pulled(name: str) -> None:
    spec = pod_specs()[name]
    containers = spec["containers"] + spec.get("initContainers", [])
    assert [(container["image"], container["imagePullPolicy"]) for container in containers] == [
        ("p8s.local/node:1", "Never")
    ]


@pytest.mark.parametrize("name", PODS)
def test_every_volume_is_mounted_and_every_mount_has_its_volume(name: str) -> None:
    spec = pod_specs()[name]
    volumes = [volume["name"] for volume in spec["volumes"]]
    (container,) = spec["containers"]
    mounts = [mount["name"] for mount in container["volumeMounts"]]
    assert sorted(mounts) == sorted(volumes) == sorted(set(volumes))


@pytest.mark.parametrize("name", CONTROL_PLANE)
def test_a_static_pod_sees_every_file_that_its_flags_name(name: str) -> None:
    (container,) = make_static_pods()[name]["spec"]["containers"]
    mounted = [pathlib.Path(mount["mountPath"]) for mount in container["volumeMounts"]]
    values = [word.partition("=")[2] for word in container["command"]]
    named = {value for value in values if value.startswith("/")}
    unseen = {
        value for value in named if not any(pathlib.Path(value).is_relative_to(m) for m in mounted)
    }
    assert unseen == set()
    assert named


@pytest.mark.parametrize("name", PODS)
def test_nothing_of_the_node_can_be_written_by_a_pod(name: str) -> None:
    spec = pod_specs()[name]
    host_paths = {volume["name"] for volume in spec["volumes"] if "hostPath" in volume}
    (container,) = spec["containers"]
    writable = {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable & host_paths == set()


@pytest.mark.parametrize("name", PODS)
def test_a_pod_may_not_be_evicted_before_workloads(name: str) -> None:
    expected = "system-cluster-critical" if name == "coredns" else "system-node-critical"
    assert pod_specs()[name]["priorityClassName"] == expected


@pytest.mark.parametrize(("name", "key"), [("kube-proxy", "DaemonSet"), ("coredns", "Deployment")])
def test_a_controller_selects_its_own_pods(name: str, key: str) -> None:
    spec = make_system()[key, name]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()


def test_only_kube_proxy_is_privileged() -> None:
    privileged = {
        name
        for name, spec in pod_specs().items()
        if spec["containers"][0].get("securityContext", {}).get("privileged")
    }
    assert privileged == {"kube-proxy"}


@pytest.mark.parametrize("name", ["coredns", "resolver"])
def test_coredns_keeps_no_capability_that_it_does_not_need(name: str) -> None:
    (container,) = pod_specs()[name]["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
    }


def test_settings_reach_the_manifests() -> None:
    arguments = (
        "--api-port=7443",
        "--pod-cidr=10.97.0.0/20",
        "--service-cidr=10.96.0.0/16",
        "--cluster-domain=box.test",
        "--verbosity=4",
    )
    static, objects = make_static_pods(*arguments), make_system(*arguments)
    (apiserver,) = static["kube-apiserver"]["spec"]["containers"]
    assert {
        apiserver[probe]["httpGet"]["port"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    } == {7443}
    assert objects["Service", "kube-dns"]["spec"]["clusterIP"] == "10.96.0.2"
    proxy = objects["ConfigMap", "kube-proxy"]["data"]
    config = yaml.safe_load(proxy["config.conf"])
    assert (config["kind"], config["clusterCIDR"], config["mode"]) == (
        "KubeProxyConfiguration",
        "10.97.0.0/20",
        "nftables",
    )
    kubeconfig = yaml.safe_load(proxy["kubeconfig.conf"])
    assert kubeconfig["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:7443"
    (container,) = objects["DaemonSet", "kube-proxy"]["spec"]["template"]["spec"]["containers"]
    assert container["command"][-1] == "--v=4"
    corefile = objects["ConfigMap", "coredns"]["data"]["Corefile"]
    assert "kubernetes box.test in-addr.arpa ip6.arpa {" in corefile
    (coredns,) = objects["Deployment", "coredns"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "KUBERNETES_SERVICE_PORT", "value": "7443"} in coredns["env"]


def test_the_ports_that_kube_proxy_listens_on_are_on_loopback() -> None:
    config = yaml.safe_load(make_system()["ConfigMap", "kube-proxy"]["data"]["config.conf"])
    assert (config["healthzBindAddress"], config["metricsBindAddress"]) == (
        "127.0.0.1:10256",
        "127.0.0.1:10249",
    )


def test_the_conntrack_table_of_the_host_is_left_alone() -> None:
    config = yaml.safe_load(make_system()["ConfigMap", "kube-proxy"]["data"]["config.conf"])
    assert config["conntrack"] == {
        "maxPerCore": 0,
        "min": 0,
        "tcpEstablishedTimeout": "0s",
        "tcpCloseWaitTimeout": "0s",
    }
