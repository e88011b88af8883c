"""Keeps the processes up once the cluster is ready: what supervisord gives up is started again.

supervisord itself starts a process that ends, at once where it ran for a second, and gives it up
after a few that did not. During the start that fails the start (`gates.raise_failure`). Later the
cause may go away, as a full disk does, and the cluster has to come back by itself.
"""

from __future__ import annotations

import threading
import xmlrpc.client

from p8s_supervisor import context, health

# Between two looks. One costs two milliseconds.
LOOK_SECONDS = 4.0
# supervisord's states of a process that it has given up, or does not start again.
GIVEN_UP = ("FATAL", "EXITED")


def start(run: context.Context, monitor: health.Monitor) -> None:
    """Look after the processes in the background until the stop."""
    threading.Thread(target=_work, args=(run, monitor), name="keeper", daemon=True).start()


def _work(run: context.Context, monitor: health.Monitor) -> None:
    while not run.stop.wait(LOOK_SECONDS):
        look(run, monitor)


def look(run: context.Context, monitor: health.Monitor) -> None:
    """Start what was given up, and note what supervisord itself has started again."""
    try:
        for process in run.supervisor.list_processes():
            monitor.restarts(process)
            if process.name not in health.PROCESSES or process.state not in GIVEN_UP:
                continue
            if run.stop.is_set():
                return
            reason = process.reason or process.state.lower()
            message = f"{process.name}: supervisord gave it up ({reason}); starting it again"
            run.tell(message)
            run.journal.record("warning", message, component=process.name, reason=reason)
            run.supervisor.start(process.name)
    except (OSError, xmlrpc.client.Error) as error:
        # Readiness says what is missing; the next look tries again.
        run.tell(f"keeper: {error}")
