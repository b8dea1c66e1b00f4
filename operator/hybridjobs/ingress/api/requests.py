"""What the endpoints share: what they work with, and how they read a request."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from starlette.requests import Request

from hybridjobs import codec
from hybridjobs.callbacks.targets import Targets
from hybridjobs.errors import InvalidInput
from hybridjobs.ingress import members as checks
from hybridjobs.ingress.asgi import read_body
from hybridjobs.ingress.intake import Intake
from hybridjobs.ingress.members import Check, Fault, identifier, read_members
from hybridjobs.ingress.problems import Refused
from hybridjobs.payload_schemas import PayloadSchemas
from hybridjobs.store.database import Database
from hybridjobs.store.types import TypeCatalog

SOURCE = "api"
MAX_PAGE = 1000

_DEFAULT_PAGE = 50
_SMALL_BODY_BYTES = 64 * 1024

PAGE_CHECKS: dict[str, Check] = {
    "before": identifier,
    "limit": checks.digits(1, MAX_PAGE),
}


@dataclass(frozen=True, slots=True)
class Backend:
    """What the endpoints work with.

    `wake` tells the dispatcher of jobs that may start; `stopping` is set when the process ends;
    `targets` are the addresses that callbacks may go to.
    """

    database: Database
    catalog: TypeCatalog
    intake: Intake
    schemas: PayloadSchemas
    wake: Callable[[], None]
    stopping: asyncio.Event
    max_payload_bytes: int
    targets: Targets


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a listing: at most `limit` lines, those after the id `before`."""

    limit: int
    before: UUID | None

    @classmethod
    def taken_from(cls, query: dict[str, Any]) -> "Page":
        """Of a query that was read with PAGE_CHECKS; its members are gone from there."""
        return cls(query.pop("limit", _DEFAULT_PAGE), query.pop("before", None))


async def read_object(request: Request, checks: dict[str, Check], *, shape: str) -> dict[str, Any]:
    """The checked members of a small body; no body is an empty object."""
    body = await read_body(request.scope, request.receive, limit_bytes=_SMALL_BODY_BYTES)
    return read_members(members_of(body or b"{}"), checks, shape=shape)


def members_of(body: bytes) -> dict[str, str]:
    """The members of the JSON object that a body is, each as it was written; InvalidInput (400)."""
    try:
        return codec.members(body.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the body is not a JSON object: {error}", status=400) from None


def id_in_path(request: Request, what: str) -> UUID:
    """The id in the request's path; what is no UUID names nothing."""
    try:
        return identifier(request.path_params["id"])
    except Fault:
        raise not_found(what, request) from None


def not_found(what: str, request: Request) -> Refused:
    """There is no such thing; `what` is its kind."""
    return Refused(404, "Not Found", f"there is no {what} {request.path_params['id'][:80]}")
