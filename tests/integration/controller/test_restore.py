"""The database is restored from a backup, and the cluster has gone on meanwhile."""

import secrets
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from hybridjobs.ids import new_id
from hybridjobs.kube import names
from hybridjobs.kube.client import HYBRIDJOBS, JOBS, NotFound
from hybridjobs.kube.names import job_name
from hybridjobs.model import AttemptEnd, Outcome, Status
from hybridjobs.store.claim import claim
from tests.conftest import DatabaseUrls
from tests.integration.controller.scene import Scene

FAILED = AttemptEnd(Outcome.PERMANENT, "PermanentError", "no")
LOST = AttemptEnd(Outcome.LOST, "JobDeleted", "gone")
_INSERT = "INSERT INTO hybridjobs.background_jobs (id, type) VALUES (%s, 'test/long')"
_TABLES = ("background_jobs", "job_attempts")


class _Backup:
    """The rows of jobs and attempts as they were."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._rows: dict[str, list[dict[str, Any]]] = {}

    async def take(self) -> None:
        async with await psycopg.AsyncConnection.connect(self._url, row_factory=dict_row) as owner:
            for table in _TABLES:
                query = sql.SQL("SELECT to_jsonb(kept)::text AS kept FROM hybridjobs.{} kept")
                cursor = await owner.execute(query.format(sql.Identifier(table)))
                self._rows[table] = await cursor.fetchall()

    async def restore(self) -> None:
        async with await psycopg.AsyncConnection.connect(self._url) as owner:
            await owner.execute("DELETE FROM hybridjobs.background_jobs")
            for table in _TABLES:
                cursor = await owner.execute(
                    "SELECT column_name FROM information_schema.columns"
                    " WHERE table_schema = 'hybridjobs' AND table_name = %s"
                    " AND is_generated = 'NEVER'",
                    [table],
                )
                columns = sql.SQL(", ").join(
                    sql.Identifier(name) for (name,) in await cursor.fetchall()
                )
                insert = sql.SQL(
                    "INSERT INTO hybridjobs.{table} ({columns}) SELECT {columns}"
                    " FROM jsonb_populate_record(NULL::hybridjobs.{table}, %s::jsonb)"
                ).format(table=sql.Identifier(table), columns=columns)
                for row in self._rows[table]:
                    await owner.execute(insert, [row["kept"]])


@pytest.fixture
def backup(database_urls: DatabaseUrls) -> _Backup:
    return _Backup(database_urls.owner)


async def _claimed(scene: Scene, job_id: UUID) -> None:
    """Claimed by a dispatcher that has not said so yet."""
    await scene.sql(_INSERT, job_id)
    async with scene.database.transaction() as connection:
        await claim(connection, window=50)


async def _dispatched_anew(scene: Scene) -> None:
    """What is claimed, or due, is said to the cluster; at once, as if claimed a while ago."""
    await scene.settle()
    await scene.sql("UPDATE hybridjobs.background_jobs SET run_at = now() WHERE status = 'queued'")
    await scene.dispatcher.dispatch_once()


async def _looked_at(scene: Scene, name: str) -> dict[str, Any]:
    for _ in range(6):
        for job in await scene.kubernetes.list(JOBS, scene.namespace, labels=names.SELECTOR):
            scene.cache.put_job(job)
        body = await scene.reconciled(name)
    return body


async def _jobs(scene: Scene, job_id: UUID) -> dict[str, str]:
    """The uids of the Kubernetes Jobs of all its attempts, by name."""
    label = f"{names.JOB_ID}={job_id}"
    found = await scene.kubernetes.list(JOBS, scene.namespace, labels=label)
    return {job["metadata"]["name"]: job["metadata"]["uid"] for job in found}


async def _lose(scene: Scene, job_id: UUID, attempt: int) -> None:
    """The attempt's Job is deleted, which is recorded; the next attempt begins."""
    name = job_name(job_id, attempt)
    uid = (await _jobs(scene, job_id))[name]
    await scene.kubernetes.delete(JOBS, scene.namespace, name, uid=uid)
    scene.cache.remove_job({"metadata": {"name": name, "uid": uid}})
    await scene.end(job_id, LOST, attempt)
    await _dispatched_anew(scene)


async def _is_bound(scene: Scene, job_id: UUID, attempt: int, uid: str) -> bool:
    async with scene.database.connection() as connection:
        cursor = await connection.execute(
            "SELECT job_uid FROM hybridjobs.job_attempts"
            " WHERE job_id = %s AND attempt = %s AND ended_at IS NULL",
            [job_id, attempt],
        )
        row = await cursor.fetchone()
    return row is not None and row["job_uid"] == uid


async def test_no_earlier_attempt_begins_beside_a_later_one_that_a_backup_does_not_know(
    scene: Scene, backup: _Backup
) -> None:
    job_id = new_id()
    await _claimed(scene, job_id)
    await backup.take()
    await _dispatched_anew(scene)
    name = await scene.name_of(job_id)
    await _looked_at(scene, name)
    for attempt in (1, 2):
        await _lose(scene, job_id, attempt)
        await _looked_at(scene, name)
    running = await _jobs(scene, job_id)
    assert list(running) == [job_name(job_id, 3)]

    await backup.restore()
    await _dispatched_anew(scene)
    await _looked_at(scene, name)
    assert await _jobs(scene, job_id) == running
    job = await scene.job(job_id)
    assert [each.outcome for each in job.attempts] == ["lost", "lost", None]
    assert (job.attempt, job.retry_count) == (3, 0)
    assert await _is_bound(scene, job_id, 3, running[job_name(job_id, 3)])


async def test_attempts_count_up_at_once_to_one_that_is_far_ahead(
    scene: Scene, backup: _Backup
) -> None:
    """Not one by one: losses that are free are few, and the job would end as failed."""
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    await backup.take()
    body = await scene.see(name)
    later = {"metadata": {"uid": body["metadata"]["uid"]}, "spec": {"attempt": 15}}
    await scene.kubernetes.patch(HYBRIDJOBS, scene.namespace, name, later)
    await backup.restore()
    await _looked_at(scene, name)
    job = await scene.job(job_id)
    assert (job.status, job.attempt, job.retry_count) == (Status.QUEUED, 15, 0)
    await scene.end(job_id, LOST, attempt=15)
    assert (await scene.job(job_id)).retry_count == 0
    assert list(await _jobs(scene, job_id)) == [job_name(job_id, 15)]


async def _failed_before(scene: Scene, backup: _Backup) -> tuple[UUID, str]:
    """A job that had failed by the backup, and its HybridJob's name."""
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    await scene.end(job_id, FAILED)
    await _looked_at(scene, name)
    await backup.take()
    return job_id, name


async def test_a_run_that_somebody_asked_for_after_the_backup_is_recorded(
    scene: Scene, backup: _Backup
) -> None:
    job_id, name = await _failed_before(scene, backup)
    await scene.sql("SELECT hybridjobs.retry_failed_job(%s)", job_id)
    await _dispatched_anew(scene)
    await _looked_at(scene, name)
    running = await _jobs(scene, job_id)
    assert job_name(job_id, 2) in running

    await backup.restore()
    assert (await scene.job(job_id)).status is Status.FAILED
    await _looked_at(scene, name)
    job = await scene.job(job_id)
    assert (job.status, job.attempt, job.failed_at) == (Status.QUEUED, 2, None)
    assert [each.outcome for each in job.attempts] == ["permanent", None]
    assert await _is_bound(scene, job_id, 2, running[job_name(job_id, 2)])
    assert await _jobs(scene, job_id) == running


@pytest.mark.parametrize(("unique_while", "status"), [("open", "failed"), ("queued", "queued")])
async def test_a_unique_key_that_is_anothers_by_now_stays_the_others(
    scene: Scene, unique_while: str, status: str
) -> None:
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    if status == "failed":
        await scene.end(job_id, FAILED)
    later = {"spec": {"attempt": 2}}
    await scene.kubernetes.patch(HYBRIDJOBS, scene.namespace, name, later)
    key = (
        "UPDATE hybridjobs.background_jobs SET unique_key = 'k', unique_while = %s, stage = stage"
        " WHERE id = %s"
    )
    await scene.sql(key, unique_while, job_id)
    await scene.reconciled(name)
    assert (await scene.job(job_id)).attempt == 2
    other = new_id()
    await scene.sql(_INSERT, other)
    await scene.sql(key, unique_while, other)


async def test_a_hybridjob_that_was_made_anew_after_the_backup_is_the_rows(
    scene: Scene, backup: _Backup
) -> None:
    job_id, name = await _failed_before(scene, backup)
    await scene.delete(name)
    await scene.sql("UPDATE hybridjobs.background_jobs SET resource_uid = NULL")
    await scene.sql("SELECT hybridjobs.retry_failed_job(%s)", job_id)
    await _dispatched_anew(scene)
    await _looked_at(scene, name)
    running = await _jobs(scene, job_id)

    await backup.restore()
    await _looked_at(scene, name)
    assert await _is_bound(scene, job_id, 2, running[job_name(job_id, 2)])


@pytest.mark.parametrize("attempt", [1, 2])
async def test_one_made_by_hand_that_a_backup_does_not_know_is_adopted_again(
    scene: Scene, backup: _Backup, attempt: int
) -> None:
    await backup.take()
    name = f"mine-{secrets.token_hex(4)}"
    await scene.made_by_hand(name, type="test/long", payload={"a": 1})
    await scene.reconciled(name)
    job_id = (await scene.job_named(name)).id
    await scene.dispatcher.dispatch_once()
    await _looked_at(scene, name)
    if attempt == 2:
        await _lose(scene, job_id, 1)
        await _looked_at(scene, name)
    running = await _jobs(scene, job_id)

    await backup.restore()
    assert await scene.count() == 0
    body = await _looked_at(scene, name)
    await scene.dispatcher.dispatch_once()
    await _dispatched_anew(scene)
    await _looked_at(scene, name)
    assert body.get("status", {}).get("reason") != "UnknownJob"
    job = await scene.job(job_id)
    assert (job.payload, job.attempt) == ('{"a":1}', attempt)
    assert await _is_bound(scene, job_id, attempt, running[job_name(job_id, attempt)])
    assert await _jobs(scene, job_id) == running


async def test_one_made_by_hand_that_is_over_does_not_run_again(
    scene: Scene, backup: _Backup
) -> None:
    await backup.take()
    name = f"mine-{secrets.token_hex(4)}"
    await scene.made_by_hand(name, type="test/long")
    await scene.reconciled(name)
    job_id = (await scene.job_named(name)).id
    await scene.dispatcher.dispatch_once()
    await scene.end(job_id, FAILED)
    over = await scene.reconciled(name)
    assert over["status"]["state"] == "failed"

    await backup.restore()
    await scene.sweep.once()
    after = await _looked_at(scene, name)
    await scene.dispatcher.dispatch_once()
    assert (after["status"], await scene.count()) == (over["status"], 0)


@pytest.mark.parametrize("dispatched", [False, True])
async def test_what_is_over_stays_until_its_outcome_is_known_again(
    scene: Scene, backup: _Backup, dispatched: bool
) -> None:
    job_id = new_id()
    await _claimed(scene, job_id)
    if not dispatched:
        await backup.take()
    await _dispatched_anew(scene)
    name = await scene.name_of(job_id)
    if dispatched:
        await scene.end(job_id, FAILED)
        await backup.take()
        await scene.sql("SELECT hybridjobs.retry_failed_job(%s)", job_id)
        await _dispatched_anew(scene)
    await scene.end(job_id, FAILED, attempt=1 + dispatched)
    before = await scene.reconciled(name)
    assert before["status"]["state"] == "failed"

    await backup.restore()
    await scene.sweep.once()
    assert await scene.see(name) == before
    assert (await scene.job(job_id)).cancel_requested_at is None


async def test_a_hybridjob_that_was_not_the_rows_is_looked_at_when_it_has_become_it(
    scene: Scene, backup: _Backup
) -> None:
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    await _looked_at(scene, name)
    running = await _jobs(scene, job_id)
    await backup.take()
    await scene.orphan(name)
    for _ in range(2):
        await scene.settle()
        await scene.sweep.once()
    await _dispatched_anew(scene)
    await _looked_at(scene, name)

    await backup.restore()
    body = await _looked_at(scene, name)
    assert body["status"]["reason"] == "NotOurs"
    shown = {"metadata": {"uid": body["metadata"]["uid"]}, "status": {"state": "queued"}}
    await scene.kubernetes.patch(HYBRIDJOBS, scene.namespace, name, shown, subresource="status")
    for _ in range(2):
        await scene.settle()
        await scene.sweep.once()
    await _dispatched_anew(scene)
    await scene.due()
    await scene.sweep.once()
    assert name in await scene.due()
    await _looked_at(scene, name)
    assert await _is_bound(scene, job_id, 1, running[job_name(job_id, 1)])


async def test_a_hybridjob_that_never_becomes_the_rows_goes_when_its_job_is_over(
    scene: Scene,
) -> None:
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    # As a backup has it from when the job had one that came by kubectl.
    await scene.sql(
        "UPDATE hybridjobs.background_jobs SET resource_name = 'by-hand', resource_uid = 'gone'"
        " WHERE id = %s",
        job_id,
    )
    assert (await _looked_at(scene, name))["status"]["reason"] == "NotOurs"
    await scene.end(job_id, FAILED)
    await scene.see(name)
    await scene.reconciler.reconcile(name)
    with pytest.raises(NotFound):
        await scene.see(name)
