"""Quick jobs: attempt 1 runs here, in a warm child, within a budget counted from the request.

The row comes first, with a lease, and the outcome second; a process killed between them leaves a
lease that expires, and the job goes on as a pod. So does a job over its budget.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from uuid import UUID

import psycopg
import structlog

from hybridjobs import codec
from hybridjobs.errors import AttemptClosed, DatabaseUnavailable, HybridJobsError, InvalidInput
from hybridjobs.ingress import metrics
from hybridjobs.ingress.child import Child, ChildDied
from hybridjobs.ingress.pool import NoFreeChild, Pool
from hybridjobs.ingress.submissions import ChildJobs
from hybridjobs.logs import about
from hybridjobs.model import (
    MAX_LOG_TAIL_BYTES,
    AttemptEnd,
    JobType,
    NewJob,
    Outcome,
    Progress,
    Status,
)
from hybridjobs.store import attempts
from hybridjobs.store.claim import claim_inline
from hybridjobs.store.database import Database
from hybridjobs.store.heartbeats import Heartbeats
from hybridjobs.store.jobs import get_job
from hybridjobs.store.outcome import Outcomes
from hybridjobs.tracing import attempt_context

log = structlog.get_logger(__name__)

_ATTEMPT = 1
# Of its budget, what a job may wait for a child. What begins later is likely to be killed in its
# midst, and its child with it: so a crowd would leave nobody a child.
_WAIT_SHARE = 0.75
_RECORD_AGAIN_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Ended:
    """Where the job stands after its attempt here; not terminal: it goes on as a pod."""

    status: Status
    result: str | None = None
    error: str | None = None


class QuickJobs:
    """Runs quick jobs, serves what their handlers ask for, records how they ended.

    `wake` tells the dispatcher of jobs that go on as pods.
    """

    def __init__(
        self,
        pool: Pool,
        database: Database,
        outcomes: Outcomes,
        heartbeats: Heartbeats,
        children: ChildJobs,
        *,
        max_result_bytes: int,
        wake: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._database = database
        self._outcomes = outcomes
        self._heartbeats = heartbeats
        self._children = children
        self._max_result_bytes = max_result_bytes
        self._wake = wake
        self._running: dict[UUID, asyncio.Task[Ended]] = {}
        self._clock = asyncio.get_running_loop().time

    def takes(self, job_type: JobType) -> bool:
        """Whether jobs of the type run here."""
        return job_type.spec.mode == "quick" and not job_type.paused and self._pool.size > 0

    async def begin(self, job: NewJob, *, lease_seconds: float) -> NewJob | None:
        """The job with its lease, if the limits of its type have room for it at this moment.

        None: it stays in line, and runs as a pod.
        """
        try:
            async with self._database.transaction() as connection:
                begun = await claim_inline(connection, job.id, lease_seconds=lease_seconds)
        except DatabaseUnavailable as error:
            with about(job.id):
                log.warning("quick job left in line", error=error.detail)
            return None
        return job._replace(lease_seconds=lease_seconds) if begun else None

    def start(
        self, job: NewJob, job_type: JobType, *, arrived: float, budget_seconds: float
    ) -> None:
        """Run the job, whose row and lease are committed; `running` finds it from now on."""
        run = self._run(job, handler_of(job_type), arrived, arrived + budget_seconds)
        task = asyncio.create_task(run, name=f"quick {job.id}")
        self._running[job.id] = task
        task.add_done_callback(lambda _: self._running.pop(job.id))

    def running(self, job_id: UUID) -> asyncio.Task[Ended] | None:
        """The job's run in this process, if it has one; it never raises."""
        return self._running.get(job_id)

    async def drain(self) -> None:
        """Until every run has ended, which its budget bounds."""
        while self._running:
            await asyncio.wait(self._running.values())

    async def _run(self, job: NewJob, handler: str, arrived: float, until: float) -> Ended:
        with about(job.id, _ATTEMPT):
            try:
                end = await self._attempt(job, handler, until)
                metrics.observe_inline_run(job.type, end.outcome, self._clock() - arrived)
                return await self._recorded(job, end)
            except Exception as error:
                # The lease expires, and the job goes on.
                log.error("quick job left to its lease", error=type(error).__name__)
                return Ended(Status.PROCESSING)

    async def _attempt(self, job: NewJob, handler: str, until: float) -> AttemptEnd:
        left = until - self._clock()
        try:
            child = await self._pool.acquire(handler, until=until - left * (1 - _WAIT_SHARE))
        except NoFreeChild:
            # A type that may not run twice has not run once yet.
            outcome = Outcome.OVER_BUDGET if job.max_retries else Outcome.DISRUPTED
            return AttemptEnd(outcome, "NoFreeChild", "no child process was free in time")
        try:
            async with asyncio.timeout_at(until):
                return await self._converse(child, job, handler, until)
        except TimeoutError:
            child.kill()
            return AttemptEnd(Outcome.OVER_BUDGET, "OverBudget", "took longer than its budget")
        except ChildDied as error:
            child.kill()
            return AttemptEnd(Outcome.LOST, "ChildDied", f"the child process {error}")
        except BaseException:
            child.kill()
            raise
        finally:
            self._pool.release(child)

    async def _converse(self, child: Child, job: NewJob, handler: str, until: float) -> AttemptEnd:
        request = {
            "jobId": codec.dumps(str(job.id)),
            "type": codec.dumps(job.type),
            "handler": codec.dumps(handler),
            "attempt": str(_ATTEMPT),
            "deadlineSeconds": f"{max(0.1, until - self._clock()):.3f}",
            "payload": job.payload,
            "checkpoint": "null",
            "traceparent": codec.dumps(_context(job)),
        }
        await child.send(_object(request))
        while True:
            frame = await child.receive()
            if "result" in frame or "error" in frame:
                if "last" in frame:
                    child.kill()
                return self._end(frame)
            if "submit" in frame:
                await child.send(await self._submitted(job, frame["submit"]))
            else:
                await self._keep(job, frame)

    async def _keep(self, job: NewJob, frame: dict[str, str]) -> None:
        """Store progress or a checkpoint; a database that is away costs only that."""
        try:
            if (text := frame.get("progress")) is not None:
                progress = Progress(**codec.loads(text))
                await self._heartbeats.beat(job.id, _ATTEMPT, progress)
            elif (text := frame.get("checkpoint")) is not None:
                async with self._database.connection() as connection:
                    await attempts.save_checkpoint(connection, job.id, _ATTEMPT, text)
        except (DatabaseUnavailable, InvalidInput, psycopg.DataError, TypeError) as error:
            log.warning("not kept", error=type(error).__name__)

    async def _submitted(self, job: NewJob, text: str) -> str:
        asked = codec.members(text)
        answer = {"id": asked.pop("id")}
        try:
            child_id = await self._children.submit(job.id, asked, traceparent=_context(job))
            answer["jobId"] = codec.dumps(str(child_id))
        except HybridJobsError as error:
            answer["error"] = codec.dumps(str(error))
        return _object({"submitted": _object(answer)})

    def _end(self, frame: dict[str, str]) -> AttemptEnd:
        log_tail = _clean(codec.loads(frame.get("log", '""')))[-MAX_LOG_TAIL_BYTES:]
        if (result := frame.get("result")) is not None:
            size = len(result.encode())
            if size <= self._max_result_bytes:
                end = AttemptEnd(Outcome.SUCCEEDED, "Completed", result=result)
            else:
                message = f"the result is {size} bytes, the limit {self._max_result_bytes}"
                end = AttemptEnd(Outcome.PERMANENT, "ResultTooLarge", message)
            return replace(end, log_tail=log_tail)
        message = _clean(codec.loads(frame["error"]))
        retry_after = codec.loads(frame.get("retryAfter", "null"))
        if codec.loads(frame.get("permanent", "false")):
            end = AttemptEnd(Outcome.PERMANENT, "PermanentError", message)
        elif retry_after is not None:
            end = AttemptEnd(
                Outcome.RETRY_LATER, "RetryLater", message, retry_after_seconds=float(retry_after)
            )
        else:
            end = AttemptEnd(Outcome.FAILED, "Error", message)
        return replace(end, log_tail=log_tail)

    async def _recorded(self, job: NewJob, end: AttemptEnd) -> Ended:
        assert job.lease_seconds is not None
        give_up = self._clock() + job.lease_seconds
        while True:
            try:
                return await self._record(job, end)
            except DatabaseUnavailable:
                if self._clock() > give_up:
                    raise
                await asyncio.sleep(_RECORD_AGAIN_SECONDS)
            except InvalidInput as error:
                if end.result is None:
                    raise
                end = replace(
                    end,
                    outcome=Outcome.PERMANENT,
                    reason="InvalidResult",
                    message=error.detail,
                    result=None,
                )

    async def _record(self, job: NewJob, end: AttemptEnd) -> Ended:
        recorded = await self._outcomes.record(job.id, _ATTEMPT, end)
        if recorded is None or not recorded.changed:
            return await self._as_others_left_it(job)
        if recorded.status is Status.QUEUED:
            self._wake()
            return Ended(Status.QUEUED)
        return Ended(recorded.status, result=end.result, error=end.message)

    async def _as_others_left_it(self, job: NewJob) -> Ended:
        async with self._database.connection() as connection:
            found = await get_job(connection, job.id)
        if found is None:
            raise AttemptClosed(job.id, _ATTEMPT)
        return Ended(found.status, found.result, found.error)


def _context(job: NewJob) -> str | None:
    return attempt_context(job.traceparent, job.id, _ATTEMPT)


def handler_of(job_type: JobType) -> str:
    """The handler's name: the type's own unless it says another."""
    return job_type.spec.handler or job_type.spec.type


def _object(members: dict[str, str]) -> str:
    return "{" + ",".join(f'"{name}":{text}' for name, text in members.items()) + "}"


def _clean(text: object) -> str:
    # What a handler wrote may hold NUL and lone surrogates, which Postgres' text cannot.
    cleaned = str(text).encode("utf-8", "replace").decode()
    return cleaned.replace("\0", "\N{REPLACEMENT CHARACTER}")
