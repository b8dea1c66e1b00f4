"""What the client takes and gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from hybridjobs.errors import FieldError, InvalidInput
from hybridjobs.model import Callback, OnDependencyFailure, Status, UniqueWhile


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchJob:
    """A job to submit. `payload` is any JSON value; what is None is the type's to say.

    `callback` is told when the job has ended: a URL, or a Callback that names the ends. `ref` names
    the job within its batch, where `depends_on` may hold refs beside ids.
    """

    type: str
    payload: object
    key: str | None = None
    priority: int | None = None
    deadline_seconds: int | None = None
    max_retries: int | None = None
    run_at: datetime | None = None
    unique_key: str | None = None
    unique_while: UniqueWhile = "open"
    depends_on: Sequence[UUID | str] = ()
    on_dependency_failure: OnDependencyFailure = "cancel"
    callback: Callback | str | None = None
    ref: str | None = None

    def __post_init__(self) -> None:
        """A time without a zone is nobody's."""
        if self.run_at is not None and self.run_at.tzinfo is None:
            message = "must have a time zone"
            raise InvalidInput(f"run_at {message}", errors=[FieldError("/runAt", message)])

    def document(self) -> dict[str, object]:
        """The job as the API takes it."""
        members: dict[str, object] = {
            "key": self.key,
            "priority": self.priority,
            "deadlineSeconds": self.deadline_seconds,
            "maxRetries": self.max_retries,
            "runAt": None if self.run_at is None else self.run_at.isoformat(),
            "uniqueKey": self.unique_key,
            "uniqueWhile": self.unique_while if self.unique_key is not None else None,
            "dependsOn": [str(awaited) for awaited in self.depends_on] or None,
            "onDependencyFailure": self.on_dependency_failure if self.depends_on else None,
            "callback": self.callback_document(),
            "ref": self.ref,
        }
        given = {name: value for name, value in members.items() if value is not None}
        return {"type": self.type, "payload": self.payload, **given}

    def callback_document(self) -> dict[str, object] | None:
        """Whom to tell of the job's end, as the API takes it."""
        match self.callback:
            case None:
                return None
            case str(url):
                return {"url": url}
            case Callback(url=url, events=events):
                return {"url": url, "on": events}


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands. `document` has all that the API tells of it."""

    id: UUID
    type: str
    status: Status
    attempt: int
    result: Any
    error: str | None
    document: Mapping[str, Any]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Of the API's answer."""
        return cls(
            id=UUID(document["id"]),
            type=document["type"],
            status=Status(document["status"]),
            attempt=document["attempt"],
            result=document["result"],
            error=document["error"],
            document=document,
        )


@dataclass(frozen=True, slots=True)
class TreeJob:
    """A job within a tree; `parent_id` is None, and `depth` 0, of that which was asked for.

    `counts` are those of all that descends from it. `document` has all that the API tells of it.
    """

    id: UUID
    parent_id: UUID | None
    depth: int
    type: str
    status: Status
    counts: Mapping[Status, int]
    document: Mapping[str, Any]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Of the API's answer."""
        return cls(
            id=UUID(document["id"]),
            parent_id=UUID(document["parentId"]) if document["depth"] else None,
            depth=document["depth"],
            type=document["type"],
            status=Status(document["status"]),
            counts=counts_of(document),
            document=document,
        )


@dataclass(frozen=True, slots=True)
class JobTree:
    """A job and its descendants, level by level; `counts` of all of these.

    Not `complete`: there are more of them than the service counts.
    """

    jobs: Sequence[TreeJob]
    counts: Mapping[Status, int]
    complete: bool


@dataclass(frozen=True, slots=True)
class JobEvent:
    """A job as it was after a change. `document` has all that the event tells of it.

    `position` is where to go on after it, as `after`; it does not grow with each event.
    """

    id: UUID
    type: str
    status: Status
    attempt: int
    document: Mapping[str, Any]
    position: str

    @classmethod
    def of(cls, document: Mapping[str, Any], position: str) -> Self:
        """Of an event's data."""
        return cls(
            id=UUID(document["id"]),
            type=document["type"],
            status=Status(document["status"]),
            attempt=document["attempt"],
            document=document,
            position=position,
        )


@dataclass(frozen=True, slots=True)
class Missed:
    """Changes are left out here: they were too many. Whoever needs all reads the jobs anew."""

    position: str


def counts_of(document: Mapping[str, Any]) -> dict[Status, int]:
    """How many jobs of a batch or tree are in each status."""
    return {Status(status): jobs for status, jobs in document["counts"].items()}
