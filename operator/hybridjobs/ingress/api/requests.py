"""What the endpoints share: what they work with, and how they read a request."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from starlette.requests import Request

from hybridjobs.callbacks.targets import Targets
from hybridjobs.ingress import members as checks
from hybridjobs.ingress.intake import Intake
from hybridjobs.ingress.live import Live
from hybridjobs.ingress.members import Check, Fault, identifier
from hybridjobs.ingress.problems import Refused
from hybridjobs.payload_schemas import PayloadSchemas
from hybridjobs.store.database import Database
from hybridjobs.store.types import TypeCatalog

SOURCE = "api"
MAX_PAGE = 1000

_DEFAULT_PAGE = 50

PAGE_CHECKS: dict[str, Check] = {
    "before": identifier,
    "limit": checks.digits(1, MAX_PAGE),
}

# (pod, its namespace or None for that of the jobs) → the log's tail, None where there is none.
PodLog = Callable[[str, str | None], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class Backend:
    """What the endpoints work with.

    `wake` tells the dispatcher of jobs that may start; `stopping` is set when the process ends;
    `targets` are the addresses that callbacks may go to; `pod_log` is None where there is no
    cluster.
    """

    database: Database
    catalog: TypeCatalog
    intake: Intake
    schemas: PayloadSchemas
    wake: Callable[[], None]
    stopping: asyncio.Event
    max_payload_bytes: int
    max_wait_seconds: float
    targets: Targets
    live: Live
    pod_log: PodLog | None


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a listing: at most `limit` lines, those after the id `before`."""

    limit: int
    before: UUID | None

    @classmethod
    def taken_from(cls, query: dict[str, Any]) -> "Page":
        """Of a query that was read with PAGE_CHECKS; its members are gone from there."""
        return cls(query.pop("limit", _DEFAULT_PAGE), query.pop("before", None))


def id_in_path(request: Request, what: str) -> UUID:
    """The id in the request's path; what is no UUID names nothing."""
    try:
        found: UUID = identifier(request.path_params["id"])
    except Fault:
        raise not_found(what, request) from None
    return found


def not_found(what: str, request: Request) -> Refused:
    """There is no such thing; `what` is its kind."""
    return Refused(404, "Not Found", f"there is no {what} {request.path_params['id'][:80]}")
