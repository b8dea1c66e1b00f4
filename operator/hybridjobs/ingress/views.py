"""What answers show, as JSON: members in camelCase, payload and result as Postgres holds them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any
from uuid import UUID

import orjson
from pydantic.alias_generators import to_camel

from hybridjobs import codec
from hybridjobs.model import JobType
from hybridjobs.store.batches import Batch
from hybridjobs.store.callbacks import Delivery, DeliverySummary
from hybridjobs.store.changes import JobChange
from hybridjobs.store.dead_letters import DeadLetter, DeadLetterSummary
from hybridjobs.store.jobs import Job, JobSummary
from hybridjobs.store.queue import Pause, ScheduleLine, TypeLine
from hybridjobs.store.tree import Tree

# Written as they are: to parse and print them would change numbers.
TEXTS = frozenset(("payload", "result", "body"))
SOMETIMES = frozenset(("log_tail",))
HIDDEN = frozenset(("changed_in",))
_NO_LINE = TypeLine("", None, None, 0, 0)


def job(found: Job, *, logs: bool) -> bytes:
    """One job with its attempts; their log tails only on demand."""
    return _json(found, without=() if logs else ("log_tail",)).encode()


def change(found: JobChange) -> str:
    """A job as its followers see it; thousands a second, so by orjson."""
    kind: Any = type(found)
    members = {camel: getattr(found, name) for name, camel in _names(kind)}
    return orjson.dumps(members, option=orjson.OPT_UTC_Z).decode()


def dead_letter(found: DeadLetter) -> bytes:
    """One dead letter with its payload and history."""
    return _json(found).encode()


def delivery(found: Delivery) -> bytes:
    """One delivery of a callback with its body and its tries."""
    return _json(found).encode()


def listing(
    name: str,
    found: Sequence[JobSummary] | Sequence[DeadLetterSummary] | Sequence[DeliverySummary],
    *,
    limit: int,
) -> bytes:
    """`{name: [...], "next"}`: a page, and the id to go on after, null where it is the last one."""
    last = str(found[-1].id) if len(found) == limit else None
    return _members({name: _json(found), "next": codec.dumps(last)}).encode()


def tree(job_id: UUID, found: Tree, *, limit: int) -> bytes:
    """`{"id", "total", "complete", "counts", "jobs", "next"}`: a page of a tree."""
    last = str(found.jobs[-1].id) if len(found.jobs) == limit else None
    return _members(
        {
            "id": codec.dumps(str(job_id)),
            "total": str(found.total),
            "complete": codec.dumps(found.complete),
            "counts": codec.dumps(found.counts),
            "jobs": _json(found.jobs),
            "next": codec.dumps(last),
        }
    ).encode()


def batch(found: Batch) -> bytes:
    """A batch with its counts."""
    counts = {status.value: jobs for status, jobs in found.counts.items()}
    return codec.dumps(
        {
            "id": str(found.id),
            "key": found.key,
            "total": found.total,
            "createdAt": _moment(found.created_at),
            "counts": counts,
            "finished": found.finished,
        }
    ).encode()


def types(known: Iterable[JobType], lines: Mapping[str, TypeLine], pause: Pause | None) -> bytes:
    """`{"types": [...], "queue"}`: what can be submitted, which events start it, how it stands."""
    shown = []
    for each in known:
        line = lines.get(each.spec.type, _NO_LINE)
        shown.append(
            {
                "type": each.spec.type,
                "name": each.name,
                "mode": each.spec.mode,
                "events": each.spec.events,
                **_pause(line.paused_at, line.paused_by),
                "waiting": line.waiting,
                "running": line.running,
            }
        )
    queue = _pause(pause.paused_at, pause.paused_by) if pause else _pause(None, None)
    return codec.dumps({"types": shown, "queue": queue}).encode()


def schedules(found: Sequence[ScheduleLine]) -> bytes:
    """`{"schedules": [...]}`."""
    return _members({"schedules": _json(found)}).encode()


def statistics(**parts: object) -> bytes:
    """The parts, each by its name."""
    return _members({name: _json(part) for name, part in parts.items()}).encode()


def _pause(since: datetime | None, by: str | None) -> dict[str, object]:
    return {
        "paused": since is not None,
        "pausedAt": None if since is None else _moment(since),
        "pausedBy": by,
    }


def _json(value: object, *, without: Sequence[str] = ()) -> str:
    if isinstance(value, list | tuple):
        return f"[{','.join(_json(each, without=without) for each in value)}]"
    if isinstance(value, datetime):
        value = _moment(value)
    elif isinstance(value, UUID):
        value = str(value)
    elif is_dataclass(value):
        members = {}
        kind: Any = type(value)
        for name, camel in _names(kind):
            content = getattr(value, name)
            if name in TEXTS:
                members[camel] = "null" if content is None else content
            elif name not in without:
                members[camel] = _json(content, without=without)
        return _members(members)
    return codec.dumps(value)


@cache
def _names(shown: Any) -> tuple[tuple[str, str], ...]:  # noqa: ANN401 - a dataclass
    """The fields of a dataclass that are shown, each with its name in JSON."""
    names = (field.name for field in fields(shown))
    return tuple((name, to_camel(name)) for name in names if name not in HIDDEN)


def _members(texts: Mapping[str, str]) -> str:
    return "{" + ",".join(f'"{name}":{text}' for name, text in texts.items()) + "}"


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
