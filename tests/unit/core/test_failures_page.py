"""docs/operations/failures.md: each row names a test that there is."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "operations" / "failures.md"


def test_every_row_names_a_test() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    named = [re.fullmatch(r"\|.*\| `(test_\w+)` \|", row) for row in rows]
    tests = {match[1] for match in named if match}
    assert len(tests) == len(rows) - 3  # the tables' heads
    defined = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        if "node_modules" not in file.parts
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    assert tests <= defined, tests - defined
