"""What users give the components themselves, and what is taken in at the start."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import typing

import pytest
import yaml

from p8s_supervisor import wait
from tests.cluster import conftest, issuer, nodes, pods

GATE = "CPUManagerPolicyAlphaOptions"
NODE = "/api/v1/nodes/p8s/proxy"
POLICY = {"rules": [{"level": "Metadata", "resources": [{"resources": ["configmaps"]}]}]}
# Without a registry: an empty root for the node's own /usr, and a file.
DOCKERFILE = "FROM scratch\nCOPY root/ /\n"
COREFILE = """\
.:53 {
    errors
    health :8080
    ready
    hosts {
        203.0.113.9 corp.example
        fallthrough
    }
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
    }
    forward . /etc/resolv.conf
}
"""
EXTRA = (
    "--extra-config=kube-apiserver.enable-admission-plugins=NamespaceAutoProvision",
    "--extra-config=kube-apiserver.event-ttl=10m",
    "--extra-config=kube-controller-manager.terminated-pod-gc-threshold=77",
    "--extra-config=etcd.snapshot-count=5001",
    "--extra-config=kubelet.maxPods=33",
    "--extra-config=kube-proxy.iptables.minSyncPeriod=250ms",
    f"--feature-gates={GATE}=true",
)
RESOLVE = "import socket, sys; print(socket.gethostbyname(sys.argv[1]))"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
    """A cluster with something of everything.

    Attributes:
        node: its node.
        kubectl: its administrator's.
        issuer: whose tokens it takes.
        host: the directory on the host whose parts are mounted.
        image: of the archive in its directory of images.
    """

    node: nodes.Node
    kubectl: nodes.Kubectl
    issuer: issuer.Issuer
    host: pathlib.Path
    image: str


def make_archive(host: pathlib.Path) -> str:
    """An image, as an archive in the directory `images`; it is not left in the engine."""
    image = f"{nodes.unique('p8s-test')}:1"
    root = host / "build/root"
    root.mkdir(parents=True)
    (root / "marker").write_text("from an archive")
    (root / "usr").mkdir()
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (host / "build/Dockerfile").write_text(DOCKERFILE)
    nodes.docker("build", "--quiet", f"--tag={image}", str(host / "build"))
    try:
        nodes.docker("save", "--output", str(host / "images/one.tar"), image)
    finally:
        nodes.docker("rmi", "--force", image)
    return image


def write_host(host: pathlib.Path, idp: issuer.Issuer, image: str) -> None:
    """What the cluster is given in files."""
    profiles = [{"schedulerName": "default-scheduler"}, {"schedulerName": "second"}]
    for name, content in {
        "kubelet.yaml": {"evictionHard": {"memory.available": "50Mi"}},
        "kube-scheduler.yaml": {"profiles": profiles},
        "audit-policy.yaml": POLICY,
        "authentication.yaml": {"jwt": [idp.configuration()]},
    }.items():
        (host / "config" / name).write_text(yaml.safe_dump(content))
    (host / "config/Corefile").write_text(COREFILE)
    (host / "settings.yaml").write_text("proxy_mode: iptables\n")
    (host / "images/two.tar").write_text("this is no archive")
    (host / "data/file").write_text("from the host")
    user = pods.pod("loaded", ["sleep", "infinity"], image=f"docker.io/library/{image}")
    (host / "manifests/pod.yaml").write_text(yaml.safe_dump(user))


@pytest.fixture(scope="module")
def given(
    tmp_path_factory: pytest.TempPathFactory, make_kubectl: conftest.MakeKubectl
) -> typing.Iterator[Given]:
    host = tmp_path_factory.mktemp("host")
    for name in ("config", "images", "manifests", "data", "issuer"):
        (host / name).mkdir()
    idp = issuer.Issuer(host / "issuer")
    image = make_archive(host)
    write_host(host, idp, image)
    places = {
        "config": "/etc/p8s/config:ro",
        "images": "/etc/p8s/images:ro",
        "manifests": "/etc/p8s/manifests:ro",
        "settings.yaml": "/etc/p8s/config.yaml:ro",
        "issuer": "/srv/issuer:ro",
        "data": "/srv/data",
    }
    options = [f"--volume={host / name}:{target}" for name, target in places.items()]
    with nodes.run(*EXTRA, options=options) as node:
        issuer.serve(node, "/srv/issuer")
        await_degraded(node)
        yield Given(node=node, kubectl=make_kubectl(node), issuer=idp, host=host, image=image)


def await_degraded(node: nodes.Node) -> None:
    def look() -> str | None:
        assert node.is_running(), node.logs()
        try:
            status = node.status()
        except OSError as error:  # a reason like any other
            return str(error)
        return None if status["state"] == "degraded" else str(status["missing"])

    wait.until(look, awaited="degraded", seconds=nodes.START_SECONDS, interval=0.2)


def test_an_archive_that_is_none_is_named_and_the_rest_is_loaded_first(given: Given) -> None:
    missing = given.node.get("/ready").json()["missing"]
    assert list(missing) == ["images/two.tar"]
    assert "images/two.tar is not loaded: " in given.node.logs()
    given.kubectl.await_ready("pod/loaded")
    assert given.kubectl("exec", "loaded", "--", "cat", "/marker") == "from an archive"
    story = given.node.logs()
    assert story.index("images: loaded ") < story.index("images/two.tar is not loaded")
    (given.host / "images/two.tar").unlink()
    given.node.await_ready(seconds=45)


def test_flags_and_fields_are_in_force(given: Given) -> None:
    kubectl = given.kubectl
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "x", "namespace": "not-there-before"},
        }
    )
    pod = kubectl.get("pod", "kube-apiserver-p8s", "--namespace=kube-system")
    command = pod["spec"]["containers"][0]["command"]
    assert "--event-ttl=10m" in command
    assert "--enable-admission-plugins=NodeRestriction,NamespaceAutoProvision" in command
    pod = kubectl.get("pod", "kube-controller-manager-p8s", "--namespace=kube-system")
    command = pod["spec"]["containers"][0]["command"]
    assert [word for word in command if "gc-threshold" in word] == [
        "--terminated-pod-gc-threshold=77"
    ]
    assert "--snapshot-count=5001" in read_command(given.node, "etcd")
    kubelet = json.loads(kubectl("get", "--raw", f"{NODE}/configz"))["kubeletconfig"]
    assert kubelet["maxPods"] == 33
    assert kubelet["evictionHard"]["memory.available"] == "50Mi"
    assert kubelet["evictionHard"]["nodefs.inodesFree"] == "2%"
    assert kubectl.get("node", "p8s")["status"]["capacity"]["pods"] == "33"
    assert read_proxy(given.node) == ("iptables", "250ms")


def read_command(node: nodes.Node, program: str) -> list[str]:
    """The words that a program of the node was started with."""
    script = (
        "import json, pathlib; print(json.dumps([file.read_text().split(chr(0)) "
        "for file in pathlib.Path('/proc').glob('[0-9]*/cmdline')]))"
    )
    found = json.loads(node.execute("python3", "-c", script))
    (command,) = (words for words in found if words[0] == f"/usr/local/bin/{program}")
    return typing.cast("list[str]", command)


def read_proxy(node: nodes.Node) -> tuple[str, str]:
    """kube-proxy's mode and that mode's least time between two rounds, as it says itself."""
    told = node.execute("python3", "-c", pods.FETCH, "http://127.0.0.1:10249/configz")
    found = json.loads(told)["kubeproxy.config.k8s.io"]
    if "Mode" in found:  # 1.35: by Go's names, and one time for every mode
        return found["Mode"], found["MinSyncPeriod"]
    return found["mode"], found[found["mode"]]["minSyncPeriod"]


def test_feature_gates_reach_every_component(given: Given) -> None:
    line = re.compile(rf'kubernetes_feature_enabled\{{name="{GATE}",stage="ALPHA"\}} 1')
    assert line.search(given.kubectl("get", "--raw", "/metrics"))
    assert line.search(given.kubectl("get", "--raw", f"{NODE}/metrics"))
    assert line.search(
        given.node.execute("python3", "-c", pods.FETCH, "http://127.0.0.1:10249/metrics")
    )


def test_a_scheduler_of_the_user_s_profiles(given: Given) -> None:
    pod = pods.sleeper("second")
    pod["spec"]["schedulerName"] = "second"
    given.kubectl.apply(pod)
    given.kubectl.await_ready("pod/second")


def test_the_audit_log_has_what_the_policy_says(given: Given) -> None:
    given.kubectl("get", "configmaps")
    lines = given.node.execute("cat", "/var/log/p8s/audit.log").splitlines()
    resources = {json.loads(line)["objectRef"]["resource"] for line in lines}
    assert resources == {"configmaps"}


def test_tokens_of_the_user_s_issuer(given: Given) -> None:
    token = given.issuer.sign(email="ann@example.org", groups=["dev"])
    command = ("auth", "whoami", "--output=json", "--client-certificate=", "--client-key=")
    config = yaml.safe_load(given.kubectl.kubeconfig.read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    file = given.host / "ann.config"
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump(config))
    ann = dataclasses.replace(given.kubectl, kubeconfig=file)

    def look() -> str | None:  # kube-apiserver asks the issuer for its keys every ten seconds
        done = ann.attempt(*command[:3])
        return None if done.returncode == 0 else done.stderr

    wait.until(look, awaited="an answer to the token", seconds=15, interval=0.5)
    info = json.loads(ann(*command[:3]))["status"]["userInfo"]
    assert info["username"] == "ann@example.org"
    assert "sso:dev" in info["groups"]


def test_directories_of_the_host_and_what_is_mounted_in_them_later(given: Given) -> None:
    pod = pods.sleeper("mounts")
    pod["spec"]["volumes"].append({"name": "data", "hostPath": {"path": "/srv/data"}})
    pod["spec"]["containers"][0]["volumeMounts"].append(
        {"name": "data", "mountPath": "/data", "mountPropagation": "HostToContainer"}
    )
    given.kubectl.apply(pod)
    given.kubectl.await_ready("pod/mounts")
    assert given.kubectl("exec", "mounts", "--", "cat", "/data/file") == "from the host"
    script = "mkdir /srv/data/late && mount -t tmpfs none /srv/data/late && touch /srv/data/late/f"
    given.node.execute("sh", "-c", script)
    try:
        assert given.kubectl("exec", "mounts", "--", "ls", "/data/late") == "f\n"
    finally:
        given.node.execute("umount", "/srv/data/late")


def list_rules(node: nodes.Node) -> tuple[bool, bool]:
    """Whether there are kube-proxy's rules of iptables mode, and of nftables mode."""
    tables = node.execute("nft", "list", "tables")
    return "KUBE-SERVICES" in node.execute("iptables-save"), "kube-proxy" in tables


def resolve(given: Given, name: str) -> str:
    return given.kubectl("exec", "client", "--", *pods.python(RESOLVE, name)).strip()


def test_services_in_both_modes_and_a_restart_takes_what_is_given_then(given: Given) -> None:
    kubectl = given.kubectl
    kubectl.apply(pods.sleeper("client"), pods.web_pod("web"), pods.service("web"))
    kubectl.await_ready("pod/client", "pod/web")
    fetch = ("exec", "client", "--", *pods.python(pods.FETCH, "http://web/"))
    assert kubectl(*fetch).startswith("web ")
    assert list_rules(given.node) == (True, False)
    assert resolve(given, "corp.example") == "203.0.113.9"

    (given.host / "settings.yaml").write_text("proxy_mode: nftables\n")
    changed = COREFILE.replace("203.0.113.9", "203.0.113.10")
    (given.host / "config/Corefile").write_text(changed)
    nodes.docker("restart", "--time=60", given.node.name)
    given.node.await_ready()
    assert read_proxy(given.node)[0] == "nftables"
    assert list_rules(given.node) == (False, True)
    kubectl.await_ready("pod/client", "pod/web")
    assert kubectl(*fetch).startswith("web ")
    assert resolve(given, "corp.example") == "203.0.113.10"
    wait.until(lambda: find_waiting(kubectl), awaited="every pod to run", seconds=60, interval=0.2)
    # The archive has been loaded, and is as it was.
    assert given.node.logs().count("images: loaded ") == 1


def find_waiting(kubectl: nodes.Kubectl) -> str | None:
    """The pods that do not run, of the system and of the user's; None where all do."""
    waiting = [
        f"{pod['metadata']['name']}: {pod['status']['phase']}"
        for pod in kubectl.get("pods", "--all-namespaces")["items"]
        if pod["status"]["phase"] != "Running"
    ]
    return ", ".join(waiting) or None


def test_a_networkpolicy_is_taken_with_a_warning(admin: nodes.Kubectl, namespace: str) -> None:
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "closed", "namespace": namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }
    done = admin.attempt("apply", "--filename=-", stdin=policy)
    assert done.returncode == 0, done.stderr
    assert "Warning: " in done.stderr
    assert "p8s keeps NetworkPolicy objects and does not enforce them" in done.stderr
    assert admin.get("networkpolicy", "closed")["spec"]["policyTypes"] == ["Ingress"]
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}
    assert admin.attempt("apply", "--filename=-", stdin=other).stderr == ""
