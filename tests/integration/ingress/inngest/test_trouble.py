"""Runs while something is away: Postgres, the ingress, the event API, the row, the run itself."""

import asyncio
import json
import signal
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest

from hybridjobs.ingress.inngest import sdk
from hybridjobs.ingress.inngest.config import InngestConfig
from hybridjobs.model import Status
from hybridjobs.store.database import Database
from hybridjobs.store.embedded import EmbeddedPostgres
from hybridjobs.store.migrate import migrate
from tests.builders import job_type, register
from tests.conftest import DatabaseUrls, free_port
from tests.integration.ingress.conftest import running, settings
from tests.integration.ingress.inngest.conftest import EVENT_KEY, KEY, RESULT, Scene, Start
from tests.integration.ingress.inngest.server import Run, inngest_server
from tests.integration.ingress.outcomes import FAILED, end_all
from tests.integration.ingress.process import started
from tests.waiting import eventually

LONG = job_type("test/long", events=["shop/order.paid"])
FINISHED = "hybridjobs/job.finished"


def told(scene: Scene) -> Counter[str]:
    """How often Inngest has taken the end of each run."""
    return Counter(e["data"]["run_id"] for e in scene.server.events if e["name"] == FINISHED)


async def all_ended(scene: Scene, runs: list[Run]) -> None:
    async with scene.ending():
        await asyncio.gather(*(run.ended() for run in runs))


async def test_runs_start_while_postgres_is_away_and_outlive_its_restart(
    inngest: Start, durable_postgres: EmbeddedPostgres
) -> None:
    await migrate(durable_postgres.url, logins={})
    scene = await inngest(LONG, database_url=durable_postgres.url)
    await scene.registered("test/long")
    scene.server.attempts, scene.server.retry_seconds = 200, 0.1
    before = [scene.server.send("shop/order.paid", {})[0] for _ in range(10)]
    await eventually(lambda: all("submit" in run.names for run in before))
    await asyncio.to_thread(durable_postgres.stop, signal.SIGKILL)
    meanwhile = [scene.server.send("shop/order.paid", {})[0] for _ in range(10)]
    await eventually(lambda: all(run.calls >= 3 for run in meanwhile))
    assert not any(run.names for run in meanwhile)
    await asyncio.to_thread(durable_postgres.start)
    await eventually(lambda: all("submit" in run.names for run in meanwhile))
    await all_ended(scene, [*before, *meanwhile])
    assert {run.status for run in (*before, *meanwhile)} == {"completed"}
    assert await scene.ingress.count() == 20


async def test_an_ingress_killed_between_the_commit_and_the_answer_makes_one_job(
    database_urls: DatabaseUrls,
) -> None:
    async with AsyncExitStack() as stack:
        owner = await stack.enter_async_context(Database(database_urls.owner, size=2))
        async with owner.connection() as connection:
            await register(connection, LONG)
            await connection.execute(
                """CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NEW; END $$;
                CREATE TRIGGER pause BEFORE INSERT ON hybridjobs.background_jobs
                FOR EACH ROW EXECUTE FUNCTION pause()"""
            )
        server = await stack.enter_async_context(inngest_server(KEY, event_key=EVENT_KEY))
        server.attempts, server.retry_seconds = 200, 0.1
        port = free_port()
        changes: dict[str, Any] = {
            "webhook_port": port,
            "inngest_signing_key": KEY,
            "inngest_event_key": EVENT_KEY,
            "inngest_api_url": server.origin,
            "inngest_event_url": server.origin,
            "inngest_serve_origin": f"http://127.0.0.1:{port}",
        }
        environment = {f"HYBRIDJOBS_{name.upper()}": str(each) for name, each in changes.items()}
        process = await stack.enter_async_context(started(database_urls.service, **environment))
        await process.ready()
        await eventually(lambda: len(server.registrations) and len(server.functions) == 2)
        held = await psycopg.AsyncConnection.connect(database_urls.owner, autocommit=True)
        await held.execute("SELECT pg_advisory_lock(42)")
        [run] = server.send("shop/order.paid", {})
        await _waits(held, "advisory")
        # Next in line for the table: it has it as soon as the row is there, before anyone looks.
        gate = await psycopg.AsyncConnection.connect(database_urls.owner)
        lock = asyncio.create_task(
            gate.execute("LOCK TABLE hybridjobs.background_jobs IN ACCESS EXCLUSIVE MODE")
        )
        await _waits(held, "relation")
        await held.execute("SELECT pg_advisory_unlock(42)")
        await lock
        cursor = await gate.execute("SELECT count(*) FROM hybridjobs.background_jobs")
        assert await cursor.fetchone() == (1,)
        assert run.names == []
        await process.end(signal.SIGKILL)
        await gate.close()
        await held.close()
        ingress = await stack.enter_async_context(
            running(database_urls.service, inline_children=0, **changes)
        )
        scene = Scene(server, ingress, changes)
        await all_ended(scene, [run])
        assert (run.status, run.output) == ("completed", {"rows": 7})
        assert await ingress.count() == 1


async def _waits(connection: psycopg.AsyncConnection, kind: str) -> None:
    """Until somebody waits for a lock of that kind."""
    async with asyncio.timeout(20):
        while True:
            cursor = await connection.execute(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = %s", [kind]
            )
            if await cursor.fetchone() != (0,):
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("refusal", "times"),
    [
        ((429, {"message": "too many requests"}), 1),
        ((404, {}), 1),
        ((500, {"message": "out of order"}), 6),  # the SDK tries five times
    ],
)
async def test_an_end_is_told_when_the_event_api_is_well_again(
    inngest: Start, refusal: tuple[int, dict[str, str]], times: int
) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    scene.server.refusal, scene.server.refuse_events = refusal, times
    [run] = scene.server.send("shop/order.paid", {})
    await all_ended(scene, [run])
    assert (run.status, told(scene)) == ("completed", {run.id: 1})


async def test_an_event_api_that_never_ends_its_answer_is_left_in_time(
    database_urls: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk, "_SEND_SECONDS", 0.5)

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(0.05)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    config = InngestConfig.of(
        settings(
            database_urls.service,
            inngest_signing_key=KEY,
            inngest_event_key=EVENT_KEY,
            inngest_event_url=f"http://127.0.0.1:{port}",
        )
    )
    assert config is not None
    async with sdk.Sdk(config) as ours:
        async with asyncio.timeout(20):  # which would be no error of its own
            with pytest.raises(TimeoutError):
                await ours.send(FINISHED, {}, event_id="e")
    server.close()


async def test_two_replicas_tell_every_end_once(
    inngest: Start, database_urls: DatabaseUrls
) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    async with running(database_urls.service, **{**scene.settings, "webhook_port": 0}):
        runs = [scene.server.send("shop/order.paid", {})[0] for _ in range(60)]
        await all_ended(scene, runs)
    assert {run.status for run in runs} == {"completed"}
    assert told(scene) == {run.id: 1 for run in runs}


async def test_a_run_cancelled_at_any_moment_leaves_no_job_that_goes_on(inngest: Start) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    scene.server.sleep_seconds = 1.0
    cancelling = []
    for moment in range(20):
        [run] = scene.server.send("shop/order.paid", {})
        if moment % 5 == 4:
            await scene.job_id(run)  # the row is there, the answer under way
        else:
            await asyncio.sleep(moment * 0.003)
        cancelling += scene.server.cancel(run)
    await asyncio.gather(*(each.ended() for each in cancelling))
    assert {each.status for each in cancelling} == {"completed"}
    async with scene.ingress.database.connection() as connection:
        cursor = await connection.execute(
            "SELECT count(*) FILTER (WHERE status <> 'cancelled') AS others, count(*) AS jobs"
            " FROM hybridjobs.background_jobs"
        )
        row = await cursor.fetchone()
    assert row is not None
    assert row["others"] == 0
    assert 4 <= row["jobs"] < 20  # some had none, some had one


async def test_a_run_whose_job_has_been_deleted_fails_when_it_looks(inngest: Start) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    [run] = scene.server.send("shop/order.paid", {})
    await eventually(lambda: "submit" in run.names)
    async with scene.ingress.database.connection() as connection:
        await connection.execute("DELETE FROM hybridjobs.background_jobs")
    await eventually(scene.server.expire_waits)
    await run.ended()
    assert (run.status, run.output["name"]) == ("failed", "NonRetriableError")
    assert "deleted" in run.output["message"]


@pytest.mark.parametrize("by", ["retry", "redrive"])
async def test_a_job_run_again_after_its_run_has_failed_changes_no_run(
    inngest: Start, by: str
) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    [run] = scene.server.send("shop/order.paid", {})
    job_id = await scene.job_id(run)
    await end_all(scene.ingress, FAILED)
    await run.ended()
    if by == "retry":
        answer = await scene.ingress.api.post(f"/api/jobs/{job_id}/retry")
    else:
        [letter] = (await scene.ingress.api.get("/api/dead-letters")).json()["deadLetters"]
        answer = await scene.ingress.api.post(f"/api/dead-letters/{letter['id']}/redrive")
    assert answer.is_success, answer.text
    await end_all(scene.ingress, RESULT)
    await scene.reaches(job_id, Status.COMPLETED)
    await eventually(lambda: told(scene)[run.id] == 2)
    assert (run.status, await scene.ingress.count()) == ("failed", 1)


async def test_a_job_retried_by_hand_before_its_run_was_told_ends_the_run_as_it_ends(
    inngest: Start,
) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    scene.server.refuse_events = 100
    [run] = scene.server.send("shop/order.paid", {})
    job_id = await scene.job_id(run)
    await end_all(scene.ingress, FAILED)
    await eventually(lambda: scene.server.refuse_events < 100)
    await scene.ingress.api.post(f"/api/jobs/{job_id}/retry")
    scene.server.refuse_events = 0
    await all_ended(scene, [run])
    assert (run.status, run.output) == ("completed", json.loads(RESULT.result or ""))
    assert told(scene) == {run.id: 1}
