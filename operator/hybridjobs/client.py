"""The queue as a Python program uses it: through the API, or inside its own transaction.

What the caller did wrong is InvalidInput, with the answer's status and the faults by their paths;
a service that does not answer is Unavailable, after which the same call may be made again: with a
`key` it never makes a second job.
"""

import asyncio
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

import httpx

from hybridjobs import codec
from hybridjobs.errors import ConfigurationError, FieldError, InvalidInput, Unavailable
from hybridjobs.model import Callback, OnDependencyFailure, Status, UniqueWhile

if TYPE_CHECKING:
    from psycopg import AsyncConnection

__all__ = ["Batch", "BatchJob", "BearerAuth", "Callback", "Client", "Job"]

_SUBMIT = """
SELECT hybridjobs.submit_job(
    type => %(type)s, payload => %(payload)s::jsonb, key => %(key)s,
    priority => %(priority)s::integer, run_at => %(run_at)s::timestamptz,
    deadline_seconds => %(deadline_seconds)s::integer, max_retries => %(max_retries)s::integer,
    unique_key => %(unique_key)s, unique_while => %(unique_while)s,
    depends_on => %(depends_on)s::uuid[], on_dependency_failure => %(on_dependency_failure)s,
    callback => %(callback)s::jsonb)
"""
_WAIT_SECONDS = 20
_TIMEOUT_SECONDS = 30.0
_BATCH_SECONDS = 120.0
_RETRY_AFTER_SECONDS = 5.0
_BUSY = frozenset((408, 429, 500, 502, 503, 504))


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


class Batch:
    """Jobs that were submitted together."""

    def __init__(self, client: "Client", batch_id: UUID, total: int) -> None:
        self._client = client
        self.id = batch_id
        self.total = total

    async def counts(self) -> dict[Status, int]:
        """How many of its jobs are in each status."""
        return _counts(await self._client._batch(self.id, wait_seconds=0))

    async def wait(self, timeout: float | None = None) -> dict[Status, int]:  # noqa: ASYNC109
        """The counts when every job is over; TimeoutError after `timeout` seconds."""
        give_up = None if timeout is None else monotonic() + timeout
        while True:
            left = _WAIT_SECONDS if give_up is None else max(0.0, give_up - monotonic())
            # The API waits whole seconds.
            if left < 1:
                await asyncio.sleep(left)
            wait_seconds = int(min(_WAIT_SECONDS, left))
            found = await self._client._batch(self.id, wait_seconds=wait_seconds)
            if found["finished"]:
                return _counts(found)
            if left < 1:
                raise TimeoutError(f"batch {self.id} is not finished")


class BearerAuth(httpx.Auth):
    """Sends the token; of `@FILE` what is in it at each request, as a mounted one is renewed."""

    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header; ConfigurationError where the file cannot be read."""
        request.headers["Authorization"] = f"Bearer {self._read()}"
        yield request

    def _read(self) -> str:
        if not self._token.startswith("@"):
            return self._token
        path = Path(self._token[1:])
        try:
            return path.read_text().strip()
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"no token in the file {path}: {error}") from error


class Client:
    """Submits jobs and follows them.

    `url` is the API's (:8081), `token` its bearer token, or `@FILE`, which is read for each
    request; by default those of HYBRIDJOBS_API_URL and HYBRIDJOBS_API_TOKEN. Neither is needed
    where only `submit(conn=...)` is used. `transport` stands in for the network, as
    httpx.MockTransport does in tests.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = url or os.environ.get("HYBRIDJOBS_API_URL", "")
        token = token or os.environ.get("HYBRIDJOBS_API_TOKEN", "")
        self._http = httpx.AsyncClient(
            base_url=self._url,
            auth=BearerAuth(token),
            headers={"Content-Type": "application/json"},
            timeout=_TIMEOUT_SECONDS,
            transport=transport,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def submit(
        self,
        type_: str,
        payload: object,
        *,
        key: str | None = None,
        priority: int | None = None,
        deadline_seconds: int | None = None,
        max_retries: int | None = None,
        run_at: datetime | None = None,
        unique_key: str | None = None,
        unique_while: UniqueWhile = "open",
        depends_on: Sequence[UUID] = (),
        on_dependency_failure: OnDependencyFailure = "cancel",
        callback: Callback | str | None = None,
        conn: "AsyncConnection[Any] | None" = None,
    ) -> UUID:
        """Enqueue a job and return its id; the same key and type give the same job.

        Through the API it is durable when this returns. With `conn` it is part of that
        connection's transaction: it exists when, and only if, the caller commits; what is wrong
        with it is then a psycopg.Error.
        """
        job = BatchJob(
            type=type_,
            payload=payload,
            key=key,
            priority=priority,
            deadline_seconds=deadline_seconds,
            max_retries=max_retries,
            run_at=run_at,
            unique_key=unique_key,
            unique_while=unique_while,
            depends_on=depends_on,
            on_dependency_failure=on_dependency_failure,
            callback=callback,
        )
        if conn is not None:
            return await _submit_in(conn, job)
        made = await self._request("POST", "/api/jobs", body=job.document())
        return UUID(made["id"])

    async def submit_batch(self, jobs: Iterable[BatchJob], *, key: str | None = None) -> Batch:
        """Enqueue up to 10,000 jobs, all or none; the same key gives the same batch."""
        body: dict[str, object] = {"jobs": [job.document() for job in jobs]}
        if key is not None:
            body["key"] = key
        made = await self._request("POST", "/api/jobs:batch", body=body, seconds=_BATCH_SECONDS)
        return Batch(self, UUID(made["id"]), made["total"])

    async def job(self, job_id: UUID) -> Job:
        """The job as it stands; InvalidInput (404) where there is none."""
        return _job(await self._request("GET", f"/api/jobs/{job_id}"))

    async def wait(
        self,
        job_id: UUID,
        timeout: float | None = None,  # noqa: ASYNC109
        *,
        every_seconds: float = 0.5,
    ) -> Job:
        """The job when it is over; TimeoutError after `timeout` seconds."""
        async with asyncio.timeout(timeout):
            while True:
                job = await self.job(job_id)
                if job.status.is_terminal:
                    return job
                await asyncio.sleep(every_seconds)

    async def cancel(self, job_id: UUID) -> Status:
        """Cancel a queued job, ask a running one to end; InvalidInput (409) if it is over.

        Returns the status that the job has now: a running one keeps its own until it has ended.
        """
        return Status((await self._request("POST", f"/api/jobs/{job_id}/cancel"))["status"])

    async def retry(self, job_id: UUID) -> None:
        """Run a failed or cancelled job once more; InvalidInput (409) if it is neither."""
        await self._request("POST", f"/api/jobs/{job_id}/retry")

    async def _batch(self, batch_id: UUID, *, wait_seconds: int) -> dict[str, Any]:
        query = {"wait": wait_seconds} if wait_seconds else {}
        return await self._request("GET", f"/api/batches/{batch_id}", query=query)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, int] | None = None,
        seconds: float = _TIMEOUT_SECONDS,
    ) -> dict[str, Any]:
        if not self._url:
            raise ConfigurationError("the client has no url: give one, or set HYBRIDJOBS_API_URL")
        content = None if body is None else _text(body)
        try:
            response = await self._http.request(
                method, path, content=content, params=query, timeout=seconds
            )
        except httpx.TransportError as error:
            raise Unavailable(f"{self._url} does not answer: {error!r}") from error
        if response.status_code >= 400:
            raise _error(response)
        answer: dict[str, Any] = codec.loads(response.text)
        return answer


async def _submit_in(connection: "AsyncConnection[Any]", job: BatchJob) -> UUID:
    parameters = {
        "type": job.type,
        "payload": _text(job.payload),
        "key": job.key,
        "priority": job.priority,
        "run_at": job.run_at,
        "deadline_seconds": job.deadline_seconds,
        "max_retries": job.max_retries,
        "unique_key": job.unique_key,
        "unique_while": job.unique_while,
        "depends_on": [str(awaited) for awaited in job.depends_on],
        "on_dependency_failure": job.on_dependency_failure,
        "callback": None if job.callback is None else _text(job.callback_document()),
    }
    # Whatever rows the caller's connection makes, these are tuples.
    from psycopg.rows import tuple_row

    async with connection.cursor(row_factory=tuple_row) as cursor:
        row = await (await cursor.execute(_SUBMIT, parameters)).fetchone()
    assert row is not None
    return UUID(str(row[0]))


def _text(value: object) -> str:
    try:
        return codec.dumps(value)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the payload is not JSON: {error}") from None


def _job(document: dict[str, Any]) -> Job:
    return Job(
        id=UUID(document["id"]),
        type=document["type"],
        status=Status(document["status"]),
        attempt=document["attempt"],
        result=document["result"],
        error=document["error"],
        document=document,
    )


def _counts(document: dict[str, Any]) -> dict[Status, int]:
    return {Status(status): jobs for status, jobs in document["counts"].items()}


def _error(response: httpx.Response) -> InvalidInput | Unavailable:
    try:
        problem = codec.loads(response.text)
        detail = problem.get("detail") or problem.get("title")
        errors = [FieldError(each["path"], each["message"]) for each in problem.get("errors", ())]
    except (ValueError, AttributeError, KeyError, TypeError):
        detail, errors = None, []
    detail = detail or f"HTTP {response.status_code}"
    if response.status_code in _BUSY:
        after = response.headers.get("Retry-After", "")
        seconds = float(after) if after.isdecimal() else _RETRY_AFTER_SECONDS
        return Unavailable(detail, retry_after=seconds)
    return InvalidInput(detail, status=response.status_code, errors=errors)
