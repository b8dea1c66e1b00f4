"""One try of a delivery: a signed POST, and what came back."""

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic, time

import httpcore
import httpx

from hybridjobs import __version__
from hybridjobs.callbacks.network import GuardedNetwork, Resolve
from hybridjobs.callbacks.secrets import Secrets
from hybridjobs.callbacks.targets import Targets
from hybridjobs.errors import ConfigurationError
from hybridjobs.standard_webhooks import signed_headers
from hybridjobs.store.callbacks import Due

TRY_SECONDS = 15.0

_EXCERPT_BYTES = 1024
_EXCERPT_SECONDS = 2.0
_IDLE_SECONDS = 3.0  # many servers close after 5, and a request must not cross with that
_MAX_ERROR_LENGTH = 500
# TLS 1.3 servers refuse a client after the handshake: that comes as it is, not as httpcore's.
_FAILURES = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    ssl.SSLError,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a try brought: a status, or an `error`; `permanent`: no other try can bring more."""

    at: datetime
    duration_ms: int
    code: int | None = None
    error: str | None = None
    permanent: bool = False
    retry_after: str | None = None
    excerpt: str | None = None


@dataclass(frozen=True, slots=True)
class _Response:
    code: int
    retry_after: str | None
    excerpt: str


class Sender:
    """Sends deliveries; `close()` it. `tls` None: as the system's certificates say."""

    def __init__(
        self,
        targets: Targets,
        secrets: Secrets,
        resolve: Resolve,
        *,
        connections: int,
        try_seconds: float = TRY_SECONDS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._targets = targets
        self._secrets = secrets
        self._try_seconds = try_seconds
        # Redirects and cookies are things that this client does not know.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls or httpx.create_ssl_context(),
            max_connections=connections,
            keepalive_expiry=_IDLE_SECONDS,
            network_backend=GuardedNetwork(targets, resolve),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.aclose()

    async def send(self, due: Due) -> Answer:
        """Try once, for 15 s at most. Whatever happens out there is an Answer."""
        at, began = datetime.now(UTC), monotonic()

        def answer(**known: object) -> Answer:
            return Answer(at, int((monotonic() - began) * 1000), **known)  # type: ignore[arg-type]

        if fault := self._targets.fault_in(due.url):
            return answer(error=f"the URL {fault}", permanent=self._targets.enabled)
        try:
            keys = self._secrets.keys(due.secret)
        except ConfigurationError as error:
            return answer(error=str(error))
        try:
            async with asyncio.timeout(self._try_seconds) as limit:
                response = await self._post(due, keys, limit)
        except TimeoutError:
            return answer(error=f"no answer within {self._try_seconds:g} s")
        except _FAILURES as error:
            return answer(error=_text(_reason(error), _MAX_ERROR_LENGTH))
        return answer(
            code=response.code, retry_after=response.retry_after, excerpt=response.excerpt
        )

    async def _post(self, due: Due, keys: list[bytes], limit: asyncio.Timeout) -> _Response:
        url, body = httpx.URL(due.url), due.body.encode()
        headers = [
            ("host", url.netloc.decode("ascii")),
            ("content-type", "application/json"),
            ("user-agent", f"hybridjobs/{__version__}"),
            ("accept", "*/*"),
            ("accept-encoding", "identity"),
            *([("traceparent", due.traceparent)] if due.traceparent else []),
            *signed_headers(str(due.id), int(time()), body, keys).items(),
        ]
        target = httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
        )
        async with self._pool.stream("POST", target, headers=headers, content=body) as response:
            # The status is what was waited for; the body is read in a time of its own.
            limit.reschedule(asyncio.get_running_loop().time() + 2 * _EXCERPT_SECONDS)
            given = {name.lower(): value for name, value in response.headers}
            retry_after = given.get(b"retry-after")
            return _Response(
                response.status,
                None if retry_after is None else retry_after.decode("latin-1"),
                await _excerpt(response),
            )


async def _excerpt(response: httpcore.Response) -> str:
    """The beginning of the body; what it says matters less than the status, which is there."""
    content = b""
    with suppress(TimeoutError, *_FAILURES):
        async with asyncio.timeout(_EXCERPT_SECONDS):
            async for chunk in response.aiter_stream():
                content += chunk
                if len(content) >= _EXCERPT_BYTES:
                    break
    return _text(content[:_EXCERPT_BYTES].decode("utf-8", "replace"), _EXCERPT_BYTES)


def _reason(error: BaseException) -> str:
    """The error's kind and text; where it has none, its cause's."""
    said: BaseException | None = error
    while said is not None and not str(said):
        said = said.__cause__ or said.__context__
    return f"{type(error).__name__}: {said or 'no reason is given'}"


def _text(value: str, limit: int) -> str:
    """What Postgres can hold and a terminal can show."""
    shown = (
        each if each.isprintable() or each in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for each in value[:limit]
    )
    return "".join(shown)
