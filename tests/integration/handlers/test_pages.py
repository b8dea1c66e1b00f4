"""What pages leave in the tables, column by column."""

from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from hybridjobs.handlers.github.rows import page
from hybridjobs.handlers.github.tables import (
    Counts,
    GitHubTables,
    UnknownRepositoryError,
)
from tests import github_objects as objects
from tests.conftest import DatabaseUrls
from tests.integration.handlers.conftest import Query

REPOSITORY = objects.repository()


def at(day: int, hour: int = 0) -> datetime:
    return datetime(2026, 1, day, hour, tzinfo=UTC)


async def one(query: Query, table: str, *columns: str) -> dict[str, Any]:
    """The only row of a table."""
    (row,) = await query(f"SELECT {', '.join(columns) or '*'} FROM github.{table}")
    return row


async def person(query: Query, github_id: int) -> Any:
    (row,) = await query("SELECT id FROM github.contributors WHERE github_id = %s", github_id)
    return row["id"]


async def test_a_whole_user_is_a_whole_row(tables: GitHubTables, query: Query) -> None:
    told: dict[str, Any] = {
        "email": "o@example.org",
        "company": "GitHub",
        "location": "Here",
        "bio": "cat",
        "blog": "https://blog.example",
        "public_repos": 8,
        "public_gists": 7,
        "followers": 6,
        "following": 5,
    }
    whole = objects.user(
        **told, name="Octo", created_at="2026-01-01T00:00:00Z", updated_at="2026-01-05T00:00:00Z"
    )
    await tables.write(page(REPOSITORY, [objects.pull_request(user=whole)]))
    row = await one(query, "contributors")
    assert row["id"].version == 7
    assert (
        row.items()
        >= {
            **told,
            "github_id": 1,
            "username": "octocat",
            "display_name": "Octo",
            "avatar_url": whole["avatar_url"],
            "profile_url": whole["html_url"],
            "github_created_at": at(1),
            "github_updated_at": at(5),
            "is_bot": False,
            "is_active": True,
        }.items()
    )
    # In part, and older: neither erases anything.
    older = objects.user(login="old", bio="old", updated_at="2026-01-04T00:00:00Z")
    for found in (objects.user(), {"id": 1, "login": "octocat"}, older):
        await tables.write(page(REPOSITORY, [objects.pull_request(user=found)]))
    assert await one(query, "contributors") == row


async def test_a_repository_is_a_whole_row(tables: GitHubTables, query: Query) -> None:
    same: dict[str, Any] = {
        "description": "hi", "homepage": "https://h.example", "language": "C",
        "stargazers_count": 1, "watchers_count": 2, "forks_count": 3, "open_issues_count": 4,
        "size": 5, "default_branch": "main", "is_template": False, "has_issues": True,
        "has_projects": True, "has_wiki": False, "has_pages": True, "has_downloads": False,
        "has_discussions": True, "topics": ["a", "b"],
    }  # fmt: skip
    whole = objects.repository(
        **same, fork=True, archived=True, disabled=False, license={"spdx_id": "MIT"},
        created_at="2026-01-01T00:00:00Z", pushed_at="2026-01-02T00:00:00Z",
    )  # fmt: skip
    await tables.write(page(whole))
    row = await one(query, "repositories")
    assert row.items() >= {
        **same,
        "github_id": objects.REPOSITORY_ID, "full_name": "octo-org/hello", "owner": "octo-org",
        "name": "hello", "is_fork": True, "is_archived": True, "is_disabled": False,
        "is_private": False, "license": "MIT", "avatar_url": whole["owner"]["avatar_url"],
        "github_created_at": at(1), "github_updated_at": at(1), "github_pushed_at": at(2),
        "is_active": True, "total_pull_requests": None,
    }.items()  # fmt: skip
    await tables.write(page(REPOSITORY))
    assert (await one(query, "repositories")).items() >= {**same, "license": "MIT"}.items()


async def test_a_review_is_stored_as_github_tells_it(tables: GitHubTables, query: Query) -> None:
    found = {1: [objects.review()]}
    written = await tables.write(page(REPOSITORY, [objects.pull_request()], reviews=found))
    assert written.reviews == Counts(given=1, inserted=1)
    row = await one(query, "reviews")
    assert row.pop("id").version == 7
    assert row == {
        "github_id": 3001,
        "repository_id": written.repository_id,
        "pull_request_id": await tables.pull_request_id(2001),
        "author_id": await person(query, 2),
        "author_login": "reviewer",
        "state": "APPROVED",
        "body": "fine",
        "submitted_at": at(2),
        "updated_at": None,
        "commit_id": "c0ffee",
    }


async def test_comments_are_stored_as_github_tells_them(tables: GitHubTables, query: Query) -> None:
    written = await tables.write(
        page(
            REPOSITORY,
            [objects.pull_request()],
            issue_comments={1: [objects.issue_comment(9)]},
            review_comments={1: [objects.review_comment(9)]},
        )
    )
    assert written.comments == Counts(given=2, inserted=2)
    rows = await query("SELECT * FROM github.comments ORDER BY comment_type")
    lines = {
        "review_github_id": 3001, "position": 4, "original_position": 5,
        "diff_hunk": "@@ -1 +1 @@", "path": "README.md", "commit_id": "c0ffee",
        "original_commit_id": "decaf",
    }  # fmt: skip
    both = {
        "github_id": 9,
        "repository_id": written.repository_id,
        "pull_request_id": await tables.pull_request_id(2001),
        "issue_id": None,
        "commenter_id": await person(query, 3),
        "author_login": "commenter",
        "body": "why so?",
        "created_at": at(2),
        "updated_at": at(2, 1),
        "in_reply_to_github_id": None,
        "in_reply_to_id": None,
    }
    assert {row.pop("id").version for row in rows} == {7}
    assert rows == [
        {**both, "comment_type": "issue_comment", **dict.fromkeys(lines)},
        {**both, "comment_type": "review_comment", **lines},
    ]


async def test_an_issue_and_its_comments_are_stored(tables: GitHubTables, query: Query) -> None:
    written = await tables.write(
        page(
            REPOSITORY, issues=[objects.issue()], issue_comments={7: [objects.issue_comment(1)]}
        )
    )  # fmt: skip
    assert written.total == Counts(given=2, inserted=2)
    row = await one(query, "issues")
    issue_id = row.pop("id")
    del row["last_synced_at"]
    assert row == {
        "github_id": 6007,
        "repository_id": written.repository_id,
        "number": 7,
        "title": "Issue 7",
        "body": "broken",
        "state": "closed",
        "author_id": await person(query, 1),
        "author_login": "octocat",
        "closed_by_id": await person(query, 2),
        "labels": [{"name": "bug", "color": "d73a4a"}],
        "assignees": [{"github_id": 3, "login": "commenter"}],
        "milestone": {"number": 2, "title": "1.0", "state": "open", "due_on": None},
        "comments_count": 3,
        "created_at": at(1),
        "updated_at": at(3),
        "closed_at": at(3),
    }
    comment = await one(query, "comments", "issue_id", "pull_request_id")
    assert comment == {"issue_id": issue_id, "pull_request_id": None}
    again = objects.issue(state="open", closed_at=None, closed_by=None, labels=[], milestone=None)
    await tables.write(page(REPOSITORY, issues=[again]))
    reopened = await one(query, "issues", "state", "closed_at", "labels", "milestone", "body")
    assert reopened == {
        "state": "open", "closed_at": None, "labels": [], "milestone": row["milestone"],
        "body": "broken",
    }  # fmt: skip


BEFORE: dict[str, Any] = {
    "reviews": {1: [objects.review(updated_at="2026-01-05T00:00:00Z")]},
    "issue_comments": {1: [objects.issue_comment(9)]},
    "review_comments": {1: [objects.review_comment(9)]},
    "issues": [objects.issue()],
}


@pytest.mark.parametrize(
    "after",
    [
        # Older.
        {
            "reviews": {1: [objects.review(body="x", updated_at="2026-01-04T00:00:00Z")]},
            "issue_comments": {1: [objects.issue_comment(9, body="x", updated_at=str(at(2)))]},
            "review_comments": {1: [objects.review_comment(9, path="x", updated_at=str(at(2)))]},
            "issues": [objects.issue(title="x", updated_at="2026-01-02T00:00:00Z")],
        },
        # In part: nulls, ghosts, members left out.
        {
            "reviews": {1: [{"id": 3001, "state": "APPROVED", "user": None, "body": None}]},
            "issue_comments": {1: [objects.issue_comment(9, body=None, user=None)]},
            "review_comments": {1: [objects.issue_comment(9, body=None, user=None)]},
            "issues": [
                objects.issue(
                    body=None, user=None, closed_by=None, labels=None, assignees=None,
                    milestone=None, comments=None, closed_at=None,
                )
            ],
        },
    ],
    ids=["older", "in part"],
)  # fmt: skip
async def test_what_is_older_or_null_overwrites_nothing(
    tables: GitHubTables, query: Query, after: dict[str, Any]
) -> None:
    async def everything() -> list[dict[str, Any]]:
        return [
            row
            for table in ("reviews", "comments", "issues", "contributors")
            for row in await query(
                f"SELECT to_jsonb(t) - '{{last_synced_at}}'::text[] AS row FROM github.{table} t"
                " ORDER BY t.id"
            )
        ]

    await tables.write(page(REPOSITORY, [objects.pull_request()], **BEFORE))
    before = await everything()
    assert len(before) == 7
    await tables.write(page(objects.REPOSITORY_ID, **after))
    assert await everything() == before


async def test_what_is_newer_is_taken_and_counted(tables: GitHubTables, query: Query) -> None:
    await tables.write(page(REPOSITORY, [objects.pull_request()], **BEFORE))
    newer = "2026-02-01T00:00:00Z"
    written = await tables.write(
        page(
            objects.REPOSITORY_ID,
            reviews={1: [objects.review(state="DISMISSED", updated_at=newer)]},
            review_comments={1: [objects.review_comment(9, body="now", updated_at=newer)]},
            issue_comments={1: [objects.issue_comment(10, user=None)]},
            issues=[objects.issue(updated_at="2026-01-02T00:00:00Z")],
        )
    )
    assert written.reviews == Counts(given=1, updated=1)
    assert written.comments == Counts(given=2, inserted=1, updated=1)
    assert written.issues == Counts(given=1)
    assert written.total == Counts(given=4, inserted=1, updated=2)
    rows = await query("SELECT body, updated_at FROM github.comments ORDER BY updated_at DESC")
    assert rows[0] == {"body": "now", "updated_at": datetime(2026, 2, 1, tzinfo=UTC)}
    ghost = await query("SELECT commenter_id, author_login FROM github.comments WHERE github_id=10")
    assert ghost == [{"commenter_id": None, "author_login": None}]


async def test_a_review_goes_forward_only(tables: GitHubTables, query: Query) -> None:
    states = ["PENDING", "COMMENTED", "PENDING", "DISMISSED", "APPROVED"]
    seen = []
    for state in states:
        submitted_at = None if state == "PENDING" else "2026-01-02T00:00:00Z"
        found = objects.review(state=state, submitted_at=submitted_at)
        await tables.write(page(REPOSITORY, [objects.pull_request()], reviews={1: [found]}))
        seen.append((await one(query, "reviews", "state"))["state"])
    assert seen == ["PENDING", "COMMENTED", "COMMENTED", "DISMISSED", "DISMISSED"]


async def test_what_was_merged_stays_merged(tables: GitHubTables, query: Query) -> None:
    merged: dict[str, Any] = {"state": "closed", "closed_at": str(at(2)), "merged_at": str(at(2))}
    await tables.write(page(REPOSITORY, [objects.pull_request(**merged)]))
    closed = objects.pull_request(state="closed", closed_at=str(at(2)))
    await tables.write(page(REPOSITORY, [closed, objects.pull_request(2)]))
    rows = await query("SELECT state, merged, merged_at FROM github.pull_requests ORDER BY number")
    assert rows == [
        {"state": "merged", "merged": True, "merged_at": at(2)},
        {"state": "open", "merged": False, "merged_at": None},
    ]


async def test_what_belongs_to_nothing_stored_is_told(tables: GitHubTables, query: Query) -> None:
    written = await tables.write(
        page(
            REPOSITORY,
            [objects.pull_request(1)],
            issues=[objects.issue(7)],
            reviews={1: [objects.review(1)], 7: [objects.review(2)], 8: [objects.review(3)]},
            issue_comments={7: [objects.issue_comment(1)], 9: [objects.issue_comment(2)]},
        )
    )
    assert written.orphans == (7, 8, 9)
    assert written.reviews.inserted == written.comments.inserted == 1
    with pytest.raises(UnknownRepositoryError, match="repository 5 is not stored"):
        await tables.write(page(5, issues=[objects.issue()]))


async def test_a_transferred_repository_and_the_one_that_took_its_name(
    tables: GitHubTables, query: Query
) -> None:
    first = (await tables.write(page(REPOSITORY, [objects.pull_request()]))).repository_id
    taken = await tables.write(page(objects.repository(2002)))
    by_name = await tables.repositories.by_name("Octo-Org/HELLO")
    assert by_name is not None
    assert by_name.id == taken.repository_id != first
    await tables.write(page(objects.repository(full_name="new-org/moved")))
    moved = await tables.repositories.by_id(first)
    assert moved is not None
    assert (moved.owner, moved.name, moved.full_name) == ("new-org", "moved", "new-org/moved")
    # Gone, and found again.
    assert await tables.repositories.set_gone(taken.repository_id) is True
    assert await tables.repositories.set_gone(taken.repository_id) is False
    gone = await tables.repositories.by_name("octo-org/hello")
    assert gone is not None
    assert not gone.is_active
    await tables.write(page(objects.repository(2002)))
    assert {
        row["is_active"] for row in await query("SELECT is_active FROM github.repositories")
    } == {True}
    assert await query("SELECT count(*) FROM github.pull_requests") == [{"count": 1}]


async def test_a_bot_stays_one_and_a_name_may_pass_on(tables: GitHubTables, query: Query) -> None:
    bot = objects.user(1, "Copilot", type="Bot")
    without_type = {"id": 1, "login": "Copilot"}
    for author in (bot, without_type, objects.user(8, "Copilot"), objects.user(1, "renamed")):
        await tables.write(page(REPOSITORY, [objects.pull_request(user=author)]))
    rows = await query("SELECT github_id, username, is_bot FROM github.contributors ORDER BY 1")
    assert rows == [
        {"github_id": 1, "username": "renamed", "is_bot": True},
        {"github_id": 8, "username": "Copilot", "is_bot": False},
    ]


async def test_enormous_bodies_are_kept_whole(tables: GitHubTables, query: Query) -> None:
    body = "𝛑x" * 2_000_000
    found = {1: [objects.issue_comment(1, body=body)]}
    await tables.write(page(REPOSITORY, [objects.pull_request(body=body)], issue_comments=found))
    rows = await query(
        "SELECT md5(body) = md5(%s) AS same FROM github.pull_requests"
        " UNION ALL SELECT md5(body) = md5(%s) FROM github.comments",
        body,
        body,
    )
    assert rows == [{"same": True}] * 2


async def test_an_unchanged_person_is_not_rewritten(tables: GitHubTables, query: Query) -> None:
    version = "SELECT xmin::text, last_updated_at FROM github.contributors"
    await tables.write(page(REPOSITORY, [objects.pull_request()]))
    before = await query(version)
    await tables.write(page(REPOSITORY, [objects.pull_request()]))
    assert await query(version) == before


@pytest.mark.parametrize(
    "columns",
    [
        {"pull_request_id": None, "issue_id": None},
        {"pull_request_id": "pull_request", "issue_id": "issue"},
    ],
)
async def test_a_comment_belongs_to_exactly_one(
    tables: GitHubTables, database_urls: DatabaseUrls, columns: dict[str, str | None]
) -> None:
    await tables.write(page(REPOSITORY, [objects.pull_request()], **BEFORE))
    set_parents = ", ".join(
        f"{name} = {'NULL' if of is None else f'(SELECT id FROM github.{of}s)'}"
        for name, of in columns.items()
    )
    async with await psycopg.AsyncConnection.connect(database_urls.handlers) as connection:
        with pytest.raises(psycopg.errors.CheckViolation, match="one_parent"):
            await connection.execute(f"UPDATE github.comments SET {set_parents}".encode())
