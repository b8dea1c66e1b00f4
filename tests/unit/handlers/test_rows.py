import gzip
import json
from typing import Any

import pytest

from hybridjobs.handlers.github.rows import contributor_row, page, pull_request_row
from tests.recorded.paths import DATA, require

RECORDED: dict[str, Any] = json.loads(gzip.decompress(require(DATA).read_bytes()))
SAMPLE: dict[str, Any] = RECORDED["pull_requests"][0]


@pytest.mark.parametrize("sample", RECORDED["pull_requests"], ids=lambda each: str(each["id"]))
def test_every_recorded_pull_request_makes_rows(sample: dict[str, Any]) -> None:
    rows = page(sample["base"]["repo"], [sample])
    assert rows.repository["github_id"] == sample["base"]["repo"]["id"]
    (row,) = rows.pull_requests
    assert (row["github_id"], row["number"]) == (sample["id"], sample["number"])
    assert row["author_github_id"] in [each["github_id"] for each in rows.contributors]


def test_rows_come_once_and_in_the_order_of_githubs_ids() -> None:
    samples = [SAMPLE | {"id": id_, "title": str(n)} for n, id_ in enumerate([5, 3, 9, 3])]
    rows = page(SAMPLE["base"]["repo"], samples)
    assert [(row["github_id"], row["title"]) for row in rows.pull_requests] == [
        (3, "3"),
        (5, "0"),
        (9, "2"),
    ]
    ids = [row["github_id"] for row in rows.contributors]
    assert ids == sorted(set(ids))


@pytest.mark.parametrize(
    ("state", "merged_at", "expected"),
    [
        ("open", None, "open"),
        ("closed", None, "closed"),
        ("closed", "2026-01-01T00:00:00Z", "merged"),
    ],
)
def test_the_state_of_a_pull_request(state: str, merged_at: str | None, expected: str) -> None:
    sample = SAMPLE | {"state": state, "merged_at": merged_at}
    row = pull_request_row(sample, SAMPLE["base"]["repo"])
    assert (row["state"], row["merged"]) == (expected, expected == "merged")


@pytest.mark.parametrize(
    "user", RECORDED["users"], ids=lambda each: f"{each['login']}-{each['id']}"
)
def test_every_recorded_user_makes_a_row(user: dict[str, Any]) -> None:
    row = contributor_row(user)
    assert row["github_id"] == user["id"]
    assert row["is_bot"] is (user["type"] == "Bot")


def test_a_bot_without_a_type_is_known_by_its_name() -> None:
    assert contributor_row({"id": 1, "login": "renovate[bot]"})["is_bot"]
