"""A repository is discovered and captured whole, by local processes, on a GitHub in trouble.

With HYBRIDJOBS_TEST_SCALE=full it has 5,000 pull requests, as for `make bench-scale`; else 500.
GitHub gives 100 requests (GraphQL: points) a window, refuses some by secondary limits, answers some
with 502, with nonsense, or late, and changes while it is read. Workers are killed at random.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from bench.report import Report
from tests.integration.dev.conftest import Dev, write_types
from tests.integration.handlers.compared import COLUMNS, as_stored, stored
from tests.integration.handlers.conftest import Query
from tests.integration.handlers.scale.killer import killing
from tests.recorded.simulation import Simulation, simulation

pytestmark = pytest.mark.timeout(1800)

NAME = "octo-org/simulated"
DISCOVER = "discover/repository.new"
SYNC, DETAILS = "capture/repository.sync.graphql", "capture/pr.details.graphql"
IS_FULL = os.environ.get("HYBRIDJOBS_TEST_SCALE") == "full"
PULLS = 5000 if IS_FULL else 500
# They have all come before the last page of the list is asked for.
PLAN: dict[str, int] = {"pullRequests": PULLS, "updates": PULLS // 100 + 1, "everyRequests": 1}
LIMITS = {"core": 100, "graphql": 100, "windowSeconds": 4, "retryAfterSeconds": 1}
TROUBLE = {"badGateway": 0.02, "secondary": 0.02, "malformed": 0.01, "slow": 0.1, "slowSeconds": 1}
KILL_EVERY_SECONDS = 4
KILLS = 20 if IS_FULL else 4  # of each turn, at most
# When rows were read last, and what their author was called then: who is renamed changes no pull
# request, whose row has the new login when it is read again. The contributor's own has it at once.
READ_AT = ["last_synced_at", "last_updated_at", "author_login"]
_DAY_AGO = """
UPDATE github.repositories SET last_synced_at = last_synced_at - interval '1 day' RETURNING 1
"""
_OPEN = "SELECT FROM hybridjobs.background_jobs WHERE status IN ('queued', 'processing') LIMIT 1"


@dataclass(frozen=True)
class Stage:
    """A `hybridjobs dev` with the GitHub handlers, its database, and the GitHub they ask."""

    dev: Dev
    query: Query
    github: Simulation


@dataclass(frozen=True)
class Turn:
    """What one discovery took; `spoiled` requests got no answer that could be used."""

    seconds: float
    requests: int
    spoiled: int
    killed: int


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where Postgres' user may enter."""
    made = Path(tempfile.mkdtemp(prefix="hybridjobs-test-scale-"))
    made.chmod(0o755)
    # Short waits after a kill; and GitHub, here one process, answers two at once in time.
    more = "retry: {limit: 20, baseSeconds: 0.2, maxSeconds: 1}, concurrency: {limit: 2}"
    types = (DISCOVER, "classify/repository.single", SYNC, DETAILS)
    write_types(
        made / "types",
        **{each.replace("/", "-"): f"{{type: {each}, {more}}}" for each in types},
    )
    yield made
    shutil.rmtree(made)


@pytest.fixture
async def stage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    async with simulation() as github:
        monkeypatch.setenv("GITHUB_API_URL", github.url)
        monkeypatch.setenv("GITHUB_TOKEN", "token")
        dev = Dev(folder)
        await dev.start("--types-dir", "types", module="hybridjobs.handlers.github")
        try:
            async with await psycopg.AsyncConnection.connect(
                dev.owner_url, autocommit=True, row_factory=dict_row
            ) as connection:

                async def query(statement: str, *parameters: object) -> list[dict[str, Any]]:
                    cursor = await connection.execute(statement.encode(), parameters)
                    return await cursor.fetchall()

                yield Stage(dev, query, github)
        finally:
            await dev.close()


async def test_all_of_a_repository_is_captured_by_the_fewest_requests(stage: Stage) -> None:
    github = stage.github
    await github.set("simulate", fullName=NAME, **PLAN)
    await github.set("limits", **LIMITS)
    await github.set("trouble", **TROUBLE)
    turns = [await discovered(stage, seed=1)]
    await check_rows(stage)
    minimum = (await github.ask("minimum", fullName=NAME))["graphql"]
    # Issues are captured by a type of their own.
    least = minimum["total"] - minimum["issues"]
    # What changes while it is read may do so before its details are asked for.
    check_requests(turns[0], least, least - minimum["changed"])
    first = await digests(stage)
    await report(stage, turns, least)

    # As if a day had passed: the list is read again, and nothing of it is due.
    await stage.query(_DAY_AGO)
    turns.append(await discovered(stage, seed=2))
    check_requests(turns[1], minimum["pulls"] + minimum["again"] + minimum["repository"])
    assert await digests(stage) == first

    # As if nothing had ever been captured: all is asked for again, and nothing changes.
    await stage.query(_DAY_AGO)
    await stage.query("DELETE FROM github.pull_request_captures RETURNING 1")
    turns.append(await discovered(stage, seed=3))
    of_once = ("created", "commitActivity", "contributorActivity", "changed")
    check_requests(turns[2], least - sum(minimum[name] for name in of_once))
    assert await digests(stage) == first
    await check_jobs(stage, minimum, turns)
    await report(stage, turns, least)


async def discovered(stage: Stage, *, seed: int) -> Turn:
    """Have it discovered, and wait until all that follows from that is over."""
    before, began = await stage.github.ask("usage"), monotonic()
    async with killing(stage.dev.pid, seed, KILL_EVERY_SECONDS, KILLS) as killed:
        await stage.dev.submit(DISCOVER, {"owner": "octo-org", "repo": "simulated"})
        while await stage.query(_OPEN):  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.5)
    after = await stage.github.ask("usage")
    troubles = {name: after["troubles"].get(name, 0) for name in ("badGateway", "malformed")}
    spoiled = sum(troubles.values()) + after["secondary"] - before["secondary"]
    spoiled -= sum(before["troubles"].get(name, 0) for name in troubles)
    requests = after["requests"] - before["requests"]
    assert after["quotaExceeded"] == 0, after
    return Turn(round(monotonic() - began, 1), requests, spoiled, len(killed))


def check_requests(turn: Turn, least: int, sure: int | None = None) -> None:
    """No more than a tenth over the fewest, of which some may not be needed.

    Not counted are those that GitHub itself spoiled, by 502, nonsense or a secondary limit, and one
    for each worker that was killed: the answer that it had not stored is asked for again.
    """
    counted = turn.requests - turn.spoiled - turn.killed
    assert counted <= 1.1 * least, (turn, least)
    assert turn.requests - turn.spoiled >= (least if sure is None else sure), (turn, least)


async def check_rows(stage: Stage) -> None:
    """The tables hold exactly what GitHub does."""
    expected = as_stored(await stage.github.truth(NAME))
    assert len(expected["pull_requests"]) > PULLS
    for table in COLUMNS:
        there = await stored(stage.query, table)
        assert there.keys() == expected[table].keys(), table
        assert there == expected[table], table


async def digests(stage: Stage) -> dict[str, str]:
    """Of all rows of each table, down to the last column that is no time of reading."""
    found = {}
    for table in COLUMNS:
        statement = (
            "SELECT md5(string_agg(md5((to_jsonb(t) - %s::text[])::text), '' ORDER BY t.id))"
            f" AS digest FROM github.{table} t"
        )
        (row,) = await stage.query(statement, READ_AT)
        found[table] = row["digest"]
    return found


async def check_jobs(stage: Stage, minimum: dict[str, int], turns: list[Turn]) -> None:
    """Every job has completed once, and no pull request was captured twice as it was."""
    statuses = await stage.query("SELECT DISTINCT status FROM hybridjobs.background_jobs")
    assert statuses == [{"status": "completed"}]
    types = await stage.query(
        "SELECT j.type, count(DISTINCT j.id) AS jobs,"
        " count(*) FILTER (WHERE a.outcome = 'succeeded') AS succeeded,"
        " count(*) FILTER (WHERE a.exit_code = 137 AND a.outcome = 'failed') AS killed"
        " FROM hybridjobs.background_jobs j JOIN hybridjobs.job_attempts a ON a.job_id = j.id"
        " GROUP BY 1"
    )
    jobs = {row["type"]: row["jobs"] for row in types}
    assert jobs.pop(DETAILS) <= 2 * minimum["details"] + minimum["changed"]
    assert jobs == {DISCOVER: 3, "classify/repository.single": 1, SYNC: 3}
    assert all(row["succeeded"] == row["jobs"] for row in types)
    # Who was killed after it had reported its end counts as completed.
    assert 0 < sum(row["killed"] for row in types) <= sum(turn.killed for turn in turns)
    (asked,) = await stage.query(
        "SELECT count(*) AS numbers, count(DISTINCT n) AS pulls"
        " FROM hybridjobs.background_jobs, json_array_elements_text(payload->'numbers') AS n"
        " WHERE type = %s",
        DETAILS,
    )
    # Twice all, and those that were changed once more.
    assert asked["numbers"] <= 2 * asked["pulls"] + PLAN["updates"]


async def report(stage: Stage, turns: list[Turn], least: int) -> None:
    """Keep the figures of the full run."""
    usage = await stage.github.ask("usage")
    print(turns, least, usage, flush=True)
    if not IS_FULL:
        return
    result = Report("scale", "make bench-scale")
    first = turns[0]
    result.add("pull_requests", PULLS)
    result.add("requests", first.requests)
    result.add("requests_over_minimum", (first.requests - first.spoiled) / least)
    result.add("quota_exceeded", usage["quotaExceeded"])
    result.add("seconds", first.seconds)
    result.detail("minimum", least)
    result.detail("turns", [asdict(turn) for turn in turns])
    result.detail("github", {"plan": PLAN, "limits": LIMITS, "trouble": TROUBLE})
    result.detail("usage", usage)
    result.write()
