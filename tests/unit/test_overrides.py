"""What users give the components themselves: how it is read, refused and merged."""

from __future__ import annotations

import pathlib
import typing

import pytest

from p8s_supervisor import errors, overrides, reserved, settings

Entry = overrides.Entry


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", (), id="nothing"),
        pytest.param(
            "kube-apiserver.v=4", (Entry("kube-apiserver", "v", "4"),), id="a flag without a dash"
        ),
        pytest.param(
            "kubelet.maxPods=50 etcd.snapshot-count=1000\nkube-scheduler.v=2",
            (
                Entry("kubelet", "maxPods", "50"),
                Entry("etcd", "snapshot-count", "1000"),
                Entry("kube-scheduler", "v", "2"),
            ),
            id="blanks and lines between them",
        ),
        pytest.param(
            "kube-apiserver.feature-gates=A=true,B=false",
            (Entry("kube-apiserver", "feature-gates", "A=true,B=false"),),
            id="a value with = and commas",
        ),
        pytest.param(
            "kube-apiserver.service-account-issuer=https://a b kubelet.v=1",
            (
                Entry("kube-apiserver", "service-account-issuer", "https://a b"),
                Entry("kubelet", "v", "1"),
            ),
            id="a value with a blank",
        ),
        pytest.param(
            "kubelet.evictionHard={memory.available: 1Gi, nodefs.available: 1%}",
            (Entry("kubelet", "evictionHard", "{memory.available: 1Gi, nodefs.available: 1%}"),),
            id="a value in YAML",
        ),
    ],
)
def test_parse(text: str, expected: tuple[Entry, ...]) -> None:
    assert overrides.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("maxPods=50", "'maxPods=50' is not COMPONENT.KEY=VALUE", id="no component"),
        pytest.param("kubelet.maxPods", "'kubelet.maxPods' is not COMPONENT.KEY=VALUE", id="no ="),
        pytest.param(
            "apiserver.v=2",
            "apiserver.v: no such component; did you mean kube-apiserver?",
            id="minikube's name",
        ),
        pytest.param(
            "x.v=2",
            f"x.v: no such component; did you mean {', '.join(overrides.COMPONENTS)}?",
            id="no component at all",
        ),
        pytest.param(
            "kubelet.evictionHard={", "kubelet.evictionHard: '{' is no value in YAML", id="no YAML"
        ),
        pytest.param(
            "kube-proxy.x=2026-01-01", "is no value in YAML that JSON has too", id="a date"
        ),
        pytest.param(
            "kube-apiserver.secure-port=7443",
            "kube-apiserver.secure-port: it cannot be given: use the setting api_port",
            id="a port",
        ),
        pytest.param(
            "kube-apiserver.oidc-issuer-url=https://x",
            "write it into /etc/p8s/config/authentication.yaml",
            id="OIDC",
        ),
        pytest.param(
            "kube-apiserver.tls-private-key-file=/x", "p8s makes keys and certificates", id="a key"
        ),
        pytest.param("etcd.data-dir=/x", "the volume at /var/lib/p8s", id="etcd's data"),
        pytest.param("etcd.peer-cert-file=/x", "p8s makes keys", id="a certificate of etcd's"),
        pytest.param("etcd.quota-backend-bytes=1", "use the setting etcd_quota", id="etcd's size"),
        pytest.param("kube-controller-manager.cluster-cidr=x", "pod_cidr", id="the pods' range"),
        pytest.param(
            "kube-scheduler.config=/x", "/etc/p8s/config/kube-scheduler.yaml", id="a whole file"
        ),
        pytest.param("kubelet.clusterDomain=x", "use the setting cluster_domain", id="a field"),
        pytest.param(
            "kubelet.cluster-domain=x", "use the setting cluster_domain", id="a field's flag"
        ),
        pytest.param(
            "kubelet.tls-cert-file=/x",
            "p8s makes keys",
            id="a flag that is a field of another name",
        ),
        pytest.param(
            "kubelet.authentication.anonymous.enabled=true",
            "p8s sets who may call kubelet",
            id="a part of a field",
        ),
        pytest.param("kube-proxy.mode=iptables", "use the setting proxy_mode", id="the mode"),
        pytest.param(
            "kube-proxy.proxy-mode=iptables", "give the field", id="a flag that is not looked at"
        ),
        pytest.param(
            "kube-proxy.conntrack={min: 1}", "the conntrack table belongs to the host", id="host's"
        ),
    ],
)
def test_what_is_wrong_is_named(text: str, told: str) -> None:
    with pytest.raises(ValueError) as caught:
        overrides.parse(text)
    assert told in str(caught.value)


def test_everything_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(errors.SettingsError) as caught:
        settings.load(
            ["--extra-config=kubelet.v", "--extra-config=etcd.name=x", "--feature-gates=A"], {}
        )
    first, second = caught.value.errors
    assert "'kubelet.v' is not" in first
    assert "etcd.name: it cannot be given: etcd has one member" in first
    assert "'A' is neither NAME=true nor NAME=false" in second


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        pytest.param(
            ["--extra-config=kubelet.v=1", "--extra-config", "etcd.snapshot-count=2"],
            {},
            ["kubelet.v", "etcd.snapshot-count"],
            id="a flag twice",
        ),
        pytest.param(
            [], {"P8S_EXTRA_CONFIG": "kubelet.v=1 etcd.v=2"}, ["kubelet.v", "etcd.v"], id="variable"
        ),
        pytest.param(
            ["--extra-config=kubelet.v=1"],
            {"P8S_EXTRA_CONFIG": "etcd.v=2"},
            ["kubelet.v"],
            id="flags win over the variable",
        ),
    ],
)
def test_sources(
    arguments: list[str],
    environment: dict[str, str],
    expected: list[str],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settings, "DEFAULT_FILE", tmp_path / "none.yaml")
    loaded = settings.load(arguments, environment)
    assert [f"{one.component}.{one.key}" for one in loaded.settings.extra_config] == expected
    assert settings.from_json(loaded.to_json()).settings == loaded.settings


def test_a_list_of_the_settings_file(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("extra_config:\n- kubelet.maxPods=50\n- kube-apiserver.x=a,b\n")
    loaded = settings.load([f"--config={file}"], {})
    assert [one.value for one in loaded.settings.extra_config] == ["50", "a,b"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", {}, id="none"),
        pytest.param("A=true, B=false", {"A": True, "B": False}, id="two"),
    ],
)
def test_parse_gates(text: str, expected: dict[str, bool]) -> None:
    assert overrides.parse_gates(text) == expected


@pytest.mark.parametrize("text", ["A", "A=yes", "=true", "A=true;B=true"])
def test_what_is_no_gate(text: str) -> None:
    with pytest.raises(ValueError, match="is neither NAME=true nor NAME=false"):
        overrides.parse_gates(text)


OWN = [
    "/usr/local/bin/kube-apiserver",
    "--authorization-mode=Node,RBAC",
    "--enable-admission-plugins=NodeRestriction",
    "--profiling=false",
]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param("kubelet.v=9 etcd.profiling=true", OWN, id="of another component"),
        pytest.param(
            "kube-apiserver.profiling=true",
            [*OWN[:3], "--profiling=true"],
            id="in place of p8s' own",
        ),
        pytest.param(
            "kube-apiserver.api-audiences=a kube-apiserver.api-audiences=b",
            [*OWN, "--api-audiences=a", "--api-audiences=b"],
            id="one flag twice",
        ),
        pytest.param(
            "kube-apiserver.enable-admission-plugins=AlwaysPullImages",
            [*OWN[:2], OWN[3], "--enable-admission-plugins=NodeRestriction,AlwaysPullImages"],
            id="plugins are joined",
        ),
        pytest.param(
            "kube-apiserver.disable-admission-plugins=NodeRestriction,PodSecurity",
            [*OWN[:2], OWN[3], "--disable-admission-plugins=NodeRestriction,PodSecurity"],
            id="p8s' own plugin taken away",
        ),
        pytest.param(
            "kube-apiserver.authorization-config=/etc/p8s/config/x.yaml",
            [OWN[0], *OWN[2:], "--authorization-config=/etc/p8s/config/x.yaml"],
            id="in place of a flag of another name",
        ),
    ],
)
def test_merge_flags(given: str, expected: list[str]) -> None:
    assert overrides.merge_flags(OWN, overrides.parse(given)) == expected


def test_gates_reach_every_kubernetes_component_and_one_component_s_own_win() -> None:
    own = overrides.parse("kube-scheduler.feature-gates=A=false kubelet.featureGates.A=false")
    entries = overrides.with_gates(own, {"A": True, "B": False})
    flags = {
        name: overrides.merge_flags([name], entries)
        for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
    }
    assert flags["etcd"] == ["etcd"]
    assert flags["kube-apiserver"] == ["kube-apiserver", "--feature-gates=A=true,B=false"]
    assert flags["kube-scheduler"][1] == "--feature-gates=A=true,B=false,A=false"
    fields = [entry.to_object() for entry in entries if entry.component == "kubelet"]
    assert fields == [{"featureGates": {"A": True, "B": False}}, {"featureGates": {"A": False}}]


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        pytest.param({"a": 1, "b": 2}, {"b": 3}, {"a": 1, "b": 3}, id="a value is replaced"),
        pytest.param({"a": {"x": 1}}, {"a": {"y": 2}}, {"a": {"x": 1, "y": 2}}, id="merged"),
        pytest.param({"a": [1, 2]}, {"a": [3]}, {"a": [3]}, id="a list is replaced"),
        pytest.param({"a": 1, "b": 2}, {"a": None}, {"b": 2}, id="null takes away"),
        pytest.param({"a": 1}, {"a": {"x": None, "y": 1}}, {"a": {"y": 1}}, id="over no mapping"),
    ],
)
def test_merge(own: typing.Any, other: typing.Any, expected: typing.Any) -> None:
    kept = repr(own)
    assert overrides.merge(own, other) == expected
    assert repr(own) == kept


def write(directory: pathlib.Path, files: dict[str, str]) -> pathlib.Path:
    for name, text in files.items():
        (directory / name).write_text(text)
    return directory


def test_files(tmp_path: pathlib.Path) -> None:
    assert overrides.read_files(tmp_path / "none") == {}
    found = overrides.read_files(
        write(
            tmp_path,
            {
                "kubelet.yaml": "maxPods: 50\n",
                "audit-policy.yaml": "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []\n",
                "Corefile": ".:53 {\n}\n",
                "admission.yaml": "what a flag names is for the component alone",
            },
        )
    )
    assert found == {
        "kubelet.yaml": {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "maxPods": 50,
        },
        "audit-policy.yaml": {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": []},
        "Corefile": ".:53 {\n}\n",
    }


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        pytest.param("kubelet.yaml", "a: [1\n", "not YAML: line 2: ", id="no YAML"),
        pytest.param("kubelet.yaml", "- 1\n", "not an object", id="a list"),
        pytest.param("kubelet.yaml", "a: 2026-01-01\n", "not YAML that JSON could hold", id="date"),
        pytest.param(
            "kube-proxy.yaml",
            "kind: KubeletConfiguration\n",
            "its kind is KubeletConfiguration; it has to be KubeProxyConfiguration, or left out",
            id="of another kind",
        ),
        pytest.param(
            "kube-scheduler.yaml",
            "clientConnection: {kubeconfig: /x}\n",
            "clientConnection.kubeconfig: it cannot be given: p8s makes it",
            id="what p8s needs",
        ),
        pytest.param(
            "authentication.yaml", "anonymous: {enabled: false}\n", "kubelet's probes", id="probes"
        ),
        pytest.param("kubelet.yml", "", "did you mean kubelet.yaml?", id="a name that is near one"),
        pytest.param("corefile", "", "did you mean Corefile?", id="another case"),
    ],
)
def test_a_file_that_cannot_be_used(
    tmp_path: pathlib.Path, name: str, text: str, told: str
) -> None:
    with pytest.raises(errors.SettingsError) as caught:
        overrides.read_files(write(tmp_path, {name: text}))
    (wrong,) = caught.value.errors
    assert wrong.startswith(f"{tmp_path / name}: ")
    assert told in wrong


def test_every_component_has_its_tables() -> None:
    assert set(reserved.FLAGS) == set(overrides.COMPONENTS)
    files = {name.removesuffix(".yaml") for name in overrides.FILES}
    assert set(reserved.FIELDS) == {*overrides.CONFIGURED, "authentication"}
    assert set(overrides.CONFIGURED) <= files
