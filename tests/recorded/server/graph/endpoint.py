"""POST /graphql."""

import json
import re
from collections.abc import Iterable
from typing import Any

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    execute_sync,
    get_operation_ast,
    parse,
    validate,
)
from graphql.execution.values import get_variable_values
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..errors import GitHubError
from ..github import GitHub
from ..rest import Endpoint, caller
from .connections import QueryError
from .costs import Price, price
from .fields import resolve, resolve_type
from .nodes import Asked
from .schema import schema_of

_TIMEOUT = (
    "Something went wrong while executing your query. This may be the result of a timeout, or it "
    "could be a GitHub bug."
)
# What graphql-core says, and the words and codes of GitHub's own server for it.
_REFUSALS = (
    (
        re.compile(r"Cannot query field '(?P<field>\w+)' on type '(?P<type>\w+)'"),
        "undefinedField",
        "Field '{field}' doesn't exist on type '{type}'",
    ),
    (
        re.compile(r"Unknown argument '(?P<argument>\w+)' on field '\w+\.(?P<field>\w+)'"),
        "argumentNotAccepted",
        "Field '{field}' doesn't accept argument '{argument}'",
    ),
    (
        re.compile(r"Variable '\$(?P<name>\w+)' is never used"),
        "variableNotUsed",
        "Variable ${name} is declared by query but not used",
    ),
)


class _Refused(Exception):  # noqa: N818 - an answer, with 200
    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__()
        self.errors = errors


def graphql_endpoint(github: GitHub) -> Endpoint:
    """Its answers have 200 also for a query that is refused, as GitHub's have."""

    async def endpoint(request: Request) -> Response:
        token = caller(request)
        if not token:
            raise GitHubError(401, "This endpoint requires you to be authenticated.")
        try:
            body = json.loads(await request.body())
            query = body["query"]
        except (ValueError, TypeError, KeyError):
            raise GitHubError(400, "Problems parsing JSON") from None
        bucket = github.limits.bucket(token, "graphql")
        if bucket.remaining <= 0:
            github.usage.exceeded[token] += 1
            message = "API rate limit exceeded for the token."
            return JSONResponse({"errors": [{"type": "RATE_LIMITED", "message": message}]})
        schema = schema_of(github.data["schema"])
        try:
            document, operation = _parsed(schema, query, body.get("operationName"))
            variables = _variables(schema, operation, body.get("variables") or {})
            priced = _priced(schema, document, operation, variables)
        except _Refused as refused:
            return JSONResponse({"errors": refused.errors})
        if priced.points > bucket.remaining:  # it is answered: GitHub's pages do not say what is
            github.usage.exceeded[token] += 1
        bucket.remaining = max(0, bucket.remaining - priced.points)
        github.usage.points["graphql"] += priced.points
        if priced.nodes > github.timeout_nodes:
            github.usage.troubles["timeout"] += 1
            return JSONResponse({"data": None, "errors": [{"message": _TIMEOUT}]}, 502)
        result = execute_sync(
            schema,
            document,
            context_value=Asked(github, token, bucket, priced.points, priced.nodes),
            variable_values=body.get("variables"),
            operation_name=body.get("operationName"),
            field_resolver=resolve,
            type_resolver=resolve_type,
        )
        answer: dict[str, Any] = {"data": result.data}
        if result.errors:
            answer["errors"] = [_runtime(error) for error in result.errors]
        return JSONResponse(answer)

    return endpoint


def _parsed(
    schema: GraphQLSchema, query: str, name: str | None
) -> tuple[DocumentNode, OperationDefinitionNode]:
    try:
        document = parse(query)
    except GraphQLSyntaxError as error:
        raise _Refused([{"message": f"Parse error: {error.message}"}]) from None
    if errors := validate(schema, document):
        raise _Refused([_refusal(error) for error in errors])
    operation = get_operation_ast(document, name)
    if operation is None:
        raise _Refused([{"message": "An operation name is required"}])
    return document, operation


def _variables(
    schema: GraphQLSchema, operation: OperationDefinitionNode, given: dict[str, Any]
) -> Any:
    values = get_variable_values(schema, operation.variable_definitions or (), given)
    if isinstance(values, list):
        raise _Refused([{"message": error.message} for error in values])
    return values


def _priced(
    schema: GraphQLSchema,
    document: DocumentNode,
    operation: OperationDefinitionNode,
    variables: Any,
) -> Price:
    try:
        return price(schema, document, operation, variables)
    except QueryError as error:
        raise _Refused([{"type": error.type, "message": str(error)}]) from None


def _refusal(error: GraphQLError) -> dict[str, Any]:
    for pattern, code, words in _REFUSALS:
        if found := pattern.search(error.message):
            message = words.format(**found.groupdict())
            return {"message": message, "extensions": {"code": code}, **_places(error.locations)}
    return {"message": error.message, **_places(error.locations)}


def _places(locations: Iterable[Any] | None) -> dict[str, Any]:
    return {"locations": [{"line": each.line, "column": each.column} for each in locations or ()]}


def _runtime(error: GraphQLError) -> dict[str, Any]:
    cause = error.original_error
    shown = {"path": error.path, "message": error.message, **_places(error.locations)}
    match cause:
        case QueryError():
            return {"type": cause.type, **shown}
        case GitHubError():
            type_ = "NOT_FOUND" if cause.status == 404 else "FORBIDDEN"
            return {"type": type_, **shown, "message": cause.message}
    return shown
