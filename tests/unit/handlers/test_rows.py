import gzip
import json
from typing import Any

import pytest

from hybridjobs.handlers.github.rows import (
    MalformedAnswerError,
    by_number,
    contributor_row,
    page,
    pull_request_row,
)
from tests import github_objects as objects
from tests.recorded import deliveries
from tests.recorded.paths import DATA, require

RECORDED: dict[str, Any] = json.loads(gzip.decompress(require(DATA).read_bytes()))
SAMPLE: dict[str, Any] = RECORDED["pull_requests"][0]


@pytest.mark.parametrize("sample", RECORDED["pull_requests"], ids=lambda each: str(each["id"]))
def test_every_recorded_pull_request_makes_rows(sample: dict[str, Any]) -> None:
    rows = page(sample["base"]["repo"], [sample])
    assert rows.repository is not None
    assert rows.repository["github_id"] == sample["base"]["repo"]["id"] == rows.repository_github_id
    (row,) = rows.pull_requests
    assert (row["github_id"], row["number"]) == (sample["id"], sample["number"])
    assert row["author_github_id"] in [each["github_id"] for each in rows.contributors]


def test_rows_come_once_and_in_the_order_of_githubs_ids() -> None:
    samples = [SAMPLE | {"id": id_, "title": str(n)} for n, id_ in enumerate([5, 3, 9, 3])]
    rows = page(SAMPLE["base"]["repo"], samples)
    assert [(row["github_id"], row["title"]) for row in rows.pull_requests] == [
        (3, "3"),
        (5, "0"),
        (9, "2"),
    ]
    ids = [row["github_id"] for row in rows.contributors]
    assert ids == sorted(set(ids))


@pytest.mark.parametrize(
    ("state", "merged_at", "expected"),
    [
        ("open", None, "open"),
        ("closed", None, "closed"),
        ("closed", "2026-01-01T00:00:00Z", "merged"),
    ],
)
def test_the_state_of_a_pull_request(state: str, merged_at: str | None, expected: str) -> None:
    sample = SAMPLE | {"state": state, "merged_at": merged_at}
    row = pull_request_row(sample, "a/b")
    assert (row["state"], row["merged"]) == (expected, expected == "merged")


@pytest.mark.parametrize(
    "user", RECORDED["users"], ids=lambda each: f"{each['login']}-{each['id']}"
)
def test_every_recorded_user_makes_a_row(user: dict[str, Any]) -> None:
    row = contributor_row(user)
    assert row["github_id"] == user["id"]
    assert row["is_bot"] is (user["type"] == "Bot")


def test_a_bot_without_a_type_is_known_by_its_name() -> None:
    assert contributor_row({"id": 1, "login": "renovate[bot]"})["is_bot"]


RECORDED_OTHERS = [
    (each.event, each.document)
    for each in deliveries()
    if each.event
    in ("pull_request_review", "pull_request_review_comment", "issue_comment", "issues")
    # Some have no state, which the API's issues always have; some are about pull requests.
    and (
        each.event != "issues"
        or ("state" in each.document["issue"] and "pull_request" not in each.document["issue"])
    )
]


@pytest.mark.parametrize(("event", "document"), RECORDED_OTHERS)
def test_every_recorded_review_comment_and_issue_makes_rows(
    event: str, document: dict[str, Any]
) -> None:
    repository = document["repository"]
    match event:
        case "pull_request_review":
            rows = page(repository, reviews=by_number([document["review"]]))
            (row,), given = rows.reviews, document["review"]
            assert row["state"] == given["state"].upper()
            assert row["number"] == document["pull_request"]["number"]
        case "issues":
            rows = page(repository, issues=[document["issue"]])
            (row,), given = rows.issues, document["issue"]
            assert row["comments_count"] == given["comments"]
            assert [each["name"] for each in row["labels"]] == [
                each["name"] for each in given["labels"]
            ]
        case "issue_comment":
            rows = page(repository, issue_comments=by_number([document["comment"]]))
            (row,), given = rows.comments, document["comment"]
            assert (row["comment_type"], row["number"]) == (event, document["issue"]["number"])
        case _:
            rows = page(repository, review_comments=by_number([document["comment"]]))
            (row,), given = rows.comments, document["comment"]
            assert (row["comment_type"], row["path"]) == ("review_comment", given["path"])
            assert row["review_github_id"] == given["pull_request_review_id"]
    assert (row["github_id"], row["body"]) == (given["id"], given["body"])
    assert row["author_login"] == given["user"]["login"]
    assert row["author_github_id"] in [each["github_id"] for each in rows.contributors]


def test_pull_requests_among_issues_are_left_out() -> None:
    listed = [objects.issue(1, pull_request={"url": "…"}), objects.issue(2)]
    assert [row["number"] for row in page(1, issues=listed).issues] == [2]


def test_who_has_no_id_is_a_name_alone() -> None:
    rows = page(1, reviews={1: [objects.review(user={"login": "mannequin"})]})
    assert (rows.contributors, rows.reviews[0]["author_login"]) == ([], "mannequin")


def test_a_person_has_all_that_any_of_the_objects_tells() -> None:
    whole = objects.user(1, company="GitHub", type="Bot")
    rows = page(1, issue_comments={1: [objects.issue_comment(1, user=whole)]}, issues=[
        objects.issue(1, user={"id": 1, "login": "octocat"}, closed_by=None)
    ])  # fmt: skip
    (row,) = rows.contributors
    assert (row["company"], row["is_bot"], row["avatar_url"]) == (
        "GitHub",
        True,
        whole["avatar_url"],
    )


def test_of_the_same_object_twice_the_newer_is_kept() -> None:
    newer = objects.issue_comment(1, body="new", updated_at="2026-01-03T00:00:00+01:00")
    older = objects.issue_comment(1, body="old", updated_at="2026-01-02T22:59:59Z")
    rows = page(1, issue_comments={1: [newer, older]})
    assert [row["body"] for row in rows.comments] == ["new"]


def test_comments_of_both_types_may_have_one_id() -> None:
    rows = page(
        1,
        issue_comments={1: [objects.issue_comment(9)]},
        review_comments={1: [objects.review_comment(9)]},
    )
    assert [row["comment_type"] for row in rows.comments] == ["issue_comment", "review_comment"]


def test_what_postgres_cannot_hold_leaves_every_text() -> None:
    dirty = "a\x00b\ud83dc\udc00"
    label = {"name": dirty, "color": None}
    rows = page(
        objects.repository(topics=[dirty], description=dirty),
        issues=[objects.issue(body=dirty, labels=[label], user=objects.user(1, "x", bio=dirty))],
    )
    assert rows.repository is not None
    assert rows.repository["topics"] == ["abc"]
    assert rows.repository["description"] == "abc"
    assert rows.issues[0]["body"] == "abc"
    assert rows.issues[0]["labels"] == [{"name": "abc", "color": None}]
    assert next(row["bio"] for row in rows.contributors if row["github_id"] == 1) == "abc"


@pytest.mark.parametrize(
    ("malformed", "message"),
    [
        ({"id": None}, "GitHub's review has no id"),
        ({"id": "3001"}, "GitHub's review has as id '3001'"),
        ({"id": 2**63}, "GitHub's review has as id 9223372036854775808"),
        ({"id": True}, "GitHub's review has as id True"),
        ({"state": "SHRUGGED"}, "GitHub's review has as state 'SHRUGGED'"),
        ({"submitted_at": "yesterday"}, "GitHub's review has as submitted_at 'yesterday'"),
        ({"submitted_at": "2026-01-01T00:00:00"}, "has as submitted_at"),
        ({"user": "octocat"}, "GitHub's review has as user 'octocat'"),
        ({"user": {"login": 1}}, "GitHub's review's user has as login 1"),
        ({"body": ["x" * 1000]}, "GitHub's review has as body .{80}…$"),
    ],
)
def test_a_malformed_answer_is_told(malformed: dict[str, Any], message: str) -> None:
    with pytest.raises(MalformedAnswerError, match=message):
        page(1, reviews={1: [objects.review() | malformed]})


@pytest.mark.parametrize("thing", [None, [], "x", 7])
def test_what_is_no_object_is_told(thing: Any) -> None:
    with pytest.raises(MalformedAnswerError, match="is no object but"):
        page(1, issues=[thing])


def test_a_comment_that_names_no_parent_is_malformed() -> None:
    with pytest.raises(MalformedAnswerError, match="belongs to"):
        by_number([objects.issue_comment(issue_url="https://api.github.com/repos/a/b")])


def test_the_user_ghost_is_nobody() -> None:
    ghost = objects.user(10137, "ghost")
    rows = page(
        objects.repository(),
        [objects.pull_request(1, user=ghost, assignee=ghost)],
        issue_comments={1: [objects.issue_comment(user=ghost)]},
    )
    assert rows.contributors == []
    for row in (*rows.pull_requests, *rows.comments):
        assert (row["author_github_id"], row["author_login"]) == (None, None)
