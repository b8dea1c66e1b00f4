"""The way in that all protocols share: job types and a payload become rows, then an answer.

Rows of quick types carry a lease and run here at once; all others wait for the dispatcher.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from uuid import UUID

import structlog

from hybridjobs import codec
from hybridjobs.errors import DatabaseUnavailable, InvalidInput
from hybridjobs.ingress import metrics
from hybridjobs.ingress.aside import aside
from hybridjobs.ingress.quick import Ended, QuickJobs
from hybridjobs.ingress.submissions import (
    LEASE_MARGIN_SECONDS,
    Submission,
    check_dependencies,
    new_row,
)
from hybridjobs.logs import about
from hybridjobs.model import Enqueued, JobType, NewJob, Status
from hybridjobs.payload import check_payload
from hybridjobs.payload_schemas import PayloadSchemas
from hybridjobs.store.attempts import statuses
from hybridjobs.store.database import Database
from hybridjobs.store.enqueue import Enqueuer
from hybridjobs.store.jobs import Job, get_job, retry_failed_jobs
from hybridjobs.waits import result_within

log = structlog.get_logger(__name__)

Refusals = Sequence[tuple[str, InvalidInput]]

_START_SECONDS = 0.05
_DATABASE_SECONDS = 1.5  # for what is asked of it beside the commit; the sender waits
_RECORDING_SECONDS = 1.0  # past the budget, for the outcome of a job that used it up


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that has its row. `result` (JSON text) and `error` are there once it has ended."""

    id: UUID
    type: str
    status: Status
    created: bool
    result: str | None = None
    error: str | None = None

    def json(self) -> str:
        """The job as an answer shows it."""
        id_ = str(self.id)
        text = (
            f'{{"id":"{id_}","type":"{self.type}","status":"{self.status.value}",'
            f'"url":"/api/jobs/{id_}"'
        )
        if self.result is not None:
            text += f',"result":{self.result}'
        if self.error is not None:
            text += f',"error":{codec.dumps(self.error)}'
        return text + "}"


@dataclass(frozen=True, slots=True)
class Answer:
    """The jobs of one submission; `finished`: none of them has anything left to do.

    `refused` are the types whose schema the payload does not fit, while others took it; `retried`:
    a job that had failed runs once more.
    """

    jobs: Sequence[Accepted]
    finished: bool = False
    refused: Refusals = ()
    retried: bool = False

    @property
    def replayed(self) -> bool:
        """Whether an earlier delivery had made every row, and nothing came of this one."""
        if self.retried:
            return False
        for job in self.jobs:  # noqa: SIM110 - asked of every webhook; a generator costs more
            if job.created:
                return False
        return True


class Intake:
    """Validates, enqueues, runs what is quick, wakes the dispatcher for the rest."""

    def __init__(
        self,
        database: Database,
        enqueuer: Enqueuer,
        schemas: PayloadSchemas,
        quick: QuickJobs,
        *,
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._enqueuer = enqueuer
        self._quick = quick
        self._wake = wake
        self._schemas = schemas
        self._clock = asyncio.get_running_loop().time

    async def accept(self, types: Sequence[JobType], submission: Submission) -> Answer:
        """One row a type, all in one commit; durable when this returns.

        InvalidInput when the payload fits no type's schema, or could not be read by all, or a
        dependency is no job; DatabaseUnavailable when the rows are not known to be durable.
        """
        types, submissions, refused = await aside(
            len(submission.payload), partial(self._fitting, types, submission)
        )
        await check_dependencies(self._database, submission.options.depends_on)
        budgets = [self._budget(job_type, submission) for job_type in types]
        jobs = list(map(new_row, types, submissions, budgets))
        rows = await self._enqueuer.enqueue(jobs)
        metrics.count_enqueued(rows, submission.source)
        retried = False
        if submission.retries_failed and any(row.status is Status.FAILED for row in rows):
            rows, retried = await self._retried(rows)
        if budgets.count(None) == len(budgets):
            self._wake()
            return Answer([_accepted(row) for row in rows], refused=refused, retried=retried)
        for place, budget in enumerate(budgets):
            if budget is not None and rows[place].created:
                job, job_type = jobs[place], types[place]
                if not await self._started(job, job_type, submission.arrived, budget):
                    budgets[place] = None
        if None in budgets:
            # What is quick runs on behind the answer that the long ones give now.
            self._wake()
            return Answer([_accepted(row) for row in rows], refused=refused, retried=retried)
        longest = max(budget for budget in budgets if budget is not None) + _RECORDING_SECONDS
        if submission.wait_seconds is not None:
            longest = min(longest, submission.wait_seconds)
        latest = submission.arrived + longest
        ended = await self._wait(rows, latest)
        finished = all(job.status.is_terminal for job in ended)
        return Answer(ended, finished=finished, refused=refused, retried=retried)

    async def _retried(self, rows: Sequence[Enqueued]) -> tuple[list[Enqueued], bool]:
        """The rows, those that had failed queued anew; whether that was this call's doing."""
        failed = [row.id for row in rows if row.status is Status.FAILED]
        try:
            retried, now = await result_within(self._retry(failed), _DATABASE_SECONDS)
        except TimeoutError:
            raise DatabaseUnavailable("the database does not answer in time") from None
        for job_id in retried:
            with about(job_id):
                log.info("failed job retried")
        self._wake()
        return [replace(row, status=now.get(row.id, row.status)) for row in rows], bool(retried)

    async def _retry(self, failed: Sequence[UUID]) -> tuple[list[UUID], dict[UUID, Status]]:
        async with self._database.transaction() as connection:
            return await retry_failed_jobs(connection, failed), await statuses(connection, failed)

    async def accept_all(
        self, events: Sequence[tuple[Sequence[JobType], Submission]]
    ) -> list[Answer | InvalidInput]:
        """Events that came together, all of their rows in one commit; none of them runs here.

        What `accept` would raise for one alone stands in its place, and holds up no other.
        """
        size = sum(len(submission.payload) for _, submission in events)
        jobs, parts = await aside(size, partial(self._all_fitting, events))
        rows = iter(await self._enqueued(jobs))
        return [
            part
            if isinstance(part, InvalidInput)
            else Answer([_accepted(next(rows)) for _ in range(part[0])], refused=part[1])
            for part in parts
        ]

    async def _enqueued(self, jobs: Sequence[NewJob]) -> Sequence[Enqueued]:
        if not jobs:
            return ()
        rows = await self._enqueuer.enqueue(jobs)
        metrics.count_enqueued(rows, jobs[0].source)
        self._wake()
        return rows

    async def _started(
        self, job: NewJob, job_type: JobType, arrived: float, budget_seconds: float
    ) -> bool:
        """Run the job, whose row is there, unless the limits of its type keep it in line."""
        begun: NewJob | None = job
        if job.lease_seconds is None:
            begun = await self._quick.begin(
                job, lease_seconds=budget_seconds + LEASE_MARGIN_SECONDS
            )
        if begun is None:
            return False
        self._quick.start(begun, job_type, arrived=arrived, budget_seconds=budget_seconds)
        return True

    def _all_fitting(
        self, events: Sequence[tuple[Sequence[JobType], Submission]]
    ) -> tuple[list[NewJob], list[tuple[int, Refusals] | InvalidInput]]:
        """The rows of the events, and of each event how many it has, or what is wrong with it."""
        jobs: list[NewJob] = []
        parts: list[tuple[int, Refusals] | InvalidInput] = []
        for types, submission in events:
            try:
                taking, submissions, refused = self._fitting(types, submission)
            except InvalidInput as error:
                parts.append(error)
            else:
                jobs += map(new_row, taking, submissions, repeat(None))
                parts.append((len(taking), refused))
        return jobs, parts

    def _fitting(
        self, types: Sequence[JobType], submission: Submission
    ) -> tuple[Sequence[JobType], Sequence[Submission], Refusals]:
        """The types that take the submission, each with what it gets of it, and the others."""
        check_payload(submission.payload)
        taking: list[JobType] = []
        submissions: list[Submission] = []
        refused: list[tuple[str, InvalidInput]] = []
        for job_type in types:
            try:
                own = submission.for_type(job_type)
                self._schemas.check(job_type, own.payload)
            except InvalidInput as error:
                refused.append((job_type.spec.type, error))
            else:
                taking.append(job_type)
                submissions.append(own)
        if refused:
            if not taking:
                raise refused[0][1]
            names = sorted(name for name, _ in refused)
            log.warning("payload does not fit the schema", types=names)
        return taking, submissions, refused

    def _budget(self, job_type: JobType, submission: Submission) -> float | None:
        """Seconds that the type may take here, from the arrival; None: it runs as a pod."""
        if submission.budget_seconds is None or submission.options.waits:
            return None
        if not self._quick.takes(job_type):
            return None
        return min(submission.budget_seconds, job_type.spec.budget_seconds)

    async def _wait(self, rows: Sequence[Enqueued], latest: float) -> list[Accepted]:
        """The quick jobs as they are when all are recorded, or at `latest`."""
        tasks = self._runs(rows)
        if any(row.status is Status.PROCESSING and row.id not in tasks for row in rows):
            # Another replica's; or its first delivery, committed just now, is about to start it.
            await asyncio.sleep(_START_SECONDS)
            tasks = self._runs(rows)
        if tasks:
            timeout = max(0.0, latest - self._clock())
            await asyncio.wait(tasks.values(), timeout=timeout)
        return [await self._state(row, tasks.get(row.id)) for row in rows]

    def _runs(self, rows: Sequence[Enqueued]) -> dict[UUID, asyncio.Task[Ended]]:
        return {row.id: task for row in rows if (task := self._quick.running(row.id))}

    async def _state(self, row: Enqueued, task: asyncio.Task[Ended] | None) -> Accepted:
        if task is not None:
            if not task.done():
                return _accepted(row)
            ended = task.result()
            return Accepted(row.id, row.type, ended.status, row.created, ended.result, ended.error)
        if not row.status.is_terminal:
            return _accepted(row)
        try:
            job = await result_within(self._job(row.id), _DATABASE_SECONDS)
        except (DatabaseUnavailable, TimeoutError):
            return _accepted(row)
        if job is None:
            return _accepted(row)
        return Accepted(row.id, row.type, job.status, row.created, job.result, job.error)

    async def _job(self, job_id: UUID) -> Job | None:
        async with self._database.connection() as connection:
            return await get_job(connection, job_id)


def _accepted(row: Enqueued) -> Accepted:
    return Accepted(row.id, row.type, row.status, row.created)
