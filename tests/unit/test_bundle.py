"""What a bundle holds, what it hides, and what it says of what it could not have."""

from __future__ import annotations

import base64
import io
import itertools
import json
import pathlib
import tarfile
import typing

import pytest

from p8s_supervisor import bundle, commands, context, errors, health
from tests import fakes

PASSWORD = "correct horse battery staple"
KEY = f"-----BEGIN PRIVATE KEY-----\n{'MIGHAgEAMBMGByqGSM49' * 3}\n-----END PRIVATE KEY-----\n"
JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6Ing.eyJpc3MiOiJodHRwczovL2t1YmVyIn0.c2lnbmF0dXJl-_x"
REFUSED = errors.KubeError("[Errno 111] Connection refused", status=0)

SECRET = {
    "metadata": {
        "name": "s",
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": PASSWORD, "a": "b"},
        "managedFields": [{}],
    },
    "data": {
        "password": base64.b64encode(PASSWORD.encode()).decode(),
        "namespace": base64.b64encode(b"kube-system").decode(),
        "short": base64.b64encode(b"pods").decode(),
    },
}
POD = {
    "metadata": {"name": "web", "namespace": "kube-system", "managedFields": [{}]},
    "spec": {"containers": [{"env": [{"name": "P", "value": PASSWORD}, {"value": KEY}]}]},
}


def listed(*items: dict[str, typing.Any], more: str = "") -> dict[str, typing.Any]:
    return {"items": list(items), "metadata": {"continue": more} if more else {}}


def answers() -> dict[str, list[fakes.Answer]]:
    return {
        "GET /api/v1/namespaces/kube-system/pods": [listed()],
        "GET /api/v1/pods": [listed(POD)],
        "GET /api/v1/secrets": [listed(SECRET)],
        "GET /api/v1": [
            {
                "resources": [
                    {"name": "pods", "verbs": ["get", "list"]},
                    {"name": "secrets", "verbs": ["list"]},
                    {"name": "pods/log", "verbs": ["get"]},
                ]
            }
        ],
        "GET /apis": [
            {
                "groups": [
                    {"name": name, "preferredVersion": {"groupVersion": f"{name}/v1"}}
                    for name in ("apps", "events.k8s.io", "away.example")
                ]
            }
        ],
        "GET /apis/apps/v1": [{"resources": [{"name": "deployments", "verbs": ["list"]}]}],
        "GET /apis/apps/v1/deployments": [
            listed({"metadata": {"name": "one"}}, more="token"),
            listed({"metadata": {"name": "two"}}),
        ],
        "GET /apis/away.example/v1": [errors.KubeError("service unavailable", status=503)],
    }


@pytest.fixture
def run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> context.Context:
    """A cluster whose logs, objects and keys hold secrets."""
    ran = fakes.Commands(
        {
            "nft": "table ip p8s {}",
            "df": "disk",
            "ctr": errors.CommandError("ctr", code=1, output=""),
        }
    )
    monkeypatch.setattr(commands, "run", ran)
    made = fakes.make_context(
        tmp_path, "--api-token=a-token-of-16-and-more", client=fakes.KubeClient(answers())
    )
    made.loaded.texts["api_token"] = "a-token-of-16-and-more"
    for file, text in {
        made.plan.paths.authorities / "ca.key": KEY,
        made.plan.paths.logs / "kubelet.log": f"I1 {PASSWORD}\nE2 Bearer {JWT}; {fakes.TOKEN}\n",
        made.plan.paths.logs / "kubelet.log.1": f"older\n{KEY}the end\n",
        made.plan.paths.logs / bundle.FILE: "an earlier bundle",
        made.plan.paths.pod_logs / "kube-system_web_1/web/0.log": "a pod's line\n",
    }.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    made.journal.record("warning", f"it said {PASSWORD}")
    return made


def write(run: context.Context) -> dict[str, bytes]:
    monitor = health.Monitor(run)
    monitor.missing = dict  # type: ignore[method-assign]
    target = io.BytesIO()
    bundle.write(run, monitor, typing.cast("typing.BinaryIO", target))
    target.seek(0)
    with tarfile.open(fileobj=target, mode="r:gz") as archive:
        return {
            entry.name.removeprefix("p8s-bundle/"): content.read()
            for entry in archive
            if (content := archive.extractfile(entry)) is not None
        }


def test_what_is_in_it(run: context.Context) -> None:
    files = write(run)
    assert {
        "status.json",
        "metrics.txt",
        "settings.json",
        "versions.json",
        "events.json",
        "logs/kubelet.log",
        "logs/kubelet.log.1",
        "pods/kube-system_web_1/web/0.log",
        "node/proc/meminfo",
        "node/proc/mounts",
        "node/nftables.txt",
        "objects/core/pods.json",
        "objects/core/secrets.json",
        "objects/apps/deployments.json",
        "errors.txt",
    } <= set(files)
    assert not any(name.endswith("gz") or "pods/log" in name for name in files)
    assert json.loads(files["versions.json"]) == fakes.VERSIONS
    assert files["node/nftables.txt"] == b"table ip p8s {}"
    deployments = json.loads(files["objects/apps/deployments.json"])
    assert [item["metadata"]["name"] for item in deployments] == ["one", "two"]
    [pod] = json.loads(files["objects/core/pods.json"])
    assert pod["metadata"] == {"name": "web", "namespace": "kube-system"}


def test_no_secret_is_in_it(run: context.Context) -> None:
    files = write(run)
    everything = b"\n".join(files.values())
    for secret in (
        PASSWORD,
        base64.b64encode(PASSWORD.encode()).decode(),
        KEY.splitlines()[1],
        "PRIVATE KEY",
        JWT,
        fakes.TOKEN,
        "a-token-of-16-and-more",
    ):
        assert secret.encode() not in everything
    assert files["logs/kubelet.log"].decode() == "I1 …\nE2 Bearer …; …\n"
    assert files["logs/kubelet.log.1"].decode().startswith("older\n…")
    assert files["logs/kubelet.log.1"].endswith(b"the end\n")
    assert json.loads(files["settings.json"])["api_token"]["value"] == "…"
    [secret] = json.loads(files["objects/core/secrets.json"])
    assert secret == {
        "metadata": {"name": "s", "annotations": {"a": "b"}},
        "data": {"password": "…", "namespace": "…", "short": "…"},
    }


def test_what_could_not_be_had_is_named(run: context.Context) -> None:
    told = write(run)["errors.txt"].decode()
    assert "node/tasks.txt: CommandError: `ctr` ended with 1" in told
    assert "objects/away.example: service unavailable" in told


def test_without_an_apiserver_the_rest_is_there(run: context.Context) -> None:
    run.client = None
    files = write(run)
    assert "objects: there is no apiserver yet" in files["errors.txt"].decode()
    assert "logs/kubelet.log" in files
    assert "settings.json" in files


def test_without_the_secrets_no_object_is_shown(run: context.Context) -> None:
    client = fakes.KubeClient(answers() | {"GET /api/v1/secrets": [REFUSED]})
    run.client = client
    files = write(run)
    told = files["errors.txt"].decode()
    assert "objects: Secrets could not be listed, to hide them: [Errno 111]" in told
    assert not any(name.startswith("objects/") for name in files)
    assert "logs/kubelet.log" in files


def test_an_apiserver_that_lists_nothing_is_not_asked_for_everything(
    run: context.Context,
) -> None:
    kinds = [{"name": f"kind{number}", "verbs": ["list"]} for number in range(9)]
    some = answers() | {"GET /api/v1": [{"resources": kinds}]}
    client = fakes.KubeClient(
        some | {f"GET /api/v1/kind{number}": [REFUSED] for number in range(9)}
    )
    run.client = client
    told = write(run)["errors.txt"].decode()
    assert "objects: 7 more kinds are not asked for, from core/kind3 on" in told
    assert sum("/kind" in asked for asked in client.asked) == bundle.PATIENCE


def test_of_a_long_log_the_end_is_kept(
    run: context.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "LOG_BYTES", 100)
    log = run.plan.paths.logs / "etcd.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    files = write(run)
    assert files["logs/etcd.log"].startswith(b"line ")
    assert files["logs/etcd.log"].endswith(b"line 99\n")
    assert 80 < len(files["logs/etcd.log"]) <= 100
    assert f"logs/etcd.log: only the last 100 of {log.stat().st_size} bytes" in str(
        files["errors.txt"]
    )


def test_all_logs_together_are_bounded(
    run: context.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "LOGS_BYTES", 30)
    files = write(run)
    assert sum(len(files.get(name, b"")) for name in files if name.startswith("logs/")) <= 30
    assert "pods/kube-system_web_1/web/0.log: only the last 0 of" in files["errors.txt"].decode()


def test_the_time_is_bounded() -> None:
    times = itertools.chain([0.0, 1.0], itertools.repeat(bundle.SECONDS + 1))
    with tarfile.open(fileobj=io.BytesIO(), mode="w|") as archive:
        made = bundle.Bundle(archive, clock=lambda: next(times))
        made.add("first", lambda: b"")
        made.add("second", lambda: fakes.forbid("after the deadline"))
    assert made.missing == ["second: left out, the bundle took 60 s already"]


def test_of_too_many_objects_the_first_are_kept(
    run: context.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "OBJECTS_OF_A_KIND", 1)
    files = write(run)
    assert len(json.loads(files["objects/apps/deployments.json"])) == 1
    assert "objects/apps/deployments: only the first 1" in files["errors.txt"].decode()


def test_a_target_that_is_full_ends_it(run: context.Context) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    monitor = health.Monitor(run)
    monitor.missing = dict  # type: ignore[method-assign]
    with pytest.raises(OSError, match="No space left"):
        bundle.write(run, monitor, Full())


@pytest.mark.parametrize(
    ("content", "left"),
    [
        pytest.param(KEY.replace("\n", "\\n"), "…\\n", id="a key in JSON"),
        pytest.param(KEY.replace("PRIVATE", "RSA PRIVATE"), "…\n", id="an RSA key"),
        pytest.param(f"{KEY}and words\n{KEY}", "…\nand words\n…\n", id="words between keys"),
        pytest.param(KEY[:60] + '"}', '…"}', id="a key that is cut off"),
        pytest.param(
            f"client-key-data: {base64.b64encode(KEY.encode()).decode()}\n",
            "client-key-data: …\n",
            id="a kubeconfig",
        ),
        pytest.param(
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
            id="a certificate",
        ),
        pytest.param(f"token={JWT}&x", "token=…&x", id="a token"),
        pytest.param("eyJ is how JSON begins", "eyJ is how JSON begins", id="no token"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(content: str, left: str) -> None:
    assert bundle.Scrubber().scrub(content.encode()).decode() == left


@pytest.mark.parametrize("setting", ["true", "false"])
@pytest.mark.parametrize("failed", [True, False])
def test_a_start_that_failed_leaves_a_bundle_where_it_is_asked_for(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, *, setting: str, failed: bool
) -> None:
    monkeypatch.setattr(commands, "run", fakes.Commands({"nft": "", "df": "", "ctr": ""}))
    story: list[str] = []
    run = fakes.make_context(tmp_path, f"--failure-bundle={setting}", story=story)
    run.plan.paths.logs.mkdir(parents=True)
    if failed:
        run.fail(errors.P8sError("etcd failed: it was out of sorts"))
    bundle.write_on_failure(run, health.Monitor(run))
    file = run.plan.paths.logs / bundle.FILE
    assert file.exists() == (failed and setting == "true")
    if file.exists():
        assert file.stat().st_mode & 0o777 == 0o600
        assert str(file) in story[-1]
        with tarfile.open(file) as archive:
            content = archive.extractfile("p8s-bundle/failure.txt")
            assert content is not None
            assert content.read() == b"etcd failed: it was out of sorts\n"


def test_a_bundle_that_cannot_be_kept_is_told(tmp_path: pathlib.Path) -> None:
    story: list[str] = []
    run = fakes.make_context(tmp_path, "--failure-bundle=true", story=story)
    run.fail(errors.P8sError("no"))
    bundle.write_on_failure(run, health.Monitor(run))  # its directory is missing
    assert "no bundle" in story[-1]
    assert "No such file" in story[-1]
