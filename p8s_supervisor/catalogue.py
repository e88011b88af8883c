"""The add-ons that p8s brings: one table."""

from __future__ import annotations

import dataclasses
import pathlib
import typing

PROGRAMS = pathlib.Path("usr/local/bin")


def namespace(name: str) -> str:
    """Where the pods of one of the table's are."""
    return f"p8s-{name}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AddOn:
    """One add-on. Its manifests are in `manifests/add-ons/NAME`, or come with the image; see `add_ons`.

    Attributes:
        summary: what it is for, in a line.
        programs: what it needs in `PROGRAMS`: an image without them does not have the add-on.
        ports: of the node that it takes.
        kubelet: fields of kubelet's configuration as long as it is on. kubelet is started again where
            it is switched in a running cluster.
        kubelet_since: the first minor of Kubernetes whose kubelet is given them; 0 for each that there is.
        part: the module of this package that is its part of the sidecar; empty for none. Of these
            functions it has those that it needs:
            `values(run) -> dict[str, str]`: more $NAMES for its manifests;
            `begin(run, ended) -> None`: called in a thread of its own when it is applied, at each
            start too; returns when the event `ended` is set: it is disabled, or the stop has begun;
            `find_lack(run) -> str | None`: why it cannot be used, where its pods are available;
            `clear(run, client) -> None`: takes away what its manifests do not have, after them.
    """

    summary: str
    programs: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    kubelet: dict[str, typing.Any] = dataclasses.field(default_factory=dict)
    kubelet_since: int = 0
    part: str = ""

    def find_kubelet_fields(self, minor: int) -> dict[str, typing.Any]:
        """What kubelet's configuration has of it, in a minor of Kubernetes."""
        return self.kubelet if minor >= self.kubelet_since else {}

    def find_lack(self, root: pathlib.Path) -> list[str]:
        """The programs that the image does not have, which is mounted at a root."""
        return [name for name in self.programs if not (root / PROGRAMS / name).exists()]


TABLE = {
    "storage": AddOn(
        summary="volumes for claims: the StorageClass `standard`, in the state volume",
        programs=("local-path-provisioner",),
    ),
    "metrics": AddOn(
        summary="`kubectl top`, and HorizontalPodAutoscalers by CPU and memory",
        programs=("metrics-server",),
        # Figures of containers from containerd, of the moment that they are asked for: cAdvisor's are up
        # to 30 s old, and metrics-server needs two of them.
        kubelet={"featureGates": {"PodAndContainerStatsFromCRI": True}},
        # 1.35's leaves the containers out of what metrics-server reads.
        kubelet_since=36,
        part="add_on_metrics",
    ),
    "loadbalancer": AddOn(
        summary="addresses for Services of type LoadBalancer",
        part="add_on_loadbalancer",
    ),
    "ingress": AddOn(
        summary="Ingress and Gateway API, by Traefik",
        programs=("traefik",),
        ports=(80, 443),
    ),
    "registry": AddOn(
        summary="a registry to push images to, in the state volume",
        programs=("registry",),
        ports=(5000,),
    ),
}
