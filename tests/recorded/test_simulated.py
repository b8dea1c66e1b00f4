"""What a capture by either way finds is the truth."""

import json
import tracemalloc
from typing import Any

import httpx
import pytest

from tests.recorded.checking import pages
from tests.recorded.server.people import People

Rows = dict[str, dict[int, dict[str, Any]]]

NAME = "octo-org/simulated"
PLAN = {"fullName": NAME, "pullRequests": 120, "issues": 30, "heavyEvery": 100, "heavy": 130}
PAGE = """query ($after: String) { repository(owner: "octo-org", name: "simulated") {
  pullRequests(first: 25, after: $after, orderBy: {field: UPDATED_AT, direction: DESC}) {
    pageInfo { hasNextPage endCursor }
    nodes { ...pull } } } }
fragment pull on PullRequest {
  fullDatabaseId number title body state author { ...person } mergedBy { ...person } baseRefName
  headRefName isDraft merged createdAt updatedAt closedAt mergedAt additions deletions changedFiles
  commits { totalCount } url
  reviews(first: 100) { ...reviews }
  comments(first: 100) { ...comments }
  reviewThreads(first: 100) { ...threads } }"""
MORE = """query More($number: Int!, $reviews: String, $comments: String, $threads: String) {
  repository(owner: "octo-org", name: "simulated") { pullRequest(number: $number) {
    reviews(first: 100, after: $reviews) { ...reviews }
    comments(first: 100, after: $comments) { ...comments }
    reviewThreads(first: 100, after: $threads) { ...threads } } } }
"""
FRAGMENTS = """
fragment person on Actor { __typename login
  ... on User { databaseId } ... on Bot { databaseId } ... on Organization { databaseId } }
fragment reviews on PullRequestReviewConnection { pageInfo { hasNextPage endCursor }
  nodes { fullDatabaseId author { ...person } state body submittedAt commit { oid } } }
fragment comments on IssueCommentConnection { pageInfo { hasNextPage endCursor }
  nodes { fullDatabaseId author { ...person } body createdAt updatedAt } }
fragment threads on PullRequestReviewThreadConnection { pageInfo { hasNextPage endCursor }
  nodes { comments(first: 10) { nodes { fullDatabaseId author { ...person } body createdAt updatedAt
    path diffHunk position originalPosition commit { oid } originalCommit { oid }
    replyTo { fullDatabaseId } } } } }"""


async def truth(github: httpx.AsyncClient, **query: str) -> Rows:
    answer = await github.get("/_test/truth", params={"fullName": NAME, **query})
    rows: Rows = {}
    for line in answer.text.splitlines():
        row = json.loads(line)
        rows.setdefault(row.pop("table"), {})[row["github_id"]] = row
    return rows


async def simulate(github: httpx.AsyncClient, **more: Any) -> None:
    (await github.post("/_test/simulate", json=PLAN | more)).raise_for_status()
    github.headers["authorization"] = "Bearer one"


async def by_rest(github: httpx.AsyncClient) -> dict[str, set[Any]]:
    """What requests of our own find: people, and each thing's members that are compared."""
    one = f"/repos/{NAME}"
    seen: dict[str, set[Any]] = {
        kind: set() for kind in ("pull_requests", "reviews", "comments", "issues", "contributors")
    }

    def person(user: Any) -> int | None:
        if user is None or user["login"] == "ghost":
            return None
        seen["contributors"].add((user["id"], user["login"]))
        return int(user["id"])

    for issue in await pages(github, f"{one}/issues?state=all&per_page=100"):
        number = issue["number"]
        for each in issue["assignees"]:
            person(each)
        author = person(issue["user"])
        if "pull_request" not in issue:
            seen["issues"].add((issue["id"], issue["title"], issue["state"], author))
        for each in await pages(github, f"{one}/issues/{number}/comments?per_page=100"):
            comment = (each["id"], person(each["user"]), each["body"], each["created_at"], None)
            seen["comments"].add(comment)
        if "pull_request" not in issue:
            continue
        pull = (await github.get(f"{one}/pulls/{number}")).json()
        merger = person(pull["merged_by"])
        seen["pull_requests"].add(
            (pull["id"], pull["title"], pull["updated_at"], author, merger, pull["additions"])
        )
        for each in await pages(github, f"{one}/pulls/{number}/reviews?per_page=100"):
            review = (each["id"], person(each["user"]), each["state"], each["body"] or None)
            seen["reviews"].add((*review, each["submitted_at"], each["commit_id"]))
        listed = await pages(github, f"{one}/pulls/{number}/comments?per_page=100")
        known = {each["id"] for each in listed}
        for each in listed:
            original = each.get("in_reply_to_id")
            said = (each["id"], person(each["user"]), each["body"], each["created_at"])
            seen["comments"].add((*said, original if original in known else None))
    return seen


async def by_graphql(github: httpx.AsyncClient) -> dict[str, set[Any]]:
    seen: dict[str, set[Any]] = {
        kind: set() for kind in ("pull_requests", "reviews", "comments", "contributors")
    }

    def person(actor: Any) -> int | None:
        if actor is None:
            return None
        login = actor["login"] + ("[bot]" if actor["__typename"] == "Bot" else "")
        seen["contributors"].add((actor["databaseId"], login))
        return int(actor["databaseId"])

    async def ask(query: str, **variables: Any) -> Any:
        body = {"query": query, "variables": variables}
        answer = (await github.post("/graphql", json=body)).json()
        assert "errors" not in answer, answer["errors"]
        return answer["data"]["repository"]

    def take(found: Any) -> dict[str, str]:
        """The rows of a pull request's connections; where those that go on go on."""
        for each in found["reviews"]["nodes"]:
            review = (int(each["fullDatabaseId"]), person(each["author"]), each["state"])
            more = (each["body"] or None, each["submittedAt"], each["commit"]["oid"])
            seen["reviews"].add((*review, *more))
        threads = [each["comments"]["nodes"] for each in found["reviewThreads"]["nodes"]]
        for each in (*found["comments"]["nodes"], *(one for thread in threads for one in thread)):
            original = each.get("replyTo")
            comment = (int(each["fullDatabaseId"]), person(each["author"]), each["body"])
            reply_to = int(original["fullDatabaseId"]) if original else None
            seen["comments"].add((*comment, each["createdAt"], reply_to))
        names = {"reviews": "reviews", "comments": "comments", "threads": "reviewThreads"}
        infos = {variable: found[name]["pageInfo"] for variable, name in names.items()}
        if not any(info["hasNextPage"] for info in infos.values()):
            return {}
        return {name: info["endCursor"] for name, info in infos.items() if info["endCursor"]}

    page: Any = {"pageInfo": {"hasNextPage": True, "endCursor": None}}
    while page["pageInfo"]["hasNextPage"]:
        page = (await ask(PAGE + FRAGMENTS, after=page["pageInfo"]["endCursor"]))["pullRequests"]
        for pull in page["nodes"]:
            author, merger = person(pull["author"]), person(pull["mergedBy"])
            row = (int(pull["fullDatabaseId"]), pull["title"], pull["updatedAt"])
            seen["pull_requests"].add((*row, author, merger, pull["additions"]))
            after = take(pull)
            while after:
                more = await ask(MORE + FRAGMENTS, number=pull["number"], **after)
                after = take(more["pullRequest"])
    return seen


def compared(rows: Rows) -> dict[str, set[Any]]:
    """The truth, as the captures above have it."""
    members = {
        "pull_requests": (
            "github_id",
            "title",
            "updated_at",
            "author_github_id",
            "merged_by_github_id",
            "additions",
        ),
        "reviews": (
            "github_id",
            "author_github_id",
            "state",
            "body",
            "submitted_at",
            "commit_id",
        ),
        "comments": (
            "github_id",
            "commenter_github_id",
            "body",
            "created_at",
            "in_reply_to_github_id",
        ),
        "issues": ("github_id", "title", "state", "author_github_id"),
        "contributors": ("github_id", "username"),
    }
    return {
        table: {tuple(row.get(name) for name in names) for row in rows[table].values()}
        for table, names in members.items()
    }


async def test_a_capture_by_rest_is_the_truth(github: httpx.AsyncClient) -> None:
    await simulate(github)
    seen = await by_rest(github)
    assert seen == compared(await truth(github))
    assert max(len(each) for each in seen.values()) > 500


async def test_a_capture_by_graphql_is_the_truth(github: httpx.AsyncClient) -> None:
    await simulate(github, issues=0)
    expected = compared(await truth(github) | {"issues": {}})
    del expected["issues"]
    assert await by_graphql(github) == expected


async def test_it_is_the_same_every_time(github: httpx.AsyncClient) -> None:
    kept = []
    for seed in (1, 1, 2):
        await github.post("/_test/reset")
        await simulate(github, seed=seed)
        rows = await truth(github)
        kept.append({(id_, row["body"]) for id_, row in rows["reviews"].items()})
    assert kept[0] == kept[1] != kept[2]


async def test_all_that_a_capture_must_cope_with_is_there(github: httpx.AsyncClient) -> None:
    await simulate(github)
    one, numbers = f"/repos/{NAME}", range(1, 151)
    pulls = await pages(github, f"{one}/pulls?state=all&per_page=100")
    assert any(each["user"]["login"] == "ghost" for each in pulls)
    assert any(each["user"]["type"] == "Bot" for each in pulls)
    assert any(each["body"] is None for each in pulls)
    assert min(each["id"] for each in pulls) > 1 << 31
    heavy = await pages(github, f"{one}/pulls/107/reviews?per_page=100")
    assert len(heavy) == 130
    assert any(each["user"] is None for each in heavy)
    assert {each["state"] for each in heavy} == {
        "APPROVED",
        "COMMENTED",
        "CHANGES_REQUESTED",
        "DISMISSED",
    }
    early = dangling = 0
    for number in numbers:
        if number not in {each["number"] for each in pulls}:
            continue
        listed = await pages(github, f"{one}/pulls/{number}/comments?per_page=100")
        places = {each["id"]: at for at, each in enumerate(listed)}
        for at, each in enumerate(listed):
            original = each.get("in_reply_to_id")
            early += original is not None and places.get(original, -1) > at
            dangling += original is not None and original not in places
    assert min(early, dangling) > 10


async def test_updates_arrive_while_it_is_read(github: httpx.AsyncClient) -> None:
    await simulate(github, updates=24, everyRequests=2)
    before = await truth(github)
    for _ in range(60):
        await github.get(f"/repos/{NAME}")
    after = await truth(github)
    assert len(after["pull_requests"]) == len(before["pull_requests"]) + 4
    last = max(row["updated_at"] for row in before["pull_requests"].values())
    touched = [row for row in after["pull_requests"].values() if row["updated_at"] > last]
    minimum = (await github.get("/_test/minimum", params={"fullName": NAME})).json()
    assert minimum["rest"]["changed"] == 3 * len(touched)
    assert minimum["graphql"]["changed"] == 1
    assert len(after["reviews"]) >= len(before["reviews"]) + 4
    assert len(after["comments"]) >= len(before["comments"]) + 4
    names = {id_: row["username"] for id_, row in after["contributors"].items()}
    changed = {
        id_: (row["username"], names[id_])
        for id_, row in before["contributors"].items()
        if names.get(id_) != row["username"]
    }
    assert changed
    # A login that was given up may be taken by somebody else, but never by two.
    assert len(set(names.values())) == len(names)
    assert await by_rest(github) == compared(after)
    since = max(row["updated_at"] for row in before["pull_requests"].values())
    recent = await truth(github, since=since, table="pull_requests")
    assert 4 < len(recent["pull_requests"]) < len(after["pull_requests"])


@pytest.mark.parametrize("way", ["rest", "graphql"])
async def test_the_minimum_is_what_a_careful_capture_takes(
    github: httpx.AsyncClient, way: str
) -> None:
    await simulate(github, issues=0)
    minimum = (await github.get("/_test/minimum", params={"fullName": NAME})).json()[way]
    counts = (await github.get("/_test/truth", params={"fullName": NAME, "counts": "true"})).json()
    assert minimum["total"] == sum(minimum.values()) - minimum["total"]
    assert (minimum["pulls"], minimum["again"], minimum["changed"]) == (2, 1, 0)
    assert (minimum["commitActivity"], minimum["contributorActivity"]) == (2, 2)
    if way == "rest":
        assert minimum["pull"] == counts["pull_requests"] == 120
        one = f"/repos/{NAME}"
        expected = 0
        for number in range(1, 121):
            pull = (await github.get(f"{one}/pulls/{number}")).json()
            expected += -(-pull["comments"] // 100) + -(-pull["review_comments"] // 100)
        assert minimum["pullRequestComments"] == expected
    else:
        assert (minimum["details"], minimum["more"]) == (2, 2)


async def test_a_large_one_takes_little_memory(github: httpx.AsyncClient) -> None:
    tracemalloc.start()
    await simulate(github, pullRequests=100_000, issues=10_000)
    page = (await github.get(f"/repos/{NAME}/pulls?state=all&per_page=100&page=900")).json()
    assert len(page) == 100
    detail = await github.get(f"/repos/{NAME}/pulls/{page[0]['number']}")
    assert detail.json()["id"] == page[0]["id"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20


def test_a_bot_with_another_name_is_still_told_by_it() -> None:
    people = People({"login": "octocat", "id": 1, "type": "User"})
    bots, others = range(0, 60, 20), range(1, 4)
    for index in (*bots, *others):
        people.rename(index)
    logins = [people.login(index) for index in (*bots, *others)]
    assert [login.endswith("[bot]") for login in logins] == [True] * 3 + [False] * 3
    assert "renamed-0[bot]" in logins
    assert len(set(logins)) == 6
