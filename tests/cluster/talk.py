"""Scripts for pods and containers that talk to one another: what they answer is what a test looks at."""

from __future__ import annotations

import contextlib
import pathlib
import secrets
import subprocess
import sys
import typing

from p8s_supervisor import wait
from tests.cluster import nodes, pods

PORT = 8080
# There where this machine's kernel has IPv6.
IPV6 = pathlib.Path("/proc/net/if_inet6")
_ADDRESS = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}"

# Answers over HTTP, IPv4 and IPv6: GET /N: N bytes of zeros, any other GET: its name and the
# caller's address; POST: the SHA-256 of what was sent.
SERVE = """
import hashlib, http.server, socket, sys
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        wanted = self.path.strip("/")
        caller = self.client_address[0].removeprefix("::ffff:")
        self.answer(bytes(int(wanted)) if wanted else f"{sys.argv[1]} {caller}".encode())
    def do_POST(self):
        left, found = int(self.headers["Content-Length"]), hashlib.sha256()
        while left:
            part = self.rfile.read(min(left, 1 << 20))
            found.update(part)
            left -= len(part)
        self.answer(found.hexdigest().encode())
    def log_message(self, *_):
        pass
Server(("::", 8080), Handler).serve_forever()
"""

# Gets so many bytes from a URL and sends them back there; says how many came, and whether they
# arrived as they were sent.
TRANSFER = """
import hashlib, sys, urllib.request
url, size = sys.argv[1:]
body = urllib.request.urlopen(f"{url}/{size}", timeout=30).read()
said = urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=30).read().decode()
print(len(body), said == hashlib.sha256(body).hexdigest())
"""

# Answers datagrams with its name and the caller's address.
SERVE_UDP = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 8080))
while True:
    caller = server.recvfrom(65536)[1]
    server.sendto(f"{sys.argv[1]} {caller[0]}".encode(), caller)
"""

# Asks from one port of its own, which is one connection to conntrack, until the one that is waited
# for answers; says who did on the way.
ASK_UDP = """
import socket, sys, time
address, port, awaited, seconds = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.bind(("", int(sys.argv[5])))
asking.settimeout(0.1)
asking.connect((address, port))
said, deadline = ["nobody"], time.monotonic() + seconds
while said[-1] != awaited and time.monotonic() < deadline:
    try:
        asking.send(b"who is there")
        who = asking.recv(4096).decode().split()[0]
    except (TimeoutError, ConnectionRefusedError):
        time.sleep(0.05)
        continue
    if who != said[-1]:
        said.append(who)
print(*said)
"""

# Says which servers answered so many new connections.
COUNT = """
import sys, urllib.request
print(*{urllib.request.urlopen(sys.argv[1], timeout=5).read().split()[0].decode() for _ in range(20)})
"""

# The largest datagram that leaves in one piece, as the kernel of the sender sees it at once.
FIND_LARGEST = """
import errno, socket, sys
sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sending.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER: IP_PMTUDISC_DO
sending.connect((sys.argv[1], 9))
for size in range(9000, 500, -1):
    try:
        sending.send(bytes(size))
        print(size + 28)
        break
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise
"""

# A DNS server on port 53, UDP and TCP, for names that end in corp.test: it knows plain, later, and
# big, which has so many addresses that over UDP it can only say so.
SERVE_DNS = """
import socket, socketserver, struct
KNOWN = {b"plain": 1, b"later": 1, b"big": 200}
def read_name(question):
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]])
        at += question[at] + 1
    return labels, question[: at + 5][12:], struct.unpack(">H", question[at + 1 : at + 3])[0]
def answer(question, most):
    labels, asked, kind = read_name(question)
    ours = [label.lower() for label in labels[1:]] == [b"corp", b"test"]
    number = KNOWN.get(labels[0].lower(), 0) if ours else 0
    code = 0 if number else 3
    found = [
        struct.pack(">HHHIH", 0xC00C, 1, 1, 1, 4) + bytes([198, 18, index // 256, index % 256])
        for index in range(number if kind == 1 else 0)
    ]
    cut = len(found) * 16 > most
    flags = 0x8580 | code | (0x200 if cut else 0)
    found = [] if cut else found
    return question[:2] + struct.pack(">HHHHH", flags, 1, len(found), 0, 0) + asked + b"".join(found)
class Tcp(socketserver.BaseRequestHandler):
    def handle(self):
        while head := self.request.recv(2, socket.MSG_WAITALL):
            said = answer(self.request.recv(struct.unpack(">H", head)[0], socket.MSG_WAITALL), 65000)
            self.request.sendall(struct.pack(">H", len(said)) + said)
class Udp(socketserver.BaseRequestHandler):
    def handle(self):
        self.request[1].sendto(answer(self.request[0], 400), self.client_address)
import threading
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
threading.Thread(target=Server(("", 53), Tcp).serve_forever, daemon=True).start()
socketserver.ThreadingUDPServer(("", 53), Udp).serve_forever()
"""

# Looks up a name as programs do; says how many IPv4 addresses it has.
LOOK_UP = """
import socket, sys
print(len({entry[4][0] for entry in socket.getaddrinfo(sys.argv[1], 80, socket.AF_INET)}))
"""


def ask_udp(address: str, port: int, awaited: str, *, seconds: float, own_port: int) -> list[str]:
    """Run `ASK_UDP` on this host."""
    words = (address, str(port), awaited, str(seconds), str(own_port))
    done = subprocess.run(
        [sys.executable, "-c", ASK_UDP, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def server(name: str, *, app: str = "", **container: object) -> pods.Manifest:
    """A pod of `SERVE`, found by services for the label app."""
    readiness = {"tcpSocket": {"port": PORT}, "periodSeconds": 1}
    found = pods.pod(name, pods.python(SERVE, name), readinessProbe=readiness, **container)
    found["metadata"]["labels"] = {"app": app or name}
    return found


def udp_server(name: str, *, app: str = "", **container: object) -> pods.Manifest:
    """A pod of `SERVE_UDP`, found by services for the label app."""
    found = pods.pod(name, pods.python(SERVE_UDP, name), **container)
    found["metadata"]["labels"] = {"app": app or name}
    return found


def service(name: str, protocol: str = "TCP", /, **spec: object) -> pods.Manifest:
    """A Service of the pods with the label app=NAME at port 80; `spec` is more of it."""
    found = pods.service(name)
    found["spec"]["ports"][0]["protocol"] = protocol
    found["spec"].update(spec)
    return found


def run_in_pod(kubectl: nodes.Kubectl, pod: str, script: str, *arguments: str) -> str:
    """Run a script in a pod and give what it says."""
    return kubectl("exec", pod, "--", *pods.python(script, *arguments)).strip()


def await_in_pod(kubectl: nodes.Kubectl, pod: str, script: str, *arguments: str) -> str:
    """What a script says in a pod, from the moment that it succeeds."""
    said: list[str] = []

    def look() -> str | None:
        done = kubectl.attempt("exec", pod, "--", *pods.python(script, *arguments))
        said.append(done.stdout.strip())
        return None if done.returncode == 0 else done.stderr

    wait.until(look, awaited=" ".join(arguments), seconds=15, interval=0.2)
    return said[-1]


def run_in_container(name: str, script: str, *arguments: str) -> str:
    """Run a script in a container of the node's image and give what it says."""
    return nodes.docker("exec", name, *pods.python(script, *arguments)).strip()


def ipv6_options() -> list[str]:
    """Of `docker network create`, for a network that has IPv6 too."""
    prefix = ":".join(f"fd{secrets.token_hex(5)}"[at : at + 4] for at in (0, 4, 8))
    return ["--ipv6", f"--subnet={prefix}::/64"]


def read_addresses(container: str) -> tuple[str, str]:
    """A container's addresses of IPv4 and of IPv6; empty where it has none."""
    ipv4, _, ipv6 = (
        nodes.docker("inspect", f"--format={_ADDRESS}", container).strip().partition(" ")
    )
    return ipv4, ipv6


@contextlib.contextmanager
def run_container(network: str, script: str, *arguments: str) -> typing.Iterator[str]:
    """A container of the node's image that runs a script."""
    name = nodes.unique("p8s-neighbour")
    try:
        nodes.docker(
            *("run", "--detach", f"--name={name}", f"--network={network}"),
            *("--entrypoint=python3", nodes.IMAGE, "-c", script, *arguments),
        )
        yield name
    finally:
        nodes.docker("rm", "--force", "--volumes", name)


def url(address: str, port: int) -> str:
    """That of an address of either family."""
    return f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"
