import json
from datetime import datetime
from typing import Any

import psycopg
import pytest

from hybridjobs.handlers.github.client import TransientError
from hybridjobs.handlers.github.details import pull_request_details
from hybridjobs.sdk import PermanentError, RetryLater
from hybridjobs.sdk.testing import run_handler
from tests.conftest import DatabaseUrls, free_port
from tests.integration.handlers.conftest import Query
from tests.recorded import deliveries
from tests.recorded.server import Fault, GitHub

REPOSITORY = "Codertocat/Hello-World"
TABLES = (
    "repositories", "contributors", "pull_requests", "reviews", "issues", "comments",
    "tracked_repositories", "sync_logs", "pull_request_captures", "issue_captures",
)  # fmt: skip
PAYLOAD = {"owner": "Codertocat", "repo": "Hello-World", "number": 2}


async def details(payload: object = PAYLOAD) -> Any:
    return (await run_handler(pull_request_details, payload)).result


def pull_request(github: GitHub, full_name: str = REPOSITORY, number: int = 2) -> dict[str, Any]:
    return github.pull_requests[github.names[full_name.lower()]][number]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def test_a_pull_request_is_stored_as_github_tells_it(github: GitHub, query: Query) -> None:
    result = await details()
    expected = pull_request(github)
    (row,) = await query("SELECT * FROM github.pull_requests")
    for column in (
        "number", "title", "body", "draft", "mergeable", "mergeable_state", "additions",
        "deletions", "changed_files", "commits", "html_url", "diff_url", "patch_url",
    ):  # fmt: skip
        assert row[column] == expected[column]
    assert row["github_id"] == expected["id"] == result["githubId"]
    assert str(row["id"]) == result["pullRequestId"]
    assert row["id"].version == 7
    assert (row["base_branch"], row["head_branch"]) == (
        expected["base"]["ref"],
        expected["head"]["ref"],
    )
    assert row["created_at"] == moment(expected["created_at"])
    assert row["updated_at"] == moment(expected["updated_at"])
    (repository,) = await query("SELECT * FROM github.repositories")
    assert repository["github_id"] == expected["base"]["repo"]["id"]
    assert repository["full_name"] == REPOSITORY == row["repository_full_name"]
    assert str(repository["id"]) == result["repositoryId"]
    (author,) = await query("SELECT * FROM github.contributors WHERE id = %s", row["author_id"])
    assert author["username"] == expected["user"]["login"] == row["author_login"]


async def test_a_second_run_changes_no_ids_and_adds_no_rows(github: GitHub, query: Query) -> None:
    first, second = await details(), await details()
    assert (first.pop("new"), second.pop("new")) == (True, False)
    assert first == second
    (counts,) = await query(
        "SELECT (SELECT count(*) FROM github.pull_requests) AS pull_requests,"
        " (SELECT count(*) FROM github.repositories) AS repositories"
    )
    assert counts == {"pull_requests": 1, "repositories": 1}


ABOUT_PULL_REQUESTS = [
    delivery
    for delivery in deliveries()
    if "pull_request" in delivery.document or "pull_request" in delivery.document.get("issue", {})
]


@pytest.mark.parametrize(
    "delivery", ABOUT_PULL_REQUESTS, ids=lambda each: f"{each.index}-{each.event}.{each.action}"
)
async def test_every_recorded_delivery_about_a_pull_request_is_a_payload(
    delivery: Any, github: GitHub, query: Query
) -> None:
    full_name = delivery.document["repository"]["full_name"]
    assert full_name.lower() in github.names
    result = await details(json.loads(delivery.payload))
    (row,) = await query("SELECT * FROM github.pull_requests")
    assert row["repository_full_name"] == full_name
    assert row["state"] == result["state"]


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"state": "open", "closed_at": None, "merged_at": None}, "open"),
        ({"state": "closed", "closed_at": "2026-01-01T00:00:00Z", "merged_at": None}, "closed"),
        (
            {
                "state": "closed",
                "closed_at": "2026-01-01T00:00:00Z",
                "merged_at": "2026-01-01T00:00:00Z",
            },
            "merged",
        ),
    ],
)
async def test_a_state_is_open_closed_or_merged(
    github: GitHub, query: Query, changes: dict[str, Any], state: str
) -> None:
    github.change(REPOSITORY, 2, changes)
    assert (await details())["state"] == state
    (row,) = await query("SELECT state, merged, closed_at, merged_at FROM github.pull_requests")
    assert row["state"] == state
    assert row["merged"] is (state == "merged")
    assert (row["closed_at"] is None) is (state == "open")


async def test_a_reopened_pull_request_is_not_closed(github: GitHub, query: Query) -> None:
    github.change(REPOSITORY, 2, {"state": "closed", "closed_at": "2026-01-01T00:00:00Z"})
    await details()
    github.change(REPOSITORY, 2, {"state": "open", "closed_at": None})
    await details()
    (row,) = await query("SELECT state, closed_at FROM github.pull_requests")
    assert row == {"state": "open", "closed_at": None}


async def test_a_null_overwrites_nothing_known(github: GitHub, query: Query) -> None:
    github.change(REPOSITORY, 2, {"body": "why", "mergeable": True, "additions": 7})
    await details()
    (before,) = await query(
        "SELECT body, mergeable, additions, author_id FROM github.pull_requests"
    )
    github.change(REPOSITORY, 2, {"body": None, "mergeable": None, "additions": None, "user": None})
    await details()
    (after,) = await query("SELECT body, mergeable, additions, author_id FROM github.pull_requests")
    assert after == before
    assert before["author_id"] is not None


async def test_a_ghosts_pull_request_is_kept_without_author(github: GitHub, query: Query) -> None:
    github.change(REPOSITORY, 2, {"user": None})
    await details()
    (row,) = await query("SELECT author_id, author_login FROM github.pull_requests")
    assert row == {"author_id": None, "author_login": None}


async def test_a_bot_is_a_contributor(github: GitHub, query: Query) -> None:
    bot = next(user for user in github.users if user["type"] == "Bot")
    github.change(REPOSITORY, 2, {"user": bot})
    await details()
    (row,) = await query("SELECT * FROM github.contributors WHERE github_id = %s", bot["id"])
    assert (row["username"], row["is_bot"]) == (bot["login"], True)


async def test_a_renamed_repository_keeps_its_row(github: GitHub, query: Query) -> None:
    before = await details()
    github.rename(REPOSITORY, "Codertocat/Hallo-Welt")
    by_old_name = await details()
    assert before["repositoryId"] == by_old_name["repositoryId"]
    (row,) = await query("SELECT full_name, owner, name FROM github.repositories")
    assert row == {
        "full_name": "Codertocat/Hallo-Welt",
        "owner": "Codertocat",
        "name": "Hallo-Welt",
    }


async def test_a_renamed_user_keeps_their_row_and_their_name_can_be_taken(
    github: GitHub, query: Query
) -> None:
    user = pull_request(github)["user"]
    await details()
    github.change(REPOSITORY, 2, {"user": {**user, "login": "renamed"}})
    await details()
    rows = await query("SELECT username FROM github.contributors WHERE github_id = %s", user["id"])
    assert rows == [{"username": "renamed"}]
    github.change(REPOSITORY, 2, {"user": {**user, "id": 999_999_999}})
    await details()
    (count,) = await query(
        "SELECT count(*) FROM github.contributors WHERE github_id IN (%s, 999999999)", user["id"]
    )
    assert count == {"count": 2}


async def test_what_is_older_changes_nothing(github: GitHub, query: Query) -> None:
    await details()
    title = pull_request(github)["title"]
    github.change(REPOSITORY, 2, {"title": "old", "updated_at": "2001-01-01T00:00:00Z"})
    await details()
    assert await query("SELECT title FROM github.pull_requests") == [{"title": title}]


async def test_text_that_postgres_cannot_hold_is_cleaned(github: GitHub, query: Query) -> None:
    github.change(REPOSITORY, 2, {"body": "a\x00b\u2028𝛑"})
    await details()
    assert await query("SELECT body FROM github.pull_requests") == [{"body": "ab\u2028𝛑"}]


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_server_error_is_transient_and_costs_a_quick_job_no_waiting(
    github: GitHub, status: int
) -> None:
    github.faults.append(Fault(status=status, times=10))
    with pytest.raises(TransientError, match=f"GitHub answers {status}"):
        await details()
    assert len(github.requests) == 1


async def test_a_network_in_trouble_is_transient(
    github: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_API_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(TransientError, match=r"cannot ask GitHub for /repos/.*ConnectError"):
        await details()


async def test_an_exhausted_rate_limit_waits_for_its_reset(github: GitHub) -> None:
    await details()
    github.remaining = 0
    with pytest.raises(RetryLater, match="GitHub's rate limit: API rate limit exceeded") as raised:
        await details()
    assert 3500 < raised.value.after_seconds <= 3602


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [(403, {"retry-after": "30"}, 31), (429, {"retry-after": "90"}, 91), (429, {}, 61)],
)
async def test_a_secondary_rate_limit_waits_as_told(
    github: GitHub, status: int, headers: dict[str, str], seconds: float
) -> None:
    github.faults.append(Fault(status=status, headers=headers))
    with pytest.raises(RetryLater) as raised:
        await details()
    assert seconds - 20 < raised.value.after_seconds <= seconds


async def test_a_database_that_is_away_is_transient(
    github: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://127.0.0.1:{free_port()}/x")
    with pytest.raises(psycopg.OperationalError):
        await details()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DATABASE_URL", "", "needs `database: true`"),
        ("GITHUB_API_URL", "github.example", "GITHUB_API_URL is no address"),
    ],
)
async def test_a_type_set_up_wrongly_is_a_permanent_error(
    github: GitHub, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(PermanentError, match=message):
        await details()


async def test_a_reader_may_read_and_nothing_else(
    github: GitHub, database_urls: DatabaseUrls
) -> None:
    await details()
    async with await psycopg.AsyncConnection.connect(database_urls.owner) as connection:
        await connection.execute("SET ROLE hybridjobs_reader")
        for table in TABLES:
            await connection.execute(f"SELECT FROM github.{table}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("DELETE FROM github.pull_requests")
