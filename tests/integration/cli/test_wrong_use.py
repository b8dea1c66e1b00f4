"""What people get wrong, said in words and by an exit code; never a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from tests.integration.cli.conftest import Command, run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("jobs", "--since", "999999d"), "999999d is longer than the calendar"),
        (("submit", "test/long", "-p", "[" * 100_000), "the payload is not JSON"),
        (("submit", "test/long", "--key", "\udcff"), "cannot be asked of the API"),
        (("get", "a\nb"), "cannot be asked of the API"),
        (("types", "--url", "http://[::1"), "http://[::1 is no address"),
        (("types", "--token", "se\ncret"), "the token has characters that no token has"),
    ],
)
async def test_what_cannot_be_asked_for(
    command: Command, arguments: tuple[str, ...], said: str
) -> None:
    done = await command(*arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert "Traceback" not in done.err
    assert "cret" not in done.err


async def test_without_a_token_it_is_said_where_one_belongs(command: Command) -> None:
    done = await command("types", HYBRIDJOBS_API_TOKEN="")
    assert done.code == 4
    assert "set HYBRIDJOBS_API_TOKEN or --token" in done.err


class _Elsewhere(BaseHTTPRequestHandler):
    answer: tuple[int, dict[str, str], bytes]

    def do_GET(self) -> None:
        status, headers, body = self.answer
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def elsewhere(status: int, body: bytes = b"", **headers: str) -> Iterator[str]:
    """The address of a service that is not the API."""

    class Handler(_Elsewhere):
        answer = (status, {name.replace("_", "-"): value for name, value in headers.items()}, body)

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()


async def test_an_address_that_is_not_the_apis() -> None:
    with elsewhere(301, Location="https://api.example/") as url:
        done = await run("types", "--url", url, "--token", "t")
        assert (done.code, "leads on to https://api.example/" in done.err) == (2, True)
    with elsewhere(200, b"<p>Log in</p>", Content_Type="text/html") as url:
        done = await run("types", "--url", url, "--token", "t")
        assert (done.code, "is not the API: it answers 200 with text/html" in done.err) == (2, True)
    for body in (b"[]", b"<p>no</p>", b'{"errors": [1]}'):
        with elsewhere(502, body) as url:
            done = await run("types", "--url", url, "--token", "t")
            assert (done.code, "HTTP 502" in done.err) == (5, True)
