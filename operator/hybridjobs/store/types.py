"""`job_types`: the mirror of the HybridJobTypes, and the view of it that the ingress keeps."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from types import MappingProxyType

import structlog
from psycopg import AsyncConnection
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from pydantic import ValidationError

from hybridjobs.errors import DatabaseUnavailable
from hybridjobs.model import JobType
from hybridjobs.store.database import Database
from hybridjobs.waits import ended_within

log = structlog.get_logger(__name__)

_UPSERT = """
INSERT INTO hybridjobs.job_types (type, name, uid, generation, spec, events)
VALUES (%(type)s, %(name)s, %(uid)s, %(generation)s, %(spec)s, %(events)s)
ON CONFLICT (type) DO UPDATE
SET name = excluded.name, uid = excluded.uid, generation = excluded.generation,
    spec = excluded.spec, events = excluded.events, deleted_at = NULL,
    updated_at = clock_timestamp()
WHERE (job_types.uid, job_types.generation, job_types.deleted_at IS NULL)
      IS DISTINCT FROM (excluded.uid, excluded.generation, true)
"""
_DELETE_OTHERS = """
UPDATE hybridjobs.job_types SET deleted_at = now(), updated_at = clock_timestamp()
WHERE deleted_at IS NULL AND NOT type = ANY(%s)
"""
_DELETE = """
UPDATE hybridjobs.job_types SET deleted_at = now(), updated_at = clock_timestamp()
WHERE uid = %s AND deleted_at IS NULL
"""
_LIST = """
SELECT name, uid, generation, spec,
       paused_at IS NOT NULL
           OR EXISTS (SELECT FROM hybridjobs.queue_settings WHERE paused_at IS NOT NULL) AS paused
FROM hybridjobs.job_types WHERE deleted_at IS NULL ORDER BY type
"""
# Who asks has little time: GitHub waits for 10 s in all.
_MISS_WAIT_SECONDS = 1.5


async def upsert_type(connection: AsyncConnection[DictRow], job_type: JobType) -> None:
    """Mirror a HybridJobType; writes nothing when the generation is the one we have."""
    await connection.execute(
        _UPSERT,
        {
            "type": job_type.spec.type,
            "name": job_type.name,
            "uid": job_type.uid,
            "generation": job_type.generation,
            "spec": Jsonb(job_type.raw_spec),
            "events": list(job_type.spec.events),
        },
    )


async def delete_type(connection: AsyncConnection[DictRow], uid: str) -> None:
    """The HybridJobType is gone: no new jobs of it; its queued ones wait for its return."""
    await connection.execute(_DELETE, [uid])


async def delete_other_types(connection: AsyncConnection[DictRow], kept: Sequence[str]) -> None:
    """Every type but `kept` is gone, as a full list of the cluster showed."""
    await connection.execute(_DELETE_OTHERS, [list(kept)])


async def list_types(connection: AsyncConnection[DictRow]) -> list[JobType]:
    """The types that can run. One whose spec this program cannot read is left out, and logged."""
    types = []
    for row in await (await connection.execute(_LIST)).fetchall():
        try:
            types.append(JobType.parse(**row))
        except ValidationError as error:
            log.warning("job type left out", name=row["name"], error=str(error))
    return types


@dataclass(frozen=True)
class _Snapshot:
    by_type: Mapping[str, JobType] = field(default_factory=lambda: MappingProxyType({}))
    by_event: Mapping[str, tuple[JobType, ...]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    read_at: float = float("-inf")


class TypeCatalog:
    """The job types in memory, read again every `refresh_seconds`, and at once on a miss.

    With the database away it keeps what it knows, and a miss is DatabaseUnavailable, soon.
    """

    def __init__(
        self, database: Database, *, refresh_seconds: float = 5.0, miss_seconds: float = 0.5
    ) -> None:
        self._database = database
        self._refresh_seconds = refresh_seconds
        self._miss_seconds = miss_seconds
        self._snapshot = _Snapshot()
        self._refreshing: asyncio.Task[None] | None = None  # for all who miss

    async def run(self) -> None:
        """Refresh until cancelled."""
        try:
            while True:
                try:
                    await self.refresh()
                except DatabaseUnavailable as error:
                    log.warning("job types not refreshed", error=error.detail)
                await asyncio.sleep(self._refresh_seconds)
        finally:
            if self._refreshing is not None:
                self._refreshing.cancel()

    async def refresh(self) -> None:
        """Read the table now."""
        async with self._database.connection() as connection:
            types = await list_types(connection)
        by_event: dict[str, tuple[JobType, ...]] = {}
        for job_type in types:
            for event in job_type.spec.events:
                by_event[event] = (*by_event.get(event, ()), job_type)
        self._snapshot = _Snapshot({t.spec.type: t for t in types}, by_event, monotonic())

    async def find(self, type_: str) -> JobType | None:
        """The type; a miss is looked up in the table, at most every `miss_seconds`."""
        if (found := self._snapshot.by_type.get(type_)) is None:
            await self._refresh_after_miss()
            found = self._snapshot.by_type.get(type_)
        return found

    async def for_event(self, *names: str) -> tuple[JobType, ...]:
        """The types whose `events` hold any of the names, each once."""
        if not (found := self._matching(names)):
            await self._refresh_after_miss()
            found = self._matching(names)
        return found

    def known(self) -> list[str]:
        """The names of all types, sorted."""
        return sorted(self._snapshot.by_type)

    def all(self) -> list[JobType]:
        """Every type, by name."""
        return [self._snapshot.by_type[name] for name in self.known()]

    def _matching(self, names: Sequence[str]) -> tuple[JobType, ...]:
        by_event = self._snapshot.by_event
        if len(names) == 1:
            return by_event.get(names[0], ())
        matching = {t.spec.type: t for name in names for t in by_event.get(name, ())}
        return tuple(matching.values())

    async def _refresh_after_miss(self) -> None:
        if monotonic() - self._snapshot.read_at < self._miss_seconds:
            return
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self.refresh())
        try:
            await ended_within(self._refreshing, _MISS_WAIT_SECONDS)
        except TimeoutError:
            raise DatabaseUnavailable("the database does not answer in time") from None
