"""docs/github-schema.md against the tables."""

import re
from collections import defaultdict
from pathlib import Path

from tests.integration.handlers.conftest import Query

PAGE = Path(__file__).parents[3] / "docs" / "github-schema.md"


def described() -> dict[str, dict[str, bool]]:
    """Each table's columns; whether the page says of all of a row that they are never null."""
    tables: defaultdict[str, dict[str, bool]] = defaultdict(dict)
    table = ""
    for line in PAGE.read_text().splitlines():
        if match := re.fullmatch(r"## ([a-z_]+)", line):
            table = match[1]
        elif line.startswith("## "):
            table = ""
        elif table and (row := re.fullmatch(r"\| (`.+?) \|.*\| (.+) \|", line)):
            columns = re.findall(r"`([a-z_]+)`", row[1].split(" | ")[0])
            tables[table] |= dict.fromkeys(columns, row[2] == "never")
    return dict(tables)


async def test_the_page_tells_every_column_and_which_are_never_null(query: Query) -> None:
    rows = await query(
        "SELECT c.relname, a.attname, a.attnotnull FROM pg_class c"
        " JOIN pg_attribute a ON a.attrelid = c.oid"
        " WHERE c.relnamespace = 'github'::regnamespace AND c.relkind = 'r' AND a.attnum > 0"
        " AND NOT a.attisdropped"
    )
    actual: defaultdict[str, dict[str, bool]] = defaultdict(dict)
    for row in rows:
        actual[row["relname"]][row["attname"]] = row["attnotnull"]
    page = described()
    assert len(page) == 10
    assert page == {table: actual[table] for table in page}


async def test_every_foreign_key_has_an_index(query: Query) -> None:
    rows = await query(
        "SELECT k.conrelid::regclass::text AS of, a.attname FROM pg_constraint k"
        " JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]"
        " WHERE k.contype = 'f' AND k.connamespace = 'github'::regnamespace AND NOT EXISTS ("
        " SELECT FROM pg_index i WHERE i.indrelid = k.conrelid AND i.indkey[0] = k.conkey[1])"
    )
    assert rows == []
