"""The API over real sockets."""

import gzip
import json
import logging
from uuid import uuid4

import psycopg
import pytest

from hybridjobs.model import AttemptEnd, Outcome
from hybridjobs.store.claim import claim
from hybridjobs.store.outcome import record_outcome
from tests.builders import job_type
from tests.integration.ingress.conftest import TOKEN, Running

SCHEMA = {
    "type": "object",
    "properties": {"count": {"type": "integer"}, "a/b": {"type": "string"}},
    "required": ["count"],
}


@pytest.fixture
async def api(ingress: Running) -> Running:
    await ingress.register(
        job_type(), job_type("test/strict", payloadSchema=SCHEMA, events=["github/push"])
    )
    return ingress


async def test_a_job_is_accepted_and_read_back(api: Running) -> None:
    answer = await api.api.post(
        "/api/jobs",
        content='{"type":"test/long","payload":{"n":12345678901234567890,"x":1.0},'
        '"key":"k","priority":-3,"deadlineSeconds":60}',
    )
    assert answer.status_code == 202
    location = answer.headers["location"]
    assert answer.json() == {
        "id": answer.json()["id"],
        "type": "test/long",
        "status": "queued",
        "url": location,
    }
    read = await api.api.get(location)
    assert '"payload":{"n":12345678901234567890,"x":1.0}' in read.text
    job = read.json()
    assert job["id"] == answer.json()["id"]
    assert (job["priority"], job["deadlineSeconds"], job["key"]) == (-3, 60, "k")
    assert (job["status"], job["attempts"], job["result"]) == ("queued", [], None)
    assert job["createdAt"].endswith("Z")


async def test_the_same_key_gives_the_same_job(api: Running) -> None:
    first, second = [await api.submit("test/long", key="same") for _ in range(2)]
    other = await api.submit("test/strict", {"count": 1}, key="same")
    assert first.json()["id"] == second.json()["id"] != other.json()["id"]
    assert second.status_code == 202


async def test_a_finished_job_shows_result_and_attempts(api: Running) -> None:
    job_id = (await api.submit("test/long", key="k")).json()["id"]
    async with api.database.transaction() as connection:
        [claimed] = await claim(connection, window=1)
    end = AttemptEnd(Outcome.SUCCEEDED, "Completed", result='{"big": 1.0}', log_tail="lines")
    async with api.database.transaction() as connection:
        await record_outcome(connection, claimed.job_id, 1, end)
    read = await api.api.get(f"/api/jobs/{job_id}")
    assert '"result":{"big": 1.0}' in read.text
    [attempt] = read.json()["attempts"]
    assert (attempt["outcome"], attempt["runner"]) == ("succeeded", "pod")
    assert "logTail" not in attempt
    read = await api.api.get(f"/api/jobs/{job_id}", params={"logs": "true"})
    assert read.json()["attempts"][0]["logTail"] == "lines"
    replay = await api.submit("test/long", key="k")
    assert (replay.status_code, replay.json()["status"]) == (200, "completed")


@pytest.mark.parametrize(
    ("body", "status", "paths"),
    [
        ("", 400, []),
        ("[]", 400, []),
        ("{", 400, []),
        ('{"type":"test/long","payload":' + "[" * 5000 + "]" * 5000 + "}", 400, []),
        ('{"type":"test/long","payload":{"n":1e999}}', 400, []),
        ('{"type":"test/long","payload":{"n":-1e999999}}', 400, []),
        ('{"type":"test/long","payload":{"n":Infinity}}', 400, []),
        ("{}", 422, ["/type", "/payload"]),
        ('{"type":1,"payload":{}}', 422, ["/type"]),
        ('{"type":"test/long","payload":{},"x~/y":1}', 422, ["/x~0~1y"]),
        ('{"type":"test/long","payload":{},"image":"evil"}', 422, ["/image"]),
        ('{"type":"test/long","payload":{},"priority":101}', 422, ["/priority"]),
        ('{"type":"test/long","payload":{},"priority":true}', 422, ["/priority"]),
        ('{"type":"test/long","payload":{},"priority":1.5}', 422, ["/priority"]),
        ('{"type":"test/long","payload":{},"deadlineSeconds":0}', 422, ["/deadlineSeconds"]),
        ('{"type":"test/long","payload":{},"key":""}', 422, ["/key"]),
        ('{"type":"test/long","payload":{},"key":"a\\u0000b"}', 422, ["/key"]),
        (json.dumps({"type": "test/long", "payload": {}, "key": "x" * 256}), 422, ["/key"]),
        ('{"type":"test/none","payload":{}}', 422, ["/type"]),
        ('{"type":"test/strict","payload":{"count":"1","a/b":2}}', 422, None),
        ('{"type":"test/strict","payload":{}}', 422, ["/payload"]),
        ('{"type":"test/long","payload":{"s":"\\u0000"}}', 422, ["/payload/s"]),
        ('{"type":"test/long","payload":{"s":"\\ud800"}}', 422, ["/payload/s"]),
    ],
)
async def test_what_is_wrong_is_named_by_its_path(
    api: Running, body: str, status: int, paths: list[str] | None
) -> None:
    answer = await api.api.post("/api/jobs", content=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["type"][:8]) == (status, "https://")
    found = [error["path"] for error in problem.get("errors", [])]
    assert sorted(found) == sorted(["/payload/a~1b", "/payload/count"] if paths is None else paths)
    assert await api.count() == 0


async def test_an_unknown_type_is_answered_with_the_known_ones(api: Running) -> None:
    answer = await api.submit("test/none")
    assert answer.json()["title"] == "Unknown job type"
    assert "test/long, test/strict" in answer.json()["detail"]


async def test_big_integers_pass_a_schema(api: Running) -> None:
    answer = await api.api.post(
        "/api/jobs", content='{"type":"test/strict","payload":{"count":123456789012345678901}}'
    )
    assert answer.status_code == 202


async def test_a_payload_over_the_limit_is_refused(api: Running) -> None:
    answer = await api.submit("test/long", "x" * (256 * 1024))
    assert answer.status_code == 413
    answer = await api.submit("test/long", "x" * (512 * 1024))
    assert answer.status_code == 413
    assert (await api.submit("test/long", "x" * (256 * 1024 - 2))).status_code == 202


async def test_listing_filters_and_is_newest_first(api: Running) -> None:
    ids = [(await api.submit("test/long")).json()["id"] for _ in range(3)]
    strict = (await api.submit("test/strict", {"count": 1})).json()["id"]
    jobs = (await api.api.get("/api/jobs")).json()["jobs"]
    assert [job["id"] for job in jobs] == [strict, *reversed(ids)]
    jobs = (await api.api.get("/api/jobs?type=test/long&limit=2&status=queued")).json()["jobs"]
    assert [job["id"] for job in jobs] == [ids[2], ids[1]]
    assert (await api.api.get("/api/jobs?status=failed")).json() == {"jobs": [], "next": None}
    wrong = await api.api.get("/api/jobs?status=nope&limit=0")
    assert wrong.status_code == 422
    assert [error["path"] for error in wrong.json()["errors"]] == ["/status", "/limit"]


async def test_types_are_listed(api: Running) -> None:
    answer = await api.api.get("/api/types")
    assert answer.json()["types"][1] == {
        "type": "test/strict",
        "name": "test-strict",
        "mode": "long",
        "events": ["github/push"],
        "paused": False,
        "pausedAt": None,
        "pausedBy": None,
        "waiting": 0,
        "running": 0,
    }
    assert answer.json()["queue"] == {"paused": False, "pausedAt": None, "pausedBy": None}


async def test_cancel(api: Running) -> None:
    job_id = (await api.submit("test/long")).json()["id"]
    answer = await api.api.post(f"/api/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()) == (202, {"id": job_id, "status": "cancelled"})
    assert (await api.api.post(f"/api/jobs/{job_id}/cancel")).status_code == 409
    assert (await api.api.post(f"/api/jobs/{uuid4()}/cancel")).status_code == 404


@pytest.mark.parametrize("job_id", ["01a20b6b-59ce-70c4-919b-be41339fc912", "nonsense", "%00"])
async def test_a_job_that_is_not_there(api: Running, job_id: str) -> None:
    answer = await api.api.get(f"/api/jobs/{job_id}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/api/jobs", "/api/jobs:batch", "/api/process-job"])
async def test_a_body_that_is_encoded_is_refused(api: Running, path: str) -> None:
    body = gzip.compress(b"{}")
    answer = await api.api.post(path, content=body, headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
    answer = await api.api.post(path, content="{", headers={"Content-Encoding": "identity"})
    assert answer.status_code == 400


async def test_a_member_twice_is_refused(api: Running) -> None:
    body = '{"type": "test/long", "type": "test/other", "payload": {"a": 1, "a": 2}}'
    answer = await api.api.post("/api/jobs", content=body)
    assert answer.status_code == 400
    assert "'type' is there more than once" in answer.json()["detail"]
    # Within a payload, what that means is its handler's to say.
    answer = await api.api.post("/api/jobs", content=body.replace(', "type": "test/other"', ""))
    assert (await api.job(answer.json()["id"])).payload == '{"a": 1, "a": 2}'


async def test_methods_and_paths(api: Running) -> None:
    answer = await api.api.delete("/api/types")
    assert (answer.status_code, answer.json()["title"]) == (405, "Method Not Allowed")
    assert "GET" in answer.headers["allow"]
    assert answer.json()["detail"] == f"this takes {answer.headers['allow']} only"
    answer = await api.api.delete("/api/jobs")
    assert {"GET", "POST"} <= set(answer.headers["allow"].split(", "))
    for path in ("/api/none", "/", "/api/jobs/", "/api/jobs/a/b/c"):
        answer = await api.api.get(path)
        assert (answer.status_code, answer.json()["detail"]) == (404, f"there is nothing at {path}")


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong", TOKEN, "Basic x"])
async def test_without_the_token_it_is_closed(api: Running, given: str | None) -> None:
    del api.api.headers["Authorization"]
    headers = {} if given is None else {"Authorization": given}
    for path in ("/api/jobs", "/api/none"):
        answer = await api.api.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_what_nobody_foresaw_is_logged_without_the_payload(
    api: Running,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as owner:
        await owner.execute(
            "ALTER TABLE hybridjobs.background_jobs RENAME COLUMN traceparent TO gone"
        )
    with caplog.at_level(logging.DEBUG):
        answer = await api.submit("test/strict", {"count": 1, "note": "a-secret-payload"})
    assert answer.status_code == 500
    incident = answer.json()["detail"].rpartition(" ")[2]
    written = caplog.text + "".join(capsys.readouterr())
    assert incident in written
    assert "a-secret-payload" not in written
    assert TOKEN not in written


async def test_a_type_with_a_broken_schema_is_the_administrators_fault(api: Running) -> None:
    await api.register(job_type("test/broken", payloadSchema={"type": "no such type"}))
    answer = await api.submit("test/broken", {"note": "a"})
    assert (answer.status_code, answer.json()["title"]) == (500, "Broken job type")
