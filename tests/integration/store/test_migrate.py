"""Migrations on a real Postgres."""

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from hybridjobs.errors import SchemaError
from hybridjobs.store.embedded import EmbeddedPostgres
from hybridjobs.store.migrate import check, migrate, migrations, required_version
from tests.conftest import DatabaseUrls


async def test_a_second_run_applies_nothing(database_urls: DatabaseUrls) -> None:
    assert await migrate(database_urls.owner, logins={}) == []


async def test_an_altered_migration_is_refused(database_urls: DatabaseUrls) -> None:
    async with await psycopg.AsyncConnection.connect(
        database_urls.owner, autocommit=True
    ) as connection:
        await connection.execute("UPDATE hybridjobs.schema_migrations SET sha256 = 'other'")
        with pytest.raises(SchemaError, match="was altered"):
            await migrate(database_urls.owner, logins={})


async def test_check_names_the_remedy(postgres: EmbeddedPostgres, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await check(connection)
        await connection.execute(
            "DELETE FROM hybridjobs.schema_migrations WHERE version = %s", [required_version()]
        )
        with pytest.raises(SchemaError, match="run `hybridjobs migrate`"):
            await check(connection)
    async with await psycopg.AsyncConnection.connect(
        make_conninfo(postgres.url, dbname="postgres"), autocommit=True
    ) as connection:
        with pytest.raises(SchemaError, match="has no HybridJobs schema"):
            await check(connection)


def test_versions_are_consecutive() -> None:
    versions = [m.version for m in migrations() if m.version is not None]
    assert versions == list(range(1, len(versions) + 1))


async def test_roles_can_do_their_work_and_no_more(database_urls: DatabaseUrls) -> None:
    async with await psycopg.AsyncConnection.connect(
        database_urls.handlers, autocommit=True
    ) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("SELECT * FROM hybridjobs.background_jobs")
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="no job type nope"):
            await connection.execute("SELECT hybridjobs.submit_job('nope')")
    async with await psycopg.AsyncConnection.connect(
        database_urls.service, autocommit=True
    ) as connection:
        await connection.execute("SELECT * FROM hybridjobs.background_jobs")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("DROP TABLE hybridjobs.background_jobs")
