"""Runs a handler alone, for `hybridjobs run`: no cluster, no database of ours, no queue."""

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hybridjobs import codec
from hybridjobs.ids import new_id
from hybridjobs.logs import configure_standard_logging
from hybridjobs.sdk.context import Context
from hybridjobs.worker import registry
from hybridjobs.worker.exits import Exit
from hybridjobs.worker.runner import Completed, Failure, run


class _Terminal:
    """Shows what the handler tells: progress and jobs on standard error; keeps nothing."""

    async def progress(self, done: int, total: int | None, message: str | None) -> None:
        of = "" if total is None else f"/{total}"
        _say(f"progress {done}{of} {message or ''}".rstrip())

    async def save_checkpoint(self, text: str) -> None:
        _say(f"checkpoint {text}")

    async def submit(self, type_: str, payload: str, key: str | None, priority: int | None) -> UUID:
        options = f" key={key!r}" if key is not None else ""
        options += f" priority={priority}" if priority is not None else ""
        _say(f"would submit {type_}{options} {payload}")
        return new_id()


async def run_alone(name: str, text: str, *, deadline_seconds: float) -> int:
    """Run a handler on a payload's JSON text, and return the exit code.

    `name` is that of one that is installed, or `module:attribute` for any.
    The result goes to standard output as JSON; progress, and what would be submitted, to standard
    error. The codes are those of a pod, and 2 for a wrong type or payload text.
    """
    configure_standard_logging(form="console")
    try:
        handler = registry.load_from(name) if ":" in name else registry.load(name)
        payload = codec.loads(text)
    except registry.HandlerNotFound as error:
        _say(f"hybridjobs: {error}")
        if ":" not in name:
            _say("  one that is not installed is run by its place: hybridjobs run MODULE:FUNCTION")
        return Exit.USAGE
    except (ValueError, RecursionError) as error:
        _say(f"hybridjobs: the payload is not JSON: {error}")
        return Exit.USAGE
    context = Context(
        _Terminal(),
        job_id=new_id(),
        type=handler.type,
        attempt=1,
        deadline=datetime.now(UTC) + timedelta(seconds=deadline_seconds),
    )
    try:
        async with asyncio.timeout(deadline_seconds):
            end = await run(handler, payload, context)
    except TimeoutError:
        end = Failure(f"the handler took longer than {deadline_seconds:g} seconds")
    if isinstance(end, Completed):
        sys.stdout.write(json.dumps(codec.loads(end.result), indent=2, ensure_ascii=False) + "\n")
        return Exit.SUCCESS
    if end.retry_after_seconds is not None:
        _say(f"failed: {end.error} (try again in {end.retry_after_seconds:.0f} seconds)")
    else:
        _say(f"failed{' for good' if end.permanent else ''}: {end.error}")
    return Exit.PERMANENT if end.permanent else Exit.TRANSIENT


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
