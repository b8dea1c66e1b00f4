"""The statements of the documentation run; those on monitoring are tested with the views."""

import pytest
from psycopg import AsyncConnection

from tests.builders import job_type, register
from tests.conftest import DatabaseUrls
from tests.unit.docs.pages import Example, examples

_ELSEWHERE = ("docs/monitoring.md", "docs/handlers.md")
_STATEMENTS = [
    example
    for example in examples("sql", "")
    if (example.language == "sql" or example.text.startswith(("SELECT ", "BEGIN;")))
    and example.page not in _ELSEWHERE
]


@pytest.mark.parametrize(
    "example", _STATEMENTS, ids=lambda example: f"{example.page}:{example.text[:30]}"
)
async def test_a_statement_of_the_documentation_runs(
    example: Example, database_urls: DatabaseUrls
) -> None:
    async with await AsyncConnection.connect(database_urls.service, autocommit=True) as service:
        await register(service, job_type("report/nightly"), job_type("report/send"))  # type: ignore[arg-type]
    async with await AsyncConnection.connect(database_urls.owner, autocommit=True) as connection:
        await connection.execute("CREATE TABLE orders (id integer PRIMARY KEY)")
        await connection.execute("SET search_path = hybridjobs, public")
        await connection.execute(example.text.encode())


def test_statements_are_found() -> None:
    assert len(_STATEMENTS) >= 4
