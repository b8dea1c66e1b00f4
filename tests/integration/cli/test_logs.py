"""`hybridjobs logs`: once, of an attempt, and until the job is over."""

import asyncio

from hybridjobs.model import AttemptEnd, Outcome
from hybridjobs.store.outcome import record_outcome
from tests.integration.cli.conftest import Command
from tests.integration.ingress.conftest import Running
from tests.integration.ingress.outcomes import claimed


async def _ended(api: Running, outcome: Outcome, log_tail: str) -> None:
    async with api.database.connection() as connection:
        await connection.execute(
            "UPDATE hybridjobs.background_jobs SET run_at = now(), stage = 'ready'"
            " WHERE status = 'queued'"
        )
    [job_id] = await claimed(api)
    attempt = (await api.job(job_id)).attempt
    async with api.database.transaction() as connection:
        end = AttemptEnd(outcome, "Reason", log_tail=log_tail)
        await record_outcome(connection, job_id, attempt, end)


async def test_the_log_of_an_attempt(command: Command, api: Running) -> None:
    job_id = (await api.submit("test/long")).json()["id"]
    assert (await command("logs", job_id)).out == ""
    await _ended(api, Outcome.FAILED, "first \x1b[2Jline\n")
    await _ended(api, Outcome.SUCCEEDED, "second\n")
    assert (await command("logs", job_id)).out == "second\n"
    assert (await command("logs", job_id, "--attempt", "1")).out == "first �[2Jline\n"
    assert (await command("logs", job_id, "--attempt", "3")).code == 3
    assert (await command("logs", job_id, "--attempt", "1", "--follow")).code == 2
    assert (await command("logs", "none")).code == 3


async def test_the_log_is_followed_until_the_job_is_over(command: Command, api: Running) -> None:
    job_id = (await api.submit("test/long")).json()["id"]
    following = asyncio.create_task(command("logs", job_id, "--follow"))
    await _ended(api, Outcome.FAILED, "first\n")
    # The command shows the first one before the second one is there.
    await asyncio.sleep(4)
    assert not following.done()
    await _ended(api, Outcome.SUCCEEDED, "second\n")
    done = await following
    assert (done.code, done.out, done.err) == (0, "first\nsecond\n", "attempt 2\n")
