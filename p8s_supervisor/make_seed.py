"""Makes the seed when the image is built: `python -m p8s_supervisor.make_seed OUTPUT`.

The real etcd, kube-apiserver, kube-controller-manager and kube-scheduler run as plain processes
until a cluster with the default settings has what every new one gets. kubelet does not run: the
node is registered here, so that the system's pods are made and bound, and is marked as not ready.
"""

from __future__ import annotations

import contextlib
import datetime
import pathlib
import sys
import tempfile
import time

from p8s_supervisor import (
    commands,
    components,
    credentials,
    errors,
    etcd,
    files,
    kube,
    manifests,
    node,
    paths,
    probes,
    seed,
    settings,
    wait,
)

# Of one installation, or of one life of a component; each is made again by what made it here.
LEFT_OUT = (
    "clustertrustbundles/",
    *(f"configmaps/{namespace}/kube-root-ca.crt" for namespace in seed.NAMESPACES),
    "configmaps/kube-system/extension-apiserver-authentication",
    "configmaps/kube-system/kube-apiserver-legacy-service-account-token-tracking",
    "endpointslices/default/kubernetes",
    "events/",
    "leases/",
    "masterleases/",
    "peerserverleases/",
    "services/endpoints/default/kubernetes",
)
SETTLED_SECONDS = 1.0
SECONDS = 120.0


def main(output: pathlib.Path) -> None:
    """Make the seed and write it."""
    loaded = settings.load([], {})
    begun = int(time.time())
    with tempfile.TemporaryDirectory() as directory:
        places = paths.Paths(pathlib.Path(directory))
        plan = components.Plan(loaded.settings, node.find_facts(), places)
        credentials.write(plan, fresh=True)
        places.logs.mkdir(parents=True)
        try:
            entries = run_cluster(plan)
        except errors.P8sError:
            for log in sorted(places.logs.glob("*.log")):
                print(f"--- {log.name}", *files.tail(log, lines=20), sep="\n", flush=True)
            raise
    kept = {entry.key: entry.value for entry in entries if is_kept(entry)}
    secret = sorted(key for key, value in kept.items() if b"-----BEGIN" in value)
    if secret:
        raise errors.P8sError(f"keys or certificates are in the seed: {', '.join(secret)}")
    chosen = {name: loaded.texts[name] for name in seed.SETTINGS}
    made = seed.Seed(chosen, (begun, int(time.time())), kept)
    files.write(output, made.to_json())
    print(f"seed: {len(kept)} entries, {output.stat().st_size} bytes", flush=True)


def run_cluster(plan: components.Plan) -> list[etcd.Entry]:
    """Run the control plane until its content is complete, and give that."""
    client, store = credentials.connect_apiserver(plan), credentials.connect_etcd(plan)
    with run(plan, "etcd", components.etcd(plan)):
        _await("etcd", lambda: probes.port("127.0.0.1", 2379))
        with run(plan, "kube-apiserver", components.kube_apiserver(plan)):
            _await("kube-apiserver", lambda: probes.apiserver(client))
            with (
                run(plan, "kube-controller-manager", components.kube_controller_manager(plan)),
                run(plan, "kube-scheduler", components.kube_scheduler(plan)),
            ):
                register_node(client, plan.settings.node_name)
                for manifest in manifests.system(manifests.values(plan)):
                    client.apply(manifest)
                _await("the system's pods", lambda: find_unbound(client))
                set_dns_address(client, str(plan.settings.pod_cidr.networks[0][2]))
                _await("coredns' endpoint", lambda: find_missing_endpoint(client))
                await_settled(store)
            set_dns_address(client, None)
            set_ready(client, plan.settings.node_name, ready=False)
        return store.list_entries(seed.PREFIX)


def run(
    plan: components.Plan, name: str, command: list[str]
) -> contextlib.AbstractContextManager[None]:
    """A component as a plain process, for as long as a block runs."""
    return commands.background(
        [f"{components.BIN}/{name}", *command[1:]], log=plan.paths.logs / f"{name}.log"
    )


def _await(awaited: str, probe: wait.Probe) -> None:
    wait.until(probe, awaited=awaited, seconds=SECONDS)


def register_node(client: kube.Client, name: str) -> None:
    """What kubelet does at its first start, as far as pods need it to be bound."""
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
    new = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
    client.request("POST", "/api/v1/nodes", body=new)
    set_ready(client, name, ready=True)


def set_ready(client: kube.Client, name: str, *, ready: bool) -> None:
    """Write the node's condition Ready, and room for the system's pods."""
    moment = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {
        "type": "Ready",
        "status": str(ready),
        "reason": "KubeletReady" if ready else "KubeletNotStarted",
        "message": "" if ready else "kubelet has not started yet",
        "lastHeartbeatTime": moment,
        "lastTransitionTime": moment,
    }
    room = {"cpu": "1", "memory": "1Gi", "pods": "110"}
    client.request(
        "PATCH",
        f"/api/v1/nodes/{name}/status",
        body={"status": {"conditions": [condition], "capacity": room, "allocatable": room}},
        content_type="application/strategic-merge-patch+json",
    )


def set_dns_address(client: kube.Client, address: str | None) -> None:
    """Write the status of coredns' pod: ready at an address, or not started.

    The first pod of a new cluster gets the first address of the range, and coredns is that pod. So
    kube-proxy can know its endpoint before kube-controller-manager runs, which then goes by what
    kubelet tells.
    """
    pods = client.get("/api/v1/namespaces/kube-system/pods", labelSelector="k8s-app=kube-dns")
    status: kube.Object = {"phase": "Pending", "podIP": None, "podIPs": None}
    conditions = [{"type": "PodScheduled", "status": "True"}]
    if address:
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        conditions += [{"type": kind, "status": "True"} for kind in ("ContainersReady", "Ready")]
    client.request(
        "PATCH",
        f"/api/v1/namespaces/kube-system/pods/{pods['items'][0]['metadata']['name']}/status",
        body={"status": status | {"conditions": conditions}},
        content_type="application/merge-patch+json",
    )


def find_missing_endpoint(client: kube.Client) -> str | None:
    """Why the service kube-dns has no endpoint that is ready."""
    slices = client.get(
        "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices",
        labelSelector="kubernetes.io/service-name=kube-dns",
    )
    ready = [
        endpoint
        for found in slices["items"]
        for endpoint in found.get("endpoints") or []
        if endpoint["conditions"].get("ready")
    ]
    return None if ready else "no endpoint of kube-dns is ready"


def find_unbound(client: kube.Client) -> str | None:
    """Why not all of the system's pods are bound to the node."""
    pods = client.get("/api/v1/namespaces/kube-system/pods")["items"]
    bound = {
        pod["metadata"]["labels"].get("k8s-app") for pod in pods if pod["spec"].get("nodeName")
    }
    missing = set(probes.SYSTEM_LABELS.values()) - bound
    return f"not bound: {', '.join(sorted(missing))}" if missing else None


def await_settled(store: etcd.Client) -> None:
    """Wait until nothing has been written for `SETTLED_SECONDS`, leases and events aside."""
    seen: dict[str, bytes] = {}
    since = time.monotonic()

    def look() -> str | None:
        nonlocal seen, since
        now = {
            entry.key: entry.value for entry in store.list_entries(seed.PREFIX) if is_kept(entry)
        }
        changed = sorted(key for key in now | seen if now.get(key) != seen.get(key))
        if changed:
            seen, since = now, time.monotonic()
            return f"written: {', '.join(changed[:3])}"
        return None if time.monotonic() - since > SETTLED_SECONDS else "not yet for long enough"

    wait.until(look, awaited="an end of the writing", seconds=SECONDS, interval=0.2)


def is_kept(entry: etcd.Entry) -> bool:
    """Whether an entry belongs to the seed."""
    return not entry.lease and not entry.key.removeprefix(seed.PREFIX).startswith(LEFT_OUT)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
