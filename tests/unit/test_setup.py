"""The start's first step: what components read, the record of a volume, the snapshotter."""

from __future__ import annotations

import json
import pathlib
import typing

import pytest
import yaml
from cryptography import x509

from p8s_supervisor import (
    add_on_record,
    commands,
    context,
    errors,
    health,
    network,
    record,
    setup,
)
from tests import fakes

RESOLV_CONF = "nameserver 10.0.0.53\n"


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Packet rules are recorded by the pod range that they are for, and not loaded."""
    loaded: list[str] = []

    def set_up(plan: typing.Any, *, own_resolv_conf: pathlib.Path) -> str:
        assert own_resolv_conf == pathlib.Path("/etc/resolv.conf")
        loaded.append(str(plan.settings.pod_cidr))
        return RESOLV_CONF

    monkeypatch.setattr(network, "set_up", set_up)
    monkeypatch.setattr(commands, "run", fakes.forbid)
    return loaded


def set_up(run: context.Context) -> None:
    setup.set_up(run, health.Monitor(run))


def list_files(root: pathlib.Path) -> dict[str, tuple[int, bytes]]:
    """Each file under a root, with its mode and content."""
    return {
        str(file.relative_to(root)): (file.stat().st_mode & 0o777, file.read_bytes())
        for file in root.rglob("*")
        if file.is_file()
    }


# --- setup


def test_set_up_writes_all_that_components_read(tmp_path: pathlib.Path, rules: list[str]) -> None:
    run = fakes.make_context(tmp_path)
    set_up(run)
    found = list_files(tmp_path)
    secret = {name for name, (mode, _) in found.items() if mode == 0o600}
    leaves = [
        "admin",
        "apiserver",
        "apiserver-etcd-client",
        "apiserver-kubelet-client",
        "controller-manager",
        "etcd-server",
        "front-proxy-client",
        "kubelet",
        "kubelet-client",
        "p8s",
        "scheduler/scheduler",
    ]
    authorities = ["ca", "etcd-ca", "front-proxy-ca"]
    assert secret == {
        *(f"etc/kubernetes/pki/{name}.key" for name in leaves),
        *(f"var/lib/p8s/pki/{name}.key" for name in [*authorities, "sa"]),
        "etc/cni/net.d/10-p8s.conflist",
        "etc/kubernetes/admin.conf",
        "etc/kubernetes/authentication.yaml",
        "etc/kubernetes/controller-manager.conf",
        "etc/kubernetes/kubelet.conf",
        "etc/kubernetes/kubelet.yaml",
        "etc/kubernetes/scheduler.conf",
        "run/p8s/commands/containerd",
        "run/p8s/commands/etcd",
        "run/p8s/commands/kubelet",
    }
    assert set(found) - secret == {
        *(f"etc/kubernetes/pki/{name}.crt" for name in [*leaves, *authorities]),
        *(f"var/lib/p8s/pki/{name}.crt" for name in authorities),
        "var/lib/p8s/pki/sa.pub",
        "var/lib/p8s/cluster.json",
        "etc/containerd/config.toml",
        "run/p8s/resolv.conf",
        "run/p8s/new-volume",
    }
    assert found["run/p8s/resolv.conf"][1] == RESOLV_CONF.encode()
    assert rules == ["192.168.253.0/24"]


@pytest.mark.usefixtures("rules")
def test_set_up_keeps_no_ca_key_outside_the_state_volume(tmp_path: pathlib.Path) -> None:
    set_up(fakes.make_context(tmp_path))
    keys = [file for file in list_files(tmp_path) if file.endswith("ca.key")]
    assert sorted(keys) == [
        "var/lib/p8s/pki/ca.key",
        "var/lib/p8s/pki/etcd-ca.key",
        "var/lib/p8s/pki/front-proxy-ca.key",
    ]


@pytest.mark.usefixtures("rules")
def test_set_up_hands_out_the_administrator_s_credentials(tmp_path: pathlib.Path) -> None:
    run = fakes.make_context(tmp_path)
    set_up(run)
    assert run.admin is not None
    ca, certificate, key = run.admin
    found = list_files(tmp_path)
    assert ca == found["var/lib/p8s/pki/ca.crt"][1] == found["etc/kubernetes/pki/ca.crt"][1]
    assert certificate == found["etc/kubernetes/pki/admin.crt"][1]
    assert key == found["etc/kubernetes/pki/admin.key"][1]


@pytest.mark.usefixtures("rules")
def test_set_up_again_keeps_the_authorities_and_makes_new_leaves(tmp_path: pathlib.Path) -> None:
    set_up(fakes.make_context(tmp_path))
    before = list_files(tmp_path)
    set_up(fakes.make_context(tmp_path))
    after = list_files(tmp_path)
    changed = {name for name in before if before[name] != after[name]}
    authorities = {f"etc/kubernetes/pki/{name}.crt" for name in ("ca", "etcd-ca", "front-proxy-ca")}
    assert set(before) == set(after)
    assert (
        changed
        # The others name files.
        == {"etc/kubernetes/admin.conf"}
        | {name for name in before if name.startswith("etc/kubernetes/pki/")} - authorities
    )


@pytest.mark.usefixtures("rules")
def test_kubeconfigs_are_for_the_apiserver_in_the_node(tmp_path: pathlib.Path) -> None:
    run = fakes.make_context(tmp_path, "--api-port=7443", "--api-server=https://elsewhere:1")
    set_up(run)
    servers = {
        file.name: yaml.safe_load(file.read_text())["clusters"][0]["cluster"]["server"]
        for file in run.plan.paths.kubernetes.glob("*.conf")
    }
    assert servers == dict.fromkeys(
        ["admin.conf", "controller-manager.conf", "kubelet.conf", "scheduler.conf"],
        "https://127.0.0.1:7443",
    )


@pytest.mark.usefixtures("rules")
def test_the_longest_node_name_fits_its_certificate(tmp_path: pathlib.Path) -> None:
    name = "n" * 52
    run = fakes.make_context(tmp_path, f"--node-name={name}")
    set_up(run)
    pem = (run.plan.paths.pki / "kubelet.crt").read_bytes()
    subject = x509.load_pem_x509_certificate(pem).subject.rfc4514_string()
    assert subject == f"CN=system:node:{name},O=system:nodes"


@pytest.mark.usefixtures("rules")
def test_no_static_pod_of_an_earlier_start_is_left(tmp_path: pathlib.Path) -> None:
    run = fakes.make_context(tmp_path)
    run.plan.paths.static_pods.mkdir(parents=True)
    (run.plan.paths.static_pods / "kube-scheduler.yaml").write_text("an old one")
    set_up(run)
    assert list(run.plan.paths.static_pods.iterdir()) == []


@pytest.mark.usefixtures("rules")
def test_a_start_that_is_begun_again_keeps_what_runs(tmp_path: pathlib.Path) -> None:
    """The sidecar was killed in the first start: kubelet would stop a pod without a manifest."""
    supervisor = fakes.Supervisor()
    run = fakes.make_context(tmp_path, supervisor=supervisor)
    set_up(run)
    manifest = run.plan.paths.static_pods / "kube-apiserver.yaml"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("its own")
    supervisor.now["kubelet"] = fakes.running("kubelet")
    again = fakes.make_context(tmp_path, supervisor=supervisor)
    set_up(again)
    assert manifest.read_text() == "its own"
    assert again.fresh, "as the sidecar before found the volume"


def test_ranges_are_checked_before_anything_is_written(
    tmp_path: pathlib.Path, rules: list[str]
) -> None:
    run = fakes.make_context(tmp_path, "--pod-cidr=172.17.0.0/20")
    with pytest.raises(errors.SettingsError, match="overlaps the container's network"):
        set_up(run)
    assert list_files(tmp_path) == {}
    assert rules == []


# --- the record

RECORD = {
    "service_cidr": "192.168.254.0/24",
    "pod_cidr": "192.168.253.0/24",
    "cluster_domain": "cluster.local",
    "node_name": "p8s",
    "kubernetes": "v1.37.2",
}


def write_record(run: context.Context, text: str | bytes) -> pathlib.Path:
    file = run.plan.paths.cluster_record
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_a_new_volume_has_no_record(tmp_path: pathlib.Path) -> None:
    assert record.check(fakes.make_context(tmp_path)) is True


@pytest.mark.usefixtures("rules")
def test_set_up_leaves_the_record_of_a_new_volume(tmp_path: pathlib.Path) -> None:
    run = fakes.make_context(tmp_path)
    set_up(run)
    assert json.loads(run.plan.paths.cluster_record.read_text()) == RECORD
    assert record.check(fakes.make_context(tmp_path)) is False


@pytest.mark.usefixtures("rules")
def test_the_record_comes_last_so_that_a_setup_that_was_cut_off_starts_over(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise errors.CommandError("nft -f -", code=1, output="no")

    monkeypatch.setattr(network, "set_up", fail)
    with pytest.raises(errors.CommandError):
        set_up(fakes.make_context(tmp_path))
    assert record.check(fakes.make_context(tmp_path)) is True


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        pytest.param([], (), id="equal"),
        pytest.param(["--api-port=7443", "--verbosity=5"], (), id="settings that may change"),
        pytest.param(
            ["--service-cidr=10.96.0.0/16"],
            (
                (
                    "service_cidr = '10.96.0.0/16', but the cluster in this volume was made with "
                    "'192.168.254.0/24': use that, or a new volume"
                ),
            ),
            id="another range",
        ),
        pytest.param(
            ["--pod-cidr=192.168.253.0/255.255.255.0"], (), id="the same range in another form"
        ),
        pytest.param(
            ["--node-name=box", "--cluster-domain=box.test"],
            (
                (
                    "cluster_domain = 'box.test', but the cluster in this volume was made with "
                    "'cluster.local': use that, or a new volume"
                ),
                (
                    "node_name = 'box', but the cluster in this volume was made with "
                    "'p8s': use that, or a new volume"
                ),
            ),
            id="every difference is told",
        ),
    ],
)
def test_a_record_is_compared_with_the_settings(
    tmp_path: pathlib.Path, arguments: list[str], wrong: tuple[str, ...]
) -> None:
    run = fakes.make_context(tmp_path, *arguments)
    write_record(run, json.dumps(RECORD))
    found: tuple[str, ...] = ()
    try:
        assert record.check(run) is False
    except errors.SettingsError as error:
        found = error.errors
    assert found == wrong


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="not JSON"),
        pytest.param("[]", id="a list"),
        pytest.param("null", id="null"),
        pytest.param('{"service_cidr": "192.168.254.0/24"}', id="a setting is missing"),
        pytest.param(json.dumps(RECORD | {"pod_cidr": "wide"}), id="a value that is none"),
        pytest.param(json.dumps(RECORD | {"pod_cidr": 24}), id="a value that is no text"),
        pytest.param(b"\xff\xfe", id="not UTF-8"),
    ],
)
def test_a_damaged_record_is_refused_and_kept(tmp_path: pathlib.Path, text: str | bytes) -> None:
    run = fakes.make_context(tmp_path)
    file = write_record(run, text)
    before = list_files(tmp_path)
    with pytest.raises(errors.P8sError) as caught:
        record.check(run)
    assert caught.value.message.startswith(f"{file} is damaged: ")
    assert caught.value.hint.endswith("service_cidr, pod_cidr, cluster_domain, node_name")
    assert list_files(tmp_path) == before


# --- snapshotter

OVERLAY = "overlay / overlay rw,relatime,lowerdir=/l,upperdir=/u,workdir=/w 0 0"
EXT4 = "/dev/vda1 / ext4 rw 0 0"


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        pytest.param([OVERLAY], "native", id="no volume: overlayfs below overlayfs"),
        pytest.param([OVERLAY, "/dev/vda1 /var/lib/p8s ext4 rw 0 0"], "overlayfs", id="a volume"),
        pytest.param(
            [OVERLAY, "/dev/a /var/lib/p8s-x ext4 rw 0 0", "/dev/b /var/lib/p8 ext4 rw 0 0"],
            "native",
            id="volumes with names that only begin alike",
        ),
        pytest.param(
            [OVERLAY, "tmpfs /var/lib/p8s/kubelet/x tmpfs rw 0 0"], "native", id="a mount below it"
        ),
        pytest.param([OVERLAY, "/dev/vda1 /var ext4 rw 0 0"], "overlayfs", id="a volume above it"),
        pytest.param(
            [EXT4, "overlay /var/lib/p8s overlay rw 0 0"], "native", id="an overlay as volume"
        ),
        pytest.param(
            [OVERLAY, "/dev/a /var/lib/p8s ext4 rw 0 0", "overlay /var/lib/p8s overlay rw 0 0"],
            "native",
            id="the later of two mounts counts",
        ),
        pytest.param([EXT4], "overlayfs", id="no overlay at all"),
    ],
)
def test_choose_snapshotter(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, mounts: list[str], expected: str
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mounts").write_text("\n".join(mounts) + "\n")
    monkeypatch.setattr(setup, "pathlib", fakes.Rooted(tmp_path))
    assert setup.choose_snapshotter(pathlib.Path("/var/lib/p8s")) == expected


# --- add-ons


@pytest.mark.parametrize(
    ("flags", "switched", "wants"),
    [
        pytest.param((), {}, False, id="the default"),
        pytest.param(("--add-ons=metrics",), {}, True, id="by the setting"),
        pytest.param((), {"metrics": True}, True, id="by hand"),
        pytest.param(("--add-ons=metrics",), {"metrics": True}, True, id="by an older setting"),
    ],
)
@pytest.mark.usefixtures("rules")
def test_kubelet_is_configured_for_the_add_ons_that_are_to_run(
    tmp_path: pathlib.Path, flags: tuple[str, ...], switched: dict[str, bool], wants: bool
) -> None:
    run = fakes.make_context(tmp_path, *flags)
    kept = add_on_record.Record(setting="storage", switched=switched)
    add_on_record.write(run.plan.paths.add_on_record, kept)
    setup.write_configuration(run)
    config = json.loads(run.plan.paths.kubelet_config.read_text())
    gate = config.get("featureGates", {}).get("PodAndContainerStatsFromCRI", False)
    assert gate is wants


def test_a_damaged_record_of_add_ons_is_told_and_the_settings_count(
    tmp_path: pathlib.Path,
) -> None:
    story: list[str] = []
    run = fakes.make_context(tmp_path, "--add-ons=metrics", story=story)
    run.plan.paths.add_on_record.write_text("{")
    assert setup.list_add_ons(run) == ["metrics"]
    assert "only the settings say which run" in story[0]
