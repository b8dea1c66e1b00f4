"""What a job can ask for before and after it runs, from its row to its claim."""

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID

import psycopg
import pytest

from hybridjobs.errors import RowLocked
from hybridjobs.ids import new_id
from hybridjobs.model import NewJob, Outcome, Status
from hybridjobs.store.claim import claim
from hybridjobs.store.database import Database
from hybridjobs.store.enqueue import Enqueuer
from tests import builders
from tests.builders import job_type
from tests.conftest import DatabaseUrls
from tests.integration.store.scene import Queue, held_open
from tests.waiting import eventually

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
BY_KEY = {"limit": 1, "key": "repository.name"}
WAYS = "repository.full_name | owner/repo | repositoryId"


_ids = (UUID(int=number) for number in itertools.count(new_id().int))


@pytest.fixture
def queue(database: Database) -> Queue:
    return Queue(database)


def new_job(type_: str = "test/long", **fields: Any) -> NewJob:
    """With ids that count up, so that the jobs of one call stand in line as they were given."""
    return builders.new_job(type_, **{"id": next(_ids), **fields})


def keyed(key: str, **fields: Any) -> NewJob:
    return new_job(
        payload=json.dumps({"repository": {"name": key}}), key_path="repository.name", **fields
    )


async def _drained(queue: Queue) -> list[UUID]:
    """Every job in the order of its start, one claim after the other."""
    started: list[UUID] = []
    for _ in range(200):
        claimed = await queue.claimed()
        started += claimed
        if not claimed and not await queue.end_all():
            return started
        await queue.end_all()
    pytest.fail("no end of it")


async def _keys(queue: Queue, path: str, payload: str) -> list[str]:
    """What a job is counted by that came by HTTP, and one that came by SQL."""
    await queue.register(job_type(concurrency={"limit": 1, "key": path}))
    await queue.enqueue(new_job(payload=payload, key_path=path))
    async with queue.database.connection() as connection:
        await connection.execute("SELECT hybridjobs.submit_job('test/long', %s)", [payload])
        cursor = await connection.execute("SELECT concurrency_key FROM hybridjobs.background_jobs")
        return [row["concurrency_key"] for row in await cursor.fetchall()]


# How many at once


async def test_a_type_has_its_limit(queue: Queue) -> None:
    await queue.register(job_type(concurrency={"limit": 3}))
    ids = await queue.enqueue(*(new_job() for _ in range(5)))
    assert await queue.claimed() == ids[:3]
    assert await queue.claimed() == []
    await queue.end(ids[1])
    assert await queue.claimed() == [ids[3]]


async def test_a_key_has_its_limit_and_leaves_the_others_alone(queue: Queue) -> None:
    await queue.register(job_type(concurrency=BY_KEY))
    a1, a2, b1, none = await queue.enqueue(keyed("a"), keyed("a"), keyed("b"), new_job())
    assert await queue.claimed() == [a1, b1, none]
    assert await queue.stages([a2]) == ["parked"]
    await queue.end(b1)
    assert await queue.claimed() == []
    await queue.end(a1)
    assert await queue.claimed() == [a2]


async def test_jobs_without_a_key_count_together(queue: Queue) -> None:
    await queue.register(job_type(concurrency=BY_KEY))
    # One whose payload lacks the key, and one of an older program, which took none.
    first, second = await queue.enqueue(new_job(key_path="repository.name"), new_job())
    assert await queue.claimed() == [first]
    await queue.end(first)
    assert await queue.claimed() == [second]


@pytest.mark.parametrize(
    ("payload", "key"),
    [
        ({"repository": {"full_name": "a/b", "name": "b"}}, "a/b"),
        ({"owner": "a", "repo": "b"}, "a/b"),
        ({"owner": "a", "repo": "b", "repositoryId": "7"}, "a/b"),
        ({"repositoryId": "7"}, "7"),
        ({"owner": "a", "repo": None, "repositoryId": 7}, "7"),
        ({"repository": {"full_name": "a/b"}, "owner": "c", "repo": "d"}, "a/b"),
        ({"owner": "a"}, ""),
        ([], ""),
    ],
)
async def test_a_key_may_be_said_in_several_ways(queue: Queue, payload: object, key: str) -> None:
    assert await _keys(queue, WAYS, json.dumps(payload)) == [key, key]


async def test_a_place_from_the_end_of_an_array_is_not_another_array_s(queue: Queue) -> None:
    payload = '{"labels": [1, 2], "commits": [{"id": "a"}, {"id": "b"}, {"id": "c"}]}'
    assert await _keys(queue, "commits.-1.id", payload) == ["c", "c"]


async def test_a_repository_has_its_limit_however_it_is_named(queue: Queue) -> None:
    await queue.register(job_type(concurrency={"limit": 2, "key": WAYS}))
    delivered, asked, followed, other = await queue.enqueue(
        *(
            new_job(payload=json.dumps(payload), key_path=WAYS)
            for payload in (
                {"repository": {"full_name": "a/b"}},
                {"owner": "a", "repo": "b"},
                {"repositoryId": "7", "owner": "a", "repo": "b"},
                {"owner": "a", "repo": "c"},
            )
        )
    )
    assert await queue.claimed() == [delivered, asked, other]
    await queue.end(delivered)
    assert await queue.claimed() == [followed]


async def test_a_lowered_or_lifted_limit_counts_from_the_next_claim(queue: Queue) -> None:
    await queue.register(job_type(concurrency={"limit": 2, "key": "repository.name"}))
    ids = await queue.enqueue(*(keyed("a") for _ in range(6)))
    assert await queue.claimed() == ids[:2]
    await queue.register(job_type(generation=2, concurrency=BY_KEY))
    await queue.end(ids[0])
    assert await queue.claimed() == []
    await queue.register(job_type(generation=3))
    assert await queue.claimed() == ids[2:]


async def test_an_inline_attempt_takes_a_place_of_its_type(queue: Queue) -> None:
    await queue.register(job_type(concurrency={"limit": 1}))
    quick, waiting = await queue.enqueue(new_job(lease_seconds=10.0), new_job())
    assert await queue.claimed() == []
    await queue.end(quick)
    assert await queue.claimed() == [waiting]


# How many in a period


async def test_a_type_is_throttled(queue: Queue) -> None:
    await queue.register(job_type(throttle={"limit": 2, "periodSeconds": 3600}))
    ids = await queue.enqueue(*(new_job() for _ in range(5)))
    assert await queue.claimed() == ids[:2]
    await queue.end_all()
    assert await queue.claimed() == []
    await queue.pass_time(59 * MINUTE)
    assert await queue.claimed() == []
    await queue.pass_time(2 * MINUTE)
    assert await queue.claimed() == ids[2:4]


async def test_a_key_is_throttled_and_looked_at_when_it_may_go(queue: Queue) -> None:
    await queue.register(
        job_type(throttle={"limit": 1, "periodSeconds": 60, "key": "repository.name"})
    )
    a1, a2, b1 = await queue.enqueue(keyed("a"), keyed("a"), keyed("b"))
    assert await queue.claimed() == [a1, b1]
    await queue.end_all()
    assert await queue.claimed() == []
    [parked] = await queue.rows("SELECT *, now() AS now FROM parked_keys")
    assert 50 * SECOND < parked["look_at"] - parked["now"] <= 60 * SECOND
    await queue.pass_time(61 * SECOND)
    assert await queue.claimed() == [a2]


async def test_a_retry_is_a_start_too(queue: Queue) -> None:
    await queue.register(job_type(throttle={"limit": 1, "periodSeconds": 60}))
    [job] = await queue.enqueue(new_job())
    assert await queue.claimed() == [job]
    await queue.end(job, Outcome.FAILED, retry_after_seconds=0)
    assert await queue.claimed() == []
    await queue.pass_time(61 * SECOND)
    assert await queue.claimed() == [job]


# Who is next


async def test_every_parked_key_has_its_turn(queue: Queue) -> None:
    await queue.register(job_type(concurrency=BY_KEY))
    # The first key has far more than the others, and was there before them.
    keys = "a" * 12 + "b" * 3 + "c" * 3
    ids = await queue.enqueue(*map(keyed, keys))
    key_of = dict(zip(ids, keys, strict=True))
    await queue.claim()
    await queue.end_all()
    turns = []
    for _ in range(6):
        # A window of two has one place for one type.
        [job] = await queue.claimed(window=2)
        turns.append(key_of[job])
        await queue.end(job)
    assert Counter(turns[:3]) == Counter(turns[3:]) == Counter("abc")


async def test_a_parked_key_keeps_its_own_order(queue: Queue) -> None:
    await queue.register(job_type(concurrency=BY_KEY))
    low, middle, high = await queue.enqueue(
        keyed("a", priority=-5), keyed("a"), keyed("a", priority=5)
    )
    assert await _drained(queue) == [high, middle, low]


async def test_a_parked_job_of_a_type_that_is_renamed_is_found_there(queue: Queue) -> None:
    await queue.register(job_type(concurrency=BY_KEY), job_type("test/new", concurrency=BY_KEY))
    running, parked = await queue.enqueue(keyed("a"), keyed("a"))
    assert await queue.claimed() == [running]
    assert await queue.stages([parked]) == ["parked"]
    await queue.execute("UPDATE background_jobs SET type = 'test/new' WHERE id = %s", parked)
    assert await queue.claimed() == [parked]


async def test_a_parked_job_that_gets_a_time_to_come_waits_for_it(queue: Queue) -> None:
    await queue.register(job_type(concurrency=BY_KEY))
    running, parked = await queue.enqueue(keyed("a"), keyed("a"))
    await queue.claim()
    later = "UPDATE background_jobs SET run_at = now() + interval '1 hour' WHERE id = %s"
    await queue.execute(later, parked)
    await queue.end(running)
    assert await queue.claimed() == []
    await queue.pass_time(timedelta(hours=2))
    assert await queue.claimed() == [parked]


async def test_a_job_for_a_parked_key_is_parked_at_once_and_forgotten_with_its_last(
    queue: Queue,
) -> None:
    await queue.register(job_type(concurrency=BY_KEY))
    first, second = await queue.enqueue(keyed("a"), keyed("a"))
    assert await queue.claimed() == [first]
    [third] = await queue.enqueue(keyed("a"))
    assert await queue.stages([second, third]) == ["parked", "parked"]
    assert await _drained(queue) == [second, third]
    await queue.claim()
    assert await queue.rows("SELECT * FROM parked_keys") == []
    [fourth] = await queue.enqueue(keyed("a"))
    assert await queue.stages([fourth]) == ["ready"]


async def test_a_flood_of_one_key_does_not_hold_up_the_others(queue: Queue) -> None:
    await queue.register(job_type(concurrency=BY_KEY))
    flood = await queue.enqueue(*(keyed("a") for _ in range(6000)))
    [other] = await queue.enqueue(keyed("b"))
    started = [*await queue.claimed(window=20), *await queue.claimed(window=20)]
    started += await queue.claimed(window=20)
    assert set(started) == {flood[0], other}


async def test_priority_moves_a_job_forward_by_minutes_and_no_more(queue: Queue) -> None:
    await queue.register(job_type(concurrency={"limit": 1}))
    [old] = await queue.enqueue(new_job(priority=-10))
    await queue.pass_time(11 * MINUTE)
    [normal, urgent, lowest] = await queue.enqueue(
        new_job(), new_job(priority=10), new_job(priority=-100)
    )
    # Eleven minutes of waiting outweigh ten steps below the others, and not twenty.
    assert await _drained(queue) == [urgent, old, normal, lowest]


async def test_a_job_waits_for_its_time(queue: Queue) -> None:
    await queue.register(job_type())
    later = datetime.now(UTC) + MINUTE
    [job] = await queue.enqueue(new_job(run_at=later, priority=100))
    assert await queue.stages([job]) == ["scheduled"]
    assert await queue.claimed() == []
    await queue.pass_time(61 * SECOND)
    assert await queue.claimed() == [job]


# Unique


@pytest.mark.parametrize(
    ("unique_while", "while_queued", "while_claimed", "while_running", "when_over"),
    [("queued", True, False, False, False), ("open", True, True, True, False)],
)
async def test_a_unique_key_names_the_same_job(
    queue: Queue,
    unique_while: Any,
    while_queued: bool,
    while_claimed: bool,
    while_running: bool,
    when_over: bool,
) -> None:
    await queue.register(job_type())

    async def same_again() -> bool:
        [again] = await queue.enqueue(new_job(unique_key="k", unique_while=unique_while))
        if again != first:
            await queue.execute("SELECT cancel_job(%s)", again)
        return again == first

    [first] = await queue.enqueue(new_job(unique_key="k", unique_while=unique_while))
    [other] = await queue.enqueue(new_job("test/other", unique_key="k"))
    assert other != first
    assert await same_again() is while_queued
    assert await queue.claimed() == [first]
    assert await same_again() is while_claimed
    await queue.execute("UPDATE background_jobs SET status = 'processing' WHERE id = %s", first)
    assert await same_again() is while_running
    await queue.end(first)
    assert await same_again() is when_over


async def test_of_a_call_with_one_unique_key_twice_one_row_comes(queue: Queue) -> None:
    await queue.register(job_type())
    first, second, third = await queue.enqueue(
        new_job(unique_key="k"), new_job(unique_key="k"), new_job(unique_key="l")
    )
    assert first == second != third


async def test_an_idempotency_key_comes_before_a_unique_one(queue: Queue) -> None:
    await queue.register(job_type())
    [by_key] = await queue.enqueue(new_job(key="once"))
    [by_unique_key] = await queue.enqueue(new_job(unique_key="k"))
    [found] = await queue.enqueue(new_job(key="once", unique_key="k"))
    assert found == by_key != by_unique_key


async def test_a_retry_does_not_break_into_a_unique_key(queue: Queue) -> None:
    await queue.register(job_type(retry={"limit": 0}))
    [first] = await queue.enqueue(new_job(unique_key="k", max_retries=0))
    await queue.claim()
    assert await queue.end(first, Outcome.FAILED) is Status.FAILED
    [second] = await queue.enqueue(new_job(unique_key="k"))
    assert await queue.value("SELECT retry_failed_job(%s)", first) is False
    await queue.execute("SELECT cancel_job(%s)", second)
    assert await queue.value("SELECT retry_failed_job(%s)", first) is True


async def test_a_retry_gives_way_to_a_job_that_takes_its_unique_key_meanwhile(
    queue: Queue, database_urls: DatabaseUrls
) -> None:
    await queue.register(job_type())
    [job] = await queue.enqueue(new_job(unique_key="k"))
    await queue.execute("UPDATE background_jobs SET status = 'failed'")
    async with await psycopg.AsyncConnection.connect(database_urls.handlers) as application:
        await application.execute("SELECT hybridjobs.submit_job('test/long', unique_key => 'k')")
        retry = asyncio.create_task(queue.value("SELECT retry_failed_job(%s)", job))
        await queue.somebody_waits()
        await application.commit()
    assert await retry is False
    assert await queue.status(job) == "failed"


# Dependencies


def after(*awaited: NewJob, **fields: Any) -> NewJob:
    return new_job(depends_on=tuple(job.id for job in awaited), **fields)


async def _first(queue: Queue, *jobs: NewJob) -> None:
    """Register the type, enqueue the jobs, and claim those that can go."""
    await queue.register(job_type(retry={"limit": 0}))
    await queue.enqueue(*jobs)
    await queue.claim()


async def test_a_job_waits_for_all_that_it_depends_on(queue: Queue) -> None:
    one, other = new_job(), new_job()
    waiting = after(one, other)
    await _first(queue, one, other, waiting)
    assert await queue.stages([waiting.id]) == ["blocked"]
    await queue.end(one.id)
    assert await queue.claimed() == []
    await queue.end(other.id)
    assert await queue.claimed() == [waiting.id]


@pytest.mark.parametrize("how", ["fails", "is cancelled", "is set by hand", "is deleted"])
@pytest.mark.parametrize("on_failure", ["cancel", "run"])
async def test_what_follows_when_one_does_not_complete(
    queue: Queue, how: str, on_failure: Any
) -> None:
    upstream, other = new_job(max_retries=0), new_job()
    waiting = after(upstream, other, on_dependency_failure=on_failure)
    await _first(queue, upstream, other, waiting)
    match how:
        case "fails":
            await queue.end(upstream.id, Outcome.FAILED)
        case "is cancelled":
            await queue.end(upstream.id, Outcome.CANCELLED)
        case "is set by hand":
            await queue.execute(
                "UPDATE background_jobs SET status = 'failed' WHERE id = %s", upstream.id
            )
        case "is deleted":
            await queue.execute("DELETE FROM background_jobs WHERE id = %s", upstream.id)
    await queue.end(other.id)
    started = await queue.claimed()
    if on_failure == "run":
        assert started == [waiting.id]
        return
    assert started == []
    row = await queue.job(waiting.id)
    assert (row["status"], row["outcome_reason"]) == ("cancelled", "DependencyFailed")
    assert str(upstream.id) in row["error"]
    assert await queue.rows("SELECT * FROM job_dependencies") == []


async def test_a_retry_of_what_failed_in_time_saves_who_waits_for_it(queue: Queue) -> None:
    upstream = new_job(max_retries=0)
    waiting = after(upstream)
    await _first(queue, upstream, waiting)
    await queue.end(upstream.id, Outcome.FAILED)
    assert await queue.value("SELECT retry_failed_job(%s)", upstream.id) is True
    assert await queue.claimed() == [upstream.id]
    await queue.end(upstream.id)
    assert await queue.claimed() == [waiting.id]


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [(Outcome.SUCCEEDED, "queued"), (Outcome.PERMANENT, "cancelled")],
)
async def test_one_that_has_ended_before_counts_at_once(
    queue: Queue, outcome: Outcome, expected: str
) -> None:
    upstream = new_job()
    await _first(queue, upstream)
    await queue.end(upstream.id, outcome)
    waiting = after(upstream)
    await queue.enqueue(waiting)
    assert await queue.claimed() == ([waiting.id] if expected == "queued" else [])
    assert await queue.status(waiting.id) == expected


async def test_one_that_retention_deleted_has_ended_well(queue: Queue) -> None:
    waiting = after(new_job())
    await _first(queue, waiting)
    assert await queue.status(waiting.id) == "queued"
    assert (await queue.job(waiting.id))["dispatched_at"] is not None


async def test_a_dependent_keeps_its_time_and_its_limits(queue: Queue) -> None:
    await queue.register(job_type(concurrency=BY_KEY))
    upstream = keyed("x")
    timed = keyed("a", depends_on=(upstream.id,), run_at=datetime.now(UTC) + MINUTE)
    one, other = (keyed("b", depends_on=(upstream.id,)) for _ in range(2))
    await queue.enqueue(upstream, timed, one, other)
    await queue.claim()
    await queue.end(upstream.id)
    assert await queue.claimed() == [one.id]
    assert await queue.stages([timed.id, other.id]) == ["scheduled", "parked"]


@pytest.mark.parametrize("backwards", [False, True])
async def test_a_long_chain_is_cancelled_to_its_end(queue: Queue, backwards: bool) -> None:
    ids = sorted((new_id() for _ in range(1500)), reverse=backwards)
    chain = [
        new_job(id=job_id, depends_on=(ids[place - 1],) if place else ())
        for place, job_id in enumerate(ids)
    ]
    await _first(queue, *chain)
    began = monotonic()
    assert await queue.end(ids[0], Outcome.PERMANENT) is Status.FAILED
    assert monotonic() - began < 5
    for _ in range(5):
        assert await queue.claimed() == []
    statuses = await queue.rows("SELECT status, count(*) FROM background_jobs GROUP BY status")
    assert {row["status"]: row["count"] for row in statuses} == {"failed": 1, "cancelled": 1499}
    assert await queue.rows("SELECT * FROM job_dependencies") == []


async def test_an_outcome_takes_no_longer_because_thousands_wait_for_it(queue: Queue) -> None:
    upstream = new_job()
    waiting = [after(upstream) for _ in range(10_000)]
    await _first(queue, upstream, *waiting)
    for _ in range(12):
        await queue.link()
    began = monotonic()
    await queue.end(upstream.id)
    assert monotonic() - began < 5
    for _ in range(12):
        await queue.link()
    assert set(await queue.stages([job.id for job in waiting])) == {"ready"}


async def test_two_that_end_at_once_release_who_waits_for_both(queue: Queue) -> None:
    pairs = [(new_job(), new_job()) for _ in range(20)]
    waiting = [after(*pair) for pair in pairs]
    await _first(queue, *(job for pair in pairs for job in pair), *waiting)
    ends = [queue.end(job.id) for pair in pairs for job in pair]
    random.Random(4).shuffle(ends)
    await asyncio.gather(*ends, queue.link(), queue.link())
    assert sorted(await queue.claimed()) == sorted(job.id for job in waiting)


async def test_a_diamond_runs_each_once(queue: Queue) -> None:
    top = new_job()
    left, right = after(top), after(top)
    bottom = after(left, right, top)
    await queue.register(job_type())
    await queue.enqueue(bottom, right, left, top)
    order = await _drained(queue)
    assert (order[0], order[-1], len(order)) == (top.id, bottom.id, 4)


async def test_a_cancelled_dependent_is_forgotten_by_what_it_waited_for(queue: Queue) -> None:
    upstream = new_job()
    waiting = after(upstream)
    await _first(queue, upstream, waiting)
    assert await queue.value("SELECT cancel_job(%s)", waiting.id) == "cancelled"
    await queue.end(upstream.id)
    assert await queue.claimed() == []
    # Whom somebody wants all the same runs without waiting.
    assert await queue.value("SELECT retry_failed_job(%s)", waiting.id) is True
    assert await queue.claimed() == [waiting.id]


async def test_a_job_cannot_wait_for_itself_or_for_none(queue: Queue) -> None:
    await queue.register(job_type())
    job_id = new_id()
    with pytest.raises(psycopg.errors.CheckViolation, match="not_on_itself"):
        await queue.enqueue(new_job(id=job_id, depends_on=(job_id,)))
    assert await queue.rows("SELECT * FROM background_jobs") == []
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="depends_on names job"):
        await queue.value("SELECT submit_job('test/long', depends_on => ARRAY[%s]::uuid[])", job_id)


# Pause


async def test_a_paused_type_starts_nothing_and_loses_nothing(queue: Queue) -> None:
    await queue.register(job_type(), job_type("test/other"))
    running, waiting = await queue.enqueue(new_job(), new_job())
    [other] = await queue.enqueue(new_job("test/other"))
    assert await queue.claimed(window=2) == [running, other]
    assert await queue.value("SELECT pause_type('test/long', 'ann')") is True
    assert await queue.end(running) is Status.COMPLETED
    assert await queue.claimed() == []
    assert await queue.value("SELECT resume_type('test/long')") is True
    assert await queue.claimed() == [waiting]
    assert await queue.value("SELECT pause_type('nope')") is False


async def test_a_paused_queue_starts_nothing_of_any_type(queue: Queue) -> None:
    await queue.register(job_type(), job_type("test/other"))
    upstream = new_job()
    await queue.enqueue(upstream, after(upstream), new_job("test/other"))
    await queue.execute("SELECT pause_queue('ann')")
    await queue.execute("SELECT pause_queue('bob')")
    assert await queue.claimed() == []
    assert await queue.value("SELECT paused_by FROM queue_settings") == "ann"
    await queue.execute("SELECT resume_queue()")
    assert len(await queue.claimed()) == 2


# Retry, and what people write by hand


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("exhausted", True),
        ("permanent", True),
        ("cancelled while queued", True),
        ("cancelled while running", True),
        ("failed by hand", True),
        ("queued", False),
        ("running", False),
        ("completed", False),
    ],
)
async def test_a_retry_by_hand(queue: Queue, how: str, expected: bool) -> None:
    await queue.register(job_type(retry={"limit": 0}))
    [job] = await queue.enqueue(new_job(max_retries=0))
    if how not in ("queued", "cancelled while queued"):
        await queue.claim()
    match how:
        case "exhausted":
            assert await queue.end(job, Outcome.FAILED) is Status.FAILED
        case "permanent":
            await queue.end(job, Outcome.PERMANENT)
        case "cancelled while queued" | "cancelled while running":
            await queue.execute("SELECT cancel_job(%s)", job)
            if how == "cancelled while running":
                assert await queue.end(job, Outcome.FAILED) is Status.CANCELLED
        case "failed by hand":
            await queue.execute("UPDATE background_jobs SET status = 'failed'")
        case "completed":
            await queue.end(job)
    assert await queue.value("SELECT retry_failed_job(%s)", job) is expected
    if not expected:
        return
    row = await queue.job(job)
    cleared = ("error", "failed_at", "completed_at", "started_at", "cancel_requested_at")
    assert {name: row[name] for name in cleared} == dict.fromkeys(cleared)
    attempt = row["attempt"] + 1
    [again] = await queue.claim()
    assert (again.job_id, again.attempt) == (job, attempt)
    # The granted retry is spent: one more failure is the end.
    assert await queue.end(job, Outcome.FAILED) is Status.FAILED


async def test_five_thousand_are_retried_by_one_statement(queue: Queue) -> None:
    await queue.register(job_type())
    ids = await queue.enqueue(*(new_job() for _ in range(5000)))
    await queue.execute("UPDATE background_jobs SET status = 'failed', error = 'by hand'")
    assert await queue.value("SELECT count(*) FROM dead_letter_queue") == 5000
    began = monotonic()
    retried = await queue.value(
        "SELECT count(*) FILTER (WHERE retry_failed_job(id)) FROM background_jobs "
        "WHERE status = 'failed'"
    )
    assert monotonic() - began < 10
    assert retried == 5000
    assert set(await queue.stages(ids)) == {"ready"}
    unresolved = "SELECT count(*) FROM dead_letter_queue WHERE resolved_at IS NULL"
    assert await queue.value(unresolved) == 0


async def test_the_earlier_systems_remedy_for_stuck_jobs(queue: Queue) -> None:
    await queue.register(job_type())
    [stuck] = await queue.enqueue(new_job())
    await queue.claim()
    await queue.execute(
        "UPDATE background_jobs SET status = 'processing', started_at = now() - interval '1 hour'"
    )
    await queue.execute(
        "UPDATE background_jobs SET status = 'failed', "
        "error = 'Job timeout - stuck in processing', failed_at = NOW() "
        "WHERE status = 'processing' AND started_at < NOW() - INTERVAL '5 minutes'"
    )
    [attempt] = await queue.rows("SELECT * FROM job_attempts")
    assert (attempt["outcome"], attempt["reason"]) == ("failed", "SetByHand")
    assert attempt["message"] == "Job timeout - stuck in processing"
    [letter] = await queue.rows("SELECT * FROM dead_letter_queue")
    assert letter["original_job_id"] == stuck
    assert letter["error_history"][0]["message"] == "Job timeout - stuck in processing"
    # Its pod reports too late, and changes nothing.
    assert await queue.end(stuck) is Status.FAILED
    assert await queue.value("SELECT retry_failed_job(%s)", stuck) is True
    [again] = await queue.claim()
    assert again.attempt == 2


@pytest.mark.parametrize("claimed", [False, True])
@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_a_status_set_by_hand_is_whole(queue: Queue, status: str, claimed: bool) -> None:
    await queue.register(job_type())
    [job] = await queue.enqueue(new_job())
    if claimed:
        await queue.claim()
    await queue.execute("UPDATE background_jobs SET status = %s", status)
    row = await queue.job(job)
    assert (row["stage"], row["dispatched_at"]) == (None, None)
    assert (row["completed_at"] is not None) == (status == "completed")
    assert (row["failed_at"] is not None) == (status == "failed")
    assert await queue.claimed() == []
    # … and back.
    await queue.execute("UPDATE background_jobs SET status = 'queued'")
    row = await queue.job(job)
    assert (row["completed_at"], row["failed_at"], row["stage"]) == (None, None, "ready")
    assert await queue.claimed() == [job]


async def test_a_job_that_is_set_back_by_hand_to_its_beginning_runs_anew(queue: Queue) -> None:
    await queue.register(job_type())
    [job] = await queue.enqueue(new_job())
    await queue.claim()
    await queue.end(job, Outcome.PERMANENT)
    await queue.execute(
        "UPDATE background_jobs SET status = 'queued', attempt = 0, retry_count = 0"
    )
    [again] = await queue.claim()
    assert (again.job_id, again.attempt) == (job, 2)


async def test_a_time_without_end_is_refused(queue: Queue) -> None:
    [job] = await queue.enqueue(new_job())
    with pytest.raises(psycopg.errors.CheckViolation, match="finite_times"):
        await queue.execute("UPDATE background_jobs SET run_at = 'infinity' WHERE id = %s", job)


@pytest.mark.parametrize(
    ("runs", "change"),
    [
        (True, "status = 'queued'"),
        (True, "status = 'queued', dispatched_at = NULL"),
        (False, "dispatched_at = NULL"),
    ],
)
async def test_a_job_put_back_into_line_by_hand_has_one_open_attempt(
    queue: Queue, runs: bool, change: str
) -> None:
    await queue.register(job_type())
    [job] = await queue.enqueue(new_job())
    await queue.claim()
    if runs:
        await queue.execute("UPDATE background_jobs SET status = 'processing', started_at = now()")
    await queue.execute(f"UPDATE background_jobs SET {change}")
    row = await queue.job(job)
    assert (row["status"], row["stage"], row["started_at"]) == ("queued", "ready", None)
    [attempt] = await queue.rows("SELECT * FROM job_attempts")
    assert (attempt["outcome"], attempt["reason"]) == ("cancelled", "SetByHand")
    [again] = await queue.claim()
    assert again.attempt == 2
    # What ran reports too late, and changes nothing.
    assert await queue.end(job, attempt=1) is Status.QUEUED
    assert await queue.end(job) is Status.COMPLETED


async def test_a_job_completed_by_hand_from_the_line_may_say_when(queue: Queue) -> None:
    await queue.register(job_type())
    [job] = await queue.enqueue(new_job())
    await queue.execute("UPDATE background_jobs SET status = 'completed', completed_at = now()")
    row = await queue.job(job)
    assert row["started_at"] == row["completed_at"]


# Dead letters


async def test_a_dead_letter_tells_every_failure(queue: Queue) -> None:
    await queue.register(job_type(retry={"limit": 1, "maxSeconds": 60, "onOOM": "Retry"}))
    [job] = await queue.enqueue(new_job(max_retries=1, payload='{"n": 1.0}'))
    for outcome in (Outcome.OOM, Outcome.DISRUPTED, Outcome.DISRUPTED, Outcome.DEADLINE):
        await queue.claim()
        await queue.end(job, outcome)
        await queue.pass_time(MINUTE)
    [letter] = await queue.rows("SELECT *, payload::text AS text FROM dead_letter_queue")
    assert (letter["type"], letter["text"]) == ("test/long", '{"n": 1.0}')
    assert [each["outcome"] for each in letter["error_history"]] == [
        "oom",
        "disrupted",
        "disrupted",
        "deadline",
    ]
    assert [each["attempt"] for each in letter["error_history"]] == [1, 2, 3, 4]
    assert (letter["failure_count"], letter["error_category"]) == (4, "timeout")
    assert letter["first_failed_at"] < letter["last_failed_at"]


async def _dead(queue: Queue, count: int, *, type_: str = "test/long") -> list[UUID]:
    ids = await queue.enqueue(*(new_job(type_) for _ in range(count)))
    await queue.claim()
    for job in ids:
        await queue.end(job, Outcome.PERMANENT)
    return ids


async def test_one_dead_letter_is_redriven(queue: Queue) -> None:
    await queue.register(job_type())
    one, other = await _dead(queue, 2)
    letter = await queue.value("SELECT id FROM dead_letter_queue WHERE original_job_id = %s", one)
    redrive = "SELECT redrive_dead_letters(%s, by => 'ann') AS id"
    assert await queue.rows(redrive, letter) == [{"id": one}]
    assert await queue.rows(redrive, letter) == []
    [row] = await queue.rows("SELECT * FROM dead_letter_queue WHERE id = %s", letter)
    assert (row["resolved_by"], row["resolution_notes"]) == ("ann", "redriven")
    assert await queue.claimed() == [one]
    assert await queue.status(other) == "failed"


async def test_those_of_a_filter_are_redriven_at_a_rate(queue: Queue) -> None:
    await queue.register(job_type(), job_type("test/other"))
    ids = await _dead(queue, 5)
    others = await _dead(queue, 2, type_="test/other")
    redriven = await queue.rows(
        "SELECT redrive_dead_letters(only_type => 'test/long', only_category => 'validation', "
        "at_most => 4, per_second => 0.01) AS id"
    )
    assert [row["id"] for row in redriven] == ids[:4]
    rows = await queue.rows(
        "SELECT run_at - min(run_at) OVER () AS wait, stage FROM background_jobs "
        "WHERE status = 'queued' ORDER BY run_at"
    )
    assert [row["wait"] for row in rows] == [place * 100 * SECOND for place in range(4)]
    assert [row["stage"] for row in rows] == ["ready", *["scheduled"] * 3]
    assert await queue.claimed() == [ids[0]]
    assert {await queue.status(job) for job in (ids[4], *others)} == {"failed"}


async def test_a_job_that_is_gone_is_made_again_from_its_letter(queue: Queue) -> None:
    await queue.register(job_type())
    [job] = await _dead(queue, 1)
    await queue.execute("DELETE FROM background_jobs")
    assert await queue.rows("SELECT redrive_dead_letters() AS id") == [{"id": job}]
    assert await queue.claimed() == [job]


async def test_a_resolved_letter_is_closed(queue: Queue) -> None:
    await queue.register(job_type())
    [job] = await _dead(queue, 1)
    letter = await queue.value("SELECT id FROM dead_letter_queue")
    resolve = "SELECT resolve_dead_letter(%s, 'known', 'ann')"
    assert await queue.value(resolve, letter) is True
    assert await queue.value(resolve, letter) is False
    assert await queue.rows("SELECT redrive_dead_letters()") == []
    assert await queue.status(job) == "failed"


async def test_retries_and_redrives_at_once_run_each_job_once(queue: Queue) -> None:
    await queue.register(job_type())
    ids = await _dead(queue, 200)
    retry = "SELECT count(*) FILTER (WHERE retry_failed_job(id)) FROM background_jobs"
    redrive = "SELECT count(*) FROM redrive_dead_letters(per_second => 1e6)"
    counts = await asyncio.gather(
        *(queue.value(statement) for statement in (redrive, retry, redrive, retry))
    )
    counts.append(await queue.value(redrive))
    assert sum(counts) == len(ids)
    rows = await queue.rows("SELECT count(*) AS n FROM background_jobs WHERE retry_count = 1")
    assert rows == [{"n": 200}]


# Many at once


@pytest.mark.timeout(120)
async def test_many_that_claim_at_once_pass_no_limit_and_claim_nothing_twice(
    queue: Queue, database_urls: DatabaseUrls
) -> None:
    limits = {"test/long": 3, "test/keyed": 2, "test/throttled": 4}
    await queue.register(
        job_type(concurrency={"limit": 3}),
        job_type("test/keyed", concurrency={"limit": 2, "key": "repository.name"}),
        job_type("test/throttled", throttle={"limit": 4, "periodSeconds": 3600}),
    )
    jobs: list[NewJob] = []
    for place in range(120):
        jobs += [new_job(), new_job("test/throttled")]
        payload = json.dumps({"repository": {"name": str(place % 3)}})
        jobs.append(new_job("test/keyed", payload=payload, key_path="repository.name"))
    claimed: Counter[tuple[UUID, int]] = Counter()
    worst: Counter[str] = Counter()
    enqueuing = True

    async def enqueue(some: Sequence[NewJob]) -> None:
        for job in some:
            await queue.enqueue(job)

    async def claim_and_end(database: Database, seed: int) -> None:
        chance, empty = random.Random(seed), 0
        while enqueuing or empty < 20:
            async with database.transaction() as connection:
                mine = await claim(connection, window=100)
            empty = 0 if mine else empty + 1
            claimed.update((each.job_id, each.attempt) for each in mine)
            for each in mine:
                await asyncio.sleep(chance.random() / 200)
                await Queue(database).end(each.job_id, attempt=each.attempt)
            await asyncio.sleep(chance.random() / 500)

    async def watch() -> None:
        while enqueuing:
            rows = await queue.rows(
                "SELECT j.type, j.concurrency_key, count(*) AS live FROM job_attempts a "
                "JOIN background_jobs j ON j.id = a.job_id "
                "WHERE a.ended_at IS NULL GROUP BY 1, 2"
            )
            for row in rows:
                worst[row["type"]] = max(worst[row["type"]], row["live"])
            await asyncio.sleep(0.002)

    async with Database(database_urls.service, size=10) as database:
        claimers = asyncio.gather(*(claim_and_end(database, seed) for seed in range(10)))
        watcher = asyncio.create_task(watch())
        await asyncio.gather(*(enqueue(jobs[start::4]) for start in range(4)))
        await asyncio.sleep(0.5)
        enqueuing = False
        await asyncio.gather(claimers, watcher)
    assert set(claimed.values()) == {1}
    assert worst["test/long"] <= limits["test/long"]
    assert worst["test/keyed"] <= limits["test/keyed"]
    by_type = Counter(job.type for job in jobs if (job.id, 1) in claimed)
    assert by_type == {"test/long": 120, "test/keyed": 120, "test/throttled": 4}


async def test_jobs_of_one_key_submitted_while_it_is_forgotten_are_not(
    queue: Queue, database_urls: DatabaseUrls
) -> None:
    """A claim that forgets an emptied key, and inserts that park behind it, at the same time."""
    await queue.register(job_type(concurrency=BY_KEY))
    done = False

    async def claim_on() -> None:
        while not done:
            await queue.claim()
            await queue.end_all()

    claiming = asyncio.create_task(claim_on())
    jobs = [keyed("a") for _ in range(150)]

    async def enqueue(some: Sequence[NewJob]) -> None:
        for job in some:
            await queue.enqueue(job)
            await asyncio.sleep(0)

    await asyncio.gather(*(enqueue(jobs[start::3]) for start in range(3)))
    left = "SELECT NOT EXISTS (SELECT FROM background_jobs WHERE status = 'queued')"
    await eventually(lambda: queue.value(left))
    done = True
    await claiming
    statuses = await queue.rows("SELECT DISTINCT status FROM background_jobs")
    assert statuses == [{"status": "completed"}]


# An application's own long transaction


async def test_an_open_transaction_that_submitted_jobs_holds_up_nobody(
    queue: Queue, database_urls: DatabaseUrls
) -> None:
    await queue.register(job_type(concurrency=BY_KEY))
    upstream, parked = await queue.enqueue(keyed("a"), keyed("a"))
    await queue.claim()
    # One for a parked key, one that waits for what runs, and one with a unique key.
    payload = """'{"repository": {"name": "a"}}'"""
    submissions = [
        f"SELECT hybridjobs.submit_job('test/long', {payload})",
        f"SELECT hybridjobs.submit_job('test/long', depends_on => ARRAY['{upstream}']::uuid[])",
        "SELECT hybridjobs.submit_job('test/long', unique_key => 'mine')",
    ]
    async with held_open(database_urls.handlers, *submissions), asyncio.timeout(30):
        # Nothing waits for a lock even for a moment.
        impatient = psycopg.conninfo.make_conninfo(
            database_urls.owner, options="-c lock_timeout=50ms"
        )
        async with Database(impatient, size=1) as database:
            other = Queue(database)
            await other.claim()
            await other.end(upstream)
            assert await other.claimed() == [parked]
            await other.end(parked)
            await other.claim()
            await other.enqueue(keyed("a"), keyed("b"), new_job(unique_key="yours"))
            assert len(await other.claimed()) == 3


async def test_a_unique_key_in_an_open_transaction_holds_up_its_own_job_alone(
    queue: Queue, database_urls: DatabaseUrls
) -> None:
    await queue.register(job_type())
    enqueuer = Enqueuer(database_urls.service)
    task = asyncio.create_task(enqueuer.run())
    submission = "SELECT hybridjobs.submit_job('test/long', unique_key => 'mine')"
    async with held_open(database_urls.handlers, submission), asyncio.timeout(30):
        answers = await asyncio.gather(
            *(enqueuer.enqueue([new_job(key=str(place))]) for place in range(20)),
            enqueuer.enqueue([new_job(unique_key="mine")]),
            *(enqueuer.enqueue([new_job(key=str(place))]) for place in range(20, 40)),
            return_exceptions=True,
        )
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert [type(answer) for answer in refused] == [RowLocked]
    assert await queue.value("SELECT count(*) FROM background_jobs") == 40
    [row] = await enqueuer.enqueue([new_job(unique_key="mine")])
    assert row.created
    task.cancel()


async def test_a_blocked_row_that_somebody_keeps_locked_holds_up_neither_outcome_nor_claim(
    queue: Queue, database_urls: DatabaseUrls
) -> None:
    upstream, other = new_job(), new_job()
    waiting, free = after(upstream), after(upstream)
    await _first(queue, upstream, waiting, free)
    cancel = f"SELECT hybridjobs.cancel_job('{waiting.id}')"
    async with held_open(database_urls.owner, cancel), asyncio.timeout(30):
        await queue.end(upstream.id)
        await queue.enqueue(other)
        assert sorted(await queue.claimed()) == sorted([free.id, other.id])
    # That transaction was rolled back: the job is still wanted.
    assert await queue.claimed() == [waiting.id]
