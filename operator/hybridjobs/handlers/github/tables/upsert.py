"""The statement that writes rows beside those which are known."""

from collections.abc import Mapping


def upsert(
    table: str,
    columns: str,
    *,
    key: str = "github_id",
    found: Mapping[str, str] | None = None,
    joins: str = "",
    settled: Mapping[str, str] | None = None,
    always: str = "",
    unless: str,
) -> str:
    """INSERT … ON CONFLICT DO UPDATE of the JSON rows `%(rows)s`, in the order of `key`.

    `columns` are taken from the rows, those in `found` from an SQL expression over `item` (the
    row's JSON), `new` (its columns) and what `joins` adds. In a row that is known, a null leaves
    every column as it is, but those in `settled` become their expression over `known` and
    `excluded`; `always` is set besides. Nothing changes where `unless` is true: what comes is
    older. Returns whether each row that was written `is_new`.
    """
    names = [name.strip() for name in columns.split(",")]
    key_names = [name.strip() for name in key.split(",")]
    chosen = {name: f"new.{name}" for name in names} | dict(found or {})
    changed = {
        name: f"coalesce(excluded.{name}, known.{name})"
        for name in chosen
        if name not in ("id", *key_names)
    } | dict(settled or {})
    assignments = ",\n    ".join(f"{name} = {value}" for name, value in changed.items())
    return f"""
INSERT INTO github.{table} AS known ({", ".join(chosen)})
SELECT {", ".join(chosen.values())}
FROM jsonb_array_elements(%(rows)s) AS item
CROSS JOIN jsonb_populate_record(NULL::github.{table}, item) AS new
{joins}
ORDER BY {", ".join(f"new.{name}" for name in key_names)}
ON CONFLICT ({key}) DO UPDATE SET
    {assignments}{"," if always else ""}
    {always}
WHERE ({unless}) IS NOT TRUE
RETURNING (xmax = 0) AS is_new
"""  # noqa: S608 - of constants


def person(role: str) -> str:
    """A join for the contributor whom the row names by `<role>_github_id`."""
    return (
        f"LEFT JOIN github.contributors {role}"
        f" ON {role}.github_id = (item->>'{role}_github_id')::bigint\n"
    )
