"""The capture of docs/handlers.md, "Writing a capture", does what the page says."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from hybridjobs.sdk import PermanentError, RetryLater
from hybridjobs.sdk.testing import HandlerRun, run_handler
from tests.builders import job_type
from tests.conftest import DatabaseUrls
from tests.integration.handlers.conftest import Query
from tests.integration.store.scene import Queue
from tests.recorded.server import Fault, GitHub
from tests.recorded.server.plan import Plan

PAGE = Path(__file__).parents[3] / "docs" / "handlers.md"
SECTION = PAGE.read_text().partition("## Writing a capture\n")[2].partition("\n## ")[0]
PAYLOAD = {"owner": "octo-org", "repo": "simulated"}
_FOLLOWING = "SELECT payload, parent_id FROM background_jobs WHERE type = 'team/triage' ORDER BY id"


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def written() -> Any:
    module: dict[str, Any] = {"__name__": "myjobs.issues"}
    exec(compile(block("python"), str(PAGE), "exec"), module)
    return module["team_issues"]


@pytest.fixture
async def simulated(github: GitHub, queue: Queue, database_urls: DatabaseUrls) -> GitHub:
    """Three pages of issues, and the table for them."""
    github.simulate(Plan(full_name="octo-org/simulated", pull_requests=130, issues=100))
    await queue.register(job_type("team/triage"))
    async with await psycopg.AsyncConnection.connect(database_urls.owner) as connection:
        await connection.execute(block("sql").encode())
    return github


def pages(github: GitHub) -> list[str]:
    return [each["query"].rpartition("=")[2] for each in github.requests]


async def test_each_issue_is_stored_and_followed_once(
    written: Any, simulated: GitHub, queue: Queue, parent: UUID, query: Query
) -> None:
    run = await run_handler(written, PAYLOAD, job_id=parent)
    assert run.result == {"pages": 3}
    assert run.checkpoints == [{"page": 1}, {"page": 2}, {"page": 3}]
    assert await query("SELECT count(*) FROM team.issues") == [{"count": 230}]
    following = await queue.rows(_FOLLOWING)
    assert len(following) == 230
    assert {row["parent_id"] for row in following} == {parent}
    # Executed once more, it does no harm.
    await run_handler(written, PAYLOAD, job_id=parent)
    assert await queue.rows(_FOLLOWING) == following


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        (lambda: {"retry-after": "30"}, 30),
        (
            lambda: {
                "x-ratelimit-remaining": "0",
                "x-ratelimit-reset": str(int(time.time()) + 600),
            },
            600,
        ),
    ],
    ids=["secondary", "primary"],
)
async def test_a_limit_waits_and_goes_on_with_the_next_page(
    written: Any,
    simulated: GitHub,
    parent: UUID,
    limit: Callable[[], dict[str, str]],
    seconds: int,
) -> None:
    headers = limit()
    simulated.faults.append(Fault(status=403, after=1, headers=headers))
    first = HandlerRun()
    with pytest.raises(RetryLater, match="rate limit") as raised:
        await run_handler(written, PAYLOAD, run=first, job_id=parent)
    assert seconds - 60 < raised.value.after_seconds <= seconds
    checkpoint = first.checkpoints[-1]
    await run_handler(written, PAYLOAD, checkpoint=checkpoint, attempt=2, job_id=parent)
    assert pages(simulated) == ["1", "2", "2", "3"]


async def test_page_and_follow_ups_are_stored_together(
    written: Any, simulated: GitHub, queue: Queue, query: Query
) -> None:
    with pytest.raises(Exception, match="does not run"):
        await run_handler(written, PAYLOAD)  # a job that is not in the queue has no children
    assert await query("SELECT FROM team.issues") == []
    assert await queue.rows(_FOLLOWING) == []


async def test_a_refusal_is_permanent_and_trouble_is_not(
    written: Any, simulated: GitHub, parent: UUID
) -> None:
    with pytest.raises(PermanentError, match=r"GitHub answers 404: .*Not Found"):
        await run_handler(written, PAYLOAD | {"repo": "nowhere"}, job_id=parent)
    simulated.faults.append(Fault(status=502))
    with pytest.raises(Exception, match="502") as raised:
        await run_handler(written, PAYLOAD, job_id=parent)
    assert not isinstance(raised.value, PermanentError | RetryLater)
