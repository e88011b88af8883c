"""System pods whose configuration is another one than at the last start get new pods.

kube-proxy and coredns read a ConfigMap when they start; kubelet brings them a changed one only after
a minute or more, and their pods of the last start are started before it is changed.
"""

from __future__ import annotations

import collections.abc
import contextlib
import typing

from p8s_supervisor import context, errors, kube, probes

Data = dict[str, typing.Any]
_PATH = "/api/v1/namespaces/kube-system"


def read(client: kube.Client) -> dict[str, Data]:
    """What the system's ConfigMaps hold, by their names; nothing where it cannot be told."""
    try:
        found = client.get(f"{_PATH}/configmaps")["items"]
    except errors.KubeError:
        return {}
    named = {each["metadata"]["name"]: each.get("data", {}) for each in found}
    return {name: data for name, data in named.items() if name in probes.SYSTEM_LABELS}


def replace(
    run: context.Context,
    client: kube.Client,
    before: collections.abc.Mapping[str, Data],
) -> None:
    """Delete the system's pods whose ConfigMap has changed; their controllers make new ones.

    Args:
        run: the context.
        client: the apiserver's client.
        before: what `read` found before the objects were applied.
    """
    for name, data in read(client).items():
        if before.get(name, data) == data:
            continue
        run.tell(f"{name}: its configuration has changed, it is started anew")
        with contextlib.suppress(errors.KubeError):  # who refuses it keeps the old pod
            client.request(
                "DELETE",
                f"{_PATH}/pods",
                params={"labelSelector": f"k8s-app={probes.SYSTEM_LABELS[name]}"},
                body={"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 1},
            )
