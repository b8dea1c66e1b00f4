"""What callers ask for, checked and turned into rows: the API's jobs and those of running jobs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

from hybridjobs import codec
from hybridjobs.errors import FieldError, InvalidInput, PayloadTooLarge, UnknownType
from hybridjobs.ids import new_id
from hybridjobs.ingress import metrics
from hybridjobs.ingress.payloads import PayloadSchemas
from hybridjobs.model import MAX_DEADLINE_SECONDS, JobType, NewJob
from hybridjobs.payload import check_payload, pointer
from hybridjobs.store.enqueue import Enqueuer
from hybridjobs.store.types import TypeCatalog

MAX_KEY_LENGTH = 255
_LEASE_MARGIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Submission:
    """What a caller asks for. `payload` is JSON text; `arrived` the loop's time of the request.

    `budget_seconds` bounds what quick types may take of it; None: they do not run inline. Fields
    left None are the type's to say.
    """

    payload: str
    source: str
    key: str | None
    submitted_by: str | None
    arrived: float
    budget_seconds: float | None
    traceparent: str | None = None
    priority: int | None = None
    deadline_seconds: int | None = None
    parent_id: UUID | None = None


def new_row(job_type: JobType, submission: Submission, budget_seconds: float | None) -> NewJob:
    """The row of a submission; with a budget it is begun here, under a lease somewhat longer."""
    spec = job_type.spec
    return NewJob(
        id=new_id(),
        type=spec.type,
        payload=submission.payload,
        source=submission.source,
        key=submission.key,
        priority=spec.priority if submission.priority is None else submission.priority,
        max_retries=spec.retry.limit,
        deadline_seconds=submission.deadline_seconds or spec.deadline_seconds,
        type_generation=job_type.generation,
        lease_seconds=None if budget_seconds is None else budget_seconds + _LEASE_MARGIN_SECONDS,
        parent_id=submission.parent_id,
        submitted_by=submission.submitted_by,
        traceparent=submission.traceparent,
    )


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job as JSON asks for it: `{"type", "payload", "key"?, "priority"?, "deadlineSeconds"?}`.

    `payload` is the text as it was written.
    """

    type: str
    payload: str
    key: str | None = None
    priority: int | None = None
    deadline_seconds: int | None = None

    @classmethod
    def parse(cls, members: dict[str, str], *, max_payload_bytes: int) -> Self:
        """From the members' JSON texts; InvalidInput (422) names every fault by its path."""
        errors = [
            FieldError(pointer(name), "unknown member") for name in members if name not in _CHECKS
        ]
        errors += [
            FieldError(pointer(name), "is required")
            for name in ("type", "payload")
            if name not in members
        ]
        values: dict[str, Any] = {}
        for name, (check, expected) in _CHECKS.items():
            text = members.get(name)
            if name == "payload" or text is None:
                continue
            value = codec.loads(text)
            if check(value):
                values[name] = value
            else:
                errors.append(FieldError(pointer(name), f"must be {expected}"))
        if errors:
            raise InvalidInput("the request does not have the shape of a job", errors=errors)
        payload = members["payload"]
        if len(payload.encode("utf-8", "replace")) > max_payload_bytes:
            raise PayloadTooLarge(f"the payload is over the limit of {max_payload_bytes} bytes")
        return cls(
            type=values["type"],
            payload=payload,
            key=values.get("key"),
            priority=values.get("priority"),
            deadline_seconds=values.get("deadlineSeconds"),
        )


class ChildJobs:
    """Jobs that running jobs submit. They wait for the dispatcher, whatever their type's mode."""

    def __init__(
        self,
        catalog: TypeCatalog,
        enqueuer: Enqueuer,
        schemas: PayloadSchemas,
        *,
        max_payload_bytes: int,
        wake: Callable[[], None],
    ) -> None:
        self._catalog = catalog
        self._enqueuer = enqueuer
        self._schemas = schemas
        self._max_payload_bytes = max_payload_bytes
        self._wake = wake

    async def submit(self, parent_id: UUID, members: dict[str, str]) -> UUID:
        """The new job's id; the same key of the same parent gives the same job."""
        asked = JobRequest.parse(members, max_payload_bytes=self._max_payload_bytes)
        job_type = await known_type(self._catalog, asked.type)
        check_payload(asked.payload)
        self._schemas.check(job_type, asked.payload)
        submission = Submission(
            payload=asked.payload,
            source=f"worker:{parent_id}",
            key=asked.key,
            submitted_by=f"job:{parent_id}",
            arrived=0.0,
            budget_seconds=None,
            priority=asked.priority,
            deadline_seconds=asked.deadline_seconds,
            parent_id=parent_id,
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


def _is_key(value: object) -> bool:
    return value is None or (
        isinstance(value, str) and 0 < len(value) <= MAX_KEY_LENGTH and value.isprintable()
    )


def _is_integer(value: object, least: int, most: int) -> bool:
    if value is None:
        return True
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


_CHECKS: dict[str, tuple[Callable[[object], bool], str]] = {
    "type": (lambda value: isinstance(value, str), "a string"),
    "payload": (lambda _: True, "JSON"),
    "key": (_is_key, f"a string of 1 to {MAX_KEY_LENGTH} printable characters"),
    "priority": (lambda value: _is_integer(value, -100, 100), "an integer from -100 to 100"),
    "deadlineSeconds": (
        lambda value: _is_integer(value, 1, MAX_DEADLINE_SECONDS),
        f"an integer from 1 to {MAX_DEADLINE_SECONDS}",
    ),
}
