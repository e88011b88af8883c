"""Offers the CA bundle to pods: a ConfigMap in each namespace, also in those that are made later."""

from __future__ import annotations

import collections.abc
import threading

from p8s_supervisor import context, errors, kube, trust, watcher

NAMESPACES = "/api/v1/namespaces"
# The same key as in Kubernetes' own kube-root-ca.crt.
NAME, KEY = "p8s-ca-bundle", "ca.crt"


class Offers:
    """A `watcher.Handler` for namespaces.

    One that somebody deletes comes back with the next list only, half an hour later at the latest.
    """

    def __init__(self, run: context.Context, client: kube.Client, bundle: str) -> None:
        self._run, self._client, self._bundle = run, client, bundle
        self._told: set[str] = set()
        self._done: set[str] = set()

    def forget(self, listed: collections.abc.Sequence[kube.Object]) -> None:
        """See `watcher.Handler`: a bundle may be gone."""
        self._done = set()

    def drop(self, found: kube.Object) -> None:
        """See `watcher.Handler`."""
        self._done.discard(found["metadata"]["uid"])

    def see(self, found: kube.Object) -> None:
        """See `watcher.Handler`.

        Raises:
            KubeError: the apiserver does not answer; the next list comes to all of them again.
        """
        name, uid = found["metadata"]["name"], found["metadata"]["uid"]
        if uid in self._done or found.get("status", {}).get("phase") == "Terminating":
            return
        try:
            self._client.apply(make(name, self._bundle))
        except errors.KubeError as error:
            if error.status == 0 or error.status >= 500:
                raise
            if uid not in self._told:
                self._told.add(uid)
                self._run.journal.record(
                    "warning", f"namespace {name}: no CA bundle: {error.message}", namespace=name
                )
            return
        self._done.add(uid)


def make(namespace: str, bundle: str) -> kube.Object:
    """The ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": namespace},
        "data": {KEY: bundle},
    }


def start(run: context.Context) -> None:
    """Watch the namespaces until the stop; nothing where no bundle is set."""
    file = trust.find_bundle(run.plan)
    if file is None or run.client is None:
        return
    bundle = file.read_text(errors="replace")  # comments may be in any encoding
    threading.Thread(
        target=watcher.follow,
        args=(run.client, NAMESPACES, Offers(run, run.client, bundle)),
        kwargs={"ended": run.stop},
        name="trust",
        daemon=True,
    ).start()
