"""docs/operations/failures.md: each row names tests that there are."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
_HEAD = "| what breaks | what you see | what happens | test |"
PAGE = ROOT / "docs" / "operations" / "failures.md"


def test_every_row_names_a_test() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    named = [re.findall(r"`(test_\w+)`", row.split(" | ")[-1]) for row in rows]
    assert [row for row, tests in zip(rows, named, strict=True) if not tests] == 3 * [_HEAD]
    tests = {test for row in named for test in row}
    defined = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        if "node_modules" not in file.parts
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    assert tests <= defined, tests - defined
