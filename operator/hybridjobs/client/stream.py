"""Server-Sent Events as a client reads them (the HTML standard's section 9.2), cuts included."""

import asyncio
import codecs
import random
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from time import monotonic

import httpx

from hybridjobs.client.answers import error_of
from hybridjobs.errors import Unavailable

SILENCE_SECONDS = 40.0  # a stream has a heartbeat every 15
AWAY_SECONDS = 300.0  # that a service may be gone

_CONNECT_SECONDS = 10.0
_BACKOFF_SECONDS = 0.5
_MAX_BACKOFF_SECONDS = 15.0
# Not str.splitlines(): that knows more ends of lines, which data may hold. A CR at the end of what
# has arrived may be half of one.
_LINE_END = re.compile(r"\r\n|\n|\r(?=.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """An event; `position` is where a client goes on after it ("": nowhere yet)."""

    name: str
    data: str
    position: str


class Decoder:
    """Makes events of a stream's bytes, however they are cut into chunks."""

    def __init__(self, position: str = "") -> None:
        self.position = position
        self.restart()

    def restart(self) -> None:
        """Another stream begins: what was incomplete is forgotten."""
        self._text = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        self._id = self.position
        self._name = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        """The events that are complete with these bytes."""
        *lines, self._rest = _LINE_END.split(self._rest + self._text.decode(chunk))
        for line in lines:
            if line:
                self._field(line)
                continue
            self.position = self._id
            if self._data:
                yield ServerEvent(self._name or "message", "\n".join(self._data), self.position)
            self._name, self._data = "", []

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._name = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self._id = value


async def follow(
    http: httpx.AsyncClient, path: str, *, query: Mapping[str, str], after: str = ""
) -> AsyncGenerator[ServerEvent, None]:
    """The events of a stream, from `after` on; the end is a 204, or the caller's.

    A stream that is cut off, or ends, is asked for again from the last position on, in growing
    intervals of up to 15 s. An answer that is no stream is raised as the error that it is, but for
    Unavailable, which is where a service is away: that is raised at the start, and after 300 s
    without it.
    """
    decoder = Decoder(after)
    tries = 0
    here = None
    while True:
        failure, at_least = None, 0.0
        try:
            async with http.stream(
                "GET",
                path,
                params=query,
                headers={"Last-Event-ID": decoder.position} if decoder.position else None,
                timeout=httpx.Timeout(_CONNECT_SECONDS, read=SILENCE_SECONDS),
            ) as response:
                if response.status_code == 204:
                    return
                if response.status_code != 200 or _media_type(response) != "text/event-stream":
                    await response.aread()
                    raise error_of(response)
                decoder.restart()
                async for chunk in response.aiter_bytes():
                    here = monotonic()
                    for event in decoder.feed(chunk):
                        tries = 0
                        yield event
        except httpx.TransportError as error:
            failure = Unavailable(f"{http.base_url} does not answer: {error!r}")
            failure.__cause__ = error
        except Unavailable as error:
            failure, at_least = error, min(error.retry_after, _MAX_BACKOFF_SECONDS)
        if failure is not None and (here is None or monotonic() - here > AWAY_SECONDS):
            raise failure
        backoff = min(_BACKOFF_SECONDS * 2**tries, _MAX_BACKOFF_SECONDS)
        tries = min(tries + 1, 10)
        backoff *= random.uniform(0.5, 1)  # noqa: S311 - not a secret
        await asyncio.sleep(max(backoff, at_least))


def _media_type(response: httpx.Response) -> str:
    found: str = response.headers.get("Content-Type", "").partition(";")[0]
    return found.strip().lower()
