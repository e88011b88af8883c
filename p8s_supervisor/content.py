"""The first content of a new cluster's etcd."""

from __future__ import annotations

import datetime

from p8s_supervisor import context, credentials, seed, settings


def populate(run: context.Context) -> bool:
    """Give a new cluster's etcd the seed, where it was made with the same settings.

    Returns:
        Whether etcd holds what the apiserver itself puts into a new cluster.

    Raises:
        P8sError: etcd refused, or did not answer as it should.
    """
    plan, store = run.plan, credentials.connect_etcd(run.plan)
    if not run.fresh:
        return store.has(f"{seed.PREFIX}priorityclasses/system-node-critical")
    if not plan.paths.seed.exists():
        return False
    made = seed.load(plan.paths.seed)
    if any(
        settings.parse(name, text) != getattr(plan.settings, name)
        for name, text in made.settings.items()
    ):
        return False
    now = datetime.datetime.now(datetime.UTC)
    entries = seed.render(made, now=int(now.timestamp())) | seed.config_maps(
        ca=(plan.paths.pki / "ca.crt").read_text(),
        requestheader_ca=(plan.paths.pki / "front-proxy-ca.crt").read_text(),
        moment=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    return store.put_into_empty(entries, prefix=seed.PREFIX)
