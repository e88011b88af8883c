"""Time passes unseen, or was told wrong. A wall clock has no namespace: `tests/vm/smoke.sh` sets one."""

from __future__ import annotations

import datetime
import json
import time

import pytest

from tests.cluster import nodes, pods
from tests.faults import conftest, measure

pytestmark = pytest.mark.skipif(measure.ROUNDS < 2, reason="FAULT_ROUNDS is 1")

LIFETIME_SECONDS = 120
LEASE = ("lease", "p8s", "--namespace=kube-node-lease")
# kube-controller-manager looks every five seconds, and gives a node 50.
LOOK_SECONDS = 12
LOST_SECONDS = 75


@pytest.mark.timeout(420)
def test_certificates_that_expired_while_everything_stood_still(
    make_kubectl: conftest.MakeKubectl, report: measure.Report
) -> None:
    """As in a machine that was suspended: nothing could be renewed in time."""
    with nodes.run(f"--cert-lifetime={LIFETIME_SECONDS}s") as node:
        node.await_ready()
        nodes.docker("pause", node.name)
        time.sleep(LIFETIME_SECONDS + 10)
        begun = time.monotonic()
        nodes.docker("unpause", node.name)
        recovery = measure.await_recovery(node, since=begun, evidence=lambda: None)
        report.add("docker pause until all certificates have expired, from unpause on", recovery)
        assert recovery.green < 20
        assert "certificates: renewed" in node.logs()
        kubectl = make_kubectl(node)
        kubectl.apply(pods.pod("late", ["sh", "-c", "echo hello; exec sleep 600"]))
        kubectl.await_ready("pod/late")
        assert kubectl("logs", "late") == "hello\n"
        restarts = node.count_restarts()
        assert not any(restarts.values()), restarts


@pytest.mark.timeout(300)
def test_a_clock_that_was_a_day_ahead_loses_no_node(make_kubectl: conftest.MakeKubectl) -> None:
    """kube-controller-manager has seen a lease of tomorrow: what kubelet writes now looks older."""
    with nodes.run() as node:
        node.await_ready()
        kubectl = make_kubectl(node)
        tomorrow = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
        change = {"spec": {"renewTime": tomorrow.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}}
        begun = time.monotonic()
        while time.monotonic() - begun < LOOK_SECONDS:
            kubectl("patch", *LEASE, "--type=merge", f"--patch={json.dumps(change)}")
            time.sleep(0.5)
        red: list[str] = []
        while time.monotonic() - begun < LOOK_SECONDS + LOST_SECONDS:
            reason = measure.is_green(node)
            red += [reason] if reason else []
            time.sleep(0.5)
        assert red == []
        renewed = kubectl.get(*LEASE)["spec"]["renewTime"]
        assert datetime.datetime.fromisoformat(renewed) < tomorrow, "kubelet has not written since"
