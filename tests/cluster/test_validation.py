"""A run that is validated and ended from inside, as examples/validation/job.yaml documents it."""

from __future__ import annotations

import pathlib

import pytest

from tests.cluster import nodes

MANIFEST = pathlib.Path(__file__).parents[2] / "examples" / "validation" / "job.yaml"


@pytest.mark.parametrize("token", ["", "chosen-by-the-job"], ids=["this start's", "P8S_API_TOKEN"])
def test_a_job_finds_the_cluster_ready_and_ends_the_run(
    kubectl_program: pathlib.Path, tmp_path: pathlib.Path, token: str
) -> None:
    options = [f"--env=P8S_API_TOKEN={token}"] if token else []
    with nodes.run("--drain=none", options=options) as node:
        node.await_ready()
        token = token or node.execute("cat", "/run/p8s/token").strip()
        config = tmp_path / "kubeconfig"
        config.write_text(node.get("/kubeconfig", Authorization=f"Bearer {token}").text)
        kubectl = nodes.Kubectl(kubectl_program, config)
        kubectl("create", "namespace", "validation")
        secret = ("secret", "generic", "p8s", f"--from-literal=token={token}")
        kubectl("--namespace=validation", "create", *secret)
        kubectl("apply", f"--filename={MANIFEST}")
        assert node.wait(seconds=90) == 0, node.logs()
        log = node.logs()
    assert "stop: POST /stop from 192.168.253." in log
    assert log.rstrip().endswith("stopped")


def test_a_job_without_the_token_ends_nothing(admin: nodes.Kubectl, cluster: nodes.Node) -> None:
    admin("create", "namespace", "validation")
    secret = ("secret", "generic", "p8s", "--from-literal=token=wrong")
    admin("--namespace=validation", "create", *secret)
    admin("apply", f"--filename={MANIFEST}")
    failed = ("--for=condition=Failed", "--timeout=60s", "job/validation")
    admin("--namespace=validation", "wait", *failed)
    log = admin("--namespace=validation", "logs", "job/validation")
    assert "GET /ready: 200 ok" in log
    assert "HTTP Error 401" in log
    assert cluster.get("/ready").status_code == 200
    admin("delete", "namespace", "validation", "--wait=false")
