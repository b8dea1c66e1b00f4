"""docs/reference/settings.md has every setting of every process, with its default and its value."""

import json
import re
from typing import Any

from pydantic import BaseModel

from hybridjobs.settings import DatabaseSettings, IngressSettings, LogSettings, OperatorSettings
from tests.unit.docs.pages import PAGES, ROOT, name_of

_PAGE = (ROOT / "docs" / "reference" / "settings.md").read_text()
_VALUES = json.loads((ROOT / "charts" / "hybridjobs" / "values.schema.json").read_text())
_PREFIX = "HYBRIDJOBS_"
# Of the tools of development, and of the command line.
_OTHERS = {"CACHE", "CLUSTER", "INSTANCE", "API_URL", "USER"}


def _section(heading: str) -> dict[str, tuple[str, str]]:
    """The default and the chart's column of each variable below a heading."""
    text = _PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(rf"^\| `{_PREFIX}(\w+)` \|(.*?)\|(.*?)\|.*\|$", text, re.MULTILINE)
    return {
        name: (default.strip().strip("`"), chart.strip().strip("`"))
        for name, default, chart in rows
    }


def _shown(field: Any) -> str:
    """A default as the page has it."""
    if field.is_required():
        return "required"
    match field.default:
        case None | "" | {}:
            return ""
        case bool(value):
            return str(value).lower()
        case float(value):
            return f"{value:.15g}"
        case value:
            return str(value)


def _defaults(settings: type[BaseModel], without: type[BaseModel] | None = None) -> dict[str, str]:
    known = set(without.model_fields) if without else set()
    return {
        name.upper(): _shown(field)
        for name, field in settings.model_fields.items()
        if name not in known
    }


def test_the_page_has_every_setting_with_its_default() -> None:
    for heading, settings, without in (
        ("Every process", LogSettings, None),
        ("The database", DatabaseSettings, None),
        ("The ingress", IngressSettings, DatabaseSettings),
        ("The operator", OperatorSettings, DatabaseSettings),
    ):
        found = {name: default for name, (default, _) in _section(heading).items()}
        assert found == _defaults(settings, without), heading


def test_the_values_that_set_them_are_the_chart_s() -> None:
    for heading in ("Every process", "The database", "The ingress", "The operator"):
        for name, (_, chart) in _section(heading).items():
            schema = _VALUES
            for part in chart.split(".") if chart not in ("", "set by it") else ():
                assert part in schema["properties"], (name, chart)
                schema = schema["properties"][part]


def test_no_page_names_a_setting_that_there_is_not() -> None:
    known = {
        name.upper()
        for settings in (LogSettings, IngressSettings, OperatorSettings)
        for name in settings.model_fields
    }
    for page in PAGES:
        named = set(re.findall(rf"\b{_PREFIX}([A-Z][A-Z_]*[A-Z])\b", page.read_text()))
        assert named - known - _OTHERS - {"CHILD_ENV"} == set(), name_of(page)
