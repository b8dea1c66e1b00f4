"""What Inngest's functions have done here: their jobs submitted, looked at and cancelled.

All of it runs in the ingress' own loop, and knows nothing of the SDK.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import structlog

from hybridjobs import codec
from hybridjobs.errors import InvalidInput
from hybridjobs.ingress.intake import Intake
from hybridjobs.ingress.sources.delivery import event_of
from hybridjobs.ingress.submissions import known_type
from hybridjobs.logs import about
from hybridjobs.model import Status
from hybridjobs.store.database import Database
from hybridjobs.store.inngest import SOURCE, RunJob, cancel_jobs_of_run, job_of_run, tell_again
from hybridjobs.store.types import TypeCatalog

log = structlog.get_logger(__name__)

FINISHED = "hybridjobs/job.finished"  # the event of a job's end
GONE = "gone"  # the status of a job whose row retention has deleted
_MIN_WAIT_SECONDS = 600
_WAIT_MARGIN_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a function: the run, its event, and what is to be a job's payload."""

    run_id: str
    type: str
    event_id: str | None
    data: Any
    traceparent: str | None = None


class Runs:
    """The jobs of Inngest's runs; a run has one of each type that it calls for."""

    def __init__(self, catalog: TypeCatalog, intake: Intake, database: Database) -> None:
        self._catalog = catalog
        self._intake = intake
        self._database = database
        self._clock = asyncio.get_running_loop().time

    async def submit(self, call: Call) -> dict[str, Any]:
        """The run's job as JSON; called again, as it is by then. A quick one has its time to end.

        InvalidInput when it can never be a job; Unavailable when it may be another time.
        """
        job_type = await known_type(self._catalog, call.type)
        submission = event_of(
            SOURCE,
            key=call.run_id,
            payload=_payload(call.data),
            trace=call.traceparent,
            arrived=self._clock(),
            inngest_event_id=call.event_id,
            inngest_run_id=call.run_id,
        )
        await self._intake.accept([job_type], submission)
        return await self.look(call)

    async def look(self, call: Call) -> dict[str, Any]:
        """The run's job as JSON; its status is GONE where it has been deleted."""
        async with self._database.connection() as connection:
            job = await job_of_run(connection, call.run_id, call.type)
        return {"status": GONE} if job is None else _state(job)

    async def announce(self, call: Call) -> dict[str, Any]:
        """As `look`; the end of a job that has ended is told once more."""
        async with self._database.connection() as connection:
            await tell_again(connection, call.run_id, call.type)
        return await self.look(call)

    async def cancel(self, run_id: str) -> dict[str, str | None]:
        """Ask the run's jobs to end: their statuses by id, null for one that was over."""
        async with self._database.transaction() as connection:
            asked = await cancel_jobs_of_run(connection, run_id)
        for job_id, status in asked.items():
            with about(job_id):
                log.info("cancelled with its run", run_id=run_id, status=status)
        return {str(job_id): status and status.value for job_id, status in asked.items()}

    async def wait_seconds(self, type_: str) -> int:
        """How long a run should wait before it looks at its job, an attempt of which takes less."""
        job_type = await self._catalog.find(type_)
        if job_type is None:
            return _MIN_WAIT_SECONDS
        spec = job_type.spec
        attempt = spec.start_deadline_seconds + spec.deadline_seconds + spec.grace_period_seconds
        return max(_MIN_WAIT_SECONDS, attempt + _WAIT_MARGIN_SECONDS)


def _payload(data: Any) -> str:  # noqa: ANN401 - JSON is any
    try:
        return codec.dumps(data)
    except ValueError as error:
        raise InvalidInput(f"the event's data is not JSON: {error}") from None


def _state(job: RunJob) -> dict[str, Any]:
    state: dict[str, Any] = {"job_id": str(job.id), "status": job.status.value}
    if job.status is Status.COMPLETED:
        state["result"] = None if job.result is None else codec.loads(job.result)
    elif job.status.is_terminal:
        state |= {"error": job.error, "reason": job.reason}
    return state
