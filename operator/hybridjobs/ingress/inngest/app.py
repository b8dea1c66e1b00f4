"""What the SDK serves: the functions of the job types that there are, kept up with them."""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from operator import is_
from time import time
from urllib.parse import urlsplit

import fastapi
import inngest.fast_api
import orjson
from starlette.types import Message, Scope

from hybridjobs.errors import HybridJobsError
from hybridjobs.ingress.asgi import Header, traceparent
from hybridjobs.ingress.inngest.config import InngestConfig
from hybridjobs.ingress.inngest.functions import functions, shape_of
from hybridjobs.ingress.inngest.runs import Runs
from hybridjobs.ingress.inngest.sdk import Sdk
from hybridjobs.ingress.inngest.signature import sign
from hybridjobs.model import JobType

PATH = "/api/inngest"

_PLACEHOLDER = "http://hybridjobs.invalid"  # where an origin must be, and none is used
_traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)


class SyncRefused(HybridJobsError):  # noqa: N818 - named for what Inngest did
    """Inngest does not take our functions, or does not answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the SDK answers."""

    status: int
    headers: tuple[Header, ...]
    body: bytes


class InngestApp:
    """The SDK's application. Its functions follow the types; `version` counts their sets."""

    version = 0

    def __init__(self, sdk: Sdk, config: InngestConfig, runs: Runs) -> None:
        self._sdk = sdk
        self._config = config
        self._runs = runs
        self._seen: Sequence[JobType] | None = None
        self._shape: object = None
        self._following = asyncio.Lock()
        self._app: fastapi.FastAPI

    async def follow(self, types: Sequence[JobType]) -> None:
        """Have the functions of these types, and no other."""
        if self._seen is not None and _are_same(types, self._seen):
            return
        shape = [found for each in types if (found := shape_of(each, self._config.others))]
        async with self._following:
            if shape != self._shape:
                self._app = await self._sdk.there(self._serving(types))
                self._shape = shape
                self.version += 1
            self._seen = types

    async def answer(self, scope: Scope, body: bytes) -> Reply:
        """The answer to one request, which the endpoint has verified; `follow` came before."""
        return await self._sdk.there(self._answer(scope, body))

    async def sync(self) -> None:
        """Have Inngest know the functions; SyncRefused says why it does not.

        By way of our own endpoint, as if Inngest had asked for it.
        """
        headers: list[Header] = []
        origin = urlsplit(self._config.serve_origin or _PLACEHOLDER)
        headers.append((b"host", origin.netloc.encode()))
        if self._config.secrets:
            signature = sign(self._config.secrets[0], b"", now=time())
            headers.append((b"x-inngest-signature", signature.encode()))
        scope = {"method": "PUT", "scheme": origin.scheme, "query_string": b"", "headers": headers}
        reply = await self.answer(scope, b"")
        if reply.status != 200:
            raise SyncRefused(_said(reply.body))

    async def _serving(self, types: Sequence[JobType]) -> fastapi.FastAPI:
        made = functions(
            self._sdk.client,
            types,
            self._runs,
            self._sdk.here,
            others=self._config.others,
            traceparent=_traceparent.get,
        )
        app = fastapi.FastAPI(openapi_url=None)
        inngest.fast_api.serve(
            app,
            self._sdk.client,
            made,
            enable_unauthed_sync=False,
            serve_origin=self._config.serve_origin,
            serve_path=PATH,
            streaming=inngest.Streaming.DISABLE,
        )
        return app

    async def _answer(self, scope: Scope, body: bytes) -> Reply:
        _traceparent.set(traceparent(dict(scope["headers"])))
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        await self._app(_own(scope), receive, send)
        start, *parts = sent
        headers = tuple((name, value) for name, value in start["headers"] if name != _LENGTH)
        reply = Reply(start["status"], headers, b"".join(part.get("body", b"") for part in parts))
        if scope["method"] == "PUT" and reply.status == 200 and _is_refusal(reply.body):
            # The SDK passes Inngest's refusal on as a success.
            return replace(reply, status=500)
        return reply


_LENGTH = b"content-length"


def _are_same(types: Sequence[JobType], others: Sequence[JobType]) -> bool:
    """Whether these are the very same objects: asked at every call, of hundreds of types."""
    return len(types) == len(others) and all(map(is_, types, others))


def _own(scope: Scope) -> Scope:
    """The request for an application of its own."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": scope["method"],
        "scheme": scope["scheme"],
        "path": PATH,
        "raw_path": PATH.encode(),
        "root_path": "",
        "query_string": scope["query_string"],
        "headers": scope["headers"],
        "server": None,
        "client": None,
    }


def _is_refusal(body: bytes) -> bool:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return True
    return isinstance(document, dict) and ("error" in document or document.get("ok") is False)


def _said(body: bytes) -> str:
    """What Inngest or the SDK gave for a reason."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "an answer that is not JSON"
    if not isinstance(document, dict):
        return "an answer that is no object"
    return str(document.get("error") or document.get("message") or "no reason given")[:500]
