"""What is missing or damaged in the state volume: told by its name, or repaired without loss.

Each case takes a copy of a volume that holds a cluster, damages it, and starts on it. The default
run takes those that tell most; FAULT_ROUNDS=2 and more takes all.
"""

from __future__ import annotations

import dataclasses
import pathlib
import textwrap
import time
import typing
from concurrent import futures

import pytest

from tests.cluster import nodes
from tests.faults import measure

OBJECTS = 30
# A refused start ends the container this soon; supervisord's attempts to start what fails are 7 s.
REFUSED_SECONDS = 20.0
SIDE_BY_SIDE = 3
STATE = "/var/lib/p8s"
WAL = "etcd/member/wal/0000000000000000-0000000000000000.wal"
BOLT = "containerd/io.containerd.metadata.v1.bolt/meta.db"
OVERLAYFS = "containerd/io.containerd.snapshotter.v1.overlayfs"
# Cuts etcd's log off so many bytes before the end of what is written in the file, whose rest is
# zeros. Each record has its length before it, in 8 bytes, with the padding in the highest.
# Source: go.etcd.io/etcd/server/v3/storage/wal/decoder.go.
CUT = textwrap.dedent("""
    import os, struct, sys
    file, less = sys.argv[1], int(sys.argv[2])
    data, end = open(file, "rb").read(), 0
    while length := struct.unpack_from("<q", data, end)[0]:
        end += 8 + (length & ((1 << 56) - 1)) + ((length >> 56) & 7 if length < 0 else 0)
    os.truncate(file, end - less if less else end // 2)
""")
# As where the clock was a day ahead while containers ran, and is set back before the next start.
TOMORROW = textwrap.dedent("""
    import json, pathlib
    for file in pathlib.Path("containerd").glob("io.containerd.grpc.v1.cri/containers/*/status"):
        state = json.loads(file.read_text())
        for name in ("CreatedAt", "StartedAt", "FinishedAt"):
            state[name] += 86_400 * 10**9
        file.write_text(json.dumps(state))
""")


@dataclasses.dataclass(frozen=True)
class Damage:
    """One case.

    Attributes:
        name: of the case.
        command: does it, in the volume's directory.
        told: what the log must say, in this order; nothing: the cluster has to be whole.
        often: whether it is in the default run.
    """

    name: str
    command: str
    told: tuple[str, ...] = ()
    often: bool = False


def garbage(file: str) -> str:
    """As many bytes as before, none of them as before."""
    return f"head -c $(stat -c %s {file}) /dev/urandom > garbage && mv garbage {file}"


def cut_log(less: int) -> str:
    return f"python3 -c '{CUT}' {WAL} {less}"


ETCD = ("hint: ", f"{STATE}/etcd back from a copy")
CUT_OFF = ("etcd's log was cut off or is damaged: in ", *ETCD)
CONTAINERD = ("hint: ", f"{STATE}/containerd back from a copy, or remove it")
DAMAGES = [
    # --- etcd
    Damage("etcd gone", "rm -r etcd", ("etcd's log is missing", *ETCD), often=True),
    Damage("etcd empty", "rm -r etcd/*", ("etcd's log is missing", *ETCD)),
    Damage("etcd's log gone", "rm -r etcd/member/wal", ("etcd's log is missing", *ETCD)),
    Damage("etcd's log empty", f": > {WAL}", CUT_OFF),
    Damage("etcd's log cut by 20 KB", cut_log(20_000), CUT_OFF, often=True),
    Damage("etcd's log cut by 100 bytes", cut_log(100), CUT_OFF, often=True),
    Damage("etcd's log cut in half", cut_log(0), CUT_OFF),
    Damage("etcd's log cut where nothing is written", f"truncate -s 32000000 {WAL}"),
    Damage("etcd's log garbage", garbage(WAL), CUT_OFF),
    Damage(
        "etcd's log, garbage in the middle",
        f"dd if=/dev/urandom of={WAL} bs=1000 count=50 seek=20 conv=notrunc status=none",
        ("crc mismatch", *ETCD),
        often=True,
    ),
    Damage("etcd's database cut off", "truncate -s 300000 etcd/member/snap/db", ETCD),
    Damage("etcd's database garbage", garbage("etcd/member/snap/db"), ETCD, often=True),
    # The log has everything from the first write on: nothing was cut off its begin yet.
    Damage("etcd's database gone", "rm etcd/member/snap/db"),
    Damage("etcd's database empty", ": > etcd/member/snap/db"),
    Damage("an older etcd", "rm -r etcd && mv .old etcd", ("has lost writes", *ETCD), often=True),
    # --- p8s' own
    Damage(
        "the record gone",
        "rm cluster.json",
        (f"{STATE}/cluster.json is missing", "hint: put it back", "service_cidr"),
        often=True,
    ),
    Damage("the record empty", ": > cluster.json", (f"{STATE}/cluster.json is damaged", "hint: ")),
    Damage("the record cut off", "truncate -s 30 cluster.json", ("cluster.json is damaged",)),
    Damage("the mark gone", "rm etcd-mark.json"),
    Damage("the mark empty", ": > etcd-mark.json", (f"{STATE}/etcd-mark.json is damaged",)),
    Damage("the names empty", ": > api-names.json", (f"{STATE}/api-names.json is damaged",)),
    Damage("the names a number", "echo 5 > api-names.json", ("api-names.json is damaged",)),
    # --- the PKI
    Damage("the PKI gone", "rm -r pki", (f"{STATE}/pki/ca.key is damaged: it is missing",)),
    Damage("a CA empty", ": > pki/ca.crt", (f"{STATE}/pki/ca.crt is damaged", "hint: "), often=True),
    Damage("a CA's key cut off", "truncate -s 100 pki/ca.key", (f"{STATE}/pki/ca.key is damaged",)),
    Damage("etcd's CA garbage", garbage("pki/etcd-ca.crt"), ("pki/etcd-ca.crt is damaged",)),
    Damage("the service accounts' key gone", "rm pki/sa.key", (f"{STATE}/pki/sa.key is damaged",)),
    Damage("the service accounts' public key gone", "rm pki/sa.pub"),
    Damage("PKI and record gone", "rm -r pki cluster.json", ("cluster.json is missing",)),
    # --- containerd's
    Damage("containerd gone", "rm -r containerd"),
    Damage("images' metadata gone", f"rm {BOLT}", (f"{BOLT} is missing or empty", *CONTAINERD)),
    Damage("images' metadata empty", f": > {BOLT}", (f"{BOLT} is missing or empty", *CONTAINERD)),
    Damage("images' metadata cut off", f"truncate -s 100000 {BOLT}", CONTAINERD),
    Damage("images' metadata garbage", garbage(BOLT), CONTAINERD, often=True),
    Damage("snapshots' metadata gone", f"rm {OVERLAYFS}/metadata.db", CONTAINERD),
    Damage("snapshots' metadata garbage", garbage(f"{OVERLAYFS}/metadata.db"), CONTAINERD),
    Damage("snapshots gone", f"rm -r {OVERLAYFS}/snapshots", CONTAINERD),
    Damage("containers of tomorrow", f"python3 -c '{TOMORROW}'", often=True),
    Damage("the layers empty", "find containerd/*content* -type f -exec truncate -s 0 {} +", CONTAINERD),
    # --- kubelet's
    Damage("kubelet gone", "rm -r kubelet"),
    Damage(
        "kubelet's states garbage",
        "for state in kubelet/*_state; do echo x > $state; done",
        often=True,
    ),
    Damage("kubelet's states empty", "for state in kubelet/*_state; do : > $state; done"),
    Damage("kubelet's pods gone", "rm -r kubelet/pods"),
]  # fmt: skip


def in_volumes(command: str, *volumes: str) -> str:
    """Run a command in a throw-away container, with volumes at /v0, /v1, …"""
    mounts = [f"--volume={name}:/v{number}" for number, name in enumerate(volumes)]
    return nodes.docker("run", "--rm", "--entrypoint=sh", *mounts, nodes.IMAGE, "-ec", command)


def write_objects(node: nodes.Node, prefix: str) -> None:
    items = "".join(
        f"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {prefix}-{number}}}\n"
        f"data: {{value: '{number}'}}\n"
        for number in range(OBJECTS)
    )
    node.execute("sh", "-ec", f'echo "{items}" | kubectl apply -f -')


def list_objects(node: nodes.Node) -> set[str]:
    found = node.execute("kubectl", "get", "configmaps", "--output=name").split()
    return {name for name in found if "kube-root-ca" not in name}


# A copy of etcd's files as they are at one moment, as a kill would leave them.
COPY = f"""
    etcd=$(grep -lx etcd /proc/[0-9]*/comm | cut -d/ -f3)
    kill -STOP $etcd; cp -a --sparse=always {STATE}/etcd {STATE}/.old; kill -CONT $etcd
"""


@pytest.fixture(scope="module")
def whole() -> typing.Iterator[str]:
    """A volume with a cluster that was stopped in order; in .old etcd as it was before."""
    with nodes.volume() as volume:
        with nodes.run(options=[f"--volume={volume}:{STATE}"]) as node:
            node.await_ready()
            write_objects(node, "first")
            node.execute("sh", "-ec", COPY)
            write_objects(node, "second")
            nodes.docker("stop", "--time=60", node.name)
        yield volume


@pytest.fixture(scope="module")
def starts(
    whole: str, request: pytest.FixtureRequest
) -> typing.Iterator[dict[str, futures.Future[None]]]:
    """Each case's start on its damaged copy, some side by side: they are refused, or pauses, mostly."""
    asked = [
        typing.cast("Damage", item.callspec.params["damage"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == "test_damage"
    ]
    with futures.ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        yield {damage.name: pool.submit(start, whole, damage) for damage in asked}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize(
    "damage",
    [damage for damage in DAMAGES if damage.often or measure.ROUNDS > 1],
    ids=lambda damage: damage.name.replace(" ", "-"),
)
def test_damage(starts: dict[str, futures.Future[None]], damage: Damage) -> None:
    starts[damage.name].result()


def start(whole: str, damage: Damage) -> None:
    """Start on a damaged copy of a volume.

    Raises:
        AssertionError: what comes of it is not what it must be.
    """
    with nodes.volume() as volume:
        copy = "cp -a --sparse=always /v0/. /v1/; cd /v1"
        in_volumes(f"{copy}; {damage.command}", whole, volume)
        before = in_volumes("cd /v0; ls etcd/member/wal/*.wal 2>&1 || true", volume)
        began = time.monotonic()
        with nodes.run(options=[f"--volume={volume}:{STATE}"]) as node:
            if not damage.told:
                node.await_ready()
                assert len(list_objects(node)) == 2 * OBJECTS, node.logs()
                write_objects(node, "third")
                assert len(list_objects(node)) == 3 * OBJECTS
                return
            assert node.wait() == 1, node.logs()
            seconds = time.monotonic() - began
            log = node.logs()
        rest = log
        for told in damage.told:
            assert told in rest, log
            rest = rest[rest.index(told) :]
        assert seconds < REFUSED_SECONDS
        assert "Traceback" not in log
        # No new cluster was begun in place of the old one.
        assert in_volumes("cd /v0; ls etcd/member/wal/*.wal 2>&1 || true", volume) == before


def test_the_table_has_each_name_once() -> None:
    assert len({damage.name for damage in DAMAGES}) == len(DAMAGES)


@pytest.mark.skipif(measure.ROUNDS < 2, reason="FAULT_ROUNDS is 1")
def test_a_new_log_is_made_from_the_database_as_the_docs_say(whole: str) -> None:
    text = (pathlib.Path(__file__).parents[2] / "docs/reliability.md").read_text()
    command = text.partition("--entrypoint sh p8s -ec '")[2].partition("'")[0]
    assert "etcdutl snapshot restore" in command
    with nodes.volume() as volume:
        copy = "cp -a --sparse=always /v0/. /v1/; cd /v1"
        in_volumes(f"{copy}; {cut_log(20_000)}", whole, volume)
        nodes.docker(
            "run", "--rm", f"--volume={volume}:/v", "--entrypoint=sh", nodes.IMAGE, "-ec", command
        )
        with nodes.run(options=[f"--volume={volume}:{STATE}"]) as node:
            node.await_ready()
            assert len(list_objects(node)) == 2 * OBJECTS
            write_objects(node, "third")
            assert len(list_objects(node)) == 3 * OBJECTS


@pytest.mark.skipif(measure.ROUNDS < 2, reason="FAULT_ROUNDS is 1")
def test_a_loss_that_is_accepted_is_started_with(whole: str) -> None:
    with nodes.volume() as volume:
        in_volumes(
            "cp -a --sparse=always /v0/. /v1/; cd /v1; rm -r etcd; mv .old etcd; rm etcd-mark.json",
            whole,
            volume,
        )
        with nodes.run(options=[f"--volume={volume}:{STATE}"]) as node:
            node.await_ready()
            assert len(list_objects(node)) == OBJECTS
