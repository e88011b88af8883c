"""What the tests of an application look like: pytest with p8s installed, and nothing to set up."""

import json

from p8s_supervisor import testing

# An image without a registry: an empty root that is filled with the node's own /usr.
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {
        "containers": [
            {
                "name": "web",
                "image": "p8s.local/node:1",
                "imagePullPolicy": "Never",
                "command": ["python3", "-m", "http.server", "8080", "--directory=/usr/share/doc"],
                "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
                "volumeMounts": [{"name": "usr", "mountPath": "/usr", "readOnly": True}],
            }
        ],
        "volumes": [{"name": "usr", "hostPath": {"path": "/usr"}}],
        "terminationGracePeriodSeconds": 1,
    },
}


def test_the_node_is_ready(p8s_kubectl: testing.Kubectl) -> None:
    (node,) = p8s_kubectl.get("nodes")["items"]
    conditions = {one["type"]: one["status"] for one in node["status"]["conditions"]}
    assert conditions["Ready"] == "True"


def test_a_pod_serves(p8s_kubectl: testing.Kubectl, p8s_namespace: str) -> None:
    kubectl = p8s_kubectl.within(p8s_namespace)
    kubectl("apply", "--filename=-", stdin=json.dumps(POD))
    kubectl("wait", "--for=condition=Ready", "--timeout=60s", "pod/web")
    proxy = f"/api/v1/namespaces/{p8s_namespace}/pods/web:8080/proxy/"
    assert "Directory listing" in kubectl("get", f"--raw={proxy}")


def test_each_test_has_a_namespace_of_its_own(
    p8s_kubectl: testing.Kubectl, p8s_namespace: str
) -> None:
    assert p8s_kubectl.within(p8s_namespace).get("pods")["items"] == []


def test_p8s_says_how_it_is(p8s_cluster: testing.Cluster) -> None:
    assert p8s_cluster.status()["state"] == "ready"
