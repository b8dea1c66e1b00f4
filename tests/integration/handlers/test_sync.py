import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from hybridjobs.handlers.github.details import pull_request_details
from hybridjobs.handlers.github.sync import repository_sync
from hybridjobs.ids import new_id
from hybridjobs.sdk import RetryLater
from hybridjobs.sdk.testing import HandlerRun, run_handler
from tests.integration.handlers.conftest import Query
from tests.integration.handlers.killing import attempt
from tests.recorded import deliveries
from tests.recorded.server import Fault, GitHub

LARGE = "octo-org/large"
PAYLOAD = {"owner": "octo-org", "repo": "large"}
DAY_SECONDS = 86_400


def pages_asked(github: GitHub) -> list[int]:
    return [
        int(dict(part.split("=") for part in each["query"].split("&")).get("page", 1))
        for each in github.requests
        if each["path"].endswith("/pulls") and each["status"] in (200, 304)
    ]


async def pass_time(query: Query) -> None:
    """As if the last syncs were longer ago than any cooldown."""
    await query(
        "UPDATE github.repositories SET last_synced_at = last_synced_at - interval '2 days'"
        " RETURNING 1"
    )


async def test_all_pages_within_the_days_are_read_and_no_more(github: GitHub, query: Query) -> None:
    github.large(LARGE, 2500, step_seconds=DAY_SECONDS / 100)  # a hundred a day
    run = await run_handler(repository_sync, PAYLOAD | {"days": 12})
    (rows,) = await query(
        "SELECT count(*), min(number), max(number), bool_or(author_id IS NULL) AS ghosts,"
        " count(DISTINCT state) AS states FROM github.pull_requests"
    )
    assert rows == {"count": 1200, "min": 1301, "max": 2500, "ghosts": True, "states": 3}
    assert pages_asked(github) == [*range(1, 14), 1]
    assert (run.result["pullRequests"], run.result["pages"]) == (1200, 14)
    (repository,) = await query("SELECT * FROM github.repositories WHERE full_name = %s", LARGE)
    assert repository["sync_status"] == "completed"
    assert repository["last_synced_at"] is not None
    assert run.result["repositoryId"] == str(repository["id"])


async def test_progress_counts_days_and_ends_whole(github: GitHub) -> None:
    github.large(LARGE, 500, step_seconds=DAY_SECONDS / 50)
    run = await run_handler(repository_sync, PAYLOAD | {"days": 8})
    done = [each.done for each in run.progress]
    assert done == sorted(done)
    assert {each.total for each in run.progress} == {8}
    assert done[0] < 8
    assert run.progress[-1].done == 8
    assert run.progress[-1].message == "400 pull requests"


async def test_a_small_repository_takes_two_requests(github: GitHub, query: Query) -> None:
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    github.change("Codertocat/Hello-World", 2, {"updated_at": now})
    run = await run_handler(repository_sync, {"owner": "Codertocat", "repo": "Hello-World"})
    assert len(github.requests) == 2
    assert run.result["inserted"] == 1
    (row,) = await query("SELECT number FROM github.pull_requests")
    assert row == {"number": 2}


async def test_a_repository_without_recent_changes_is_synced_too(
    github: GitHub, query: Query
) -> None:
    run = await run_handler(repository_sync, {"owner": "Codertocat", "repo": "Hello-World"})
    assert (run.result["pullRequests"], run.result["inserted"]) == (0, 0)
    (row,) = await query("SELECT sync_status FROM github.repositories")
    assert row == {"sync_status": "completed"}


async def test_an_attempt_goes_on_where_the_last_one_stopped(github: GitHub, query: Query) -> None:
    github.large(LARGE, 1000, step_seconds=600)
    # Seven pages, then the rate limit.
    github.faults.append(Fault(status=403, path="/pulls$", after=7, headers={"retry-after": "1"}))
    first = HandlerRun()
    with pytest.raises(RetryLater) as raised:
        await run_handler(repository_sync, PAYLOAD, run=first)
    assert pages_asked(github) == list(range(1, 8))
    assert await query("SELECT count(*) FROM github.pull_requests") == [{"count": 700}]
    (row,) = await query("SELECT sync_status FROM github.repositories WHERE full_name = %s", LARGE)
    assert row == {"sync_status": "syncing"}

    await asyncio.sleep(raised.value.after_seconds)
    github.requests.clear()
    second = await run_handler(
        repository_sync, PAYLOAD, checkpoint=first.checkpoints[-1], attempt=2
    )
    assert pages_asked(github) == [8, 9, 10, 1]
    assert await query("SELECT count(*) FROM github.pull_requests") == [{"count": 1000}]
    assert second.result["inserted"] == 1000


async def test_a_server_error_in_the_middle_is_ridden_out(github: GitHub, query: Query) -> None:
    github.large(LARGE, 300, step_seconds=600)
    github.faults.append(Fault(status=502, path="/pulls$", after=1))
    await run_handler(repository_sync, PAYLOAD)
    assert await query("SELECT count(*) FROM github.pull_requests") == [{"count": 300}]


async def test_what_moves_onto_a_page_already_read_is_not_missed(
    github: GitHub, query: Query
) -> None:
    github.large(LARGE, 300, step_seconds=600)
    pages: list[int] = []

    def meddle(checkpoint: Any) -> None:
        pages.append(checkpoint["page"])
        if pages == [1]:
            now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            github.change(LARGE, 150, {"updated_at": now, "title": "moved up"})

    await attempt(repository_sync, PAYLOAD, new_id(), meddle)
    assert await query("SELECT count(*) FROM github.pull_requests") == [{"count": 300}]
    rows = await query("SELECT title FROM github.pull_requests WHERE number = 150")
    assert rows == [{"title": "moved up"}]


async def test_lists_erase_nothing_that_details_brought(github: GitHub, query: Query) -> None:
    github.large(LARGE, 20, step_seconds=600)
    columns = "additions, deletions, commits, mergeable_state, merged_by_id, body"
    number = 17  # merged: 17 % 3 == 2
    await run_handler(pull_request_details, PAYLOAD | {"number": number})
    (before,) = await query(f"SELECT {columns} FROM github.pull_requests")
    assert None not in (before["additions"], before["merged_by_id"])
    await run_handler(repository_sync, PAYLOAD)
    statement = f"SELECT {columns} FROM github.pull_requests WHERE number = %s"
    assert await query(statement, number) == [before]
    assert await query("SELECT count(*) FROM github.pull_requests") == [{"count": 20}]


async def test_concurrent_jobs_on_the_same_rows_all_end(github: GitHub, query: Query) -> None:
    github.large(LARGE, 400, step_seconds=600)
    jobs: list[Any] = [run_handler(repository_sync, PAYLOAD) for _ in range(4)]
    jobs += [
        run_handler(pull_request_details, PAYLOAD | {"number": number})
        for number in range(1, 400, 20)
    ]
    await asyncio.gather(*jobs)
    (rows,) = await query(
        "SELECT count(*), count(DISTINCT github_id) AS different FROM github.pull_requests"
    )
    assert rows == {"count": 400, "different": 400}


async def test_a_renamed_repository_is_synced_by_its_old_name(github: GitHub, query: Query) -> None:
    github.large(LARGE, 150, step_seconds=600)
    await run_handler(repository_sync, PAYLOAD)
    github.rename(LARGE, "octo-org/greater")
    await pass_time(query)
    run = await run_handler(repository_sync, PAYLOAD)
    assert run.result["fullName"] == "octo-org/greater"
    assert (run.result["inserted"], run.result["pullRequests"]) == (0, 150)
    names = await query("SELECT DISTINCT repository_full_name FROM github.pull_requests")
    assert names == [{"repository_full_name": "octo-org/greater"}]


@pytest.mark.parametrize(
    "delivery",
    [each for each in deliveries() if each.event == "repository" and each.action != "deleted"],
    ids=lambda each: f"{each.index}-{each.action}",
)
async def test_every_recorded_delivery_of_a_repository_is_a_payload(
    delivery: Any, github: GitHub, query: Query
) -> None:
    repository = delivery.document["repository"]
    run = await run_handler(repository_sync, delivery.document)
    # Not full_name: whoever made the recording anonymous forgot it in two of them.
    assert run.result["fullName"] == f"{repository['owner']['login']}/{repository['name']}"
