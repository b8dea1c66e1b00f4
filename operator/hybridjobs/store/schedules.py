"""What was decided for each tick of a schedule, and the jobs that came of it.

The ticks of one schedule are decided one transaction after the other, under a lock of its own, in
whichever process. The primary key of `schedule_ticks` is the guard: only who inserts a tick inserts
its job.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.model import Decision, NewJob
from hybridjobs.store.enqueue import insert_jobs
from hybridjobs.store.locks import PATIENCE

_NOW = "SELECT clock_timestamp() AS now"
_ACTIVE = """
SELECT asked.uid, count(job.id) AS active
FROM unnest(%(uids)s::text[], %(names)s::text[]) AS asked (uid, name)
LEFT JOIN hybridjobs.background_jobs job
     ON job.schedule = asked.name AND job.status IN ('queued', 'processing')
GROUP BY asked.uid
"""
_TICKS = """
SELECT schedule_uid, tick_at, decision, job_id
FROM hybridjobs.schedule_ticks WHERE schedule_uid = ANY(%(uids)s) ORDER BY tick_at DESC
"""
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('schedule ' || %s, 0))"
_MEMORY = """
SELECT clock_timestamp() AS now,
       (SELECT max(tick_at) FROM hybridjobs.schedule_ticks
        WHERE schedule_uid = %(uid)s) AS decided_until,
       ARRAY(SELECT id FROM hybridjobs.background_jobs
             WHERE schedule = %(name)s AND status IN ('queued', 'processing')
             ORDER BY id) AS open_jobs
"""
_INSERT = """
INSERT INTO hybridjobs.schedule_ticks (schedule_uid, tick_at, schedule, decision)
SELECT %(uid)s, tick_at, %(name)s, decision
FROM unnest(%(ticks)s::timestamptz[], %(decisions)s::text[]) AS decided (tick_at, decision)
ON CONFLICT DO NOTHING RETURNING tick_at
"""
_CANCEL = f"""
SELECT hybridjobs.cancel_job(id, 'Replaced')
FROM unnest(%s::uuid[]) AS replaced (id) CROSS JOIN {PATIENCE}
"""  # noqa: S608 - of constants
_LINK = """
WITH job AS (
    UPDATE hybridjobs.background_jobs SET schedule = %(name)s WHERE id = %(job_id)s
)
UPDATE hybridjobs.schedule_ticks SET job_id = %(job_id)s
WHERE schedule_uid = %(uid)s AND tick_at = %(tick_at)s
"""
_TRIM = """
DELETE FROM hybridjobs.schedule_ticks
WHERE schedule_uid = %(uid)s AND tick_at < (
    SELECT tick_at FROM hybridjobs.schedule_ticks
    WHERE schedule_uid = %(uid)s ORDER BY tick_at DESC OFFSET %(kept)s - 1 LIMIT 1)
"""
# For as long as a job's key is kept at the least.
_FORGET = """
DELETE FROM hybridjobs.schedule_ticks
WHERE schedule_uid <> ALL(%s) AND decided_at < now() - interval '7 days'
"""


@dataclass(frozen=True, slots=True)
class DecidedTick:
    """A row of `schedule_ticks`."""

    tick_at: datetime
    decision: Decision
    job_id: UUID | None


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """How many jobs of a schedule are open, and its decided ticks, the newest first."""

    active: int
    ticks: tuple[DecidedTick, ...]

    @property
    def decided_until(self) -> datetime | None:
        """The newest decided tick; None: no tick has been decided."""
        return self.ticks[0].tick_at if self.ticks else None


@dataclass(frozen=True, slots=True)
class ScheduleMemory:
    """What the next decision rests on; it holds until the end of the transaction."""

    now: datetime
    decided_until: datetime | None
    open_jobs: tuple[UUID, ...]


async def read_schedules(
    connection: AsyncConnection[DictRow], names: Mapping[str, str]
) -> tuple[datetime, dict[str, ScheduleState]]:
    """The database's clock, and the states of the schedules (uid → name) by uid."""
    parameters = {"uids": list(names), "names": list(names.values())}
    ticks = defaultdict(list)
    for row in await (await connection.execute(_TICKS, parameters)).fetchall():
        ticks[row["schedule_uid"]].append(_tick(row))
    active = await (await connection.execute(_ACTIVE, parameters)).fetchall()
    states = {row["uid"]: ScheduleState(row["active"], tuple(ticks[row["uid"]])) for row in active}
    [clock] = await (await connection.execute(_NOW)).fetchall()
    return clock["now"], states


async def lock_schedule(
    connection: AsyncConnection[DictRow], uid: str, name: str
) -> ScheduleMemory:
    """Wait until nobody else decides for the schedule, until the caller's transaction ends."""
    await connection.execute(_LOCK, [uid])
    [row] = await (await connection.execute(_MEMORY, {"uid": uid, "name": name})).fetchall()
    return ScheduleMemory(row["now"], row["decided_until"], tuple(row["open_jobs"]))


async def record_ticks(
    connection: AsyncConnection[DictRow],
    uid: str,
    name: str,
    decisions: Mapping[datetime, Decision],
    *,
    kept: int,
) -> frozenset[datetime]:
    """Insert and return the ticks that are new; the newest `kept`, at least 1, stay."""
    cursor = await connection.execute(
        _INSERT,
        {
            "uid": uid,
            "name": name,
            "ticks": list(decisions),
            "decisions": [decision.value for decision in decisions.values()],
        },
    )
    inserted = frozenset(row["tick_at"] for row in await cursor.fetchall())
    await connection.execute(_TRIM, {"uid": uid, "kept": max(kept, 1)})
    return inserted


async def submit_tick(
    connection: AsyncConnection[DictRow],
    uid: str,
    name: str,
    tick_at: datetime,
    job: NewJob,
    *,
    replaced: Sequence[UUID],
) -> UUID:
    """Insert the job of a tick that this transaction inserted; ask the `replaced` ones to end."""
    if replaced:
        await connection.execute(_CANCEL, [list(replaced)])
    [row] = await insert_jobs(connection, [job])
    await connection.execute(
        _LINK, {"uid": uid, "name": name, "tick_at": tick_at, "job_id": row.id}
    )
    return row.id


async def forget_schedules(connection: AsyncConnection[DictRow], kept: Sequence[str]) -> None:
    """Every schedule but those of the uids `kept` is gone: their old ticks go too."""
    await connection.execute(_FORGET, [list(kept)])


def _tick(row: DictRow) -> DecidedTick:
    return DecidedTick(row["tick_at"], Decision(row["decision"]), row["job_id"])
