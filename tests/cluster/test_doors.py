"""What docs/security.md says of who gets in where, tried from each of those places."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import re
import subprocess
import time
import typing

import pytest

from p8s_supervisor import server, wait
from tests.cluster import doors, nodes, pods, test_validation

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "security.md"
TOKEN = "token-of-the-doors"


@pytest.fixture(scope="module")
def network() -> typing.Iterator[str]:
    """A docker network of the tests' own."""
    with nodes.network() as name:
        yield name


@pytest.fixture(scope="module")
def guarded(network: str) -> typing.Iterator[nodes.Node]:
    """A cluster with P8S_API_TOKEN on a network of its own."""
    options = (f"--network={network}", f"--env=P8S_API_TOKEN={TOKEN}")
    with nodes.run("--drain=none", options=options) as node:
        node.await_ready()
        yield node


def test_the_table_of_listeners_is_what_listens(cluster: nodes.Node) -> None:
    written = {
        (cells[0].strip("` "), cells[1].strip("` "))
        for line in DOCUMENT.read_text().splitlines()
        if re.match(r"\| `(\*|0\.0\.0\.0|127\.0\.0\.1):", line)
        for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
    }
    listening = set()
    for line in cluster.execute("ss", "-H", "-l", "-t", "-u", "-n", "-p").splitlines():
        local = line.split()[4]
        name = line.split('"')[1]
        address, _, port = local.rpartition(":")
        # containerd's streaming port is another one at each start.
        shown = "RANDOM" if name == "containerd" else port
        listening.add((f"{address}:{shown}", "sidecar" if name == "python3" else name))
    assert listening == written


def test_a_container_of_the_same_network_gets_in_nowhere(cluster: nodes.Node) -> None:
    wanted = doors.expect(cluster.address)
    assert (
        doors.read_answers(doors.run_beside(cluster, "python3", "-c", doors.CALL, *wanted))
        == wanted
    )
    gateway = cluster.inspect("{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}")
    by_the_host = f"GET http://{gateway}:{cluster.http_port}/ready"
    told = doors.read_answers(doors.run_beside(cluster, "python3", "-c", doors.CALL, by_the_host))
    assert told[by_the_host] in ("refused", "timeout"), "what the host has published on loopback"


def test_a_pod_gets_in_nowhere(cluster: nodes.Node, admin: nodes.Kubectl, namespace: str) -> None:
    admin.apply(pods.sleeper("caller"))
    admin.await_ready("pod/caller")
    wanted = doors.expect(cluster.address)
    told = admin("exec", "caller", "--", *pods.python(doors.CALL, *wanted))
    assert doors.read_answers(told) == wanted
    seen = admin("exec", "caller", "--", "sh", "-c", "ls /run /run/p8s /run/containerd 2>&1; true")
    assert "sock" not in seen


def test_a_pod_on_the_nodes_network_is_a_stranger_too(
    cluster: nodes.Node, admin: nodes.Kubectl, namespace: str
) -> None:
    manifest = pods.sleeper("caller")
    manifest["spec"]["hostNetwork"] = True
    admin.apply(manifest)
    admin.await_ready("pod/caller")
    wanted = {
        f"{method} http://{address}:8989{path}": "401"
        for address in ("127.0.0.1", cluster.address)
        for method, path in doors.split(doors.SHUT)
    }
    wanted |= {
        "GET http://127.0.0.1:8989/ready": "200",
        "GET https://127.0.0.1:2379/health": "certificate",
        "GET https://127.0.0.1:2380/": "certificate",
        "GET https://127.0.0.1:10250/pods": "denied",
        "GET https://127.0.0.1:10255/pods": "refused",
        "GET https://127.0.0.1:10257/metrics": "denied",
        "GET https://127.0.0.1:10259/metrics": "denied",
    }
    told = doors.read_answers(admin("exec", "caller", "--", *pods.python(doors.CALL, *wanted)))
    assert told == wanted


def test_the_apiservers_proxy_is_no_way_round(cluster: nodes.Node, admin: nodes.Kubectl) -> None:
    """It calls from the node's own address, for everybody who may use a proxy of pods or nodes."""
    found = admin(
        "get", "pods", "--namespace=kube-system", "--selector=k8s-app=kube-proxy", "-oname"
    )
    pod = found.strip().removeprefix("pod/")
    for place in (f"namespaces/kube-system/pods/http:{pod}", f"nodes/http:{cluster_node(admin)}"):
        there = f"/api/v1/{place}:8989/proxy"
        assert admin("get", "--raw", f"{there}/ready") == "ok\n"
        done = admin.attempt("get", "--raw", f"{there}/kubeconfig")
        assert done.returncode != 0
        assert "client-key-data" not in done.stdout


def cluster_node(admin: nodes.Kubectl) -> str:
    return admin("get", "nodes", "-oname").strip().removeprefix("node/")


@pytest.mark.parametrize("user", ["0", "65534"], ids=["root", "nobody"])
def test_users_of_the_host_are_let_in_unless_a_token_is_set(
    cluster: nodes.Node, guarded: nodes.Node, user: str
) -> None:
    def call(node: nodes.Node, path: str, *more: str) -> str:
        command = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *more, node.url(path))
        done = subprocess.run(
            command, user=int(user), capture_output=True, text=True, check=True, timeout=20
        )
        return done.stdout

    assert call(cluster, "/kubeconfig") == "200"
    for path in ("/kubeconfig", "/status", "/metrics"):
        assert call(guarded, path) == "401"
        assert call(guarded, path, "-H", "Authorization: Bearer wrong") == "401"
        assert call(guarded, path, "-H", f"Authorization: Bearer {TOKEN}") == "200"
    assert call(guarded, "/stop", "-X", "POST") == "401"
    assert call(guarded, "/ready") == "200"
    assert TOKEN not in guarded.logs()


# Makes 127.0.0.1 lead to a neighbour. With route_localnet, which the way to docker's resolver needs,
# the neighbour would answer, were it not for a rule of kubelet's (CVE-2020-8558).
LEAD = """
echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
ip route add 127.0.0.1/32 via $0 dev eth0 src $(hostname -i) table 50
ip rule add pref 100 lookup local
ip rule del pref 0
ip rule add pref 40 iif eth0 lookup local
ip rule add pref 50 to 127.0.0.1 lookup 50
exec "$@"
"""


def test_a_neighbour_does_not_reach_the_nodes_loopback(guarded: nodes.Node) -> None:
    assert guarded.execute("cat", "/proc/sys/net/ipv4/conf/all/route_localnet").strip() == "1"
    asked = [f"GET https://127.0.0.1:{port}/" for port in (2379, 10249, 10257)]
    command = ("sh", "-c", LEAD, guarded.address, *pods.python(doors.CALL, *asked))
    told = doors.read_answers(doors.run_beside(guarded, *command, options=["--privileged"]))
    assert told == dict.fromkeys(asked, "timeout")


# 500 connections that each send a byte a second, and come back when they are closed.
FLOOD = """
import socket, sys, time
def connect():
    try:
        made = socket.create_connection((sys.argv[1], 8989), timeout=3)
        made.send(b"GET /ready HTTP/1.1\\r\\nX: ")
        return made
    except OSError:
        return None
made = [connect() for _ in range(500)]
print("open", flush=True)
end = time.monotonic() + 6
while time.monotonic() < end:
    for number, one in enumerate(made):
        try:
            one.send(b"x")
        except (OSError, AttributeError):
            made[number] = connect()
    time.sleep(1)
"""
MEASURE = r"""
import contextlib, os, pathlib, re
for file in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    if file.read_bytes().endswith(b"p8s_supervisor.sidecar\0"):
        status = dict(line.split(":") for line in (file.parent / "status").read_text().splitlines())
        print(status["VmRSS"].split()[0], status["Threads"])
        for one in os.listdir(file.parent / "fd"):
            with contextlib.suppress(FileNotFoundError):
                print(re.sub(r"\d+", "N", os.readlink(file.parent / "fd" / one)))
"""


@dataclasses.dataclass(frozen=True)
class Use:
    """The sidecar's memory in KiB, its threads, and its open files: kind → how many."""

    memory: int
    threads: int
    files: collections.Counter[str]


def measure(node: nodes.Node) -> Use:
    figures, *files = node.execute("python3", "-c", MEASURE).splitlines()
    memory, threads = map(int, figures.split())
    return Use(memory, threads, collections.Counter(files))


def connections_of(node: nodes.Node) -> str:
    """The HTTP API's connections with other containers."""
    gateway = node.inspect("{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}")
    shown = node.execute("ss", "-H", "-t", "-n", "state", "established", "sport", "=", ":8989")
    return "\n".join(
        line for line in shown.splitlines() if gateway not in line and "127.0.0.1" not in line
    )


def test_five_hundred_slow_connections_keep_nobody_out(cluster: nodes.Node) -> None:
    before = measure(cluster)
    lines = len(cluster.logs().splitlines())
    command = ["docker", "run", "--rm", "--tmpfs=/var/lib/p8s", "--entrypoint=python3"]
    command += [nodes.IMAGE, "-c", FLOOD, cluster.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as flood:
        assert flood.stdout is not None
        assert flood.stdout.readline() == "open\n"
        took = []
        while flood.poll() is None:
            begun = time.monotonic()
            assert cluster.get("/ready").status_code == 200
            took.append(time.monotonic() - begun)
            time.sleep(0.2)
    assert flood.returncode == 0
    assert len(took) >= 10
    assert max(took) < 0.5, took
    # What a client that has gone did not close ends with the time of a request.
    wait.until(
        lambda: connections_of(cluster) or None,
        awaited="the end of the connections",
        seconds=30,
    )
    after = measure(cluster)
    # Each thread of the server may have opened its own connection to kube-apiserver meanwhile.
    assert (after.files - before.files).total() <= server.THREADS
    assert set(after.files - before.files) <= {"socket:[N]"}
    assert after.memory - before.memory < 8 * 1024
    assert after.threads <= before.threads
    assert len(cluster.logs().splitlines()) - lines < 5


def test_a_ready_cluster_is_not_harmed_by_any_of_this(
    cluster: nodes.Node, guarded: nodes.Node
) -> None:
    for node in (cluster, guarded):
        assert node.get("/ready").status_code == 200
        assert "Traceback" not in node.logs()


def test_a_job_finds_the_cluster_ready_and_ends_the_run(
    guarded: nodes.Node, kubectl_program: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Whoever has the token may, from a pod too. The last test of `guarded`."""
    config = tmp_path / "kubeconfig"
    config.write_text(guarded.get("/kubeconfig", Authorization=f"Bearer {TOKEN}").text)
    kubectl = nodes.Kubectl(kubectl_program, config)
    kubectl("create", "namespace", "validation")
    secret = ("secret", "generic", "p8s", f"--from-literal=token={TOKEN}")
    kubectl("--namespace=validation", "create", *secret)
    kubectl("apply", f"--filename={test_validation.MANIFEST}")
    assert guarded.wait(seconds=90) == 0, guarded.logs()
    log = guarded.logs()
    assert "stop: POST /stop from 192.168.253." in log
    assert log.rstrip().endswith("stopped")
