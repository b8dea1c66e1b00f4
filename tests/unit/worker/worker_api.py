"""A worker API over a real socket, with its faults: what a pod's worker talks to in tests."""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid4

TOKEN = "token-1"


@dataclass
class Request:
    """One that arrived: its path below the attempt, and its body's value."""

    method: str
    path: str
    body: Any
    text: str
    token: str | None
    traceparent: str | None
    answer: int


@dataclass
class WorkerApiServer:
    """One attempt's corner. Faults are set as (path, status, how often)."""

    job_id: UUID = field(default_factory=uuid4)
    attempt: int = 1
    payload: str = "{}"
    saved: str | None = None
    cancel_requested: bool = False
    closed: bool = False
    max_result_bytes: int = 1 << 20
    token: str = TOKEN
    requests: list[Request] = field(default_factory=list)
    _faults: list[list[Any]] = field(default_factory=list)

    def fail(self, path: str, status: int, times: int = 1) -> None:
        """Answer with `status`, or for 0 hang up after the request took effect."""
        self._faults.append([path, status, times])

    def seen(self, path: str, *, answered: int | None = None) -> list[Any]:
        """The bodies that came to a path."""
        return [
            request.body
            for request in self.requests
            if request.path == path and answered in (None, request.answer)
        ]

    def wait_for(self, path: str, body: Any = ..., times: int = 1) -> None:
        """Return when that was requested that often."""

        def has_come() -> bool:
            return len([each for each in self.seen(path) if body in (..., each)]) >= times

        with self._changed:
            assert self._changed.wait_for(has_come, timeout=30), self.requests

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._changed = threading.Condition()
        self.start()
        return self

    def start(self, port: int = 0) -> None:
        owner = self

        class Handler(_Handler):
            api = owner

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> int:
        """Go away; the port that was served."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        return self._server.server_port

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def answer(self, request: Request) -> tuple[int, str | None]:
        """Status and body for a request, and what it changes."""
        if request.token != f"Bearer {self.token}":
            return 401, json.dumps({"detail": "the token is not known"})
        fault = self._fault(request.path)
        if fault:
            return fault, json.dumps({"detail": "as the test asked for"})
        if self.closed:
            return 409, json.dumps({"detail": "the attempt is closed"})
        status, body = self._act(request)
        return (0, None) if fault == 0 else (status, body)

    def _fault(self, path: str) -> int | None:
        for fault in self._faults:
            if fault[0] == path and fault[2] > 0:
                fault[2] -= 1
                status: int = fault[1]
                return status
        return None

    def _act(self, request: Request) -> tuple[int, str | None]:
        match request.method, request.path:
            case "GET", "payload":
                return 200, self.payload
            case "GET", "checkpoint":
                return (204, None) if self.saved is None else (200, self.saved)
            case "PUT", "checkpoint":
                self.saved = request.text
                return 204, None
            case "PUT", "progress":
                return 204, None
            case "PUT", "heartbeat":
                return 200, json.dumps({"cancelRequested": self.cancel_requested})
            case "PUT", "outcome":
                if len(request.text) > self.max_result_bytes:
                    return 413, json.dumps({"detail": "the result is too large"})
                if "result" in request.body:
                    self.closed = True
                return 204, None
            case "POST", "jobs":
                if request.body["type"] == "unknown":
                    return 422, json.dumps({"detail": "there is no job type 'unknown'"})
                return 201, json.dumps({"jobId": str(UUID(int=len(self.seen("jobs"))))})
        return 404, None

    def record(self, request: Request) -> None:
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()


class _Handler(BaseHTTPRequestHandler):
    api: WorkerApiServer
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        text = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        prefix = f"/worker/v1/attempts/{self.api.job_id}/{self.api.attempt}/"
        request = Request(
            self.command,
            self.path.removeprefix(prefix),
            json.loads(text) if text else None,
            text,
            self.headers.get("authorization"),
            self.headers.get("traceparent"),
            0,
        )
        request.answer, body = self.api.answer(request)
        self.api.record(request)
        if request.answer == 0:
            self.close_connection = True
            return
        content = (body or "").encode()
        self.send_response(request.answer)
        self.send_header("content-type", "application/json")
        if request.answer != 204:
            self.send_header("content-length", str(len(content)))
        self.end_headers()
        if request.answer != 204:
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = _serve  # noqa: N815 - http.server's names

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - http.server's
        pass


def token_file(folder: Path) -> Path:
    path = folder / "token"
    path.write_text(TOKEN)
    return path
