"""The workers' API over real sockets, with real tokens."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from hybridjobs.model import AttemptEnd, Outcome, Status
from hybridjobs.store.attempts import read_job
from hybridjobs.store.claim import claim
from hybridjobs.store.outcome import record_outcome, request_cancel
from tests.builders import job_type
from tests.conftest import DatabaseUrls
from tests.integration.ingress.cluster import LocalKeys
from tests.integration.ingress.conftest import Running, running

KEYS = LocalKeys()


@dataclass
class Worker:
    """A pod that speaks for attempt 1 of a claimed job."""

    ingress: Running
    job_id: UUID
    attempt: int = 1

    async def ask(
        self, method: str, path: str, content: str | bytes = b"", *, token: str | None = None
    ) -> httpx.Response:
        return await self.ingress.workers.request(
            method,
            f"/worker/v1/attempts/{self.job_id}/{self.attempt}/{path}",
            content=content,
            headers={"Authorization": f"Bearer {token or KEYS.token(self.job_id, self.attempt)}"},
        )


@pytest.fixture
async def worker(database_urls: DatabaseUrls) -> AsyncIterator[Worker]:
    async with running(
        database_urls.service, keys=KEYS, inline_children=0, max_result_bytes=4096
    ) as ingress:
        await ingress.register(job_type(), job_type("test/other"))
        accepted = await ingress.submit("test/long", {"n": 1})
        async with ingress.database.transaction() as connection:
            await claim(connection, window=1)
        yield Worker(ingress, UUID(accepted.json()["id"]))


async def test_the_first_contact_starts_the_job(worker: Worker) -> None:
    answer = await worker.ask("GET", "payload")
    assert (answer.status_code, answer.text) == (200, '{"n": 1}')
    job = await worker.ingress.job(worker.job_id)
    assert job.status is Status.PROCESSING
    assert job.started_at is not None
    assert job.attempts[0].pod_name == f"hj-{worker.job_id}-1-abcde"


async def test_a_run_from_start_to_end(worker: Worker) -> None:
    assert (await worker.ask("GET", "checkpoint")).status_code == 204
    assert (await worker.ask("PUT", "checkpoint", '{"page": 1.0}')).status_code == 204
    assert (await worker.ask("GET", "checkpoint")).text == '{"page": 1.0}'
    progress = '{"done":1,"total":null,"message":"one"}'
    assert (await worker.ask("PUT", "progress", progress)).status_code == 204
    beat = await worker.ask("PUT", "heartbeat")
    assert (beat.status_code, beat.json()) == (200, {"cancelRequested": False})
    async with worker.ingress.database.connection() as connection:
        await request_cancel(connection, worker.job_id)
    assert (await worker.ask("PUT", "heartbeat")).json() == {"cancelRequested": True}
    result = '{"result": {"id": 12345678901234567890, "x": 1.0}}'
    assert (await worker.ask("PUT", "outcome", result)).status_code == 204
    job = await worker.ingress.job(worker.job_id)
    assert (job.status, job.result) == (
        Status.COMPLETED,
        '{"x": 1.0, "id": 12345678901234567890}',
    )
    assert job.progress == {"done": 1, "total": None, "message": "one"}


async def test_the_same_outcome_twice_is_no_late_one(worker: Worker) -> None:
    for _ in range(2):
        answer = await worker.ask("PUT", "outcome", '{"result":1}')
        assert answer.status_code == 204
    late = await worker.ask("PUT", "outcome", '{"error":"x","permanent":true,"retryAfter":null}')
    assert late.status_code == 409
    assert (await worker.ingress.job(worker.job_id)).result == "1"


async def test_a_permanent_error_ends_the_job(worker: Worker) -> None:
    report = '{"error":"no \\u0000 such thing \\ud800","permanent":true,"retryAfter":null}'
    assert (await worker.ask("PUT", "outcome", report)).status_code == 204
    job = await worker.ingress.job(worker.job_id)
    assert (job.status, job.error) == (Status.FAILED, "no \ufffd such thing ?")


async def test_another_error_is_noted_until_the_pod_has_ended(worker: Worker) -> None:
    report = '{"error":"try again","permanent":false,"retryAfter":30}'
    assert (await worker.ask("PUT", "outcome", report)).status_code == 204
    async with worker.ingress.database.connection() as connection:
        job = await read_job(connection, worker.job_id)
    assert job is not None
    assert job.open_attempt == 1
    assert job.reported == {"error": "try again", "permanent": False, "retryAfter": 30}


async def test_a_closed_attempt_is_fenced_whatever_it_asks(worker: Worker) -> None:
    await worker.ask("PUT", "heartbeat")
    async with worker.ingress.database.transaction() as connection:
        await record_outcome(
            connection, worker.job_id, 1, AttemptEnd(Outcome.NODE_LOST, "NodeLost")
        )
    for method, path, body in (
        ("GET", "payload", ""),
        ("GET", "checkpoint", ""),
        ("PUT", "checkpoint", "{}"),
        ("PUT", "progress", '{"done":1}'),
        ("PUT", "heartbeat", ""),
        ("PUT", "outcome", '{"result":1}'),
        ("PUT", "outcome", '{"error":"x","permanent":false}'),
        ("POST", "jobs", '{"type":"test/other","payload":{}}'),
    ):
        answer = await worker.ask(method, path, body)
        assert answer.status_code == 409, path
        assert answer.headers["content-type"] == "application/problem+json"
    assert await worker.ingress.count() == 1


@pytest.mark.parametrize("has_row", [True, False])
async def test_an_attempt_that_a_backup_does_not_know_is_told_to_ask_again(
    worker: Worker, has_row: bool
) -> None:
    if has_row:
        worker = replace(worker, attempt=2)
    else:
        async with worker.ingress.database.connection() as connection:
            await connection.execute("DELETE FROM hybridjobs.background_jobs")
    for account in ("hybridjobs-worker", "special"):
        token = KEYS.token(worker.job_id, worker.attempt, account=account)
        for method, path, body in (
            ("GET", "payload", ""),
            ("PUT", "heartbeat", ""),
            ("PUT", "outcome", '{"result":1}'),
        ):
            answer = await worker.ask(method, path, body, token=token)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5"), path


async def test_an_attempt_that_closed_before_the_first_contact(worker: Worker) -> None:
    async with worker.ingress.database.transaction() as connection:
        await record_outcome(connection, worker.job_id, 1, AttemptEnd(Outcome.LOST, "Lost"))
    assert (await worker.ask("PUT", "heartbeat")).status_code == 409


@pytest.mark.parametrize("has_spoken", [True, False])
async def test_another_pod_is_refused(worker: Worker, has_spoken: bool) -> None:
    await worker.ask("PUT", "heartbeat")
    if not has_spoken:
        # As another replica of the ingress would see it.
        worker = Worker(worker.ingress, worker.job_id)
        async with running(
            str(worker.ingress.database._pool.conninfo), keys=KEYS, inline_children=0
        ) as other:
            worker.ingress = other
            other_pod = KEYS.token(worker.job_id, 1, pod_uid="pod-uid-2")
            answer = await worker.ask("PUT", "heartbeat", token=other_pod)
    else:
        other_pod = KEYS.token(worker.job_id, 1, pod_uid="pod-uid-2")
        answer = await worker.ask("PUT", "heartbeat", token=other_pod)
    assert answer.status_code == 403


async def test_both_algorithms_of_clusters_are_good(worker: Worker) -> None:
    for key in ("rsa", "ec"):
        token = KEYS.token(worker.job_id, 1, key=key)
        assert (await worker.ask("PUT", "heartbeat", token=token)).status_code == 200


def _tokens(job_id: UUID) -> dict[str, tuple[int, str]]:
    now = int(time.time())
    forger = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def token(**changes: Any) -> str:
        return KEYS.token(**{"job_id": job_id, "attempt": 1, **changes})

    return {
        "garbage": (401, "garbage"),
        "expired": (401, token(exp=now - 60)),
        "not yet": (401, token(nbf=now + 600)),
        "audience": (401, token(aud=["https://kubernetes.default.svc"])),
        "issuer": (401, token(iss="https://another")),
        "forged": (401, token(signer=forger)),
        "no pod": (403, token(**{"kubernetes.io": {"namespace": "jobs"}})),
        "namespace": (403, token(namespace="other")),
        "account": (403, token(account="default")),
        "other job": (403, token(job_id=uuid4())),
        "other attempt": (403, token(attempt=2)),
        "prefix": (403, token(attempt=11)),
    }


@pytest.mark.parametrize("name", sorted(_tokens(uuid4())))
async def test_tokens_that_are_not_this_pods(worker: Worker, name: str) -> None:
    status, token = _tokens(worker.job_id)[name]
    answer = await worker.ask("GET", "payload", token=token)
    assert answer.status_code == status, answer.text
    assert token not in answer.text
    if status == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer")
    job = await worker.ingress.job(worker.job_id)
    assert job.status is Status.QUEUED


@pytest.mark.parametrize("size", [4096, 100_000])
async def test_a_result_that_is_too_large_ends_the_job(worker: Worker, size: int) -> None:
    result = '{"result":"' + "x" * size + '"}'
    for _ in range(2):  # its answer may be lost
        answer = await worker.ask("PUT", "outcome", result)
        assert (answer.status_code, answer.json()["detail"]) == (
            413,
            "the result is over 4096 bytes",
        )
    job = await worker.ingress.job(worker.job_id)
    assert (job.status, job.error, job.result) == (
        Status.FAILED,
        "the result is over 4096 bytes",
        None,
    )
    assert [(each.outcome, each.reason) for each in job.attempts] == [
        (Outcome.PERMANENT, "ResultTooLarge")
    ]


async def test_tokens_by_other_algorithms_are_refused(worker: Worker) -> None:
    import jwt

    for token in (
        jwt.encode({"iss": "x"}, "secret" * 8, algorithm="HS256", headers={"kid": "rsa"}),
        jwt.encode({"iss": "x"}, "", algorithm="none", headers={"kid": "rsa"}),
    ):
        assert (await worker.ask("GET", "payload", token=token)).status_code == 401
    answer = await worker.ingress.workers.get(f"/worker/v1/attempts/{worker.job_id}/1/payload")
    assert answer.status_code == 401


async def test_a_type_may_have_a_service_account_of_its_own(worker: Worker) -> None:
    await worker.ingress.register(
        job_type(generation=2, podTemplate={"serviceAccountName": "special"})
    )
    special = KEYS.token(worker.job_id, 1, account="special")
    assert (await worker.ask("PUT", "heartbeat", token=special)).status_code == 200
    usual = KEYS.token(worker.job_id, 1, account="default")
    assert (await worker.ask("PUT", "heartbeat", token=usual)).status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", "outcome", "", 400),
        ("PUT", "outcome", "[]", 400),
        ("PUT", "outcome", "{}", 422),
        ("PUT", "outcome", '{"error":1}', 422),
        ("PUT", "outcome", '{"error":"x","permanent":"yes"}', 422),
        ("PUT", "outcome", '{"error":"x","retryAfter":-1}', 422),
        ("PUT", "outcome", '{"result":1,"error":"x"}', 422),
        ("PUT", "outcome", '{"result":"\\u0000"}', 422),
        ("PUT", "progress", '{"done":1,"message":"' + "x" * 100_000 + '"}', 413),
        ("PUT", "checkpoint", "no json", 400),
        ("PUT", "checkpoint", '"\\u0000"', 422),
        ("PUT", "progress", '{"done":"1"}', 422),
        ("PUT", "progress", '{"done":1,"percent":2}', 422),
        ("PUT", "progress", "3", 422),
        ("POST", "jobs", '{"type":"test/none","payload":{}}', 422),
        ("POST", "jobs", '{"type":"test/other","payload":{},"image":"x"}', 422),
        ("GET", "nothing", "", 404),
        ("GET", "outcome", "", 405),
    ],
)
async def test_what_is_wrong_is_refused_and_changes_nothing(
    worker: Worker, method: str, path: str, body: str, status: int
) -> None:
    answer = await worker.ask(method, path, body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    job = await worker.ingress.job(worker.job_id)
    assert not job.status.is_terminal
    assert await worker.ingress.count() == 1


async def test_children_belong_to_their_parent(worker: Worker) -> None:
    body = '{"type":"test/other","payload":{"n":1.0},"key":"k","priority":5}'
    first, second = [await worker.ask("POST", "jobs", body) for _ in range(2)]
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    child = await worker.ingress.job(first.json()["jobId"])
    assert (child.parent_id, child.priority, child.payload) == (worker.job_id, 5, '{"n":1.0}')
    assert child.source == f"worker:{worker.job_id}"


async def test_outside_a_cluster_it_is_closed(ingress: Running) -> None:
    answer = await ingress.workers.get(f"/worker/v1/attempts/{uuid4()}/1/payload")
    assert answer.status_code == 503


@pytest.mark.parametrize("number", ["0", "01", "-1", "1.5", str(2**31), "9" * 5000])
async def test_what_is_no_number_of_an_attempt_names_none(worker: Worker, number: str) -> None:
    path = f"/worker/v1/attempts/{worker.job_id}/{number}/payload"
    answer = await worker.ingress.workers.get(path)
    assert answer.status_code == 404
    assert answer.json()["detail"] == f"there is no attempt {number[:80]}"


async def test_a_body_that_is_encoded_is_refused(worker: Worker) -> None:
    path = f"/worker/v1/attempts/{worker.job_id}/1/outcome"
    headers = {
        "Authorization": f"Bearer {KEYS.token(worker.job_id, 1)}",
        "Content-Encoding": "gzip",
    }
    answer = await worker.ingress.workers.put(path, content=b"\x1f\x8b", headers=headers)
    assert answer.status_code == 415
