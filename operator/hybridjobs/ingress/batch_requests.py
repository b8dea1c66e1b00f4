"""Thousands of jobs in one request, checked and turned into rows; pure, for it runs in a thread."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Self
from uuid import UUID

from hybridjobs import codec
from hybridjobs.callbacks.targets import Targets
from hybridjobs.errors import FieldError, InvalidInput, UnknownType
from hybridjobs.ingress import members as checks
from hybridjobs.ingress.members import Shape
from hybridjobs.ingress.submissions import (
    MEMBER,
    JobRequest,
    Submission,
    new_row,
    unknown_dependencies,
)
from hybridjobs.model import JobType, NewJob
from hybridjobs.payload import check_payload, pointer
from hybridjobs.payload_schemas import PayloadSchemas

MAX_JOBS = 10_000
MAX_BATCH_BYTES = 64 * 1024 * 1024
MAX_BATCH_DEPENDENCIES = 100_000

_MAX_FAULTS = 100
_JOBS: checks.Schema = {
    "jobs": {"type": "array", "minItems": 1, "maxItems": MAX_JOBS, "items": MEMBER.schema()}
}
BATCH = Shape("a batch", {"key": checks.text}, required=("jobs",), raw=_JOBS)


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """A batch as JSON asks for it: `{"key"?, "jobs": [...]}`."""

    key: str | None
    jobs: tuple[JobRequest, ...]

    @classmethod
    def parse(cls, members: Mapping[str, str], *, max_payload_bytes: int, targets: Targets) -> Self:
        """From the members' JSON texts; InvalidInput (422) names every fault, up to a hundred."""
        values = BATCH.read(members)
        jobs: list[JobRequest] = []
        faults = _Faults()
        for place, text in enumerate(_elements(values["jobs"])):
            with faults.of_job(place):
                asked = JobRequest.parse(
                    _members(text),
                    max_payload_bytes=max_payload_bytes,
                    targets=targets,
                    in_batch=True,
                )
                jobs.append(asked)
        faults.raise_any()
        if sum(len(asked.depends_on) for asked in jobs) > MAX_BATCH_DEPENDENCIES:
            raise _wrong([_fault(f"have more than {MAX_BATCH_DEPENDENCIES} dependencies")])
        return cls(values.get("key"), tuple(jobs))


@dataclass(frozen=True, slots=True)
class BatchRows:
    """The rows of a batch, each after those that it depends on; `places` are those asked for."""

    rows: tuple[NewJob, ...]
    places: Mapping[UUID, int]

    @property
    def strangers(self) -> frozenset[UUID]:
        """The jobs outside of the batch that members depend on."""
        return frozenset(
            awaited for row in self.rows for awaited in row.depends_on if awaited not in self.places
        )

    def refuse_unknown(self, unknown: frozenset[object]) -> None:
        """InvalidInput (422) names the dependencies that are among the unknown ids."""
        faults = _Faults()
        for row in self.rows if unknown else ():
            with faults.of_job(self.places[row.id]):
                if errors := unknown_dependencies(row.depends_on, unknown):
                    raise InvalidInput("", errors=errors)
        faults.raise_any()


def rows_of_batch(
    asked: BatchRequest,
    types: Mapping[str, JobType],
    schemas: PayloadSchemas,
    *,
    source: str,
    submitted_by: str,
    traceparent: str | None,
) -> BatchRows:
    """The rows; InvalidInput (422) names every fault, up to a hundred, and every job of a cycle."""
    rows: list[NewJob] = []
    faults = _Faults()
    for place, job in enumerate(asked.jobs):
        with faults.of_job(place):
            if job.type not in types:
                raise UnknownType(job.type, sorted(types))
            check_payload(job.payload)
            schemas.check(types[job.type], job.payload)
            submission = Submission(
                payload=job.payload,
                source=source,
                key=job.key,
                submitted_by=submitted_by,
                arrived=0.0,
                budget_seconds=None,
                traceparent=traceparent,
                options=job.options,
            )
            rows.append(new_row(types[job.type], submission, None))
    faults.raise_any()
    return _in_order(_linked(asked.jobs, rows))


def _linked(jobs: tuple[JobRequest, ...], rows: list[NewJob]) -> list[NewJob]:
    """The rows with the ids of what they depend on."""
    refs: dict[str, UUID] = {}
    faults = _Faults()
    for place, (job, row) in enumerate(zip(jobs, rows, strict=True)):
        with faults.of_job(place):
            if job.ref is not None and refs.setdefault(job.ref, row.id) != row.id:
                fault = FieldError(pointer("ref"), "is the ref of an earlier job too")
                raise InvalidInput("two jobs have one ref", errors=[fault])
    linked: list[NewJob] = []
    for place, (job, row) in enumerate(zip(jobs, rows, strict=True)):
        with faults.of_job(place):
            depends_on = job.resolved(refs).depends_on
            linked.append(row._replace(depends_on=depends_on) if depends_on else row)
    faults.raise_any()
    return linked


def _in_order(rows: list[NewJob]) -> BatchRows:
    places = {row.id: place for place, row in enumerate(rows)}
    sorter = TopologicalSorter(
        {row.id: [awaited for awaited in row.depends_on if awaited in places] for row in rows}
    )
    try:
        order = [rows[places[job_id]] for job_id in sorter.static_order()]
    except CycleError as error:
        cycle = [places[job_id] for job_id in error.args[1]]
        if len(cycle) == 2:
            raise _wrong([_fault("the job depends on itself", cycle[0], "dependsOn")]) from None
        circle = " → ".join(str(place) for place in reversed(cycle))
        message = f"the jobs wait for each other: {circle}"
        errors = [_fault(message, place, "dependsOn") for place in sorted(set(cycle))]
        raise _wrong(errors[:_MAX_FAULTS]) from None
    return BatchRows(tuple(order), places)


class _Faults:
    """Collects what is wrong with the jobs of a batch, and gives up when that is a lot."""

    def __init__(self) -> None:
        self._errors: list[FieldError] = []

    @contextmanager
    def of_job(self, place: int) -> Iterator[None]:
        """Inside, an InvalidInput is one of the job at that place."""
        try:
            yield
        except InvalidInput as error:
            found = error.errors or (FieldError("", error.detail),)
            self._errors += [
                FieldError(pointer("jobs", place) + each.path, each.message) for each in found
            ]
            if len(self._errors) >= _MAX_FAULTS:
                self.raise_any()

    def raise_any(self) -> None:
        """InvalidInput if there are any."""
        if self._errors:
            raise _wrong(self._errors[:_MAX_FAULTS])


def _elements(text: str) -> list[str]:
    try:
        found = codec.elements(text)
    except ValueError:
        found = []
    if not 1 <= len(found) <= MAX_JOBS:
        raise _wrong([_fault(f"must be an array of 1 to {MAX_JOBS} jobs")])
    return found


def _members(text: str) -> dict[str, str]:
    try:
        return codec.members(text, once=True)
    except ValueError:
        raise InvalidInput("must be an object") from None


def _fault(message: str, *path: str | int) -> FieldError:
    return FieldError(pointer("jobs", *path), message)


def _wrong(errors: list[FieldError]) -> InvalidInput:
    return InvalidInput("nothing was submitted: jobs of the batch are wrong", errors=errors)
