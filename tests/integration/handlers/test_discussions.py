"""Reviews, comments and issues: exactly what the simulated GitHub holds, however they come in."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from hybridjobs.handlers.github.details import pull_request_details
from hybridjobs.handlers.github.discussions import (
    issue_comments,
    pull_request_comments,
    pull_request_reviews,
)
from hybridjobs.handlers.github.issues import repository_issues
from hybridjobs.ids import new_id
from hybridjobs.sdk import PermanentError, RetryLater
from hybridjobs.sdk.handler import Handler
from hybridjobs.sdk.testing import HandlerRun, run_handler
from tests.integration.handlers.conftest import Query
from tests.integration.handlers.killing import Killed, attempt, dies
from tests.recorded.server import Fault, GitHub
from tests.recorded.server.plan import Plan
from tests.recorded.server.truth import rows

NAME = "octo-org/simulated"
HERE = {"owner": "octo-org", "repo": "simulated"}
PULLS, ISSUES = 60, 30
HEAVY = 130  # reviews, and comments of each kind, of a pull request in fifty
PULL_HANDLERS = [pull_request_details, pull_request_reviews, pull_request_comments]

# What the truth has of each table, beside the rows' own columns.
COLUMNS = {
    "pull_requests": "r.github_id, r.number, r.title, r.body, r.state, a.github_id AS author,"
    " r.merged, r.additions, r.commits, r.updated_at",
    "reviews": "r.github_id, p.github_id AS subject, a.github_id AS author, r.state, r.body,"
    " r.submitted_at, r.commit_id",
    "comments": "r.github_id, r.comment_type, coalesce(p.github_id, i.github_id) AS subject,"
    " a.github_id AS author, r.body, r.created_at, r.updated_at,"
    " original.github_id AS original, r.position, r.path",
    "issues": "r.github_id, r.number, r.title, r.body, r.state, a.github_id AS author,"
    " r.comments_count, r.updated_at",
}
JOINS = {
    "pull_requests": "LEFT JOIN github.contributors a ON a.id = r.author_id",
    "reviews": "LEFT JOIN github.contributors a ON a.id = r.author_id"
    " JOIN github.pull_requests p ON p.id = r.pull_request_id",
    "comments": "LEFT JOIN github.contributors a ON a.id = r.commenter_id"
    " LEFT JOIN github.pull_requests p ON p.id = r.pull_request_id"
    " LEFT JOIN github.issues i ON i.id = r.issue_id"
    " LEFT JOIN github.comments original ON original.id = r.in_reply_to_id",
    "issues": "LEFT JOIN github.contributors a ON a.id = r.author_id",
}
NAMES = {
    "author": ("author_github_id", "commenter_github_id"),
    "subject": ("pull_request_github_id", "issue_github_id"),
    "original": ("in_reply_to_github_id",),
}


@pytest.fixture
def simulated(github: GitHub) -> GitHub:
    github.simulate(
        Plan(NAME, pull_requests=PULLS, issues=ISSUES, heavy_every=50, heavy=HEAVY, contributors=40)
    )
    return github


def truth(github: GitHub, table: str) -> list[tuple[str, ...]]:
    """The rows that must be there, as `stored` gives them."""
    names = [each.split(" AS ")[-1].split(".")[-1].strip() for each in _columns(table)]
    contents = github.contents[github.names[NAME.lower()]]
    return sorted(
        tuple(_value(row, name) for name in names) for kind, row in rows(contents) if kind == table
    )


def _columns(table: str) -> Iterator[str]:
    yield from COLUMNS[table].replace("coalesce(p.github_id, i.github_id)", "x").split(",")


def _value(row: dict[str, Any], name: str) -> str:
    found: Any = next((row[each] for each in NAMES.get(name, (name,)) if each in row), None)
    is_time = name.endswith("_at") and found is not None
    return _text(datetime.fromisoformat(found) if is_time else found)


def _text(value: Any) -> str:
    return str(value.astimezone(UTC) if isinstance(value, datetime) else value)


async def stored(query: Query, table: str) -> list[tuple[str, ...]]:
    found = await query(f"SELECT {COLUMNS[table]} FROM github.{table} r {JOINS[table]}")
    return sorted(
        tuple(_text(None if value == "" else value) for value in row.values()) for row in found
    )


def numbers(github: GitHub, kind: str) -> list[int]:
    return sorted(github.contents[github.names[NAME.lower()]].numbers(kind))


async def capture(handler: Handler[Any, Any], what: list[int], **options: Any) -> HandlerRun:
    return await run_handler(handler, HERE | {"numbers": what}, **options)


def asked(github: GitHub) -> Counter[str]:
    """How often each page was answered."""
    return Counter(
        f"{each['path']}?{each['query']}"
        for each in github.requests
        if each["status"] in (200, 304)
        and each["path"].rsplit("/", 1)[-1].isalpha()
        and each["path"].count("/") > 3
    )


async def test_all_of_a_repository_is_exactly_the_truth_twice(
    simulated: GitHub, query: Query
) -> None:
    pulls = numbers(simulated, "pull")
    for turn in range(2):
        for handler in PULL_HANDLERS:
            run = await capture(handler, pulls)
            assert (run.result["numbers"], run.result["notes"]) == (PULLS, {})
            assert (run.progress[-1].done, run.progress[-1].total) == (PULLS, PULLS)
            assert (run.result["inserted"] == 0) == (turn == 1)
        await run_handler(repository_issues, HERE | {"days": 3650})
        await capture(issue_comments, numbers(simulated, "issue"))
        for table in COLUMNS:
            assert await stored(query, table) == truth(simulated, table), table
    people = {
        (row["github_id"], row["username"], row["is_bot"])
        for kind, row in rows(simulated.contents[simulated.names[NAME]])
        if kind == "contributors"
    }
    known = await query("SELECT github_id, username, is_bot FROM github.contributors")
    assert people <= {tuple(row.values()) for row in known}
    assert any(is_bot for _, _, is_bot in people)
    (ghosts,) = await query("SELECT count(*) FROM github.reviews WHERE author_id IS NULL")
    assert ghosts["count"] > 0
    (logs,) = await query(
        "SELECT count(*), bool_and(status = 'completed') AS completed,"
        " sum(records_inserted) AS inserted, bool_and(github_api_calls_used > 0) AS asked,"
        " bool_and(rate_limit_remaining > 0) AS told FROM github.sync_logs"
    )
    (there,) = await query(
        "SELECT (SELECT count(*) FROM github.reviews) + (SELECT count(*) FROM github.comments)"
        " + (SELECT count(*) FROM github.pull_requests) + (SELECT count(*) FROM github.issues)"
        " AS count"
    )
    assert logs == {
        "count": 10, "completed": True, "inserted": there["count"], "asked": True, "told": True
    }  # fmt: skip


@pytest.mark.parametrize(
    "handler", [pull_request_reviews, pull_request_comments], ids=lambda each: each.type
)
async def test_after_a_kill_no_page_is_asked_for_twice(
    handler: Handler[Any, Any], simulated: GitHub, query: Query
) -> None:
    # One with several pages among others; killed after each checkpoint in turn.
    heavy = max(
        numbers(simulated, "pull"),
        key=lambda each: sum(simulated.contents[simulated.names[NAME]].counts(each)),
    )
    wanted = [heavy, *(each for each in numbers(simulated, "pull")[:3] if each != heavy)]
    await capture(pull_request_details, wanted)
    simulated.requests.clear()
    job_id, checkpoint, kills = new_id(), None, 0
    payload = HERE | {"numbers": wanted}
    while True:
        try:
            result = await attempt(handler, payload, job_id, dies, checkpoint=checkpoint)
            break
        except Killed as kill:
            checkpoint, kills = kill.checkpoint, kills + 1
    assert kills > len(wanted)
    assert max(asked(simulated).values()) == 1
    table = "reviews" if handler is pull_request_reviews else "comments"
    (there,) = await query(f"SELECT count(*) FROM github.{table}")
    assert result["inserted"] == there["count"] > HEAVY
    (log,) = await query("SELECT * FROM github.sync_logs WHERE job_id = %s", job_id)
    assert (log["status"], log["records_inserted"]) == ("completed", there["count"])


async def test_a_rate_limit_in_the_middle_is_waited_out(simulated: GitHub, query: Query) -> None:
    pulls = numbers(simulated, "pull")
    await capture(pull_request_details, pulls)
    simulated.requests.clear()
    simulated.faults.append(
        Fault(status=403, path="/reviews$", after=20, headers={"retry-after": "1"})
    )
    first = HandlerRun()
    job_id = new_id()
    with pytest.raises(RetryLater) as raised:
        await capture(pull_request_reviews, pulls, run=first, job_id=job_id)
    assert (await query("SELECT status FROM github.sync_logs WHERE job_id = %s", job_id)) == [
        {"status": "started"}
    ]
    assert 0 < first.checkpoints[-1]["done"] < PULLS
    await asyncio.sleep(raised.value.after_seconds)
    run = await capture(
        pull_request_reviews, pulls, checkpoint=first.checkpoints[-1], attempt=2, job_id=job_id
    )
    assert max(asked(simulated).values()) == 1
    assert await stored(query, "reviews") == truth(simulated, "reviews")
    assert run.result["numbers"] == PULLS


@pytest.mark.parametrize("handler", PULL_HANDLERS, ids=lambda each: each.type)
async def test_a_deleted_pull_request_is_passed_over(
    handler: Handler[Any, Any], simulated: GitHub, query: Query
) -> None:
    run = await capture(handler, [*numbers(simulated, "pull")[:2], 99_999])
    assert run.result["numbers"] == 3
    (note,) = run.result["notes"].items()
    assert note[0] == "99999"
    assert "GitHub answers 404 for /repos/octo-org/simulated/pulls/99999" in note[1]
    assert await query("SELECT count(*) FROM github.pull_requests") == [{"count": 2}]
    (log,) = await query("SELECT * FROM github.sync_logs")
    assert (log["status"], log["records_failed"]) == ("completed", 1)


async def test_a_stored_one_that_is_gone_is_not_asked_for_again(
    simulated: GitHub, query: Query
) -> None:
    issue = numbers(simulated, "issue")[0]
    await run_handler(repository_issues, HERE | {"days": 3650})
    simulated.conditions[simulated.names[NAME]] = {"gone": [issue]}
    await query("DELETE FROM github.issue_captures RETURNING 1")
    run = await run_handler(issue_comments, HERE | {"issueNumber": issue})
    assert "410" in run.result["notes"][str(issue)]
    rows_ = await query("SELECT captured_for IS NOT NULL AS captured FROM github.issue_captures")
    assert rows_ == [{"captured": True}]


async def test_a_pull_request_is_no_issue(simulated: GitHub) -> None:
    number = numbers(simulated, "pull")[0]
    run = await run_handler(issue_comments, HERE | {"issueNumber": number})
    assert run.result["notes"] == {
        str(number): f"{number} is a pull request: capture/pr.comments is for those"
    }


async def test_an_issue_that_is_not_stored_comes_with_its_comments(
    simulated: GitHub, query: Query
) -> None:
    number = numbers(simulated, "issue")[0]
    await run_handler(issue_comments, HERE | {"number": number})
    assert await query("SELECT number FROM github.issues") == [{"number": number}]


async def test_by_our_id_a_renamed_one_is_found_and_another_with_its_name_is_not(
    simulated: GitHub, query: Query
) -> None:
    first, second = numbers(simulated, "pull")[:2]
    await capture(pull_request_details, [first])
    (row,) = await query("SELECT id FROM github.repositories")
    payload = {"repositoryId": str(row["id"]), "prNumber": second}
    simulated.rename(NAME, "octo-org/new")
    for handler in PULL_HANDLERS:
        run = await run_handler(handler, payload)
        assert run.result["repositoryId"] == str(row["id"])
    assert await query("SELECT full_name FROM github.repositories") == [
        {"full_name": "octo-org/new"}
    ]
    simulated.names["octo-org/new"] = simulated.simulate(Plan("octo-org/taker"))["id"]
    for handler in PULL_HANDLERS:
        with pytest.raises(PermanentError, match="octo-org/new is another repository by now"):
            await run_handler(handler, payload)
    with pytest.raises(PermanentError, match="name it by owner and repo"):
        await run_handler(pull_request_reviews, payload | {"repositoryId": str(new_id())})


async def test_issues_that_are_switched_off_are_none(simulated: GitHub, query: Query) -> None:
    simulated.condition(NAME, "issues-disabled", [])
    run = await run_handler(repository_issues, HERE)
    assert (run.result["issues"], run.result["issuesAreOff"]) == (0, True)
    assert await query("SELECT count(*) FROM github.issues") == [{"count": 0}]
