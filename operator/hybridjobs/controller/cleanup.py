"""HybridJobs that are finished, recorded and past their time."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from hybridjobs.controller.cache import Object
from hybridjobs.controller.observe import time
from hybridjobs.kube.client import HYBRIDJOBS, Conflict, Kubernetes
from hybridjobs.kube.identity import is_dispatched, job_id
from hybridjobs.model import Status
from hybridjobs.settings import OperatorSettings
from hybridjobs.store.database import Database
from hybridjobs.store.resources import Spent, forget_spent

_BATCH = 500
_PARALLEL = 8


class _Finished(NamedTuple):
    """What is kept of a finished HybridJob; `life` None: until its owner deletes it."""

    at: datetime
    life: timedelta | None
    counts: bool  # among the newest ones that are kept
    job_id: UUID
    attempt: int
    uid: str
    name: str
    resource_version: str


class Cleanup:
    """Takes note of those that are finished, and deletes those whose time is over."""

    def __init__(
        self, database: Database, kubernetes: Kubernetes, settings: OperatorSettings
    ) -> None:
        self._database = database
        self._kubernetes = kubernetes
        self._settings = settings
        self._finished: list[_Finished] = []

    def note(self, body: Object) -> None:
        """One that was listed."""
        if (at := _recorded_at(body)) is None:
            return
        life, counts = self._life(body)
        metadata = body["metadata"]
        self._finished.append(
            _Finished(
                at,
                life,
                counts,
                job_id(body),
                body["spec"].get("attempt", 0),
                metadata["uid"],
                metadata["name"],
                metadata["resourceVersion"],
            )
        )

    def _life(self, body: Object) -> tuple[timedelta | None, bool]:
        settings, spec = self._settings, body["spec"]
        if "ttlSecondsAfterFinished" in spec:
            return timedelta(seconds=spec["ttlSecondsAfterFinished"]), False
        if not is_dispatched(body):
            return None, False  # made by hand, and theirs to delete
        succeeded = body["status"]["state"] == Status.COMPLETED
        seconds = settings.keep_succeeded_seconds if succeeded else settings.keep_failed_seconds
        return timedelta(seconds=seconds), True

    async def delete(self) -> None:
        """Delete those whose time is over; of the newest no more stay than are kept."""
        spent = self._spent()
        for start in range(0, len(spent), _BATCH):
            batch = spent[start : start + _BATCH]
            async with self._database.connection() as connection:
                deletable = await forget_spent(
                    connection,
                    [Spent(each.uid, each.job_id, each.attempt) for each in batch],
                )
            parallel = asyncio.Semaphore(_PARALLEL)
            await asyncio.gather(
                *(self._delete(each, parallel) for each in batch if each.uid in deletable)
            )

    def _spent(self) -> list[_Finished]:
        now = datetime.now(UTC)
        counted = sorted((each for each in self._finished if each.counts), reverse=True)
        beyond = counted[self._settings.keep_finished :]
        others = (each for each in self._finished if not each.counts)
        return [
            *beyond,
            *(
                each
                for each in (*counted[: self._settings.keep_finished], *others)
                if each.life is not None and now - each.at > each.life
            ),
        ]

    async def _delete(self, spent: _Finished, parallel: asyncio.Semaphore) -> None:
        async with parallel:
            try:
                await self._kubernetes.delete(
                    HYBRIDJOBS,
                    self._settings.namespace,
                    spent.name,
                    uid=spent.uid,
                    # Not one that was dispatched once more since the list was read.
                    resource_version=spent.resource_version,
                )
            except Conflict:
                return


def _recorded_at(body: Object) -> datetime | None:
    """When its outcome was committed; None for one that is not over."""
    for each in (body.get("status") or {}).get("conditions") or []:
        if each["type"] == "OutcomeRecorded" and each["status"] == "True":
            return time(each["lastTransitionTime"])
    return None
