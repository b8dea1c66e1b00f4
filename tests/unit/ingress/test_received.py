"""A request on its way through the beginning of a trace."""

from starlette.types import Message, Receive, Scope, Send

from hybridjobs.ingress.received import Received

CONTEXT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_its_other_headers_stay_as_they_came() -> None:
    sent = [(b"authorization", b"Bearer a"), (b"prefer", b"x"), (b"authorization", b"Bearer b")]
    seen: list[list[tuple[bytes, bytes]]] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["headers"])

    async def receive() -> Message:
        raise AssertionError

    async def send(_: Message) -> None:
        raise AssertionError

    scope = {"method": "POST", "path": "/", "headers": [*sent, (b"traceparent", CONTEXT)]}
    await Received(app)(scope, receive, send)
    assert seen == [[*sent, (b"traceparent", CONTEXT)]]
