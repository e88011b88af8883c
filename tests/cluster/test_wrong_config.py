"""What users give the components and what cannot work: it is said at once, or in their own words."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import time

import pytest

from tests.cluster import nodes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wrong:
    """A start that has to fail, with the component's own words.

    Attributes:
        arguments: settings.
        files: of the directory with files for components.
        told: what has to be said.
        is_shown: whether /status says it too: where nothing runs yet the stop takes no time.
    """

    arguments: tuple[str, ...] = ()
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    told: tuple[str, ...] = ()
    is_shown: bool = True


WRONG = {
    "etcd": Wrong(
        arguments=("--extra-config=etcd.no-such-flag=1",),
        told=("etcd failed: ", "flag provided but not defined: -no-such-flag"),
    ),
    "kube-apiserver": Wrong(
        arguments=("--extra-config=kube-apiserver.no-such-flag=1",),
        told=("kube-apiserver failed: it keeps ending", "unknown flag: --no-such-flag"),
    ),
    "kube-controller-manager": Wrong(
        arguments=("--extra-config=kube-controller-manager.no-such-flag=1",),
        told=("kube-controller-manager failed: it keeps ending", "unknown flag: --no-such-flag"),
    ),
    "kube-scheduler": Wrong(
        files={"kube-scheduler.yaml": "noSuchField: 1\n"},
        told=("kube-scheduler failed: it keeps ending", "unknown field", "noSuchField"),
    ),
    "kubelet": Wrong(
        arguments=("--extra-config=kubelet.maxPods=-2",),
        told=("kubelet failed: ", "maxPods"),
        is_shown=False,
    ),
    "a field that kubelet does not know": Wrong(
        arguments=("--extra-config=kubelet.noSuchField=1",),
        told=("kubelet failed: its configuration", "noSuchField"),
    ),
    "kube-proxy": Wrong(
        arguments=("--extra-config=kube-proxy.nodePortAddresses=[nonsense]",),
        told=("kube-proxy failed: it keeps ending", "nonsense"),
    ),
    "a Corefile": Wrong(
        files={"Corefile": ".:53 {\n    no_such_plugin\n}\n"},
        told=("coredns failed: it keeps ending", "no_such_plugin"),
    ),
    "a gate": Wrong(
        arguments=("--feature-gates=NoSuchGate=true",),
        told=("failed: ", "unrecognized feature gate: NoSuchGate"),
        is_shown=False,
    ),
}
# From docker run to the container's end; a start that waits for a time-out takes two minutes.
FAILED_SECONDS = 40.0


def read_statuses(node: nodes.Node) -> str:
    """What /status says until the container ends."""
    said = ""
    deadline = time.monotonic() + FAILED_SECONDS
    while node.is_running():
        assert time.monotonic() < deadline, f"it does not end:\n{node.logs()}"
        with contextlib.suppress(OSError):
            said += node.get("/status").text
        time.sleep(0.1)
    return said


# The others take a minute and a half more, and go the same ways: WRONG_CONFIG=all.
USUAL = ("kube-apiserver", "a field that kubelet does not know")
NAMES = WRONG if os.environ.get("WRONG_CONFIG") == "all" else USUAL


@pytest.mark.parametrize("name", NAMES)
def test_a_start_that_cannot_work_fails_with_the_component_s_own_words(
    name: str, tmp_path: pathlib.Path
) -> None:
    wrong = WRONG[name]
    for file, text in wrong.files.items():
        (tmp_path / file).write_text(text)
    with nodes.run(*wrong.arguments, options=[f"--volume={tmp_path}:/etc/p8s/config:ro"]) as node:
        statuses = read_statuses(node)
        assert node.wait() == 1
        story = node.logs()
    failure = story[story.index("the start failed: ") :]
    assert [words for words in wrong.told if words not in failure] == [], failure
    shown = statuses.replace('\\"', '"')
    assert not wrong.is_shown or [words for words in wrong.told if words not in shown] == []


def test_what_p8s_needs_for_itself_is_refused_at_once(tmp_path: pathlib.Path) -> None:
    (tmp_path / "kubelet.yaml").write_text("staticPodPath: /x\n")
    (tmp_path / "kube-proxy.yml").write_text("mode: iptables\n")
    with nodes.run(
        "--extra-config=kube-apiserver.secure-port=7443",
        "--extra-config=kube-apiserver.oidc-issuer-url=https://x",
        options=[f"--volume={tmp_path}:/etc/p8s/config:ro"],
    ) as node:
        assert node.wait(seconds=10) == 2
        story = node.logs()
    for words in (
        "3 wrong settings",
        "kube-apiserver.secure-port: it cannot be given: use the setting api_port",
        "kube-apiserver.oidc-issuer-url: it cannot be given: write it into",
        "/etc/p8s/config/kubelet.yaml: staticPodPath: it cannot be given",
        "/etc/p8s/config/kube-proxy.yml: no such file is read; did you mean kube-proxy.yaml?",
    ):
        assert words in story
