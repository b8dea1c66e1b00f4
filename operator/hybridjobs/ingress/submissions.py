"""What callers ask for, checked and turned into rows: the API's jobs and those of running jobs."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple, Self
from uuid import UUID

from hybridjobs.callbacks.targets import Targets
from hybridjobs.errors import FieldError, InvalidInput, PayloadTooLarge, UnknownType
from hybridjobs.ids import new_id
from hybridjobs.ingress import members as checks
from hybridjobs.ingress import metrics
from hybridjobs.ingress.members import Fault, Shape, identifier
from hybridjobs.mapping import mapped
from hybridjobs.model import (
    MAX_DEADLINE_SECONDS,
    MAX_RETRIES,
    Callback,
    JobType,
    NewJob,
    OnDependencyFailure,
    UniqueWhile,
)
from hybridjobs.payload import check_payload, pointer
from hybridjobs.payload_schemas import PayloadSchemas
from hybridjobs.store.database import Database
from hybridjobs.store.enqueue import Enqueuer, unknown_jobs
from hybridjobs.store.types import TypeCatalog

MAX_DEPENDENCIES = 10_000

LEASE_MARGIN_SECONDS = 5.0
_CHECKS: dict[str, checks.Check] = {
    "type": checks.text,
    "key": checks.text,
    "priority": checks.integer(-100, 100),
    "deadlineSeconds": checks.integer(1, MAX_DEADLINE_SECONDS),
    "maxRetries": checks.integer(0, MAX_RETRIES),
    "runAt": checks.moment,
    "uniqueKey": checks.text,
    "uniqueWhile": checks.one_of(("queued", "open")),
    "dependsOn": checks.texts(MAX_DEPENDENCIES),
    "onDependencyFailure": checks.one_of(("cancel", "run")),
    "callback": checks.callback,
}
_PAYLOAD: dict[str, checks.Schema] = {"payload": {"description": "Any JSON that the type takes."}}
JOB = Shape("a job", _CHECKS, required=("type", "payload"), raw=_PAYLOAD)
MEMBER = Shape("a job", {**_CHECKS, "ref": checks.text}, required=("type", "payload"), raw=_PAYLOAD)


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What a caller may say of a job beside its payload; None leaves it to the type."""

    priority: int | None = None
    deadline_seconds: int | None = None
    max_retries: int | None = None
    run_at: datetime | None = None
    unique_key: str | None = None
    unique_while: UniqueWhile = "open"
    depends_on: tuple[UUID, ...] = ()
    on_dependency_failure: OnDependencyFailure = "cancel"
    callback: Callback | None = None  # beside the type's

    @property
    def waits(self) -> bool:
        """Whether the job must not begin with its row."""
        return self.run_at is not None or self.depends_on != ()


_NO_OPTIONS = JobOptions()


class Submission(NamedTuple):
    """What a caller asks for. `payload` is JSON text; `arrived` the loop's time of the request.

    `budget_seconds` bounds what quick types may take of it; None: they do not run inline.
    `wait_seconds` is how long the caller waits for them, from the arrival; None: their budget.
    An event goes through the mapping of each type that wants it.
    `retries_failed`: a job that an earlier one made, and that has failed, runs once more.
    `request_digest` is kept with the row, for later requests with the same key.
    """

    payload: str
    source: str
    key: str | None
    submitted_by: str | None
    arrived: float
    budget_seconds: float | None
    traceparent: str | None = None
    inngest_event_id: str | None = None
    inngest_run_id: str | None = None
    parent_id: UUID | None = None
    options: JobOptions = _NO_OPTIONS
    wait_seconds: float | None = None
    request_digest: bytes | None = None
    is_event: bool = False
    retries_failed: bool = False

    def for_type(self, job_type: JobType) -> Self:
        """As a job of the type gets it; InvalidInput (400) for an event that is not JSON."""
        mapping = job_type.spec.mapping
        if mapping is None or not self.is_event:
            return self
        try:
            return self._replace(payload=mapped(self.payload, mapping))
        except ValueError as error:
            raise InvalidInput(f"the payload is not JSON: {error}", status=400) from None


def new_row(job_type: JobType, submission: Submission, budget_seconds: float | None) -> NewJob:
    """The row of a submission; with a budget it begins here, under a lease somewhat longer.

    A row of a limited type begins in line all the same: only a claim can tell if there is room.
    """
    spec, options = job_type.spec, submission.options
    return NewJob(
        id=new_id(),
        type=spec.type,
        payload=submission.payload,
        source=submission.source,
        key=submission.key,
        priority=spec.priority if options.priority is None else options.priority,
        max_retries=spec.retry.limit if options.max_retries is None else options.max_retries,
        deadline_seconds=options.deadline_seconds or spec.deadline_seconds,
        type_generation=job_type.generation,
        lease_seconds=(
            None
            if budget_seconds is None or spec.is_limited
            else budget_seconds + LEASE_MARGIN_SECONDS
        ),
        parent_id=submission.parent_id,
        submitted_by=submission.submitted_by,
        traceparent=submission.traceparent,
        inngest_event_id=submission.inngest_event_id,
        inngest_run_id=submission.inngest_run_id,
        run_at=options.run_at,
        key_path=spec.key_path,
        unique_key=options.unique_key,
        unique_while=options.unique_while,
        depends_on=options.depends_on,
        on_dependency_failure=options.on_dependency_failure,
        callbacks=spec.callbacks(options.callback),
        request_digest=submission.request_digest,
    )


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job as JSON asks for it, by the members that docs/reference/http.md lists.

    `payload` is the text as it was written. `depends_on` are ids or, in a batch, the `ref` of
    another member; `options` does not have them yet.
    """

    type: str
    payload: str
    key: str | None = None
    ref: str | None = None
    depends_on: tuple[str, ...] = ()
    options: JobOptions = field(default_factory=JobOptions)

    @classmethod
    def parse(
        cls,
        members: Mapping[str, str],
        *,
        max_payload_bytes: int,
        targets: Targets,
        in_batch: bool = False,
    ) -> Self:
        """From the members' JSON texts; InvalidInput (422, 413) names every fault by its path."""
        values = (MEMBER if in_batch else JOB).read(members)
        payload: str = values["payload"]
        if len(payload.encode("utf-8", "replace")) > max_payload_bytes:
            message = f"is over the limit of {max_payload_bytes} bytes"
            raise PayloadTooLarge(
                f"the payload {message}", errors=[FieldError(pointer("payload"), message)]
            )
        callback: Callback | None = values.get("callback")
        if callback is not None and (fault := targets.fault_in(callback.url)):
            raise InvalidInput(
                f"the callback's URL {fault}",
                errors=[FieldError(pointer("callback", "url"), fault)],
            )
        return cls(
            type=values["type"],
            payload=payload,
            key=values.get("key"),
            ref=values.get("ref"),
            depends_on=values.get("dependsOn", ()),
            options=JobOptions(
                priority=values.get("priority"),
                deadline_seconds=values.get("deadlineSeconds"),
                max_retries=values.get("maxRetries"),
                run_at=values.get("runAt"),
                unique_key=values.get("uniqueKey"),
                unique_while=values.get("uniqueWhile", "open"),
                on_dependency_failure=values.get("onDependencyFailure", "cancel"),
                callback=callback,
            ),
        )

    def resolved(self, refs: Mapping[str, UUID] | None = None) -> JobOptions:
        """The options with the ids of the jobs to wait for; InvalidInput (422) for no id."""
        if not self.depends_on:
            return self.options
        awaited: list[UUID] = []
        errors: list[FieldError] = []
        for place, name in enumerate(self.depends_on):
            try:
                awaited.append((refs or {}).get(name) or identifier(name))
            except Fault:
                message = "must be a UUID" if refs is None else "is no UUID and no ref of the batch"
                errors.append(FieldError(pointer("dependsOn", place), message))
        if errors:
            raise InvalidInput("the job depends on what is no job", errors=errors)
        return replace(self.options, depends_on=tuple(awaited))


class ChildJobs:
    """Jobs that running jobs submit. They wait for the dispatcher, whatever their type's mode."""

    def __init__(
        self,
        catalog: TypeCatalog,
        enqueuer: Enqueuer,
        schemas: PayloadSchemas,
        database: Database,
        *,
        max_payload_bytes: int,
        targets: Targets,
        wake: Callable[[], None],
    ) -> None:
        self._targets = targets
        self._catalog = catalog
        self._enqueuer = enqueuer
        self._schemas = schemas
        self._database = database
        self._max_payload_bytes = max_payload_bytes
        self._wake = wake

    async def submit(
        self, parent_id: UUID, members: dict[str, str], *, traceparent: str | None
    ) -> UUID:
        """The new job's id; the same key of the same parent gives the same job."""
        asked = JobRequest.parse(
            members, max_payload_bytes=self._max_payload_bytes, targets=self._targets
        )
        job_type = await known_type(self._catalog, asked.type)
        check_payload(asked.payload)
        self._schemas.check(job_type, asked.payload)
        options = asked.resolved()
        await check_dependencies(self._database, options.depends_on)
        submission = Submission(
            payload=asked.payload,
            source=f"worker:{parent_id}",
            key=asked.key,
            submitted_by=f"job:{parent_id}",
            arrived=0.0,
            budget_seconds=None,
            traceparent=traceparent,
            parent_id=parent_id,
            options=options,
        )
        [row] = rows = await self._enqueuer.enqueue([new_row(job_type, submission, None)])
        metrics.count_enqueued(rows, "worker")
        self._wake()
        return row.id


async def known_type(catalog: TypeCatalog, type_: str) -> JobType:
    """The type of that name, or UnknownType."""
    job_type = await catalog.find(type_)
    if job_type is None:
        raise UnknownType(type_, catalog.known())
    return job_type


async def check_dependencies(database: Database, depends_on: Sequence[UUID]) -> None:
    """InvalidInput (422) names those of a job's dependencies that are no jobs."""
    if not depends_on:
        return
    async with database.connection() as connection:
        unknown = await unknown_jobs(connection, depends_on)
    if errors := unknown_dependencies(depends_on, unknown):
        raise InvalidInput("the job depends on what is no job", errors=errors)


def unknown_dependencies(
    depends_on: Sequence[UUID], unknown: Collection[object]
) -> list[FieldError]:
    """A fault for each of a job's dependencies that is among the unknown ids."""
    return [
        FieldError(pointer("dependsOn", place), "there is no such job")
        for place, awaited in enumerate(depends_on)
        if awaited in unknown
    ]
