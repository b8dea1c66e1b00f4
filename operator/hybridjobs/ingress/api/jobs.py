"""Jobs: submit, read, list, cancel, run once more, their logs."""

import asyncio
from uuid import UUID

from starlette.types import Send

from hybridjobs.errors import Unavailable
from hybridjobs.ingress import members as checks
from hybridjobs.ingress import views
from hybridjobs.ingress.api import answers
from hybridjobs.ingress.api.answers import ACCEPTED, LINKS, LOCATION, MOVED
from hybridjobs.ingress.api.headers import (
    KEY_HEADER,
    PREFER_HEADER,
    PREFERENCE_APPLIED,
    IdempotencyKey,
    Preference,
)
from hybridjobs.ingress.api.operations import (
    Answer,
    Asked,
    members_of,
    operation,
)
from hybridjobs.ingress.api.requests import (
    MAX_PAGE,
    PAGE_CHECKS,
    SOURCE,
    Backend,
    Page,
    id_in_path,
    not_found,
)
from hybridjobs.ingress.api.schemas import Listing
from hybridjobs.ingress.asgi import JSON, read_body, respond, traceparent, waiting
from hybridjobs.ingress.intake import Accepted
from hybridjobs.ingress.members import Check
from hybridjobs.ingress.problems import Refused
from hybridjobs.ingress.submissions import JOB, JobRequest, Submission, known_type
from hybridjobs.model import ApiScope, Status
from hybridjobs.store.enqueue import digests_of_key
from hybridjobs.store.jobs import Attempt, Job, JobFilter, JobSummary, get_job, list_jobs, retry_job
from hybridjobs.store.outcome import request_cancel
from hybridjobs.store.tree import MAX_DEPTH, MAX_JOBS, get_tree

BUDGET_SECONDS = 8.0

_AROUND_PAYLOAD_BYTES = 512 * 1024  # ten thousand dependencies
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
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


class Jobs:
    """The operations."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._clock = asyncio.get_running_loop().time

    @operation(
        "POST",
        "/api/jobs",
        scope=ApiScope.SUBMIT,
        body=JOB,
        streams_body=True,
        headers={**KEY_HEADER, **PREFER_HEADER},
        answers={
            200: Answer(
                "The job has ended.",
                ACCEPTED,
                headers={**LOCATION, **PREFERENCE_APPLIED},
                links=LINKS,
            ),
            202: Answer(
                "The job is durable, and something is left to do.",
                ACCEPTED,
                headers={**LOCATION, **PREFERENCE_APPLIED},
                links=LINKS,
            ),
        },
    )
    async def create(self, asked: Asked, send: Send) -> None:
        """Submit a job."""
        arrived = self._clock()
        prefer = Preference.read(
            asked.request.headers.getlist("prefer"), at_most=self._backend.max_wait_seconds
        )
        accepted = await self._submitted(asked, arrived, prefer)
        if prefer.wait_seconds and not accepted.status.is_terminal:
            accepted = await self._waited(asked, accepted, arrived + prefer.wait_seconds)
        status = 200 if accepted.status.is_terminal else 202
        location = (b"location", f"/api/jobs/{accepted.id}".encode())
        headers = (JSON, location, *prefer.headers)
        await respond(send, status, accepted.json().encode(), headers=headers)

    async def _submitted(self, asked: Asked, arrived: float, prefer: Preference) -> Accepted:
        request, backend = asked.request, self._backend
        limit = backend.max_payload_bytes + _AROUND_PAYLOAD_BYTES
        members = members_of(await read_body(request.scope, request.receive, limit_bytes=limit))
        job = JobRequest.parse(
            members, max_payload_bytes=backend.max_payload_bytes, targets=backend.targets
        )
        once = IdempotencyKey.read(request.headers.getlist("idempotency-key"), members, job.key)
        job_type = await known_type(backend.catalog, job.type)
        await self._check_reuse(once)
        answer = await backend.intake.accept(
            [job_type],
            Submission(
                payload=job.payload,
                source=SOURCE,
                key=job.key if once is None else once.key,
                submitted_by=asked.caller,
                arrived=arrived,
                budget_seconds=BUDGET_SECONDS,
                traceparent=traceparent(dict(request.scope["headers"])),
                options=job.resolved(),
                wait_seconds=prefer.wait_seconds,
                request_digest=None if once is None else once.digest,
            ),
        )
        [accepted] = answer.jobs
        if not accepted.created:
            # Of two requests at once, the later one finds the other's row only here.
            await self._check_reuse(once)
        return accepted

    @operation(
        "GET",
        "/api/jobs/{id}",
        scope=ApiScope.READ,
        query={"logs": checks.one_of(("true", "false"))},
        answers={200: Answer("The job.", Job, links=LINKS)},
    )
    async def get(self, asked: Asked, send: Send) -> None:
        """A job with its attempts."""
        job = await self._find(asked)
        await respond(send, 200, views.job(job, logs=asked.query.get("logs") == "true"))

    @operation(
        "GET",
        "/api/jobs/{id}/tree",
        scope=ApiScope.READ,
        query={
            "depth": checks.digits(0, MAX_DEPTH),
            "width": checks.digits(1, MAX_JOBS),
            "limit": PAGE_CHECKS["limit"],
            "after": checks.identifier,
        },
        answers={
            200: Answer(
                "The job and a page of its descendants, level by level.", answers.TREE, links=LINKS
            )
        },
    )
    async def tree(self, asked: Asked, send: Send) -> None:
        """A job, the jobs that it submitted, those that they submitted, and so on."""
        query, job_id = asked.query, id_in_path(asked.request, "job")
        limit = query.get("limit", MAX_PAGE)
        async with self._backend.database.connection() as connection:
            found = await get_tree(
                connection,
                job_id,
                depth=query.get("depth", MAX_DEPTH),
                width=query.get("width", MAX_JOBS),
                after=query.get("after"),
                limit=limit,
            )
        if found is None:
            raise not_found("job", asked.request)
        await respond(send, 200, views.tree(job_id, found, limit=limit))

    @operation(
        "GET",
        "/api/jobs",
        scope=ApiScope.READ,
        query=_FILTERS,
        answers={
            200: Answer(
                "A page of jobs, the newest first.",
                Listing("jobs", JobSummary),
                links=LINKS,
                links_by="jobs/0/id",
            )
        },
    )
    async def list(self, asked: Asked, send: Send) -> None:
        """List jobs."""
        query = asked.query
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

    @operation(
        "POST",
        "/api/jobs/{id}/cancel",
        scope=ApiScope.OPERATE,
        answers={202: MOVED},
        problems={409: "The job is over."},
    )
    async def cancel(self, asked: Asked, send: Send) -> None:
        """Cancel a job: a queued one at once; a running one is asked to end."""
        job_id = id_in_path(asked.request, "job")
        async with self._backend.database.connection() as connection:
            status = await request_cancel(connection, job_id)
            job = None if status else await get_job(connection, job_id)
        if status is not None:
            await respond(send, 202, f'{{"id":"{job_id}","status":"{status.value}"}}'.encode())
        elif job is None:
            raise not_found("job", asked.request)
        else:
            raise Refused(409, "Already finished", f"the job is {job.status.value}")

    @operation(
        "POST",
        "/api/jobs/{id}/retry",
        scope=ApiScope.OPERATE,
        answers={202: MOVED},
        problems={409: "The job's state does not allow it."},
    )
    async def retry(self, asked: Asked, send: Send) -> None:
        """Run a failed or cancelled job once more."""
        job_id = id_in_path(asked.request, "job")
        async with self._backend.database.connection() as connection:
            retried = await retry_job(connection, job_id)
            job = None if retried else await get_job(connection, job_id)
        if retried:
            self._backend.wake()
            await respond(send, 202, f'{{"id":"{job_id}","status":"queued"}}'.encode())
        elif job is None:
            raise not_found("job", asked.request)
        elif job.status in (Status.FAILED, Status.CANCELLED):
            reason = "its last attempt has not ended yet, or another job has its unique key"
            raise Refused(409, "Not retryable", f"the job cannot run again now: {reason}")
        else:
            raise Refused(409, "Not retryable", f"the job is {job.status.value}")

    @operation(
        "GET",
        "/api/jobs/{id}/logs",
        scope=ApiScope.READ,
        query={"attempt": checks.digits(1, 1_000_000)},
        answers={
            200: Answer(
                "The last 64 KiB; nothing before the container has started.",
                {"type": "string"},
                media_type="text/plain",
                headers={"HybridJobs-Attempt": {"type": "integer"}},
            )
        },
    )
    async def logs(self, asked: Asked, send: Send) -> None:
        """The log of a job's last attempt, or of the one asked for."""
        job = await self._find(asked)
        number = asked.query.get("attempt")
        attempts = [each for each in job.attempts if number in (None, each.attempt)]
        if number is not None and not attempts:
            raise Refused(404, "Not Found", f"the job has had no attempt {number}")
        if not attempts:
            await respond(send, 200, headers=(_TEXT,))
            return
        attempt = attempts[-1]
        text = await self._log(job, attempt)
        headers = (_TEXT, (b"hybridjobs-attempt", b"%d" % attempt.attempt))
        await respond(send, 200, text.encode("utf-8", "replace"), headers=headers)

    async def _log(self, job: Job, attempt: Attempt) -> str:
        """From the pod until the attempt's tail is stored, which outlives it."""
        read, pod = self._backend.pod_log, attempt.pod_name
        if attempt.log_tail is not None or read is None or pod is None:
            return attempt.log_tail or ""
        text = await read(pod, job.namespace)
        if text is not None:
            return text
        # It has gone in this moment, and its tail may be there now.
        async with self._backend.database.connection() as connection:
            found = await get_job(connection, job.id)
        tails = {each.attempt: each.log_tail for each in found.attempts} if found else {}
        return tails.get(attempt.attempt) or ""

    async def _find(self, asked: Asked) -> Job:
        async with self._backend.database.connection() as connection:
            job = await get_job(connection, id_in_path(asked.request, "job"))
        if job is None:
            raise not_found("job", asked.request)
        return job

    async def _check_reuse(self, once: IdempotencyKey | None) -> None:
        if once is None:
            return
        async with self._backend.database.connection() as connection:
            known = await digests_of_key(connection, SOURCE, once.key)
        for digest in known.values():
            once.check(digest)

    async def _waited(self, asked: Asked, accepted: Accepted, until: float) -> Accepted:
        """The job as it is when it has ended, or at that time."""
        backend = self._backend
        try:
            with waiting(asked.request.scope):
                async with backend.live.job(accepted.id) as watch:
                    await watch.finishes(until - self._clock())
            job = await self._read(accepted.id)
        except Unavailable:
            return accepted
        if job is None:
            return accepted
        return Accepted(job.id, job.type, job.status, accepted.created, job.result, job.error)

    async def _read(self, job_id: UUID) -> Job | None:
        async with self._backend.database.connection() as connection:
            return await get_job(connection, job_id)
