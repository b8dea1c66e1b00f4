"""The API's client, and the two ways in which a job is submitted."""

import asyncio
import os
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

import httpx

from hybridjobs import codec
from hybridjobs.client.answers import error_of
from hybridjobs.client.auth import BearerAuth
from hybridjobs.client.stream import follow
from hybridjobs.client.values import (
    BatchJob,
    Job,
    JobEvent,
    JobTree,
    Missed,
    TreeJob,
    counts_of,
)
from hybridjobs.errors import ConfigurationError, InvalidInput, Unavailable
from hybridjobs.model import Callback, OnDependencyFailure, Status, UniqueWhile

if TYPE_CHECKING:
    from psycopg import AsyncConnection

_SUBMIT = """
SELECT hybridjobs.submit_job(
    type => %(type)s, payload => %(payload)s::jsonb, key => %(key)s,
    priority => %(priority)s::integer, run_at => %(run_at)s::timestamptz,
    deadline_seconds => %(deadline_seconds)s::integer, max_retries => %(max_retries)s::integer,
    unique_key => %(unique_key)s, unique_while => %(unique_while)s,
    depends_on => %(depends_on)s::uuid[], on_dependency_failure => %(on_dependency_failure)s,
    callback => %(callback)s::jsonb)
"""
_TIMEOUT_SECONDS = 30.0
_BATCH_SECONDS = 120.0


class Batch:
    """Jobs that were submitted together."""

    def __init__(self, client: "Client", batch_id: UUID, total: int) -> None:
        self._client = client
        self.id = batch_id
        self.total = total

    async def counts(self) -> dict[Status, int]:
        """How many of its jobs are in each status."""
        return counts_of(await self._client._request("GET", f"/api/batches/{self.id}"))

    async def follow(self) -> AsyncGenerator[dict[Status, int], None]:
        """The counts, now and after each change, until every job is over."""
        async with aclosing(self._client._follow(f"/api/batches/{self.id}/events")) as seen:
            async for _, document, _ in seen:
                yield counts_of(document)
                if document["finished"]:
                    return

    async def wait(self, timeout: float | None = None) -> dict[Status, int]:  # noqa: ASYNC109
        """The counts when every job is over; TimeoutError after `timeout` seconds."""
        counts: dict[Status, int] = {}
        async with asyncio.timeout(timeout), aclosing(self.follow()) as seen:
            async for each in seen:
                counts = each
        return counts


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
            # Whoever follows has a connection all the while: nobody waits for another's end.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
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
        return Job.of(await self._request("GET", f"/api/jobs/{job_id}"))

    async def tree(self, job_id: UUID, *, depth: int = 32, width: int = 10_000) -> JobTree:
        """The job and its descendants: as many levels, and as many children of each, as asked for.

        InvalidInput (404) where there is no such job.
        """
        query = f"/api/jobs/{job_id}/tree?depth={depth}&width={width}"
        page = await self._request("GET", query)
        jobs = [TreeJob.of(each) for each in page["jobs"]]
        while page["next"] is not None:
            page = await self._request("GET", f"{query}&after={page['next']}")
            jobs += [TreeJob.of(each) for each in page["jobs"]]
        return JobTree(jobs, counts_of(page), page["complete"])

    async def follow(self, job_id: UUID) -> AsyncGenerator[JobEvent, None]:
        """The job, now and after each change, until it is over; InvalidInput (404): it is gone.

        A service that is away is Unavailable at the start, and later after five minutes; shorter
        cuts do not show. So it is with all that follows.
        """
        async with aclosing(self._follow(f"/api/jobs/{job_id}/events")) as seen:
            async for _, document, position in seen:
                event = JobEvent.of(document, position)
                yield event
                if event.status.is_terminal:
                    return

    async def follow_all(
        self,
        *,
        type_: str | None = None,
        statuses: Collection[Status] = (),
        after: str = "",
    ) -> AsyncGenerator[JobEvent | Missed, None]:
        """Every job after each change, from now or that position on; has no end.

        With `type_` and `statuses`, of those jobs alone.
        """
        query = {} if type_ is None else {"type": type_}
        if statuses:
            query["status"] = ",".join(status.value for status in statuses)
        async with aclosing(self._follow("/api/events", query=query, after=after)) as seen:
            async for name, document, position in seen:
                yield Missed(position) if name == "reset" else JobEvent.of(document, position)

    async def wait(self, job_id: UUID, timeout: float | None = None) -> Job:  # noqa: ASYNC109
        """The job when it is over; TimeoutError after `timeout` seconds."""
        async with asyncio.timeout(timeout):
            while True:
                async with aclosing(self.follow(job_id)) as seen:
                    async for _ in seen:
                        pass
                job = await self.job(job_id)
                # Else somebody has it run once more.
                if job.status.is_terminal:
                    return job

    async def cancel(self, job_id: UUID) -> Status:
        """Cancel a queued job, ask a running one to end; InvalidInput (409) if it is over.

        Returns the status that the job has now: a running one keeps its own until it has ended.
        """
        return Status((await self._request("POST", f"/api/jobs/{job_id}/cancel"))["status"])

    async def retry(self, job_id: UUID) -> None:
        """Run a failed or cancelled job once more; InvalidInput (409) if it is neither."""
        await self._request("POST", f"/api/jobs/{job_id}/retry")

    async def _follow(
        self, path: str, *, query: Mapping[str, str] | None = None, after: str = ""
    ) -> AsyncGenerator[tuple[str, dict[str, Any], str], None]:
        """The name, data and position of each event, and of none twice."""
        self._check_url()
        # What came since the last position comes again after a cut.
        told: dict[str, str] = {}
        position = after
        stream = follow(self._http, path, query=query or {}, after=after)
        async with aclosing(stream) as events:
            async for event in events:
                document: dict[str, Any] = codec.loads(event.data)
                id_ = document.get("id", "")
                if id_ and told.get(id_) == event.data:
                    continue
                if event.position != position:
                    position = event.position
                    told.clear()
                told[id_] = event.data
                yield event.name, document, position

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        seconds: float = _TIMEOUT_SECONDS,
    ) -> dict[str, Any]:
        self._check_url()
        content = None if body is None else _text(body)
        try:
            response = await self._http.request(method, path, content=content, timeout=seconds)
        except httpx.TransportError as error:
            raise Unavailable(f"{self._url} does not answer: {error!r}") from error
        if response.is_success:
            with suppress(ValueError):
                answer: dict[str, Any] = codec.loads(response.text)
                return answer
        raise error_of(response)

    def _check_url(self) -> None:
        if not self._url:
            raise ConfigurationError("the client has no url: give one, or set HYBRIDJOBS_API_URL")


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
        text = codec.dumps(value)
        text.encode()
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the payload is not JSON: {error}") from None
    return text
