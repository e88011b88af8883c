"""kube-apiserver over requests: the few calls that p8s makes."""

from __future__ import annotations

import collections.abc
import contextlib
import json
import math
import pathlib
import threading
import time
import typing

from p8s_supervisor import errors

if typing.TYPE_CHECKING:
    import requests  # at run time late: 40 ms that the start has when it first asks

FIELD_MANAGER = "p8s"
Object = dict[str, typing.Any]

# (apiVersion, kind) → resource, namespaced, for what p8s itself applies; others are asked for.
_RESOURCES = {
    ("v1", "ConfigMap"): ("configmaps", True),
    ("v1", "Service"): ("services", True),
    ("v1", "ServiceAccount"): ("serviceaccounts", True),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"): (
        "validatingadmissionpolicies",
        False,
    ),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding"): (
        "validatingadmissionpolicybindings",
        False,
    ),
    ("apps/v1", "DaemonSet"): ("daemonsets", True),
    ("apps/v1", "Deployment"): ("deployments", True),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"): ("clusterroles", False),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): ("clusterrolebindings", False),
}
# How long an answer of p8s' own waits for it in vain, beside the conditions of readiness.
ASK_SECONDS = 2.0
_patience = threading.local()


@contextlib.contextmanager
def limited(seconds: float) -> collections.abc.Iterator[None]:
    """Within it this thread waits in vain for so many seconds in all; what is left then is not asked.

    An apiserver without its etcd answers nothing for minutes, and each request would be waited for.
    One that is slow, and answers, is waited for.
    """
    before = getattr(_patience, "left", math.inf)
    begun = _patience.left = min(before, seconds)
    try:
        yield
    finally:
        _patience.left = before - (begun - _patience.left)


def limit(seconds: float) -> float:
    """How long one request may be waited for that was given so many seconds.

    Raises:
        KubeError: it is not to be made; see `limited`.
    """
    left = getattr(_patience, "left", math.inf)
    if left <= 0:
        raise errors.KubeError("kube-apiserver has not answered in time", status=0)
    return float(min(seconds, left))


class Client:
    """A client of one apiserver, with a client certificate. Safe to share between threads."""

    def __init__(
        self, server: str, *, ca: pathlib.Path, certificate: pathlib.Path, key: pathlib.Path
    ) -> None:
        self._server = server
        self._ca, self._certificate = str(ca), (str(certificate), str(key))
        self._local = threading.local()
        self._generation = 0

    def forget_connections(self) -> None:
        """Use no connection again that was made before: its certificate has been renewed.

        kube-apiserver looks at a client's certificate at each request, not only at the first.
        """
        self._generation += 1

    @property
    def _session(self) -> requests.Session:
        if getattr(self._local, "generation", None) != self._generation:
            import requests

            self._local.generation = self._generation

            session = requests.Session()
            session.verify, session.cert = self._ca, self._certificate
            # A proxy in the container's environment is for images, not for the node itself.
            session.trust_env = False
            self._local.session = session
        return typing.cast("requests.Session", self._local.session)

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Object | None = None,
        content_type: str = "application/json",
        params: dict[str, str] | None = None,
        seconds: float = 5,
    ) -> str:
        """Make a request and give the answer's text.

        Args:
            method: the HTTP method.
            path: from `/` on.
            body: sent as JSON (which is YAML too, for server-side apply).
            content_type: of the body.
            params: the query.
            seconds: limit for connecting and for each read.

        Raises:
            KubeError: no answer (status 0), or one that says no; the apiserver's own words.
        """
        import requests

        seconds, begun = limit(seconds), time.monotonic()
        try:
            answer = self._session.request(
                method,
                self._server + path,
                params=params,
                data=None if body is None else json.dumps(body),
                headers={"Content-Type": content_type} if body is not None else None,
                timeout=seconds,
            )
        except requests.RequestException as error:
            _patience.left = getattr(_patience, "left", math.inf) - (time.monotonic() - begun)
            raise errors.KubeError(_root_cause(error), status=0) from error
        if not answer.ok:
            raise errors.KubeError(_message(answer), status=answer.status_code)
        return answer.text

    def get(self, path: str, **params: str) -> Object:
        """GET an object or a list.

        Raises:
            KubeError: see `request`.
        """
        return typing.cast("Object", json.loads(self.request("GET", path, params=params or None)))

    def watch(
        self, path: str, *, resource_version: str, seconds: int, **params: str
    ) -> collections.abc.Iterator[Object]:
        """What changes in a list from a version on: objects with `type` and `object`.

        Ends when the apiserver ends it, after `seconds` at the latest.

        Args:
            path: of the list.
            resource_version: of the list, as `metadata.resourceVersion` has it.
            seconds: how long the apiserver keeps it open.
            params: more of the query, such as a field selector.

        Raises:
            KubeError: no answer, one that says no (410: the version is too old), or a connection
                that broke. The apiserver can also say no within the stream: type ERROR.
        """
        import requests

        query = {
            "watch": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(seconds),
            **params,
        }
        try:
            with self._session.get(
                self._server + path, params=query, stream=True, timeout=(5, seconds + 30)
            ) as answer:
                if not answer.ok:
                    raise errors.KubeError(_message(answer), status=answer.status_code)
                for line in answer.iter_lines():
                    if line:
                        yield json.loads(line)
        except (requests.RequestException, json.JSONDecodeError) as error:
            raise errors.KubeError(_root_cause(error), status=0) from error

    def delete(self, path: str, *, body: Object | None = None, seconds: float = 5) -> None:
        """DELETE an object; one that is gone already is no error.

        Raises:
            KubeError: see `request`.
        """
        try:
            self.request("DELETE", path, body=body, seconds=seconds)
        except errors.KubeError as error:
            if error.status != 404:
                raise

    def apply(self, manifest: Object, *, seconds: float = 5, manager: str = FIELD_MANAGER) -> None:
        """Server-side apply, with force: the manager owns the fields that it sets.

        Raises:
            KubeError: with the object's kind and name; see `request`.
        """
        named = f"{manifest['kind']} {manifest['metadata']['name']}"
        try:
            self.request(
                "PATCH",
                self.find_path(manifest),
                body=manifest,
                content_type="application/apply-patch+yaml",
                params={"fieldManager": manager, "force": "true"},
                seconds=seconds,
            )
        except errors.KubeError as error:
            raise errors.KubeError(f"{named}: {error.message}", status=error.status) from error

    def find_path(self, manifest: Object) -> str:
        """Where an object is, or would be.

        Raises:
            KubeError: 404, its kind is not served; see `request`.
        """
        version, kind, metadata = manifest["apiVersion"], manifest["kind"], manifest["metadata"]
        resource, namespaced = _RESOURCES.get((version, kind)) or self._discover(version, kind)
        prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if namespaced:
            prefix += f"/namespaces/{metadata.get('namespace', 'default')}"
        return f"{prefix}/{resource}/{metadata['name']}"

    def _discover(self, version: str, kind: str) -> tuple[str, bool]:
        prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
        for resource in self.get(prefix)["resources"]:
            if resource["kind"] == kind and "/" not in resource["name"]:
                return resource["name"], resource["namespaced"]
        raise errors.KubeError(f"the apiserver has no {kind} in {version}", status=404)


def _message(answer: requests.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code}: {answer.text.strip()[:4000] or answer.reason}"


def _root_cause(error: BaseException) -> str:
    """The innermost reason: requests wraps urllib3, which wraps the operating system."""
    inner: typing.Any = error
    while True:
        reason = getattr(inner, "reason", None)
        following = reason if isinstance(reason, BaseException) else None
        following = following or inner.__cause__ or inner.__context__
        if following is None:
            return str(inner) or type(inner).__name__
        inner = following
