"""What our webhooks are measured against: a Starlette endpoint that does nothing.

It reads the body and answers like ours, in a process set up like ours: the same server, loop and
collector. `python -m bench.baseline PORT`
"""

import gc
import sys

import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hybridjobs.ingress.app import GC_THRESHOLDS
from hybridjobs.ingress.listeners import webhook_server
from hybridjobs.settings import IngressSettings

ANSWER = {
    "jobs": [
        {
            "id": "019ab1cd-5b0e-7c11-9d3f-0123456789ab",
            "type": "bench/long",
            "status": "queued",
            "url": "/api/jobs/019ab1cd-5b0e-7c11-9d3f-0123456789ab",
        }
    ]
}


PATHS = (
    "/webhooks/github",
    "/webhooks/cloudevents",
    "/webhooks/standard/bench",
    "/api/inngest",
    "/api/jobs",
)


async def webhook(request: Request) -> Response:
    await request.body()
    return JSONResponse(ANSWER, status_code=202)


def main(port: int) -> None:
    timeout = IngressSettings.model_fields["body_timeout_seconds"].default
    app = Starlette(routes=[Route(path, webhook, methods=["POST"]) for path in PATHS])
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    listener = webhook_server(app, host="127.0.0.1", port=port, request_timeout_seconds=timeout)
    uvloop.run(listener.serve())


if __name__ == "__main__":
    main(int(sys.argv[1]))
