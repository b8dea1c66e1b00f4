"""`api_tokens`: the API's bearer tokens, of which only a hash is kept.

A token is `hj_` and 256 random bits in base64url. Nobody can guess one, so its hash needs neither
salt nor slowness, and a lookup by it tells nothing by its time: whoever measures it would have to
choose tokens by their sha256.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow, class_row

from hybridjobs.errors import FieldError, InvalidInput
from hybridjobs.ids import new_id
from hybridjobs.model import ApiScope

TOKEN = re.compile(r"hj_[A-Za-z0-9_-]{43}")
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_RANDOM_BYTES = 32
_HINT_CHARACTERS = 7

_COLUMNS = """
    id, name, scope, hint, created_at, created_by, expires_at, last_used_at, revoked_at,
    revoked_by"""
_INSERT = f"""
INSERT INTO hybridjobs.api_tokens (id, name, scope, digest, hint, created_by, expires_at)
VALUES (%(id)s, %(name)s, %(scope)s, %(digest)s, %(hint)s, %(by)s, now() + %(lifetime)s::interval)
RETURNING {_COLUMNS}
"""  # noqa: S608 - of constants
# The time of use is written every five minutes at most, by whichever lookup comes first.
_FIND = f"""
WITH found AS (
    SELECT {_COLUMNS} FROM hybridjobs.api_tokens
    WHERE digest = %s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
), used AS (
    UPDATE hybridjobs.api_tokens SET last_used_at = now()
    WHERE id = (SELECT id FROM found
                WHERE last_used_at IS NULL OR last_used_at < now() - interval '5 minutes')
)
SELECT * FROM found
"""  # noqa: S608 - of constants
_LIST = f"""
SELECT {_COLUMNS} FROM hybridjobs.api_tokens
WHERE %s OR (revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()))
ORDER BY id
"""  # noqa: S608 - of constants
_REVOKE = """
UPDATE hybridjobs.api_tokens SET revoked_at = now(), revoked_by = %s
WHERE id = %s AND revoked_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A row of `api_tokens`, without its hash. `hint` is how the token begins."""

    id: UUID
    name: str
    scope: ApiScope
    hint: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None

    def __post_init__(self) -> None:
        """Of the database's text, the scope."""
        object.__setattr__(self, "scope", ApiScope(self.scope))


async def create_token(
    connection: AsyncConnection[DictRow],
    name: str,
    scope: ApiScope,
    *,
    lifetime: timedelta | None,
    by: str,
) -> tuple[ApiToken, str]:
    """A new token: its row, and its text, which is not kept anywhere. InvalidInput for the name."""
    if not _NAME.fullmatch(name):
        message = "must be 1 to 63 of a-z, 0-9, '-', '_' and '.', a letter or digit at both ends"
        raise InvalidInput(f"the token's name {message}", errors=[FieldError("/name", message)])
    text = f"hj_{secrets.token_urlsafe(_RANDOM_BYTES)}"
    parameters = {
        "id": new_id(),
        "name": name,
        "scope": scope.value,
        "digest": digest_of(text),
        "hint": text[:_HINT_CHARACTERS],
        "by": by,
        "lifetime": lifetime,
    }
    async with connection.cursor(row_factory=class_row(ApiToken)) as cursor:
        [token] = await (await cursor.execute(_INSERT, parameters)).fetchall()
    return token, text


async def find_token(connection: AsyncConnection[DictRow], digest: bytes) -> ApiToken | None:
    """The token of that digest, unless it is revoked or has expired; it counts as used."""
    async with connection.cursor(row_factory=class_row(ApiToken)) as cursor:
        return await (await cursor.execute(_FIND, [digest])).fetchone()


async def list_tokens(
    connection: AsyncConnection[DictRow], *, ended: bool = False
) -> list[ApiToken]:
    """The tokens that are good, the oldest first; `ended`: those revoked or expired too."""
    async with connection.cursor(row_factory=class_row(ApiToken)) as cursor:
        return await (await cursor.execute(_LIST, [ended])).fetchall()


async def revoke_token(connection: AsyncConnection[DictRow], token_id: UUID, *, by: str) -> bool:
    """The token is good no longer; False: there is none of that id, or it was revoked before."""
    return (await connection.execute(_REVOKE, [by, token_id])).rowcount == 1


def digest_of(token: str) -> bytes:
    """The sha256 by which a token is kept and found."""
    return hashlib.sha256(token.encode()).digest()
