"""Batches: thousands of jobs in one request, and how far they have come."""

import asyncio

from starlette.requests import Request
from starlette.types import Send

from hybridjobs import codec
from hybridjobs.ids import new_id
from hybridjobs.ingress import members as checks
from hybridjobs.ingress import metrics, views
from hybridjobs.ingress.api.access import ApiRoute, caller_of
from hybridjobs.ingress.api.requests import (
    SOURCE,
    Backend,
    id_in_path,
    members_of,
    not_found,
)
from hybridjobs.ingress.asgi import JSON, read_body, respond, traceparent, waiting
from hybridjobs.ingress.batch_requests import (
    MAX_BATCH_BYTES,
    BatchRequest,
    BatchRows,
    rows_of_batch,
)
from hybridjobs.ingress.members import read_query
from hybridjobs.model import ApiScope, JobType
from hybridjobs.store.batches import Batch, CreatedBatch, NewBatch, create_batch, get_batch
from hybridjobs.store.enqueue import unknown_jobs

_MAX_WAIT_SECONDS = 60
_LOOK_SECONDS = 0.5


def routes(backend: Backend) -> list[ApiRoute]:
    """The endpoints."""
    endpoints = _Batches(backend)
    return [
        ApiRoute(ApiScope.SUBMIT, "POST", "/api/jobs:batch", endpoints.create),
        ApiRoute(ApiScope.READ, "GET", "/api/batches/{id}", endpoints.get),
    ]


class _Batches:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._clock = asyncio.get_running_loop().time

    async def create(self, request: Request, send: Send) -> None:
        body = await read_body(request.scope, request.receive, limit_bytes=MAX_BATCH_BYTES)
        by = caller_of(request.scope).name
        # A large batch takes a second to read: others are served meanwhile.
        asked = await asyncio.to_thread(self._parse, body)
        rows = await asyncio.to_thread(
            rows_of_batch,
            asked,
            await self._types(asked),
            self._backend.schemas,
            source=SOURCE,
            submitted_by=by,
            traceparent=traceparent(dict(request.scope["headers"])),
        )
        batch = await self._insert(asked, rows, by)
        location = f"/api/batches/{batch.id}"
        answer = {"id": str(batch.id), "total": batch.total, "url": location}
        if batch.created:
            metrics.count_enqueued(batch.jobs, SOURCE)
            self._backend.wake()
        else:
            answer["replayed"] = True
        headers = (JSON, (b"location", location.encode()))
        await respond(send, 202, codec.dumps(answer).encode(), headers=headers)

    async def get(self, request: Request, send: Send) -> None:
        query = read_query(request.query_params, {"wait": checks.digits(0, _MAX_WAIT_SECONDS)})
        until = self._clock() + query.get("wait", 0)
        batch = await self._find(request)
        while not batch.finished and self._clock() < until:
            with waiting(request.scope):
                stops = await self._stops_within(min(_LOOK_SECONDS, until - self._clock()))
            if stops:
                break
            batch = await self._find(request)
        await respond(send, 200, views.batch(batch))

    async def _stops_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._backend.stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _parse(self, body: bytes) -> BatchRequest:
        return BatchRequest.parse(
            members_of(body),
            max_payload_bytes=self._backend.max_payload_bytes,
            targets=self._backend.targets,
        )

    async def _types(self, asked: BatchRequest) -> dict[str, JobType]:
        names = {job.type for job in asked.jobs}
        found = {name: await self._backend.catalog.find(name) for name in names}
        return {name: job_type for name, job_type in found.items() if job_type is not None}

    async def _insert(self, asked: BatchRequest, rows: BatchRows, by: str) -> CreatedBatch:
        batch = NewBatch(new_id(), SOURCE, asked.key, submitted_by=by)
        async with self._backend.database.transaction() as connection:
            if rows.strangers:
                rows.refuse_unknown(await unknown_jobs(connection, tuple(rows.strangers)))
            return await create_batch(connection, batch, rows.rows)

    async def _find(self, request: Request) -> Batch:
        async with self._backend.database.connection() as connection:
            batch = await get_batch(connection, id_in_path(request, "batch"))
        if batch is None:
            raise not_found("batch", request)
        return batch
