"""The WHERE of listings: of what may be asked for, only what is, so that each has its best plan."""

from collections.abc import Mapping


def given_conditions(
    conditions: Mapping[str, str], values: Mapping[str, object]
) -> tuple[str, dict[str, object]]:
    """The conditions whose value is given, joined, and those values; None and () are none.

    `conditions` are constants of the caller, by the name of the parameter that they hold.
    """
    given = {name: value for name, value in values.items() if value is not None and value != ()}
    return " AND ".join(conditions[name] for name in given) or "true", given
