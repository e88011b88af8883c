"""How the tests of doors knock: requests without credentials from other containers and from pods."""

from __future__ import annotations

import typing

from tests.cluster import nodes

# What each of these URLs or ports answers to somebody without credentials.
CALL = """
import socket, ssl, sys, urllib.error, urllib.request
context = ssl._create_unverified_context()
for asked in sys.argv[1:]:
    method, url = asked.split(" ")
    headers = {"Host": "127.0.0.1"} if url.startswith("http:") else {}
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        print(asked, urllib.request.urlopen(request, timeout=3, context=context).status)
    except urllib.error.HTTPError as error:
        known = url.startswith("https:") and error.code in (401, 403)
        print(asked, "denied" if known else error.code)
    except Exception as error:
        told = str(error).upper().replace(" ", "_")
        print(asked, "certificate" if "CERTIFICATE_REQUIRED" in told else
              "refused" if "REFUSED" in told else "timeout" if "TIMED_OUT" in told else told)
"""
OPEN = ("GET /livez", "GET /ready", "GET /status", "GET /metrics", "GET /openapi.json")
SHUT = (
    *("GET /kubeconfig", "GET /settings", "GET /events", "GET /logs", "GET /logs/etcd"),
    *("GET /images", "GET /bundle", "POST /images", "POST /users", "POST /apply"),
    *("POST /reset/default", "POST /stop"),
)


def run_beside(node: nodes.Node, *command: str, options: typing.Sequence[str] = ()) -> str:
    """Run a command in another container of the node's docker network."""
    network = node.inspect("{{.HostConfig.NetworkMode}}")
    where = f"--network={'bridge' if network == 'default' else network}"
    shown = ("--rm", "--tmpfs=/var/lib/p8s", where, f"--entrypoint={command[0]}", *options)
    return nodes.docker("run", *shown, nodes.IMAGE, *command[1:])


def expect(address: str) -> dict[str, str]:
    """What a place that is not the host finds at the node's address: request → answer."""
    answers = {f"{method} http://{address}:8989{path}": "200" for method, path in split(OPEN)}
    answers |= {f"{method} http://{address}:8989{path}": "401" for method, path in split(SHUT)}
    answers[f"GET https://{address}:6443/api/v1/secrets"] = "denied"
    answers[f"GET https://{address}:10250/pods"] = "denied"
    answers[f"POST https://{address}:10250/run/kube-system/a/b"] = "denied"
    for port in (2379, 2380, 10248, 10249, 10255, 10256, 10257, 10259):
        answers[f"GET https://{address}:{port}/"] = "refused"
    return answers


def split(requests: typing.Iterable[str]) -> list[list[str]]:
    return [request.split(" ") for request in requests]


def read_answers(told: str) -> dict[str, str]:
    return {
        asked: answer for asked, _, answer in (line.rpartition(" ") for line in told.splitlines())
    }
