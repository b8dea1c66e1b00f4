"""Limits, shared through the table, on a real server and several processes."""

import asyncio
import contextlib
import itertools
import os
import sys
import time
from typing import Any

import psycopg
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hybridjobs.handlers.github.client.errors import Limited
from hybridjobs.handlers.github.client.ledger import Ledger, Taken
from hybridjobs.handlers.github.client.limits import Limit
from hybridjobs.handlers.github.client.opening import github_client
from hybridjobs.handlers.github.client.turns import Turns
from hybridjobs.sdk import RetryLater
from tests.conftest import DatabaseUrls
from tests.integration.handlers.client.conftest import HOUR_SECONDS, Open, Stage, digest
from tests.integration.handlers.conftest import Query
from tests.recorded.server import Fault, GitHub

HERE = ("Codertocat", "Hello-World")
INSERT = """
INSERT INTO github.rate_limits
    (token_sha256, resource, request_limit, remaining, reset_at, blocked_until)
VALUES (%s, %s, 5000, %s, now() + make_interval(secs => %s), now() + make_interval(secs => %s))
RETURNING 1
"""
ROW = "SELECT remaining, in_flight FROM github.rate_limits WHERE resource = 'core'"

# A job, as a pod would run it: requests at once until it is put back.
WORKER = """
import asyncio, os, psycopg
from hybridjobs.handlers.github.client import github_client
from hybridjobs.sdk import RetryLater

async def main():
    url = os.environ["DATABASE_URL"]
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        async with github_client(connection) as github:
            async def work():
                while True:
                    try:
                        await github.commit_activity("octo-org", "hello")
                    except RetryLater as later:
                        return later.after_seconds
            print(*await asyncio.gather(*(work() for _ in range(6))))

asyncio.run(main())
"""


def uncounted(_request: Request, _body: object) -> Response:
    """Of an endpoint that is never asked conditionally: each request costs."""
    return JSONResponse([])


async def test_the_token_with_the_most_left_is_used(
    github: GitHub, stage: Stage, query: Query, client: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "poor,rich\nblocked")
    await query(INSERT, digest("poor"), "core", 100, 600, None)
    await query(INSERT, digest("rich"), "core", 4000, 600, None)
    await query(INSERT, digest("blocked"), "core", 5000, 600, None)
    await query(INSERT, digest("blocked"), "*", 0, 0, 600)
    stage.answer = lambda request, body: JSONResponse({"login": "octocat"})
    async with client() as api:
        await api.user("octocat")
    assert stage.tokens == ["rich"]


async def test_a_job_that_would_run_dry_asks_for_nothing(
    github: GitHub, query: Query, client: Open
) -> None:
    await query(INSERT, digest("token"), "core", 10, 600, None)
    async with client() as api:
        with pytest.raises(RetryLater, match="nothing left of core for any token, until") as raised:
            await api.repository(*HERE)
    assert github.requests == []
    assert 590 < raised.value.after_seconds <= 601


async def test_what_one_job_meets_holds_for_the_next(github: GitHub, client: Open) -> None:
    github.faults.append(Fault(status=403, headers={"retry-after": "40"}))
    async with client() as api:
        with pytest.raises(RetryLater):
            await api.repository(*HERE)
    async with client() as api:
        with pytest.raises(RetryLater, match="by a secondary limit") as raised:
            await api.repository(*HERE)
    assert len(github.requests) == 1
    assert 20 < raised.value.after_seconds <= 41


async def test_a_limit_of_one_token_leaves_the_others(
    github: GitHub, client: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "one,two")
    github.faults.append(Fault(status=403, headers={"retry-after": "40"}))
    async with client() as api:
        assert (await api.repository(*HERE))["name"] == "Hello-World"
    assert [each["status"] for each in github.requests] == [403, 200]


async def test_a_reset_that_has_passed_by_our_clock_ends_all_the_same(
    github: GitHub, client: Open
) -> None:
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(time.time()) - 30)}
    github.faults.append(Fault(status=403, times=100, headers=headers))
    async with client() as api:
        with pytest.raises(RetryLater) as raised:
            await api.repository(*HERE)
    assert len(github.requests) == 1
    assert raised.value.after_seconds > 1


async def test_processes_together_never_use_the_reserve(
    github: GitHub, stage: Stage, database_urls: DatabaseUrls, query: Query
) -> None:
    stage.answer = uncounted
    github.remaining = 120
    workers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", WORKER, stdout=-1, env={**os.environ, "PYTHONPATH": "operator"}
        )
        for _ in range(2)
    ]
    for worker in workers:
        printed, _ = await worker.communicate()
        waits = [float(text) for text in printed.split()]
        assert len(waits) == 6
        assert all(HOUR_SECONDS - 60 < wait <= HOUR_SECONDS + 2 for wait in waits)
    assert {each["status"] for each in github.requests} <= {200, 304}
    # Those in flight at the end were counted twice at most.
    left = github.limits.bucket("token", "core").remaining
    assert 10 <= left <= 22
    assert await query(ROW) == [{"remaining": left, "in_flight": 0}]


async def test_much_that_remains_is_not_written_each_time(
    github: GitHub, stage: Stage, query: Query, client: Open
) -> None:
    stage.answer = uncounted
    async with client() as api:
        for _ in range(20):
            await api.commit_activity(*HERE)
        assert await query(ROW) == [{"remaining": 4999, "in_flight": 0}]
        github.remaining = 4800
        await api.commit_activity(*HERE)
        assert await query(ROW) == [{"remaining": 4799, "in_flight": 0}]


async def test_little_that_remains_is_written_each_time(
    github: GitHub, stage: Stage, query: Query, client: Open
) -> None:
    stage.answer = uncounted
    github.remaining = 30
    async with client() as api:
        for count in range(1, 21):
            await api.commit_activity(*HERE)
            assert await query(ROW) == [{"remaining": 30 - count, "in_flight": 0}]
        with pytest.raises(RetryLater):
            await api.commit_activity(*HERE)


async def test_what_a_failed_request_had_taken_is_given_back(
    github: GitHub, query: Query, client: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    github.remaining = 30
    async with client() as api:
        await api.repository(*HERE)
        github.faults.append(Fault(delay_seconds=30))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await api.repository(*HERE)
        assert await query(ROW) == [{"remaining": 29, "in_flight": 0}]


async def test_costly_requests_together_never_use_more_than_remains(
    connection: psycopg.AsyncConnection[Any], query: Query
) -> None:
    token = digest("token")
    await query(INSERT, token, "graphql", 300, 600, None)
    pods = [Ledger(Turns(connection)) for _ in range(20)]
    taken = []
    for pod in pods:
        with contextlib.suppress(RetryLater):
            taken.append(await pod.take([token], "graphql", 25))
    # 290 of them are not the reserve.
    assert len(taken) == 11


async def test_a_new_window_is_begun_by_one_request(
    connection: psycopg.AsyncConnection[Any], query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridjobs.handlers.github.client.ledger.OPENING_SECONDS", 30.0)
    token = digest("token")
    await query(INSERT, token, "graphql", 0, -1, None)
    pods = [Ledger(Turns(connection)) for _ in range(4)]
    first = await pods[0].take([token], "graphql", 25)
    others = [asyncio.create_task(pod.take([token], "graphql", 25)) for pod in pods[1:]]
    done, _ = await asyncio.wait(others, timeout=1)
    assert not done
    await pods[0].settle(first, Limit(100, 75, time.time() + 600))
    ends = await asyncio.gather(*others, return_exceptions=True)
    # With the first one these are 75 of 100, of which 5 are the reserve.
    assert [type(each) for each in ends].count(RetryLater) == 1
    assert await query("SELECT remaining, in_flight, opening_until FROM github.rate_limits") == [
        {"remaining": 75, "in_flight": 50, "opening_until": None}
    ]


async def test_who_fails_to_begin_a_window_leaves_it_to_the_next(
    connection: psycopg.AsyncConnection[Any], query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = digest("token")
    await query(INSERT, token, "core", 0, -1, None)
    one, two = Ledger(Turns(connection)), Ledger(Turns(connection))
    taken = await one.take([token], "core")
    await one.give_back(taken)
    assert (await two.take([token], "core")).opens
    # Killed, it lets the others wait a while.
    monkeypatch.setattr("hybridjobs.handlers.github.client.ledger.OPENING_SECONDS", 1.0)
    [row] = await query(
        "UPDATE github.rate_limits SET opening_until = now() + interval '1 s'"
        " RETURNING opening_until"
    )
    await Ledger(Turns(connection)).take([token], "core")
    [after] = await query("SELECT now() >= %s AS over", row["opening_until"])
    assert after["over"]


def _seen() -> list[Limit]:
    now = float(int(time.time()))
    return [
        Limit(5000, 7, now + 100),
        Limit(5000, 9, now + 101),
        Limit(5000, 4000, now + 3700),
        Limit(5000, 3000, now + 3701, blocked_until=now + 50),
    ]


async def test_the_order_of_writers_does_not_matter(
    connection: psycopg.AsyncConnection[Any], query: Query
) -> None:
    seen = _seen()
    for order in itertools.permutations(seen):
        token = digest(str(order))
        for each in order:
            pod = Ledger(Turns(connection))
            if each.blocked_until:
                await pod.block(Taken(token, "core", 1, None), Limited("", 50, secondary=False))
            await pod.settle(Taken(token, "core", 1, None), each)
            await pod.flush()
    rows = await query(
        "SELECT remaining, extract(epoch FROM reset_at)::float8 AS reset,"
        " blocked_until > now() + interval '30 s' AS blocked, count(*)"
        " FROM github.rate_limits GROUP BY 1, 2, 3"
    )
    reset = seen[-1].reset_at
    assert rows == [{"remaining": 3000, "reset": reset, "blocked": True, "count": 24}]


async def test_nothing_is_written_within_the_handlers_transaction(
    github: GitHub, connection: psycopg.AsyncConnection[Any], query: Query
) -> None:
    async with github_client(connection) as api:
        async with connection.transaction(force_rollback=True):
            await connection.execute("SELECT 1")
            await api.repository(*HERE)
            github.faults.append(Fault(status=429, headers={"retry-after": "60"}))
            with pytest.raises(RetryLater):
                await api.repository(*HERE)
        assert await query("SELECT FROM github.rate_limits") == []
    rows = await query("SELECT resource FROM github.rate_limits ORDER BY resource")
    assert [row["resource"] for row in rows] == ["*", "core"]


async def test_a_transaction_of_another_task_takes_nothing_with_it(
    connection: psycopg.AsyncConnection[Any], query: Query
) -> None:
    """Requests end while another task writes: what is rolled back is its own alone."""
    ledger = Ledger(Turns(connection))

    async def write() -> None:
        for _ in range(200):
            async with connection.transaction(force_rollback=True):
                await connection.execute("SELECT 1")
            await asyncio.sleep(0.001)

    async def learn(first: int) -> None:
        for index in range(first, first + 100):
            limit = Limited("", 60, secondary=False)
            await ledger.block(Taken(index.to_bytes(32, "big"), "core", 1, None), limit)
            await asyncio.sleep(0.001)

    await asyncio.gather(write(), learn(0), learn(100))
    (early,) = await query("SELECT count(*) FROM github.rate_limits")
    assert early["count"] > 0
    await ledger.flush()
    assert await query("SELECT count(*) FROM github.rate_limits") == [{"count": 200}]


async def test_a_reader_sees_limits_and_no_answers(database_urls: DatabaseUrls) -> None:
    async with await psycopg.AsyncConnection.connect(
        database_urls.owner, autocommit=True
    ) as connection:
        await connection.execute("SET ROLE hybridjobs_reader")
        await connection.execute("SELECT FROM github.rate_limits")
        for table in ("responses", "installation_tokens"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(f"SELECT FROM github.{table}".encode())


async def test_a_querys_first_run_is_not_begun_where_its_cost_does_not_remain(
    github: GitHub, stage: Stage, client: Open, query: Query
) -> None:
    document = """query($n: Int!) {
      repository(owner: "a", name: "b") { issues(first: $n) { nodes { comments(first: 50) {
        nodes { reactions(first: 1) { totalCount } } } } } }
    }"""
    await query(INSERT, digest("token"), "graphql", 45, HOUR_SECONDS, None)  # 35 but the reserve
    async with client() as api:
        with pytest.raises(RetryLater, match="nothing left of graphql"):
            await api.query(*HERE, document, {"n": 100})
    assert stage.tokens == []
