"""The tables as the simulated GitHub's truth has them."""

from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any

# By table, the truth's members.
COLUMNS = {
    "pull_requests": "t.github_id, number, title, body, state, base_branch, head_branch, draft,"
    " merged, t.created_at, t.updated_at, closed_at, merged_at, additions, deletions,"
    " changed_files, commits, html_url,"
    " (SELECT c.github_id FROM github.contributors c WHERE c.id = author_id) author_github_id,"
    " (SELECT c.github_id FROM github.contributors c WHERE c.id = merged_by_id)"
    " merged_by_github_id",
    "reviews": "t.github_id, t.state, t.body, submitted_at, commit_id, (SELECT p.github_id FROM"
    " github.pull_requests p WHERE p.id = pull_request_id) pull_request_github_id,"
    " (SELECT c.github_id FROM github.contributors c WHERE c.id = author_id) author_github_id",
    "comments": "t.github_id, comment_type, t.body, t.created_at, t.updated_at, position,"
    " original_position, diff_hunk, path, commit_id, original_commit_id,"
    " (SELECT o.github_id FROM github.comments o WHERE o.id = t.in_reply_to_id)"
    " in_reply_to_github_id,"
    " (SELECT p.github_id FROM github.pull_requests p WHERE p.id = pull_request_id)"
    " pull_request_github_id,"
    " (SELECT c.github_id FROM github.contributors c WHERE c.id = commenter_id)"
    " commenter_github_id",
    "contributors": "t.github_id, username, is_bot",
    "repositories": "t.github_id, full_name, owner, name, description, language,"
    " stargazers_count, forks_count, size, default_branch, is_fork, is_archived, is_disabled,"
    " is_private, github_created_at",
}

Rows = dict[Any, dict[str, Any]]


async def stored(query: Callable[[str], Awaitable[list[dict[str, Any]]]], table: str) -> Rows:
    """The rows of a table, by GitHub's id and the comment type."""
    found = await query(f"SELECT {COLUMNS[table]} FROM github.{table} t")
    return {key(row): plain(row) for row in found}


def as_stored(truth: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, Rows]:
    """By table, the rows that must be there, as `stored` gives them."""
    expected: dict[str, Rows] = {table: {} for table in COLUMNS}
    for table, row in truth:
        members = {name: row[name] for name in row if name != "repository_github_id"}
        expected[table][key(row)] = plain(members)
    return expected


def key(row: dict[str, Any]) -> tuple[Any, Any]:
    """What tells rows of a table apart."""
    return row["github_id"], row.get("comment_type")


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """As the truth has it: times as texts, and nothing of what is null."""

    def value(each: Any) -> Any:
        if isinstance(each, datetime):
            return each.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return each

    return {name: value(each) for name, each in row.items() if each is not None}
