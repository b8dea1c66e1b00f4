"""What a handler knows of its job, and what it can tell the outside while it runs."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from hybridjobs import codec
from hybridjobs.sdk.values import to_json

if TYPE_CHECKING:
    import httpx
    import structlog

HTTP_TIMEOUT_SECONDS = 30.0


class Channel(Protocol):
    """The way from a context to whoever runs the handler. JSON crosses it as text."""

    async def progress(self, done: int, total: int | None, message: str | None) -> None:
        """Make the progress known; may leave out all but the latest."""

    async def save_checkpoint(self, text: str) -> None:
        """Keep the checkpoint for the next attempt."""

    async def submit(self, type_: str, payload: str, key: str | None, priority: int | None) -> UUID:
        """Enqueue a child job and return its id."""


class Context:
    """One attempt of one job, as its handler sees it.

    `deadline` is when the attempt is ended at the latest (UTC). `attempt` counts from 1.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        job_id: UUID,
        type: str,  # noqa: A002 - the word for it everywhere
        attempt: int,
        deadline: datetime,
        checkpoint: Any = None,  # noqa: ANN401 - JSON is any
        traceparent: str | None = None,
        http: "httpx.AsyncClient | None" = None,
    ) -> None:
        self.job_id = job_id
        self.type = type
        self.attempt = attempt
        self.deadline = deadline
        self.traceparent = traceparent
        self._channel = channel
        self._checkpoint = checkpoint
        self._http = http
        self._owns_http = http is None
        self._log: structlog.typing.BindableLogger | None = None

    async def progress(
        self, done: int, total: int | None = None, message: str | None = None
    ) -> None:
        """Say how far the work has come. Cheap: of several in a second, the last one is sent."""
        await self._channel.progress(done, total, message)

    @property
    def checkpoint(self) -> Any:  # noqa: ANN401 - JSON is any
        """The JSON value saved last, by this attempt or an earlier one; None when there is none."""
        return self._checkpoint

    async def save_checkpoint(self, value: object) -> None:
        """Keep a JSON value, from which the next attempt can go on.

        Returns when it is saved; while the service is away, when it is held to be saved as soon as
        that is possible. PermanentError where the value is refused, as when it is too large.
        """
        text = to_json(value)
        await self._channel.save_checkpoint(text)
        self._checkpoint = codec.loads(text)

    async def submit(
        self,
        type: str,  # noqa: A002 - the word for it everywhere
        payload: object,
        key: str | None = None,
        priority: int | None = None,
    ) -> UUID:
        """Enqueue a job of another type and return its id.

        The same `key` gives the same job: with one, a retried attempt submits nothing twice.
        PermanentError where the job is refused, as for an unknown type.
        """
        return await self._channel.submit(type, to_json(payload), key, priority)

    @property
    def log(self) -> Any:  # noqa: ANN401 - structlog's loggers are made at run time
        """A structlog logger that names the job: JSON lines on standard error."""
        if self._log is None:
            from hybridjobs.sdk.log import job_logger

            self._log = job_logger(
                job_id=str(self.job_id), job_type=self.type, attempt=self.attempt
            )
        return self._log

    @property
    def http(self) -> "httpx.AsyncClient":
        """A client for HTTP, opened at first use and closed when the handler has ended."""
        if self._http is None:
            import httpx

            self._http = httpx.AsyncClient(timeout=HTTP_TIMEOUT_SECONDS)
        return self._http

    async def aclose(self) -> None:
        """Close what the handler had opened through this context."""
        if self._http is not None and self._owns_http:
            await self._http.aclose()
