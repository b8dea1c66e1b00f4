"""What may be wrong with a payload, a repository or GitHub's answer: how a job of each type ends.

The table "What ends how" in docs/github.md says the same.
"""

import re
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from hybridjobs.handlers.github.client.errors import TransientError
from hybridjobs.handlers.github.client.transport import Transport
from hybridjobs.handlers.github.rows import MalformedAnswerError, page
from hybridjobs.handlers.github.tables import GitHubTables
from hybridjobs.ids import new_id
from hybridjobs.sdk import PermanentError, RetryLater
from hybridjobs.sdk.testing import run_handler
from tests.integration.handlers.conftest import TYPES, Query
from tests.recorded.server import Fault, GitHub
from tests.recorded.server.plan import Plan

NAME, NEW_NAME = "octo-org/simulated", "octo-org/renamed"
SIZE = "classify/repository.size"  # asks GitHub for nothing
DISCOVER = "discover/repository.new"  # takes no repositoryId
ABOUT_ONE = sorted(TYPES.keys() - {SIZE})
BY_ID = sorted(TYPES.keys() - {SIZE, DISCOVER})
NUMBERED = sorted(name for name in TYPES if "/pr." in name or "/issue." in name)
GRAPHQL = [name for name in NUMBERED if name.endswith(".graphql")]


@pytest.fixture
def simulated(github: GitHub, monkeypatch: pytest.MonkeyPatch) -> GitHub:
    """A small repository, and nobody who waits before a request is repeated."""

    async def give_up(_self: Transport, error: TransientError, _troubles: int) -> int:
        raise error from None

    monkeypatch.setattr(Transport, "_pause", give_up)
    github.simulate(Plan(full_name=NAME, pull_requests=3, issues=2, contributors=5))
    github.stats_waits = 0
    return github


def number(github: GitHub, type_: str) -> int:
    contents = github.contents[github.names[NAME]]
    return min(contents.numbers("issue" if "/issue." in type_ else "pull"))


async def ran(github: GitHub, type_: str, parent: UUID, **changes: Any) -> Any:
    """The result of a job of that type about the repository."""
    payload: dict[str, Any] = {"owner": "octo-org", "repo": "simulated"}
    if type_ in NUMBERED:
        payload["number"] = number(github, type_)
    return (await run_handler(TYPES[type_].load(), payload | changes, job_id=parent)).result


@dataclass(frozen=True)
class Ends:
    """How a job ends: `error` is raised, and says that."""

    error: type[Exception] | tuple[type[Exception], ...]
    says: str
    fault: dict[str, Any] = field(default_factory=dict)


# A payload is looked at before anything else.

REPOSITORY = {"owner": "octo-org", "repo": "simulated"}
NO_REPOSITORY: dict[str, tuple[object, str]] = {
    "nothing": ({}, r"/: .*owner and repo, or repositoryId|/owner: Field required"),
    "no object": (["octo-org/simulated"], "/: Input should be a valid dictionary"),
    "no repo": ({"owner": "octo-org"}, r"/: .*owner and repo, or repositoryId|/repo: Field req"),
    "a path": (REPOSITORY | {"owner": "a/b"}, "/owner: String should match"),
    "dots": (REPOSITORY | {"repo": ".."}, "/repo: .*not a name on GitHub"),
    "no text": (REPOSITORY | {"repo": 7}, "/repo: Input should be a valid string"),
    "no uuid": ({"repositoryId": "7"}, "/repositoryId: Input should be a valid UUID|/owner: Field"),
}
NO_NUMBERS: dict[str, tuple[object, str]] = {
    "none": ({}, "/numbers: Field required"),
    "zero": ({"number": 0}, "/number/0: Input should be greater than 0"),
    "no number": ({"prNumber": "x"}, "/prNumber/0: Input should be a valid integer"),
    "too many": ({"numbers": list(range(1, 102))}, "/numbers: List should have at most 100"),
}


async def refused(type_: str, payload: object, says: str) -> None:
    with pytest.raises(PermanentError, match=f"^invalid payload: .*({says})"):
        await run_handler(TYPES[type_].load(), payload)


@pytest.mark.parametrize("wrong", NO_REPOSITORY)
@pytest.mark.parametrize("type_", ABOUT_ONE)
async def test_a_payload_that_names_no_repository_is_permanent(type_: str, wrong: str) -> None:
    payload, says = NO_REPOSITORY[wrong]
    if type_ in NUMBERED and isinstance(payload, dict):
        payload = payload | {"number": 1}
    await refused(type_, payload, says)


@pytest.mark.parametrize("wrong", NO_NUMBERS)
@pytest.mark.parametrize("type_", NUMBERED)
async def test_a_payload_without_numbers_is_permanent(type_: str, wrong: str) -> None:
    payload, says = NO_NUMBERS[wrong]
    assert isinstance(payload, dict)
    await refused(type_, REPOSITORY | payload, says)


@pytest.mark.parametrize(
    ("type_", "payload", "says"),
    [
        ("capture/repository.sync", REPOSITORY | {"days": 0}, "/days: "),
        ("capture/repository.sync.graphql", REPOSITORY | {"priority": "x"}, "/priority: "),
        ("capture/repository.issues", REPOSITORY | {"timeRange": "x"}, "/timeRange: "),
        (DISCOVER, REPOSITORY | {"source": 7}, "/source: "),
        (SIZE, {"limit": 0}, "/limit: "),
        (SIZE, [], "/: Input should be a valid dictionary"),
    ],
)
async def test_what_else_is_wrong_in_a_payload_is_permanent(
    type_: str, payload: object, says: str
) -> None:
    await refused(type_, payload, says)


@pytest.mark.parametrize("type_", BY_ID)
async def test_an_id_that_is_not_stored_is_permanent(
    type_: str, simulated: GitHub, parent: UUID
) -> None:
    wanted = new_id()
    with pytest.raises(
        PermanentError, match=f"no repository {wanted} is stored: .* owner and repo"
    ):
        await ran(simulated, type_, parent, owner=None, repo=None, repositoryId=str(wanted))
    assert simulated.requests == []


# What GitHub says of a repository.

HIDDEN = r"(404 for /repos/octo-org/simulated|NOT_FOUND for GraphQL).*no token may see it"
BLOCKED = r"(403 for /repos/octo-org/simulated|FORBIDDEN for GraphQL).*GitHub has blocked"
TAKEN_DOWN = r"451 for /repos/octo-org/simulated.*taken down|FORBIDDEN for GraphQL.*blocked"


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("deleted", HIDDEN),
        ("private", HIDDEN),
        ("dmca", TAKEN_DOWN),
        ("disabled", BLOCKED),
    ],
)
@pytest.mark.parametrize("type_", ABOUT_ONE)
async def test_a_repository_that_nobody_may_see_is_noted_and_permanent(
    type_: str,
    condition: str,
    says: str,
    simulated: GitHub,
    tables: GitHubTables,
    parent: UUID,
    query: Query,
) -> None:
    await tables.write(page(simulated.contents[simulated.names[NAME]].repository))
    simulated.condition(NAME, condition, [])
    with pytest.raises(PermanentError, match=f"^GitHub answers ({says})"):
        await ran(simulated, type_, parent)
    assert await query("SELECT is_active FROM github.repositories") == [{"is_active": False}]
    logs = await query("SELECT status FROM github.sync_logs")
    assert logs == [{"status": "failed"}]


@pytest.mark.parametrize("condition", ["archived", "empty", "issues-disabled"])
@pytest.mark.parametrize("type_", ABOUT_ONE)
async def test_one_that_is_archived_or_empty_or_without_issues_is_read_as_any(
    type_: str, condition: str, simulated: GitHub, parent: UUID, query: Query
) -> None:
    simulated.condition(NAME, condition, [])
    await ran(simulated, type_, parent)
    (row,) = await query("SELECT is_archived, is_active FROM github.repositories")
    assert row == {"is_archived": condition == "archived", "is_active": True}


@pytest.mark.parametrize("type_", ABOUT_ONE)
async def test_one_that_was_renamed_is_found_by_its_earlier_name(
    type_: str, simulated: GitHub, tables: GitHubTables, parent: UUID, query: Query
) -> None:
    stored = await tables.write(page(simulated.contents[simulated.names[NAME]].repository))
    simulated.rename(NAME, NEW_NAME)
    named = {"owner": None, "repo": None, "repositoryId": str(stored.repository_id)}
    await ran(simulated, type_, parent, **(named if type_ in BY_ID else {}))
    rows = await query("SELECT id, full_name FROM github.repositories")
    assert rows == [{"id": stored.repository_id, "full_name": NEW_NAME}]


@pytest.mark.parametrize("type_", BY_ID)
async def test_a_name_that_passed_on_is_permanent(
    type_: str, simulated: GitHub, tables: GitHubTables, parent: UUID, query: Query
) -> None:
    earlier = simulated.contents[simulated.names[NAME]].repository | {"id": 4711}
    stored = await tables.write(page(earlier))
    with pytest.raises(PermanentError, match=f"^{NAME} is another repository .* by "):
        await ran(simulated, type_, parent, owner=None, repo=None,
                  repositoryId=str(stored.repository_id))  # fmt: skip
    rows = await query("SELECT github_id FROM github.repositories")
    assert rows == [{"github_id": 4711}]


@pytest.mark.parametrize("type_", NUMBERED)
async def test_a_single_number_that_is_not_there(
    type_: str, simulated: GitHub, parent: UUID
) -> None:
    must_exist = type_ in ("capture/pr.details", *GRAPHQL)
    if must_exist:
        says = f"404 for .*/pulls/999: .*no token|{NAME} has no pull request 999"
        with pytest.raises(PermanentError, match=says):
            await ran(simulated, type_, parent, number=999)
    else:
        notes = (await ran(simulated, type_, parent, number=999))["notes"]
        assert "GitHub answers 404" in notes["999"]


# What GitHub answers, whatever is asked for.

OTHER_FORM = (TransientError, MalformedAnswerError)
ANSWERS = {
    "401": Ends(PermanentError, "answers 401 .*GITHUB_TOKEN or the App's key", {"status": 401}),
    "403": Ends(PermanentError, "answers 403 .*give the token the right", {"status": 403}),
    "422": Ends(PermanentError, "answers 422 .*planned by a test", {"status": 422}),
    "429": Ends(RetryLater, "rate limit: planned by a test, until ", {"status": 429}),
    "500": Ends(TransientError, "answers 500 for ", {"status": 500}),
    "a list": Ends(OTHER_FORM, "answer for .* is no", {"status": 200, "body": [1]}),
    "an object": Ends(OTHER_FORM, "", {"status": 200, "body": {"id": "x", "data": "x"}}),
    "of GraphQL": Ends(
        OTHER_FORM,
        "",
        {"status": 200, "body": {"data": {"repository": {}, "rateLimit": {"cost": 1}}}},
    ),
    "items": Ends(
        OTHER_FORM,
        "",
        {
            "status": 200,
            "body": [{}],
            "path": r"/(pulls|issues|reviews|comments|graphql|pulls/\d+|commit_activity)$",
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS)
async def test_an_answer_that_is_none(
    answer: str, simulated: GitHub, parent: UUID, query: Query
) -> None:
    ends = ANSWERS[answer]
    simulated.faults.append(Fault(times=10_000, **ends.fault))
    for type_ in ABOUT_ONE:
        if (type_, answer) == (DISCOVER, "items"):
            continue  # it asks for no list
        with pytest.raises(ends.error) as raised:
            await ran(simulated, type_, parent)
        assert re.match(f"GitHub.*{ends.says}", str(raised.value)), (type_, raised.value)
        await query("DELETE FROM github.rate_limits RETURNING 1")  # nothing is blocked


async def test_half_an_answer_is_retried(simulated: GitHub, parent: UUID) -> None:
    simulated.trouble = {"malformed": 1.0}
    for type_ in ABOUT_ONE:
        with pytest.raises(TransientError) as raised:
            await ran(simulated, type_, parent)
        says = "GitHub's answer for .* is (no JSON|none)"
        assert re.match(says, str(raised.value)), (type_, raised.value)
