"""Writes pages.

A page is one transaction, and every transaction takes its locks in one order: the repository, then
contributors, then the rest table by table, each by GitHub's id. Pages of one repository come one
after another, those of several share people alone; so no two wait for each other. What GitHub
calls older than what is stored changes nothing, and a null never overwrites a known value (but
`closed_at` of what is open again).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection, AsyncCursor
from psycopg.types.json import Jsonb

from hybridjobs.handlers.github.rows import Page, Row
from hybridjobs.handlers.github.tables import statements


class UnknownRepositoryError(Exception):
    """What was to be written belongs to a repository that is not stored."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of one table: `given`, and of these `inserted` and `updated`; the others were older."""

    given: int = 0
    inserted: int = 0
    updated: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a page.

    `orphans` are the numbers of pull requests and issues that are not stored: the reviews and
    comments of theirs were left out.
    """

    repository_id: UUID
    pull_requests: Counts = Counts()
    issues: Counts = Counts()
    reviews: Counts = Counts()
    comments: Counts = Counts()
    orphans: tuple[int, ...] = ()

    @property
    def total(self) -> Counts:
        """All tables together, without repository and people."""
        every = (self.pull_requests, self.issues, self.reviews, self.comments)
        return Counts(
            sum(each.given for each in every),
            sum(each.inserted for each in every),
            sum(each.updated for each in every),
        )


async def write_page(connection: AsyncConnection[Any], page: Page) -> Written:
    """Write the rows within the open transaction; UnknownRepositoryError where it is not stored."""
    async with connection.cursor() as cursor:
        if page.repository is not None:
            await _write(cursor, statements.UPSERT_REPOSITORY, [page.repository])
        await cursor.execute(statements.REPOSITORY, [page.repository_github_id])
        found = await cursor.fetchone()
        if found is None:
            raise UnknownRepositoryError(f"repository {page.repository_github_id} is not stored")
        repository_id: UUID = found[0]
        await _write(cursor, statements.UPSERT_CONTRIBUTORS, page.contributors)
        of_repository = {"repository_id": repository_id}
        pull_requests = await _write(
            cursor, statements.UPSERT_PULL_REQUESTS, page.pull_requests, of_repository
        )
        issues = await _write(cursor, statements.UPSERT_ISSUES, page.issues, of_repository)
        parents = await _parents(cursor, page, repository_id)
        reviews = [
            row | parents[row["number"]]
            for row in page.reviews
            if parents.get(row["number"], {}).get("pull_request_id")
        ]
        comments = [
            row | parents[row["number"]] for row in page.comments if row["number"] in parents
        ]
        orphans = {row["number"] for row in page.reviews} - {row["number"] for row in reviews}
        orphans |= {row["number"] for row in page.comments} - parents.keys()
        return Written(
            repository_id=repository_id,
            pull_requests=pull_requests,
            issues=issues,
            reviews=await _write(cursor, statements.UPSERT_REVIEWS, reviews, of_repository),
            comments=await _write_comments(cursor, comments, of_repository),
            orphans=tuple(sorted(orphans)),
        )


async def _write(
    cursor: AsyncCursor[Any],
    statement: str,
    rows: list[Row],
    parameters: Mapping[str, object] | None = None,
) -> Counts:
    if not rows:
        return Counts()
    await cursor.execute(statement.encode(), {"rows": Jsonb(rows), **(parameters or {})})
    written = await cursor.fetchall()
    inserted = sum(is_new for (is_new,) in written)
    return Counts(len(rows), inserted, len(written) - inserted)


async def _parents(
    cursor: AsyncCursor[Any], page: Page, repository_id: UUID
) -> dict[int, dict[str, str | None]]:
    numbers = sorted({row["number"] for row in (*page.reviews, *page.comments)})
    if not numbers:
        return {}
    await cursor.execute(statements.PARENTS, {"numbers": numbers, "repository_id": repository_id})
    return {
        number: {
            "pull_request_id": pull_request_id and str(pull_request_id),
            "issue_id": issue_id and str(issue_id),
        }
        for number, pull_request_id, issue_id in await cursor.fetchall()
    }


async def _write_comments(
    cursor: AsyncCursor[Any], rows: list[Row], of_repository: Mapping[str, object]
) -> Counts:
    counts = await _write(cursor, statements.UPSERT_COMMENTS, rows, of_repository)
    ids = {row["github_id"] for row in rows if row["comment_type"] == "review_comment"}
    ids |= {row["in_reply_to_github_id"] for row in rows} - {None}
    if ids:
        await cursor.execute(statements.RESOLVE_REPLIES, {"originals": sorted(ids)})
    return counts
