"""What a route is, and the OpenAPI document that a table of routes makes."""

from __future__ import annotations

import collections.abc
import dataclasses
import re
import typing

Schema = dict[str, typing.Any]
# Of the API; raised when an answer changes so that a client could trip over it.
VERSION = "1.0.0"

TEXT: Schema = {"type": "string"}
BYTES: Schema = {"type": "string", "format": "binary"}
# What may stand in a path or a query: no control characters.
WORD: Schema = {"type": "string", "minLength": 1, "maxLength": 253, "pattern": "^[!-~]+$"}
FLAG: Schema = {"type": "boolean"}
OBJECT: Schema = {"type": "object"}
NAMES: Schema = {"type": "array", "items": TEXT}
# Of answers whose route says no more than their content type.
BY_CONTENT_TYPE = {
    "application/gzip": BYTES,
    "application/json": OBJECT,
    "application/yaml": OBJECT,
    "text/event-stream": TEXT,
    "text/plain": TEXT,
}
PROBLEM: Schema = {
    "type": "object",
    "required": ["status", "detail"],
    "properties": {
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what is wrong"},
        "hint": {"type": "string", "description": "what to do about it"},
        "missing": {"type": "object", "description": "thing → why it is not ready"},
    },
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameter:
    """A part of a path, or of a query.

    Attributes:
        name: as it stands in the path's braces, or in the query.
        summary: what it means.
        schema: JSON schema of its value.
        default: its value where a query lacks it.
    """

    name: str
    summary: str
    schema: Schema
    default: object = None

    def read(self, text: str) -> object:
        """The value that a text stands for.

        Raises:
            ValueError: it stands for none.
        """
        kind = self.schema["type"]
        if kind == "boolean":
            if text not in ("true", "false"):
                raise ValueError("not true or false")
            return text == "true"
        if kind == "integer":
            low, high = self.schema["minimum"], self.schema["maximum"]
            if not (text.isascii() and text.isdigit() and low <= int(text[:20]) <= high):
                raise ValueError(f"not a whole number from {low} to {high}")
            return int(text)
        if len(text) > self.schema["maxLength"] or not re.fullmatch(self.schema["pattern"], text):
            raise ValueError(f"not 1 to {self.schema['maxLength']} printable ASCII characters")
        return text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Route:
    """One method of one path.

    Attributes:
        request: method and path, as `POST /reset/{namespace}`.
        summary: what it does, one sentence.
        status: of a good answer.
        content_type: of a good answer.
        schema: of a good answer; None: what its content type says.
        handler: what answers it; its type is the API's business.
        parameters: of the path and the query.
        body: content type → schema of what is sent; None where nothing is.
    """

    request: str
    summary: str
    status: int = 200
    content_type: str = "application/json"
    schema: Schema | None = None
    handler: collections.abc.Callable[..., typing.Any]
    parameters: tuple[Parameter, ...] = ()
    body: tuple[str, Schema] | None = None

    @property
    def method(self) -> str:
        """The HTTP method, in capitals."""
        return self.request.partition(" ")[0]

    @property
    def path(self) -> str:
        """The path, its parameters in braces."""
        return self.request.partition(" ")[2]

    def in_path(self, parameter: Parameter) -> bool:
        """Whether a parameter is a part of the path."""
        return f"{{{parameter.name}}}" in self.path


def describe(routes: collections.abc.Iterable[Route]) -> Schema:
    """The OpenAPI 3.1 document of some routes."""
    paths: dict[str, Schema] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _describe_route(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "p8s",
            "version": VERSION,
            "description": "The life of one Kubernetes cluster in one container.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Problem": PROBLEM},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        # None at all: callers on the host need no token where none was set.
        "security": [{}, {"token": []}],
    }


def _describe_route(route: Route) -> Schema:
    problem = {"$ref": "#/components/schemas/Problem"}
    described: Schema = {
        "summary": route.summary,
        "operationId": re.sub(r"\W+", "-", route.request.lower()).strip("-"),
        "responses": {
            str(route.status): {
                "description": route.summary,
                "content": {
                    route.content_type: {
                        "schema": route.schema or BY_CONTENT_TYPE[route.content_type]
                    }
                },
            },
            "default": {
                "description": "What is wrong, and what to do about it (RFC 9457).",
                "content": {"application/problem+json": {"schema": problem}},
            },
        },
    }
    if route.parameters:
        described["parameters"] = [
            {
                "name": parameter.name,
                "in": "path" if route.in_path(parameter) else "query",
                "required": route.in_path(parameter),
                "description": parameter.summary,
                "schema": parameter.schema
                | ({} if parameter.default is None else {"default": parameter.default}),
            }
            for parameter in route.parameters
        ]
    if route.body:
        content_type, schema = route.body
        described["requestBody"] = {
            "required": True,
            "content": {content_type: {"schema": schema}},
        }
    return described
