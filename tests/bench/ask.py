"""Asks a resolver until it answers, and prints when that was, on the monotonic clock.

A process of its own, so that it can be started in a node's network namespace.

usage: python -m tests.bench.ask SERVER NAME
"""

from __future__ import annotations

import sys
import time

from p8s_supervisor import dns

POLL_SECONDS = 0.02


def main(server: str, name: str) -> None:
    """Ask, whatever the network says, until there is an address."""
    while True:
        try:
            if dns.query(name, server=server, seconds=POLL_SECONDS):
                print(time.monotonic())
                return
        except (OSError, ValueError):  # nobody there yet, or a resolver that does not know it yet
            time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
