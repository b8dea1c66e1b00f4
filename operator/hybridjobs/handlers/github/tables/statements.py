"""The upserts of the tables that pages are written to."""

from hybridjobs.handlers.github.tables.upsert import person, upsert

UPSERT_REPOSITORY = upsert(
    "repositories",
    "id, github_id, full_name, owner, name, description, homepage, language, stargazers_count,"
    "watchers_count, forks_count, open_issues_count, size, default_branch, is_fork, is_archived,"
    "is_disabled, is_private, is_template, has_issues, has_projects, has_wiki, has_pages,"
    "has_downloads, has_discussions, license, topics, avatar_url, github_created_at,"
    "github_updated_at, github_pushed_at",
    always="is_active = true, last_updated_at = now()",
    unless="excluded.github_updated_at < known.github_updated_at",
)

# Most people come again and again unchanged: their rows are not rewritten for that.
UPSERT_CONTRIBUTORS = upsert(
    "contributors",
    "id, github_id, username, display_name, avatar_url, profile_url, email, company, location, bio,"
    "blog, public_repos, public_gists, followers, following, github_created_at, github_updated_at,"
    "is_bot",
    settled={"is_bot": "known.is_bot OR excluded.is_bot"},
    always="last_updated_at = now()",
    unless="""excluded.github_updated_at < known.github_updated_at
        OR excluded.github_updated_at IS NULL
            AND excluded.username = known.username
            AND excluded.is_bot <= known.is_bot
            AND coalesce(excluded.avatar_url, '') IN ('', known.avatar_url)
            AND coalesce(excluded.profile_url, '') IN ('', known.profile_url)
            AND coalesce(excluded.display_name, '') IN ('', known.display_name)
            AND coalesce(excluded.email, '') IN ('', known.email)
            AND num_nonnulls(
                excluded.company, excluded.location, excluded.bio, excluded.blog,
                excluded.public_repos, excluded.public_gists, excluded.followers,
                excluded.following, excluded.github_created_at) = 0""",
)

# What was merged stays merged, and what is open again is not closed.
UPSERT_PULL_REQUESTS = upsert(
    "pull_requests",
    "id, github_id, repository_full_name, number, title, body, state, author_login, base_branch,"
    "head_branch, draft, mergeable, mergeable_state, merged, created_at, updated_at, closed_at,"
    "merged_at, additions, deletions, changed_files, commits, html_url, diff_url, patch_url",
    found={
        "repository_id": "%(repository_id)s::uuid",
        "author_id": "author.id",
        "assignee_id": "assignee.id",
        "merged_by_id": "merged_by.id",
    },
    joins=person("author") + person("assignee") + person("merged_by"),
    settled={
        "state": "CASE WHEN known.merged THEN known.state ELSE excluded.state END",
        "merged": "known.merged OR excluded.merged",
        "closed_at": "CASE WHEN excluded.state <> 'open' OR known.merged"
        " THEN coalesce(excluded.closed_at, known.closed_at) END",
    },
    always="last_synced_at = now()",
    unless="excluded.updated_at < known.updated_at",
)

UPSERT_ISSUES = upsert(
    "issues",
    "id, github_id, number, title, body, state, author_login, labels, assignees, milestone,"
    "comments_count, created_at, updated_at, closed_at",
    found={
        "repository_id": "%(repository_id)s::uuid",
        "author_id": "author.id",
        "closed_by_id": "closed_by.id",
    },
    joins=person("author") + person("closed_by"),
    settled={
        "closed_at": "CASE WHEN excluded.state <> 'open'"
        " THEN coalesce(excluded.closed_at, known.closed_at) END",
    },
    always="last_synced_at = now()",
    unless="excluded.updated_at < known.updated_at",
)

# REST tells no updated_at of a review; but none leaves DISMISSED, nor goes back to PENDING.
UPSERT_REVIEWS = upsert(
    "reviews",
    "id, github_id, pull_request_id, author_login, state, body, submitted_at, updated_at,commit_id",
    found={"repository_id": "%(repository_id)s::uuid", "author_id": "author.id"},
    joins=person("author"),
    settled={
        "state": "CASE WHEN known.state = 'DISMISSED' OR excluded.state = 'PENDING'"
        " THEN known.state ELSE excluded.state END",
    },
    unless="excluded.updated_at < known.updated_at",
)

UPSERT_COMMENTS = upsert(
    "comments",
    "id, github_id, comment_type, pull_request_id, issue_id, author_login, body, created_at,"
    "updated_at, in_reply_to_github_id, review_github_id, position, original_position, diff_hunk,"
    "path, commit_id, original_commit_id",
    key="comment_type, github_id",
    found={"repository_id": "%(repository_id)s::uuid", "commenter_id": "author.id"},
    joins=person("author"),
    unless="excluded.updated_at < known.updated_at",
)

# Replies among these comments, and earlier ones to them. Writers of a repository come one after
# another, so none misses what another is about to commit.
RESOLVE_REPLIES = """
UPDATE github.comments AS reply SET in_reply_to_id = original.id
FROM github.comments AS original
WHERE original.comment_type = 'review_comment'
  AND original.github_id = reply.in_reply_to_github_id
  AND reply.in_reply_to_github_id = ANY(%(originals)s::bigint[]) AND reply.in_reply_to_id IS NULL
"""

REPOSITORY = "SELECT id FROM github.repositories WHERE github_id = %s FOR NO KEY UPDATE"

# A number is a pull request's or an issue's, never both's.
PARENTS = """
SELECT given.number, pull_request.id AS pull_request_id, issue.id AS issue_id
FROM unnest(%(numbers)s::integer[]) AS given (number)
LEFT JOIN LATERAL (
    SELECT p.id FROM github.pull_requests p
    WHERE p.repository_id = %(repository_id)s AND p.number = given.number
    ORDER BY p.updated_at DESC LIMIT 1) AS pull_request ON true
LEFT JOIN LATERAL (
    SELECT i.id FROM github.issues i
    WHERE pull_request.id IS NULL
      AND i.repository_id = %(repository_id)s AND i.number = given.number
    ORDER BY i.updated_at DESC LIMIT 1) AS issue ON true
WHERE num_nonnulls(pull_request.id, issue.id) = 1
"""
