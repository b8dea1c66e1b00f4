import asyncio
import time
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.recorded.build import PATHS
from tests.recorded.checking import faults, pages

ONE = "/repos/octo-org/simulated"
PLAN = {"fullName": "octo-org/simulated", "pullRequests": 60, "issues": 20, "heavyEvery": 40}
HELLO = "/repos/Codertocat/Hello-World"


@pytest.fixture
async def simulated(github: httpx.AsyncClient) -> httpx.AsyncClient:
    made = await github.post("/_test/simulate", json=PLAN)
    assert faults("repository", made.json()) == []
    return github


async def condition(github: httpx.AsyncClient, name: str | None, **more: Any) -> None:
    plan = {"fullName": PLAN["fullName"], "condition": name, **more}
    (await github.post("/_test/condition", json=plan)).raise_for_status()


async def test_every_simulated_answer_is_as_githubs_description_says(
    simulated: httpx.AsyncClient,
) -> None:
    pulls = await pages(simulated, f"{ONE}/pulls?state=all&per_page=100")
    assert faults("pull_requests", pulls) == []
    issues = await pages(simulated, f"{ONE}/issues?state=all&per_page=100")
    assert faults("issues", issues) == []
    assert {each["number"] for each in issues} == set(range(1, 81))
    assert {each["number"] for each in issues if "pull_request" in each} == {
        each["number"] for each in pulls
    }
    seen = dict.fromkeys(("reviews", "review_comments", "issue_comments"), 0)
    for issue in issues:
        number = issue["number"]
        assert faults("issue", (await simulated.get(f"{ONE}/issues/{number}")).json()) == []
        kinds = {"issue_comments": f"{ONE}/issues/{number}/comments"}
        counts = {"issue_comments": issue["comments"]}
        if "pull_request" in issue:
            pull = (await simulated.get(f"{ONE}/pulls/{number}")).json()
            assert faults("pull_request", pull) == []
            assert (pull["comments"], pull["state"]) == (issue["comments"], issue["state"])
            kinds["review_comments"] = f"{ONE}/pulls/{number}/comments"
            kinds["reviews"] = f"{ONE}/pulls/{number}/reviews"
            counts["review_comments"] = pull["review_comments"]
        for kind, url in kinds.items():
            found = await pages(simulated, f"{url}?per_page=100")
            assert faults(kind, found) == []
            assert len(found) == counts.get(kind, len(found))
            seen[kind] += len(found)
    assert min(seen.values()) > 60


async def test_what_is_recorded_of_reviews_and_issues_is_as_described(
    github: httpx.AsyncClient,
) -> None:
    for kind, path in {
        "reviews": "/pulls/2/reviews",
        "review_comments": "/pulls/2/comments",
        "issue_comments": "/issues/1/comments",
    }.items():
        found = (await github.get(f"{HELLO}{path}")).json()
        assert len(found) == 1
        assert faults(kind, found) == []
    fixtures = "/repos/octokit-fixture-org/paginate-issues/issues"
    issues = await pages(github, f"{fixtures}?per_page=3")
    assert [each["number"] for each in issues] == list(range(13, 0, -1))
    assert faults("issues", issues) == []
    both = await pages(github, f"{HELLO}/issues?state=all")
    assert {each["number"]: "pull_request" in each for each in both} == {1: False, 2: True}
    assert faults("issues", both) == []


async def test_issues_can_be_asked_for_since_a_time(simulated: httpx.AsyncClient) -> None:
    issues = await pages(simulated, f"{ONE}/issues?state=all&sort=updated&per_page=100")
    times = [each["updated_at"] for each in issues]
    assert times == sorted(times, reverse=True)
    later = await pages(simulated, f"{ONE}/issues?state=all&sort=updated&since={times[20]}")
    assert [each["number"] for each in later] == [
        each["number"] for each in issues if each["updated_at"] >= times[20]
    ]


async def test_the_rest_is_as_described(simulated: httpx.AsyncClient) -> None:
    named = await pages(simulated, f"{ONE}/contributors?per_page=100")
    all_ = await pages(simulated, f"{ONE}/contributors?per_page=100&anon=1")
    assert (len(named), len(all_)) == (100, 101)
    assert faults("contributors", all_) == []
    user = (await simulated.get(f"/users/{named[3]['login']}")).json()
    assert user["id"] == named[3]["id"]
    assert faults("public_user", user) == []
    assert faults("rate_limit", (await simulated.get("/rate_limit")).json()) == []
    query = "repo:octo-org/simulated is:pr is:open"
    found = (await simulated.get("/search/issues", params={"q": query})).json()
    assert faults("search", found) == []
    assert found["total_count"] == len(await pages(simulated, f"{ONE}/pulls?per_page=100"))


@pytest.mark.parametrize(
    ("path", "kind"),
    [("commit_activity", "commit_activity"), ("contributors", "contributor_activity")],
)
async def test_statistics_take_their_time(
    simulated: httpx.AsyncClient, path: str, kind: str
) -> None:
    await simulated.post("/_test/statistics", json={"waits": 2})
    answers = [await simulated.get(f"{ONE}/stats/{path}") for _ in range(3)]
    assert [each.status_code for each in answers] == [202, 202, 200]
    assert faults(kind, answers[2].json()) == []


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("private", 404, "Not Found"),
        ("deleted", 404, "Not Found"),
        ("disabled", 403, "Repository access blocked"),
        ("dmca", 451, "Repository access blocked"),
    ],
)
async def test_a_repository_may_be_out_of_reach(
    simulated: httpx.AsyncClient, name: str, status: int, message: str
) -> None:
    await condition(simulated, name, tokens=["insider"])
    for path in ("", "/pulls", "/issues/1/comments", "/stats/contributors"):
        answer = await simulated.get(f"{ONE}{path}")
        assert (answer.status_code, answer.json()["message"]) == (status, message)
    insider = await simulated.get(ONE, headers={"authorization": "Bearer insider"})
    assert insider.status_code == (200 if name == "private" else status)
    await condition(simulated, None)
    assert (await simulated.get(ONE)).status_code == 200


async def test_a_repository_may_be_archived_empty_or_without_issues(
    simulated: httpx.AsyncClient,
) -> None:
    await condition(simulated, "archived")
    assert (await simulated.get(ONE)).json()["archived"] is True
    await condition(simulated, "issues-disabled")
    assert (await simulated.get(f"{ONE}/issues")).status_code == 410
    await condition(simulated, "empty")
    assert (await simulated.get(f"{ONE}/contributors")).status_code == 204
    assert (await simulated.get(f"{ONE}/stats/commit_activity")).status_code == 204
    await condition(simulated, None)
    issue = next(
        each for each in (await simulated.get(f"{ONE}/issues")).json() if "pull_request" not in each
    )
    plan = {"fullName": PLAN["fullName"], "number": issue["number"]}
    await simulated.post("/_test/gone", json=plan)
    gone = await simulated.get(f"{ONE}/issues/{issue['number']}/comments")
    assert (gone.status_code, gone.json()["message"]) == (410, "This issue was deleted")


async def test_a_304_is_free(simulated: httpx.AsyncClient) -> None:
    first = await simulated.get(f"{ONE}/pulls")
    again = await simulated.get(f"{ONE}/pulls", headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304
    remaining = [each.headers["x-ratelimit-remaining"] for each in (first, again)]
    assert remaining[0] == remaining[1]


async def test_each_token_has_its_window(simulated: httpx.AsyncClient) -> None:
    await simulated.post("/_test/limits", json={"core": 2})
    one, other = {"authorization": "Bearer one"}, {"authorization": "token other"}
    answers = [await simulated.get(ONE, headers=one) for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 403]
    assert "rate limit exceeded" in answers[2].json()["message"]
    assert (await simulated.get(ONE, headers=other)).status_code == 200
    usage = (await simulated.get("/_test/usage")).json()
    assert (usage["quotaExceeded"], usage["quotaExceededByToken"]) == (1, {"one": 1})
    assert usage["endpoints"] == {"GET /repos/{owner}/{name}": 4}
    await simulated.post("/_test/limits", json={"core": 1, "windowSeconds": 1})
    last = await simulated.get(ONE, headers=one)
    assert last.headers["x-ratelimit-remaining"] == "0"
    await asyncio.sleep(max(0.0, int(last.headers["x-ratelimit-reset"]) - time.time()))
    assert (await simulated.get(ONE, headers=one)).status_code == 200


async def test_secondary_limits_refuse_too_many_a_minute(simulated: httpx.AsyncClient) -> None:
    plan = {"pointsPerMinute": 3, "minuteSeconds": 30}
    await simulated.post("/_test/limits", json=plan)
    answers = [await simulated.get(ONE) for _ in range(4)]
    assert [each.status_code for each in answers] == [200, 200, 200, 403]
    assert "secondary rate limit" in answers[3].json()["message"]
    assert 1 <= int(answers[3].headers["retry-after"]) <= 30
    assert answers[3].headers["x-ratelimit-remaining"] == "4997"
    assert (await simulated.get("/_test/usage")).json()["secondary"] == 1


async def test_secondary_limits_refuse_too_many_at_once(simulated: httpx.AsyncClient) -> None:
    await simulated.post("/_test/limits", json={"concurrent": 2, "retryAfterSeconds": 7})
    await simulated.post("/_test/trouble", json={"slow": 1, "slowSeconds": 2})
    answers = await asyncio.gather(*(simulated.get(ONE) for _ in range(4)))
    assert sorted(each.status_code for each in answers) == [200, 200, 403, 403]
    assert {each.headers.get("retry-after") for each in answers} == {None, "7"}
    assert (await simulated.get("/_test/usage")).json()["troubles"] == {"slow": 2}


async def test_trouble_comes_by_the_seed(simulated: httpx.AsyncClient) -> None:
    plan = {"seed": 5, "badGateway": 0.2, "malformed": 0.2, "secondary": 0.1}
    kinds = []
    for _ in range(2):
        await simulated.post("/_test/reset")
        await simulated.post("/_test/simulate", json=PLAN)
        await simulated.post("/_test/trouble", json=plan)
        kinds.append([(await simulated.get(ONE)).status_code for _ in range(60)])
    assert kinds[0] == kinds[1]
    assert {200, 502, 403} == set(kinds[0])
    usage = (await simulated.get("/_test/usage")).json()
    assert usage["troubles"]["badGateway"] == kinds[0].count(502)
    assert usage["troubles"]["malformed"] > 3


async def test_a_revoked_token_is_refused(github: httpx.AsyncClient) -> None:
    await github.post("/_test/tokens", json={"revoked": ["old"]})
    answer = await github.get(HELLO, headers={"authorization": "Bearer old"})
    assert (answer.status_code, answer.json()["message"]) == (401, "Bad credentials")


async def test_an_app_gets_tokens_for_its_installations(simulated: httpx.AsyncClient) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    installations = [
        {"id": 7, "account": "octo-org"},
        {"id": 8, "account": "elsewhere", "repositories": ["elsewhere/one"], "suspended": True},
    ]
    plan = {"appId": 12, "publicKey": public.decode(), "installations": installations}
    (await simulated.post("/_test/app", json=plan)).raise_for_status()
    await condition(simulated, "private")
    now = int(time.time())
    token = jwt.encode({"iat": now - 60, "exp": now + 300, "iss": "12"}, key, "RS256")
    app = {"authorization": f"Bearer {token}"}
    listed = (await simulated.get("/app/installations", headers=app)).json()
    # The description of this list says "allOf" a user and an enterprise, which nothing is.
    assert [faults("installation", each) for each in listed] == [[], []]
    found = (await simulated.get(f"{ONE}/installation", headers=app)).json()
    assert faults("installation", found) == []
    assert (found["id"], [each["id"] for each in listed]) == (7, [7, 8])
    granted = await simulated.post("/app/installations/7/access_tokens", headers=app)
    assert granted.status_code == 201
    assert faults("installation_token", granted.json()) == []
    reader = {"authorization": f"token {granted.json()['token']}"}
    assert (await simulated.get(f"{ONE}/pulls", headers=reader)).status_code == 200
    refused = await simulated.post("/app/installations/8/access_tokens", headers=app)
    assert refused.status_code == 403
    bad = {"authorization": f"Bearer {token[:-8]}AAAAAAAA"}
    assert (await simulated.get("/app/installations", headers=bad)).status_code == 401
    made_up = {"authorization": "token ghs_7x999"}
    assert (await simulated.get(ONE, headers=made_up)).status_code == 401


async def test_a_wrong_plan_says_what_is_wrong(github: httpx.AsyncClient) -> None:
    answer = await github.post("/_test/simulate", json={"fullName": "a/b", "pulls": 1})
    assert (answer.status_code, answer.json()) == (400, {"message": "KeyError: 'pulls'"})


def test_every_kind_of_answer_has_a_schema() -> None:
    assert all(faults(name, 1) for name in PATHS)


async def test_answers_that_nobody_waits_for_are_counted(github: httpx.AsyncClient) -> None:
    await github.post("/_test/trouble", json={"slow": 1.0, "slowSeconds": 2})
    with pytest.raises(httpx.ReadTimeout):
        await github.get("/rate_limit", timeout=httpx.Timeout(30, read=0.1))
    await github.get("/rate_limit")
    usage = (await github.get("/_test/usage")).json()
    assert (usage["requests"], usage["troubles"]) == (2, {"slow": 2, "abandoned": 1})
