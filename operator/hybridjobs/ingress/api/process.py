"""The manual trigger of the system that this one replaces: `POST /api/process-job`.

There it ran the job in its own process, whatever the job's state. Here the dispatcher starts it,
and every job runs once.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from starlette.types import Send

from hybridjobs import codec
from hybridjobs.errors import Unavailable
from hybridjobs.ingress import members as checks
from hybridjobs.ingress.api.answers import ID, STATUS, TEXT
from hybridjobs.ingress.api.headers import PREFER_HEADER, PREFERENCE_APPLIED, Preference
from hybridjobs.ingress.api.operations import Answer, Asked, operation
from hybridjobs.ingress.api.requests import Backend
from hybridjobs.ingress.api.schemas import exactly
from hybridjobs.ingress.asgi import JSON, respond, waiting
from hybridjobs.ingress.members import Shape
from hybridjobs.ingress.problems import Refused
from hybridjobs.model import ApiScope, Status
from hybridjobs.store.jobs import Job, get_job
from hybridjobs.store.queue import make_due, next_in_line

IMMEDIATE_SECONDS = 30.0

_TRIGGER = Shape("a trigger", {"jobId": checks.identifier, "immediate": checks.truth})
_STARTED = exactly(
    {"jobId": ID, "type": TEXT, "status": STATUS, "url": TEXT},
    optional={"success": bool, "result": {}, "error": TEXT, "durationMs": {"type": "integer"}},
)
_NONE = exactly({"jobId": {"type": "null"}, "message": TEXT})
_LINKS = ("get-jobs-id",)


@dataclass(frozen=True, slots=True)
class _Started:
    job: Job

    def json(self) -> bytes:
        job = self.job
        members = {
            "jobId": codec.dumps(str(job.id)),
            "type": codec.dumps(job.type),
            "status": codec.dumps(job.status.value),
            "url": codec.dumps(f"/api/jobs/{job.id}"),
        }
        if job.status.is_terminal:
            members["success"] = codec.dumps(job.status is Status.COMPLETED)
            if job.result is not None:
                members["result"] = job.result
            if job.error is not None:
                members["error"] = codec.dumps(job.error)
            if job.duration_ms is not None:
                members["durationMs"] = str(job.duration_ms)
        return ("{" + ",".join(f'"{name}":{text}' for name, text in members.items()) + "}").encode()


class Process:
    """The operation."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._clock = asyncio.get_running_loop().time

    @operation(
        "POST",
        "/api/process-job",
        scope=ApiScope.OPERATE,
        body=_TRIGGER,
        headers=PREFER_HEADER,
        answers={
            200: Answer(
                "The job is over; or there is none in line.",
                {"anyOf": [_STARTED, _NONE]},
                headers=PREFERENCE_APPLIED,
                links=_LINKS,
                links_by="jobId",
            ),
            202: Answer(
                "The job is due, and not over yet.",
                _STARTED,
                headers=PREFERENCE_APPLIED,
                links=_LINKS,
                links_by="jobId",
            ),
        },
        problems={404: "There is no such job."},
    )
    async def trigger(self, asked: Asked, send: Send) -> None:
        """Start a job now: the one that is named, else the next in line."""
        arrived = self._clock()
        most = self._backend.max_wait_seconds
        lines = asked.request.headers.getlist("prefer")
        prefer = Preference.read(lines, at_most=most)
        wait = prefer.wait_seconds
        if wait is None:
            wait = min(IMMEDIATE_SECONDS, most) if asked.body.get("immediate") else 0.0
        job_id = await self._chosen(asked.body.get("jobId"))
        headers = (JSON, *prefer.headers)
        if job_id is None:
            answer = b'{"jobId":null,"message":"No jobs in queue"}'
            await respond(send, 200, answer, headers=headers)
            return
        self._backend.wake()
        job = await self._find(job_id)
        if wait and not job.status.is_terminal:
            # It has been started: whoever cannot wait for it now learns that all the same.
            with suppress(Unavailable):
                await self._ended(asked, job_id, until=arrived + wait)
                job = await self._find(job_id)
        status = 200 if job.status.is_terminal else 202
        await respond(send, status, _Started(job).json(), headers=headers)

    async def _chosen(self, job_id: UUID | None) -> UUID | None:
        async with self._backend.database.connection() as connection:
            if job_id is None:
                return await next_in_line(connection)
            await make_due(connection, job_id)
            return job_id

    async def _ended(self, asked: Asked, job_id: UUID, *, until: float) -> None:
        with waiting(asked.request.scope):
            async with self._backend.live.job(job_id) as watch:
                await watch.finishes(until - self._clock())

    async def _find(self, job_id: UUID) -> Job:
        async with self._backend.database.connection() as connection:
            job = await get_job(connection, job_id)
        if job is None:
            raise Refused(404, "Not Found", f"there is no job {job_id}")
        return job
