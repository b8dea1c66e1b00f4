"""What each source of bench.ingest sends: GitHub's recorded deliveries, as that source has them."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from hybridjobs.ingress.inngest import signature as inngest
from hybridjobs.standard_webhooks import signed_headers as standard_headers
from tests.recorded import Delivery, signed_headers

TYPE = "bench/long"
GITHUB_SECRET = "bench-secret"
STANDARD_SECRET = "bench-secret-of-standard-webhooks"
TOKEN = "bench-token-of-cloudevents-and-the-api"
SIGNING_KEY = "signkey-prod-" + "0123456789abcdef" * 4

# More than any round takes: a message that is sent twice would be a replay.
MESSAGES = 60_000

# The body of a message without its begin, which has the message's id → the headers of its own.
Own = Callable[[str, bytes], dict[str, str]]


@dataclass(frozen=True)
class Source:
    """One source: where it sends, a body for each delivery, and what differs by message.

    `begin` is what the body of the message with an id begins with; `own` are its headers. `event`
    is what a type must want; GitHub's are the deliveries' own.
    """

    name: str
    path: str
    event: str
    bodies: list[bytes]
    heads: list[dict[str, str]]
    own: Own
    begin: Callable[[str], bytes] = lambda _: b""
    listener: str = "webhooks"

    def write(self, folder: Path) -> None:
        """The files that ingest.lua reads; signatures that hold for some minutes are of now."""
        folder.mkdir(exist_ok=True)
        for number, (headers, body) in enumerate(zip(self.heads, self.bodies, strict=True)):
            common = {"Host": "127.0.0.1", "Content-Type": "application/json", **headers}
            head = f"POST {self.path} HTTP/1.1\r\n{_lines(common)}"
            (folder / f"{number}.head").write_text(head, newline="")
            (folder / f"{number}.body").write_bytes(body)
        with (folder / "messages").open("wb") as file:
            for number in range(MESSAGES):
                id_ = str(UUID(int=number, version=4))
                begin = self.begin(id_)
                own = self.own(id_, begin + self.bodies[number % len(self.bodies)])
                file.write(_lines(own).encode() + b"\x1f" + begin + b"\x1e")


def _lines(headers: dict[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def sources(recorded: Iterable[Delivery]) -> list[Source]:
    """Every source, each with the same deliveries."""
    recorded = list(recorded)
    payloads = [each.payload for each in recorded]
    nothing: list[dict[str, str]] = [{}] * len(recorded)
    bearer = {"Authorization": f"Bearer {TOKEN}"}

    def github_heads(delivery: Delivery) -> dict[str, str]:
        headers = signed_headers(GITHUB_SECRET, delivery)
        return {
            name: headers[name] for name in headers.keys() - {"x-github-delivery", "content-type"}
        }

    return [
        Source(
            "github",
            "/webhooks/github",
            "",
            payloads,
            [github_heads(each) for each in recorded],
            lambda id_, _: {"X-GitHub-Delivery": id_},
        ),
        Source(
            "inngest_event",
            "/api/inngest",
            "plain/event",
            [b'"name":"plain/event","ts":1764000000000,"data":%b}' % each for each in payloads],
            nothing,
            lambda _, body: {
                "X-Inngest-Signature": inngest.sign(
                    inngest.secret_of(SIGNING_KEY, variable=""), body, now=time.time()
                )
            },
            lambda id_: b'{"id":"%b",' % id_.encode(),
        ),
        Source(
            "cloudevents",
            "/webhooks/cloudevents",
            "bench.cloudevents",
            payloads,
            [
                {
                    "ce-specversion": "1.0",
                    "ce-source": "/bench",
                    "ce-type": "bench.cloudevents",
                    **bearer,
                }
            ]
            * len(recorded),
            lambda id_, _: {"ce-id": id_},
        ),
        Source(
            "standard",
            "/webhooks/standard/bench",
            "bench/standard",
            [
                b'{"type":"standard","timestamp":"2026-11-24T09:30:00Z","data":%b}' % each
                for each in payloads
            ],
            nothing,
            lambda id_, body: standard_headers(
                id_, int(time.time()), body, [STANDARD_SECRET.encode()]
            ),
        ),
        Source(
            "api",
            "/api/jobs",
            "",
            [b'{"type":"%b","payload":%b}' % (TYPE.encode(), each) for each in payloads],
            [bearer] * len(recorded),
            lambda _id, _body: {},
            listener="api",
        ),
    ]


def environment() -> dict[str, str]:
    """The ingress' settings that let every source in."""
    return {
        "HYBRIDJOBS_GITHUB_WEBHOOK_SECRET": GITHUB_SECRET,
        "HYBRIDJOBS_STANDARD_WEBHOOK_SECRETS": json.dumps({"bench": STANDARD_SECRET}),
        "HYBRIDJOBS_CLOUDEVENTS_TOKEN": TOKEN,
        "HYBRIDJOBS_API_TOKEN": TOKEN,
        "HYBRIDJOBS_INNGEST_SIGNING_KEY": SIGNING_KEY,
    }
