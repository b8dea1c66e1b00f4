"""What a job may ask for beside its payload, over real sockets."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from hybridjobs.model import Status
from tests.builders import job_type
from tests.integration.ingress.conftest import Running, quick_type
from tests.integration.ingress.outcomes import FAILED, claimed, end_all, failed_job


@pytest.fixture
async def api(ingress: Running) -> Running:
    await ingress.register(job_type(), job_type("test/other"))
    return ingress


def _ids(answer: Any) -> list[str]:
    return [job["id"] for job in answer.json()["jobs"]]


async def test_a_job_for_later_waits(api: Running) -> None:
    moment = datetime.now(UTC) + timedelta(hours=1)
    answer = await api.submit("test/long", runAt=moment.isoformat(), maxRetries=0)
    job = await api.job(answer.json()["id"])
    assert (job.run_at, job.stage, job.max_retries) == (moment, "scheduled", 0)
    assert await claimed(api) == []
    past = await api.submit("test/long", runAt="2020-01-01T00:00:00Z")
    assert await claimed(api) == [UUID(past.json()["id"])]


async def test_a_unique_job_is_one_while_it_is_open_or_queued(api: Running) -> None:
    first, second = [await api.submit("test/long", uniqueKey="u") for _ in range(2)]
    queued = await api.submit("test/long", uniqueKey="q", uniqueWhile="queued")
    other = await api.submit("test/other", uniqueKey="u")
    assert first.json()["id"] == second.json()["id"] != other.json()["id"]
    shown = (await api.api.get(queued.json()["url"])).json()
    assert (shown["uniqueKey"], shown["uniqueWhile"]) == ("q", "queued")
    await end_all(api)
    third = await api.submit("test/long", uniqueKey="u")
    assert third.json()["id"] != first.json()["id"]


async def test_a_job_waits_for_others(api: Running) -> None:
    first = (await api.submit("test/long")).json()["id"]
    second = (await api.submit("test/long", dependsOn=[first])).json()["id"]
    shown = (await api.api.get(f"/api/jobs/{second}")).json()
    assert (shown["stage"], shown["waitsFor"]) == ("blocked", [first])
    assert await end_all(api) == [UUID(first)]
    assert await end_all(api) == [UUID(second)]
    assert (await api.api.get(f"/api/jobs/{second}")).json()["waitsFor"] == []


async def test_when_what_it_waits_for_fails_it_is_cancelled_or_runs(api: Running) -> None:
    first = (await api.submit("test/long")).json()["id"]
    ends = [
        (await api.submit("test/long", dependsOn=[first], onDependencyFailure=each)).json()["id"]
        for each in ("cancel", "run")
    ]
    await end_all(api, FAILED)
    # The next claim sees to those who waited.
    assert await claimed(api) == [UUID(ends[1])]
    cancelled = await api.job(ends[0])
    assert (cancelled.status, cancelled.outcome_reason) == (Status.CANCELLED, "DependencyFailed")


async def test_limits_count_by_the_key_in_the_payload(api: Running) -> None:
    await api.register(job_type("test/limited", concurrency={"limit": 1, "key": "repo.name"}))
    jobs = [
        (await api.submit("test/limited", {"repo": {"name": name}})).json()["id"]
        for name in ("a", "a", "b")
    ]
    assert (await api.job(jobs[0])).concurrency_key == "a"
    assert set(await claimed(api)) == {UUID(jobs[0]), UUID(jobs[2])}


@pytest.mark.parametrize(
    ("member", "value", "path"),
    [
        ("runAt", "1999-12-31T23:59:59Z", "/runAt"),
        ("runAt", "2099-01-01T00:00:00Z", "/runAt"),
        ("runAt", "tomorrow", "/runAt"),
        ("uniqueKey", "", "/uniqueKey"),
        ("uniqueKey", "a\0b", "/uniqueKey"),
        ("uniqueWhile", "forever", "/uniqueWhile"),
        ("maxRetries", 101, "/maxRetries"),
        ("maxRetries", -1, "/maxRetries"),
        ("dependsOn", "x", "/dependsOn"),
        ("dependsOn", ["x"], "/dependsOn/0"),
        ("dependsOn", [1], "/dependsOn/0"),
        ("dependsOn", [str(uuid4())], "/dependsOn/0"),
        ("onDependencyFailure", "ignore", "/onDependencyFailure"),
        ("ref", "a", "/ref"),
    ],
)
async def test_wrong_options_are_named_and_nothing_is_written(
    api: Running, member: str, value: Any, path: str
) -> None:
    answer = await api.submit("test/long", **{member: value})
    assert answer.status_code == 422, answer.text
    assert [error["path"] for error in answer.json()["errors"]] == [path]
    assert await api.count() == 0


async def test_a_payload_over_the_limit_is_named(api: Running) -> None:
    answer = await api.submit("test/long", "x" * (256 * 1024))
    assert [error["path"] for error in answer.json()["errors"]] == ["/payload"]


async def test_a_quick_job_that_must_wait_does_not_run_inline(
    quick_ingress: Callable[..., Any],
) -> None:
    api: Running = await quick_ingress(quick_type("quick/echo"), job_type())
    assert (await api.submit("quick/echo", uniqueKey="u")).status_code == 200
    awaited = (await api.submit("test/long")).json()
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    for options in ({"runAt": later}, {"dependsOn": [awaited["id"]]}):
        answer = await api.submit("quick/echo", **options)
        assert (answer.status_code, answer.json()["status"]) == (202, "queued")
        assert (await api.job(answer.json()["id"])).attempts == ()
    await api.api.post("/api/queue/pause")
    assert (await api.submit("quick/echo")).status_code == 202


async def test_a_listing_is_filtered_and_paged(api: Running) -> None:
    ids = [(await api.submit("test/long", key=f"k{place}")).json()["id"] for place in range(5)]
    other = (await api.submit("test/other", key="k0")).json()["id"]
    await api.api.post(f"/api/jobs/{ids[0]}/cancel")
    for query, expected in (
        ("status=cancelled,failed", [ids[0]]),
        ("status=queued,cancelled&type=test/long&limit=1000", ids[::-1]),
        ("key=k0", [other, ids[0]]),
        ("key=k0&type=test/other&source=api", [other]),
        ("source=github", []),
        ("schedule=nightly", []),
        (f"batch={uuid4()}", []),
        (f"parent={uuid4()}", []),
        ("since=2020-01-01T00:00:00Z&until=2021-01-01T00:00:00Z", []),
        ("since=2020-01-01T00:00:00Z&type=test/other", [other]),
        (f"before={ids[2]}", ids[1::-1]),
    ):
        answer = await api.api.get(f"/api/jobs?{query}")
        assert (answer.status_code, _ids(answer)) == (200, expected), query
    pages, query = [], "limit=2"
    while True:
        page = await api.api.get(f"/api/jobs?{query}")
        pages.append(_ids(page))
        if page.json()["next"] is None:
            break
        query = f"limit=2&before={page.json()['next']}"
    assert [each for page in pages for each in page] == [other, *ids[::-1]]


async def test_wrong_filters_are_named(api: Running) -> None:
    answer = await api.api.get(
        "/api/jobs?status=queued,nope&since=today&before=x&batch=1&limit=1001&kind=a&key=%00"
    )
    assert answer.status_code == 422
    assert [error["path"] for error in answer.json()["errors"]] == [
        "/status",
        "/since",
        "/before",
        "/batch",
        "/limit",
        "/kind",
        "/key",
    ]


async def test_a_failed_job_runs_once_more(api: Running) -> None:
    job_id = await failed_job(api)
    answer = await api.api.post(f"/api/jobs/{job_id}/retry")
    assert (answer.status_code, answer.json()) == (202, {"id": job_id, "status": "queued"})
    again = await api.api.post(f"/api/jobs/{job_id}/retry")
    assert (again.status_code, again.json()["detail"]) == (409, "the job is queued")
    assert await end_all(api) == [UUID(job_id)]
    job = await api.job(job_id)
    assert [attempt.outcome for attempt in job.attempts] == ["permanent", "succeeded"]
    assert (await api.api.post(f"/api/jobs/{uuid4()}/retry")).status_code == 404


async def test_a_job_whose_unique_key_is_taken_does_not_run_again(api: Running) -> None:
    job_id = (await api.submit("test/long", uniqueKey="u")).json()["id"]
    await api.api.post(f"/api/jobs/{job_id}/cancel")
    await api.submit("test/long", uniqueKey="u")
    answer = await api.api.post(f"/api/jobs/{job_id}/retry")
    assert answer.status_code == 409
    assert "unique key" in answer.json()["detail"]


async def test_ten_thousand_dependencies_fit_into_a_request(api: Running) -> None:
    first = (await api.submit("test/long")).json()["id"]
    body = {"type": "test/long", "payload": "x" * (200 * 1024), "dependsOn": [first] * 10_000}
    assert (await api.api.post("/api/jobs", content=json.dumps(body))).status_code == 202
    body["dependsOn"] = [first] * 10_001
    answer = await api.api.post("/api/jobs", content=json.dumps(body))
    assert [error["path"] for error in answer.json()["errors"]] == ["/dependsOn"]
