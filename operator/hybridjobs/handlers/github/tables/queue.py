"""The queue, as far as handlers reach it: jobs that are submitted as children of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection, errors
from psycopg.types.json import Jsonb

from hybridjobs.sdk import PermanentError

SUBMIT = """
SELECT hybridjobs.submit_job(
    type => job->>'type', payload => job->'payload', key => job->>'key',
    priority => (job->>'priority')::integer, parent_id => %(parent)s::uuid,
    unique_key => job->>'unique_key', repository_id => (job->>'repository_id')::uuid)
FROM jsonb_array_elements(%(jobs)s) WITH ORDINALITY AS given (job, place) ORDER BY place
"""


@dataclass(frozen=True, slots=True)
class ChildJob:
    """A job to submit; `repository_id`: of the repository that it is about.

    The same key is the same job, and so is the same unique key while that job is open.
    """

    type: str
    payload: Mapping[str, object]
    key: str
    repository_id: UUID
    priority: int | None = None
    unique_key: str | None = None

    def document(self) -> dict[str, object]:
        """For SUBMIT."""
        return {
            "type": self.type,
            "payload": self.payload,
            "key": self.key,
            "repository_id": str(self.repository_id),
            "priority": self.priority,
            "unique_key": self.unique_key,
        }


async def submit_jobs(
    connection: AsyncConnection[Any], parent: UUID, jobs: Sequence[ChildJob]
) -> list[UUID]:
    """Enqueue the jobs as children of `parent`, within the caller's transaction; their ids.

    PermanentError where the queue refuses: the type is unknown or not allowed, or the parent does
    not run any more.
    """
    try:
        cursor = await connection.execute(
            SUBMIT, {"jobs": Jsonb([job.document() for job in jobs]), "parent": parent}
        )
    except (errors.InvalidParameterValue, errors.InsufficientPrivilege) as error:
        hint = error.diag.message_hint
        raise PermanentError(
            f"cannot submit follow-up jobs: {error.diag.message_primary}"
            + (f" ({hint})" if hint else "")
        ) from None
    return [row[0] for row in await cursor.fetchall()]
