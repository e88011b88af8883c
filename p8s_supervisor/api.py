"""The HTTP API's application: who may pass, which route, and errors as problems."""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import typing

import flask
import werkzeug.exceptions

from p8s_supervisor import access, answers, errors, events, openapi


@dataclasses.dataclass(frozen=True, kw_only=True)
class Api:
    """What the routes call.

    Attributes:
        missing: condition → reason; empty when the cluster is ready.
        status: what /status shows.
        metrics: Prometheus' text format.
        settings: name → value and source.
        kubeconfig: an administrator's, for the host or for a given name.
        add_user: a kubeconfig for a user: name, groups, ttl (a duration), kind.
        apply: applies the system's manifests again; what was applied.
        reset: empties a namespace; what was deleted.
        events: those after a number, waited for so many seconds where there are none.
        list_logs: the components that have a log.
        read_log: a component's log; follow, tail (lines; None: all).
        list_images: the node's images and blobs.
        load_images: imports an archive; the images' names.
        list_add_ons: all that there are, and how each stands.
        enable_add_on: switches one on; what was applied.
        disable_add_on: switches one off; what was deleted.
        bundle: writes the archive that explains a cluster.
        stop: asks for the stop and returns at once; given who asked.
    """

    missing: collections.abc.Callable[[], dict[str, str]]
    status: collections.abc.Callable[[], dict[str, typing.Any]]
    metrics: collections.abc.Callable[[], str]
    settings: collections.abc.Callable[[], dict[str, dict[str, str]]]
    kubeconfig: collections.abc.Callable[[str | None], str]
    add_user: collections.abc.Callable[[dict[str, typing.Any]], str]
    apply: collections.abc.Callable[[], list[str]]
    reset: collections.abc.Callable[[str], list[str]]
    events: collections.abc.Callable[[int, float], list[events.Event]]
    list_logs: collections.abc.Callable[[], list[str]]
    read_log: collections.abc.Callable[[str, bool, int | None], collections.abc.Iterator[bytes]]
    list_images: collections.abc.Callable[[], dict[str, typing.Any]]
    load_images: collections.abc.Callable[[typing.IO[bytes]], list[str]]
    list_add_ons: collections.abc.Callable[[], list[dict[str, typing.Any]]]
    enable_add_on: collections.abc.Callable[[str], list[str]]
    disable_add_on: collections.abc.Callable[[str], list[str]]
    bundle: collections.abc.Callable[[typing.BinaryIO], None]
    stop: collections.abc.Callable[[str], None]


def create_app(
    api: Api, rules: access.Access, routes: collections.abc.Sequence[openapi.Route]
) -> flask.Flask:
    """The WSGI application, with the OpenAPI document of its routes at /openapi.json."""
    app = flask.Flask("p8s", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = access.BODY_BYTES

    @app.before_request
    def check_access() -> flask.Response | None:
        refusal = rules.refuse(read_caller(flask.request))
        if refusal is None:
            return None
        return answers.problem(refusal.status, refusal.reason, hint=refusal.hint)

    @app.errorhandler(Exception)
    def explain(error: Exception) -> flask.Response:
        answer = _explain(error)
        if answer is not None:
            return answer
        app.logger.error("%s %s", flask.request.method, flask.request.path, exc_info=error)
        return answers.problem(500, f"{type(error).__name__}: {error}", hint="this is a bug of p8s")

    document = openapi.Route(
        request="GET /openapi.json",
        summary="This API, as OpenAPI 3.1.",
        handler=lambda *_: answers.json_(openapi.describe((*routes, document))),
    )
    for route in (*routes, document):
        rule = route.path.replace("{", "<").replace("}", ">")
        app.add_url_rule(rule, route.request, _make_view(api, route), methods=[route.method])
    return app


def _make_view(api: Api, route: openapi.Route) -> collections.abc.Callable[..., flask.Response]:
    def view(**parts: str) -> flask.Response:
        return typing.cast("flask.Response", route.handler(api, _read_parameters(route, parts)))

    return view


def _read_parameters(
    route: openapi.Route, parts: collections.abc.Mapping[str, str]
) -> dict[str, object]:
    """The values of a route's parameters.

    Raises:
        RequestError: 400, with everything that is wrong.
    """
    known = {parameter.name: parameter for parameter in route.parameters}
    texts = dict(parts)
    wrong = []
    for name, given in flask.request.args.lists():
        if name not in known or route.in_path(known[name]):
            near = difflib.get_close_matches(name, known, n=1)
            wrong.append(f"{name}: no such parameter" + (f"; {near[0]}?" if near else ""))
        elif len(given) > 1:
            wrong.append(f"{name}: given {len(given)} times")
        else:
            texts[name] = given[0]
    values: dict[str, object] = {name: parameter.default for name, parameter in known.items()}
    for name, text in texts.items():
        try:
            values[name] = known[name].read(text)
        except ValueError as error:
            wrong.append(f"{name} = {text[:80]!r}: {error}")
    if wrong:
        raise errors.RequestError(
            "; ".join(wrong), status=400, hint="GET /openapi.json lists what there is"
        )
    return values


def _explain(error: Exception) -> flask.Response | None:
    """The answer for an error that is raised on purpose; None for others."""
    if isinstance(error, werkzeug.exceptions.HTTPException) and error.code:
        response = answers.problem(
            error.code, str(error.description), hint="GET /status shows what p8s is doing"
        )
        allowed = getattr(error, "valid_methods", None)
        if allowed:
            response.headers["Allow"] = ", ".join(sorted(allowed))
        return response
    if isinstance(error, errors.RequestError):
        return answers.problem(error.status, error.message, hint=error.hint)
    if isinstance(error, errors.KubeError):
        detail = f"kube-apiserver: {error.message}"
        return answers.problem(502 if error.status else 503, detail, hint=error.hint)
    if isinstance(error, errors.P8sError):
        return answers.problem(500, error.message, hint=error.hint)
    return None


def read_caller(request: flask.Request) -> access.Caller:
    """The head of a request, as far as access depends on it."""
    return access.Caller(
        method=request.method,
        path=request.path,
        host=request.host,
        address=request.remote_addr or "",
        authorization=request.headers.get("Authorization", ""),
        origin=request.headers.get("Origin"),
        fetch_site=request.headers.get("Sec-Fetch-Site", "none"),
    )
