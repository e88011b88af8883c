"""The add-on ingress: the address that it tells of itself."""

from __future__ import annotations

from p8s_supervisor import context


def values(run: context.Context) -> dict[str, str]:
    """The node's address, which is in the status of Ingresses and Gateways."""
    return {"NODE_ADDRESS": run.plan.facts.address}
