"""Every command that speaks to the API, with its exit codes."""

import asyncio
import json
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

from hybridjobs.model import AttemptEnd
from tests.integration.cli.conftest import PROGRAM, Command, Done, run
from tests.integration.ingress.conftest import TOKEN, Running
from tests.integration.ingress.outcomes import FAILED, SUCCEEDED, end_all, failed_job
from tests.integration.ingress.test_tree import family


async def _end_until_done(
    api: Running, command: asyncio.Task[Done], end: AttemptEnd = SUCCEEDED
) -> None:
    """Ends what may start, as long as the command waits."""
    while not command.done():
        await end_all(api, end)
        await asyncio.wait([command], timeout=0.1)


async def test_submit_prints_the_id_and_takes_every_option(command: Command, api: Running) -> None:
    first = await command("submit", "test/long", "-p", '{"n": 1.0}', "--key", "k")
    assert (first.code, first.err) == (0, "")
    again = await command("submit", "test/long", "-p", '{"n": 1.0}', "--key", "k", "--json")
    assert again.json["id"] == first.out.strip()
    assert (await api.job(first.out.strip())).payload == '{"n": 1.0}'
    done = await command(
        *("submit", "test/long", "--priority", "-5", "--deadline", "60", "--max-retries", "0"),
        *("--run-at", "2h", "--unique-key", "u", "--unique-while", "queued"),
        *("--depends-on", first.out.strip(), "--on-dependency-failure", "run"),
    )
    job = await api.job(done.out.strip())
    assert (job.priority, job.deadline_seconds, job.max_retries) == (-5, 60, 0)
    assert timedelta(hours=1) < job.run_at - datetime.now(UTC) < timedelta(hours=3)
    assert (job.unique_key, job.unique_while) == ("u", "queued")
    assert [str(each) for each in job.waits_for] == [first.out.strip()]


async def test_wrong_input_is_explained(command: Command) -> None:
    done = await command("submit", "test/long", "--run-at", "tomorrow", "--depends-on", "x")
    assert done.code == 2
    assert "/runAt: must be a time of RFC 3339" in done.err
    done = await command("submit", "test/none")
    assert (done.code, "known types: test/long, test/other" in done.err) == (2, True)
    done = await command("submit", "test/long", "-p", "{'n': 1}")
    assert (done.code, "the payload is not JSON" in done.err) == (2, True)
    done = await command("get", str(uuid4()))
    assert done.code == 3
    done = await command("jobs", HYBRIDJOBS_API_TOKEN="wrong")
    assert (done.code, "HYBRIDJOBS_API_TOKEN" in done.err) == (4, True)
    done = await run("jobs", HYBRIDJOBS_API_URL="http://127.0.0.1:1")
    assert done.code == 5


async def test_a_wait_shows_the_end(command: Command, api: Running) -> None:
    waiting = asyncio.create_task(command("submit", "test/long", "--wait", "--timeout", "30"))
    await _end_until_done(api, waiting, FAILED)
    done = await waiting
    assert done.code == 1
    assert "no such customer" in done.out
    assert "is failed: no such customer" in done.err
    done = await command("submit", "test/long", "--wait", "--timeout", "1")
    assert (done.code, "is still queued" in done.err) == (6, True)


async def test_a_wait_that_is_interrupted_has_said_for_what_it_was(api: Running) -> None:
    process = await asyncio.create_subprocess_exec(
        *("env", "--default-signal=INT"),  # which is ignored in what a shell runs beside itself
        *(sys.executable, "-c", PROGRAM, "submit", "test/long", "--wait", "--token", TOKEN),
        *("--url", f"http://127.0.0.1:{api.ports.api}"),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    said = (await process.stderr.readline()).decode()
    [job] = (await api.api.get("/api/jobs")).json()["jobs"]
    assert said == f"job {job['id']}\n"
    process.send_signal(signal.SIGINT)
    rest = await process.stderr.read()
    assert (await process.wait(), b"Traceback" in rest) == (130, False)


async def test_jobs_are_listed_by_filters(command: Command, api: Running) -> None:
    ids = [(await api.submit("test/long", key=f"k{place}")).json()["id"] for place in range(3)]
    other = (await api.submit("test/other")).json()["id"]
    await api.api.post(f"/api/jobs/{ids[0]}/cancel")
    done = await command("jobs", "--status", "cancelled", "--status", "failed", "--json")
    assert [job["id"] for job in done.json["jobs"]] == [ids[0]]
    done = await command("jobs", "--type", "test/other", "--since", "1h", "--json")
    assert [job["id"] for job in done.json["jobs"]] == [other]
    done = await command("jobs", "--limit", "2")
    lines = done.out.splitlines()
    assert lines[0].split()[:4] == ["ID", "TYPE", "STATUS", "STAGE"]
    assert [line.split()[0] for line in lines[1:]] == [other, ids[2]]
    assert f"--before {ids[2]}" in done.err
    done = await command("jobs", "--before", ids[2], "--key", "k1", "--json")
    assert [job["id"] for job in done.json["jobs"]] == [ids[1]]


async def test_get_shows_a_job(command: Command, api: Running) -> None:
    job_id = await failed_job(api)
    done = await command("get", job_id)
    assert done.code == 0
    for expected in (job_id, "test/long", "permanent", "PermanentError", "no such customer"):
        assert expected in done.out
    done = await command("get", job_id, "--json")
    assert done.json["attempts"][0]["outcome"] == "permanent"


async def test_get_shows_the_tree_of_a_job(command: Command, api: Running) -> None:
    ids = await family(api, 0, 0, 0, 1, 4)
    await end_all(api, FAILED)
    done = await command("get", ids[0], "--tree")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert len(lines) == 6
    assert "test/long failed" in lines[0]
    assert "[5: 5 failed]" in lines[0]
    # The first child, and what came of it, before the second one.
    order = [ids[place] for place in (0, 1, 4, 5, 2, 3)]
    assert [next(id_ for id_ in ids if id_ in line) for line in lines] == order
    assert all("no such customer" in line for line in lines)
    indents = [line.index("test/long") for line in lines]
    assert [indent // 4 for indent in indents] == [0, 1, 2, 3, 1, 1]
    done = await command("get", ids[0], "--tree", "--width", "1", "--depth", "2")
    assert [id_ in done.out for id_ in ids] == [True, True, False, False, True, False]
    assert "… 2 more" in done.out
    done = await command("get", ids[0], "--tree", "--json")
    assert [job["id"] for job in done.json["jobs"]] == ids
    done = await command("get", ids[0], "--tree", "--wait")
    assert (done.code, "--tree shows what is there now" in done.err) == (2, True)
    assert (await command("get", str(uuid4()), "--tree")).code == 3


async def test_retry_of_named_jobs(command: Command, api: Running) -> None:
    failed = await failed_job(api)
    queued = (await api.submit("test/long")).json()["id"]
    done = await command("retry", failed, queued, str(uuid4()))
    assert done.code == 1
    assert done.out == f"{failed} queued\n"
    assert f"{queued}: the job is queued" in done.err
    assert "accepted for 1 of 3" in done.err
    assert {str(job_id) for job_id in await end_all(api)} == {failed, queued}


async def test_retry_of_all_that_match(command: Command, api: Running) -> None:
    failed = {await failed_job(api) for _ in range(3)}
    other = await failed_job(api, "test/other")
    assert (await command("retry")).code == 2
    assert (await command("retry", other, "--type", "test/long")).code == 2
    done = await command("retry", "--type", "test/long")
    assert (done.code, "Run 3 jobs once more? Say --yes." in done.err) == (2, True)
    done = await command("retry", "--type", "test/long", "--yes", "--json")
    assert done.code == 0
    assert {each["id"] for each in done.json} == failed
    assert (await api.job(other)).status == "failed"
    done = await command("retry", "--status", "failed", "--since", "1h", "--yes")
    assert done.out == f"{other} queued\n"


async def test_cancel(command: Command, api: Running) -> None:
    job_id = (await api.submit("test/long")).json()["id"]
    done = await command("cancel", job_id)
    assert (done.code, done.out) == (0, f"{job_id} cancelled\n")
    done = await command("cancel", job_id)
    assert (done.code, "the job is cancelled" in done.err) == (1, True)


async def test_dead_letters(command: Command, api: Running) -> None:
    jobs = [await failed_job(api) for _ in range(4)]
    listed = (await command("dlq", "list", "--category", "validation", "--json")).json
    letters = {letter["jobId"]: letter["id"] for letter in listed["deadLetters"]}
    assert set(letters) == set(jobs)
    assert jobs[0] in (await command("dlq", "list")).out
    shown = await command("dlq", "show", letters[jobs[0]])
    assert "no such customer" in shown.out
    assert shown.out.rstrip().endswith("{}")
    done = await command("dlq", "resolve", letters[jobs[0]], "--notes", "gone")
    assert done.code == 0
    [closed] = (await command("dlq", "list", "--resolved", "--json")).json["deadLetters"]
    assert (closed["resolvedBy"], closed["resolutionNotes"]) == ("ana", "gone")
    assert (await command("dlq", "resolve", letters[jobs[0]])).code == 1
    assert (await command("dlq", "redrive")).code == 2
    done = await command("dlq", "redrive", letters[jobs[1]], "--json")
    assert done.json == [{"id": letters[jobs[1]], "jobId": jobs[1]}]
    some = await command("dlq", "redrive", letters[jobs[0]], letters[jobs[2]])
    assert (some.code, some.out) == (1, f"{letters[jobs[2]]} job {jobs[2]} runs once more\n")
    assert f"{letters[jobs[0]]}: the dead letter is not open: it was resolved" in some.err
    assert "accepted for 1 of 2" in some.err
    assert (await command("dlq", "redrive", "--all")).code == 2
    done = await command("dlq", "redrive", "--type", "test/long", "--per-second", "5", "--yes")
    assert (done.code, done.out) == (0, "1 jobs run once more\n")
    assert (await command("dlq", "list", "--json")).json["deadLetters"] == []
    assert len((await command("dlq", "list", "--all", "--json")).json["deadLetters"]) == 4
    assert len(await end_all(api)) == 3


async def test_pause_and_resume(command: Command, api: Running) -> None:
    done = await command("pause", "test/long")
    assert done.code == 0
    [line] = [line.split() for line in done.out.splitlines() if "test/long" in line]
    assert line == ["test/long", "long", "0", "0", "ana"]
    assert (await command("resume", "test/long", "--json")).json["types"][0]["paused"] is False
    done = await command("pause", "--all")
    assert "the queue is paused by ana" in done.err
    await command("resume", "--all")
    assert not (await command("types", "--json")).json["queue"]["paused"]
    assert (await command("pause")).code == 2
    assert (await command("pause", "test/long", "--all")).code == 2
    assert (await command("pause", "test/none")).code == 3


async def test_schedules_and_statistics(command: Command, api: Running) -> None:
    await failed_job(api)
    async with api.database.connection() as connection:
        await connection.execute(
            "INSERT INTO hybridjobs.schedule_ticks (schedule_uid, tick_at, schedule, decision) "
            "VALUES ('u', '2026-01-02T00:00Z', 'nightly', 'skipped')"
        )
    done = await command("schedules")
    assert done.out.splitlines()[1].split() == ["nightly", "2026-01-02T00:00:00Z", "skipped", "0"]
    assert (await command("schedules", "--json")).json["schedules"][0]["name"] == "nightly"
    done = await command("stats")
    assert done.code == 0
    assert "Total Jobs (24h)" in done.out
    assert "test/long" in done.out
    assert (await command("stats", "--json")).json["types"][0]["failed"] == 1


async def test_types_in_the_wrong_mode_are_pointed_out(command: Command, api: Running) -> None:
    async with api.database.connection() as connection:
        await connection.execute(
            "INSERT INTO hybridjobs.background_jobs (id, type, status, started_at, completed_at) "
            "SELECT hybridjobs.uuidv7_at(now()), 'test/long', 'completed', now(), now() "
            "FROM generate_series(1, 20)"
        )
        await connection.execute(
            "INSERT INTO hybridjobs.job_attempts (job_id, attempt, runner, deadline_seconds, "
            "claimed_at, started_at, ended_at, outcome) SELECT id, 1, 'pod', 60, now(), now(), "
            "now(), 'succeeded' FROM hybridjobs.background_jobs"
        )
    done = await command("stats")
    assert "test/long could be quick: 95 % of 20 runs took at most" in done.out


async def test_a_batch_of_lines(command: Command, api: Running, tmp_path: Path) -> None:
    file = tmp_path / "jobs.jsonl"
    lines = [
        {"type": "test/long", "payload": 1, "ref": "a"},
        {"type": "test/other", "payload": 2, "dependsOn": ["a"]},
    ]
    text = "\n\n".join(map(json.dumps, lines)) + "\n"
    file.write_text(text)
    done = await command("batch", str(file), "--key", "k")
    batch = (await command("batch", "-", "--key", "k", "--json", stdin=text)).json
    assert (batch["id"], batch["replayed"]) == (done.out.strip(), True)
    assert (await command("batch", str(file), "--wait", "--timeout", "1", "--key", "k")).code == 6
    waiting = asyncio.create_task(command("batch", str(file), "--key", "k", "--wait"))
    await _end_until_done(api, waiting)
    assert (waiting.result().code, waiting.result().out) == (0, "2 jobs: 2 completed\n")
    jobs = (await command("jobs", "--batch", batch["id"], "--json")).json["jobs"]
    assert len(jobs) == 2
    again = asyncio.create_task(command("batch", str(file), "--wait"))
    await _end_until_done(api, again, FAILED)
    assert (again.result().code, again.result().out) == (1, "2 jobs: 1 failed, 1 cancelled\n")


async def test_a_wrong_batch_is_explained(command: Command, api: Running) -> None:
    done = await command("batch", "-", stdin='{"type": "test/long", "payload": 1}\n[]\n')
    assert (done.code, "line 2 is no JSON object" in done.err) == (2, True)
    done = await command("batch", "-", stdin='{"type": "test/long", "payload": 1, "ref": 1}\n')
    assert (done.code, "/jobs/0/ref" in done.err) == (2, True)
    done = await command("batch", "-", stdin="[" * 100_000)
    assert (done.code, "line 1 is no JSON object" in done.err) == (2, True)
    done = await command("batch", "/nowhere")
    assert (done.code, "cannot read /nowhere" in done.err) == (2, True)
    assert await api.count() == 0


async def test_ends_of_lines_that_json_may_hold_end_no_line(command: Command, api: Running) -> None:
    text = '{"type": "test/long", "payload": "a\u2028b\u0085c"}\r\n'
    done = await command("batch", "-", "--json", stdin=text)
    assert (done.code, done.err) == (0, "")
    [job] = (await command("jobs", "--json")).json["jobs"]
    assert (await api.job(job["id"])).payload == '"a\u2028b\u0085c"'


async def test_a_cancelled_job_that_was_waited_for_is_said_to_be_so(
    command: Command, api: Running
) -> None:
    job_id = (await api.submit("test/long")).json()["id"]
    await api.api.post(f"/api/jobs/{job_id}/cancel")
    done = await command("get", job_id, "--wait")
    assert (done.code, done.err) == (1, f"hybridjobs: job {job_id} is cancelled\n")


async def test_what_a_pod_wrote_does_nothing_to_the_terminal(
    command: Command, api: Running
) -> None:
    job_id = await failed_job(api)
    async with api.database.connection() as connection:
        await connection.execute(
            "UPDATE hybridjobs.background_jobs SET error = E'\\x1b[2J [bold]x[/bold]' "
            "WHERE id = %s",
            [UUID(job_id)],
        )
    assert "\N{REPLACEMENT CHARACTER}[2J [bold]x[/bold]" in (await command("get", job_id)).out
