"""What a start finds in etcd, and the first content of a new cluster's."""

from __future__ import annotations

import datetime

from p8s_supervisor import (
    component_files,
    context,
    credentials,
    errors,
    etcd,
    etcd_mark,
    gates,
    seed,
    settings,
)

# What the apiserver itself puts into each cluster.
SYSTEM_KEY = f"{seed.PREFIX}priorityclasses/system-node-critical"


def populate(run: context.Context) -> bool:
    """Give a new cluster's etcd the seed, and see that an older one's holds what it held.

    Returns:
        Whether etcd holds what the apiserver itself puts into a new cluster.

    Raises:
        P8sError: etcd lost something, refused, or did not answer as it should.
    """
    store = credentials.connect_etcd(run.plan)
    mark = etcd_mark.check(run, await_status(run, store))
    # Without a mark the first start ended before it had put the seed: now it can.
    new = run.fresh or mark is None
    populated = (new and put_seed(run, store)) or store.has(SYSTEM_KEY)
    etcd_mark.begin(run, store)
    return populated


def await_status(run: context.Context, store: etcd.Client) -> etcd.Status:
    """What etcd says of itself once it answers: it accepts connections before it has read its data.

    Raises:
        ComponentFailedError: it ended.
    """
    found: list[etcd.Status] = []

    def look() -> str | None:
        try:
            found.append(store.read_status())
        except errors.P8sError as error:
            return error.message
        return None

    gates.pass_gate(run, "etcd", "etcd's first answer", look)
    return found[0]


def put_seed(run: context.Context, store: etcd.Client) -> bool:
    """Put the seed into an empty etcd, where it was made with the same settings.

    Returns:
        Whether it was put.

    Raises:
        P8sError: etcd refused, or did not answer as it should.
    """
    plan = run.plan
    if not plan.paths.seed.exists():
        return False
    if not component_files.fits_seed(plan):
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
