"""The making of the seed: what belongs to it, and what it waits for."""

from __future__ import annotations

import pathlib
import time
import typing

import pytest

from p8s_supervisor import components, errors, etcd, make_seed, node, seed, settings
from tests import fakes

# --- what is kept


@pytest.mark.parametrize(
    ("key", "kept"),
    [
        pytest.param("namespaces/default", True, id="a namespace"),
        pytest.param("priorityclasses/system-node-critical", True, id="a priority class"),
        pytest.param("serviceaccounts/kube-system/coredns", True, id="a service account"),
        pytest.param("pods/kube-system/coredns-x1", True, id="a pod"),
        pytest.param("minions/p8s", True, id="the node"),
        pytest.param("configmaps/kube-system/coredns", True, id="a ConfigMap"),
        pytest.param("configmaps/kube-public/cluster-info", True, id="a ConfigMap of all"),
        pytest.param("services/specs/default/kubernetes", True, id="the apiserver's service"),
        pytest.param(
            "services/endpoints/kube-system/kube-dns", True, id="endpoints of a system pod"
        ),
        pytest.param("endpointslices/kube-system/kube-dns-x1", True, id="a slice of a system pod"),
        pytest.param("ranges/serviceips", True, id="the addresses in use"),
        pytest.param("clustertrustbundles/x", False, id="a trust bundle"),
        pytest.param("configmaps/default/kube-root-ca.crt", False, id="the CA"),
        pytest.param("configmaps/kube-node-lease/kube-root-ca.crt", False, id="the CA, for leases"),
        pytest.param("configmaps/kube-public/kube-root-ca.crt", False, id="the CA, for all"),
        pytest.param("configmaps/kube-system/kube-root-ca.crt", False, id="the CA, for the system"),
        pytest.param(
            "configmaps/kube-system/extension-apiserver-authentication", False, id="both CAs"
        ),
        pytest.param(
            "configmaps/kube-system/kube-apiserver-legacy-service-account-token-tracking",
            False,
            id="a date of its own",
        ),
        pytest.param("endpointslices/default/kubernetes", False, id="the apiserver's slice"),
        pytest.param("services/endpoints/default/kubernetes", False, id="its endpoints"),
        pytest.param("events/default/x.1", False, id="an event"),
        pytest.param("leases/kube-system/kube-scheduler", False, id="a lease"),
        pytest.param("masterleases/172.17.0.2", False, id="the apiserver's address"),
        pytest.param("peerserverleases/x", False, id="a peer's address"),
        pytest.param("events.example/x", True, id="a group that begins alike"),
    ],
)
def test_what_belongs_to_the_seed(key: str, kept: bool) -> None:
    entry = etcd.Entry(f"/registry/{key}", b"")
    assert make_seed.is_kept(entry) is kept
    assert not make_seed.is_kept(etcd.Entry(entry.key, b"", lease=7))


def test_what_is_made_again_for_each_cluster_is_not_in_the_seed() -> None:
    made = seed.config_maps(ca="", requestheader_ca="", moment="")
    assert [key for key in made if make_seed.is_kept(etcd.Entry(key, b""))] == []


# --- what is waited for

PODS = "/api/v1/namespaces/kube-system/pods"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices"


def make_pod(label: str | None, node_name: str | None) -> dict[str, typing.Any]:
    labels = {} if label is None else {"k8s-app": label}
    spec = {} if node_name is None else {"nodeName": node_name}
    return {"metadata": {"name": "x", "labels": labels}, "spec": spec}


@pytest.mark.parametrize(
    ("pods", "reason"),
    [
        pytest.param([], "not bound: kube-dns, kube-proxy", id="no pods yet"),
        pytest.param(
            [make_pod("kube-dns", None), make_pod("kube-proxy", None)],
            "not bound: kube-dns, kube-proxy",
            id="not bound",
        ),
        pytest.param(
            [make_pod("kube-dns", None), make_pod("kube-proxy", "p8s")],
            "not bound: kube-dns",
            id="one of them",
        ),
        pytest.param(
            [make_pod("kube-dns", "p8s"), make_pod(None, "p8s"), make_pod("other", "p8s")],
            "not bound: kube-proxy",
            id="others do not count",
        ),
        pytest.param(
            [make_pod("kube-dns", "p8s"), make_pod("kube-proxy", "p8s"), make_pod("other", None)],
            None,
            id="both",
        ),
    ],
)
def test_the_system_s_pods_are_waited_for(
    pods: list[dict[str, typing.Any]], reason: str | None
) -> None:
    client = fakes.KubeClient({f"GET {PODS}": [{"items": pods}]})
    assert make_seed.find_unbound(client) == reason
    assert client.asked == [f"GET {PODS}"]


@pytest.mark.parametrize(
    ("slices", "ready"),
    [
        pytest.param([], False, id="no slice yet"),
        pytest.param([{"endpoints": None}], False, id="no endpoint yet"),
        pytest.param([{}], False, id="no list of them"),
        pytest.param([{"endpoints": [{"conditions": {"ready": False}}]}], False, id="not ready"),
        pytest.param([{"endpoints": [{"conditions": {}}]}], False, id="nothing said"),
        pytest.param(
            [{"endpoints": None}, {"endpoints": [{"conditions": {"ready": True}}]}],
            True,
            id="ready",
        ),
    ],
)
def test_coredns_endpoint_is_waited_for(slices: list[dict[str, typing.Any]], ready: bool) -> None:
    client = fakes.KubeClient({f"GET {SLICES}": [{"items": slices}]})
    found = make_seed.find_missing_endpoint(client)
    assert found == (None if ready else "no endpoint of kube-dns is ready")
    (request,) = client.requests
    assert request.params == {"labelSelector": "kubernetes.io/service-name=kube-dns"}


class Store(fakes.Etcd):
    """An etcd that gives lists in turn; the last one ever after."""

    def __init__(self, *lists: list[etcd.Entry]) -> None:
        super().__init__(answer=True)
        self.lists = list(lists)

    def list_entries(self, prefix: str) -> list[etcd.Entry]:
        super().list_entries(prefix)
        return self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]


def test_an_end_of_the_writing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = etcd.Entry("/registry/a", b"1"), etcd.Entry("/registry/a", b"2")
    beside = [etcd.Entry("/registry/events/x", bytes([number]), lease=7) for number in range(9)]
    store = Store([], [one], [two, beside[0]], *([two, event] for event in beside))
    monkeypatch.setattr(make_seed, "SETTLED_SECONDS", 0.3)
    make_seed.await_settled(store)
    # Empty; one; two; and, 0.2 s apart, two looks more: events do not count.
    assert store.calls == [("list_entries", "/registry/")] * 5


# --- what kubelet would do


def test_the_node_is_registered_and_ready_and_has_room() -> None:
    status = "/api/v1/nodes/n1/status"
    client = fakes.KubeClient({"POST /api/v1/nodes": ["{}"], f"PATCH {status}": ["{}"]})
    make_seed.register_node(client, "n1")
    make_seed.set_ready(client, "n1", ready=False)
    assert client.asked == ["POST /api/v1/nodes", f"PATCH {status}", f"PATCH {status}"]
    new, *written = [request.body for request in client.requests]
    assert new is not None
    assert new["metadata"] == {
        "name": "n1",
        "labels": {"kubernetes.io/hostname": "n1", "kubernetes.io/os": "linux"},
    }
    told = []
    for body in written:
        assert body is not None
        (condition,) = body["status"]["conditions"]
        told.append((condition["type"], condition["status"], condition["reason"]))
        assert body["status"]["allocatable"] == body["status"]["capacity"]
    assert told == [("Ready", "True", "KubeletReady"), ("Ready", "False", "KubeletNotStarted")]


@pytest.mark.parametrize(
    ("address", "status"),
    [
        pytest.param(
            "192.168.253.2",
            {
                "phase": "Running",
                "podIP": "192.168.253.2",
                "podIPs": [{"ip": "192.168.253.2"}],
                "conditions": [
                    {"type": "PodScheduled", "status": "True"},
                    {"type": "ContainersReady", "status": "True"},
                    {"type": "Ready", "status": "True"},
                ],
            },
            id="ready",
        ),
        pytest.param(
            None,
            {
                "phase": "Pending",
                "podIP": None,
                "podIPs": None,
                "conditions": [{"type": "PodScheduled", "status": "True"}],
            },
            id="not started",
        ),
    ],
)
def test_coredns_pod_s_status(address: str | None, status: dict[str, typing.Any]) -> None:
    patch = f"PATCH {PODS}/x/status"
    pod = make_pod("kube-dns", "p8s")
    client = fakes.KubeClient({f"GET {PODS}": [{"items": [pod]}], patch: ["{}"]})
    make_seed.set_dns_address(client, address)
    asked, written = client.requests
    assert asked.params == {"labelSelector": "k8s-app=kube-dns"}
    assert (written.path, written.body) == (f"{PODS}/x/status", {"status": status})
    assert written.content_type == "application/merge-patch+json"


# --- the file

ENTRIES = [
    etcd.Entry("/registry/namespaces/default", b"k8s\x00\xff"),
    etcd.Entry("/registry/events/default/x", b"-----BEGIN CERTIFICATE-----", lease=7),
    etcd.Entry("/registry/configmaps/default/kube-root-ca.crt", b"-----BEGIN CERTIFICATE-----"),
]


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> list[components.Plan]:
    """The plans that clusters were to be run by; none is run."""
    ran: list[components.Plan] = []

    def run_cluster(plan: components.Plan) -> list[etcd.Entry]:
        assert plan.paths.logs.is_dir()
        assert (plan.paths.pki / "apiserver-etcd-client.key").exists()
        ran.append(plan)
        return ENTRIES

    monkeypatch.setattr(settings, "DEFAULT_FILE", tmp_path / "absent")
    monkeypatch.setattr(node, "find_facts", lambda: fakes.FACTS)
    monkeypatch.setattr(make_seed, "run_cluster", run_cluster)
    return ran


def test_the_file_has_what_is_kept_and_the_default_settings(
    tmp_path: pathlib.Path, plans: list[components.Plan]
) -> None:
    begun = int(time.time())
    make_seed.main(tmp_path / "seed.json")
    made = seed.load(tmp_path / "seed.json")
    assert made.entries == {"/registry/namespaces/default": b"k8s\x00\xff"}
    defaults = fakes.load_settings()
    assert made.settings == {name: defaults.texts[name] for name in seed.SETTINGS}
    assert begun <= made.made[0] <= made.made[1] <= int(time.time())
    (plan,) = plans
    assert plan.settings == defaults.settings
    assert not plan.paths.root.exists()


@pytest.mark.usefixtures("plans")
def test_a_key_or_certificate_in_the_seed_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = etcd.Entry("/registry/secrets/default/x", b"k8s\x00-----BEGIN EC PRIVATE KEY-----")
    monkeypatch.setattr(make_seed, "run_cluster", lambda _: [*ENTRIES, secret])
    with pytest.raises(errors.P8sError, match=r"are in the seed: /registry/secrets/default/x$"):
        make_seed.main(tmp_path / "seed.json")
    assert not (tmp_path / "seed.json").exists()
