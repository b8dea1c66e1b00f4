"""The rows that must end up in the tables, whichever way they were captured.

Left out is what depends on when or how it was read: authors' logins in other tables (people rename
themselves), `mergeable` (unknown once merged), who closed an issue (GraphQL has no such member).
Normalised is what the two APIs say differently: an empty text is null; an account that is gone is
null (REST names the user `ghost`, id 10137, in pull requests, issues and their comments); a bot's
name ends with [bot] (GraphQL leaves that off); a reply to a deleted comment replies to nothing.
"""

from collections.abc import Iterator
from typing import Any

from .contents import Contents, Object
from .people import GHOST_ID

Row = dict[str, Any]

TABLES = ("repositories", "contributors", "pull_requests", "reviews", "comments", "issues")


def rows(contents: Contents, since: int = 0) -> Iterator[tuple[str, Row]]:
    """Tables and rows: the repository, what changed since then (seconds), then everyone in it."""
    people: dict[int, Object] = {}
    yield "repositories", _repository(contents.repository)
    for _, number in contents.keys(("pull",), "updated"):
        if contents.updated(number) >= since:
            pull = contents.pull(number)
            assert pull is not None
            yield "pull_requests", _pull_request(pull, contents, people)
            for review in contents.reviews(number):
                yield "reviews", _review(review, pull, contents, people)
            yield from _comments(contents, number, {"pull_request_github_id": pull["id"]}, people)
    for _, number in contents.keys(("issue",), "updated"):
        if contents.updated(number) >= since:
            issue = contents.issue(number)
            assert issue is not None
            yield "issues", _issue(issue, contents, people)
            yield from _comments(contents, number, {"issue_github_id": issue["id"]}, people)
    for id_ in sorted(people):
        user = people[id_]
        is_bot = user["type"] == "Bot"
        yield "contributors", {"github_id": id_, "username": user["login"], "is_bot": is_bot}


def _repository(repository: Object) -> Row:
    return {
        "github_id": repository["id"],
        "full_name": repository["full_name"],
        "owner": repository["full_name"].partition("/")[0],
        "name": repository["name"],
        "description": repository["description"] or None,
        "language": repository["language"],
        "stargazers_count": repository["stargazers_count"],
        "forks_count": repository["forks_count"],
        "size": repository["size"],
        "default_branch": repository["default_branch"],
        "is_fork": repository["fork"],
        "is_archived": repository["archived"],
        "is_disabled": repository["disabled"],
        "is_private": repository["private"],
        "github_created_at": repository["created_at"],
    }


def _person(user: Object | None, people: dict[int, Object]) -> int | None:
    if user is None or user["id"] == GHOST_ID:
        return None
    people[user["id"]] = user
    id_: int = user["id"]
    return id_


def _pull_request(pull: Object, contents: Contents, people: dict[int, Object]) -> Row:
    return {
        "github_id": pull["id"],
        "repository_github_id": contents.repository["id"],
        "number": pull["number"],
        "title": pull["title"],
        "body": pull["body"] or None,
        "state": "merged" if pull["merged_at"] else pull["state"],
        "author_github_id": _person(pull["user"], people),
        "merged_by_github_id": _person(pull["merged_by"], people),
        "base_branch": pull["base"]["ref"],
        "head_branch": pull["head"]["ref"],
        "draft": pull["draft"],
        "merged": pull["merged_at"] is not None,
        "created_at": pull["created_at"],
        "updated_at": pull["updated_at"],
        "closed_at": pull["closed_at"],
        "merged_at": pull["merged_at"],
        "additions": pull["additions"],
        "deletions": pull["deletions"],
        "changed_files": pull["changed_files"],
        "commits": pull["commits"],
        "html_url": pull["html_url"],
    }


def _review(review: Object, pull: Object, contents: Contents, people: dict[int, Object]) -> Row:
    return {
        "github_id": review["id"],
        "repository_github_id": contents.repository["id"],
        "pull_request_github_id": pull["id"],
        "author_github_id": _person(review["user"], people),
        "state": str(review["state"]).upper(),
        "body": review["body"] or None,
        "submitted_at": review["submitted_at"],
        "commit_id": review["commit_id"],
    }


def _comments(
    contents: Contents, number: int, subject: Row, people: dict[int, Object]
) -> Iterator[tuple[str, Row]]:
    for each in contents.issue_comments(number):
        yield (
            "comments",
            _comment(each, contents, people) | subject | {"comment_type": "issue_comment"},
        )
    if contents.pull(number) is None:
        return
    listed = contents.review_comments(number)
    known = {each["id"] for each in listed}
    for each in listed:
        original = each.get("in_reply_to_id")
        yield (
            "comments",
            _comment(each, contents, people)
            | subject
            | {
                "comment_type": "review_comment",
                "in_reply_to_github_id": original if original in known else None,
                "position": each.get("position"),
                "original_position": each["original_position"],
                "diff_hunk": each["diff_hunk"],
                "path": each["path"],
                "commit_id": each["commit_id"],
                "original_commit_id": each["original_commit_id"],
            },
        )


def _comment(comment: Object, contents: Contents, people: dict[int, Object]) -> Row:
    return {
        "github_id": comment["id"],
        "repository_github_id": contents.repository["id"],
        "commenter_github_id": _person(comment["user"], people),
        "body": comment["body"],
        "created_at": comment["created_at"],
        "updated_at": comment["updated_at"],
    }


def _issue(issue: Object, contents: Contents, people: dict[int, Object]) -> Row:
    for each in issue["assignees"]:
        _person(each, people)
    return {
        "github_id": issue["id"],
        "repository_github_id": contents.repository["id"],
        "number": issue["number"],
        "title": issue["title"],
        "body": issue["body"] or None,
        "state": issue["state"],
        "author_github_id": _person(issue["user"], people),
        "created_at": issue["created_at"],
        "updated_at": issue["updated_at"],
        "closed_at": issue["closed_at"],
        "comments_count": issue["comments"],
        "labels": [each["name"] for each in issue["labels"]],
        "assignees": [each["login"] for each in issue["assignees"]],
    }
