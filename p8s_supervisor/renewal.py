"""Renewal of the components' certificates while the cluster runs.

Nothing is restarted, but a kubelet that needs it: see `renew_kubelet`. Who reads what again, and when:

- serving certificates (kube-apiserver, kubelet, controllers, scheduler) and the front proxy's:
  at the file's event, some milliseconds. Source: k8s.io/apiserver/pkg/server/dynamiccertificates.
- etcd and its clients: at each handshake. Source: go.etcd.io/etcd/client/pkg/v3/transport.
- client certificates in kubeconfigs, and kube-apiserver's for kubelet: at each new connection, and
  every five minutes, when the connections with the old one are closed. Source:
  k8s.io/client-go/transport/cert_rotation.go.
"""

from __future__ import annotations

import contextlib
import datetime
import pathlib
import ssl
import threading
import xmlrpc.client

from p8s_supervisor import commands, context, credentials, errors, pki, processes, wait

# Between two looks at the clock: the one of the machine may jump, or stand still in a suspend.
LOOK_SECONDS = 600.0
# After a renewal that failed.
RETRY_SECONDS = 60.0
# client-go looks at its files this often, and a little more.
CLIENT_GO_SECONDS = 330.0
# client-go trusts what it read for a second.
CLIENT_GO_CACHE_SECONDS = 1.5
KUBELET_PORT = 10250
# For kubelet to serve what is in its file: it takes milliseconds where it can, and a start seconds.
SERVING_SECONDS = 10.0
ATTEMPTS = 3


def start(run: context.Context) -> None:
    """Renew in the background until the stop. Called when the cluster is ready."""
    threading.Thread(target=_work, args=(run,), name="renewal", daemon=True).start()


def _work(run: context.Context) -> None:
    wait = 0.0
    while not run.stop.wait(wait):
        try:
            wait = renew_if_due(run, now=datetime.datetime.now(datetime.UTC))
        except (errors.P8sError, OSError, ValueError, xmlrpc.client.Error) as error:
            run.tell(f"certificates: not renewed, tried again in {RETRY_SECONDS:g} s: {error}")
            wait = RETRY_SECONDS


def renew_if_due(run: context.Context, *, now: datetime.datetime) -> float:
    """Renew the certificates if they are at two thirds of their lifetime.

    Returns:
        Seconds until the next look.

    Raises:
        P8sError: a CA has expired, or is damaged.
        OSError: a file cannot be read or written.
    """
    left = (pki.renewal_due(run.plan.paths.pki / "p8s.crt") - now).total_seconds()
    if left <= 0:
        renew(run)
        left = (pki.renewal_due(run.plan.paths.pki / "p8s.crt") - now).total_seconds()
        # A CA at its very end gives certificates of no length: not a loop without a pause.
        left = max(left, RETRY_SECONDS / 2)
    return min(left, LOOK_SECONDS)


def renew(run: context.Context) -> None:
    """Make every certificate but the CAs' anew, and see that the old ones fall out of use.

    Raises:
        P8sError: a CA has expired, or is damaged.
        OSError: a file cannot be written.
    """
    with credentials.alone():
        run.admin = credentials.renew(run.plan)
    if run.client is not None:
        run.client.forget_connections()
    lifetime = run.plan.settings.cert_lifetime
    message = f"certificates: renewed, good for {datetime.timedelta(seconds=lifetime)}"
    run.tell(message)
    run.journal.record("renewal", message, seconds=lifetime)
    if run.stop.wait(CLIENT_GO_CACHE_SECONDS):
        return
    # kube-apiserver and kubelet refuse a request on an old connection whose certificate has
    # expired since. client-go comes to it in time but for short lifetimes.
    if lifetime / 3 <= CLIENT_GO_SECONDS:
        drop_connections(run)
    ask_kubelet(run)
    renew_kubelet(run)


def drop_connections(run: context.Context) -> None:
    """Close the components' connections to kube-apiserver and kubelet: they make new ones.

    Those of pods and of the host do not pass loopback and are left alone; so are p8s' own, which
    are new already.
    """
    (address, *_), port = run.plan.node_addresses, run.plan.settings.api_port
    spared = [word for own in list_own_ports() for word in ("and", "sport", "!=", f":{own}")]
    for destination, number in (("127.0.0.1", port), (f"[{address}]", KUBELET_PORT)):
        chosen = ["dst", destination, "and", "dport", "=", f":{number}", *spared]
        try:
            commands.run(["ss", "--kill", "--tcp", "--numeric", *chosen])
        except errors.CommandError as error:
            # A kernel without INET_DIAG_DESTROY: client-go looks at its files by itself.
            run.tell(f"certificates: old connections are kept: {error}")


def list_own_ports(proc: pathlib.Path = pathlib.Path("/proc/self")) -> list[int]:
    """The local ports of this process' own TCP connections over IPv4."""
    inodes = set()
    for descriptor in (proc / "fd").iterdir():
        # Closed since the directory was read.
        with contextlib.suppress(OSError):
            inodes.add(str(descriptor.readlink()))
    ports = set()
    for line in (proc / "net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if f"socket:[{words[9]}]" in inodes:
            ports.add(int(words[1].rpartition(":")[2], 16))
    return sorted(ports)


def renew_kubelet(run: context.Context) -> None:
    """See that kubelet serves its new certificate, and start it again where it goes on with the old.

    kubelet 1.35 has the new one only for those who call it by a name, which nobody does: not
    kube-apiserver either. Source: kubernetes/kubernetes#133654.
    """
    with contextlib.suppress(errors.CancelledError, errors.WaitTimeoutError):
        try:
            _await_new_certificate(run)
        except errors.WaitTimeoutError as error:
            run.tell(f"kubelet is started again, for its new certificate: {error.reason}")
            processes.restart(run.supervisor, "kubelet")
            _await_new_certificate(run)  # what hinders it now, readiness says


def _await_new_certificate(run: context.Context) -> None:
    (address, *_) = run.plan.node_addresses
    new = ssl.PEM_cert_to_DER_cert((run.plan.paths.pki / "kubelet.crt").read_text())

    def find_lack() -> str | None:
        try:
            served = ssl.get_server_certificate((address, KUBELET_PORT), timeout=SERVING_SECONDS)
        except OSError as error:
            return f"it does not answer: {error}"
        return None if ssl.PEM_cert_to_DER_cert(served) == new else "it still serves the old one"

    wait.until(
        find_lack,
        awaited="kubelet's new certificate",
        seconds=SERVING_SECONDS,
        interval=0.2,
        cancelled=run.stop.is_set,
    )


def ask_kubelet(run: context.Context) -> None:
    """Have kube-apiserver make a new connection to kubelet, so that no user's request is the first.

    client-go, which sees the new certificate while it connects, closes the connections that it has
    with the old one, and among them the very one it is making. Seen in 1.37, `kubectl logs` as the
    first one: "use of closed network connection".
    """
    if run.client is None:
        return
    for _ in range(ATTEMPTS):
        try:
            run.client.request("GET", f"/api/v1/nodes/{run.plan.settings.node_name}/proxy/healthz")
        except errors.KubeError:
            continue  # the one that was closed; the next goes through
        return
