"""A web application: it counts its visitors in a file on a volume."""

import fcntl
import http.server
import os
import pathlib
import signal
import socket
import sys
import time

GREETING = "Hello"
VISITS = pathlib.Path(os.environ.get("DATA", "/data"), "visits")


def count_visit() -> int:
    """One more; pods of the same volume count together."""
    with VISITS.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        visits = int(file.read() or 0) + 1
        file.truncate(0)
        file.write(str(visits))
    return visits


class Handler(http.server.BaseHTTPRequestHandler):
    """/healthz for kubelet, /work for a load, and everything else is a visit."""

    def do_GET(self) -> None:
        """Answer one visitor."""
        if self.path == "/healthz":
            self.answer("ok\n")
        elif self.path == "/work":
            end = time.process_time() + 0.1
            while time.process_time() < end:
                pass
            self.answer("done\n")
        else:
            self.answer(f"{GREETING}, visitor {count_visit()}, from {socket.gethostname()}\n")

    def answer(self, text: str) -> None:
        """Send a text."""
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # by itself process 1 ignores it
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
