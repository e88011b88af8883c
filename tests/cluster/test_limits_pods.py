"""What pods may take and see: memory, processor, disk, system calls, volumes; who pays for too much.

All pods of this module are made at once, so that those that take a while do so side by side.
"""

from __future__ import annotations

import typing

import pytest

from p8s_supervisor import wait
from tests.cluster import conftest, nodes, pods

# kubelet looks at pods' disk every 10 s, and evicts with a second's grace.
EVICTED_SECONDS = 60.0
SHARE = 0.2

EAT = "held = bytearray(200 << 20); print(len(held))"
# For two seconds all that it gets; then how much of a processor that was, and what the cgroup says.
BUSY = """
import pathlib, time
begun, used = time.monotonic(), time.process_time()
while time.monotonic() < begun + 2:
    pass
print("share", (time.process_time() - used) / (time.monotonic() - begun))
root = pathlib.Path("/sys/fs/cgroup")
for name in ("cpu.max", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"):
    if (root / name).exists():
        print("quota", (root / name).read_text().strip())
for name in ("cpu.stat", "cpu/cpu.stat"):
    if (root / name).exists():
        print((root / name).read_text(), end="")
print("end", flush=True)
time.sleep(600)
"""
# KEYCTL_GET_KEYRING_ID of the session's keyring: harmless, and not in the runtime's default profile.
ASK_KERNEL = """
import ctypes, os, pathlib
number = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
said = ctypes.CDLL(None, use_errno=True).syscall(number, 0, -3, 0)
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
print(status["Seccomp"].strip(), "refused" if said < 0 and ctypes.get_errno() == 1 else "allowed")
"""
WRITE = "import time; open('/tmp/large', 'wb').write(bytes(60 << 20)); time.sleep(600)"
LINES = """
for path in ("/data/file", "/data/part/word", "/etc/word", "/named/word"):
    try:
        print(path, open(path).read().strip())
    except OSError as error:
        print(path, type(error).__name__)
"""


def once(name: str, script: str, **container: typing.Any) -> pods.Manifest:
    """A pod whose script is run once."""
    found = pods.pod(name, pods.python(script), **container)
    found["spec"]["restartPolicy"] = "Never"
    return found


def pair() -> pods.Manifest:
    """Two containers, of which one takes too much."""
    found = once("pair", "import time; time.sleep(600)")
    [eater] = pods.pod_spec(pods.python(EAT), resources={"limits": {"memory": "48Mi"}})[
        "containers"
    ]
    found["spec"]["containers"].append(eater | {"name": "eater"})
    return found


def writers() -> list[pods.Manifest]:
    """Pods that write to their own root: more than one may, and as much as another may."""
    limit = {"limits": {"ephemeral-storage": "20Mi"}}
    return [once("greedy-writer", WRITE, resources=limit), once("modest-writer", WRITE)]


def secluded(name: str, kind: str) -> pods.Manifest:
    return once(name, ASK_KERNEL, securityContext={"seccompProfile": {"type": kind}})


def with_parts() -> pods.Manifest:
    """A pod that sees parts of its volumes only."""
    found = once("parts", LINES, env=[{"name": "WHO", "value": "somebody"}])
    spec = found["spec"]
    spec["volumes"] += [
        {"name": "data", "emptyDir": {}},
        {"name": "words", "configMap": {"name": "words"}},
    ]
    usr = spec["containers"][0]["volumeMounts"]
    fill = "mkdir -p /all/inner/part /all/somebody; echo whole > /all/file"
    fill += "; echo part > /all/inner/part/word; echo named > /all/somebody/word"
    [filler] = pods.pod_spec(["sh", "-c", fill])["containers"]
    filler["volumeMounts"] = [*usr, {"name": "data", "mountPath": "/all"}]
    spec["initContainers"] = [filler | {"name": "filler"}]
    spec["containers"][0]["volumeMounts"] = [
        *usr,
        {"name": "data", "mountPath": "/data", "subPath": "inner"},
        {"name": "words", "mountPath": "/etc/word", "subPath": "word"},
        {"name": "data", "mountPath": "/named", "subPathExpr": "$(WHO)"},
    ]
    return found


def mounting(name: str, directory: str, propagation: str) -> pods.Manifest:
    """A pod that shares a directory of the node."""
    found = pods.pod(name, ["sleep", "infinity"], securityContext={"privileged": True})
    volume = {"name": "shared", "hostPath": {"path": directory, "type": "DirectoryOrCreate"}}
    found["spec"]["volumes"].append(volume)
    found["spec"]["containers"][0]["volumeMounts"].append(
        {"name": "shared", "mountPath": "/shared", "mountPropagation": propagation}
    )
    return found


PROPAGATION = {"giver": "Bidirectional", "taker": "HostToContainer", "stranger": "None"}


@pytest.fixture(scope="module")
def directory() -> str:
    """A directory of the node."""
    return f"/var/tmp/{nodes.unique('shared')}"


@pytest.fixture(scope="module")
def kubectl(
    cluster: nodes.Node, make_kubectl: conftest.MakeKubectl, directory: str
) -> typing.Iterator[nodes.Kubectl]:
    """A namespace of this module's own, with all its pods."""
    found, name = make_kubectl(cluster), nodes.unique("limits")
    found("create", "namespace", name)
    found("config", "set-context", "--current", f"--namespace={name}")
    found("create", "configmap", "words", "--from-literal=word=swordfish")
    found.apply(
        *writers(),
        pair(),
        pods.pod("busy", pods.python(BUSY), resources={"limits": {"cpu": f"{SHARE * 1000:.0f}m"}}),
        secluded("secluded", "RuntimeDefault"),
        secluded("open", "Unconfined"),
        with_parts(),
        *(mounting(pod, directory, kind) for pod, kind in PROPAGATION.items()),
    )
    yield found
    found("delete", "namespace", name, "--wait=false")


def read_end(kubectl: nodes.Kubectl, pod: str) -> str:
    """What a pod that runs once has said."""
    kubectl("wait", f"pod/{pod}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    return kubectl("logs", pod).strip()


def test_the_container_that_takes_too_much_memory_ends_alone(kubectl: nodes.Kubectl) -> None:
    reason = "{.status.containerStatuses[?(@.name=='eater')].state.terminated.reason}"
    kubectl("wait", "pod/pair", f"--for=jsonpath={reason}=OOMKilled", "--timeout=60s")
    found = {
        status["name"]: status
        for status in kubectl.get("pod", "pair")["status"]["containerStatuses"]
    }
    assert found["eater"]["state"]["terminated"]["exitCode"] == 137
    assert "running" in found["main"]["state"]
    assert found["main"]["restartCount"] == 0
    assert kubectl("exec", "pair", "--container=main", "--", "echo", "alive").strip() == "alive"


def test_a_processor_limit_holds(kubectl: nodes.Kubectl) -> None:
    kubectl.await_ready("pod/busy")
    said: list[str] = []

    def look() -> str | None:
        said[:] = kubectl("logs", "busy").splitlines()
        return None if "end" in said else "it is at it"

    wait.until(look, awaited="the pod", seconds=30, interval=0.3)
    words = [line.split() for line in said]
    share = next(float(line[1]) for line in words if line[0] == "share")
    assert share < SHARE * 1.3
    # One line on cgroup v2, two on v1: so many microseconds in a period of so many.
    quota = [int(number) for line in words if line[0] == "quota" for number in line[1:]]
    assert quota == [SHARE * 100_000, 100_000]
    assert next(int(line[1]) for line in words if line[0] == "nr_throttled") > 0


@pytest.mark.parametrize(
    ("pod", "said"),
    [
        pytest.param("secluded", "2 refused", id="RuntimeDefault"),
        pytest.param("open", "0 allowed", id="Unconfined"),
    ],
)
def test_system_calls(kubectl: nodes.Kubectl, pod: str, said: str) -> None:
    assert read_end(kubectl, pod) == said


def test_parts_of_volumes(kubectl: nodes.Kubectl) -> None:
    assert read_end(kubectl, "parts").splitlines() == [
        "/data/file FileNotFoundError",
        "/data/part/word part",
        "/etc/word swordfish",
        "/named/word named",
    ]


def test_a_mount_is_seen_by_whom_it_is_for(
    cluster: nodes.Node, kubectl: nodes.Kubectl, directory: str
) -> None:
    kubectl.await_ready(*(f"pod/{pod}" for pod in PROPAGATION))
    mount = "mkdir /shared/in && mount -t tmpfs none /shared/in && echo seen > /shared/in/word"
    kubectl("exec", "giver", "--", "sh", "-c", mount)
    try:
        assert cluster.execute("cat", f"{directory}/in/word").strip() == "seen"
        found = {
            pod: kubectl("exec", pod, "--", "sh", "-c", "cat /shared/in/word 2>&1 || true").strip()
            for pod in PROPAGATION
        }
        assert (found["giver"], found["taker"]) == ("seen", "seen")
        assert "No such file" in found["stranger"]
    finally:
        kubectl("exec", "giver", "--", "umount", "/shared/in")
    assert directory not in cluster.execute("cat", "/proc/mounts")
    cluster.execute("rm", "-r", directory)


def test_a_pod_that_takes_too_much_disk_is_evicted(kubectl: nodes.Kubectl) -> None:
    kubectl(
        *("wait", "pod/greedy-writer", "--for=jsonpath={.status.reason}=Evicted"),
        f"--timeout={EVICTED_SECONDS:.0f}s",
    )
    assert "exceeds" in kubectl.get("pod", "greedy-writer")["status"]["message"]
    assert kubectl.get("pod", "modest-writer")["status"]["phase"] == "Running"
