import re
import time

import httpx
import pytest

from tests.recorded.checking import faults, pages
from tests.recorded.running import RecordedApi

LARGE = {"fullName": "octo-org/large", "pullRequests": 250, "stepSeconds": 60}


def test_the_schemas_refuse_what_is_wrong() -> None:
    assert faults("repository", {"id": "x"})
    assert faults("pull_requests", [{}])


async def test_every_repository_is_as_githubs_description_says(
    github: httpx.AsyncClient, recorded: RecordedApi
) -> None:
    for full_name in recorded.github.data["names"]:
        answer = await github.get(f"/repos/{full_name}")
        assert answer.status_code == 200
        assert answer.json()["full_name"] == full_name
        assert faults("repository", answer.json()) == []
    for id_ in recorded.github.repositories:
        assert faults("repository", (await github.get(f"/repositories/{id_}")).json()) == []


async def test_every_pull_request_is_as_githubs_description_says(
    github: httpx.AsyncClient, recorded: RecordedApi
) -> None:
    seen = 0
    for full_name in recorded.github.data["names"]:
        listed = await pages(github, f"/repos/{full_name}/pulls?state=all")
        assert faults("pull_requests", listed) == []
        for each in listed:
            answer = await github.get(f"/repos/{full_name}/pulls/{each['number']}")
            assert faults("pull_request", answer.json()) == []
            assert answer.json()["id"] == each["id"]
            seen += 1
    assert seen >= 2


async def test_a_large_repository_is_as_the_description_says_too(github: httpx.AsyncClient) -> None:
    made = await github.post("/_test/large", json=LARGE)
    assert faults("repository", made.json()) == []
    listed = await pages(github, "/repos/octo-org/large/pulls?state=all&per_page=100")
    assert faults("pull_requests", listed) == []
    assert {each["number"] for each in listed} == set(range(1, 251))
    assert len({each["id"] for each in listed}) == 250
    assert {each["base"]["repo"]["id"] for each in listed} == {made.json()["id"]}
    assert any(each["user"] is None for each in listed)
    assert any(each["user"] and each["user"]["type"] == "Bot" for each in listed)
    detail = (await github.get("/repos/octo-org/large/pulls/7")).json()
    assert faults("pull_request", detail) == []
    assert detail["additions"] is not None
    assert "additions" not in listed[0]


async def test_pages_are_sorted_filtered_and_linked(github: httpx.AsyncClient) -> None:
    await github.post("/_test/large", json=LARGE)
    url = "/repos/octo-org/large/pulls?state=all&sort=updated&direction=desc&per_page=100"
    first = await github.get(url)
    assert [each["number"] for each in first.json()] == list(range(250, 150, -1))
    assert set(first.links) == {"next", "last"}
    last = await github.get(first.links["last"]["url"])
    assert [each["number"] for each in last.json()] == list(range(50, 0, -1))
    assert set(last.links) == {"prev", "first"}
    opened = await pages(github, "/repos/octo-org/large/pulls?sort=updated")
    assert [each["number"] for each in opened] == list(range(3, 251, 3))
    assert len(await pages(github, "/repos/octo-org/large/pulls?state=closed")) == 250 - 83
    assert (await github.get(f"{url}&page=9")).json() == []
    assert (await github.get("/repos/octo-org/large/pulls?state=merged")).status_code == 422


async def test_names_do_not_depend_on_case(github: httpx.AsyncClient) -> None:
    assert (await github.get("/repos/codertocat/HELLO-world")).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/repos/no/where", "/repos/Codertocat/Hello-World/pulls/99999", "/nothing", "/repositories/1"],
)
async def test_what_is_not_there_is_404_in_githubs_form(
    github: httpx.AsyncClient, path: str
) -> None:
    answer = await github.get(path)
    assert answer.status_code == 404
    assert answer.json() == {
        "message": "Not Found",
        "documentation_url": "https://docs.github.com/rest",
        "status": "404",
    }


async def test_an_etag_saves_the_body(github: httpx.AsyncClient) -> None:
    first = await github.get("/repos/Codertocat/Hello-World")
    again = await github.get(
        "/repos/Codertocat/Hello-World", headers={"if-none-match": first.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")


async def test_requests_count_against_the_rate_limit(github: httpx.AsyncClient) -> None:
    await github.post("/_test/rate-limit", json={"remaining": 1, "resetSeconds": 60})
    last = await github.get("/repos/Codertocat/Hello-World")
    assert last.headers["x-ratelimit-remaining"] == "0"
    refused = await github.get("/repos/Codertocat/Hello-World")
    assert refused.status_code == 403
    assert "API rate limit exceeded" in refused.json()["message"]
    assert int(refused.headers["x-ratelimit-reset"]) > time.time()
    await github.post("/_test/rate-limit", json={"remaining": 0, "resetSeconds": -1})
    assert (await github.get("/repos/Codertocat/Hello-World")).status_code == 200


async def test_faults_come_as_planned(github: httpx.AsyncClient) -> None:
    fault = {"status": 502, "path": "/pulls$", "after": 1, "times": 1, "headers": {"x-a": "b"}}
    await github.post("/_test/faults", json=fault)
    url = "/repos/Codertocat/Hello-World"
    answers = [
        await github.get(path) for path in (url, f"{url}/pulls", f"{url}/pulls", f"{url}/pulls")
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 502, 200]
    assert answers[2].headers["x-a"] == "b"
    await github.post("/_test/faults", json={"delaySeconds": 0.01})
    assert (await github.get(url)).status_code == 200
    seen = (await github.get("/_test/requests")).json()
    assert [each["status"] for each in seen] == [200, 200, 502, 200, 200]


async def test_a_renamed_repository_redirects(github: httpx.AsyncClient) -> None:
    plan = {"fullName": "Codertocat/Hello-World", "to": "Codertocat/Hallo-Welt"}
    before = (await github.get("/repos/Codertocat/Hello-World")).json()
    await github.post("/_test/rename", json=plan)
    answer = await github.get("/repos/Codertocat/Hello-World")
    assert answer.status_code == 301
    after = (await github.get(answer.headers["location"])).json()
    assert (after["id"], after["full_name"]) == (before["id"], "Codertocat/Hallo-Welt")
    assert faults("repository", after) == []
    detail = (
        await github.get("/repos/Codertocat/Hello-World/pulls/2", follow_redirects=True)
    ).json()
    assert detail["base"]["repo"]["full_name"] == "Codertocat/Hallo-Welt"


async def test_members_can_be_changed_and_everything_reset(github: httpx.AsyncClient) -> None:
    plan = {"fullName": "Codertocat/Hello-World", "number": 2, "changes": {"user": None}}
    await github.post("/_test/change", json=plan)
    url = "/repos/Codertocat/Hello-World/pulls/2"
    assert (await github.get(url)).json()["user"] is None
    await github.post("/_test/reset")
    assert re.match(r"\w+", (await github.get(url)).json()["user"]["login"])
