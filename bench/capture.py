"""Rows a second that captures write, the memory that they take, and the requests that they make.

    python -m bench.capture [--rounds 3] [--pull-requests 2000] [--large 100000]

Pages of 100 simulated pull requests, with all their reviews and comments, are made rows of and
written as the handlers do it (fsync and synchronous_commit on, one transaction a page), and in turn
the same rows are copied into tables with the same columns and indexes by plain COPY, as many a
transaction. Then one worker process syncs a simulated repository of 10,000 pull requests, another
one of --large, a row each: the peak of what it has resident must not grow with the rows. Last, a
whole capture by GraphQL is held against the fewest requests that it could take.
"""

import argparse
import asyncio
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

from bench.ingest import database
from bench.report import Report
from hybridjobs.handlers.github.graph.details import pull_requests_graphql
from hybridjobs.handlers.github.graph.sync import repository_sync_graphql
from hybridjobs.handlers.github.rows import page
from hybridjobs.handlers.github.tables import GitHubTables, github_tables
from hybridjobs.sdk.testing import run_handler
from hybridjobs.store.migrate import migrate
from tests.recorded.paths import DATA, require
from tests.recorded.server import GitHub, load
from tests.recorded.server.plan import Plan
from tests.recorded.simulation import Simulation, simulation

NAME = "octo-org/bench"
HERE = {"owner": "octo-org", "repo": "bench", "days": 3650}
PAGE = 100
SMALL = 10_000
TABLES = ("contributors", "pull_requests", "reviews", "comments")
SYNC = "hybridjobs.handlers.github.graph.sync:repository_sync_graphql"
# Nothing that makes anybody wait.
LIMITS = {"core": 10**6, "graphql": 10**6, "pointsPerMinute": 10**6}


def pages(pull_requests: int) -> list[dict[str, Any]]:
    """What `rows.page` takes, a hundred pull requests each."""
    github = GitHub(load(require(DATA)))
    github.simulate(Plan(NAME, pull_requests=pull_requests))
    contents = github.contents[github.names[NAME]]
    found = []
    for first in range(1, pull_requests + 1, PAGE):
        numbers = range(first, min(first + PAGE, pull_requests + 1))
        found.append(
            {
                "repository": contents.repository,
                "pull_requests": [contents.pull(each) for each in numbers],
                "reviews": {each: contents.reviews(each) for each in numbers},
                "review_comments": {each: contents.review_comments(each) for each in numbers},
                "issue_comments": {each: contents.issue_comments(each) for each in numbers},
            }
        )
    return found


async def write(tables: GitHubTables, given: list[dict[str, Any]]) -> tuple[int, float]:
    """Rows that are new in all tables but the people's, and seconds."""
    await tables.connection.execute("TRUNCATE github.repositories, github.contributors CASCADE")
    await tables.connection.execute("CHECKPOINT")
    began, written = monotonic(), 0
    for each in given:
        written += (await tables.write(page(**each))).total.inserted
    return written, monotonic() - began


async def copied(tables: GitHubTables, transactions: int) -> tuple[int, float]:
    """As many rows by COPY as are stored, and seconds."""
    connection = tables.connection
    lines: dict[str, list[bytes]] = {}
    for table in TABLES:
        await connection.execute(f"DROP TABLE IF EXISTS bench_{table}".encode())
        like = f"CREATE TABLE bench_{table} (LIKE github.{table} INCLUDING ALL)"
        await connection.execute(like.encode())
        async with connection.cursor().copy(f"COPY github.{table} TO STDOUT".encode()) as out:
            lines[table] = [bytes(line) async for line in out]
    await connection.execute("CHECKPOINT")
    began = monotonic()
    for place in range(transactions):
        async with connection.transaction():
            for table in TABLES:
                part = b"".join(_part(lines[table], place, transactions))
                copy = f"COPY bench_{table} FROM STDIN".encode()
                async with connection.cursor().copy(copy) as into:
                    await into.write(part)
    seconds = monotonic() - began
    return sum(len(lines[table]) for table in TABLES if table != "contributors"), seconds


def _part(lines: list[bytes], place: int, parts: int) -> Iterator[bytes]:
    yield from lines[len(lines) * place // parts : len(lines) * (place + 1) // parts]


async def rates(given: list[dict[str, Any]], rounds: int) -> list[dict[str, float]]:
    """Rows a second, of ours and of the baseline, in turn."""
    done = []
    async with github_tables() as tables:
        for number in range(rounds):
            rows, seconds = await write(tables, given)
            same, baseline = await copied(tables, len(given))
            if rows != same:
                sys.exit(f"{rows} rows were written, and {same} copied")
            done.append({"rows": rows, "ours": rows / seconds, "copy": rows / baseline})
            print(
                f"{number}: {rows} rows, ours {rows / seconds:.0f}/s, COPY {rows / baseline:.0f}/s",
                flush=True,
            )
    return done


async def peak_memory_mb(github: Simulation, folder: Path, pull_requests: int) -> dict[str, Any]:
    """Of one worker process that syncs so many, a row each."""
    name = f"octo-org/of-{pull_requests}"
    await github.set("simulate", fullName=name, pullRequests=pull_requests)
    payload = folder / f"{pull_requests}.json"
    payload.write_text(json.dumps({**HERE, "repo": name.partition("/")[2]}))
    command = ["-c", "from hybridjobs.cli import main; main()", "run", SYNC, "--payload"]
    began = monotonic()
    with (folder / "worker.log").open("w") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, str(payload), stdout=output, stderr=output
        )
    peak = 0.0
    while process.returncode is None:
        peak = max(peak, _peak_mb(process.pid))
        await asyncio.wait([asyncio.ensure_future(process.wait())], timeout=0.2)
    if process.returncode:
        sys.exit((folder / "worker.log").read_text()[-2000:])
    async with github_tables() as tables:
        cursor = await tables.connection.execute(
            "SELECT count(*) FROM github.pull_requests p JOIN github.repositories r"
            " ON r.id = p.repository_id WHERE r.full_name = %s",
            [name],
        )
        row = await cursor.fetchone()
    if row is None or row[0] != pull_requests:
        sys.exit(f"{row} of {pull_requests} rows are there")
    found = {"rows": pull_requests, "peak_mb": peak, "seconds": round(monotonic() - began, 1)}
    print(found, flush=True)
    return found


def _peak_mb(pid: int) -> float:
    """What the process had resident at most so far; 0 where it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(found[0]) * 1024 / 1e6 if found else 0.0


async def requests(github: Simulation, pull_requests: int) -> dict[str, Any]:
    """Requests of a whole capture, and the fewest."""
    await github.set("simulate", fullName=NAME, pullRequests=pull_requests)
    before = (await github.ask("usage"))["requests"]
    await run_handler(repository_sync_graphql, HERE)
    for first in range(1, pull_requests + 1, PAGE):
        numbers = list(range(first, min(first + PAGE, pull_requests + 1)))
        await run_handler(pull_requests_graphql, HERE | {"numbers": numbers})
    made = (await github.ask("usage"))["requests"] - before
    minimum = (await github.ask("minimum", fullName=NAME))["graphql"]
    return {
        "made": made,
        "minimum": sum(minimum[name] for name in ("pulls", "again", "details", "more")),
    }


async def measure(options: argparse.Namespace, folder: Path, url: str, result: Report) -> None:
    """Everything, in turn."""
    await migrate(url, logins={})
    rounds = await rates(pages(options.pull_requests), options.rounds)
    result.detail("rounds", rounds)
    result.add("rows_per_second", median(each["ours"] for each in rounds))
    result.add("rows_per_second_by_copy", median(each["copy"] for each in rounds))
    result.add("capture_ratio", median(each["ours"] / each["copy"] for each in rounds))
    async with simulation() as github:
        os.environ |= {"GITHUB_API_URL": github.url, "GITHUB_TOKEN": "token"}
        await github.set("limits", **LIMITS)
        asked = await requests(github, options.pull_requests)
        few = await peak_memory_mb(github, folder, SMALL)
        many = await peak_memory_mb(github, folder, options.large)
    result.detail("requests", asked)
    result.detail("memory", [few, many])
    result.add("peak_memory_mb", many["peak_mb"])
    result.add("peak_memory_mb_of_10000_rows", few["peak_mb"])
    result.add("requests_over_minimum", asked["made"] / asked["minimum"])


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pull-requests", type=int, default=2000)
    parser.add_argument("--large", type=int, default=100_000)
    options = parser.parse_args()
    result = Report("capture", shlex.join(["python", "-m", "bench.capture", *sys.argv[1:]]))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hybridjobs-bench-")))
        folder.chmod(0o755)
        postgres = stack.enter_context(database(folder / "postgres", None))
        os.environ["DATABASE_URL"] = postgres.url
        asyncio.run(measure(options, folder, postgres.url, result))
    result.write()


if __name__ == "__main__":
    main()
