"""The API (:8081): submit, read, list and cancel jobs. Closed until it has a token."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from uuid import UUID

from pydantic import SecretStr
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from hybridjobs import codec
from hybridjobs.errors import FieldError, InvalidInput
from hybridjobs.ingress import views
from hybridjobs.ingress.asgi import JSON, Application, read_body, respond, traceparent
from hybridjobs.ingress.intake import Intake
from hybridjobs.ingress.problems import Refused
from hybridjobs.ingress.submissions import JobRequest, Submission, known_type
from hybridjobs.model import Status
from hybridjobs.settings import IngressSettings
from hybridjobs.store.database import Database
from hybridjobs.store.jobs import get_job, list_jobs
from hybridjobs.store.outcome import request_cancel
from hybridjobs.store.types import TypeCatalog

SOURCE = "api"
BUDGET_SECONDS = 8.0

_AROUND_PAYLOAD_BYTES = 64 * 1024
_MAX_LIMIT = 1000


class BearerToken:
    """Lets requests with the configured token through, and no other."""

    def __init__(self, app: ASGIApp, token: SecretStr | None) -> None:
        self._app = app
        self._expected = token and b"Bearer " + token.get_secret_value().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, or raise Refused."""
        if not self._expected:
            raise Refused(503, "Not configured", "the API is closed: set HYBRIDJOBS_API_TOKEN")
        given = dict(scope["headers"]).get(b"authorization", b"")
        if not hmac.compare_digest(given, self._expected):
            raise Refused(
                401,
                "Unauthorized",
                "send the API's token: Authorization: Bearer …",
                headers={"WWW-Authenticate": 'Bearer realm="hybridjobs"'},
            )
        await self._app(scope, receive, send)


class Api:
    """The endpoints."""

    def __init__(
        self, settings: IngressSettings, database: Database, catalog: TypeCatalog, intake: Intake
    ) -> None:
        self._max_payload_bytes = settings.max_payload_bytes
        self._database = database
        self._catalog = catalog
        self._intake = intake
        self._clock = asyncio.get_running_loop().time

    def routes(self) -> ASGIApp:
        """The application; it raises what has no route."""
        return Router(
            [
                Route("/api/jobs", _endpoint(self._create), methods=["POST"]),
                Route("/api/jobs", _endpoint(self._list), methods=["GET"]),
                Route("/api/jobs/{id}", _endpoint(self._get), methods=["GET"]),
                Route("/api/jobs/{id}/cancel", _endpoint(self._cancel), methods=["POST"]),
                Route("/api/types", _endpoint(self._types), methods=["GET"]),
            ],
            redirect_slashes=False,
        )

    async def _create(self, request: Request, send: Send) -> None:
        arrived = self._clock()
        limit = self._max_payload_bytes + _AROUND_PAYLOAD_BYTES
        body = await read_body(request.scope, request.receive, limit_bytes=limit)
        asked = JobRequest.parse(_members(body), max_payload_bytes=self._max_payload_bytes)
        answer = await self._intake.accept(
            [await known_type(self._catalog, asked.type)],
            Submission(
                payload=asked.payload,
                source=SOURCE,
                key=asked.key,
                submitted_by=SOURCE,
                arrived=arrived,
                budget_seconds=BUDGET_SECONDS,
                traceparent=traceparent(dict(request.scope["headers"])),
                priority=asked.priority,
                deadline_seconds=asked.deadline_seconds,
            ),
        )
        [job] = answer.jobs
        status = 200 if job.status.is_terminal else 202
        location = (b"location", f"/api/jobs/{job.id}".encode())
        await respond(send, status, job.json().encode(), headers=(JSON, location))

    async def _get(self, request: Request, send: Send) -> None:
        async with self._database.connection() as connection:
            job = await get_job(connection, _job_id(request))
        if job is None:
            raise _no_such_job(request)
        logs = request.query_params.get("logs") == "true"
        await respond(send, 200, views.job(job, logs=logs))

    async def _list(self, request: Request, send: Send) -> None:
        status, limit = _filters(request.query_params)
        async with self._database.connection() as connection:
            jobs = await list_jobs(
                connection, status=status, type_=request.query_params.get("type"), limit=limit
            )
        await respond(send, 200, views.listing(jobs))

    async def _cancel(self, request: Request, send: Send) -> None:
        job_id = _job_id(request)
        async with self._database.connection() as connection:
            status = await request_cancel(connection, job_id)
            job = None if status else await get_job(connection, job_id)
        if status is not None:
            await respond(send, 202, f'{{"id":"{job_id}","status":"{status.value}"}}'.encode())
        elif job is None:
            raise _no_such_job(request)
        else:
            raise Refused(409, "Already finished", f"the job is {job.status.value}")

    async def _types(self, _: Request, send: Send) -> None:
        await self._catalog.refresh()
        await respond(send, 200, views.types(self._catalog.all()))


def _endpoint(method: Callable[[Request, Send], Awaitable[None]]) -> Application:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await method(Request(scope, receive), send)

    return Application(serve)


def _members(body: bytes) -> dict[str, str]:
    try:
        return codec.members(body.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the body is not a JSON object: {error}", status=400) from None


def _job_id(request: Request) -> UUID:
    try:
        return UUID(request.path_params["id"])
    except ValueError:
        raise _no_such_job(request) from None


def _no_such_job(request: Request) -> Refused:
    return Refused(404, "Not Found", f"there is no job {request.path_params['id'][:80]}")


def _filters(query: QueryParams) -> tuple[Status | None, int]:
    errors = []
    status, limit = query.get("status"), query.get("limit", "50")
    if status is not None and status not in set(Status):
        errors.append(FieldError("/status", f"must be one of {', '.join(Status)}"))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= _MAX_LIMIT):
        errors.append(FieldError("/limit", f"must be an integer from 1 to {_MAX_LIMIT}"))
    if errors:
        raise InvalidInput("the query is wrong", errors=errors)
    return Status(status) if status is not None else None, int(limit)
