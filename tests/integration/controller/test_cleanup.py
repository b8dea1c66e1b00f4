"""Which finished HybridJobs stay, and for how long, on the real API server and a real Postgres."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from hybridjobs.controller import cleanup
from hybridjobs.controller.cleanup import Cleanup
from hybridjobs.controller.observe import time
from hybridjobs.kube.client import HYBRIDJOBS
from hybridjobs.kube.times import time_text
from hybridjobs.model import AttemptEnd, Outcome
from tests.integration.controller.scene import Scene

FAILED = AttemptEnd(Outcome.PERMANENT, "PermanentError", "no")
SUCCEEDED = AttemptEnd(Outcome.SUCCEEDED, "Completed")
HOUR = 3600


async def _over(scene: Scene, end: AttemptEnd, ago: float = 60.0) -> dict[str, Any]:
    """The HybridJob of a job that ended that many seconds ago."""
    job_id = await scene.dispatched()
    await scene.end(job_id, end)
    body = await scene.reconciled(await scene.name_of(job_id))
    return _ago(body, ago)


def _ago(body: dict[str, Any], ago: float) -> dict[str, Any]:
    conditions = [
        {**each, "lastTransitionTime": _earlier(each["lastTransitionTime"], ago)}
        for each in body["status"]["conditions"]
    ]
    return {**body, "status": {**body["status"], "conditions": conditions}}


def _earlier(text: str, seconds: float) -> str:
    at = time(text)
    assert at is not None
    return time_text(at - timedelta(seconds=seconds))


async def _left(scene: Scene, bodies: list[dict[str, Any]], **settings: int) -> list[bool]:
    """Which of these are there after a cleanup; without settings all of them stay for an hour."""
    keep = {"keep_succeeded_seconds": HOUR, "keep_failed_seconds": HOUR, "keep_finished": 500}
    changed = scene.settings.model_copy(update=keep | settings)
    finished = Cleanup(scene.database, scene.kubernetes, changed)
    for body in bodies:
        finished.note(body)
    await finished.delete()
    there = {
        each["metadata"]["uid"] for each in await scene.kubernetes.list(HYBRIDJOBS, scene.namespace)
    }
    return [body["metadata"]["uid"] in there for body in bodies]


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({}, [True, True]),
        ({"keep_succeeded_seconds": 30}, [False, True]),
        ({"keep_failed_seconds": 30}, [True, False]),
        ({"keep_failed_seconds": 90}, [True, True]),
    ],
)
async def test_what_succeeded_and_what_failed_have_their_own_times(
    scene: Scene, settings: dict[str, int], left: list[bool]
) -> None:
    bodies = [await _over(scene, SUCCEEDED), await _over(scene, FAILED)]
    assert await _left(scene, bodies, **settings) == left


async def test_of_more_than_are_kept_the_newest_stay(scene: Scene) -> None:
    bodies = [await _over(scene, FAILED, ago) for ago in (300, 100, 200)]
    assert await _left(scene, bodies, keep_finished=2) == [False, True, True]


async def test_what_is_one_persons_to_delete_is_not_counted(scene: Scene) -> None:
    bodies = [
        await _made_by_hand(scene, "theirs"),
        await _made_by_hand(scene, "for-an-hour", ttlSecondsAfterFinished=HOUR),
        await _made_by_hand(scene, "for-a-while", ttlSecondsAfterFinished=30),
    ]
    assert await _left(scene, bodies, keep_finished=0) == [True, True, False]


async def _made_by_hand(scene: Scene, name: str, **spec: Any) -> dict[str, Any]:
    await scene.made_by_hand(name, type="test/long", **spec)
    await scene.reconciled(name)
    job_id: UUID = (await scene.job_named(name)).id
    cancel = "UPDATE hybridjobs.background_jobs SET status = 'cancelled' WHERE id = %s"
    await scene.sql(cancel, job_id)
    return _ago(await scene.reconciled(name), 60)


async def test_one_that_has_changed_since_it_was_listed_stays_and_the_others_go(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup, "_BATCH", 1)
    changed, *others = [await _over(scene, FAILED) for _ in range(3)]
    labels = {"metadata": {"labels": {"changed": "since"}}}
    await scene.kubernetes.patch(HYBRIDJOBS, scene.namespace, changed["metadata"]["name"], labels)
    left = await _left(scene, [changed, *others], keep_finished=0)
    assert left == [True, False, False]


async def test_one_whose_job_was_run_anew_stays(scene: Scene) -> None:
    body = await _over(scene, FAILED)
    job_id = body["spec"]["jobId"]
    await scene.sql("SELECT hybridjobs.retry_failed_job(%s)", job_id)
    assert await _left(scene, [body], keep_finished=0) == [True]
