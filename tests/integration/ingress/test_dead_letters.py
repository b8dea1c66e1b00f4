"""Dead letters over real sockets."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from hybridjobs.model import AttemptEnd, Outcome
from tests.builders import job_type
from tests.integration.ingress.conftest import Running
from tests.integration.ingress.outcomes import claimed, end_all, failed_job


@pytest.fixture
async def api(ingress: Running) -> Running:
    await ingress.register(job_type(), job_type("test/other"))
    return ingress


async def _letters(api: Running, **query: Any) -> list[dict[str, Any]]:
    answer = await api.api.get("/api/dead-letters", params=query)
    assert answer.status_code == 200, answer.text
    letters: list[dict[str, Any]] = answer.json()["deadLetters"]
    return letters


async def test_a_failed_job_has_a_dead_letter(api: Running) -> None:
    job_id = await failed_job(api)
    [line] = await _letters(api)
    assert (line["jobId"], line["type"], line["errorCategory"]) == (
        job_id,
        "test/long",
        "validation",
    )
    assert (line["error"], line["failureCount"]) == ("no such customer", 1)
    assert (line["resolvedAt"], line["resolvedBy"]) == (None, None)
    assert not {"payload", "errorHistory"} & line.keys()
    letter = (await api.api.get(f"/api/dead-letters/{line['id']}")).json()
    assert (letter["jobId"], letter["payload"]) == (job_id, {})
    [entry] = letter["errorHistory"]
    assert (entry["outcome"], entry["message"]) == ("permanent", "no such customer")


async def test_a_redriven_one_runs_and_is_resolved(api: Running) -> None:
    job_id = await failed_job(api)
    [line] = await _letters(api)
    url = f"/api/dead-letters/{line['id']}/redrive"
    answer = await api.api.post(url, content='{"by": "ana"}')
    assert (answer.status_code, answer.json()) == (202, {"id": line["id"], "jobId": job_id})
    assert await end_all(api) == [UUID(job_id)]
    letter = (await api.api.get(f"/api/dead-letters/{line['id']}")).json()
    assert letter["resolutionNotes"] == "redriven"
    assert letter["resolvedBy"] == "ana"
    again = await api.api.post(url)
    assert (again.status_code, again.json()["title"]) == (409, "Already resolved")


async def test_one_is_resolved_with_a_note(api: Running) -> None:
    job_id = await failed_job(api)
    [line] = await _letters(api)
    url = f"/api/dead-letters/{line['id']}/resolve"
    answer = await api.api.post(url, content='{"notes": "the customer\\nis gone", "by": "ana"}')
    assert answer.status_code == 200
    letter = answer.json()
    assert (letter["resolutionNotes"], letter["resolvedBy"]) == ("the customer\nis gone", "ana")
    assert (await api.job(job_id)).status == "failed"
    assert await _letters(api) == []
    assert [each["id"] for each in await _letters(api, resolved="true")] == [line["id"]]
    assert (await api.api.post(url)).status_code == 409
    wrong = await api.api.post(url, content='{"notes": "a\\u0000b", "who": "x"}')
    assert [error["path"] for error in wrong.json()["errors"]] == ["/who", "/notes"]


async def test_a_retry_resolves_it(api: Running) -> None:
    job_id = await failed_job(api)
    await api.api.post(f"/api/jobs/{job_id}/retry")
    [letter] = await _letters(api, resolved="any")
    assert letter["resolutionNotes"] == "retried"


async def test_a_listing_is_filtered_and_paged(api: Running) -> None:
    jobs = [await failed_job(api) for _ in range(3)]
    other = (await api.submit("test/other")).json()["id"]
    await end_all(api, AttemptEnd(Outcome.OOM, "OOMKilled", "out of memory"))
    an_hour_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    for query, expected in (
        ({}, [other, *jobs[::-1]]),
        ({"type": "test/long"}, jobs[::-1]),
        ({"category": "oom"}, [other]),
        ({"category": "oom", "type": "test/long"}, []),
        ({"since": an_hour_ago, "limit": 4}, [other, *jobs[::-1]]),
        ({"until": an_hour_ago}, []),
        ({"resolved": "true"}, []),
    ):
        assert [each["jobId"] for each in await _letters(api, **query)] == expected, query
    first = (await api.api.get("/api/dead-letters?limit=3")).json()
    second = await _letters(api, before=first["next"])
    assert [each["jobId"] for each in second] == [jobs[0]]
    wrong = await api.api.get("/api/dead-letters?category=bad&resolved=maybe&status=failed")
    assert [error["path"] for error in wrong.json()["errors"]] == [
        "/category",
        "/resolved",
        "/status",
    ]


async def test_many_are_redriven_at_a_bounded_rate(api: Running) -> None:
    jobs = [await failed_job(api) for _ in range(4)]
    other = await failed_job(api, "test/other")
    answer = await api.api.post(
        "/api/dead-letters:redrive",
        content='{"type": "test/long", "category": "validation", "perSecond": 0.01, "limit": 3}',
    )
    assert (answer.status_code, answer.json()) == (202, {"redriven": 3, "jobs": jobs[:3]})
    assert {each["jobId"] for each in await _letters(api)} == {jobs[3], other}
    dues = [(await api.job(job_id)).run_at for job_id in jobs[:3]]
    assert [(due - dues[0]).total_seconds() for due in dues] == [0, 100, 200]
    assert await claimed(api) == [UUID(jobs[0])]
    rest = await api.api.post("/api/dead-letters:redrive")
    assert rest.json()["redriven"] == 2


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ('{"perSecond": 0}', "/perSecond"),
        ('{"perSecond": true}', "/perSecond"),
        ('{"limit": 10001}', "/limit"),
        ('{"since": "yesterday"}', "/since"),
        ('{"resolved": true}', "/resolved"),
    ],
)
async def test_a_wrong_redrive_redrives_nothing(api: Running, body: str, path: str) -> None:
    await failed_job(api)
    answer = await api.api.post("/api/dead-letters:redrive", content=body)
    assert answer.status_code == 422
    assert [error["path"] for error in answer.json()["errors"]] == [path]
    assert len(await _letters(api)) == 1


async def test_one_that_is_not_there(api: Running) -> None:
    for url in (f"/api/dead-letters/{uuid4()}", "/api/dead-letters/nonsense"):
        assert (await api.api.get(url)).status_code == 404
        assert (await api.api.post(f"{url}/redrive")).status_code == 404
        assert (await api.api.post(f"{url}/resolve")).status_code == 404
