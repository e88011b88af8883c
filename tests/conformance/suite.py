"""Runs Kubernetes' tests against a node, from a container in the node's own network."""

from __future__ import annotations

import collections.abc
import contextlib
import pathlib
import re
import subprocess
import time

from tests.cluster import nodes
from tests.conformance import images, results

CONFORMANCE = "[Conformance]"
SERIAL = "[Serial]"
# Quick tests that tell much, by what only their names have: each takes seconds, and each another way into the node.
SHORT = (
    "AdmissionWebhook [Privileged:ClusterAdmin] should mutate pod and apply defaults after mutation",
    "Container Lifecycle Hook when create a pod with lifecycle hook should execute prestop exec hook",
    "DNS should provide DNS for ExternalName services",
    "DNS should provide DNS for services",
    "Ephemeral Containers will start an ephemeral container in an existing pod",
    "HostPort validates that there is no conflict between pods with same hostPort",
    "Job should run a job to completion when tasks sometimes fail and are locally restarted",
    "Kubectl logs logs should be able to retrieve and filter logs",
    "Networking Granular Checks: Pods should function for node-pod communication: udp",
    "Pods should support remote command execution over websockets",
    "Proxy version v1 should proxy through a service and a pod",
    "Security Context when creating containers with AllowPrivilegeEscalation should not allow",
    "ServiceAccounts ServiceAccountIssuerDiscovery should support OIDC discovery",
    "Services should be able to create a functioning NodePort service",
    "Services should have session affinity work for service with type clusterIP",
    "Services should serve endpoints on same port and different protocols",
    "Subpath Atomic writer volumes should support subpaths with configmap pod [Conformance]",
    "Sysctls [LinuxOnly] should support sysctls",
    "EmptyDir volumes should support (non-root,0666,tmpfs)",
)
# `e2e.test --list-tests`: where the test is in the source, and its name.
_LISTED = re.compile(r"^\s+\S+:\d+: (.+)$", re.MULTILINE)


def list_tests(version: str) -> list[str]:
    """The names of all conformance tests of a version."""
    command = ["run", "--rm", images.runner(version), "e2e.test", "--list-tests"]
    return find_tests(nodes.docker(*command, seconds=300))


def find_tests(listed: str) -> list[str]:
    """The conformance tests in what `e2e.test --list-tests` prints."""
    return sorted({name for name in _LISTED.findall(listed) if CONFORMANCE in name})


def split(tests: collections.abc.Sequence[str], *, size: int) -> list[list[str]]:
    """Batches, each of tests that may run at once, or of such that must not; those last.

    Neighbours by name go into different batches: they take as long, and use the same things.
    """
    batches = []
    for serial in (False, True):
        chosen = [test for test in tests if (SERIAL in test) == serial]
        count = -(-len(chosen) // size)
        batches += [chosen[number::count] for number in range(count)]
    return batches


def focus(test: str) -> str:
    """A regular expression of Go's that a test's whole name ends with."""
    escaped = re.sub(r"([^a-zA-Z0-9 _])", r"\\\1", test)
    return f"--focus={escaped}$"


def choose_short(tests: collections.abc.Iterable[str]) -> list[str]:
    """The tests of `SHORT`.

    Raises:
        ValueError: a line of it that is in no test's name, or in more than one's.
    """
    tests = list(tests)
    found = {part: [test for test in tests if part in test] for part in SHORT}
    wrong = {part: names for part, names in found.items() if len(names) != 1}
    if wrong:
        raise ValueError(f"not one test each: {wrong}")
    return [names[0] for names in found.values()]


class Suite:
    """e2e.test beside a node."""

    def __init__(self, name: str, *, log: pathlib.Path) -> None:
        self._name, self._log = name, log

    def run(
        self, tests: collections.abc.Sequence[str], *, processes: int, minutes: float
    ) -> results.Results:
        """Run tests of one batch; what was broken off has no result.

        Args:
            tests: their names.
            processes: how many at once; serial ones are run one by one.
            minutes: after that long the run is broken off.
        """
        if any(SERIAL in test for test in tests):
            processes = 1
        folder = f"/results/{time.monotonic_ns()}"
        command = ["docker", "exec", self._name, "ginkgo", "--no-color", f"--procs={processes}"]
        command += [f"--timeout={minutes:.0f}m", "--poll-progress-after=0", *map(focus, tests)]
        command += ["/usr/local/bin/e2e.test", "--", "--kubeconfig=/kubeconfig"]
        command += ["--provider=skeleton", "--disable-log-dump", f"--report-dir={folder}"]
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            subprocess.run(command, stdout=log, stderr=log, check=False)
        report = nodes.docker("exec", self._name, "cat", f"{folder}/junit_01.xml")
        found = results.read_junit(report)
        return {test: found[test] for test in tests if test in found}


@contextlib.contextmanager
def attach(node: nodes.Node, version: str, *, log: pathlib.Path) -> collections.abc.Iterator[Suite]:
    """A container that has e2e.test, in the node's network, as the cluster's administrator."""
    name = nodes.unique("p8s-test")
    options = ["--detach", f"--name={name}", f"--network=container:{node.name}"]
    try:
        nodes.docker("run", *options, images.runner(version))
        write = ["docker", "exec", "--interactive", name, "sh", "-c", "umask 077; cat >/kubeconfig"]
        kubeconfig = node.execute("cat", "/etc/kubernetes/admin.conf")
        subprocess.run(write, input=kubeconfig, text=True, check=True)
        yield Suite(name, log=log)
    finally:
        nodes.docker("rm", "--force", "--volumes", name, check=False)
