"""Manifests for tests: pods of the node's own image with the node's /usr, so nothing is pulled."""

from __future__ import annotations

import typing

NODE_IMAGE = "p8s.local/node:1"
Manifest = dict[str, typing.Any]

# Serves what it is told to over HTTP on port 8080.
# It heeds SIGTERM, which the kernel keeps from a container's first process that has no handler.
SERVE = """
import http.server, os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{sys.argv[1]} {self.client_address[0]}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""

# Prints what a URL answers.
FETCH = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())
"""


def python(script: str, *arguments: str) -> list[str]:
    """A command that runs a Python script."""
    return ["python3", "-c", script, *arguments]


def pod_spec(command: list[str], **container: typing.Any) -> Manifest:
    """A pod's spec with one container `main`."""
    main: Manifest = {
        "name": "main",
        "image": NODE_IMAGE,
        "imagePullPolicy": "Never",
        "command": command,
        "volumeMounts": [{"name": "usr", "mountPath": "/usr", "readOnly": True}],
    }
    return {
        "terminationGracePeriodSeconds": 1,
        "containers": [main | container],
        "volumes": [{"name": "usr", "hostPath": {"path": "/usr"}}],
    }


def pod(name: str, command: list[str], **container: typing.Any) -> Manifest:
    """A pod with the label app=NAME."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": pod_spec(command, **container),
    }


def web_pod(name: str, **container: typing.Any) -> Manifest:
    """A pod that answers its own name and the caller's address on port 8080."""
    readiness = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    return pod(name, python(SERVE, name), readinessProbe=readiness, **container)


def sleeper(name: str) -> Manifest:
    """A pod to run commands in."""
    return pod(name, ["sleep", "infinity"])


def web_deployment(name: str, *, replicas: int) -> Manifest:
    """`web_pod` as a Deployment."""
    template = web_pod(name)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": template["spec"]},
        },
    }


def service(name: str, *, port: int = 80, target: int = 8080) -> Manifest:
    """A ClusterIP service of the pods with the label app=NAME."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": port, "targetPort": target}]},
    }


def definition(group: str, *, kind: str, plural: str) -> Manifest:
    """A CustomResourceDefinition of a namespaced kind that takes any field, in version v1."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": [version],
        },
    }
