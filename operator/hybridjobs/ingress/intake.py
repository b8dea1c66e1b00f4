"""The way in that all protocols share: types and a payload become rows, then an answer."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from hybridjobs import codec
from hybridjobs.ids import new_id
from hybridjobs.ingress.metrics import Metrics
from hybridjobs.model import Enqueued, JobType, NewJob, Status
from hybridjobs.store.enqueue import Enqueuer


@dataclass(frozen=True, slots=True)
class Submission:
    payload: str
    source: str
    key: str | None
    submitted_by: str | None
    arrived: float
    budget_seconds: float = 8.0
    traceparent: str | None = None
    priority: int | None = None
    deadline_seconds: int | None = None
    parent_id: UUID | None = None


@dataclass(slots=True)
class Answer:
    rows: list[Enqueued]

    @property
    def replayed(self):
        return not any(r.created for r in self.rows)

    status = 202

    def body(self) -> bytes:
        jobs = ",".join(
            f'{{"id":"{row.id}","type":"{row.type}","status":"{row.status}","url":"/api/jobs/{row.id}"}}'
            for row in self.rows
        )
        return f'{{"jobs":[{jobs}]}}'.encode()


class Intake:
    def __init__(self, enqueuer: Enqueuer, metrics: Metrics, wake: Callable[[], None]) -> None:
        self._enqueuer = enqueuer
        self._metrics = metrics
        self._wake = wake

    async def accept(self, types: Sequence[JobType], s: Submission) -> Answer:
        jobs = [
            NewJob(
                id=new_id(),
                type=t.spec.type,
                payload=s.payload,
                source=s.source,
                key=s.key,
                priority=t.spec.priority if s.priority is None else s.priority,
                max_retries=t.spec.retry.limit,
                deadline_seconds=s.deadline_seconds or t.spec.deadline_seconds,
                type_generation=t.generation,
                submitted_by=s.submitted_by,
            )
            for t in types
        ]
        rows = await self._enqueuer.enqueue(jobs)
        self._metrics.enqueued(rows, s.source)
        self._wake()
        return Answer(rows)
