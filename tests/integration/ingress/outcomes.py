"""What a dispatcher and a pod would do: take the next job, and end it."""

from uuid import UUID

from hybridjobs.model import AttemptEnd, Outcome
from hybridjobs.store.claim import claim
from hybridjobs.store.outcome import record_outcome
from tests.integration.ingress.conftest import Running

SUCCEEDED = AttemptEnd(Outcome.SUCCEEDED, "Completed")
FAILED = AttemptEnd(Outcome.PERMANENT, "PermanentError", "no such customer")


async def claimed(ingress: Running) -> list[UUID]:
    """The jobs that a dispatcher would start now."""
    async with ingress.database.transaction() as connection:
        return [each.job_id for each in await claim(connection, window=100)]


async def end_all(ingress: Running, end: AttemptEnd = SUCCEEDED) -> list[UUID]:
    """Claims what may start, and ends it."""
    jobs = await claimed(ingress)
    for job_id in jobs:
        attempt = (await ingress.job(job_id)).attempt
        async with ingress.database.transaction() as connection:
            await record_outcome(connection, job_id, attempt, end)
    return jobs


async def failed_job(ingress: Running, type_: str = "test/long") -> str:
    """A job that has failed for good."""
    job_id: str = (await ingress.submit(type_)).json()["id"]
    await end_all(ingress, FAILED)
    assert (await ingress.job(job_id)).status == "failed"
    return job_id
