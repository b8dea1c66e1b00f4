"""Inngest's functions: one for each job type with events, and one for runs that are cancelled.

A run waits for its job's end as an event. Jobs may end before a wait that follows the submission is
in place, and Inngest keeps no events for waits to come; so both are asked for at once, and Inngest
has the wait in place before it calls the submission. The wait is by the run's id, known before.

Limits of a type are the queue's to keep: Inngest's concurrency does not count runs that wait. Its
throttle is the queue's too, where both count alike, so that runs wait there rather than as jobs. A
job's retries are the queue's alone. What Inngest retries are the steps, each of which is a few
statements here.
"""

import re
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import inngest
import structlog

from hybridjobs.errors import BrokenPayloadSchema, InvalidInput, Unavailable
from hybridjobs.ingress.inngest.runs import FINISHED, GONE, Call, Runs
from hybridjobs.ingress.sources.delivery import is_of
from hybridjobs.model import JobType, Status, type_slug

log = structlog.get_logger(__name__)

CANCELLED = "inngest/function.cancelled"

MAX_TRIGGERS = 10  # of one function, as Inngest has it
MAX_WAITS = 300  # of Inngest's 1000 steps a run; each may take three
_RETRIES = 20  # Inngest's most
_RETRY_SECONDS = 30.0
_MAX_PERIOD_SECONDS = 7 * 86_400  # of Inngest's throttle
_SETTLE = timedelta(seconds=30)
_CANCELLED_RUNS = "cancelled_runs"  # no type has an underscore
# It becomes a job's key, and stands in an expression: Inngest's are ULIDs.
_RUN_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")

Value = TypeVar("Value")
State = dict[str, Any]
# Runs a coroutine in the ingress' loop, from the SDK's.
Across = Callable[[Coroutine[Any, Any, Value]], Awaitable[Value]]


def functions(
    client: inngest.Inngest,
    types: Sequence[JobType],
    runs: Runs,
    across: Across[Any],
    *,
    others: Collection[str],
    traceparent: Callable[[], str | None],
) -> list[inngest.Function[Any]]:
    """All functions of the app, for the types that have events which are not the others'."""
    made = [_cancelled_runs(client, runs, across)]
    for job_type in types:
        events = events_of(job_type, others)
        for place in range(0, len(events), MAX_TRIGGERS):
            number = place // MAX_TRIGGERS
            fn_id = type_slug(job_type.spec.type) + (f"_{number + 1}" if number else "")
            trigger = [
                inngest.TriggerEvent(event=event) for event in events[place : place + MAX_TRIGGERS]
            ]
            create = client.create_function(
                fn_id=fn_id,
                name=job_type.spec.type,
                trigger=[*trigger],
                retries=_RETRIES,
                throttle=_throttle(job_type),
            )
            made.append(create(_of_type(job_type, runs, across, traceparent)))
    return made


def events_of(job_type: JobType, others: Collection[str]) -> list[str]:
    """The type's events that Inngest may bring: not those of other sources.

    Those are trusted by another secret, and who has an event key can send Inngest any name.
    """
    return sorted(event for event in job_type.spec.events if not is_of(event, others))


def shape_of(job_type: JobType, others: Collection[str]) -> object:
    """What of the type Inngest knows; None: nothing."""
    spec = job_type.spec
    events = events_of(job_type, others)
    return (spec.type, spec.mode, events, spec.throttle) if events else None


def _throttle(job_type: JobType) -> inngest.Throttle | None:
    """The type's throttle, unless it counts by a key: the queue's is of the payload as mapped."""
    throttle = job_type.spec.throttle
    if throttle is None or throttle.key is not None:
        return None
    if throttle.period_seconds > _MAX_PERIOD_SECONDS:
        return None
    period = timedelta(seconds=throttle.period_seconds)
    return inngest.Throttle(limit=throttle.limit, period=period, burst=throttle.limit)


def _of_type(
    job_type: JobType,
    runs: Runs,
    across: Across[Any],
    traceparent: Callable[[], str | None],
) -> Callable[[inngest.Context], Awaitable[Any]]:
    type_, quick = job_type.spec.type, job_type.spec.mode == "quick"

    async def run(ctx: inngest.Context) -> Any:  # noqa: ANN401 - the job's result, any JSON
        if not _RUN_ID.fullmatch(ctx.run_id):
            raise inngest.NonRetriableError("the run's id must be letters, digits, - and _")
        call = Call(ctx.run_id, type_, ctx.event.id or None, ctx.event.data, traceparent())
        return _result(await _Run(ctx, call, runs, across).ended(quick=quick))

    return run


class _Run:
    """One run: its job from the submission to the end. Inngest calls it anew at every step."""

    def __init__(self, ctx: inngest.Context, call: Call, runs: Runs, across: Across[Any]) -> None:
        self._ctx = ctx
        self._call = call
        self._runs = runs
        self._across = across

    async def ended(self, *, quick: bool) -> State:
        """The job's state when it is over; NonRetriableError if that takes too long to wait for."""
        step, work = "submit", self._runs.submit
        if quick:
            state = await self._step("run", work)
            if _is_over(state):
                return state
            step, work = "announce", self._runs.announce
        for _ in range(MAX_WAITS):
            event = await self._step_while_waiting(step, work)
            if event is not None:
                state = dict(event.data)
                return await self._step("result", self._runs.look) if _has_more(state) else state
            state = await self._step("look", self._runs.look)
            if _is_over(state):
                return state
            step, work = "announce", self._runs.announce
        raise inngest.NonRetriableError(f"the job is still {state['status']}: {state['job_id']}")

    async def _step(self, name: str, work: Callable[[Call], Coroutine[Any, Any, State]]) -> State:
        return await self._ctx.step.run(name, partial(_done, self._across, work, self._call))

    async def _step_while_waiting(
        self, name: str, work: Callable[[Call], Coroutine[Any, Any, State]]
    ) -> inngest.Event | None:
        """The event of the job's end, which cannot come before it is waited for; None: not yet."""
        ctx = self._ctx
        seconds = await self._across(self._runs.wait_seconds(self._call.type))
        steps: tuple[Callable[[], Awaitable[Any]], ...] = (
            lambda: self._step(name, work),
            lambda: ctx.step.wait_for_event(
                "finished",
                event=FINISHED,
                if_exp=f"async.data.run_id == '{ctx.run_id}'",
                timeout=timedelta(seconds=seconds),
            ),
        )
        event: inngest.Event | None
        _, event = await ctx.group.parallel(steps)
        return event


def _cancelled_runs(
    client: inngest.Inngest, runs: Runs, across: Across[Any]
) -> inngest.Function[Any]:
    @client.create_function(
        fn_id=_CANCELLED_RUNS,
        name="Jobs of cancelled runs",
        trigger=inngest.TriggerEvent(event=CANCELLED),
        retries=_RETRIES,
    )
    async def cancel(ctx: inngest.Context) -> dict[str, str | None]:
        run_id, function_id = ctx.event.data.get("run_id"), ctx.event.data.get("function_id")
        if not isinstance(run_id, str):
            raise inngest.NonRetriableError(f"{CANCELLED} without data.run_id")
        asked = await ctx.step.run("cancel", partial(_done, across, runs.cancel, run_id))
        if not asked and str(function_id).startswith(f"{client.app_id}-"):
            # Its submission may have been under way when the run was cancelled.
            await ctx.step.sleep("settle", _SETTLE)
            asked = await ctx.step.run("cancel", partial(_done, across, runs.cancel, run_id))
        return asked

    return cancel


async def _done(
    across: Across[Any], work: Callable[[Any], Coroutine[Any, Any, Value]], argument: object
) -> Value:
    """The work's value, with errors that Inngest acts on at once.

    It would leave a run whose submission raised anything else to its wait.
    """
    try:
        value: Value = await across(work(argument))
    except InvalidInput as error:
        raise inngest.NonRetriableError(error.in_full(), quiet=True) from None
    except BrokenPayloadSchema as error:
        raise inngest.NonRetriableError(str(error)) from None
    except Exception as error:
        known = isinstance(error, Unavailable)
        if not known:
            log.error("step failed", error=f"{type(error).__module__}.{type(error).__qualname__}")
        after = max(_RETRY_SECONDS, error.retry_after if isinstance(error, Unavailable) else 0)
        message = "not now" if known else "something failed here; the log says what"
        raise inngest.RetryAfterError(message, timedelta(seconds=after), quiet=True) from None
    return value


def _is_over(state: State) -> bool:
    return state["status"] == GONE or Status(state["status"]).is_terminal


def _has_more(state: State) -> bool:
    return bool(state.get("result_omitted"))


def _result(state: State) -> Any:  # noqa: ANN401 - any JSON
    """The run's result; NonRetriableError when the job did not complete."""
    if state["status"] == Status.COMPLETED:
        return state.get("result")
    if state["status"] == GONE:
        raise inngest.NonRetriableError("the job's row has been deleted")
    reason = state.get("reason") or state["status"]
    message = state.get("error") or f"job {state['status']}"
    raise inngest.NonRetriableError(f"{reason}: {message} (job {state.get('job_id')})", quiet=True)
