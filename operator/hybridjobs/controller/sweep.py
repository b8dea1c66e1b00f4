"""What no event tells: Postgres and the cluster compared, in both directions.

Open rows without a HybridJob or Job; HybridJobs without a row, or with one that says something
else; Jobs without a HybridJob; what is over and past its time. All of it is read page by page, and
of what is listed no more is held than uids and names, and the ends of what has ended.

What seems to be gone is acted on when the next sweep misses it too: its event may be on its way.
"""

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from time import monotonic
from uuid import UUID

import structlog

from hybridjobs.controller.cache import Cache, Object, hybridjob_of
from hybridjobs.controller.cleanup import Cleanup
from hybridjobs.controller.observe import condition
from hybridjobs.controller.types import TypeMirror
from hybridjobs.controller.workqueue import WorkQueue
from hybridjobs.errors import ClusterUnavailable, DatabaseUnavailable, RowLocked
from hybridjobs.ids import first_id_of
from hybridjobs.kube import names
from hybridjobs.kube.client import HYBRIDJOBS, JOBS, ApiError, Conflict, Kubernetes
from hybridjobs.kube.identity import is_dispatched, is_over, job_id
from hybridjobs.model import AttemptEnd, Outcome
from hybridjobs.settings import OperatorSettings
from hybridjobs.store.attempts import OpenDispatch, have_ended, open_dispatches, statuses
from hybridjobs.store.database import Database
from hybridjobs.store.outcome import record_outcome
from hybridjobs.store.resources import hand_out_again

log = structlog.get_logger(__name__)

# A HybridJob younger than this may not be in a list that was read a moment before it.
_SETTLED = timedelta(seconds=30)
_PAGE = 1000
_NAMED = 10
# No retention takes a row sooner: one that is missing by then was never there, or the database was
# restored from before it, and what the cluster has of it is all there is.
_ROWS_STAY = timedelta(days=7)


class Sweep:
    """Compares Postgres with the cluster, about every `settings.sweep_seconds`."""

    def __init__(
        self,
        database: Database,
        kubernetes: Kubernetes,
        cache: Cache,
        queue: WorkQueue,
        mirror: TypeMirror,
        settings: OperatorSettings,
    ) -> None:
        self._database = database
        self._kubernetes = kubernetes
        self._cache = cache
        self._queue = queue
        self._mirror = mirror
        self._settings = settings
        self._missing: set[str] = set()  # uids of HybridJobs that the sweep before missed too
        self._orphans: set[str] = set()  # uids of Jobs that it found without a HybridJob

    async def run(self) -> None:
        """Sweep until cancelled."""
        for seconds in pauses(self._settings.sweep_seconds):
            await asyncio.sleep(seconds)
            try:
                await self.once()
            except (ClusterUnavailable, DatabaseUnavailable, ApiError) as error:
                log.warning("sweep put off", error=str(error))

    async def once(self) -> None:
        """One comparison, both ways."""
        await self._mirror.read_all()
        # In this order: a HybridJob is there before its Job, and both before the row names them.
        began = monotonic()
        cleanup = Cleanup(self._database, self._kubernetes, self._settings)
        hybridjobs = await self._look_at_hybridjobs(cleanup)
        jobs = await self._look_at_jobs(hybridjobs)
        await self._look_at_rows(hybridjobs, jobs, began)
        await cleanup.delete()

    async def _look_at_hybridjobs(self, cleanup: Cleanup) -> dict[str, str]:
        """Those without a row, or whose row was changed by others; their names by uid."""
        known = self._cache.hybridjobs.uids()
        listed: dict[str, str] = {}
        unknown: list[str] = []
        async for page in self._kubernetes.pages(HYBRIDJOBS, self._settings.namespace):
            ids = [job_id(body) for body in page]
            async with self._database.connection() as connection:
                found = await statuses(connection, ids)
            for id_, body in zip(ids, page, strict=True):
                name, state = body["metadata"]["name"], (body.get("status") or {}).get("state")
                listed[body["metadata"]["uid"]] = name
                if id_ in found:
                    cleanup.note(body)
                    # One that was not the row's may be it by now.
                    if found[id_] != state or condition(body, "Accepted") is None:
                        self._queue.add(name)
                    continue
                if not is_over(body):
                    self._queue.add(name)  # to be adopted, or refused
                if _must_have_row(id_) and (is_over(body) or is_dispatched(body)):
                    unknown.append(name)
                else:
                    cleanup.note(body)
        for name, uid in known.items():
            if uid not in listed:
                self._cache.forget_hybridjob(name, uid)
        if unknown:
            _report("HybridJobs of jobs that the database does not know are left alone", unknown)
        return listed

    async def _look_at_jobs(self, hybridjobs: dict[str, str]) -> set[str]:
        """Those without a HybridJob, which nobody else ends or deletes; the uids of all."""
        known = self._cache.job_uids()
        live = set(hybridjobs.values())
        listed: set[str] = set()
        orphans: set[str] = set()
        unknown: list[str] = []
        async for page in self._kubernetes.pages(
            JOBS, self._settings.namespace, labels=names.SELECTOR, metadata_only=True
        ):
            listed.update(body["metadata"]["uid"] for body in page)
            alone = [body for body in page if hybridjob_of(body) not in live and _attempt(body)]
            orphans.update(body["metadata"]["uid"] for body in alone)
            again = [body for body in alone if body["metadata"]["uid"] in self._orphans]
            unknown += await self._remove_orphans(again)
        self._orphans = orphans
        # A watch that was interrupted never tells of what was deleted meanwhile.
        for name, uid in known.items():
            gone = None if uid in listed else self._cache.job(name)
            if gone is not None and gone["metadata"]["uid"] == uid:
                self._cache.remove_job(gone)  # its attempt is looked at with the rows
        if unknown:
            _report("Jobs of attempts that the database does not know are left alone", unknown)
        return listed

    async def _remove_orphans(self, jobs: list[Object]) -> list[str]:
        """Delete the Jobs of attempts that are over; the names of those that nobody knows.

        One whose attempt is open is left: `_look_at_rows` sees to it that it gets a HybridJob.
        """
        if not jobs:
            return []
        by_attempt = {attempt: body for body in jobs if (attempt := _attempt(body))}
        async with self._database.connection() as connection:
            ended = await have_ended(connection, list(by_attempt))
        unknown = []
        for attempt, body in by_attempt.items():
            metadata = body["metadata"]
            if attempt not in ended and _must_have_row(attempt[0]):
                unknown.append(metadata["name"])
            elif ended.get(attempt, True):
                with suppress(Conflict):  # another one has its name now
                    await self._kubernetes.delete(
                        JOBS, self._settings.namespace, metadata["name"], uid=metadata["uid"]
                    )
                log.info("Job without a HybridJob deleted", name=metadata["name"])
        return unknown

    async def _look_at_rows(self, hybridjobs: dict[str, str], jobs: set[str], began: float) -> None:
        """Those whose HybridJob or Job is gone, or that somebody wants cancelled."""
        missing: set[str] = set()
        after = UUID(int=0), 0
        while True:
            # Whatever was dispatched that long before the lists were read is in them.
            settled = _SETTLED + timedelta(seconds=monotonic() - began)
            async with self._database.connection() as connection:
                page = await open_dispatches(connection, settled=settled, after=after, limit=_PAGE)
            for row in page:
                uid = row.hybridjob_uid
                if row.settled and uid is not None and uid not in hybridjobs:
                    missing.add(uid)
                    if uid in self._missing:
                        with suppress(RowLocked):  # missing still at the next sweep
                            await self._without_hybridjob(row, uid, has_job=row.job_uid in jobs)
                elif row.resource_name is not None and (
                    row.cancel_requested or row.job_uid not in jobs
                ):
                    self._queue.add(row.resource_name)
            if len(page) < _PAGE:
                break
            after = page[-1].job_id, page[-1].attempt
        self._missing = missing

    async def _without_hybridjob(self, row: OpenDispatch, uid: str, *, has_job: bool) -> None:
        # Not at once: a deletion by a user, which means cancel, is acted on before.
        if has_job:
            async with self._database.connection() as connection:
                await hand_out_again(connection, row.job_id, row.attempt, uid)
            said = "HybridJob lost, to be made again for its Job"
        else:
            end = AttemptEnd(
                Outcome.LOST, "HybridJobLost", "its HybridJob vanished while nobody watched"
            )
            async with self._database.transaction() as connection:
                await record_outcome(connection, row.job_id, row.attempt, end)
            said = "HybridJob lost"
        log.warning(said, job_id=str(row.job_id), attempt=row.attempt)


def pauses(seconds: float) -> Iterator[float]:
    """Between sweeps, about so many seconds: releases that were started together part again."""
    yield random.uniform(0.0, 0.2) * seconds  # noqa: S311
    while True:
        yield random.uniform(0.8, 1.2) * seconds  # noqa: S311


def _must_have_row(job_id: UUID) -> bool:
    return job_id >= first_id_of(datetime.now(UTC) - _ROWS_STAY)


def _attempt(job: Object) -> tuple[UUID, int] | None:
    """Which attempt a Job's labels and name say it is; None: it is none of ours."""
    labels = job["metadata"].get("labels") or {}
    try:
        job_id, attempt = UUID(labels[names.JOB_ID]), int(labels[names.ATTEMPT])
    except (KeyError, ValueError):
        return None
    return (job_id, attempt) if job["metadata"]["name"] == names.job_name(job_id, attempt) else None


def _report(text: str, unknown: list[str]) -> None:
    log.warning(text, count=len(unknown), first=sorted(unknown)[:_NAMED])
