"""The add-on loadbalancer: gives Services of type LoadBalancer addresses of the docker network.

Which address a Service has is in its status alone, and so outlives the container. What the kernel answers
for is of this container's life: what it lacks is put there again.
"""

from __future__ import annotations

import collections.abc
import contextlib
import datetime
import functools
import threading

from p8s_supervisor import balanced_services, context, errors, kube, virtual_addresses, watcher

SERVICES = "/api/v1/services"
# One that becomes another type is a deletion to the watch.
SELECTOR = {"fieldSelector": "spec.type=LoadBalancer"}
# How long one watch stays open; its thread may outlive the add-on by that much.
WATCH_SECONDS = 300
# Until what was refused or has failed is tried again: an address may have become free.
RETRY_SECONDS = 10.0
# Where an address was somebody else's, so many of the next ones are asked for together.
ASKED_TOGETHER = 16
COMPONENT = "p8s-loadbalancer"


class Balancer:
    """A `watcher.Handler` for Services, which settles who has which address.

    Args:
        run: the context.
        client: the apiserver's.
        ended: set when nothing is to be given any more.
    """

    def __init__(self, run: context.Context, client: kube.Client, ended: threading.Event) -> None:
        self._run, self._client, self._ended = run, client, ended
        self._lock = threading.Lock()
        self._services: dict[str, balanced_services.Service] = {}
        self._changed = threading.Event()
        self._told: dict[str, str] = {}
        self._held: frozenset[balanced_services.Address] | None = None
        self._trouble = ""

    def wake_at_end(self) -> None:
        """Have `work` see the end."""
        self._ended.wait()
        self._changed.set()

    def forget(self, listed: collections.abc.Sequence[kube.Object]) -> None:
        """See `watcher.Handler`: all at once, since an address goes by who has it already."""
        services = map(balanced_services.read, listed)
        with self._lock:
            self._services = {one.uid: one for one in services if one is not None}
        self._changed.set()

    def see(self, found: kube.Object) -> None:
        """See `watcher.Handler`."""
        service = balanced_services.read(found)
        if service is None:
            self.drop(found)
            return
        with self._lock:
            self._services[service.uid] = service
        self._changed.set()

    def drop(self, found: kube.Object) -> None:
        """See `watcher.Handler`."""
        with self._lock:
            self._services.pop(found["metadata"]["uid"], None)
        self._changed.set()

    def work(self) -> None:
        """Settle whenever something has changed, until the end."""
        unsettled = False
        while True:
            self._changed.wait(RETRY_SECONDS if unsettled else None)
            self._changed.clear()  # before the end is looked for, which may come right after that
            if self._ended.is_set():
                return
            try:
                unsettled, trouble = self.settle(), ""
            except (errors.P8sError, OSError) as error:
                unsettled, trouble = True, str(error)
            if trouble and trouble != self._trouble:
                self._run.journal.record("warning", f"add-on loadbalancer: {trouble}")
            self._trouble = trouble

    def settle(self) -> bool:
        """Give addresses, have the node answer for them, and tell the Services.

        Returns:
            Whether something is left to be tried again.

        Raises:
            P8sError: the kernel or the apiserver does not do as it is told.
            OSError: the docker network is gone.
        """
        with self._lock:
            services = list(self._services.values())
        try:
            link = virtual_addresses.find_link(self._run.plan.facts)
        except errors.CommandError:
            raise
        except errors.P8sError as error:
            plan = balanced_services.Plan({}, {one.uid: error.message for one in services})
        else:
            plan = self._take(services, link)
        there = {service.uid for service in services}
        self._told = {uid: told for uid, told in self._told.items() if uid in there}
        refusals = [self._tell(service, plan) for service in services]
        return bool(plan.refused) or any(refusals)

    def _take(
        self, services: list[balanced_services.Service], link: virtual_addresses.Link
    ) -> balanced_services.Plan:
        """Have the node answer for what a plan gives."""
        taken: set[balanced_services.Address] = set()
        while True:
            plan = self._make_plan(services, link, taken)
            wanted = frozenset(plan.given.values())
            if wanted == self._held:
                return plan
            added = wanted - virtual_addresses.list_held()
            self._held = None
            virtual_addresses.hold(link, wanted)
            # Another p8s in the network may have looked at the same moment: of two that hold an
            # address the later one is answered by the other, and leaves it.
            others = virtual_addresses.find_others(link, added)
            if not others:
                self._held = wanted
                return plan
            taken |= others

    def _make_plan(
        self,
        services: list[balanced_services.Service],
        link: virtual_addresses.Link,
        taken: set[balanced_services.Address],
    ) -> balanced_services.Plan:
        """A plan in which no address is somebody else's in the network; adds to those that are."""
        pool = make_pool(self._run, link)
        free = virtual_addresses.list_held() - taken
        while True:
            plan = balanced_services.make_plan(services, pool, taken)
            asked = set(plan.given.values()) - free
            if not asked:
                return plan
            if taken:
                unknown = [one for one in pool.list_candidates() if one not in taken | free]
                asked |= set(unknown[:ASKED_TOGETHER])
            others = virtual_addresses.find_others(link, asked)
            taken |= others
            free |= asked - others

    def _tell(self, service: balanced_services.Service, plan: balanced_services.Plan) -> bool:
        """Tell a Service its address, or why it has none; whether that is to be tried again."""
        address = plan.given.get(service.uid)
        reason = plan.refused.get(service.uid, "")
        try:
            if service.ingress != (() if address is None else (str(address),)):
                write_status(self._client, service, address)
                if address is not None:
                    record_event(self._client, service, "AddressGiven", f"{address} is its address")
        except errors.KubeError as error:
            if error.status == 0 or error.status >= 500:
                raise
            reason = f"its status cannot be written: {error.message}"
        if reason and self._told.get(service.uid) != reason:
            record_event(self._client, service, "AddressRefused", reason, kind="Warning")
        self._told[service.uid] = reason
        return bool(reason)


def make_pool(run: context.Context, link: virtual_addresses.Link) -> balanced_services.Pool:
    """The addresses of the docker network that may be given."""
    gateway = balanced_services.parse(run.plan.facts.gateway or "")
    reserved = {link.address} | ({gateway} if gateway is not None else set())
    return balanced_services.Pool(network=link.network, reserved=frozenset(reserved))


def write_status(
    client: kube.Client,
    service: balanced_services.Service,
    address: balanced_services.Address | None,
) -> None:
    """Write a Service's address into its status, or none; one that is gone is no error.

    Raises:
        KubeError: see `kube.Client.request`.
    """
    # VIP: what is sent there arrives with that destination, and so pods may take a shorter way.
    ingress = None if address is None else [{"ip": str(address), "ipMode": "VIP"}]
    try:
        client.request(
            "PATCH",
            f"/api/v1/namespaces/{service.namespace}/services/{service.name}/status",
            # Another Service of that name is another one.
            body={
                "metadata": {"uid": service.uid},
                "status": {"loadBalancer": {"ingress": ingress}},
            },
            content_type="application/merge-patch+json",
            params={"fieldManager": kube.FIELD_MANAGER},
        )
    except errors.KubeError as error:
        if error.status not in (404, 409):
            raise


def record_event(
    client: kube.Client,
    service: balanced_services.Service,
    reason: str,
    message: str,
    *,
    kind: str = "Normal",
) -> None:
    """Make an Event of a Service, for `kubectl describe`; one that is refused is done without."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{service.name}.", "namespace": service.namespace},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Service",
            "namespace": service.namespace,
            "name": service.name,
            "uid": service.uid,
        },
        "type": kind,
        "reason": reason,
        "message": message,
        "source": {"component": COMPONENT},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
    with contextlib.suppress(errors.KubeError):
        client.request("POST", f"/api/v1/namespaces/{service.namespace}/events", body=body)


def begin(run: context.Context, ended: threading.Event) -> None:
    """Give addresses until the end; see `catalogue.AddOn`."""
    if run.client is None:
        return
    balancer = Balancer(run, run.client, ended)
    follow = functools.partial(
        watcher.follow,
        run.client,
        SERVICES,
        balancer,
        ended=ended,
        seconds=WATCH_SECONDS,
        **SELECTOR,
    )
    for task in (follow, balancer.wake_at_end):
        threading.Thread(target=task, name="loadbalancer", daemon=True).start()
    balancer.work()


def find_lack(run: context.Context) -> str | None:
    """Why no Service can have an address here: the network is none that p8s may give from, or too small."""
    try:
        link = virtual_addresses.find_link(run.plan.facts)
    except errors.P8sError as error:
        return error.message
    if not make_pool(run, link).list_candidates():
        return f"the docker network {link.network} has no room for addresses of Services"
    return None


def clear(run: context.Context, client: kube.Client) -> None:
    """Take the addresses from all Services, and answer for none any more.

    Raises:
        P8sError: the apiserver does not answer, or the kernel refused.
    """
    for found in client.get(SERVICES, **SELECTOR)["items"]:
        service = balanced_services.read(found)
        if service is not None and service.ingress:
            write_status(client, service, None)
    if virtual_addresses.list_held():
        virtual_addresses.hold(virtual_addresses.find_link(run.plan.facts), frozenset())
