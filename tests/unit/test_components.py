"""What the components are started with."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import shlex
import subprocess
import tomllib
import typing

import pytest
import yaml

from p8s_supervisor import component_files, components, manifests, pki, runtime
from tests import fakes

ROOT = pathlib.Path("/")
MAKERS: dict[str, typing.Callable[[components.Plan], list[str]]] = {
    "etcd": components.etcd,
    "containerd": components.containerd,
    "kubelet": components.kubelet,
    "kube-apiserver": components.kube_apiserver,
    "kube-controller-manager": components.kube_controller_manager,
    "kube-scheduler": components.kube_scheduler,
}


def read_flags(command: list[str]) -> dict[str, str]:
    """Flag → value; every word after the program must be --flag=value, and none given twice."""
    pairs = [word.split("=", 1) for word in command[1:]]
    assert all(len(pair) == 2 and pair[0].startswith("--") for pair in pairs), command
    flags = {name: value for name, value in pairs}  # noqa: C416 — mypy knows no pairs of lists
    assert len(flags) == len(pairs), "a flag is given twice"
    return flags


@pytest.mark.parametrize(
    ("component", "flags"),
    [
        pytest.param(
            "etcd",
            {
                "--client-cert-auth": "true",
                "--peer-client-cert-auth": "true",
                "--trusted-ca-file": "/etc/kubernetes/pki/etcd-ca.crt",
                "--peer-trusted-ca-file": "/etc/kubernetes/pki/etcd-ca.crt",
                "--listen-client-urls": "https://127.0.0.1:2379",
                "--listen-peer-urls": "https://127.0.0.1:2380",
            },
            id="etcd: mutual TLS with a CA of its own, on loopback alone",
        ),
        pytest.param(
            "kube-apiserver",
            {
                "--authorization-mode": "Node,RBAC",
                "--enable-admission-plugins": "NodeRestriction",
                "--profiling": "false",
                "--client-ca-file": "/etc/kubernetes/pki/ca.crt",
                "--etcd-servers": "https://127.0.0.1:2379",
                "--etcd-cafile": "/etc/kubernetes/pki/etcd-ca.crt",
                "--etcd-certfile": "/etc/kubernetes/pki/apiserver-etcd-client.crt",
                "--kubelet-certificate-authority": "/etc/kubernetes/pki/ca.crt",
                "--kubelet-client-certificate": (
                    "/etc/kubernetes/pki/apiserver-kubelet-client.crt"
                ),
                "--requestheader-client-ca-file": "/etc/kubernetes/pki/front-proxy-ca.crt",
                "--requestheader-allowed-names": "front-proxy-client",
                "--service-account-issuer": "https://kubernetes.default.svc.cluster.local",
                "--service-account-signing-key-file": "/var/lib/p8s/pki/sa.key",
                "--secure-port": "6443",
                "--advertise-address": "172.17.0.2",
                "--service-cluster-ip-range": "192.168.254.0/24",
            },
            id="kube-apiserver: authorization, admission, CAs",
        ),
        pytest.param(
            "kube-controller-manager",
            {
                "--bind-address": "127.0.0.1",
                "--authentication-kubeconfig": "/etc/kubernetes/controller-manager.conf",
                "--authorization-kubeconfig": "/etc/kubernetes/controller-manager.conf",
                "--use-service-account-credentials": "true",
                "--profiling": "false",
                "--leader-elect": "false",
                "--kube-api-qps": "2000",
                "--kube-api-burst": "2000",
                "--root-ca-file": "/etc/kubernetes/pki/ca.crt",
                "--service-account-private-key-file": "/var/lib/p8s/pki/sa.key",
                "--cluster-cidr": "192.168.253.0/24",
                "--node-cidr-mask-size": "24",
                "--service-cluster-ip-range": "192.168.254.0/24",
            },
            id="kube-controller-manager: loopback, own credentials, limits raised",
        ),
        pytest.param(
            "kube-scheduler",
            {
                "--bind-address": "127.0.0.1",
                "--authentication-kubeconfig": "/etc/kubernetes/scheduler.conf",
                "--authorization-kubeconfig": "/etc/kubernetes/scheduler.conf",
                "--profiling": "false",
                "--leader-elect": "false",
                "--kube-api-qps": "2000",
            },
            id="kube-scheduler: loopback",
        ),
        pytest.param(
            "kubelet",
            {
                "--config": "/etc/kubernetes/kubelet.yaml",
                "--kubeconfig": "/etc/kubernetes/kubelet.conf",
                "--hostname-override": "p8s",
                "--node-ip": "172.17.0.2",
                "--root-dir": "/var/lib/kubelet",
            },
            id="kubelet",
        ),
        pytest.param("containerd", {"--config": "/etc/containerd/config.toml"}, id="containerd"),
    ],
)
def test_a_component_has_the_flags_that_matter(component: str, flags: dict[str, str]) -> None:
    given = read_flags(MAKERS[component](fakes.make_plan(ROOT)))
    assert {name: given.get(name) for name in flags} == flags


@pytest.mark.parametrize("component", MAKERS)
@pytest.mark.parametrize(
    "flag", ["--insecure", "--token-auth-file", "--anonymous-auth=true", "AlwaysAllow"]
)
def test_no_component_is_open(component: str, flag: str) -> None:
    assert not [word for word in MAKERS[component](fakes.make_plan(ROOT)) if flag in word]


@pytest.mark.parametrize(
    ("component", "flag", "argument", "value"),
    [
        pytest.param("kube-apiserver", "--secure-port", "--api-port=7443", "7443", id="port"),
        pytest.param(
            "kube-apiserver",
            "--service-cluster-ip-range",
            "--service-cidr=10.96.0.0/16",
            "10.96.0.0/16",
            id="service range",
        ),
        pytest.param(
            "kube-controller-manager",
            "--cluster-cidr",
            "--pod-cidr=10.97.0.0/20",
            "10.97.0.0/20",
            id="pod range",
        ),
        pytest.param(
            "kube-controller-manager",
            "--node-cidr-mask-size",
            "--pod-cidr=10.97.0.0/20",
            "20",
            id="the one node's range",
        ),
        pytest.param(
            "kube-apiserver",
            "--service-account-issuer",
            "--cluster-domain=box.test",
            "https://kubernetes.default.svc.box.test",
            id="domain",
        ),
        pytest.param("kubelet", "--hostname-override", "--node-name=box", "box", id="node name"),
        *(
            pytest.param(name, "--v", "--verbosity=4", "4", id=f"verbosity of {name}")
            for name in ("kubelet", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
        ),
    ],
)
def test_settings_reach_the_flags(component: str, flag: str, argument: str, value: str) -> None:
    assert read_flags(MAKERS[component](fakes.make_plan(ROOT, argument)))[flag] == value


@pytest.mark.parametrize(("fsync", "found"), [("always", False), ("never", True)])
def test_etcd_syncs_unless_it_is_told_not_to(fsync: str, found: bool) -> None:
    words = components.etcd(fakes.make_plan(ROOT, f"--etcd-fsync={fsync}"))
    assert ("--unsafe-no-fsync" in words) == found


@pytest.mark.parametrize("component", MAKERS)
def test_every_file_that_a_flag_names_is_one_that_p8s_writes(component: str) -> None:
    plan = fakes.make_plan(ROOT)
    leaves = [leaf.stem for leaf in components.leaves(plan)]
    pki_files = {f"{plan.paths.pki}/{name}.{kind}" for name in leaves for kind in ("crt", "key")}
    pki_files |= {f"{plan.paths.pki}/{name}.crt" for name in pki.AUTHORITIES}
    kept = {f"{plan.paths.authorities}/{name}.key" for name in (*pki.AUTHORITIES, "sa")}
    kept |= {f"{plan.paths.authorities}/{name}.crt" for name in pki.AUTHORITIES}
    kept |= {f"{plan.paths.authorities}/sa.pub"}
    known = pki_files | kept
    known |= {f"{plan.paths.kubernetes}/{file}" for file in components.KUBECONFIGS.values()}
    known |= {str(plan.paths.kubelet_config), str(plan.paths.containerd_config)}
    known |= {str(plan.paths.authentication)}
    named = {
        value
        for name, value in read_flags(MAKERS[component](plan)).items()
        if value.startswith("/") and name not in ("--data-dir", "--root-dir")
    }
    assert named <= known
    assert named


def test_every_kubeconfig_is_of_a_leaf_for_clients() -> None:
    leaves = {leaf.name: leaf for leaf in components.leaves(fakes.make_plan(ROOT))}
    assert {name: leaves[name].client for name in components.KUBECONFIGS} == dict.fromkeys(
        ["kubelet-client", "controller-manager", "scheduler", "admin"], True
    )


@pytest.mark.parametrize(
    ("leaf", "arguments", "sans"),
    [
        pytest.param(
            "apiserver",
            [],
            {
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.cluster.local",
                "localhost",
                "p8s",
                "127.0.0.1",
                "172.17.0.2",
                "192.168.253.1",
                "192.168.254.1",
            },
            id="kube-apiserver",
        ),
        pytest.param(
            "apiserver",
            [
                "--node-name=box",
                "--cluster-domain=box.test",
                "--service-cidr=10.96.0.0/16",
                "--extra-sans=a.example,192.0.2.7",
            ],
            {
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.box.test",
                "localhost",
                "box",
                "127.0.0.1",
                "172.17.0.2",
                "10.96.0.1",
                "192.168.253.1",
                "a.example",
                "192.0.2.7",
            },
            id="kube-apiserver with settings",
        ),
        pytest.param("kubelet", [], {"p8s", "172.17.0.2", "localhost", "127.0.0.1"}, id="kubelet"),
        pytest.param("etcd-server", [], {"localhost", "127.0.0.1", "p8s"}, id="etcd"),
        pytest.param("controller-manager", [], {"localhost", "127.0.0.1"}, id="controllers"),
        pytest.param("scheduler", [], {"localhost", "127.0.0.1"}, id="scheduler"),
    ],
)
def test_servers_are_known_by_these_names(leaf: str, arguments: list[str], sans: set[str]) -> None:
    leaves = {made.name: made for made in components.leaves(fakes.make_plan(ROOT, *arguments))}
    assert set(leaves[leaf].sans) == sans


@pytest.mark.parametrize(
    ("server", "san"),
    [
        pytest.param("https://p8s.example:7443", "p8s.example", id="name and port"),
        pytest.param("https://p8s.example", "p8s.example", id="name"),
        pytest.param("https://192.0.2.7:6443", "192.0.2.7", id="IPv4 and port"),
        pytest.param("https://[2001:db8::1]:6443", "2001:db8::1", id="IPv6 and port"),
        pytest.param("https://[2001:db8::1]", "2001:db8::1", id="IPv6"),
    ],
)
def test_the_host_s_own_url_is_in_the_certificate(server: str, san: str) -> None:
    plan = fakes.make_plan(ROOT, f"--api-server={server}")
    default = fakes.make_plan(ROOT)
    (own,) = (leaf for leaf in components.leaves(plan) if leaf.name == "apiserver")
    (usual,) = (leaf for leaf in components.leaves(default) if leaf.name == "apiserver")
    assert set(own.sans) - set(usual.sans) == {san}


def test_only_the_administrator_and_the_sidecar_are_masters() -> None:
    groups = {leaf.name: leaf.organization for leaf in components.leaves(fakes.make_plan(ROOT))}
    masters = {name for name, group in groups.items() if group == "system:masters"}
    nodes = {name for name, group in groups.items() if group == "system:nodes"}
    assert (masters, nodes) == ({"admin", "p8s"}, {"kubelet", "kubelet-client"})


# --- configuration


def test_without_credentials_kube_apiserver_answers_at_these_paths_alone() -> None:
    anonymous = component_files.authentication(fakes.make_plan(ROOT))["anonymous"]
    assert anonymous["enabled"] is True
    assert [condition["path"] for condition in anonymous["conditions"]] == [
        "/healthz",
        "/livez",
        "/readyz",
        "/version",
        "/version/",
        "/.well-known/openid-configuration",
        "/openid/v1/jwks",
    ]


def test_every_probe_of_kube_apiserver_is_answered_without_credentials() -> None:
    pod = yaml.safe_load(
        manifests.static_pod("kube-apiserver", manifests.values(fakes.make_plan(ROOT)))
    )
    (container,) = pod["spec"]["containers"]
    paths = {probe["httpGet"]["path"] for key, probe in container.items() if "Probe" in key}
    assert paths
    assert paths <= set(component_files.OPEN_PATHS)


def test_kubelet_lets_nobody_in_without_the_apiserver_s_word() -> None:
    config = components.kubelet_config(fakes.make_plan(ROOT))
    assert config["authentication"] == {
        "anonymous": {"enabled": False},
        "webhook": {"enabled": True},
        "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"},
    }
    assert config["authorization"] == {"mode": "Webhook"}
    assert config["readOnlyPort"] == 0
    assert config["tlsCertFile"] == "/etc/kubernetes/pki/kubelet.crt"
    assert config["tlsPrivateKeyFile"] == "/etc/kubernetes/pki/kubelet.key"
    assert "enableDebuggingHandlers" not in config


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(
            [],
            {
                "clusterDNS": ["192.168.254.2"],
                "clusterDomain": "cluster.local",
                "staticPodPath": "/etc/kubernetes/manifests",
                "resolvConf": "/run/p8s/resolv.conf",
                "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
                "cgroupsPerQOS": True,
                "cgroupDriver": "cgroupfs",
            },
            id="defaults",
        ),
        pytest.param(
            ["--service-cidr=10.96.0.0/16", "--cluster-domain=box.test"],
            {"clusterDNS": ["10.96.0.2"], "clusterDomain": "box.test"},
            id="settings",
        ),
    ],
)
def test_kubelet_config_follows_the_plan(arguments: list[str], expected: dict[str, object]) -> None:
    config = components.kubelet_config(fakes.make_plan(ROOT, *arguments))
    assert {key: config[key] for key in expected} == expected
    assert (config["apiVersion"], config["kind"]) == (
        "kubelet.config.k8s.io/v1beta1",
        "KubeletConfiguration",
    )


@pytest.mark.parametrize(
    ("can_raise_limits", "gates", "restricted"),
    [
        pytest.param(True, None, False, id="with CAP_SYS_RESOURCE"),
        pytest.param(False, {"KubeletInUserNamespace": True}, True, id="without"),
    ],
)
def test_limits_that_cannot_be_raised_are_not_raised(
    can_raise_limits: bool,
    gates: dict[str, bool] | None,
    restricted: bool,
) -> None:
    facts = dataclasses.replace(fakes.FACTS, can_raise_limits=can_raise_limits)
    plan = fakes.make_plan(ROOT, facts=facts)
    config = tomllib.loads(runtime.containerd_config(plan, snapshotter="overlayfs"))
    cri = config["plugins"]["io.containerd.cri.v1.runtime"]
    assert components.kubelet_config(plan).get("featureGates") == gates
    assert cri["restrict_oom_score_adj"] is restricted


@pytest.mark.parametrize("snapshotter", ["overlayfs", "native"])
def test_containerd_config_is_toml_with_the_node_s_paths(snapshotter: str) -> None:
    plan = fakes.make_plan(ROOT)
    config = tomllib.loads(runtime.containerd_config(plan, snapshotter=snapshotter))
    images = config["plugins"]["io.containerd.cri.v1.images"]
    cri = config["plugins"]["io.containerd.cri.v1.runtime"]
    assert config["version"] == 3
    assert config["root"] == "/var/lib/p8s/containerd"
    assert config["grpc"]["address"] == "/run/containerd/containerd.sock"
    assert images["snapshotter"] == snapshotter
    assert images["pinned_images"] == {"sandbox": "p8s.local/pause:1"}
    assert cri["cni"]["conf_dir"] == "/etc/cni/net.d"
    crun = cri["containerd"]["runtimes"][cri["containerd"]["default_runtime_name"]]
    assert crun["options"] == {"BinaryName": "/usr/bin/crun", "SystemdCgroup": False}


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_cni_config_gives_pods_the_pod_range(backend: str) -> None:
    plan = fakes.make_plan(ROOT, "--pod-cidr=10.97.0.0/20")
    config = json.loads(runtime.cni_config(plan, port_map_backend=backend))
    ptp, portmap = config["plugins"]
    assert (config["name"], config["cniVersion"]) == ("p8s", "1.0.0")
    assert (ptp["type"], ptp["ipMasq"], ptp["mtu"]) == ("ptp", False, 1500)
    assert ptp["ipam"] == {
        "type": "host-local",
        "dataDir": "/run/cni/networks",
        "ranges": [[{"subnet": "10.97.0.0/20"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    assert portmap == {
        "type": "portmap",
        "capabilities": {"portMappings": True},
        "snat": True,
        "backend": backend,
    }


DUAL = ("--pod-cidr=10.97.0.0/20,fd42:97::/64", "--service-cidr=10.96.0.0/16,fd42:96::/112")


def test_a_dual_stack_cluster() -> None:
    facts = dataclasses.replace(fakes.FACTS, ipv6_address="fd00:7::2")
    plan = fakes.make_plan(ROOT, *DUAL, facts=facts)
    controller_manager = read_flags(components.kube_controller_manager(plan))
    assert "--node-cidr-mask-size" not in controller_manager
    assert {
        "--cluster-cidr": "10.97.0.0/20,fd42:97::/64",
        "--node-cidr-mask-size-ipv4": "20",
        "--node-cidr-mask-size-ipv6": "64",
        "--service-cluster-ip-range": "10.96.0.0/16,fd42:96::/112",
    }.items() <= controller_manager.items()
    apiserver = read_flags(components.kube_apiserver(plan))
    assert apiserver["--service-cluster-ip-range"] == "10.96.0.0/16,fd42:96::/112"
    assert read_flags(components.kubelet(plan))["--node-ip"] == "172.17.0.2,fd00:7::2"
    sans = {leaf.name: leaf.sans for leaf in components.leaves(plan)}
    assert "fd00:7::2" in sans["apiserver"]
    assert "fd00:7::2" in sans["kubelet"]
    [ptp, _] = json.loads(runtime.cni_config(plan, port_map_backend="nftables"))["plugins"]
    assert ptp["ipam"]["ranges"] == [[{"subnet": "10.97.0.0/20"}], [{"subnet": "fd42:97::/64"}]]
    assert ptp["ipam"]["routes"] == [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]


def test_a_cluster_of_ipv6_alone() -> None:
    facts = dataclasses.replace(fakes.FACTS, ipv6_address="fd00:7::2")
    plan = fakes.make_plan(ROOT, *fakes.IPV6_RANGES, facts=facts)
    controller_manager = read_flags(components.kube_controller_manager(plan))
    assert controller_manager["--node-cidr-mask-size"] == "64"
    assert "--node-cidr-mask-size-ipv6" not in controller_manager
    assert read_flags(components.kube_apiserver(plan))["--advertise-address"] == "fd00:7::2"
    assert read_flags(components.kubelet(plan))["--node-ip"] == "fd00:7::2"
    sans = {leaf.name: leaf.sans for leaf in components.leaves(plan)}
    assert {"fd00:7::2", "fd42:96::1", "fd42:97::1"} <= set(sans["apiserver"])
    [ptp, _] = json.loads(runtime.cni_config(plan, port_map_backend="nftables"))["plugins"]
    assert ptp["ipam"]["ranges"] == [[{"subnet": "fd42:97::/64"}]]
    assert ptp["ipam"]["routes"] == [{"dst": "::/0"}]


# --- command scripts

ODD_WORDS = [
    "/bin/echo",
    "",
    " ",
    "a b",
    "it's",
    'say "hi"',
    "$HOME",
    "`date`",
    "back\\slash",
    "end\\",
    "line\nbreak",
    "*",
    "#no comment",
    "ünï",
    "--flag=value with blanks",
]


def test_a_command_script_is_one_exec_of_exactly_these_words() -> None:
    script = components.command_script(ODD_WORDS)
    # Unlike a shell, shlex takes no line that is continued.
    assert shlex.split(script.replace(" \\\n  ", " ")) == ["exec", *ODD_WORDS]


def test_a_shell_reads_a_command_script_as_it_was_meant(tmp_path: pathlib.Path) -> None:
    script = tmp_path / "script"
    script.write_text(components.command_script(["/usr/bin/env", "printf", "%s|", *ODD_WORDS]))
    done = subprocess.run(["/bin/sh", script], capture_output=True, text=True, check=True)
    assert done.stdout == "".join(f"{word}|" for word in ODD_WORDS)


@pytest.mark.parametrize("component", MAKERS)
def test_a_person_can_read_a_command_script(component: str) -> None:
    command = MAKERS[component](fakes.make_plan(ROOT))
    lines = components.command_script(command).splitlines()
    assert len(lines) == len(command)
    assert all(re.fullmatch(r"(exec |  )\S+( \\)?", line) for line in lines)
