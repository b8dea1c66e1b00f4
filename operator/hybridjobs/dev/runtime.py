"""Where jobs run under `hybridjobs dev`: each attempt is a local process with the worker contract.

What a kubelet does for a pod is done here: the deadline, SIGTERM and the grace period, the log, the
termination message. The verdict on an exit is the operator's.
"""

import asyncio
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from uuid import UUID, uuid4

import structlog
from structlog.contextvars import bind_contextvars

from hybridjobs import exits
from hybridjobs.dev.process import JobProcess
from hybridjobs.dev.tokens import LocalKeys, pod_name
from hybridjobs.dev.worker import TERMINATION_LOG
from hybridjobs.errors import AttemptClosed, DatabaseUnavailable
from hybridjobs.kube import names
from hybridjobs.kube.manifests import contract_variables
from hybridjobs.model import AttemptEnd, Claim, JobTypeSpec, Outcome, Status
from hybridjobs.settings import IngressSettings
from hybridjobs.store import attempts
from hybridjobs.store.database import Database
from hybridjobs.store.outcome import record_final_outcome
from hybridjobs.store.resources import mark_dispatched
from hybridjobs.store.types import list_types

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 0.5
_RECORD_AGAIN_SECONDS = 1.0
_KILLED = {128 + 9, 128 + 15}
_ENDED_WITH_US = AttemptEnd(
    Outcome.DISRUPTED, "DevEnded", "hybridjobs dev was ended while this attempt ran"
)


class LocalRuntime:
    """Runs claims as processes; `environment()` is theirs beside the contract's variables.

    `folder` holds a folder for each attempt while it runs; `say` shows a line to people.
    """

    def __init__(
        self,
        database: Database,
        settings: IngressSettings,
        keys: LocalKeys,
        *,
        api_url: str,
        folder: Path,
        environment: Callable[[], Mapping[str, str]],
        say: Callable[[str], None],
    ) -> None:
        self._database = database
        self._settings = settings
        self._keys = keys
        self._api_url = api_url
        self._folder = folder
        self._environment = environment
        self._say = say
        self._running: dict[tuple[UUID, int], asyncio.Task[None]] = {}
        self._processes: set[JobProcess] = set()
        self._stopping = False

    async def recover(self) -> int:
        """Close the attempts of an earlier run that was killed; their jobs go on."""
        closed = 0
        while left := await self._left():
            for each in left:
                await record_final_outcome(
                    self._database, each.job_id, each.attempt, _ENDED_WITH_US
                )
            closed += len(left)
        return closed

    async def _left(self) -> list[attempts.OpenDispatch]:
        async with self._database.connection() as connection:
            return await attempts.open_dispatches(connection, settled=timedelta(0))

    async def dispatch(self, claimed: Claim) -> bool:
        """Have the claim run."""
        key = claimed.job_id, claimed.attempt
        if self._stopping:
            return False
        if key not in self._running:
            async with self._database.connection() as connection:
                await mark_dispatched(
                    connection,
                    claimed,
                    namespace=self._settings.namespace,
                    name=names.hybridjob_name(claimed.type, claimed.job_id),
                    uid=claimed.resource_uid or str(uuid4()),
                )
            task = asyncio.create_task(self._attempt(claimed), name=f"job {claimed.job_id}")
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key))
        return True

    @property
    def is_running(self) -> bool:
        """Whether there are attempts that have not ended."""
        return bool(self._running)

    async def stop(self, grace_seconds: float) -> None:
        """Start nothing more, and end what runs: it goes on with the next start."""
        self._stopping = True
        await asyncio.gather(*(each.end(grace_seconds) for each in self._processes))
        if self._running:
            await asyncio.wait(self._running.values())

    def kill(self) -> None:
        """End what runs at once."""
        for each in self._processes:
            each.kill()

    async def _attempt(self, claimed: Claim) -> None:
        bind_contextvars(job_id=str(claimed.job_id), attempt=claimed.attempt)  # a task of its own
        folder = self._folder / f"{claimed.job_id}-{claimed.attempt}"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            end = await self._run(claimed, folder)
            while end is not None:
                try:
                    await self._record(claimed, end)
                    return
                except DatabaseUnavailable as error:
                    log.warning("outcome not recorded yet", error=error.detail)
                    await asyncio.sleep(_RECORD_AGAIN_SECONDS)
        except Exception:
            # Not recorded: the next start closes it.
            log.exception("attempt failed")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _run(self, claimed: Claim, folder: Path) -> AttemptEnd | None:
        """Run it to its end; None: it was closed before it began."""
        async with self._database.connection() as connection:
            row = await attempts.read_job(connection, claimed.job_id)
            types = {each.spec.type: each.spec for each in await list_types(connection)}
        if row is None or row.open_attempt != claimed.attempt:
            return None
        spec = types.get(claimed.type)
        if spec is None:
            missing = f"there is no job type {claimed.type}"
            return AttemptEnd(Outcome.NEVER_STARTED, "UnknownType", missing)
        if spec.image and not spec.command:
            text = (
                f"hybridjobs dev runs no images, and {claimed.type} has {spec.image}: "
                "give the type a handler, or a command that is on this machine"
            )
            return AttemptEnd(Outcome.PERMANENT, "ImageNotRun", text)
        uid = str(uuid4())
        environment = self._variables(claimed, spec, row.payload, folder, uid)
        command = [*spec.command, *spec.args] if spec.command else _WORKER
        began = datetime.now(UTC)
        try:
            process = await JobProcess.start(
                command,
                environment,
                folder / "termination-log",
                lambda line: self._say(f"[{claimed.type} {_short(claimed)}] {line}"),
            )
        except OSError as error:
            return AttemptEnd(Outcome.NEVER_STARTED, "CommandNotStarted", str(error))
        self._processes.add(process)
        try:
            async with self._database.connection() as connection:
                await attempts.start(
                    connection,
                    claimed.job_id,
                    claimed.attempt,
                    pod_name=pod_name(claimed.job_id, claimed.attempt),
                    pod_uid=uid,
                    started_at=began,
                )
            self._say(f"{claimed.type} {_short(claimed)}: started")
            cause = await self._watch(process, claimed, spec)
            return await self._judged(process, claimed, spec, cause)
        except AttemptClosed:
            return None
        finally:
            process.kill()
            self._processes.discard(process)

    def _variables(
        self, claimed: Claim, spec: JobTypeSpec, payload: str, folder: Path, uid: str
    ) -> dict[str, str]:
        token_file = folder / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(
            self._keys.token(
                self._settings,
                claimed.job_id,
                claimed.attempt,
                uid=uid,
                deadline_seconds=claimed.deadline_seconds,
            )
        )
        contract = contract_variables(
            spec,
            claimed.job_id,
            claimed.attempt,
            deadline_seconds=claimed.deadline_seconds,
            payload=payload,
            traceparent=claimed.traceparent,
            api_url=self._api_url,
            token_file=str(token_file),
        )
        # Of those with valueFrom a cluster knows the value; here it is this process' own, if any.
        own = {each["name"]: str(each["value"]) for each in spec.env if "value" in each}
        log_file = {TERMINATION_LOG: str(folder / "termination-log")}
        return {**self._environment(), **own, **contract, **log_file}

    async def _watch(
        self, process: JobProcess, claimed: Claim, spec: JobTypeSpec
    ) -> Outcome | None:
        """Until it has ended: by itself, or by us, which the outcome says."""
        deadline = monotonic() + claimed.deadline_seconds
        closed_at: float | None = None
        while True:
            await asyncio.wait([process.exited], timeout=_LOOK_SECONDS)
            if process.exited.done():
                return None
            if monotonic() >= deadline:
                await process.end(spec.grace_period_seconds)
                return Outcome.DEADLINE
            try:
                async with self._database.connection() as connection:
                    row = await attempts.read_job(connection, claimed.job_id)
            except DatabaseUnavailable:
                continue
            if row is not None and row.open_attempt == claimed.attempt:
                if row.cancel_requested:
                    await process.end(spec.grace_period_seconds)
                    return Outcome.CANCELLED
                continue
            # Its worker has reported its end, and is about to go; or it is fenced, and should.
            closed_at = closed_at or monotonic()
            if monotonic() - closed_at > spec.grace_period_seconds:
                await process.end(spec.grace_period_seconds)

    async def _judged(
        self, process: JobProcess, claimed: Claim, spec: JobTypeSpec, cause: Outcome | None
    ) -> AttemptEnd:
        code = await process.exit_code()
        message = process.message(code)
        try:
            async with self._database.connection() as connection:
                row = await attempts.read_job(connection, claimed.job_id)
        except DatabaseUnavailable:
            row = None
        account = exits.Account.read(message, row.reported if row else None)
        end = AttemptEnd(
            Outcome.SUCCEEDED,
            "Completed",
            exit_code=code,
            log_tail=process.log_tail,
            retry_after_seconds=account.retry_after_seconds,
            ended_at=datetime.now(UTC),
        )
        if cause is not None:
            text = f"it ran for longer than {claimed.deadline_seconds} s"
            end = replace(end, outcome=Outcome.DEADLINE, reason="DeadlineExceeded", message=text)
            return exits.after_cancel(end, message) if cause is Outcome.CANCELLED else end
        if code == 0:
            return exits.with_result(end, message)
        if self._stopping and code in _KILLED:
            return replace(_ENDED_WITH_US, exit_code=code, log_tail=end.log_tail)
        outcome, reason, text_ = exits.failure(
            code,
            account,
            permanent_exit_codes=set(spec.retry.permanent_exit_codes),
            reason="Error",
        )
        return replace(end, outcome=outcome, reason=reason, message=text_)

    async def _record(self, claimed: Claim, end: AttemptEnd) -> None:
        recorded = await record_final_outcome(self._database, claimed.job_id, claimed.attempt, end)
        if recorded is None:
            return
        about = f": {end.message}" if end.message and end.outcome is not Outcome.SUCCEEDED else ""
        follows = recorded.status.value
        if recorded.status is Status.QUEUED and recorded.run_at is not None:
            wait = max(0.0, (recorded.run_at - datetime.now(UTC)).total_seconds())
            follows = f"next attempt in {wait:.0f} s"
        what = end.outcome.value if recorded.changed else "ended"
        self._say(f"{claimed.type} {_short(claimed)}: {what}{about} ({follows})")


_WORKER = [sys.executable, "-m", "hybridjobs.dev.worker"]


def _short(claimed: Claim) -> str:
    return f"{claimed.job_id.hex[-12:]}/{claimed.attempt}"
