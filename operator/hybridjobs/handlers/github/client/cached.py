"""Answers kept for conditional requests: the table `github.responses`.

A 304 costs no quota, and says that what was answered before holds. That answer is kept whole, not
by its digest: a handler that was killed before it had stored it must get it again. An answer is
kept for the token that it was given to (its scope) and comes back only when GitHub says 304 to that
token. Kept are single objects and first pages, up to MAX_BODY_BYTES compressed, KEEP_DAYS after
their last use, MAX_ROWS in all.
"""

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from hybridjobs.handlers.github.client.errors import Answer
from hybridjobs.handlers.github.client.turns import Turns

MAX_BODY_BYTES = 256 << 10
MAX_ROWS = 5000
KEEP_DAYS = 7
_PRUNE_EVERY = 64
_KEPT_HEADERS = ("etag", "last-modified", "link")

_FIND = """
SELECT scope, headers, body, used_at < now() - interval '1 day'
FROM github.responses WHERE url = %(url)s AND scope = ANY(%(scopes)s)
"""
_TOUCH = """
UPDATE github.responses SET used_at = now() WHERE url = %(url)s AND scope = %(scope)s
"""
_KEEP = """
INSERT INTO github.responses (scope, url, headers, body)
VALUES (%(scope)s, %(url)s, %(headers)s, %(body)s)
ON CONFLICT (scope, url) DO UPDATE SET
    id = DEFAULT, headers = excluded.headers, body = excluded.body, used_at = now()
RETURNING id
"""
_FORGET = "DELETE FROM github.responses WHERE scope = %(scope)s AND url = %(url)s"
_PRUNE = """
DELETE FROM github.responses
WHERE used_at < now() - make_interval(days => %(days)s)
   OR used_at < (SELECT used_at FROM github.responses
                 ORDER BY used_at DESC OFFSET %(rows)s - 1 LIMIT 1)
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer of before, with what makes a request conditional."""

    answer: Answer
    is_old: bool

    @property
    def conditions(self) -> dict[str, str]:
        """The headers to ask with."""
        pairs = {"if-none-match": "etag", "if-modified-since": "last-modified"}
        headers = self.answer.headers
        return {ours: headers[theirs] for ours, theirs in pairs.items() if theirs in headers}


class Responses:
    """The table."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    async def find(self, url: str, scopes: Iterable[bytes]) -> dict[bytes, Kept]:
        """By scope, what was answered."""
        rows = await self._turns.execute(_FIND, {"url": url, "scopes": list(scopes)})
        return {
            bytes(scope): Kept(
                Answer(200, json.loads(headers), zlib.decompress(body), kept=True), is_old
            )
            for scope, headers, body, is_old in rows or []
        }

    async def touch(self, url: str, scope: bytes, kept: Kept) -> None:
        """It was used."""
        if kept.is_old:
            await self._turns.execute(_TOUCH, {"url": url, "scope": scope})

    async def keep(self, url: str, scope: bytes, answer: Answer) -> None:
        """For the next time, unless it is too large; what was there before goes."""
        headers = {name: answer.headers[name] for name in _KEPT_HEADERS if name in answer.headers}
        body = zlib.compress(answer.content, 1)
        values = {"scope": scope, "url": url}
        if len(body) > MAX_BODY_BYTES or not headers.keys() & {"etag", "last-modified"}:
            await self._turns.execute(_FORGET, values)
            return
        more = {"headers": json.dumps(headers), "body": body}
        rows = await self._turns.execute(_KEEP, values | more)
        if rows and rows[0][0] % _PRUNE_EVERY == 0:
            await self.prune()

    async def prune(self) -> None:
        """Delete what is old, and what is too much."""
        await self._turns.execute(_PRUNE, {"days": KEEP_DAYS, "rows": MAX_ROWS})
