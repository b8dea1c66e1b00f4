"""Every handler in pods of a real cluster: the rows are what the simulated GitHub holds."""

import asyncio
import json
from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

import pytest

from hybridjobs.worker import registry
from tests.e2e.conftest import ACCOUNTS
from tests.e2e.release import Access, Release, delivery_of, eventually, unique_key
from tests.integration.cli.conftest import run
from tests.integration.handlers.compared import COLUMNS, key, plain
from tests.recorded import Delivery

pytestmark = pytest.mark.timeout(240)

OWNER = ACCOUNTS[-1]
Rows = dict[str, dict[Any, dict[str, Any]]]

# As those of pull requests, with what issues have.
ALL_COLUMNS = COLUMNS | {
    "comments": f"{COLUMNS['comments']}, (SELECT i.github_id FROM github.issues i"
    " WHERE i.id = issue_id) issue_github_id",
    "issues": "t.github_id, number, title, t.body, t.state, t.created_at, t.updated_at, closed_at,"
    " comments_count, (SELECT c.github_id FROM github.contributors c WHERE c.id = author_id)"
    " author_github_id, (SELECT coalesce(jsonb_agg(l->>'name'), '[]')"
    " FROM jsonb_array_elements(labels) l) labels,"
    " (SELECT coalesce(jsonb_agg(l->>'login'), '[]')"
    " FROM jsonb_array_elements(assignees) l) assignees",
}
OF_REPOSITORY = "t.repository_id = (SELECT id FROM github.repositories WHERE full_name = %s)"


def _delivery(event: str, action: str, full_name: str, number: int | None = None) -> Delivery:
    """The recorded one, as if it were about that repository, and that pull request."""
    recorded = delivery_of(event, action)
    owner, _, name = full_name.partition("/")
    document = recorded.document
    document["repository"] |= {"full_name": full_name, "name": name}
    document["repository"]["owner"] |= {"login": owner}
    if number is not None:
        document["pull_request"] |= {"number": number}
    return replace(recorded, payload=json.dumps(document).encode())


async def _simulate(access: Access, name: str, **plan: Any) -> str:
    """A repository by a plan (`tests.recorded.server.plan`); its full name, new in every run."""
    full_name = f"{OWNER}/{name}-{unique_key()}"
    await access.tell_github("simulate", {"fullName": full_name, **plan})
    return full_name


async def _truth(access: Access, full_name: str) -> Rows:
    expected: Rows = defaultdict(dict)
    for line in (await access.ask_github("truth", fullName=full_name)).text.splitlines():
        row = json.loads(line)
        row.pop("repository_github_id", None)
        kind = row.pop("table")
        expected[kind][key(row)] = plain(row)
    return expected


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """As the truth has it, where a text of nothing is none."""
    return plain({name: None if value == "" else value for name, value in row.items()})


async def _stored(access: Access, full_name: str, expected: Rows) -> Rows:
    """What the tables hold of the repository, and of its people; those that must be there."""
    found: Rows = {}
    for table in expected:
        value: object = full_name
        match table:
            case "contributors":
                where, value = "github_id = ANY(%s)", [id_ for id_, _ in expected[table]]
            case "repositories":
                where = "full_name = %s"
            case _:
                where = OF_REPOSITORY
        rows = await access.sql(
            f"SELECT {ALL_COLUMNS[table]} FROM github.{table} t WHERE {where}", value
        )
        found[table] = {key(row): _plain(row) for row in rows}
    return found


async def _assert_true(access: Access, full_name: str, *tables: str) -> Rows:
    """The tables hold what GitHub does, row by row; all tables where none is named."""
    truth = await _truth(access, full_name)
    expected = {table: truth[table] for table in tables or truth}
    found = await _stored(access, full_name, expected)
    for table, rows in expected.items():
        assert rows, table
        assert found[table] == rows, table
    return found


async def _everything(access: Access, full_name: str) -> dict[str, list[Any]]:
    """All that is stored of the repository, with the rows' own ids; not when it was last read."""
    tables = ("pull_requests", "reviews", "comments", "issues")
    return {
        table: await access.sql(
            f"SELECT to_jsonb(t) - 'last_synced_at' AS stored FROM github.{table} t"
            f" WHERE {OF_REPOSITORY} ORDER BY t.id",
            full_name,
        )
        for table in tables
    }


async def _tree(access: Access, job_id: str, *, seconds: float = 120) -> list[dict[str, Any]]:
    """The jobs of a tree, by level, when all are over; each ran in a pod and completed."""

    async def over() -> list[dict[str, Any]] | None:
        document = (await access.request("GET", f"/api/jobs/{job_id}/tree")).json()
        jobs: list[dict[str, Any]] = document["jobs"]
        statuses = {job["status"] for job in jobs}
        return None if statuses & {"queued", "processing"} else jobs

    lines = await eventually(over, seconds=seconds, what=f"the tree of {job_id} to end")
    jobs = [await access.job(line["id"]) for line in lines]
    for job in jobs:
        assert job["status"] == "completed", job
        assert job["attempts"][-1]["outcome"] == "succeeded", job
        assert job["resourceName"], job
        assert job["retryCount"] == 0, job
    return jobs


async def _requests(access: Access) -> Counter[str]:
    """How often each kind of thing was asked of GitHub until now."""
    return Counter((await access.ask_github("usage")).json()["endpoints"])


async def _fewest(access: Access, full_name: str) -> int:
    """How few requests a discovery takes, of a repository that an App reads for the first time."""
    captured = (await access.ask_github("minimum", fullName=full_name)).json()["graphql"]
    by_graphql: int = captured["pulls"] + captured["details"] + captured["more"]
    app = 2  # its installation, and a token for that
    # The repository, how many pull requests there are, and two statistics: 202 at first.
    return app + by_graphql + 1 + 1 + 2 * 2


async def test_a_discovery_is_one_tree_whose_rows_are_the_truth_twice(
    release: Release, access: Access
) -> None:
    # By itself it would ask GitHub in between, every six hours.
    release.kubectl(
        *("patch", "hybridjobschedule", "classify-repositories", "--type=merge"),
        *("--patch", '{"spec": {"suspend": true}}'),
    )
    full_name = await _simulate(access, "tree", pullRequests=50, heavyEvery=50, heavy=130)
    # Nobody but the App may read it.
    await access.tell_github("condition", {"fullName": full_name, "condition": "private"})
    await access.quiet()
    before = await _requests(access)

    answer = await access.deliver(
        _delivery("repository", "created", full_name), delivery_id=unique_key()
    )
    assert answer.status_code == 202, answer.text
    [accepted] = answer.json()["jobs"]
    jobs = await _tree(access, accepted["id"])
    assert Counter(job["type"] for job in jobs) == {
        "discover/repository.new": 1,
        "classify/repository.single": 1,
        "capture/repository.sync.graphql": 1,
        "capture/pr.details.graphql": 1,
    }
    asked = (await _requests(access) - before).total()
    fewest = await _fewest(access, full_name)
    assert fewest <= asked <= fewest * 1.1
    await _assert_true(access, full_name)
    shown = await run(
        *("get", accepted["id"], "--tree"),
        HYBRIDJOBS_API_URL=access.api,
        HYBRIDJOBS_API_TOKEN=access.token,
    )
    assert shown.code == 0, shown.err
    assert f"[{len(jobs) - 1}: {len(jobs) - 1} completed]" in shown.out
    assert all(job["id"] in shown.out for job in jobs)

    first = await _everything(access, full_name)
    # As if it were tomorrow: it would be too soon.
    await access.sql(
        "UPDATE github.repositories SET last_synced_at = now() - interval '1 day'"
        " WHERE full_name = %s RETURNING id",
        full_name,
    )
    owner, _, repo = full_name.partition("/")
    again = await access.submit("discover/repository.new", {"owner": owner, "repo": repo})
    jobs = await _tree(access, again)
    assert [job["type"] for job in jobs] == [
        "discover/repository.new",
        "capture/repository.sync.graphql",
    ]
    assert jobs[1]["result"]["pullRequests"] == 50
    assert await _everything(access, full_name) == first


async def test_all_that_rest_captures_is_the_truth(access: Access) -> None:
    full_name = await _simulate(access, "rest", pullRequests=12, issues=8, heavyEvery=10, heavy=120)
    owner, _, repo = full_name.partition("/")
    answer = await access.deliver(
        _delivery("repository", "renamed", full_name), delivery_id=unique_key()
    )
    [synced] = answer.json()["jobs"]
    issues = await access.submit("capture/repository.issues", {"owner": owner, "repo": repo})
    trees = await asyncio.gather(_tree(access, synced["id"]), _tree(access, issues))
    assert [sorted(job["type"] for job in tree) for tree in trees] == [
        [
            "capture/pr.comments",
            "capture/pr.details",
            "capture/pr.reviews",
            "capture/repository.sync",
        ],
        ["capture/issue.comments", "capture/repository.issues"],
    ]
    found = await _assert_true(access, full_name)
    ids = {job["result"]["repositoryId"] for tree in trees for job in tree}
    assert ids == {trees[0][0]["result"]["repositoryId"]}

    # One that is answered at once, by a child of the ingress, which has the App as well.
    await access.tell_github("condition", {"fullName": full_name, "condition": "private"})
    numbers = {row["number"] for row in found["pull_requests"].values()}
    answer = await access.deliver(
        _delivery("pull_request", "synchronize", full_name, max(numbers)), delivery_id=unique_key()
    )
    assert answer.status_code == 200, answer.text
    await _assert_true(access, full_name, "repositories", "pull_requests")


async def test_old_sizes_are_found_and_measured_again(release: Release, access: Access) -> None:
    schedule = release.object("hybridjobschedule", "classify-repositories")
    [accepted] = schedule["status"]["conditions"]
    assert (accepted["type"], accepted["status"]) == ("Accepted", "True")
    assert schedule["spec"]["type"] == "classify/repository.size"

    full_name = await _simulate(access, "sized", pullRequests=30)
    owner, _, repo = full_name.partition("/")
    single = await access.submit("classify/repository.single", {"owner": owner, "repo": repo})
    [job] = await _tree(access, single)
    id_ = job["result"]["repositoryId"]
    assert job["result"]["metrics"]["monthlyPRs"] == 30
    [measured] = await access.sql(
        "UPDATE github.tracked_repositories SET size = 'xl',"
        " size_calculated_at = now() - interval '31 days' WHERE repository_id = %s"
        " RETURNING metrics",
        id_,
    )
    jobs = await _tree(access, await access.submit("classify/repository.size", {}))
    # The first one is about no repository.
    [again] = [job for job in jobs if job["payload"].get("repositoryId") == id_]
    assert again["type"] == "classify/repository.single"
    [row] = await access.sql(
        "SELECT size::text, metrics, size_calculated_at > now() - interval '5 minutes' AS is_new"
        " FROM github.tracked_repositories WHERE repository_id = %s",
        id_,
    )
    assert row["is_new"]
    assert row["size"] == job["result"]["size"] != "xl"
    figures = [each | {"lastCalculated": None} for each in (row["metrics"], measured["metrics"])]
    assert figures[0] == figures[1]
    await _assert_true(access, full_name, "repositories")


async def test_a_repository_that_is_not_there_fails_for_good(access: Access) -> None:
    payload = {"owner": OWNER, "repo": f"absent-{unique_key()}"}
    job = await access.until(await access.submit("discover/repository.new", payload))
    assert (job["status"], job["retryCount"]) == ("failed", 0)
    [attempt] = job["attempts"]
    assert attempt["outcome"] == "permanent"
    assert payload["repo"] in job["error"]
    assert "404" in job["error"]


async def test_every_handler_has_a_type_that_is_accepted(release: Release) -> None:
    types = {body["spec"]["type"]: body for body in release.objects("hybridjobtypes")}
    for name in registry.names():
        [accepted] = types[name]["status"]["conditions"]
        assert (accepted["type"], accepted["status"]) == ("Accepted", "True")
