"""A run that is validated and ended from inside, as examples/validation/job.yaml documents it.

The one with the right token is the last test of test_doors.py: it ends a cluster.
"""

from __future__ import annotations

import pathlib

from tests.cluster import nodes

MANIFEST = pathlib.Path(__file__).parents[2] / "examples" / "validation" / "job.yaml"


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
