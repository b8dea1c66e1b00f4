"""The beginning of a trace: a request that may bring jobs."""

from starlette.types import ASGIApp, Receive, Scope, Send

from hybridjobs import tracing
from hybridjobs.ingress.asgi import Reply, traceparent


def traced(app: ASGIApp) -> ASGIApp:
    """The application as it is; where tracing is on, with a span for each request that it POSTs.

    What is inside finds the span as its request's `traceparent`.
    """
    return Received(app) if tracing.endpoints() else app


class Received:
    """Continues the sender's trace, or begins one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        sent = traceparent(dict(scope["headers"]))
        about = {"http.request.method": "POST", "url.path": scope["path"]}
        with tracing.span("receive", sent, kind="server", attributes=about) as span:
            if span.traceparent is not None:
                # All others as they came: that one is there twice is theirs to judge.
                others = [each for each in scope["headers"] if each[0] != b"traceparent"]
                scope["headers"] = [*others, (b"traceparent", span.traceparent.encode())]
            await self._app(scope, receive, send)
            if isinstance(send, Reply):
                span.tell("http.response.status_code", send.status)
