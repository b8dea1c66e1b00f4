"""Issues, and the comments of issues and pull requests."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable

from hybridjobs.handlers.github.rows.members import MalformedAnswerError, Members, Object, Row
from hybridjobs.handlers.github.rows.people import author
from hybridjobs.handlers.github.rows.pull_requests import open_or_closed
from hybridjobs.ids import new_id

_NUMBER = re.compile(r"/(\d{1,9})$")


def issue_row(issue: Object) -> Row:
    """An issue; people by GitHub's ids, but those whom `assignees` names."""
    its = Members("issue", issue)
    return {
        "id": str(new_id()),
        "github_id": its.need("id", its.github_id()),
        "number": its.need("number", its.number("number")),
        "title": its.need("title", its.text("title")),
        "body": its.text("body"),
        "state": open_or_closed(its),
        **author(its),
        "closed_by_github_id": its.part("closed_by").github_id(),
        "labels": _each(its.parts("labels"), _label),
        "assignees": _each(
            its.parts("assignees"),
            lambda user: {"github_id": user.github_id(), "login": user.text("login")},
        ),
        "milestone": _milestone(its.part("milestone")) if its.has("milestone") else None,
        "comments_count": its.number("comments"),
        "created_at": its.need("created_at", its.moment("created_at")),
        "updated_at": its.need("updated_at", its.moment("updated_at")),
        "closed_at": its.moment("closed_at"),
    }


def _each(found: list[Members] | None, row: Callable[[Members], Row]) -> list[Row] | None:
    return None if found is None else [row(each) for each in found]


def _label(its: Members) -> Row:
    return {"name": its.text("name"), "color": its.text("color")}


def _milestone(its: Members) -> Row:
    return {
        "number": its.number("number"),
        "title": its.text("title"),
        "state": its.text("state"),
        "due_on": its.moment("due_on"),
    }


def comment_row(comment: Object, number: int, comment_type: str) -> Row:
    """A comment on the pull request or issue of that number.

    `comment_type` is `review_comment`, which stands at a line of a pull request, or
    `issue_comment`, which both have. `position` is None where the line is gone.
    """
    its = Members(comment_type.replace("_", " "), comment)
    return {
        "id": str(new_id()),
        "github_id": its.need("id", its.github_id()),
        "comment_type": comment_type,
        "number": number,
        **author(its),
        "body": its.text("body"),
        "created_at": its.need("created_at", its.moment("created_at")),
        "updated_at": its.need("updated_at", its.moment("updated_at") or its.moment("created_at")),
        "in_reply_to_github_id": its.github_id("in_reply_to_id"),
        "review_github_id": its.github_id("pull_request_review_id"),
        "position": its.number("position"),
        "original_position": its.number("original_position"),
        "diff_hunk": its.text("diff_hunk"),
        "path": its.text("path"),
        "commit_id": its.text("commit_id"),
        "original_commit_id": its.text("original_commit_id"),
    }


def by_number(objects: Iterable[Object]) -> dict[int, list[Object]]:
    """Reviews or comments of a whole repository by the number of what they belong to.

    REST names it at the end of `pull_request_url` or `issue_url`.
    """
    found: defaultdict[int, list[Object]] = defaultdict(list)
    for each in objects:
        its = Members("comment", each)
        url = its.text("pull_request_url") or its.text("issue_url") or ""
        match = _NUMBER.search(url)
        if match is None:
            raise MalformedAnswerError(f"GitHub's comment belongs to {url[:80]!r}")
        found[int(match[1])].append(each)
    return dict(found)
