"""Jobs as JSON: members in camelCase, payload and result as the text that Postgres holds."""

from collections.abc import Iterable
from dataclasses import fields
from datetime import UTC, datetime
from uuid import UUID

from pydantic.alias_generators import to_camel

from hybridjobs import codec
from hybridjobs.model import JobType
from hybridjobs.store.jobs import Attempt, Job, JobSummary

# Written as they are: to parse and print them would change numbers.
_TEXTS = frozenset(("payload", "result"))


def job(found: Job, *, logs: bool) -> bytes:
    """One job with its attempts; their log tails only on demand."""
    return _object(found, logs=logs).encode()


def listing(found: Iterable[JobSummary]) -> bytes:
    """`{"jobs": [...]}`."""
    jobs = ",".join(_object(each, logs=False) for each in found)
    return f'{{"jobs":[{jobs}]}}'.encode()


def types(known: Iterable[JobType]) -> bytes:
    """`{"types": [...]}`: what can be submitted, and which events start it."""
    return codec.dumps(
        {
            "types": [
                {
                    "type": each.spec.type,
                    "name": each.name,
                    "mode": each.spec.mode,
                    "events": each.spec.events,
                    "paused": each.paused,
                }
                for each in known
            ]
        }
    ).encode()


def _object(value: Job | JobSummary | Attempt, *, logs: bool) -> str:
    members = []
    for field in fields(value):
        if field.name == "log_tail" and not logs:
            continue
        content = getattr(value, field.name)
        if field.name == "attempts":
            text = f"[{','.join(_object(attempt, logs=logs) for attempt in content)}]"
        elif field.name in _TEXTS:
            text = "null" if content is None else content
        else:
            text = codec.dumps(_plain(content))
        members.append(f'"{to_camel(field.name)}":{text}')
    return "{" + ",".join(members) + "}"


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value) if isinstance(value, UUID) else value
