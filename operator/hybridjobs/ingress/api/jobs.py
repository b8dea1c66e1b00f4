"""Jobs: submit, read, list, cancel, run once more."""

import asyncio

from starlette.requests import Request
from starlette.types import Send

from hybridjobs.ingress import members as checks
from hybridjobs.ingress import views
from hybridjobs.ingress.api.access import ApiRoute, caller_of
from hybridjobs.ingress.api.requests import (
    PAGE_CHECKS,
    SOURCE,
    Backend,
    Page,
    id_in_path,
    members_of,
    not_found,
)
from hybridjobs.ingress.asgi import JSON, read_body, respond, traceparent
from hybridjobs.ingress.members import Check, read_query
from hybridjobs.ingress.problems import Refused
from hybridjobs.ingress.submissions import JobRequest, Submission, known_type
from hybridjobs.model import ApiScope, Status
from hybridjobs.store.jobs import JobFilter, get_job, list_jobs, retry_job
from hybridjobs.store.outcome import request_cancel

BUDGET_SECONDS = 8.0

_AROUND_PAYLOAD_BYTES = 512 * 1024  # ten thousand dependencies
_FILTERS: dict[str, Check] = {
    **PAGE_CHECKS,
    "status": checks.some_of(tuple(Status)),
    "type": checks.text,
    "key": checks.text,
    "source": checks.text,
    "batch": checks.identifier,
    "schedule": checks.text,
    "parent": checks.identifier,
    "since": checks.moment,
    "until": checks.moment,
}


def routes(backend: Backend) -> list[ApiRoute]:
    """The endpoints."""
    endpoints = _Jobs(backend)
    return [
        ApiRoute(ApiScope.SUBMIT, "POST", "/api/jobs", endpoints.create),
        ApiRoute(ApiScope.READ, "GET", "/api/jobs", endpoints.list),
        ApiRoute(ApiScope.READ, "GET", "/api/jobs/{id}", endpoints.get),
        ApiRoute(ApiScope.OPERATE, "POST", "/api/jobs/{id}/cancel", endpoints.cancel),
        ApiRoute(ApiScope.OPERATE, "POST", "/api/jobs/{id}/retry", endpoints.retry),
    ]


class _Jobs:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._clock = asyncio.get_running_loop().time

    async def create(self, request: Request, send: Send) -> None:
        arrived = self._clock()
        max_payload_bytes = self._backend.max_payload_bytes
        limit = max_payload_bytes + _AROUND_PAYLOAD_BYTES
        body = await read_body(request.scope, request.receive, limit_bytes=limit)
        asked = JobRequest.parse(
            members_of(body), max_payload_bytes=max_payload_bytes, targets=self._backend.targets
        )
        answer = await self._backend.intake.accept(
            [await known_type(self._backend.catalog, asked.type)],
            Submission(
                payload=asked.payload,
                source=SOURCE,
                key=asked.key,
                submitted_by=caller_of(request.scope).name,
                arrived=arrived,
                budget_seconds=BUDGET_SECONDS,
                traceparent=traceparent(dict(request.scope["headers"])),
                options=asked.resolved(),
            ),
        )
        [job] = answer.jobs
        status = 200 if job.status.is_terminal else 202
        location = (b"location", f"/api/jobs/{job.id}".encode())
        await respond(send, status, job.json().encode(), headers=(JSON, location))

    async def get(self, request: Request, send: Send) -> None:
        query = read_query(request.query_params, {"logs": checks.one_of(("true", "false"))})
        async with self._backend.database.connection() as connection:
            job = await get_job(connection, id_in_path(request, "job"))
        if job is None:
            raise not_found("job", request)
        await respond(send, 200, views.job(job, logs=query.get("logs") == "true"))

    async def list(self, request: Request, send: Send) -> None:
        query = read_query(request.query_params, _FILTERS)
        page = Page.taken_from(query)
        which = JobFilter(
            statuses=tuple(Status(status) for status in query.get("status", ())),
            type=query.get("type"),
            key=query.get("key"),
            source=query.get("source"),
            batch_id=query.get("batch"),
            schedule=query.get("schedule"),
            parent_id=query.get("parent"),
            since=query.get("since"),
            until=query.get("until"),
            before=page.before,
        )
        async with self._backend.database.connection() as connection:
            jobs = await list_jobs(connection, which, limit=page.limit)
        await respond(send, 200, views.listing("jobs", jobs, limit=page.limit))

    async def cancel(self, request: Request, send: Send) -> None:
        job_id = id_in_path(request, "job")
        async with self._backend.database.connection() as connection:
            status = await request_cancel(connection, job_id)
            job = None if status else await get_job(connection, job_id)
        if status is not None:
            await respond(send, 202, f'{{"id":"{job_id}","status":"{status.value}"}}'.encode())
        elif job is None:
            raise not_found("job", request)
        else:
            raise Refused(409, "Already finished", f"the job is {job.status.value}")

    async def retry(self, request: Request, send: Send) -> None:
        job_id = id_in_path(request, "job")
        async with self._backend.database.connection() as connection:
            retried = await retry_job(connection, job_id)
            job = None if retried else await get_job(connection, job_id)
        if retried:
            self._backend.wake()
            await respond(send, 202, f'{{"id":"{job_id}","status":"queued"}}'.encode())
        elif job is None:
            raise not_found("job", request)
        elif job.status in (Status.FAILED, Status.CANCELLED):
            reason = "its last attempt has not ended yet, or another job has its unique key"
            raise Refused(409, "Not retryable", f"the job cannot run again now: {reason}")
        else:
            raise Refused(409, "Not retryable", f"the job is {job.status.value}")
