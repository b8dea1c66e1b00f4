"""Batches: thousands of jobs in one request, and how far they have come."""

import asyncio

from starlette.types import Send

from hybridjobs import codec
from hybridjobs.ids import new_id
from hybridjobs.ingress import members as checks
from hybridjobs.ingress import metrics, views
from hybridjobs.ingress.api import answers
from hybridjobs.ingress.api.answers import COUNT, ID, LOCATION, TEXT
from hybridjobs.ingress.api.headers import KEY_HEADER, IdempotencyKey
from hybridjobs.ingress.api.operations import Answer, Asked, members_of, operation
from hybridjobs.ingress.api.requests import SOURCE, Backend, id_in_path, not_found
from hybridjobs.ingress.api.schemas import exactly
from hybridjobs.ingress.asgi import JSON, read_body, respond, traceparent, waiting
from hybridjobs.ingress.batch_requests import (
    BATCH,
    MAX_BATCH_BYTES,
    BatchRequest,
    BatchRows,
    rows_of_batch,
)
from hybridjobs.model import ApiScope, JobType
from hybridjobs.store.batches import Batch, CreatedBatch, NewBatch, create_batch, get_batch
from hybridjobs.store.enqueue import unknown_jobs

_MAX_WAIT_SECONDS = 60
# Larger ones are worked on one at a time: each takes several times its size of memory.
_LARGE_BYTES = 1024 * 1024

_CREATED = exactly({"id": ID, "total": COUNT, "url": TEXT}, optional={"replayed": {"const": True}})


class Batches:
    """The operations."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._turn = asyncio.Lock()

    @operation(
        "POST",
        "/api/jobs:batch",
        scope=ApiScope.SUBMIT,
        body=BATCH,
        streams_body=True,
        headers=KEY_HEADER,
        answers={
            202: Answer(
                "The jobs are durable.", _CREATED, headers=LOCATION, links=("get-batches-id",)
            )
        },
    )
    async def create(self, asked: Asked, send: Send) -> None:
        """Submit up to 10,000 jobs, all or none."""
        request = asked.request
        body = await read_body(request.scope, request.receive, limit_bytes=MAX_BATCH_BYTES)
        keys = request.headers.getlist("idempotency-key")
        if len(body) <= _LARGE_BYTES:
            await self._create(asked, body, keys, send)
            return
        async with self._turn:
            await self._create(asked, body, keys, send)

    async def _create(self, asked: Asked, body: bytes, keys: list[str], send: Send) -> None:
        # A large batch takes a second to read: others are served meanwhile.
        batch, once = await asyncio.to_thread(self._parse, body, keys)
        rows = await asyncio.to_thread(
            rows_of_batch,
            batch,
            await self._types(batch),
            self._backend.schemas,
            source=SOURCE,
            submitted_by=asked.caller,
            traceparent=traceparent(dict(asked.request.scope["headers"])),
        )
        made = await self._insert(batch, rows, once, asked.caller)
        location = f"/api/batches/{made.id}"
        answer = {"id": str(made.id), "total": made.total, "url": location}
        if made.created:
            metrics.count_enqueued(made.jobs, SOURCE)
            self._backend.wake()
        else:
            if once is not None:
                once.check(made.request_digest)
            answer["replayed"] = True
        headers = (JSON, (b"location", location.encode()))
        await respond(send, 202, codec.dumps(answer).encode(), headers=headers)

    @operation(
        "GET",
        "/api/batches/{id}",
        scope=ApiScope.READ,
        query={"wait": checks.digits(0, _MAX_WAIT_SECONDS)},
        answers={200: Answer("The batch and its counts.", answers.BATCH)},
    )
    async def get(self, asked: Asked, send: Send) -> None:
        """How far a batch has come."""
        wait = min(asked.query.get("wait", 0), self._backend.max_wait_seconds)
        batch = await self._find(asked)
        if wait and not batch.finished:
            with waiting(asked.request.scope):
                async with self._backend.live.batch(batch.id) as watch:
                    await watch.finishes(wait)
            batch = await self._find(asked)
        await respond(send, 200, views.batch(batch))

    def _parse(self, body: bytes, keys: list[str]) -> tuple[BatchRequest, IdempotencyKey | None]:
        members = members_of(body)
        batch = BatchRequest.parse(
            members,
            max_payload_bytes=self._backend.max_payload_bytes,
            targets=self._backend.targets,
        )
        return batch, IdempotencyKey.read(keys, members, batch.key)

    async def _types(self, batch: BatchRequest) -> dict[str, JobType]:
        names = {job.type for job in batch.jobs}
        found = {name: await self._backend.catalog.find(name) for name in names}
        return {name: job_type for name, job_type in found.items() if job_type is not None}

    async def _insert(
        self, asked: BatchRequest, rows: BatchRows, once: IdempotencyKey | None, caller: str
    ) -> CreatedBatch:
        batch = NewBatch(
            new_id(),
            SOURCE,
            asked.key if once is None else once.key,
            submitted_by=caller,
            request_digest=None if once is None else once.digest,
        )
        async with self._backend.database.transaction() as connection:
            if rows.strangers:
                rows.refuse_unknown(await unknown_jobs(connection, tuple(rows.strangers)))
            return await create_batch(connection, batch, rows.rows)

    async def _find(self, asked: Asked) -> Batch:
        async with self._backend.database.connection() as connection:
            batch = await get_batch(connection, id_in_path(asked.request, "batch"))
        if batch is None:
            raise not_found("batch", asked.request)
        return batch
