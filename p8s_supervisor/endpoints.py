"""What a component says of its own health, asked at its own port.

The API holds what kubelet told of a pod, which is a second old where the pod has just ended, and
older where kubelet or kube-apiserver is away. These answers are of now.
"""

from __future__ import annotations

import dataclasses
import http.client
import pathlib
import ssl
import typing

from p8s_supervisor import components, probes

# One that does not answer for so long is not there: what is stopped accepts, and says nothing.
ANSWER_SECONDS = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tls:
    """What a component is asked with.

    Attributes:
        ca: who signed its certificate.
        certificate: of the client, where one is asked for.
        key: of the client.
    """

    ca: pathlib.Path
    certificate: pathlib.Path | None = None
    key: pathlib.Path | None = None


class Asked(typing.Protocol):
    """What can be asked for its health."""

    def ask(self) -> str | None:
        """Why the component is not healthy; None where it is."""


class Socket:
    """A component that is well where it accepts connections at its unix socket."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path

    def ask(self) -> str | None:
        """See `Asked`."""
        return probes.unix_socket(str(self._path))


class Endpoint:
    """A path of a component's server on loopback, over one connection that is kept.

    Not for several threads at once.
    """

    def __init__(self, port: int, path: str, *, tls: Tls | None = None) -> None:
        self._port, self._path, self._tls = port, path, tls
        self._connection: http.client.HTTPConnection | None = None

    def ask(self) -> str | None:
        """Why the component is not healthy; None where it says that it is."""
        kept = self._connection is not None
        try:
            return self._ask()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not kept or isinstance(error, TimeoutError):
                return self._tell(error)
        try:  # the server may have closed the kept one since
            return self._ask()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return self._tell(error)

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _ask(self) -> str | None:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.request("GET", self._path)
        answer = self._connection.getresponse()
        said = answer.read().decode(errors="replace").strip()
        if answer.status == http.HTTPStatus.OK:
            return None
        return f"port {self._port} answers {answer.status} to {self._path}: {said[:500]}"

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_SECONDS)
        # Read anew for each connection: certificates are renewed.
        context = ssl.create_default_context(cafile=str(self._tls.ca))
        if self._tls.certificate is not None:
            context.load_cert_chain(self._tls.certificate, self._tls.key)
        return http.client.HTTPSConnection(
            "127.0.0.1", self._port, timeout=ANSWER_SECONDS, context=context
        )

    def _tell(self, error: Exception) -> str:
        silent = isinstance(error, TimeoutError)
        reason = "no answer" if silent else getattr(error, "strerror", None) or error
        return f"port {self._port}: {reason}"


def connect(plan: components.Plan) -> dict[str, Asked]:
    """Each component that is asked, by the name of its condition.

    kube-apiserver is asked by its client, coredns for a name.
    """
    crypto = plan.paths.pki
    etcd = Tls(
        ca=crypto / "etcd-ca.crt",
        certificate=crypto / "apiserver-etcd-client.crt",
        key=crypto / "apiserver-etcd-client.key",
    )
    cluster = Tls(ca=crypto / "ca.crt")
    return {
        "etcd": Endpoint(2379, "/health", tls=etcd),
        "containerd": Socket(plan.paths.containerd_socket),
        "kubelet": Endpoint(10248, "/healthz"),
        "kube-controller-manager": Endpoint(10257, "/healthz", tls=cluster),
        "kube-scheduler": Endpoint(10259, "/healthz", tls=cluster),
        "kube-proxy": Endpoint(10256, "/livez"),
    }
