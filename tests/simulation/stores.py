"""Where the rows are: in memory, or in Postgres with its clock turned by the simulation."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from functools import partial
from typing import Any, Protocol
from uuid import UUID

import psycopg
from psycopg.rows import DictRow, dict_row

from tests.simulation.rows import ATTEMPT_COLUMNS, JOB_COLUMNS, Row
from tests.simulation.tables import Cursor, Tables

Rows = tuple[dict[UUID, Row], dict[tuple[UUID, int], Row]]
Types = set[tuple[str, str, int]]  # type, uid, generation


class Store(Protocol):
    """What the simulation needs of either."""

    @property
    def changes(self) -> int:
        """How many writes there were."""

    def execute(self, statement: str, given: Any) -> Cursor:
        """One statement, committed unless in a transaction."""

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing, and nobody in between."""

    def rows(self) -> Rows:
        """Every job by its id, every attempt by job and number."""

    def types(self) -> Types:
        """Those that are there."""

    def backup(self) -> Callable[[], None] | None:
        """What brings all of them back as they are now; None: it cannot."""


class InMemory:
    """The model of tables.py."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._tables = Tables(now)

    @property
    def changes(self) -> int:
        return self._tables.changes

    def execute(self, statement: str, given: Any) -> Cursor:
        return Cursor(self._tables.execute(statement, given))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        before = self._tables.copy()
        try:
            yield
        except BaseException:
            self._tables.restore(before)
            raise

    def rows(self) -> Rows:
        jobs, attempts, _ = self._tables.rows()
        return jobs, attempts

    def types(self) -> Types:
        return {
            (type_, row["uid"], row["generation"])
            for type_, row in self._tables.rows()[2].items()
            if not row["deleted"]
        }

    def backup(self) -> Callable[[], None]:
        return partial(self._tables.restore, self._tables.copy())


# Postgres inlines them wherever they are used, in triggers and defaults too.
_TURN_CLOCKS = """
CREATE OR REPLACE FUNCTION pg_catalog.now() RETURNS timestamptz LANGUAGE sql STABLE
AS $$ SELECT current_setting('simulation.now')::timestamptz $$;
CREATE OR REPLACE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
AS $$ SELECT current_setting('simulation.now')::timestamptz $$;
"""


class InPostgres:
    """One connection to a database of the test's own, whose owner may replace Postgres' clock."""

    def __init__(self, url: str, now: Callable[[], datetime]) -> None:
        self._now = now
        self._connection: psycopg.Connection[DictRow] = psycopg.connect(
            url, autocommit=True, row_factory=dict_row
        )
        self._set_clock()
        self._connection.execute(_TURN_CLOCKS)
        self._changes = 0

    @property
    def changes(self) -> int:
        return self._changes

    def close(self) -> None:
        self._connection.close()

    def _set_clock(self) -> None:
        self._connection.execute(
            "SELECT set_config('simulation.now', %s, false)", [self._now().isoformat()]
        )

    def execute(self, statement: str, given: Any) -> Cursor:
        self._set_clock()
        self._changes += 1
        cursor = self._connection.execute(statement.encode(), given)
        found = Cursor(cursor.fetchall() if cursor.description else [])
        found.rowcount = cursor.rowcount
        return found

    def transaction(self) -> AbstractContextManager[Any]:
        return self._connection.transaction()

    def rows(self) -> Rows:
        jobs = self._select("background_jobs", (*JOB_COLUMNS, "traceparent", "payload::text"))
        attempts = self._select("job_attempts", ATTEMPT_COLUMNS)
        return (
            {row["id"]: row for row in jobs},
            {(row["job_id"], row["attempt"]): row for row in attempts},
        )

    def types(self) -> Types:
        rows = self._connection.execute(
            "SELECT type, uid, generation FROM hybridjobs.job_types WHERE deleted_at IS NULL"
        )
        return {(row["type"], row["uid"], row["generation"]) for row in rows.fetchall()}

    def backup(self) -> None:
        """What a restore does to rows needs no Postgres."""

    def _select(self, table: str, columns: tuple[str, ...]) -> list[DictRow]:
        names = ", ".join(columns)
        query = f"SELECT {names} FROM hybridjobs.{table}"
        return self._connection.execute(query.encode()).fetchall()
