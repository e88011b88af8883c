"""A port that is held for a server which is still to come, so that its clients are not refused."""

from __future__ import annotations

import pathlib
import socket

# Source: Documentation/networking/ip-sysctl.rst, tcp_migrate_req (Linux 5.14).
_MIGRATE = pathlib.Path("/proc/sys/net/ipv4/tcp_migrate_req")
_LISTEN = "0A"  # Source: include/net/tcp_states.h


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
