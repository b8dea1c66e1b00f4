"""Signs of life of running attempts, with or without progress: many to a commit.

They go to a narrow table of their own, where an update touches no index.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs import codec
from hybridjobs.errors import AttemptClosed
from hybridjobs.model import Progress
from hybridjobs.store.group_commit import GroupCommit
from hybridjobs.store.locks import PATIENCE

# In the order of the jobs, so that two batches never wait for each other in a circle.
_BEAT = f"""
INSERT INTO hybridjobs.job_heartbeats (job_id, attempt, progress)
SELECT attempt.job_id, attempt.attempt, beat.progress::jsonb
FROM unnest(%(job_id)b::uuid[], %(attempt)b::int4[], %(progress)b::text[])
     AS beat (job_id, attempt, progress)
JOIN hybridjobs.job_attempts attempt
     ON attempt.job_id = beat.job_id AND attempt.attempt = beat.attempt
    AND attempt.ended_at IS NULL
CROSS JOIN {PATIENCE}
ORDER BY attempt.job_id
ON CONFLICT (job_id) DO UPDATE
SET attempt = excluded.attempt, beat_at = clock_timestamp(),
    progress = coalesce(excluded.progress,
                        CASE WHEN job_heartbeats.attempt = excluded.attempt
                             THEN job_heartbeats.progress END)
WHERE job_heartbeats.attempt <= excluded.attempt
RETURNING job_id, attempt,
          (SELECT cancel_requested_at IS NOT NULL FROM hybridjobs.background_jobs job
           WHERE job.id = job_id) AS cancel_requested
"""  # noqa: S608 - of constants


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life of an attempt; `progress` None: no news of it."""

    job_id: UUID
    attempt: int
    progress: Progress | None = None


class Heartbeats:
    """Takes beats from many attempts at once; `run()` must be running."""

    def __init__(self, url: str) -> None:
        self._commits: GroupCommit[Beat, bool | None] = GroupCommit(url, record_beats)

    async def beat(self, job_id: UUID, attempt: int, progress: Progress | None = None) -> bool:
        """Note it; returns whether a cancel is asked for. AttemptClosed: it has ended."""
        cancel_requested = await self._commits.submit(Beat(job_id, attempt, progress))
        if cancel_requested is None:
            raise AttemptClosed(job_id, attempt)
        return cancel_requested

    async def run(self) -> None:
        """Commit until cancelled."""
        await self._commits.run()


async def record_beats(
    connection: AsyncConnection[DictRow], beats: Sequence[Beat]
) -> list[bool | None]:
    """Whether each attempt's job is asked to end; None where the attempt is closed."""
    last: dict[UUID, Beat] = {}
    for beat in beats:
        known = last.get(beat.job_id)
        if known is None or _weight(beat) >= _weight(known):
            last[beat.job_id] = beat
    cursor = await connection.execute(
        _BEAT,
        {
            "job_id": list(last),
            "attempt": [beat.attempt for beat in last.values()],
            "progress": [_text(beat.progress) for beat in last.values()],
        },
    )
    open_ = {
        (row["job_id"], row["attempt"]): row["cancel_requested"] for row in await cursor.fetchall()
    }
    return [open_.get((beat.job_id, beat.attempt)) for beat in beats]


def _weight(beat: Beat) -> tuple[int, bool]:
    """Of two for one job, the later attempt's counts, then one that tells of progress."""
    return beat.attempt, beat.progress is not None


def _text(progress: Progress | None) -> str | None:
    if progress is None:
        return None
    return codec.dumps(
        {"done": progress.done, "total": progress.total, "message": progress.message}
    )
