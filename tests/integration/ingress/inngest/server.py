"""An Inngest server for tests: what of its protocol concerns an app, over real sockets.

It is built from the SDK's specification and from what was observed of a server: ops of one answer
are taken in with waits before steps, no event is kept for waits to come, an event id is taken once,
a 2xx without the SDK's header is a failure, steps are retried, also when nobody answers. Times are
left out: retries come after `retry_seconds`, sleeps last `sleep_seconds`, waits last until
`expire_waits`. Signatures are its own code's, not the app's.
"""

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

import httpx
import jcs
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from hybridjobs.serving import server
from tests.waiting import eventually

Json = dict[str, Any]
MAX_ATTEMPTS = 4
_MATCH = re.compile(r"async\.data\.run_id == '([^']+)'")


@dataclass
class Wait:
    """A wait of a run; its future is the event, or None when it has timed out."""

    event: str
    run_id: str
    found: asyncio.Future[Json | None]


@dataclass
class Run:
    """One run of a function."""

    id: str
    function: Json
    event: Json
    steps: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)  # of the steps, in the order of their ends
    status: str = "running"
    output: Any = None
    calls: int = 0
    task: asyncio.Task[None] | None = None

    async def ended(self) -> Self:
        assert self.task is not None
        await asyncio.wait([self.task], timeout=40)
        return self


class ProtocolError(Exception):
    """The app broke the protocol."""


class InngestServer:
    """The server's state. `keys` are its signing keys: the first signs."""

    def __init__(self, *keys: str, event_key: str) -> None:
        self.keys = [re.sub(r"^signkey-\w+-", "", key) for key in keys]
        self.event_key = event_key
        self.origin = ""
        self.app_at: str | None = None  # the app's origin from here, where it has another one
        self.registrations: list[Json] = []
        self.bearers: list[str] = []
        self.events: list[Json] = []
        self.event_ids: list[str] = []  # of all that came to the event API, also if refused
        self.runs: list[Run] = []
        self.refuse_events = 0  # that many requests of the event API are answered so:
        self.refusal: tuple[int, Json] = (400, {"status": 400, "error": "not today"})
        self.refuse_registrations = 0
        self.redeliver = False  # every call is made twice
        self.use_api = False  # calls are too large to hold their events and steps
        self.fetched: list[str] = []  # by the app, for such calls
        self.refuse_fetches = 0
        self.rediscover = False  # the app is asked anew after every step, not only after the last
        self.attempts = MAX_ATTEMPTS
        self.retry_seconds = self.sleep_seconds = 0.0
        self._waits: list[Wait] = []
        self._seen: set[str] = set()
        self._client = httpx.AsyncClient(timeout=60)

    @property
    def functions(self) -> dict[str, Json]:
        return {each["id"]: each for each in self.registrations[-1]["functions"]}

    def send(self, name: str, data: Json, event_id: str | None = None) -> list[Run]:
        """Take in an event; the runs that it starts."""
        event_id = event_id or secrets.token_hex(8)
        if event_id in self._seen:
            return []
        self._seen.add(event_id)
        event = {"name": name, "data": data, "id": event_id, "ts": int(time.time() * 1000)}
        self.events.append(event)
        for wait in self._waits.copy():
            if wait.event == name and data.get("run_id") == wait.run_id:
                self._resolve(wait, event)
        if not self.registrations:
            return []
        return [
            self.start(function, event)
            for function in self.functions.values()
            if any(trigger.get("event") == name for trigger in function["triggers"])
        ]

    def cancel(self, run: Run) -> list[Run]:
        """Cancel a run; the runs that its event starts."""
        assert run.task is not None
        run.task.cancel()
        run.status = "cancelled"
        data = {"run_id": run.id, "function_id": run.function["id"], "event": run.event}
        return self.send("inngest/function.cancelled", data)

    def expire_waits(self) -> int:
        """Let every wait time out; how many there were."""
        waits = self._waits.copy()
        for wait in waits:
            self._resolve(wait, None)
        return len(waits)

    def wait_for(self, event: str, run_id: str) -> Wait:
        wait = Wait(event, run_id, asyncio.get_running_loop().create_future())
        self._waits.append(wait)
        return wait

    def sign(self, body: bytes, *, key: int = 0, moment: float | None = None) -> str:
        stamp = str(int(time.time() if moment is None else moment))
        digest = hmac.new(self.keys[key].encode(), body + stamp.encode(), hashlib.sha256)
        return f"t={stamp}&s={digest.hexdigest()}"

    async def close(self) -> None:
        for run in self.runs:
            if run.task is not None:
                run.task.cancel()
        tasks = [run.task for run in self.runs if run.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/fn/register", self._register, methods=["POST"]),
                Route("/e/{key}", self._event_api, methods=["POST"]),
                Route("/v0/runs/{run_id}/{what}", self._run_api, methods=["GET"]),
            ]
        )

    async def _register(self, request: Request) -> JSONResponse:
        if not self._is_app(request):
            return JSONResponse({"error": "unauthorized"}, 401)
        if self.refuse_registrations:
            self.refuse_registrations -= 1
            return JSONResponse({"error": "not today"}, 400)
        document = await request.json()
        modified = not self.registrations or self.registrations[-1] != document
        self.registrations.append(document)
        return JSONResponse({"ok": True, "modified": modified, "sync_id": "s", "app_id": "a"})

    def _is_app(self, request: Request) -> bool:
        bearer = request.headers["authorization"].removeprefix("Bearer ")
        self.bearers.append(bearer)
        return bearer in {hashlib.sha256(bytes.fromhex(key)).hexdigest() for key in self.keys}

    async def _run_api(self, request: Request) -> JSONResponse:
        if not self._is_app(request):
            return JSONResponse({"error": "unauthorized"}, 401)
        what, run_id = request.path_params["what"], request.path_params["run_id"]
        found = next((run for run in self.runs if run.id == run_id), None)
        if found is None:
            return JSONResponse({"error": "runtime state is no longer available"}, 410)
        self.fetched.append(what)
        if self.refuse_fetches:
            self.refuse_fetches -= 1
            return JSONResponse({"error": "not today"}, 503)
        return JSONResponse({"batch": [found.event], "actions": found.steps}[what])

    async def _event_api(self, request: Request) -> JSONResponse:
        if request.path_params["key"] != self.event_key:
            return JSONResponse({"status": 401, "error": "Event key not found"}, 401)
        given = await request.json()
        events = given if isinstance(given, list) else [given]
        ids = [event.get("id") or secrets.token_hex(8) for event in events]
        self.event_ids += ids
        if self.refuse_events:
            self.refuse_events -= 1
            status, document = self.refusal
            return JSONResponse(document, status)
        for event, event_id in zip(events, ids, strict=True):
            self.send(event["name"], event.get("data") or {}, event_id)
        return JSONResponse({"ids": ids, "status": 200})

    def _resolve(self, wait: Wait, event: Json | None) -> None:
        self._waits.remove(wait)
        if not wait.found.done():
            wait.found.set_result(event)

    def start(self, function: Json, event: Json) -> Run:
        run = Run(f"01{secrets.token_hex(12).upper()}", function, event)
        run.task = asyncio.create_task(self.execute(run))
        self.runs.append(run)
        return run

    async def execute(self, run: Run) -> None:
        parallel = False
        while True:
            status, body = await self._attempted(run, "step", parallel=parallel)
            if status == 200:
                run.status, run.output = "completed", body
                return
            if status != 206:
                run.status, run.output = "failed", body
                return
            parallel = len(body) > 1
            pending = []
            # Waits first, so that what the steps bring about finds them.
            for op in sorted(body, key=lambda op: str(op["op"]) != "WaitForEvent"):
                if op["op"] == "WaitForEvent":
                    [run_id] = _MATCH.findall(op["opts"]["if"])
                    assert re.fullmatch(r"[0-9]+[smhdw]", op["opts"]["timeout"])
                    wait = self.wait_for(op["name"], run_id)
                    pending.append(self._waited(run, op, wait))
                elif op["op"] == "StepPlanned":
                    pending.append(self._stepped(run, op))
                else:
                    if op["op"] == "Sleep":
                        await asyncio.sleep(self.sleep_seconds)
                    self.memoize(run, op)
            if (failure := await _first_failure(pending)) is not None:
                run.status, run.output = "failed", failure
                return

    async def _waited(self, run: Run, op: Json, wait: Wait) -> None:
        run.steps[op["id"]] = await wait.found
        run.names.append(op["displayName"])
        await self._rediscovered(run)

    async def _stepped(self, run: Run, op: Json) -> Any:
        status, body = await self._attempted(run, op["id"], parallel=True)
        if status != 206:
            return body
        [done] = body
        self.memoize(run, done)
        await self._rediscovered(run)
        return None

    async def _rediscovered(self, run: Run) -> None:
        """Ask what there is to do while a step may be under way; what is known changes nothing."""
        if self.rediscover:
            answer = await self.call(run, "step", attempt=0, parallel=True)
            if answer.status_code not in (200, 206):
                raise ProtocolError(f"{answer.status_code} for a call between two steps")

    def memoize(self, run: Run, op: Json) -> None:
        if op["op"] == "Sleep":
            run.steps[op["id"]] = None
        elif op["op"] == "StepRun":
            run.steps[op["id"]] = {"data": op["data"]}
        else:
            raise ProtocolError(f"unexpected op {op}")
        run.names.append(op["displayName"])

    async def _attempted(self, run: Run, step: str, *, parallel: bool) -> tuple[int, Any]:
        """The answer to a call, repeated as long as the app asks for that."""
        last: tuple[int, Any] = (0, "nobody answered")
        for attempt in range(self.attempts):
            if attempt:
                await asyncio.sleep(self.retry_seconds)
            try:
                answer = await self.call(run, step, attempt=attempt, parallel=parallel)
            except httpx.TransportError:
                continue
            if self.redeliver:
                again = await self.call(run, step, attempt=attempt, parallel=parallel)
                if answer.status_code < 300:
                    answer = again
            last = answer.status_code, answer.json()
            if answer.status_code in (200, 206):
                break
            if answer.headers.get("x-inngest-no-retry") == "true":
                break
        return last

    async def call(self, run: Run, step: str, *, attempt: int, parallel: bool) -> httpx.Response:
        run.calls += 1
        body = call_body(run, step, attempt=attempt, parallel=parallel, use_api=self.use_api)
        answer = await self.post(run.function, step, body)
        from_sdk = answer.headers.get("x-inngest-sdk", "").startswith("inngest-py:v")
        if answer.status_code < 300 and not from_sdk:
            raise ProtocolError("a 2xx without the SDK's header")
        if from_sdk:
            self.check_signature(answer)
            if answer.headers["x-inngest-req-version"] != "2":
                raise ProtocolError("another version of the protocol")
            if after := answer.headers.get("retry-after"):
                datetime.fromisoformat(after)  # RFC 3339
        return answer

    async def post(self, function: Json, step: str, body: bytes) -> httpx.Response:
        url = httpx.URL(function["steps"]["step"]["runtime"]["url"])
        if self.app_at is not None:
            there = httpx.URL(self.app_at)
            url = url.copy_with(scheme=there.scheme, host=there.host, port=there.port)
        headers = {
            "content-type": "application/json",
            "x-inngest-signature": self.sign(body),
            "x-inngest-req-version": "-1",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        }
        return await self._client.post(
            url.copy_set_param("stepId", step), content=body, headers=headers
        )

    def check_signature(self, answer: httpx.Response) -> None:
        parts = dict(part.split("=") for part in answer.headers["x-inngest-signature"].split("&"))
        expected = hmac.new(
            self.keys[0].encode(), answer.content + parts["t"].encode(), hashlib.sha256
        )
        if expected.hexdigest() != parts["s"]:
            raise ProtocolError("the answer's signature does not fit")


async def _first_failure(steps: Sequence[Coroutine[Any, Any, Any]]) -> Any:
    """What a step failed with, as soon as one has; None when all have ended well."""
    tasks = [asyncio.create_task(step) for step in steps]
    try:
        for ended in asyncio.as_completed(tasks):
            if (failure := await ended) is not None:
                return failure
        return None
    finally:
        for task in tasks:
            task.cancel()


def call_body(run: Run, step: str, *, attempt: int, parallel: bool, use_api: bool = False) -> bytes:
    """What the server sends for a call, in canonical form.

    With `use_api` the first event stays, and what else is large is left out
    (pkg/execution/driver/driver.go in Inngest's repository).
    """
    document = {
        "ctx": {
            "attempt": attempt,
            "max_attempts": MAX_ATTEMPTS,
            "disable_immediate_execution": parallel,
            "run_id": run.id,
            "fn_id": "00000000-0000-0000-0000-000000000000",
            "step_id": step,
            "env": "test",
            "stack": {"stack": list(run.steps), "current": len(run.steps)},
            "use_api": use_api,
        },
        "event": run.event,
        "events": [] if use_api else [run.event],
        "steps": {} if use_api else run.steps,
        "use_api": use_api,
        "version": 2,
    }
    body: bytes = jcs.canonicalize(document)
    return body


@asynccontextmanager
async def inngest_server(
    *keys: str, event_key: str, host: str = "127.0.0.1"
) -> AsyncIterator[InngestServer]:
    """A server that listens."""
    inngest = InngestServer(*keys, event_key=event_key)
    listening = server(inngest.app(), host=host, port=0)
    task = asyncio.create_task(listening.serve())
    await eventually(lambda: listening.started)
    inngest.origin = f"http://{host}:{listening.port}"
    try:
        yield inngest
    finally:
        await inngest.close()
        listening.should_exit = True
        await task
