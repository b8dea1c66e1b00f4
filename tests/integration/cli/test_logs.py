"""`hybridjobs logs`: once, of an attempt, and until the job is over."""

import asyncio
import sys

from hybridjobs.model import AttemptEnd, Outcome
from hybridjobs.store.outcome import record_outcome
from tests.integration.cli.conftest import PROGRAM, Command
from tests.integration.ingress.conftest import TOKEN, Running
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


async def test_the_log_is_followed_until_the_job_is_over(api: Running) -> None:
    job_id = (await api.submit("test/long")).json()["id"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, "logs", job_id, "--follow", "--token", TOKEN),
        *("--url", f"http://127.0.0.1:{api.ports.api}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await _ended(api, Outcome.FAILED, "first\n")
    # The command shows the first one before the second one is there.
    assert await process.stdout.readline() == b"first\n"
    await _ended(api, Outcome.SUCCEEDED, "second\n")
    out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"second\n", b"attempt 2\n")
