"""The HTTP API's application over a cluster that answers what a test gives it."""

from __future__ import annotations

import collections.abc
import dataclasses
import typing

import werkzeug.test

from p8s_supervisor import access, api, events, routes
from tests import fakes


@dataclasses.dataclass
class Cluster:
    """What the routes answer with, and what they were told.

    Attributes:
        missing: what is missing for readiness.
        failure: what /status, /apply and /bundle raise.
        recorded: what /events has, each once.
        log: the pieces of every log.
        calls: what was asked for, oldest first.
        stops: who asked for the stop.
    """

    missing: dict[str, str] = dataclasses.field(default_factory=dict)
    failure: Exception | None = None
    recorded: list[events.Event] = dataclasses.field(default_factory=list)
    log: list[bytes] = dataclasses.field(default_factory=lambda: [b"a line\n"])
    calls: list[object] = dataclasses.field(default_factory=list)
    stops: list[str] = dataclasses.field(default_factory=list)

    def answer(self, value: typing.Any, *call: object) -> typing.Any:
        """Give a value, unless there is a failure to raise."""
        self.calls.append(call)
        if self.failure is not None:
            raise self.failure
        return value

    def read_log(
        self, component: str, follow: bool, tail: int | None
    ) -> collections.abc.Iterator[bytes]:
        self.calls.append(("log", component, follow, tail))
        yield from self.log

    def read_events(self, after: int, seconds: float) -> list[events.Event]:
        self.calls.append(("events", after, seconds))
        return [event for event in self.recorded if event.id > after]


def make_client(
    cluster: Cluster | None = None,
    *,
    trusted: tuple[str, ...] = ("127.0.0.1", "::1", "172.17.0.1"),
    token_required: bool = False,
) -> werkzeug.test.Client:
    """A client of the application; no socket is involved."""
    there = cluster or Cluster()
    app = api.create_app(
        api.Api(
            missing=lambda: there.missing,
            status=lambda: there.answer({"state": "ready"}),
            metrics=lambda: "p8s_ready 1.0\n",
            settings=lambda: {"node_name": {"value": "p8s", "source": "default"}},
            kubeconfig=lambda host: "a kubeconfig" if host is None else f"for {host}",
            add_user=lambda wanted: there.answer("a user's kubeconfig", "user", wanted),
            apply=lambda: there.answer(["Service kube-system/kube-dns"], "apply"),
            reset=lambda namespace: there.answer(["pods/a"], "reset", namespace),
            events=there.read_events,
            list_logs=lambda: ["etcd", "kubelet"],
            read_log=there.read_log,
            list_images=lambda: {"images": [], "blobs": []},
            load_images=lambda stream: there.answer(["app:1"], "load", stream.read()),
            list_add_ons=lambda: [{"name": "storage", "enabled": True}],
            enable_add_on=lambda name: there.answer(["Namespace p8s-storage"], "enable", name),
            disable_add_on=lambda name: there.answer(["Namespace p8s-storage"], "disable", name),
            bundle=lambda target: there.answer(target.write(b"an archive"), "bundle"),
            stop=there.stops.append,
        ),
        access.Access(
            names=frozenset({"localhost", "127.0.0.1", "::1", "p8s", "p8s.example"}),
            trusted=frozenset(trusted),
            token=fakes.TOKEN,
            token_required=token_required,
        ),
        routes.ROUTES,
    )
    return app.test_client()


def call(
    client: werkzeug.test.Client,
    request: str,
    *,
    address: str = "127.0.0.1",
    host: str = "127.0.0.1:8989",
    headers: dict[str, str] | None = None,
    data: bytes | str | None = None,
) -> werkzeug.test.TestResponse:
    """Make a request such as "GET /ready" from an address."""
    method, _, path = request.partition(" ")
    return client.open(
        path,
        method=method,
        data=data,
        headers={"Host": host} | (headers or {}),
        environ_overrides={"REMOTE_ADDR": address},
        buffered=True,  # closes the answer, as a server does
    )
