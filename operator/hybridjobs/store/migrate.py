"""Brings the schema to this program's version, and tells whether a database has it.

Numbered files run once, in order, and may never change afterwards (their checksums are kept);
`R__*.sql` files (functions, views, grants) run again whenever they change. Each file is one
transaction under an advisory lock, so that several init containers may do this at once and a
killed one leaves a whole version behind.
"""

import asyncio
import hashlib
from dataclasses import dataclass
from importlib import resources
from time import monotonic
from typing import Any

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row

from hybridjobs.errors import ConfigurationError, DatabaseUnavailable, SchemaError

SCHEMA = "hybridjobs"
_LOCK = 0x68796272_6A6F6273  # "hybrjobs"
_BOOKS = """
CREATE SCHEMA IF NOT EXISTS hybridjobs;
CREATE TABLE IF NOT EXISTS hybridjobs.schema_migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS hybridjobs.schema_repeatables (
    name       text PRIMARY KEY,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
"""


@dataclass(frozen=True)
class Migration:
    """One file; `version` is None for a repeatable one."""

    version: int | None
    name: str
    text: str

    @property
    def sha256(self) -> str:
        """The checksum that an applied file must keep."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def migrations() -> list[Migration]:
    """Every migration of this package: the numbered ones in order, then the repeatable ones."""
    files = [
        file
        for file in resources.files("hybridjobs.store").joinpath("migrations").iterdir()
        if file.name.endswith(".sql")
    ]
    return [_parse(file.name, file.read_text()) for file in sorted(files, key=lambda f: f.name)]


def required_version() -> int:
    """The schema version that this program needs."""
    return max(migration.version or 0 for migration in migrations())


async def migrate(url: str, *, logins: dict[str, str], wait_seconds: float = 0) -> list[str]:
    """Apply what is missing and return the names of the files that ran.

    `logins` maps a database URL to the group role that its user needs; a user that does not exist
    is created with the URL's password. Waits up to `wait_seconds` for the database to answer.
    """
    async with await _connect(url, wait_seconds) as connection:
        applied = []
        async with _locked(connection):
            await connection.execute(_BOOKS)
        for migration in migrations():
            async with _locked(connection):
                if await _apply(connection, migration):
                    applied.append(migration.name)
        async with _locked(connection):
            for login_url, group in logins.items():
                await _ensure_login(connection, login_url, group)
        return applied


async def check(connection: AsyncConnection[Any]) -> None:
    """Raise SchemaError unless the schema is at least as new as this program needs."""
    needed = required_version()
    async with connection.cursor(row_factory=tuple_row) as cursor:
        try:
            await cursor.execute("SELECT max(version) FROM hybridjobs.schema_migrations")
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            version = None
        else:
            row = await cursor.fetchone()
            version = row[0] if row else None
    if version is None:
        raise SchemaError("the database has no HybridJobs schema: run `hybridjobs migrate`")
    if version < needed:
        raise SchemaError(
            f"the database's schema is version {version}, this program needs {needed}: "
            "run `hybridjobs migrate`"
        )


def _parse(name: str, text: str) -> Migration:
    stem = name.removesuffix(".sql")
    prefix, _, rest = stem.partition("_")
    if prefix == "R":
        return Migration(None, stem, text)
    return Migration(int(prefix), rest, text)


async def _connect(url: str, wait_seconds: float) -> AsyncConnection[tuple[object, ...]]:
    give_up = monotonic() + wait_seconds
    while True:
        try:
            return await AsyncConnection.connect(url, autocommit=True, connect_timeout=5)
        except psycopg.OperationalError as error:
            if monotonic() >= give_up:
                raise DatabaseUnavailable(f"cannot reach the database: {error}") from error
        await asyncio.sleep(min(1.0, max(0.0, give_up - monotonic())))


class _locked:  # noqa: N801 - reads as a statement
    """A transaction that holds the migration lock and looks names up in our schema first."""

    def __init__(self, connection: AsyncConnection[tuple[object, ...]]) -> None:
        self._connection = connection
        self._transaction = connection.transaction()

    async def __aenter__(self) -> None:
        await self._transaction.__aenter__()
        await self._connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        await self._connection.execute("SET LOCAL search_path = hybridjobs, pg_temp")
        await self._connection.execute("SET LOCAL lock_timeout = '30s'")

    async def __aexit__(self, *exception: object) -> None:
        await self._transaction.__aexit__(*exception)  # type: ignore[arg-type]


async def _apply(connection: AsyncConnection[tuple[object, ...]], migration: Migration) -> bool:
    if migration.version is None:
        found = await connection.execute(
            "SELECT sha256 FROM schema_repeatables WHERE name = %s", [migration.name]
        )
    else:
        found = await connection.execute(
            "SELECT sha256 FROM schema_migrations WHERE version = %s", [migration.version]
        )
    row = await found.fetchone()
    if row and row[0] == migration.sha256:
        return False
    if row and migration.version is not None:
        raise SchemaError(
            f"migration {migration.version} ({migration.name}) was altered after it was applied"
        )
    await connection.execute(migration.text.encode())
    if migration.version is None:
        await connection.execute(
            "INSERT INTO schema_repeatables (name, sha256) VALUES (%s, %s) "
            "ON CONFLICT (name) DO UPDATE SET sha256 = excluded.sha256, applied_at = now()",
            [migration.name, migration.sha256],
        )
    else:
        await connection.execute(
            "INSERT INTO schema_migrations (version, name, sha256) VALUES (%s, %s, %s)",
            [migration.version, migration.name, migration.sha256],
        )
    return True


async def _ensure_login(
    connection: AsyncConnection[tuple[object, ...]], url: str, group: str
) -> None:
    parts = conninfo_to_dict(url)
    user, password = parts.get("user"), parts.get("password")
    if not isinstance(user, str):
        raise ConfigurationError("a database URL names no user")
    row = await (
        await connection.execute(
            "SELECT current_user = %s, EXISTS (SELECT FROM pg_roles WHERE rolname = %s)",
            [user, user],
        )
    ).fetchone()
    is_owner, exists = row or (False, False)
    if is_owner:
        return
    role = sql.Identifier(user)
    if not exists:
        await connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(password))
        )
    await connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), role))
