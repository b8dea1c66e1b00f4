"""The worker API (:8082) as a client: one attempt's own corner of it.

ApiError
 ├─ Fenced        409: the attempt is closed
 ├─ Refused       any other 4xx: asking again cannot help
 └─ Unreachable   no answer of use within the time given

Blocking, and safe to use from several threads: heartbeats go on while a handler holds the event
loop.
"""

import random
import ssl
from threading import Event
from time import monotonic
from typing import Self
from uuid import UUID

import httpx

from hybridjobs import codec
from hybridjobs.worker.assignment import Assignment

_TIMEOUT = httpx.Timeout(10, connect=5)
_BACKOFF_SECONDS = 0.2
_MAX_BACKOFF_SECONDS = 5.0
# A token may be not yet valid by the server's clock, or its keys not yet known there.
_TRY_AGAIN = frozenset((401, 403, 408, 429))
# After these the server may have done what was asked for.
_IN_DOUBT = (httpx.ReadError, httpx.ReadTimeout, httpx.WriteError, httpx.RemoteProtocolError)


class ApiError(Exception):
    """The root of this tree."""


class Fenced(ApiError):  # noqa: N818 - a state, named as one
    """The attempt is closed. `in_doubt`: an earlier try of the request may have closed it."""

    def __init__(self, *, in_doubt: bool) -> None:
        super().__init__("the attempt is closed")
        self.in_doubt = in_doubt


class Refused(ApiError):  # noqa: N818 - named for what the server did
    """The request is wrong, by the server's word."""


class Unreachable(ApiError):  # noqa: N818 - a state, named as one
    """The API gave no answer of use; the message holds the last one."""


class WorkerApi:
    """Requests of one attempt."""

    def __init__(self, assignment: Assignment) -> None:
        self._base = (
            f"{assignment.api.rstrip('/')}/worker/v1/attempts"
            f"/{assignment.job_id}/{assignment.attempt}"
        )
        self._token_file = assignment.token_file
        self._hurried = Event()
        headers = {"traceparent": assignment.traceparent} if assignment.traceparent else {}
        self._client = httpx.Client(
            timeout=_TIMEOUT, trust_env=False, headers=headers, verify=_tls(assignment.api)
        )

    def __enter__(self) -> Self:
        return self

    def hurry(self) -> None:
        """Wait no more before another try: from now on each request gets one."""
        self._hurried.set()

    def __exit__(self, *_: object) -> None:
        self.hurry()
        self._client.close()

    def payload(self, url: str, patience_seconds: float) -> str:
        """The payload's JSON text."""
        return self._request("GET", url, None, patience_seconds).text

    def checkpoint(self, patience_seconds: float) -> str | None:
        """The JSON text that an earlier attempt saved last."""
        answer = self._request("GET", f"{self._base}/checkpoint", None, patience_seconds)
        return None if answer.status_code == httpx.codes.NO_CONTENT else answer.text

    def save_checkpoint(self, text: str) -> None:
        """Keep a checkpoint. One try."""
        self._request("PUT", f"{self._base}/checkpoint", text, 0)

    def progress(self, document: str) -> None:
        """Make progress known: `{"done", "total", "message"}` as JSON text. One try."""
        self._request("PUT", f"{self._base}/progress", document, 0)

    def heartbeat(self) -> bool:
        """Say that the attempt lives; whether its cancellation is asked for. One try."""
        answer = self._request("PUT", f"{self._base}/heartbeat", None, 0)
        return _member(answer, "cancelRequested") is True

    def outcome(self, document: str, patience_seconds: float) -> None:
        """Report how the attempt ended: `{"result": …}` or `{"error": …}` as JSON text."""
        self._request("PUT", f"{self._base}/outcome", document, patience_seconds)

    def submit(self, document: str, patience_seconds: float) -> UUID:
        """Enqueue a child job; its id."""
        answer = self._request("POST", f"{self._base}/jobs", document, patience_seconds)
        try:
            return UUID(str(_member(answer, "jobId")))
        except ValueError as error:
            raise Unreachable(f"the worker API's answer is no job id: {error}") from None

    def _request(
        self, method: str, url: str, body: str | None, patience_seconds: float
    ) -> httpx.Response:
        """The answer, 2xx. Tries again with backoff until `patience_seconds` have passed."""
        give_up = monotonic() + patience_seconds
        backoff = _BACKOFF_SECONDS
        in_doubt = False
        while True:
            wait = backoff * random.uniform(0.5, 1)  # noqa: S311 - jitter
            try:
                answer = self._send(method, url, body)
            except httpx.TransportError as error:
                in_doubt |= isinstance(error, _IN_DOUBT)
                trouble = f"{type(error).__name__}: {error}"
            else:
                if answer.is_success:
                    return answer
                if answer.status_code == httpx.codes.CONFLICT:
                    raise Fenced(in_doubt=in_doubt)
                trouble = f"{answer.status_code} {_detail(answer)}"
                if not answer.is_server_error and answer.status_code not in _TRY_AGAIN:
                    raise Refused(trouble)
                # 503 says that nothing was done; another 5xx does not.
                in_doubt |= answer.is_server_error and answer.status_code != 503
                wait = max(wait, min(_retry_after(answer), _MAX_BACKOFF_SECONDS))
            if monotonic() + wait > give_up or self._hurried.wait(wait):
                raise Unreachable(f"the worker API does not answer: {trouble}")
            backoff = min(backoff * 2, _MAX_BACKOFF_SECONDS)

    def _send(self, method: str, url: str, body: str | None) -> httpx.Response:
        headers = {}
        try:
            # The kubelet replaces the file before the token in it expires.
            headers["authorization"] = f"Bearer {self._token_file.read_text().strip()}"
        except OSError as error:
            raise httpx.TransportError(f"cannot read the token: {error}") from error
        if body is not None:
            headers["content-type"] = "application/json"
        content = None if body is None else body.encode()
        return self._client.request(method, url, content=content, headers=headers)


def _tls(api: str) -> ssl.SSLContext | bool:
    # Reading the system's authorities takes tens of milliseconds, for nothing without TLS. This
    # context trusts nobody.
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if api.startswith("http://") else True


def _member(answer: httpx.Response, name: str) -> object:
    try:
        return codec.loads(answer.content)[name]
    except (ValueError, TypeError, KeyError) as error:
        raise Unreachable(f"the worker API's answer has no {name}: {error!r}") from None


def _detail(answer: httpx.Response) -> str:
    """What a problem (RFC 9457) says, or the beginning of anything else."""
    try:
        detail = codec.loads(answer.content)["detail"]
    except (ValueError, TypeError, KeyError):
        detail = answer.text
    return str(detail)[:500]


def _retry_after(answer: httpx.Response) -> float:
    try:
        return float(answer.headers.get("retry-after", 0))
    except ValueError:
        return 0.0
