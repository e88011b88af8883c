"""Empties a namespace: what it can hold, what it holds, what is left of it and why."""

from __future__ import annotations

import collections.abc
import dataclasses
import time

from p8s_supervisor import errors, kube, wait

# History, which goes by itself.
KEPT_RESOURCES = (("", "events"), ("events.k8s.io", "events"))
# (resource, name) of what a controller makes anew at once, in every namespace; pods that are made
# in the moment between would be refused, or start without.
KEPT_OBJECTS = (
    ("configmaps", "kube-root-ca.crt"),
    ("configmaps", "p8s-ca-bundle"),
    ("serviceaccounts", "default"),
)
# The apiserver's own, in the namespace `default`.
KEPT_IN_DEFAULT = (
    ("services", "kubernetes"),
    ("endpoints", "kubernetes"),
    ("endpointslices", "kubernetes"),
)
# Kubernetes' own groups without a dot; the others have `.k8s.io` at the end.
BUILT_IN_GROUPS = ("", "apps", "autoscaling", "batch", "policy")
# Workloads before what they use: what is left of it is then not made anew, and not missed.
WORKLOAD_GROUPS = ("apps", "batch")
# Services' shadows come last: a controller makes them anew as long as the Service is there.
SHADOWS = ("endpoints", "endpointslices")
# How many of what is left are named.
LISTED = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resource:
    """A kind of object that a namespace can hold.

    Attributes:
        group: of the API; empty for the core.
        version: of the group.
        name: in the plural, as in paths.
    """

    group: str
    version: str
    name: str

    @property
    def is_custom(self) -> bool:
        """Whether it is none of Kubernetes' own, so that some operator may look after it."""
        return self.group not in BUILT_IN_GROUPS and not self.group.endswith(".k8s.io")

    @property
    def label(self) -> str:
        """As kubectl writes it."""
        return f"{self.name}.{self.group}" if self.is_custom else self.name

    def path(self, namespace: str, name: str = "") -> str:
        """Of the list, or of an object."""
        prefix = f"/apis/{self.group}" if self.group else "/api"
        path = f"{prefix}/{self.version}/namespaces/{namespace}/{self.name}"
        return f"{path}/{name}" if name else path


def discover(client: kube.Client) -> tuple[list[Resource], list[str]]:
    """Every kind of object that a namespace can hold and that can be listed and deleted.

    Returns:
        The resources, custom ones first, then workloads; and what could not be asked: an aggregated
        API whose server is away must not keep the rest from being deleted.

    Raises:
        KubeError: the apiserver itself could not be asked.
    """
    versions = [("", "v1")]
    for group in client.get("/apis")["groups"]:
        listed = [version["version"] for version in group["versions"]]
        preferred = group.get("preferredVersion", {}).get("version", listed[0])
        ordered = [preferred, *(version for version in listed if version != preferred)]
        versions += [(group["name"], version) for version in ordered]
    found: dict[tuple[str, str], Resource] = {}
    silent = []
    for group_name, version in versions:
        path = f"/apis/{group_name}/{version}" if group_name else f"/api/{version}"
        try:
            resources = client.get(path)["resources"]
        except errors.KubeError as error:
            if not group_name or error.status == 0:
                raise
            silent.append(f"{group_name}/{version}: {error.message}")
            continue
        for resource in resources:
            key = (group_name, resource["name"])
            if _is_deletable(resource) and key not in KEPT_RESOURCES:
                found.setdefault(
                    key, Resource(group=group_name, version=version, name=resource["name"])
                )
    return sorted(found.values(), key=_rank), silent


def _is_deletable(resource: kube.Object) -> bool:
    verbs = {"list", "delete"}
    return (
        resource["namespaced"] and "/" not in resource["name"] and verbs <= set(resource["verbs"])
    )


def _rank(resource: Resource) -> int:
    if resource.is_custom:
        return 0
    if resource.name in SHADOWS:
        return 3
    return 1 if resource.group in WORKLOAD_GROUPS else 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """An object that is in the way.

    Attributes:
        resource: its kind.
        name: its own.
        content: the object.
    """

    resource: Resource
    name: str
    content: kube.Object

    def __str__(self) -> str:
        return f"{self.resource.label}/{self.name}"

    @property
    def uid(self) -> str:
        """Its UID."""
        return str(self.content["metadata"]["uid"])

    @property
    def grace(self) -> float:
        """How long it may take to end, in seconds."""
        if self.resource.name != "pods" or self.resource.group:
            return 0.0
        metadata = self.content["metadata"]
        given = metadata.get("deletionGracePeriodSeconds")
        if given is None:
            given = self.content["spec"].get("terminationGracePeriodSeconds", 30)
        return float(given)

    @property
    def reason(self) -> str:
        """Why it is still there."""
        metadata = self.content["metadata"]
        if "deletionTimestamp" not in metadata:
            return "it was made again, or could not be deleted"
        finalizers = metadata.get("finalizers")
        if finalizers:
            return f"finalizers {', '.join(finalizers)}"
        return f"its grace is {self.grace:g} s" if self.grace else "it is being deleted"


class Sweep:
    """Deletes what a namespace holds, and looks what is left."""

    def __init__(self, client: kube.Client, namespace: str, *, clock: wait.Clock = time) -> None:
        self._client, self._namespace, self._clock = client, namespace, clock
        self._asked: set[str] = set()
        self._refused_since: dict[str, float] = {}
        self.resources: list[Resource] = []
        self.deleted: list[str] = []
        self.refused: dict[str, str] = {}
        self.silent: list[str] = []
        self.grace = 0.0

    def discover(self) -> None:
        """Ask what there can be; see `discover`."""
        self.resources, self.silent = discover(self._client)

    def look(self, *, custom_only: bool = False) -> list[Found]:
        """What there is to be deleted, or still going.

        Raises:
            KubeError: the apiserver does not answer at all.
        """
        found = []
        for resource in self.resources:
            if custom_only and not resource.is_custom:
                continue
            try:
                listed = self._client.get(resource.path(self._namespace))["items"]
            except errors.KubeError as error:
                if error.status == 0:
                    raise
                # Its definition has gone meanwhile (404), or its own server is away.
                if error.status != 404:
                    self.refused[resource.label] = error.message
                continue
            self.refused.pop(resource.label, None)
            found += [
                Found(resource=resource, name=item["metadata"]["name"], content=item)
                for item in listed
                if not self._is_kept(resource, item)
            ]
        return found

    def _is_kept(self, resource: Resource, item: kube.Object) -> bool:
        metadata = item["metadata"]
        key = (resource.name, metadata["name"])
        if key in KEPT_OBJECTS or (self._namespace == "default" and key in KEPT_IN_DEFAULT):
            return True
        # A static pod's image in the API: kubelet makes it anew as long as the file is there.
        return "kubernetes.io/config.mirror" in metadata.get("annotations", {})

    def delete(self, found: collections.abc.Iterable[Found]) -> None:
        """Ask for the deletion of each, once; what is refused is asked for again the next time."""
        for each in found:
            if each.uid in self._asked:
                self.grace = max(self.grace, each.grace)
                continue
            try:
                self._client.delete(
                    each.resource.path(self._namespace, each.name),
                    body={
                        "apiVersion": "v1",
                        "kind": "DeleteOptions",
                        "propagationPolicy": "Background",
                        "preconditions": {"uid": each.uid},
                    },
                )
            except errors.KubeError as error:
                if error.status == 0:
                    raise
                if error.status != 409:  # another one by that name: the next look finds it
                    self.refused[str(each)] = error.message
                    self._refused_since.setdefault(str(each), self._clock.monotonic())
                continue
            self.refused.pop(str(each), None)
            self._refused_since.pop(str(each), None)
            self._asked.add(each.uid)
            self.deleted.append(str(each))
            # Of those that end: what is refused a deletion has no grace that could be waited for.
            self.grace = max(self.grace, each.grace)

    def go_on(self, *, custom_only: bool = False) -> str | None:
        """Delete what is there; what is left and why, None where nothing is."""
        found = self.look(custom_only=custom_only)
        self.delete(found)
        self._forget_refusals(found)
        found.sort(key=lambda each: str(each) not in self.refused)  # only the first few are told
        told = [f"{each} ({self.refused.get(str(each), each.reason)})" for each in found]
        if len(told) > LISTED:
            told = [*told[:LISTED], f"and {len(told) - LISTED} more"]
        return ", ".join(told) or None

    def refused_for(self) -> float:
        """How long one deletion has been refused on end, in seconds; 0 where none is."""
        now = self._clock.monotonic()
        return now - min(self._refused_since.values(), default=now)

    def _forget_refusals(self, found: list[Found]) -> None:
        there = {str(each) for each in found} | {resource.label for resource in self.resources}
        self.refused = {name: why for name, why in self.refused.items() if name in there}
        since = self._refused_since.items()
        self._refused_since = {name: moment for name, moment in since if name in there}
