"""An endpoint and what it takes and answers, said once: routes and OpenAPI document come from it.

The query and the body reach the endpoint only as its operation's checks read them, and what they do
not know is refused. That answers are what the operation says is what the tests look at: every one
that they get from the API is held against the document.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from hybridjobs import codec
from hybridjobs.errors import InvalidInput
from hybridjobs.ingress.api.access import ApiRoute, caller_of
from hybridjobs.ingress.api.schemas import Listing
from hybridjobs.ingress.asgi import read_body
from hybridjobs.ingress.members import Check, Schema, Shape, read_query
from hybridjobs.model import ApiScope

_SMALL_BODY_BYTES = 64 * 1024
_NOTHING: Mapping[Any, Any] = {}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the checks of its operation read it."""

    request: Request
    query: dict[str, Any]
    body: dict[str, Any]

    @property
    def caller(self) -> str:
        """The name of who asks, for the record."""
        return caller_of(self.request.scope).name

    @property
    def by(self) -> str:
        """For whom it is done: whom the body names, else the caller."""
        by: str = self.body.get("by", self.caller)
        return by


@dataclass(frozen=True, slots=True)
class Answer:
    """One of the answers: `content` is a type that views write, or a JSON Schema with such types.

    `headers` are those that come with it; `links` names operations on the thing whose id, or type,
    is at the JSON pointer `links_by`.
    """

    description: str
    content: type | Schema | Listing | None = None
    media_type: str = "application/json"
    headers: Mapping[str, Schema] = field(default_factory=dict)
    links: tuple[str, ...] = ()
    links_by: str = "id"


@dataclass(frozen=True, slots=True)
class Operation:
    """What an endpoint takes and answers; see `operation`."""

    method: str
    path: str
    scope: ApiScope
    name: str
    description: str
    answers: Mapping[int, Answer]
    query: Mapping[str, Check]
    headers: Mapping[str, Schema]
    body: Shape | None
    streams_body: bool
    problems: Mapping[int, str]
    tag: str


Endpoint = Callable[[Any, Asked, Send], Awaitable[None]]
Endpoints = TypeVar("Endpoints")


def operation(
    method: str,
    path: str,
    *,
    scope: ApiScope,
    answers: Mapping[int, Answer],
    query: Mapping[str, Check] = _NOTHING,
    headers: Mapping[str, Schema] = _NOTHING,
    body: Shape | None = None,
    streams_body: bool = False,
    problems: Mapping[int, str] = _NOTHING,
) -> Callable[[Endpoint], Endpoint]:
    """Says of a method what it takes and answers; its docstring is the description.

    `scope` is what its callers need.
    `streams_body`: it reads the body itself, by the same shape, for that is too large for here.
    `problems` are those beyond what every operation may answer.
    """

    def mark(endpoint: Endpoint) -> Endpoint:
        described = Operation(
            method=method,
            path=path,
            scope=scope,
            name=_name(method, path),
            description=(endpoint.__doc__ or "").strip(),
            answers=answers,
            query=query,
            headers=headers,
            body=body,
            streams_body=streams_body,
            problems=problems,
            tag=path.split("/")[2].partition(":")[0],
        )
        endpoint.operation = described  # type: ignore[attr-defined]
        return endpoint

    return mark


def operations_of(endpoints: type) -> Iterator[tuple[str, Operation]]:
    """The operations of a class, by the names of its methods."""
    for name, member in vars(endpoints).items():
        if isinstance(found := getattr(member, "operation", None), Operation):
            yield name, found


def routes_of(endpoints: Iterable[object]) -> list[ApiRoute]:
    """The routes of objects' operations: one a path, so that a 405 names all of its methods."""
    by_path: dict[str, dict[str, tuple[ApiScope, ASGIApp]]] = {}
    for each in endpoints:
        for name, described in operations_of(type(each)):
            served = _served(described, getattr(each, name))
            methods = by_path.setdefault(described.path, {})
            methods[described.method] = described.scope, served
    return [ApiRoute(path, methods) for path, methods in by_path.items()]


def _served(described: Operation, endpoint: Callable[[Asked, Send], Awaitable[None]]) -> ASGIApp:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        query = {}
        if scope["query_string"]:
            query = read_query(request.query_params, described.query)
        body: dict[str, Any] = {}
        if described.body is not None and not described.streams_body:
            text = await read_body(scope, receive, limit_bytes=_SMALL_BODY_BYTES)
            body = described.body.read(members_of(text or b"{}"))
        await endpoint(Asked(request, query, body), send)

    return serve


def members_of(body: bytes) -> dict[str, str]:
    """The members of the JSON object that a body is, each as it was written; InvalidInput (400)."""
    try:
        return codec.members(body.decode(), once=True)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the body is not a JSON object: {error}", status=400) from None


def _name(method: str, path: str) -> str:
    parts = [
        part.strip("{}").partition(":")[0] if part.startswith("{") else part
        for part in path.removeprefix("/api/").split("/")
    ]
    return "-".join((method.lower(), *parts)).replace(":", "-")
