"""Writes pages of rows: the SQL of the schema `github`.

A page is one transaction, and every transaction takes its locks in one order: the repository, then
contributors, then pull requests, each by GitHub's id. So jobs on the same rows wait for each other
and never deadlock. What GitHub calls older than what is stored changes nothing, and a null never
overwrites a known value (but `closed_at` of a pull request that is open again).
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from hybridjobs.handlers.github.rows import Page
from hybridjobs.sdk import PermanentError

CONNECT_TIMEOUT_SECONDS = 5

UPSERT_REPOSITORY = """
INSERT INTO github.repositories AS known (
    id, github_id, full_name, owner, name, description, homepage, language, stargazers_count,
    watchers_count, forks_count, open_issues_count, size, default_branch, is_fork, is_archived,
    is_disabled, is_private, is_template, has_issues, has_projects, has_wiki, has_pages,
    has_downloads, has_discussions, license, topics, avatar_url, github_created_at,
    github_updated_at, github_pushed_at)
SELECT
    id, github_id, full_name, owner, name, description, homepage, language, stargazers_count,
    watchers_count, forks_count, open_issues_count, size, default_branch, is_fork, is_archived,
    is_disabled, is_private, is_template, has_issues, has_projects, has_wiki, has_pages,
    has_downloads, has_discussions, license, topics, avatar_url, github_created_at,
    github_updated_at, github_pushed_at
FROM jsonb_populate_record(NULL::github.repositories, %s)
ON CONFLICT (github_id) DO UPDATE SET
    full_name = excluded.full_name,
    owner = excluded.owner,
    name = excluded.name,
    description = coalesce(excluded.description, known.description),
    homepage = coalesce(excluded.homepage, known.homepage),
    language = coalesce(excluded.language, known.language),
    stargazers_count = coalesce(excluded.stargazers_count, known.stargazers_count),
    watchers_count = coalesce(excluded.watchers_count, known.watchers_count),
    forks_count = coalesce(excluded.forks_count, known.forks_count),
    open_issues_count = coalesce(excluded.open_issues_count, known.open_issues_count),
    size = coalesce(excluded.size, known.size),
    default_branch = coalesce(excluded.default_branch, known.default_branch),
    is_fork = coalesce(excluded.is_fork, known.is_fork),
    is_archived = coalesce(excluded.is_archived, known.is_archived),
    is_disabled = coalesce(excluded.is_disabled, known.is_disabled),
    is_private = coalesce(excluded.is_private, known.is_private),
    is_template = coalesce(excluded.is_template, known.is_template),
    has_issues = coalesce(excluded.has_issues, known.has_issues),
    has_projects = coalesce(excluded.has_projects, known.has_projects),
    has_wiki = coalesce(excluded.has_wiki, known.has_wiki),
    has_pages = coalesce(excluded.has_pages, known.has_pages),
    has_downloads = coalesce(excluded.has_downloads, known.has_downloads),
    has_discussions = coalesce(excluded.has_discussions, known.has_discussions),
    license = coalesce(excluded.license, known.license),
    topics = coalesce(excluded.topics, known.topics),
    avatar_url = coalesce(excluded.avatar_url, known.avatar_url),
    github_created_at = coalesce(excluded.github_created_at, known.github_created_at),
    github_updated_at = coalesce(excluded.github_updated_at, known.github_updated_at),
    github_pushed_at = coalesce(excluded.github_pushed_at, known.github_pushed_at),
    last_updated_at = now()
WHERE known.github_updated_at IS NULL
   OR excluded.github_updated_at >= known.github_updated_at
"""

UPSERT_CONTRIBUTORS = """
INSERT INTO github.contributors AS known
    (id, github_id, username, display_name, avatar_url, profile_url, email, is_bot)
SELECT id, github_id, username, display_name, avatar_url, profile_url, email, is_bot
FROM jsonb_populate_recordset(NULL::github.contributors, %s)
ORDER BY github_id
ON CONFLICT (github_id) DO UPDATE SET
    username = excluded.username,
    display_name = coalesce(excluded.display_name, known.display_name),
    avatar_url = coalesce(excluded.avatar_url, known.avatar_url),
    profile_url = coalesce(excluded.profile_url, known.profile_url),
    email = coalesce(excluded.email, known.email),
    is_bot = excluded.is_bot,
    last_updated_at = now()
WHERE (known.username, known.is_bot) IS DISTINCT FROM (excluded.username, excluded.is_bot)
   OR excluded.display_name <> coalesce(known.display_name, '')
   OR excluded.avatar_url <> coalesce(known.avatar_url, '')
   OR excluded.profile_url <> coalesce(known.profile_url, '')
   OR excluded.email <> coalesce(known.email, '')
"""

UPSERT_PULL_REQUESTS = """
INSERT INTO github.pull_requests AS known (
    id, github_id, repository_id, repository_full_name, number, title, body, state, author_id,
    author_login, assignee_id, merged_by_id, base_branch, head_branch, draft, mergeable,
    mergeable_state, merged, created_at, updated_at, closed_at, merged_at, additions, deletions,
    changed_files, commits, html_url, diff_url, patch_url)
SELECT
    new.id, new.github_id, repository.id, new.repository_full_name, new.number, new.title,
    new.body, new.state, author.id, new.author_login, assignee.id, merger.id, new.base_branch,
    new.head_branch, new.draft, new.mergeable, new.mergeable_state, new.merged, new.created_at,
    new.updated_at, new.closed_at, new.merged_at, new.additions, new.deletions, new.changed_files,
    new.commits, new.html_url, new.diff_url, new.patch_url
FROM jsonb_to_recordset(%s) AS new (
    id uuid, github_id bigint, repository_github_id bigint, repository_full_name text,
    number integer, title text, body text, state text, author_github_id bigint, author_login text,
    assignee_github_id bigint, merged_by_github_id bigint, base_branch text, head_branch text,
    draft boolean, mergeable boolean, mergeable_state text, merged boolean, created_at timestamptz,
    updated_at timestamptz, closed_at timestamptz, merged_at timestamptz, additions integer,
    deletions integer, changed_files integer, commits integer, html_url text, diff_url text,
    patch_url text)
JOIN github.repositories repository ON repository.github_id = new.repository_github_id
LEFT JOIN github.contributors author ON author.github_id = new.author_github_id
LEFT JOIN github.contributors assignee ON assignee.github_id = new.assignee_github_id
LEFT JOIN github.contributors merger ON merger.github_id = new.merged_by_github_id
ORDER BY new.github_id
ON CONFLICT (github_id) DO UPDATE SET
    repository_id = excluded.repository_id,
    repository_full_name = excluded.repository_full_name,
    number = excluded.number,
    title = excluded.title,
    body = coalesce(excluded.body, known.body),
    state = excluded.state,
    author_id = coalesce(excluded.author_id, known.author_id),
    author_login = coalesce(excluded.author_login, known.author_login),
    assignee_id = coalesce(excluded.assignee_id, known.assignee_id),
    merged_by_id = coalesce(excluded.merged_by_id, known.merged_by_id),
    base_branch = excluded.base_branch,
    head_branch = excluded.head_branch,
    draft = coalesce(excluded.draft, known.draft),
    mergeable = coalesce(excluded.mergeable, known.mergeable),
    mergeable_state = coalesce(excluded.mergeable_state, known.mergeable_state),
    merged = excluded.merged,
    created_at = excluded.created_at,
    updated_at = excluded.updated_at,
    closed_at = CASE WHEN excluded.state = 'open' THEN NULL
                     ELSE coalesce(excluded.closed_at, known.closed_at) END,
    merged_at = coalesce(excluded.merged_at, known.merged_at),
    additions = coalesce(excluded.additions, known.additions),
    deletions = coalesce(excluded.deletions, known.deletions),
    changed_files = coalesce(excluded.changed_files, known.changed_files),
    commits = coalesce(excluded.commits, known.commits),
    html_url = coalesce(excluded.html_url, known.html_url),
    diff_url = coalesce(excluded.diff_url, known.diff_url),
    patch_url = coalesce(excluded.patch_url, known.patch_url),
    last_synced_at = now()
WHERE excluded.updated_at >= known.updated_at
RETURNING (xmax = 0) AS is_new
"""

REPOSITORY_ID = "SELECT id FROM github.repositories WHERE github_id = %s"

PULL_REQUEST_ID = "SELECT id FROM github.pull_requests WHERE github_id = %s"

SET_SYNC_STATUS = """
UPDATE github.repositories
SET sync_status = %(status)s,
    last_synced_at = CASE WHEN %(status)s = 'completed' THEN now() ELSE last_synced_at END
WHERE github_id = %(github_id)s
"""


class GitHubTables:
    """The schema `github` over one connection."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection

    @property
    def connection(self) -> AsyncConnection[Any]:
        """The job's one connection, in autocommit mode."""
        return self._connection

    async def write(self, page: Page) -> int:
        """Write a page in one transaction; how many of its pull requests were new."""
        async with self._connection.transaction(), self._connection.cursor() as cursor:
            await cursor.execute(UPSERT_REPOSITORY, [Jsonb(page.repository)])
            await cursor.execute(UPSERT_CONTRIBUTORS, [Jsonb(page.contributors)])
            await cursor.execute(UPSERT_PULL_REQUESTS, [Jsonb(page.pull_requests)])
            return sum(is_new for (is_new,) in await cursor.fetchall())

    async def set_sync_status(self, github_id: int, status: str) -> None:
        """Say how the repository's sync stands; `completed` also sets its time."""
        await self._connection.execute(SET_SYNC_STATUS, {"github_id": github_id, "status": status})

    async def repository_id(self, github_id: int) -> UUID:
        """Our id of a repository that was written."""
        return await self._id(REPOSITORY_ID, github_id)

    async def pull_request_id(self, github_id: int) -> UUID:
        """Our id of a pull request that was written."""
        return await self._id(PULL_REQUEST_ID, github_id)

    async def _id(self, query: str, github_id: int) -> UUID:
        row = await (await self._connection.execute(query.encode(), [github_id])).fetchone()
        assert row is not None
        found: UUID = row[0]
        return found


@asynccontextmanager
async def github_tables() -> AsyncIterator[GitHubTables]:
    """The tables at DATABASE_URL; PermanentError when it is not set."""
    url = os.environ.get("DATABASE_URL")
    if not url:
        raise PermanentError("DATABASE_URL is not set: the HybridJobType needs `database: true`")
    # No prepared statements: they do not survive a pooler's transactions.
    connection = await AsyncConnection.connect(
        url,
        autocommit=True,
        prepare_threshold=None,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        application_name="hybridjobs-github",
    )
    async with connection:
        yield GitHubTables(connection)
