"""Pull requests and their reviews."""

from hybridjobs.handlers.github.rows.members import MalformedAnswerError, Members, Object, Row
from hybridjobs.handlers.github.rows.people import author
from hybridjobs.ids import new_id

REVIEW_STATES = frozenset(("PENDING", "APPROVED", "CHANGES_REQUESTED", "COMMENTED", "DISMISSED"))


def base_repository(pull_request: Object) -> Object:
    """The repository that a pull request is for, as it stands there; empty where it does not."""
    return Members("pull request", pull_request).part("base").part("repo").whole


def pull_request_row(pull_request: Object, full_name: str) -> Row:
    """A pull request of that repository, whole or as lists have it; people by GitHub's ids."""
    its = Members("pull request", pull_request)
    base, head = its.part("base"), its.part("head")
    merged_at = its.moment("merged_at")
    is_merged = merged_at is not None or its.flag("merged") is True
    return {
        "id": str(new_id()),
        "github_id": its.need("id", its.github_id()),
        "repository_full_name": full_name,
        "number": its.need("number", its.number("number")),
        "title": its.need("title", its.text("title")),
        "body": its.text("body"),
        "state": "merged" if is_merged else open_or_closed(its),
        **author(its),
        "assignee_github_id": its.part("assignee").github_id(),
        "merged_by_github_id": its.part("merged_by").github_id(),
        "base_branch": base.need("ref", base.text("ref")),
        "head_branch": head.need("ref", head.text("ref")),
        "draft": its.flag("draft"),
        "mergeable": its.flag("mergeable"),
        "mergeable_state": its.text("mergeable_state"),
        "merged": is_merged,
        "created_at": its.need("created_at", its.moment("created_at")),
        "updated_at": its.need("updated_at", its.moment("updated_at")),
        "closed_at": its.moment("closed_at"),
        "merged_at": merged_at,
        "additions": its.number("additions"),
        "deletions": its.number("deletions"),
        "changed_files": its.number("changed_files"),
        "commits": its.number("commits"),
        "html_url": its.text("html_url"),
        "diff_url": its.text("diff_url"),
        "patch_url": its.text("patch_url"),
    }


def review_row(review: Object, number: int) -> Row:
    """A review of the pull request of that number. A pending one has no `submitted_at`."""
    its = Members("review", review)
    state = its.need("state", its.text("state")).upper()
    if state not in REVIEW_STATES:
        raise MalformedAnswerError(f"GitHub's review has as state {state!r}")
    return {
        "id": str(new_id()),
        "github_id": its.need("id", its.github_id()),
        "number": number,
        **author(its),
        "state": state,
        "body": its.text("body"),
        "submitted_at": its.moment("submitted_at"),
        "updated_at": its.moment("updated_at"),
        "commit_id": its.text("commit_id"),
    }


def open_or_closed(its: Members) -> str:
    """The state of what is open or closed, as REST and GraphQL write it."""
    state = its.need("state", its.text("state")).lower()
    if state not in ("open", "closed"):
        raise MalformedAnswerError(f"GitHub's object has as state {state!r}")
    return state
