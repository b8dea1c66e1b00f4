"""What no event tells, on the real API server and a real Postgres."""

from typing import Any

import pytest

from hybridjobs.controller.cache import Cache
from hybridjobs.controller.types import TypeMirror
from hybridjobs.kube import names
from hybridjobs.kube.client import HYBRIDJOB_TYPES, HYBRIDJOBS, JOBS, NotFound
from hybridjobs.kube.names import job_name
from hybridjobs.model import AttemptEnd, Outcome, Status
from hybridjobs.store.attempts import statuses
from hybridjobs.store.database import Database
from hybridjobs.store.outcome import request_cancel
from hybridjobs.store.types import list_types
from tests.conftest import free_port
from tests.integration.controller.scene import Scene

FAILED = AttemptEnd(Outcome.PERMANENT, "PermanentError", "no")


def _body(
    name: str, namespace: str, payload_schema: dict[str, object] | None = None
) -> dict[str, object]:
    return {
        "apiVersion": "hybridjobs.dev/v1alpha1",
        "kind": "HybridJobType",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"type": name} | ({"payloadSchema": payload_schema} if payload_schema else {}),
    }


async def test_a_spent_hybridjob_goes_without_cancelling_anything(scene: Scene) -> None:
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    await scene.end(job_id, FAILED)
    spent = await scene.reconciled(name)
    await scene.sweep.once()
    with pytest.raises(NotFound):
        await scene.see(name)

    await scene.sql("SELECT hybridjobs.retry_failed_job(%s)", job_id)
    scene.cache.remove_hybridjob(spent)  # its event comes late
    await scene.reconciler.reconcile(name)
    assert (await scene.job(job_id)).status is Status.QUEUED


async def test_the_hybridjob_of_a_job_run_anew_stays(scene: Scene) -> None:
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    await scene.end(job_id, FAILED)
    await scene.reconciled(name)
    await scene.sql("SELECT hybridjobs.retry_failed_job(%s)", job_id)
    await scene.sweep.once()
    assert (await scene.see(name))["spec"]["attempt"] == 1
    await scene.dispatcher.dispatch_once()
    assert (await scene.see(name))["spec"]["attempt"] == 2


async def test_a_cancel_during_a_backoff_reaches_the_hybridjob(scene: Scene) -> None:
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    await scene.end(job_id, AttemptEnd(Outcome.FAILED, "Error", "boom"))
    assert (await scene.reconciled(name))["status"]["state"] == "queued"
    async with scene.database.connection() as connection:
        await request_cancel(connection, job_id)
        assert await statuses(connection, [job_id]) == {job_id: Status.CANCELLED}
    await scene.due()
    await scene.sweep.once()
    assert name in await scene.due()
    assert (await scene.reconciled(name))["status"]["state"] == "cancelled"


async def test_a_job_that_vanished_unseen_is_lost_and_run_again(scene: Scene) -> None:
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    await scene.reconciled(name)
    body = await scene.kubernetes.get(JOBS, scene.namespace, job_name(job_id, 1))
    scene.cache.put_job(body)
    await scene.kubernetes.delete(
        JOBS, scene.namespace, body["metadata"]["name"], uid=body["metadata"]["uid"]
    )
    await scene.due()
    await scene.sweep.once()
    assert name in await scene.due()
    await scene.reconciler.reconcile(name)
    job = await scene.job(job_id)
    assert (job.status, job.retry_count) == (Status.QUEUED, 0)
    assert job.attempts[0].reason == "JobDeleted"


async def test_the_job_of_an_attempt_that_never_started_goes_after_a_crash(scene: Scene) -> None:
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    await scene.reconciled(name)
    await scene.end(job_id, AttemptEnd(Outcome.LOST, "ByTest"))
    await scene.dispatcher.dispatch_once()
    await scene.reconciled(name)
    with pytest.raises(NotFound):
        await scene.kubernetes.get(JOBS, scene.namespace, job_name(job_id, 1))
    await scene.kubernetes.get(JOBS, scene.namespace, job_name(job_id, 2))


async def test_a_type_that_went_or_came_unseen(scene: Scene) -> None:
    async def known() -> set[str]:
        async with scene.database.connection() as connection:
            return {each.spec.type for each in await list_types(connection)}

    body = _body("came-unseen", scene.namespace)
    made = await scene.kubernetes.create(HYBRIDJOB_TYPES, scene.namespace, body)
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    async with Database(url, size=1, wait_seconds=0.2) as away:
        mirror = TypeMirror(
            away, scene.kubernetes, scene.cache, scene.queue, namespace=scene.namespace
        )
        await mirror.on_event("ADDED", made)
    assert "came-unseen" not in await known()
    await scene.mirror.read_all()
    assert "came-unseen" in await known()

    uid = made["metadata"]["uid"]
    await scene.kubernetes.delete(HYBRIDJOB_TYPES, scene.namespace, "came-unseen", uid=uid)
    await scene.mirror.read_all()
    assert "came-unseen" not in await known()
    assert "came-unseen" not in scene.cache.types


async def test_types_that_went_with_their_cluster_stay_known(scene: Scene) -> None:
    async def known() -> set[str]:
        async with scene.database.connection() as connection:
            return {each.spec.type for each in await list_types(connection)}

    before = await known()
    assert "test/long" in before
    [body] = [
        each
        for each in await scene.kubernetes.list(HYBRIDJOB_TYPES, scene.namespace)
        if each["spec"]["type"] == "test/long"
    ]
    empty = TypeMirror(
        scene.database, scene.kubernetes, Cache(), scene.queue, namespace=f"{scene.namespace}-new"
    )
    await empty.read_all()
    await empty.on_event("DELETED", body)
    assert await known() == before


async def test_a_payload_that_postgres_cannot_hold_is_refused(scene: Scene) -> None:
    await scene.made_by_hand("holds-nul", type="test/long", payload={"a": "\0"})
    status = (await scene.reconciled("holds-nul"))["status"]
    assert (status["reason"], status["conditions"][0]["status"]) == ("InvalidPayload", "False")


async def test_a_payload_is_checked_as_if_it_came_by_the_api(scene: Scene) -> None:
    body = _body("counts", scene.namespace, {"properties": {"n": {"type": "integer"}}})
    await scene.kubernetes.create(HYBRIDJOB_TYPES, scene.namespace, body)
    await scene.mirror.read_all()
    await scene.made_by_hand("counts-words", type="counts", payload={"n": "many"})
    status = (await scene.reconciled("counts-words"))["status"]
    assert (status["reason"], status["conditions"][0]["status"]) == ("InvalidPayload", "False")
    assert "/payload/n" in status["message"]


async def test_one_made_by_hand_is_a_job_as_any_other(scene: Scene) -> None:
    spec: dict[str, Any] = {
        "type": "by-hand",
        "priority": 1,
        "deadlineSeconds": 77,
        "retry": {"limit": 7},
        "concurrency": {"limit": 1, "key": "of"},
        "callback": {"url": "https://example.com/told"},
    }
    body = {**_body("by-hand", scene.namespace), "spec": spec}
    await scene.kubernetes.create(HYBRIDJOB_TYPES, scene.namespace, body)
    await scene.mirror.read_all()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    own = {"priority": 3, "deadlineSeconds": 55, "payload": {"of": "ana"}}
    for name, more, said in (("plain", {}, trace), ("with-its-own", own, "nonsense")):
        kind = {"apiVersion": "hybridjobs.dev/v1alpha1", "kind": "HybridJob"}
        metadata = {
            "name": name,
            "namespace": scene.namespace,
            "annotations": {names.TRACEPARENT: said},
        }
        made = {**kind, "metadata": metadata, "spec": {"type": "by-hand", **more}}
        await scene.kubernetes.create(HYBRIDJOBS, scene.namespace, made)
        await scene.reconciled(name)
    async with scene.database.connection() as connection:
        cursor = await connection.execute(
            "SELECT priority, deadline_seconds, max_retries, traceparent, concurrency_key, key,"
            " callback->0->>'url' AS told, submitted_by, source"
            " FROM hybridjobs.background_jobs ORDER BY resource_name"
        )
        rows = await cursor.fetchall()
    uids = [(await scene.see(name))["metadata"]["uid"] for name in ("plain", "with-its-own")]
    common = {
        "max_retries": 7,
        "told": "https://example.com/told",
        "submitted_by": "kubernetes",
        "source": "kubernetes",
    }
    plain = {"priority": 1, "deadline_seconds": 77, "concurrency_key": "", "traceparent": trace}
    its_own = {"priority": 3, "deadline_seconds": 55, "concurrency_key": "ana", "traceparent": None}
    assert rows == [common | plain | {"key": uids[0]}, common | its_own | {"key": uids[1]}]


async def test_a_type_whose_schema_is_none_is_not_accepted(scene: Scene) -> None:
    body = _body("schemaless", scene.namespace, {"type": "no such type"})
    await scene.kubernetes.create(HYBRIDJOB_TYPES, scene.namespace, body)
    await scene.mirror.read_all()
    found = await scene.kubernetes.get(HYBRIDJOB_TYPES, scene.namespace, "schemaless")
    [accepted] = found["status"]["conditions"]
    assert (accepted["status"], accepted["reason"]) == ("False", "Invalid")
    assert "payloadSchema" in accepted["message"]
    assert "schemaless" not in scene.cache.types


async def test_a_deletion_held_up_by_a_finalizer_cancels_at_once(scene: Scene) -> None:
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    async with scene.held_up(name):
        await scene.delete(name)
        await scene.reconciled(name)
    job = await scene.job(job_id)
    assert (job.status, job.outcome_reason) == (Status.CANCELLED, "HybridJobDeleted")


async def test_a_hand_made_job_is_not_run_again_when_retention_has_taken_its_row(
    scene: Scene,
) -> None:
    await scene.made_by_hand("over", type="test/long")
    await scene.reconciled("over")
    job_id = (await scene.job_named("over")).id
    await scene.sql(
        "UPDATE hybridjobs.background_jobs SET status = 'cancelled' WHERE id = %s", job_id
    )
    body = await scene.reconciled("over")
    assert body["status"]["state"] == "cancelled"
    await scene.sql("DELETE FROM hybridjobs.background_jobs WHERE id = %s", job_id)
    again = await scene.reconciled("over")
    assert again["status"] == body["status"]
    assert await scene.count() == 0
