"""HybridJobs of which the database does not know enough.

Those that people made by hand get a row, which makes them jobs like all others. And a row that was
restored from a backup is brought up to the attempt that its HybridJob says.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from hybridjobs import codec
from hybridjobs.controller.cache import Object
from hybridjobs.errors import BrokenPayloadSchema, InvalidInput
from hybridjobs.kube import names
from hybridjobs.kube.identity import is_dispatched, job_id
from hybridjobs.model import JobType, NewJob
from hybridjobs.payload import check_payload
from hybridjobs.payload_schemas import PayloadSchemas
from hybridjobs.store.database import Database
from hybridjobs.store.resources import adopt_job
from hybridjobs.store.restored import count_up
from hybridjobs.tracing import TRACEPARENT

log = structlog.get_logger(__name__)

_TYPE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no row: a condition's reason and message. Worth another look after a while?"""

    reason: str
    message: str
    again_after_seconds: float | None = None


async def adopt(
    database: Database,
    types: Mapping[str, JobType],
    schemas: PayloadSchemas,
    hybridjob: Object,
) -> Refusal | None:
    """Make the row of a HybridJob that has none; None: it is there now."""
    spec, metadata = hybridjob["spec"], hybridjob["metadata"]
    if is_dispatched(hybridjob):
        return Refusal("UnknownJob", f"there is no job {spec['jobId']} in the database")
    job_type = types.get(spec["type"])
    if job_type is None:
        known = ", ".join(sorted(types)) or "none"
        message = f"there is no HybridJobType for {spec['type']!r}; known types: {known}"
        return Refusal("UnknownType", message, again_after_seconds=_TYPE_SECONDS)
    try:
        job = _row(hybridjob, job_type)
        schemas.check(job_type, job.payload)
        async with database.transaction() as connection:
            await adopt_job(
                connection,
                job,
                namespace=metadata["namespace"],
                name=metadata["name"],
                uid=metadata["uid"],
            )
    except InvalidInput as error:
        return Refusal("InvalidPayload", error.in_full())
    except BrokenPayloadSchema as error:
        return Refusal("BrokenType", str(error), again_after_seconds=_TYPE_SECONDS)
    return None


async def catch_up(database: Database, hybridjob: Object) -> None:
    """Have the row's open attempt be the later one that the HybridJob says."""
    metadata, attempt = hybridjob["metadata"], hybridjob["spec"]["attempt"]
    async with database.transaction() as connection:
        await count_up(
            connection,
            job_id(hybridjob),
            attempt,
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
        )
    log.warning("the cluster has a later attempt than the database", later=attempt)


def _row(hybridjob: Object, job_type: JobType) -> NewJob:
    spec, defaults = hybridjob["spec"], job_type.spec
    payload = codec.dumps(spec.get("payload", {}))
    check_payload(payload)
    return NewJob(
        id=job_id(hybridjob),
        type=defaults.type,
        payload=payload,
        source="kubernetes",
        key=hybridjob["metadata"]["uid"],
        priority=spec.get("priority", defaults.priority),
        max_retries=defaults.retry.limit,
        deadline_seconds=spec.get("deadlineSeconds") or defaults.deadline_seconds,
        submitted_by="kubernetes",
        traceparent=_traceparent(hybridjob),
        key_path=defaults.key_path,
        callbacks=defaults.callbacks(),
    )


def _traceparent(hybridjob: Object) -> str | None:
    """The trace that whoever made it wants to see it in."""
    said = (hybridjob["metadata"].get("annotations") or {}).get(names.TRACEPARENT, "")
    return said if TRACEPARENT.fullmatch(said.encode()) else None
