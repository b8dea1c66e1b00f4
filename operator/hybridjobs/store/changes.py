"""What has changed since: the jobs as their followers see them.

Each row names the transaction that changed it last (`changed_in`), and a follower keeps the
snapshot that it read by. A change is new when that snapshot did not show its transaction: it began
later (from `xmax` on), or was at work then. This neither misses what commits late, as a time or a
sequence would, nor waits for the oldest transaction. A job that changed several times comes once,
as it is now; deleted ones do not come.

A server that crashes, or a standby that takes over, gives the numbers of transactions that it does
not know of a second time: a snapshot from before counts for nothing then. Its `era` tells, which
is when the server's statistics began: a recovery does away with them, a clean restart keeps them.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any, Self
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.model import Status
from hybridjobs.store.jobs import LINE_COLUMNS, JobLine

MAX_IN_FLIGHT = 10_000

_COLUMNS = f"{LINE_COLUMNS}, batch_id, changed_in::text AS changed_in"
_ERA = "(SELECT extract(epoch FROM stats_reset) * 1000000 FROM pg_stat_wal)::bigint"
_SNAPSHOT = f"SELECT {_ERA} || ':' || pg_current_snapshot() AS snapshot"
# Of a dump from another server, rows may name transactions that lie ahead here: no snapshot shows
# those. The statement and pg_current_snapshot() see the same.
_CHANGES = f"""
SELECT {_ERA} || ':' || upto.snapshot AS snapshot, job.*
FROM (SELECT coalesce(%(upto)s::pg_snapshot, pg_current_snapshot()) AS snapshot) AS upto
LEFT JOIN LATERAL (
    (SELECT {_COLUMNS} FROM hybridjobs.background_jobs
     WHERE changed_in >= %(xmax)s::xid8 AND changed_in < pg_snapshot_xmax(upto.snapshot)
       AND pg_visible_in_snapshot(changed_in, upto.snapshot)
     ORDER BY background_jobs.changed_in LIMIT %(limit)s)
    UNION ALL
    (SELECT {_COLUMNS} FROM hybridjobs.background_jobs
     WHERE changed_in = ANY(%(in_flight)s::xid8[])
       AND pg_visible_in_snapshot(changed_in, upto.snapshot)
     LIMIT %(limit)s)
) job ON true
"""  # noqa: S608 - of constants
_STATES = f"""
SELECT {_COLUMNS},
       CASE WHEN status = 'processing' THEN
           (SELECT beat.progress FROM hybridjobs.job_heartbeats beat
            WHERE beat.job_id = job.id AND beat.attempt = job.attempt)
       ELSE progress END AS progress
FROM hybridjobs.background_jobs job WHERE id = ANY(%s)
"""  # noqa: S608 - of constants
_NUMBER = "[0-9]{1,19}"
_TEXT = re.compile(rf"({_NUMBER}):({_NUMBER}):({_NUMBER}):((?:{_NUMBER}(?:,{_NUMBER})*)?)")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What could be seen at a moment: transactions below `xmax`, but for those in flight."""

    era: int
    xmin: int
    xmax: int
    in_flight: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """From its text, which clients keep and return; ValueError where it is none."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError("is no snapshot")
        in_flight = tuple(int(each) for each in match[4].split(",") if each)
        found = cls(int(match[1]), int(match[2]), int(match[3]), in_flight)
        ordered = list(found.in_flight) == sorted(set(found.in_flight))
        bounds = 1 <= found.xmin <= found.xmax < 2**63
        inside = all(found.xmin <= each < found.xmax for each in found.in_flight)
        if not (ordered and bounds and inside and len(in_flight) <= MAX_IN_FLIGHT):
            raise ValueError("is no snapshot")
        return found

    def __str__(self) -> str:
        return f"{self.era}:{self.visible}"

    @property
    def visible(self) -> str:
        """As Postgres writes it."""
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, self.in_flight))}"


@dataclass(frozen=True, slots=True)
class JobChange(JobLine):
    """A job as it is after its last change; `changed_in` is another one after each."""

    batch_id: UUID | None
    changed_in: str


@dataclass(frozen=True, slots=True)
class JobState(JobChange):
    """A job that is followed alone, with its progress."""

    progress: dict[str, Any] | None

    @property
    def finished(self) -> bool:
        """Whether the job is over."""
        return self.status.is_terminal


@dataclass(frozen=True, slots=True)
class Changes:
    """The jobs that changed until `snapshot`.

    `complete` False: there were more than asked for, or the last snapshot is of another era.
    """

    jobs: list[JobChange]
    snapshot: Snapshot
    complete: bool = True


_FIELDS = [field.name for field in fields(JobChange)]


async def current_snapshot(connection: AsyncConnection[DictRow]) -> Snapshot:
    """What can be seen now."""
    [row] = await (await connection.execute(_SNAPSHOT)).fetchall()
    return Snapshot.parse(row["snapshot"])


async def changes_since(
    connection: AsyncConnection[DictRow],
    last: Snapshot,
    *,
    upto: Snapshot | None = None,
    limit: int,
) -> Changes:
    """What `last` did not show and `upto` (default: now) does, in order of its transactions.

    At most `limit` jobs. Runs outside of a transaction, or in one that reads committed.
    """
    cursor = await connection.execute(
        _CHANGES,
        {
            "upto": None if upto is None else upto.visible,
            "xmax": str(last.xmax),
            "in_flight": [str(each) for each in last.in_flight],
            "limit": limit + 1,
        },
    )
    rows = await cursor.fetchall()
    snapshot = upto or Snapshot.parse(rows[0]["snapshot"])
    found = [row for row in rows if row["id"] is not None]
    complete = len(found) <= limit and snapshot.era == last.era
    found.sort(key=lambda row: (int(row["changed_in"]), row["id"]))
    return Changes([_change(row) for row in found[:limit]] if complete else [], snapshot, complete)


async def job_states(
    connection: AsyncConnection[DictRow], ids: Collection[UUID]
) -> dict[UUID, JobState]:
    """Those of these jobs that are there, as they are now."""
    cursor = await connection.execute(_STATES, [list(ids)])
    return {
        row["id"]: JobState(**{**row, "status": Status(row["status"])})
        for row in await cursor.fetchall()
    }


def _change(row: DictRow) -> JobChange:
    values = {name: row[name] for name in _FIELDS}
    values["status"] = Status(values["status"])
    return JobChange(**values)
