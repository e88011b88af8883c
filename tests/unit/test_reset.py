"""Applying the system's manifests again, and emptying a namespace, by the answers of an apiserver."""

from __future__ import annotations

import pathlib
import typing

import pytest

from p8s_supervisor import admission, context, errors, kube, reset, sweep
from tests import fakes

WEBHOOKS = "/apis/admissionregistration.k8s.io/v1"
REFUSED = errors.KubeError("[Errno 111] Connection refused", status=0)
AWAY = errors.KubeError("HTTP 503: service unavailable", status=503)
MISSING = errors.KubeError("not found", status=404)
IN_DEMO = "/api/v1/namespaces/demo"
APPS = "/apis/apps/v1/namespaces/demo"
WIDGETS = "/apis/example.com/v1/namespaces/demo/widgets"


def make_resource(
    name: str, verbs: tuple[str, ...] = ("list", "delete"), *, namespaced: bool = True
) -> kube.Object:
    return {"name": name, "namespaced": namespaced, "verbs": list(verbs)}


def make_group(name: str, *versions: str, preferred: str | None = None) -> kube.Object:
    return {
        "name": name,
        "versions": [{"version": version} for version in versions],
        "preferredVersion": {"version": preferred or versions[0]},
    }


def make_object(name: str, uid: str = "", **metadata: typing.Any) -> kube.Object:
    return {"metadata": {"name": name, "uid": uid or f"uid-{name}", **metadata}, "spec": {}}


def make_list(*items: kube.Object) -> kube.Object:
    return {"items": list(items)}


CORE = {
    "resources": [
        make_resource("endpoints"),
        make_resource("configmaps"),
        make_resource("events"),
        make_resource("namespaces", namespaced=False),
        make_resource("pods"),
        make_resource("pods/log", ("get",)),
        make_resource("bindings", ("create",)),
        make_resource("serviceaccounts"),
        make_resource("services"),
    ]
}
EMPTY = make_list()
DISCOVERY: dict[str, list[fakes.Answer]] = {
    "GET /apis": [
        {
            "groups": [
                make_group("apps", "v1"),
                make_group("broken.example", "v1"),
                make_group("example.com", "v1beta1", "v1", preferred="v1"),
            ]
        }
    ],
    "GET /api/v1": [CORE],
    "GET /apis/apps/v1": [{"resources": [make_resource("deployments")]}],
    "GET /apis/broken.example/v1": [AWAY],
    "GET /apis/example.com/v1": [{"resources": [make_resource("widgets")]}],
    "GET /apis/example.com/v1beta1": [
        {"resources": [make_resource("widgets"), make_resource("gadgets")]}
    ],
}
NOTHING: dict[str, list[fakes.Answer]] = {
    f"GET {IN_DEMO}": [{}],
    f"GET {IN_DEMO}/endpoints": [EMPTY],
    f"GET {IN_DEMO}/configmaps": [EMPTY],
    f"GET {IN_DEMO}/pods": [EMPTY],
    f"GET {IN_DEMO}/serviceaccounts": [EMPTY],
    f"GET {IN_DEMO}/services": [EMPTY],
    f"GET {APPS}/deployments": [EMPTY],
    f"GET {WIDGETS}": [EMPTY],
    "GET /apis/example.com/v1beta1/namespaces/demo/gadgets": [EMPTY],
}


def make_run(
    root: pathlib.Path, answers: dict[str, list[fakes.Answer]], story: list[str] | None = None
) -> tuple[context.Context, fakes.KubeClient]:
    webhooks: dict[str, list[fakes.Answer]] = {
        f"GET {WEBHOOKS}/{kind}": [REFUSED] for kind in admission.KINDS
    }
    client = fakes.KubeClient(webhooks | answers)
    return fakes.make_context(root, client=client, story=story), client


def reset_demo(run: context.Context) -> list[str]:
    return reset.reset(run, "demo", clock=fakes.Clock())


def deletions(client: fakes.KubeClient) -> list[str]:
    return [request.path for request in client.requests if request.method == "DELETE"]


# --- what a namespace can hold


def test_discovery_asks_each_group_once_for_each_kind_and_survives_one_that_is_away() -> None:
    found, silent = sweep.discover(fakes.KubeClient(DISCOVERY))
    assert [resource.path("demo") for resource in found] == [
        WIDGETS,
        "/apis/example.com/v1beta1/namespaces/demo/gadgets",
        f"{APPS}/deployments",
        f"{IN_DEMO}/configmaps",
        f"{IN_DEMO}/pods",
        f"{IN_DEMO}/serviceaccounts",
        f"{IN_DEMO}/services",
        f"{IN_DEMO}/endpoints",
    ]
    assert silent == ["broken.example/v1: HTTP 503: service unavailable"]


@pytest.mark.parametrize(
    "path", ["GET /apis", "GET /api/v1", "GET /apis/apps/v1"], ids=["groups", "core", "a group"]
)
def test_discovery_without_an_apiserver_is_an_error(path: str) -> None:
    with pytest.raises(errors.KubeError):
        sweep.discover(fakes.KubeClient(DISCOVERY | {path: [REFUSED]}))


# --- reset


def test_everything_goes_in_order_and_what_is_remade_stays(tmp_path: pathlib.Path) -> None:
    story: list[str] = []
    run, client = make_run(
        tmp_path,
        DISCOVERY
        | NOTHING
        | {
            f"GET {WIDGETS}": [make_list(make_object("w")), EMPTY],
            f"GET {APPS}/deployments": [make_list(make_object("web")), EMPTY],
            f"GET {IN_DEMO}/configmaps": [
                make_list(make_object("kube-root-ca.crt"), make_object("settings")),
                make_list(make_object("kube-root-ca.crt")),
            ],
            f"GET {IN_DEMO}/serviceaccounts": [make_list(make_object("default"))],
            f"GET {IN_DEMO}/services": [make_list(make_object("kubernetes")), EMPTY],
            f"GET {IN_DEMO}/pods": [
                make_list(
                    make_object("static", annotations={"kubernetes.io/config.mirror": "1"}),
                    make_object("web-1"),
                ),
                EMPTY,
            ],
            f"DELETE {WIDGETS}/w": [{}],
            f"DELETE {APPS}/deployments/web": [{}],
            f"DELETE {IN_DEMO}/configmaps/settings": [{}],
            f"DELETE {IN_DEMO}/services/kubernetes": [{}],
            f"DELETE {IN_DEMO}/pods/web-1": [{}],
        },
        story,
    )
    assert reset_demo(run) == [
        "configmaps/settings",
        "deployments/web",
        "pods/web-1",
        "services/kubernetes",
        "widgets.example.com/w",
    ]
    assert deletions(client) == [
        f"{WIDGETS}/w",
        f"{APPS}/deployments/web",
        f"{IN_DEMO}/configmaps/settings",
        f"{IN_DEMO}/pods/web-1",
        f"{IN_DEMO}/services/kubernetes",
    ]
    skipped = "broken.example/v1: HTTP 503: service unavailable"
    assert story == [f"reset demo: skipped, its server does not answer: {skipped}"]
    (event,) = run.journal.read()
    assert (event.kind, event.message) == ("reset", "demo: 5 objects deleted")


def test_a_deletion_is_of_that_object_alone(tmp_path: pathlib.Path) -> None:
    run, client = make_run(
        tmp_path,
        DISCOVERY
        | NOTHING
        | {
            f"GET {IN_DEMO}/configmaps": [make_list(make_object("a", "uid-1")), EMPTY],
            f"DELETE {IN_DEMO}/configmaps/a": [{}],
        },
    )
    reset_demo(run)
    (request,) = (request for request in client.requests if request.method == "DELETE")
    assert request.body == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": "Background",
        "preconditions": {"uid": "uid-1"},
    }


def test_in_default_the_apiservers_own_service_stays(tmp_path: pathlib.Path) -> None:
    answers = {name.replace("/demo", "/default"): given for name, given in NOTHING.items()}
    kept = make_list(make_object("kubernetes"))
    there = "GET /api/v1/namespaces/default"
    run, client = make_run(
        tmp_path,
        DISCOVERY | answers | {f"{there}/services": [kept], f"{there}/endpoints": [kept]},
    )
    assert reset.reset(run, "default", clock=fakes.Clock()) == []
    assert deletions(client) == []


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param(errors.KubeError("webhook away", status=500), "pods/a", id="refused at first"),
        pytest.param(
            errors.KubeError("uid does not match", status=409), "pods/a", id="another by its name"
        ),
        pytest.param(MISSING, "pods/a", id="gone already"),
    ],
)
def test_what_is_refused_is_asked_for_again(
    tmp_path: pathlib.Path, first: Exception, then: str
) -> None:
    there = make_list(make_object("a"))
    run, _ = make_run(
        tmp_path,
        DISCOVERY
        | NOTHING
        | {
            f"GET {IN_DEMO}/pods": [there, there, there, EMPTY],
            f"DELETE {IN_DEMO}/pods/a": [first, {}],
        },
    )
    assert reset_demo(run) == [then]


def test_a_kind_that_cannot_be_listed_is_skipped_and_told(tmp_path: pathlib.Path) -> None:
    story: list[str] = []
    run, _ = make_run(tmp_path, DISCOVERY | NOTHING | {f"GET {WIDGETS}": [AWAY]}, story)
    assert reset_demo(run) == []
    assert story[-1] == "reset demo: widgets.example.com: HTTP 503: service unavailable"


def make_pod(grace: int, **metadata: typing.Any) -> kube.Object:
    found = make_object("slow", **metadata)
    return found | {"spec": {"terminationGracePeriodSeconds": grace}}


@pytest.mark.parametrize(
    ("path", "left", "told"),
    [
        pytest.param(
            WIDGETS,
            make_object("w", deletionTimestamp="now", finalizers=["a.example/x", "b.example/y"]),
            "after 30 s there is still left in demo: "
            "widgets.example.com/w (finalizers a.example/x, b.example/y)",
            id="finalizers",
        ),
        pytest.param(
            f"{IN_DEMO}/pods",
            make_pod(60, deletionTimestamp="now", deletionGracePeriodSeconds=60),
            "after 90 s there is still left in demo: pods/slow (its grace is 60 s)",
            id="a pod with its grace",
        ),
        pytest.param(
            f"{IN_DEMO}/pods",
            make_pod(3600),
            "after 300 s there is still left in demo: "
            "pods/slow (it was made again, or could not be deleted)",
            id="a grace beyond any bound",
        ),
        pytest.param(
            f"{IN_DEMO}/services",
            make_object("s", deletionTimestamp="now"),
            "after 30 s there is still left in demo: services/s (it is being deleted)",
            id="no reason",
        ),
    ],
)
def test_what_is_left_at_the_deadline_is_named(
    tmp_path: pathlib.Path, path: str, left: kube.Object, told: str
) -> None:
    run, _ = make_run(
        tmp_path,
        DISCOVERY
        | NOTHING
        | {
            f"GET {path}": [make_list(left)],
            f"DELETE {path}/{left['metadata']['name']}": [{}],
        },
    )
    with pytest.raises(errors.RequestError) as caught:
        reset_demo(run)
    assert (caught.value.status, caught.value.message) == (504, told)
    assert "finalizers" in caught.value.hint


def test_a_refusal_that_stays_is_the_reason_and_a_long_list_is_cut(tmp_path: pathlib.Path) -> None:
    there = make_list(*(make_object(f"c{number:02}") for number in range(13)))
    refusal = errors.KubeError("denied by a webhook", status=403)
    refusals: dict[str, list[fakes.Answer]] = {
        f"DELETE {IN_DEMO}/configmaps/c{number:02}": [refusal] for number in range(13)
    }
    run, _ = make_run(
        tmp_path,
        DISCOVERY | NOTHING | refusals | {f"GET {IN_DEMO}/configmaps": [there]},
    )
    with pytest.raises(errors.RequestError) as caught:
        reset_demo(run)
    assert caught.value.status == 502
    assert "configmaps/c00 (denied by a webhook), " in caught.value.message
    assert caught.value.message.endswith("configmaps/c09 (denied by a webhook), and 3 more")


@pytest.mark.parametrize(
    ("namespace", "status"),
    [
        pytest.param("kube-system", 403, id="kube-system"),
        pytest.param("kube-public", 403, id="kube-public"),
        pytest.param("kube-node-lease", 403, id="kube-node-lease"),
        pytest.param("none", 404, id="no such namespace"),
        pytest.param("../kube-system", 404, id="a way out"),
        pytest.param("a?x=y", 404, id="a query"),
        pytest.param("", 404, id="nothing"),
        pytest.param("A", 404, id="no name at all"),
    ],
)
def test_what_cannot_be_reset(tmp_path: pathlib.Path, namespace: str, status: int) -> None:
    run, client = make_run(tmp_path, {"GET /api/v1/namespaces/none": [MISSING]})
    with pytest.raises(errors.RequestError) as caught:
        reset.reset(run, namespace)
    assert caught.value.status == status
    assert caught.value.hint
    assert client.asked == (["GET /api/v1/namespaces/none"] if namespace == "none" else [])


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param({f"GET {IN_DEMO}": [REFUSED]}, id="at once"),
        pytest.param(DISCOVERY | NOTHING | {"GET /apis": [REFUSED]}, id="in discovery"),
        pytest.param(DISCOVERY | NOTHING | {f"GET {IN_DEMO}/pods": [REFUSED]}, id="on the way"),
    ],
)
def test_a_reset_without_an_apiserver(
    tmp_path: pathlib.Path, answers: dict[str, list[fakes.Answer]]
) -> None:
    run, _ = make_run(tmp_path, answers)
    with pytest.raises(errors.RequestError) as caught:
        reset_demo(run)
    assert (caught.value.status, caught.value.hint) == (503, "wait for /ready")


def test_a_reset_is_given_up_at_the_stop(tmp_path: pathlib.Path) -> None:
    run, _ = make_run(tmp_path, DISCOVERY | NOTHING)
    run.stop.set()
    with pytest.raises(errors.RequestError) as caught:
        reset_demo(run)
    assert caught.value.status == 503


def test_another_refusal_is_passed_on(tmp_path: pathlib.Path) -> None:
    refusal = errors.KubeError("etcd is away", status=500)
    run, _ = make_run(tmp_path, {f"GET {IN_DEMO}": [refusal]})
    with pytest.raises(errors.KubeError) as caught:
        reset_demo(run)
    assert caught.value is refusal
