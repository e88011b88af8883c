"""The table of routes, and what answers each: parse, call."""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import tempfile
import typing

import flask

from p8s_supervisor import access, answers, api, errors, openapi

# How long an idle stream is silent: what is written then tells whether its reader still listens.
IDLE_SECONDS = 5.0

Given = collections.abc.Mapping[str, typing.Any]
"""A request's parameters: name → value."""


def _livez(called: api.Api, given: Given) -> flask.Response:
    return answers.text("ok\n")


def _ready(called: api.Api, given: Given) -> flask.Response:
    missing = called.missing()
    if missing:
        return answers.problem(503, "the cluster is not ready", missing=missing)
    return answers.text("ok\n")


def _status(called: api.Api, given: Given) -> flask.Response:
    return answers.json_(called.status())


def _metrics(called: api.Api, given: Given) -> flask.Response:
    return flask.Response(called.metrics(), content_type="text/plain; version=0.0.4")


def _settings(called: api.Api, given: Given) -> flask.Response:
    return answers.json_(called.settings())


def _kubeconfig(called: api.Api, given: Given) -> flask.Response:
    return answers.credentials(called.kubeconfig(given["host"]))


def _users(called: api.Api, given: Given) -> flask.Response:
    wanted = flask.request.get_json()
    wrong = _check_user(wanted)
    if wrong:
        raise errors.RequestError("; ".join(wrong), status=400, hint="GET /openapi.json tells more")
    return answers.credentials(called.add_user(_USER_DEFAULTS | wanted), status=201)


def _check_user(wanted: object) -> list[str]:
    """What is wrong with the form of a request for a user."""
    if not isinstance(wanted, dict):
        return ["not a JSON object"]
    known = USER["properties"]
    wrong = [f"{name}: no such field" for name in wanted if name not in known]
    wrong += [f"{name}: missing" for name in USER["required"] if name not in wanted]
    for name, value in wanted.items():
        if name == "groups":
            if not (isinstance(value, list) and all(isinstance(group, str) for group in value)):
                wrong.append("groups: not a list of strings")
        elif name in known and not isinstance(value, str):
            wrong.append(f"{name}: not a string")
    return wrong


def _apply(called: api.Api, given: Given) -> flask.Response:
    return answers.json_({"applied": called.apply()})


def _reset(called: api.Api, given: Given) -> flask.Response:
    namespace = given["namespace"]
    return answers.json_({"namespace": namespace, "deleted": called.reset(namespace)})


def _events(called: api.Api, given: Given) -> flask.Response:
    last = flask.request.headers.get("Last-Event-ID", "0")
    if not (last.isascii() and last.isdigit()):
        raise errors.RequestError(f"Last-Event-ID: {last!r} is not a number", status=400)
    pieces = _render_events(called, after=int(last[:18]), follow=given["follow"])
    return answers.stream(pieces, "text/event-stream")


def _render_events(called: api.Api, *, after: int, follow: bool) -> collections.abc.Iterator[bytes]:
    """Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
    while True:
        found = called.events(after, IDLE_SECONDS if follow else 0)
        for event in found:
            after = event.id
            data = {"time": event.time, "message": event.message} | event.data
            yield f"id: {event.id}\nevent: {event.kind}\ndata: {json.dumps(data)}\n\n".encode()
        if not follow:
            return
        if not found:
            yield b": nothing new\n\n"


def _list_logs(called: api.Api, given: Given) -> flask.Response:
    return answers.json_({"components": called.list_logs()})


def _log(called: api.Api, given: Given) -> flask.Response:
    pieces = called.read_log(given["component"], given["follow"], given["tail"])
    return answers.stream(pieces, "text/plain; charset=utf-8")


def _list_images(called: api.Api, given: Given) -> flask.Response:
    return answers.json_(called.list_images())


def _load_images(called: api.Api, given: Given) -> flask.Response:
    flask.request.max_content_length = access.ARCHIVE_BYTES
    return answers.json_({"images": called.load_images(flask.request.stream)})


def _list_add_ons(called: api.Api, given: Given) -> flask.Response:
    return answers.json_({"addons": called.list_add_ons()})


def _enable_add_on(called: api.Api, given: Given) -> flask.Response:
    return answers.json_({"applied": called.enable_add_on(given["name"])})


def _disable_add_on(called: api.Api, given: Given) -> flask.Response:
    return answers.json_({"deleted": called.disable_add_on(given["name"])})


def _bundle(called: api.Api, given: Given) -> flask.Response:
    spool = tempfile.TemporaryFile()  # noqa: SIM115 — closed with the answer
    called.bundle(typing.cast("typing.BinaryIO", spool))
    spool.seek(0)
    return flask.send_file(
        spool,
        mimetype="application/gzip",
        as_attachment=True,
        download_name="p8s-bundle.tar.gz",
        max_age=0,
    )


def _stop(called: api.Api, given: Given) -> flask.Response:
    called.stop(f"POST /stop from {flask.request.remote_addr}")
    return answers.text("stopping\n", status=202)


USER: openapi.Schema = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "description": "the certificate's common name"},
        "groups": {"type": "array", "items": {"type": "string"}, "default": []},
        "ttl": {"type": "string", "description": "such as 90m, 24h", "default": "24h"},
        "kind": {"type": "string", "enum": ["certificate", "token"], "default": "certificate"},
    },
}
_USER_DEFAULTS = {
    name: field["default"] for name, field in USER["properties"].items() if "default" in field
}

_FOLLOW = openapi.Parameter(
    name="follow",
    summary="Whether to go on as more comes.",
    schema=openapi.FLAG,
    default=False,
)

_ADD_ON = openapi.Parameter(name="name", summary="One of those in /addons.", schema=openapi.WORD)

ROUTES = (
    openapi.Route(
        request="GET /livez",
        summary="Ok as long as the sidecar answers.",
        content_type="text/plain",
        handler=_livez,
    ),
    openapi.Route(
        request="GET /ready",
        summary="Ok when everything is ready; else 503 and what is missing.",
        content_type="text/plain",
        handler=_ready,
    ),
    openapi.Route(
        request="GET /status",
        summary="State, phases, conditions, versions, components and addresses.",
        handler=_status,
    ),
    openapi.Route(
        request="GET /metrics",
        summary="Prometheus' text format.",
        content_type="text/plain",
        handler=_metrics,
    ),
    openapi.Route(
        request="GET /settings",
        summary="The settings in force, and where each came from.",
        handler=_settings,
    ),
    openapi.Route(
        request="GET /kubeconfig",
        summary="An administrator's kubeconfig, for the host or for a given name.",
        content_type="application/yaml",
        handler=_kubeconfig,
        parameters=(
            openapi.Parameter(
                name="host",
                summary="The name or address in it, HOST or HOST:PORT; the certificate carries it.",
                schema=openapi.WORD,
            ),
        ),
    ),
    openapi.Route(
        request="POST /users",
        summary="A kubeconfig for a user of its own.",
        status=201,
        content_type="application/yaml",
        handler=_users,
        body=("application/json", USER),
    ),
    openapi.Route(
        request="POST /apply",
        summary="Applies the system's manifests again.",
        schema={"type": "object", "properties": {"applied": openapi.NAMES}},
        handler=_apply,
    ),
    openapi.Route(
        request="POST /reset/{namespace}",
        summary="Deletes everything in a namespace.",
        schema={"type": "object", "properties": {"deleted": openapi.NAMES}},
        handler=_reset,
        parameters=(
            openapi.Parameter(
                name="namespace", summary="Its name; not a system namespace.", schema=openapi.WORD
            ),
        ),
    ),
    openapi.Route(
        request="GET /events",
        summary="Phases, readiness, restarts and Kubernetes' warnings, as server-sent events.",
        content_type="text/event-stream",
        handler=_events,
        parameters=(dataclasses.replace(_FOLLOW, default=True),),
    ),
    openapi.Route(
        request="GET /logs",
        summary="The components that have a log.",
        schema={"type": "object", "properties": {"components": openapi.NAMES}},
        handler=_list_logs,
    ),
    openapi.Route(
        request="GET /logs/{component}",
        summary="A component's log.",
        content_type="text/plain",
        handler=_log,
        parameters=(
            openapi.Parameter(
                name="component", summary="One of those in /logs.", schema=openapi.WORD
            ),
            _FOLLOW,
            openapi.Parameter(
                name="tail",
                summary="Only so many lines of what is there.",
                schema={"type": "integer", "minimum": 0, "maximum": 1_000_000},
            ),
        ),
    ),
    openapi.Route(
        request="GET /images",
        summary="The node's images, and the digests of what it need not be sent again.",
        handler=_list_images,
    ),
    openapi.Route(
        request="POST /images",
        summary="Imports an image archive (docker save, OCI); layers that are there may lack.",
        schema={"type": "object", "properties": {"images": openapi.NAMES}},
        handler=_load_images,
        body=("application/octet-stream", openapi.BYTES),
    ),
    openapi.Route(
        request="GET /addons",
        summary="Every add-on: whether it is enabled and usable, and why not.",
        handler=_list_add_ons,
    ),
    openapi.Route(
        request="POST /addons/{name}",
        summary="Enables an add-on, also for later starts.",
        schema={"type": "object", "properties": {"applied": openapi.NAMES}},
        handler=_enable_add_on,
        parameters=(_ADD_ON,),
    ),
    openapi.Route(
        request="DELETE /addons/{name}",
        summary="Disables an add-on, also for later starts, and waits until it is gone.",
        schema={"type": "object", "properties": {"deleted": openapi.NAMES}},
        handler=_disable_add_on,
        parameters=(_ADD_ON,),
    ),
    openapi.Route(
        request="GET /bundle",
        summary="Logs, events, objects, timeline and settings in one tar.gz, without secrets.",
        content_type="application/gzip",
        handler=_bundle,
    ),
    openapi.Route(
        request="POST /stop",
        summary="The stop has begun; the container ends when it is done.",
        status=202,
        content_type="text/plain",
        handler=_stop,
    ),
)
