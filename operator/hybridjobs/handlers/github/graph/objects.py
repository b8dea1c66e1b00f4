"""GraphQL's objects in the form that REST gives them, as `rows` takes them. No I/O.

GraphQL names a bot without `[bot]`, a ghost not at all, and an absent body by an empty text.
"""

from typing import Any

from hybridjobs.handlers.github.rows import MalformedAnswerError, Object

_MERGEABLE = {"MERGEABLE": True, "CONFLICTING": False}


def listed(connection: object) -> tuple[list[Object], str | None]:
    """What of a connection's page is there, and the cursor of the next page; None: the last one.

    Those hidden from the token are null.
    """
    found = _object("list", connection)
    nodes = found.get("nodes")
    if nodes is None:
        nodes = [_object("edge", each) for each in found.get("edges") or []]
    info = _object("page", found.get("pageInfo"))
    cursor = info.get("endCursor") if info.get("hasNextPage") else None
    return [_object("node", each) for each in nodes if each is not None], cursor


def person(actor: Object | None) -> Object | None:
    """A user, bot or organisation; others have no id."""
    if actor is None:
        return None
    found = _object("actor", actor)
    login, type_ = found.get("login"), found.get("__typename")
    if type_ == "Bot" and isinstance(login, str) and not login.endswith("[bot]"):
        login = f"{login}[bot]"
    return {
        "id": found.get("databaseId"),
        "login": login,
        "avatar_url": found.get("avatarUrl"),
        "html_url": found.get("url"),
        "type": type_,
    }


def repository(found: Object) -> Object:
    """A repository; REST's watchers are its stars."""
    owner = _object("owner", found.get("owner"))
    full_name = str(found.get("nameWithOwner") or "")
    topics = _object("topics", found.get("repositoryTopics") or {}).get("nodes") or []
    return {
        "id": found.get("databaseId"),
        "full_name": full_name or None,
        "name": found.get("name"),
        "owner": {
            "login": full_name.partition("/")[0] or None,
            "avatar_url": owner.get("avatarUrl"),
        },
        "description": found.get("description"),
        "homepage": found.get("homepageUrl"),
        "language": _part(found, "primaryLanguage", "name"),
        "stargazers_count": found.get("stargazerCount"),
        "watchers_count": found.get("stargazerCount"),
        "forks_count": found.get("forkCount"),
        "size": found.get("diskUsage"),
        "default_branch": _part(found, "defaultBranchRef", "name"),
        "fork": found.get("isFork"),
        "archived": found.get("isArchived"),
        "disabled": found.get("isDisabled"),
        "private": found.get("isPrivate"),
        "is_template": found.get("isTemplate"),
        "has_issues": found.get("hasIssuesEnabled"),
        "has_projects": found.get("hasProjectsEnabled"),
        "has_wiki": found.get("hasWikiEnabled"),
        "has_discussions": found.get("hasDiscussionsEnabled"),
        "license": {"spdx_id": _part(found, "licenseInfo", "spdxId")},
        "topics": [_part(each, "topic", "name") for each in topics],
        "created_at": found.get("createdAt"),
        "updated_at": found.get("updatedAt"),
        "pushed_at": found.get("pushedAt"),
    }


def pull_request(found: Object) -> Object:
    """A pull request, as a list or by itself."""
    url, state = found.get("url"), found.get("state")
    assignees = _object("assignees", found.get("assignees") or {}).get("nodes") or []
    status = found.get("mergeStateStatus")
    return {
        "id": _id(found),
        "number": found.get("number"),
        "title": found.get("title"),
        "body": found.get("body") or None,
        "state": "closed" if state == "MERGED" else state,
        "user": person(found.get("author")),
        "assignee": person(assignees[0]) if assignees else None,
        "merged_by": person(found.get("mergedBy")),
        "base": {"ref": found.get("baseRefName")},
        "head": {"ref": found.get("headRefName")},
        "draft": found.get("isDraft"),
        "mergeable": _MERGEABLE.get(str(found.get("mergeable"))),
        "mergeable_state": None if status is None else str(status).lower(),
        "merged": found.get("merged"),
        "created_at": found.get("createdAt"),
        "updated_at": found.get("updatedAt"),
        "closed_at": found.get("closedAt"),
        "merged_at": found.get("mergedAt"),
        "additions": found.get("additions"),
        "deletions": found.get("deletions"),
        "changed_files": found.get("changedFiles"),
        "commits": _part(found, "commits", "totalCount"),
        "html_url": url,
        "diff_url": f"{url}.diff" if url else None,
        "patch_url": f"{url}.patch" if url else None,
    }


def review(found: Object) -> Object:
    """A review, which has here the `updated_at` that REST does not tell."""
    return {
        "id": _id(found),
        "user": person(found.get("author")),
        "state": found.get("state"),
        "body": found.get("body") or None,
        "submitted_at": found.get("submittedAt"),
        "updated_at": found.get("updatedAt"),
        "commit_id": _part(found, "commit", "oid"),
    }


def comment(found: Object) -> Object:
    """A comment of a conversation."""
    return {
        "id": _id(found),
        "user": person(found.get("author")),
        "body": found.get("body"),
        "created_at": found.get("createdAt"),
        "updated_at": found.get("updatedAt"),
    }


def review_comment(found: Object) -> Object:
    """A comment at a line."""
    original, of_review = found.get("replyTo"), found.get("pullRequestReview")
    return comment(found) | {
        "in_reply_to_id": None if original is None else _id(original),
        "pull_request_review_id": None if of_review is None else _id(of_review),
        "position": found.get("position"),
        "original_position": found.get("originalPosition"),
        "diff_hunk": found.get("diffHunk"),
        "path": found.get("path"),
        "commit_id": _part(found, "commit", "oid"),
        "original_commit_id": _part(found, "originalCommit", "oid"),
    }


def _part(found: Object, name: str, member: str) -> Any:  # noqa: ANN401 - `rows` checks it
    part = found.get(name)
    return None if part is None else _object(name, part).get(member)


def _object(kind: str, value: object) -> Object:
    if not isinstance(value, dict):
        raise MalformedAnswerError(f"GitHub's {kind} is no object but {str(value)[:80]!r}")
    return value


def _id(found: Object) -> int | None:
    """A BigInt, which comes as a text."""
    value = _object("object", found).get("fullDatabaseId")
    try:
        return None if value is None else int(value)
    except (TypeError, ValueError):
        raise MalformedAnswerError(f"GitHub's object has as id {str(value)[:80]!r}") from None
