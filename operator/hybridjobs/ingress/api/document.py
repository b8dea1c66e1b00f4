"""The API as an OpenAPI 3.1 document, made of what its operations say of themselves."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from hybridjobs import __version__
from hybridjobs.ingress.api.operations import Answer, Operation, operations_of
from hybridjobs.ingress.api.schemas import exactly, schema_of
from hybridjobs.ingress.members import Schema

_PROBLEMS = {
    400: "The body is not JSON, or a header is wrong.",
    401: "The token is missing, wrong, expired or revoked.",
    403: "The caller lacks the scope that this needs.",
    404: "There is no such thing.",
    408: "The request did not arrive in time.",
    413: "The body is too large.",
    415: "The body has a Content-Encoding.",
    422: "The request has the wrong shape or values; `errors` names each fault.",
    429: "The caller asks too often.",
    431: "The request's head is too large.",
    500: "Something unforeseen, whose id the log has; or the job type's payloadSchema is broken.",
    503: "Postgres or the cluster is away, or too much is asked at once.",
}
_ALWAYS = (401, 403, 408, 422, 429, 431, 500, 503)
_WITH_BODY = (400, 413, 415)
_SCOPES = (
    "Each operation names the scope that its callers need: read, submit or operate, each of which "
    "includes those before it."
)
_PROBLEM: Schema = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": exactly({"path": {"type": "string"}, "message": {"type": "string"}}),
        },
    },
    "required": ["type", "title", "status", "detail"],
    "additionalProperties": False,
}
_TYPE: Schema = {  # as the CRD has it
    "type": "string",
    "pattern": r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(/[a-z0-9]([a-z0-9.-]*[a-z0-9])?)*$",
}
_IN_PATH = re.compile(r"{([a-z]+)(:path)?}")


def document(endpoints: Iterable[type]) -> dict[str, Any]:
    """The document of these classes' operations."""
    components: dict[str, Schema] = {"Problem": _PROBLEM}
    paths: dict[str, dict[str, Any]] = {}
    operations = [described for each in endpoints for _, described in operations_of(each)]
    by_name = {described.name: described for described in operations}
    for described in operations:
        path = _IN_PATH.sub(r"{\1}", described.path)
        paths.setdefault(path, {})[described.method.lower()] = _operation(
            described, components, by_name
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "HybridJobs",
            "version": __version__,
            "description": "Jobs and their queue. docs/reference/http.md says more.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": _SCOPES}
            },
        },
    }


def _operation(
    described: Operation, components: dict[str, Schema], by_name: dict[str, Operation]
) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "operationId": described.name,
        "summary": described.description,
        "tags": [described.tag],
        "security": [{"bearer": [described.scope.value]}],
        "parameters": list(_parameters(described)),
        "responses": {
            **{
                str(status): _answer(answer, components, by_name)
                for status, answer in described.answers.items()
            },
            **{str(status): _problem(text) for status, text in _problems(described).items()},
        },
    }
    if described.body is not None:
        shown["requestBody"] = {
            "required": bool(described.body.required),
            "content": {"application/json": {"schema": described.body.schema()}},
        }
    return shown


def _parameters(described: Operation) -> Iterator[dict[str, Any]]:
    for name, is_path in _IN_PATH.findall(described.path):
        schema = _TYPE if is_path else {"type": "string", "format": "uuid"}
        yield {"name": name, "in": "path", "required": True, "schema": schema}
    for name, check in described.query.items():
        yield {"name": name, "in": "query", "schema": check.schema}
    for name, schema in described.headers.items():
        yield {"name": name, "in": "header", "schema": schema}


def _problems(described: Operation) -> dict[int, str]:
    statuses = {*_ALWAYS, *(_WITH_BODY if described.body is not None else ())}
    if "{" in described.path:
        statuses.add(404)
    return {
        **{status: _PROBLEMS[status] for status in sorted(statuses)},
        **described.problems,
    }


def _problem(text: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": text, "content": {"application/problem+json": {"schema": schema}}}


def _answer(
    answer: Answer, components: dict[str, Schema], by_name: dict[str, Operation]
) -> dict[str, Any]:
    shown: dict[str, Any] = {"description": answer.description}
    if answer.content is not None:
        schema = schema_of(answer.content, components)
        # Events are a text, whose data lines have this schema.
        content = (
            {"schema": {"type": "string"}, "x-event-schema": schema}
            if answer.media_type == "text/event-stream"
            else {"schema": schema}
        )
        shown["content"] = {answer.media_type: content}
    if answer.headers:
        shown["headers"] = {name: {"schema": schema} for name, schema in answer.headers.items()}
    if answer.links:
        shown["links"] = {
            name: {
                "operationId": by_name[name].name,
                "parameters": {
                    _IN_PATH.findall(by_name[name].path)[0][0]: (
                        f"$response.body#/{answer.links_by}"
                    )
                },
            }
            for name in answer.links
        }
    return shown
