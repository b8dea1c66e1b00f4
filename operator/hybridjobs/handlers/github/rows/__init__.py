"""GitHub's objects as rows of the schema `github`. No I/O.

Objects are those of GitHub's REST API; what other answers tell has to take their form. An object
that GitHub gives in part (a user within a pull request, a pull request in a list) has None in the
other columns, which leaves what is known there. MalformedAnswerError where a member that must be
there is not, or has another type.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from hybridjobs.handlers.github.rows.issues import by_number, comment_row, issue_row
from hybridjobs.handlers.github.rows.members import MalformedAnswerError, Object, Row, once
from hybridjobs.handlers.github.rows.people import contributor_row, contributor_rows, each_once
from hybridjobs.handlers.github.rows.pull_requests import (
    base_repository,
    pull_request_row,
    review_row,
)
from hybridjobs.handlers.github.rows.repositories import repository_row

__all__ = [
    "MalformedAnswerError",
    "Object",
    "Page",
    "Row",
    "base_repository",
    "by_number",
    "comment_row",
    "contributor_row",
    "issue_row",
    "page",
    "pull_request_row",
    "repository_row",
    "review_row",
]


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one repository, to be written together; each table's in the order of GitHub's ids.

    `repository` is None where its row is there and nothing new is known of it.
    """

    repository_github_id: int
    repository: Row | None
    contributors: list[Row]
    pull_requests: list[Row]
    issues: list[Row]
    reviews: list[Row]
    comments: list[Row]


def page(
    repository: Object | int,
    pull_requests: Iterable[Object] = (),
    *,
    issues: Iterable[Object] = (),
    reviews: Mapping[int, Iterable[Object]] | None = None,
    review_comments: Mapping[int, Iterable[Object]] | None = None,
    issue_comments: Mapping[int, Iterable[Object]] | None = None,
) -> Page:
    """The rows of a repository, of some of what it has, and of everyone in them.

    `repository` is its object, or GitHub's id of one that is stored; pull requests need the
    object. Reviews and comments are given by the number of what they belong to (`by_number`).
    Pull requests among the issues, as GitHub lists them, are left out.
    """
    of_repository: Row | None = None
    if isinstance(repository, int):
        github_id = repository
    else:
        of_repository = repository_row(repository)
        github_id = of_repository["github_id"]
    pulls = list(pull_requests)
    if pulls and of_repository is None:
        raise ValueError("pull requests are written with their repository")
    full_name = "" if of_repository is None else of_repository["full_name"]
    real = [each for each in issues if not (isinstance(each, dict) and each.get("pull_request"))]
    given = [_pairs(each) for each in (reviews, issue_comments, review_comments)]
    # Rows before people: they refuse what is no object.
    rows = Page(
        repository_github_id=github_id,
        repository=of_repository,
        contributors=[],
        pull_requests=once(pull_request_row(each, full_name) for each in pulls),
        issues=once(map(issue_row, real)),
        reviews=once(review_row(each, number) for number, each in given[0]),
        comments=[
            *once(comment_row(each, number, "issue_comment") for number, each in given[1]),
            *once(comment_row(each, number, "review_comment") for number, each in given[2]),
        ],
    )
    people = contributor_rows(pulls, ("user", "assignee", "merged_by"))
    people += contributor_rows(real, ("user", "closed_by"))
    for pairs in given:
        people += contributor_rows((each for _, each in pairs), ("user",))
    return replace(rows, contributors=each_once(people))


def _pairs(objects: Mapping[int, Iterable[Object]] | None) -> list[tuple[int, Object]]:
    return [(number, each) for number, found in (objects or {}).items() for each in found]
