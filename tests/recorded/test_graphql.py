from typing import Any

import httpx
import pytest

NAME = 'repository(owner: "octo-org", name: "simulated")'
PLAN = {"fullName": "octo-org/simulated", "pullRequests": 60, "issues": 20, "heavyEvery": 40}


@pytest.fixture
async def simulated(github: httpx.AsyncClient) -> httpx.AsyncClient:
    (await github.post("/_test/simulate", json=PLAN)).raise_for_status()
    github.headers["authorization"] = "Bearer one"
    return github


async def ask(github: httpx.AsyncClient, query: str, **variables: Any) -> Any:
    answer = await github.post("/graphql", json={"query": query, "variables": variables})
    assert answer.status_code == 200
    return answer.json()


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        (
            "{ %s { rateLimit { cost } } }",
            "undefinedField",
            "Field 'rateLimit' doesn't exist on type 'Repository'",
        ),
        (
            "query ($since: DateTime) { %s { id } }",
            "variableNotUsed",
            "Variable $since is declared by query but not used",
        ),
        (
            "{ %s { pullRequests(first: 1, filterBy: {}) { totalCount } } }",
            "argumentNotAccepted",
            "Field 'pullRequests' doesn't accept argument 'filterBy'",
        ),
        ('{ user(login: "x") { blog } }', "undefinedField", "Field 'blog' doesn't exist on type"),
    ],
)
async def test_what_the_schema_lacks_is_refused(
    simulated: httpx.AsyncClient, query: str, code: str, message: str
) -> None:
    answer = await ask(simulated, query.replace("%s", NAME))
    assert "data" not in answer
    (error,) = answer["errors"]
    assert error["extensions"]["code"] == code
    assert error["message"].startswith(message)


@pytest.mark.parametrize(
    ("within", "type_"),
    [
        ("pullRequests { nodes { id } }", "MISSING_PAGINATION_BOUNDARIES"),
        ("pullRequests(first: 101) { nodes { id } }", "EXCESSIVE_PAGINATION"),
        (
            """pullRequests(first: 100) { nodes { reviews(first: 100) { nodes {
                comments(first: 50) { nodes { id } } } } } }""",
            "MAX_NODE_LIMIT_EXCEEDED",
        ),
        ("stargazers(first: 1) { totalCount }", "NOT_ANSWERED"),
        ("pullRequest(number: 999) { id }", "NOT_FOUND"),
        ('pullRequests(first: 1, after: "x") { nodes { id } }', "INVALID_CURSOR_ARGUMENTS"),
    ],
)
async def test_what_github_refuses_is_refused(
    simulated: httpx.AsyncClient, within: str, type_: str
) -> None:
    answer = await ask(simulated, f"{{ {NAME} {{ {within} }} }}")
    assert answer["errors"][0]["type"] == type_


async def test_a_query_costs_what_github_says(simulated: httpx.AsyncClient) -> None:
    # The example of GitHub's page on limits: 5,101 requests, 305,100 nodes.
    within = (
        "pullRequests(first: 100) { nodes { comments(first: 50) { nodes { id } }"
        " reviews(first: 50) { nodes { comments(first: 60) { nodes { id } } } } } }"
    )
    query = f"{{ {NAME} {{ {within} }} rateLimit {{ cost nodeCount remaining used limit }} }}"
    await simulated.post("/_test/limits", json={"graphql": 100})
    answer = await simulated.post("/graphql", json={"query": query})
    limit = answer.json()["data"]["rateLimit"]
    assert limit["cost"] == round((1 + 100 + 100 + 100 * 50) / 100)
    assert limit["nodeCount"] == 100 + 100 * 50 + 100 * 50 + 100 * 50 * 60
    assert (limit["limit"], limit["used"], limit["remaining"]) == (100, 52, 48)
    assert answer.headers["x-ratelimit-remaining"] == "48"
    assert answer.headers["x-ratelimit-resource"] == "graphql"
    assert (await simulated.get("/_test/usage")).json()["quotaExceeded"] == 0
    assert "errors" not in await ask(simulated, query)
    assert (await simulated.get("/_test/usage")).json()["quotaExceeded"] == 1
    refused = await ask(simulated, query)
    assert refused["errors"][0]["type"] == "RATE_LIMITED"
    assert (await simulated.get("/_test/usage")).json()["quotaExceeded"] == 2


async def test_a_query_of_too_many_nodes_times_out(simulated: httpx.AsyncClient) -> None:
    await simulated.post("/_test/limits", json={"timeoutNodes": 10})
    query = f"query ($n: Int!) {{ {NAME} {{ pullRequests(first: $n) {{ totalCount }} }} }}"
    small = await simulated.post("/graphql", json={"query": query, "variables": {"n": 10}})
    assert small.json() == {"data": {"repository": {"pullRequests": {"totalCount": 60}}}}
    large = await simulated.post("/graphql", json={"query": query, "variables": {"n": 11}})
    assert large.status_code == 502
    assert "timeout" in large.json()["errors"][0]["message"]


async def test_it_is_for_callers_with_a_token_only(github: httpx.AsyncClient) -> None:
    answer = await github.post("/graphql", json={"query": "{ rateLimit { cost } }"})
    assert answer.status_code == 401


@pytest.mark.parametrize("direction", ["ASC", "DESC"])
@pytest.mark.parametrize("field", ["CREATED_AT", "UPDATED_AT"])
async def test_pages_go_by_cursors(
    simulated: httpx.AsyncClient, field: str, direction: str
) -> None:
    query = f"""query ($first: Int, $after: String, $last: Int, $before: String) {{ {NAME} {{
        pullRequests(first: $first, after: $after, last: $last, before: $before, states: [OPEN],
            orderBy: {{field: {field}, direction: {direction}}}) {{
          totalCount pageInfo {{ hasNextPage endCursor hasPreviousPage startCursor }}
          nodes {{ number createdAt updatedAt state }}
          edges {{ cursor node {{ number }} }} }} }} }}"""
    seen: list[Any] = []
    page: Any = {"pageInfo": {"hasNextPage": True, "endCursor": None}}
    while page["pageInfo"]["hasNextPage"]:
        after = page["pageInfo"]["endCursor"]
        page = (await ask(simulated, query, first=7, after=after))["data"]["repository"][
            "pullRequests"
        ]
        seen += page["nodes"]
        assert [each["node"]["number"] for each in page["edges"]] == [
            each["number"] for each in page["nodes"]
        ]
    assert len(seen) == page["totalCount"] > 14
    assert {each["state"] for each in seen} == {"OPEN"}
    times = [each["createdAt" if field == "CREATED_AT" else "updatedAt"] for each in seen]
    assert times == sorted(times, reverse=direction == "DESC")
    start = page["pageInfo"]["startCursor"]
    back = (await ask(simulated, query, last=7, before=start))["data"]["repository"]["pullRequests"]
    assert back["nodes"] == seen[-7 - len(page["nodes"]) : -len(page["nodes"])]


async def test_recorded_things_are_answered_too(simulated: httpx.AsyncClient) -> None:
    answer = await ask(
        simulated,
        """{ repository(owner: "Codertocat", name: "Hello-World") {
          nameWithOwner stargazerCount forkCount owner { login } licenseInfo { spdxId }
          pullRequest(number: 2) { id title author { login ... on User { databaseId } }
            reviews(first: 9) { nodes { state comments(first: 9) { nodes { path } } } } }
          issues(first: 9) { nodes { number comments(first: 9) { nodes { body } } } } } }""",
    )
    found = answer["data"]["repository"]
    assert found["pullRequest"]["author"] == {"login": "Codertocat", "databaseId": 21031067}
    (review,) = found["pullRequest"]["reviews"]["nodes"]
    assert (review["state"], len(review["comments"]["nodes"])) == ("DISMISSED", 1)
    assert [each["number"] for each in found["issues"]["nodes"]] == [1]
    again = await ask(
        simulated,
        "query ($ids: [ID!]!) { nodes(ids: $ids) { ... on PullRequest { number } } }",
        ids=[found["pullRequest"]["id"], "PR_900000000_3"],
    )
    assert again["data"]["nodes"] == [{"number": 2}, {"number": 3}]


async def test_a_search_counts(simulated: httpx.AsyncClient) -> None:
    answer = await ask(
        simulated,
        '{ search(type: ISSUE, query: "repo:octo-org/simulated is:pr created:>=2000-01-01")'
        " { issueCount } }",
    )
    assert answer["data"]["search"]["issueCount"] == 60


async def test_what_is_blocked_or_gone_says_so(simulated: httpx.AsyncClient) -> None:
    for condition, type_ in (("dmca", "FORBIDDEN"), ("deleted", "NOT_FOUND")):
        plan = {"fullName": PLAN["fullName"], "condition": condition}
        await simulated.post("/_test/condition", json=plan)
        answer = await ask(simulated, f"{{ {NAME} {{ id }} }}")
        assert answer["data"] == {"repository": None}
        assert answer["errors"][0]["type"] == type_
