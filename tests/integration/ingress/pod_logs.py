"""The API server's log endpoint, for an ingress that has no cluster here."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hybridjobs.serving import server
from tests.waiting import eventually

_PATH = "/api/v1/namespaces/{namespace}/pods/{pod}/log"


@dataclass
class LogServer:
    """Serves `logs`, by namespace and pod; a `status` over 400 is what it answers instead."""

    kubeconfig: Path
    logs: dict[str, bytes] = field(default_factory=dict)
    status: int = 200

    async def read(self, request: Request) -> Response:
        if self.status >= 400:
            return JSONResponse({"reason": "Unavailable", "message": ""}, self.status)
        assert request.query_params["container"] == "main"
        name = "{namespace}/{pod}".format(**request.path_params)
        if name not in self.logs:
            return JSONResponse({"reason": "NotFound", "message": "no such pod"}, 404)
        lines = self.logs[name].splitlines(keepends=True)
        return Response(b"".join(lines[-int(request.query_params["tailLines"]) :]))


@asynccontextmanager
async def log_server(folder: Path) -> AsyncIterator[LogServer]:
    """One that a kubeconfig in the folder leads to."""
    logs = LogServer(folder / "kubeconfig")
    serving = server(Starlette(routes=[Route(_PATH, logs.read)]), host="127.0.0.1", port=0)
    task = asyncio.create_task(serving.serve())
    await eventually(lambda: serving.started)
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [
            {"name": "here", "cluster": {"server": f"http://127.0.0.1:{serving.port}"}},
        ],
        "users": [{"name": "me", "user": {}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
    }
    logs.kubeconfig.write_text(yaml.safe_dump(document))
    try:
        yield logs
    finally:
        serving.should_exit = True
        await task
