"""GitHub's objects as rows of the schema `github`. No I/O.

An object that GitHub gives in part (a user within a pull request, a pull request in a list) has
None in the other columns, which leaves what is known there.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hybridjobs.ids import new_id

Object = dict[str, Any]
Row = dict[str, Any]

_PEOPLE = ("user", "assignee", "merged_by")


@dataclass(frozen=True, slots=True)
class Page:
    """Rows to be written together, each table's in the order of GitHub's ids."""

    repository: Row
    contributors: list[Row]
    pull_requests: list[Row]


def page(repository: Object, pull_requests: Iterable[Object]) -> Page:
    """The rows of a repository, some of its pull requests, and everyone in them."""
    by_id = {each["id"]: each for each in pull_requests}
    people = [each[role] for each in by_id.values() for role in _PEOPLE if each.get(role)]
    contributors = {each["id"]: contributor_row(each) for each in people}
    return Page(
        repository_row(repository),
        [contributors[id_] for id_ in sorted(contributors)],
        [pull_request_row(by_id[id_], repository) for id_ in sorted(by_id)],
    )


def repository_row(repository: Object) -> Row:
    """A repository, whole or as it stands in a pull request's base."""
    return _clean(
        {
            "id": str(new_id()),
            "github_id": repository["id"],
            "full_name": repository["full_name"],
            "owner": repository["owner"]["login"],
            "name": repository["name"],
            "description": repository.get("description"),
            "homepage": repository.get("homepage") or None,
            "language": repository.get("language"),
            "stargazers_count": repository.get("stargazers_count"),
            "watchers_count": repository.get("watchers_count"),
            "forks_count": repository.get("forks_count"),
            "open_issues_count": repository.get("open_issues_count"),
            "size": repository.get("size"),
            "default_branch": repository.get("default_branch"),
            "is_fork": repository.get("fork"),
            "is_archived": repository.get("archived"),
            "is_disabled": repository.get("disabled"),
            "is_private": repository.get("private"),
            "is_template": repository.get("is_template"),
            "has_issues": repository.get("has_issues"),
            "has_projects": repository.get("has_projects"),
            "has_wiki": repository.get("has_wiki"),
            "has_pages": repository.get("has_pages"),
            "has_downloads": repository.get("has_downloads"),
            "has_discussions": repository.get("has_discussions"),
            "license": (repository.get("license") or {}).get("spdx_id"),
            "topics": repository.get("topics"),
            "avatar_url": repository["owner"].get("avatar_url"),
            "github_created_at": repository.get("created_at"),
            "github_updated_at": repository.get("updated_at"),
            "github_pushed_at": repository.get("pushed_at"),
        }
    )


def contributor_row(user: Object) -> Row:
    """A user, an organisation or a bot, as it stands in other objects."""
    return _clean(
        {
            "id": str(new_id()),
            "github_id": user["id"],
            "username": user["login"],
            "display_name": user.get("name"),
            "avatar_url": user.get("avatar_url"),
            "profile_url": user.get("html_url"),
            "email": user.get("email"),
            "is_bot": user.get("type") == "Bot" or user["login"].endswith("[bot]"),
        }
    )


def pull_request_row(pull_request: Object, repository: Object) -> Row:
    """A pull request, whole or as lists have it; people by GitHub's ids."""
    is_merged = pull_request["merged_at"] is not None
    return _clean(
        {
            "id": str(new_id()),
            "github_id": pull_request["id"],
            "repository_github_id": repository["id"],
            "repository_full_name": repository["full_name"],
            "number": pull_request["number"],
            "title": pull_request["title"],
            "body": pull_request.get("body"),
            "state": "merged" if is_merged else pull_request["state"],
            "author_github_id": (pull_request["user"] or {}).get("id"),
            "author_login": (pull_request["user"] or {}).get("login"),
            "assignee_github_id": (pull_request.get("assignee") or {}).get("id"),
            "merged_by_github_id": (pull_request.get("merged_by") or {}).get("id"),
            "base_branch": pull_request["base"]["ref"],
            "head_branch": pull_request["head"]["ref"],
            "draft": pull_request.get("draft"),
            "mergeable": pull_request.get("mergeable"),
            "mergeable_state": pull_request.get("mergeable_state"),
            "merged": is_merged,
            "created_at": pull_request["created_at"],
            "updated_at": pull_request["updated_at"],
            "closed_at": pull_request["closed_at"],
            "merged_at": pull_request["merged_at"],
            "additions": pull_request.get("additions"),
            "deletions": pull_request.get("deletions"),
            "changed_files": pull_request.get("changed_files"),
            "commits": pull_request.get("commits"),
            "html_url": pull_request.get("html_url"),
            "diff_url": pull_request.get("diff_url"),
            "patch_url": pull_request.get("patch_url"),
        }
    )


def _clean(row: Row) -> Row:
    """Without NUL characters, which Postgres has no place for."""
    return {
        name: value.replace("\x00", "") if isinstance(value, str) else value
        for name, value in row.items()
    }
