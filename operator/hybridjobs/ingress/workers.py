"""The workers' API (:8082), `/worker/v1/attempts/{id}/{n}`: what a running attempt asks and tells.

A token is good for one attempt: its pod is named after job and attempt, and the first request
binds that pod's uid to the attempt, so that no other pod can speak for it. A closed attempt gets
409 whatever it asks; one that a database from a backup does not know gets 503, and runs on.
"""

import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from hybridjobs import codec
from hybridjobs.errors import (
    AttemptClosed,
    FieldError,
    InvalidInput,
    PayloadTooLarge,
    Unavailable,
)
from hybridjobs.ingress.asgi import (
    Application,
    nothing_here,
    read_body,
    respond,
    traceparent,
)
from hybridjobs.ingress.problems import Refused
from hybridjobs.ingress.submissions import ChildJobs
from hybridjobs.ingress.tokens import Caller, KeySource, WorkerTokens, forbidden
from hybridjobs.model import AttemptEnd, Outcome, Progress
from hybridjobs.payload import pointer
from hybridjobs.settings import IngressSettings
from hybridjobs.store import attempts
from hybridjobs.store.database import Database
from hybridjobs.store.heartbeats import Heartbeats
from hybridjobs.store.jobs import get_job
from hybridjobs.store.outcome import record_outcome
from hybridjobs.store.types import TypeCatalog

_PATH = "/worker/v1/attempts/{job_id:uuid}/{attempt}"
_AROUND_RESULT_BYTES = 64 * 1024
_SMALL_BODY_BYTES = 64 * 1024
_MAX_ERROR_CHARACTERS = 16 * 1024
_MAX_BOUND = 4096
_MAX_ATTEMPT = 2**31 - 1
_ATTEMPT = re.compile(r"[1-9][0-9]{0,9}")


@dataclass(frozen=True, slots=True)
class Attempt:
    """The attempt that a request is about; its caller is the pod that runs it."""

    job_id: UUID
    number: int
    body: bytes
    traceparent: str | None


Endpoint = Callable[[Attempt, Send], Awaitable[None]]


class WorkerApi:
    """The endpoints."""

    def __init__(
        self,
        settings: IngressSettings,
        database: Database,
        catalog: TypeCatalog,
        children: ChildJobs,
        heartbeats: Heartbeats,
        keys: KeySource | None,
    ) -> None:
        self._service_account = settings.worker_service_account
        self._max_result_bytes = settings.max_result_bytes
        self._max_payload_bytes = settings.max_payload_bytes
        self._database = database
        self._catalog = catalog
        self._children = children
        self._heartbeats = heartbeats
        self._tokens: WorkerTokens | None = None
        if keys is not None:
            self._tokens = WorkerTokens(
                keys, audience=settings.worker_audience, namespace=settings.namespace
            )
        # (job, attempt) -> the pod that we have seen bound to it; the newest last.
        self._bound: OrderedDict[tuple[UUID, int], str] = OrderedDict()

    def routes(self) -> ASGIApp:
        """The application."""
        large = self._max_result_bytes + _AROUND_RESULT_BYTES
        child = self._max_payload_bytes + _AROUND_RESULT_BYTES
        return Router(
            [
                self._route("payload", "GET", self._get_payload, 0),
                self._route("checkpoint", "GET", self._get_checkpoint, 0),
                self._route("checkpoint", "PUT", self._put_checkpoint, large),
                self._route("progress", "PUT", self._put_progress, _SMALL_BODY_BYTES),
                self._route("heartbeat", "PUT", self._put_heartbeat, _SMALL_BODY_BYTES),
                self._route("outcome", "PUT", self._put_outcome, large),
                self._route("jobs", "POST", self._post_job, child),
            ],
            redirect_slashes=False,
            default=Application(nothing_here),
        )

    def _route(self, name: str, method: str, endpoint: Endpoint, limit_bytes: int) -> Route:
        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            job_id: UUID = scope["path_params"]["job_id"]
            number = _number(scope["path_params"]["attempt"])
            # For the rest of the request, a task of its own: errors are logged further out.
            bind_contextvars(job_id=str(job_id), attempt=number)
            caller = await self._authenticated(scope, job_id, number)
            context = traceparent(dict(scope["headers"]))
            body = b""
            try:
                if method != "GET":
                    try:
                        body = await read_body(scope, receive, limit_bytes=limit_bytes)
                    except PayloadTooLarge:
                        if name != "outcome":
                            raise
                        await self._bind(job_id, number, caller)
                        attempt = Attempt(job_id, number, b"", context)
                        raise await self._too_large(attempt) from None
                await self._bind(job_id, number, caller)
                await endpoint(Attempt(job_id, number, body, context), send)
            except AttemptClosed:
                await self._require_known(job_id, number)
                raise

        return Route(f"{_PATH}/{name}", Application(serve), methods=[method])

    async def _authenticated(self, scope: Scope, job_id: UUID, number: int) -> Caller:
        if self._tokens is None:
            raise Refused(503, "Not configured", "workers are served inside a cluster only")
        authorization = dict(scope["headers"]).get(b"authorization", b"")
        caller = await self._tokens.verify(authorization)
        if not caller.pod_name.startswith(f"hj-{job_id}-{number}-"):
            raise forbidden("the token is of another attempt's pod")
        if caller.service_account != self._service_account:
            await self._require_account(job_id, number, caller)
        return caller

    async def _require_account(self, job_id: UUID, number: int, caller: Caller) -> None:
        """A type may run its pods under an account of its own."""
        job = await self._require_known(job_id, number)
        job_type = await self._catalog.find(job.type)
        if job_type is None or (
            job_type.spec.pod_template.service_account_name != caller.service_account
        ):
            raise forbidden("the token is of another service account")

    async def _require_known(self, job_id: UUID, number: int) -> attempts.JobState:
        """An attempt is committed before its pod is made: none is later, unless in a backup."""
        async with self._database.connection() as connection:
            job = await attempts.read_job(connection, job_id)
        if job is None or job.attempt < number:
            raise Unavailable("the database was restored from before this attempt")
        return job

    async def _bind(self, job_id: UUID, number: int, caller: Caller) -> None:
        """The first contact binds the pod to the attempt, and marks the job as processing."""
        bound = self._bound.get((job_id, number))
        if bound is None:
            async with self._database.connection() as connection:
                try:
                    await attempts.start(
                        connection,
                        job_id,
                        number,
                        pod_name=caller.pod_name,
                        pod_uid=caller.pod_uid,
                        started_at=datetime.now(UTC),
                    )
                except AttemptClosed:
                    # Closed, or another pod's; the first is what this raises.
                    await attempts.payload_of(connection, job_id, number)
                    raise forbidden("the attempt is another pod's") from None
            self._bound[job_id, number] = caller.pod_uid
            while len(self._bound) > _MAX_BOUND:
                self._bound.popitem(last=False)
        elif bound != caller.pod_uid:
            raise forbidden("the attempt is another pod's")

    async def _get_payload(self, attempt: Attempt, send: Send) -> None:
        async with self._database.connection() as connection:
            payload = await attempts.payload_of(connection, attempt.job_id, attempt.number)
        await respond(send, 200, payload.encode())

    async def _get_checkpoint(self, attempt: Attempt, send: Send) -> None:
        async with self._database.connection() as connection:
            data = await attempts.checkpoint_of(connection, attempt.job_id, attempt.number)
        if data is None:
            await respond(send, 204)
        else:
            await respond(send, 200, data.encode())

    async def _put_checkpoint(self, attempt: Attempt, send: Send) -> None:
        text = _json(attempt.body)
        async with self._database.connection() as connection:
            await attempts.save_checkpoint(connection, attempt.job_id, attempt.number, text)
        await respond(send, 204)

    async def _put_progress(self, attempt: Attempt, send: Send) -> None:
        progress = _progress(codec.loads(_json(attempt.body)))
        await self._heartbeats.beat(attempt.job_id, attempt.number, progress)
        await respond(send, 204)

    async def _put_heartbeat(self, attempt: Attempt, send: Send) -> None:
        cancel = await self._heartbeats.beat(attempt.job_id, attempt.number)
        await respond(send, 200, codec.dumps({"cancelRequested": cancel}).encode())

    async def _put_outcome(self, attempt: Attempt, send: Send) -> None:
        members = _members(attempt.body)
        if (result := members.get("result")) is not None and len(members) == 1:
            if len(result.encode()) > self._max_result_bytes:
                raise await self._too_large(attempt)
            await self._record(attempt, AttemptEnd(Outcome.SUCCEEDED, "Completed", result=result))
        else:
            await self._failed(attempt, members)
        await respond(send, 204)

    async def _too_large(self, attempt: Attempt) -> Refused:
        """No later attempt would have a smaller result: the refusal is the attempt's end."""
        message = f"the result is over {self._max_result_bytes} bytes"
        end = AttemptEnd(Outcome.PERMANENT, "ResultTooLarge", message)
        await self._record(attempt, end)
        return Refused(413, "Too large", message)

    async def _failed(self, attempt: Attempt, members: dict[str, str]) -> None:
        error, permanent, retry_after = _failure(members)
        if permanent:
            await self._record(attempt, AttemptEnd(Outcome.PERMANENT, "PermanentError", error))
            return
        async with self._database.connection() as connection:
            await attempts.report_failure(
                connection,
                attempt.job_id,
                attempt.number,
                error=error,
                permanent=False,
                retry_after_seconds=retry_after,
            )

    async def _record(self, attempt: Attempt, end: AttemptEnd) -> None:
        async with self._database.transaction() as connection:
            recorded = await record_outcome(connection, attempt.job_id, attempt.number, end)
            if recorded is not None and recorded.changed:
                return
            # The same report again, after its answer was lost, is no late one.
            job = await get_job(connection, attempt.job_id)
        outcomes = {each.attempt: each.outcome for each in job.attempts} if job else {}
        if outcomes.get(attempt.number) != end.outcome:
            raise AttemptClosed(attempt.job_id, attempt.number)

    async def _post_job(self, attempt: Attempt, send: Send) -> None:
        async with self._database.connection() as connection:
            await attempts.payload_of(connection, attempt.job_id, attempt.number)
        child_id = await self._children.submit(
            attempt.job_id, _members(attempt.body), traceparent=attempt.traceparent
        )
        await respond(send, 201, f'{{"jobId":"{child_id}"}}'.encode())


def _number(text: str) -> int:
    """The attempt's number in a path; Refused (404) for what can be none."""
    if _ATTEMPT.fullmatch(text) and int(text) <= _MAX_ATTEMPT:
        return int(text)
    raise Refused(404, "Not Found", f"there is no attempt {text[:80]}")


def _json(body: bytes) -> str:
    try:
        text = body.decode()
        codec.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the body is not JSON: {error}", status=400) from None
    return text


def _members(body: bytes) -> dict[str, str]:
    try:
        return codec.members(body.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the body is not a JSON object: {error}", status=400) from None


def _wrong(errors: dict[str, str]) -> InvalidInput:
    return InvalidInput(
        "the request has the wrong shape",
        errors=[FieldError(pointer(name), message) for name, message in errors.items()],
    )


def _progress(value: Any) -> Progress:  # noqa: ANN401 - JSON is any
    if not isinstance(value, dict):
        raise _wrong({"": "must be an object"})
    errors = {name: "unknown member" for name in value if name not in ("done", "total", "message")}
    done: Any = value.get("done")
    total, message = value.get("total"), value.get("message")
    if not _is_integer(done):
        errors["done"] = "must be an integer"
    if total is not None and not _is_integer(total):
        errors["total"] = "must be an integer or null"
    if message is not None and not isinstance(message, str):
        errors["message"] = "must be a string or null"
    if errors:
        raise _wrong(errors)
    return Progress(done, total, message)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _failure(members: dict[str, str]) -> tuple[str, bool, float | None]:
    expected = ("error", "permanent", "retryAfter")
    errors = {name: "unknown member" for name in members if name not in expected}
    error = codec.loads(members.get("error", "null"))
    permanent = codec.loads(members.get("permanent", "false"))
    retry_after = codec.loads(members.get("retryAfter", "null"))
    if not isinstance(error, str):
        errors["error"] = "must be a string, unless there is a result"
    if not isinstance(permanent, bool):
        errors["permanent"] = "must be true or false"
    if retry_after is not None and (
        isinstance(retry_after, bool)
        or not isinstance(retry_after, int | float)
        or not 0 <= retry_after <= 7 * 86_400
    ):
        errors["retryAfter"] = "must be null or seconds, at most a week"
    if errors:
        raise _wrong(errors)
    cleaned = error.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    return cleaned[:_MAX_ERROR_CHARACTERS], permanent, retry_after
