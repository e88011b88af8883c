"""A port before its server is there: held, so that nobody is refused; or asked who passes it on."""

from __future__ import annotations

import os
import pathlib
import socket

# Source: Documentation/networking/ip-sysctl.rst, tcp_migrate_req (Linux 5.14).
_MIGRATE = pathlib.Path("/proc/sys/net/ipv4/tcp_migrate_req")
_LISTEN = "0A"  # Source: include/net/tcp_states.h
# A host's firewall may drop what its containers send it.
PASS_SECONDS = 0.3
# Others may connect meanwhile: they are let go, and come again.
CALLERS = 16


class Placeholder:
    """Listens at a port and accepts nothing.

    Clients connect and wait. Once the server listens too (with SO_REUSEPORT), `close` hands the
    connections that wait over to it. Where the kernel cannot do that they are reset, and the
    clients try again: no worse than being refused.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        if _MIGRATE.exists():
            _MIGRATE.write_text("1")
        # As Go listens at the unspecified address: on IPv6, for IPv4 too, where there is IPv6.
        self._socket = socket.create_server(
            ("", port),
            family=socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET,
            dualstack_ipv6=socket.has_dualstack_ipv6(),
            reuse_port=True,
            backlog=1024,
        )

    def find_other(self, proc: pathlib.Path = pathlib.Path("/proc")) -> str | None:
        """Why nobody else listens at the port yet; None when somebody does."""
        listening = 0
        for table in (proc / "net/tcp", proc / "net/tcp6"):
            if not table.exists():
                continue  # a kernel without IPv6
            for line in table.read_text().splitlines()[1:]:
                _, local, _, state = line.split()[:4]
                listening += state == _LISTEN and int(local.rpartition(":")[2], 16) == self._port
        return None if listening > 1 else f"port {self._port} is not listened at"

    def close(self) -> None:
        """Let go of the port."""
        self._socket.close()


def is_passed_on(gateway: str, *, address: str, port: int) -> bool:
    """Whether the gateway passes what is sent to it at a port on to this container's own.

    It does where docker publishes the port beyond loopback: its proxy then lets in pods, other
    containers and, by IPv6, other machines under the gateway's address, as if they were the host.

    Args:
        gateway: the gateway's address.
        address: where the server will listen; nobody may listen there yet.
        port: the server's port.
    """
    word = os.urandom(16)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with (
            socket.create_server((address, port), family=family) as listener,
            socket.create_connection((gateway, port), timeout=PASS_SECONDS) as sent,
        ):
            sent.sendall(word)
            listener.settimeout(PASS_SECONDS)
            for _ in range(CALLERS):
                with listener.accept()[0] as came:
                    came.settimeout(PASS_SECONDS)
                    if came.recv(len(word)) == word:
                        return True
    except OSError:  # refused, above all, or nothing has come in time
        return False
    return False
