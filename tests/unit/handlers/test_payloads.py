from typing import Any

import pytest
from pydantic import ValidationError

from hybridjobs.handlers.github.payloads import (
    Numbers,
    RepositoryIssues,
    RepositoryRef,
    RepositorySync,
)
from tests.recorded import deliveries


def test_a_plain_payload_is_taken() -> None:
    asked = Numbers.model_validate({"owner": "octo-org", "repo": "a.b-c_d", "number": 7})
    assert (asked.owner, asked.repo, asked.numbers) == ("octo-org", "a.b-c_d", [7])
    sync = RepositorySync.model_validate({"owner": "o", "repo": "r"})
    assert sync.days == 30


def test_every_recorded_delivery_with_a_repository_names_it() -> None:
    seen = 0
    for delivery in deliveries():
        repository: Any = delivery.document.get("repository")
        if repository is None:
            continue
        ref = RepositoryRef.model_validate(delivery.document)
        assert (ref.owner, ref.repo) == (repository["owner"]["login"], repository["name"])
        seen += 1
    assert seen > 250


def test_every_recorded_delivery_about_a_pull_request_names_its_number() -> None:
    seen = 0
    for delivery in deliveries():
        pull_request: Any = delivery.document.get("pull_request")
        if pull_request is not None:
            asked = Numbers.model_validate(delivery.document)
            assert asked.numbers == [pull_request["number"]]
            seen += 1
    assert seen > 30


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"owner": "a/b"}, ("owner",)),
        ({"repo": ".."}, ("repo",)),
        ({"repo": "a?b=c"}, ("repo",)),
        ({"repo": "a\n"}, ("repo",)),
        ({"owner": ""}, ("owner",)),
        ({"owner": "x" * 101}, ("owner",)),
        ({"number": 0}, ("number", 0)),
        ({"number": "two"}, ("number", 0)),
        ({"number": None}, ("number", 0)),
    ],
)
def test_what_is_no_name_or_number_is_refused(changes: object, path: tuple[str | int, ...]) -> None:
    payload = {"owner": "o", "repo": "r", "number": 1} | changes  # type: ignore[operator]
    with pytest.raises(ValidationError) as raised:
        Numbers.model_validate(payload)
    assert [error["loc"] for error in raised.value.errors()] == [path]


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        ({"numbers": [3, 1, 3]}, [3, 1]),
        ({"number": 7}, [7]),
        ({"prNumber": 7}, [7]),
        ({"issueNumber": 7}, [7]),
        ({"issue": {"number": 7}}, [7]),
        ({"pull_request": {"number": 7}, "number": 8}, [7]),
    ],
)
def test_numbers_have_many_names(given: dict[str, Any], numbers: list[int]) -> None:
    assert Numbers.model_validate({"owner": "o", "repo": "r", **given}).numbers == numbers


@pytest.mark.parametrize(
    "given",
    [
        {"numbers": []},
        {"numbers": list(range(1, 102))},
        {"numbers": [0]},
        {"number": 2**31},
        {"number": None},
        {},
    ],
)
def test_what_are_no_numbers_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="number"):
        Numbers.model_validate({"owner": "o", "repo": "r", **given})


@pytest.mark.parametrize("given", [{}, {"owner": "o"}, {"repo": "r"}, {"repositoryId": "no"}])
def test_a_repository_is_named_one_way_or_the_other(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="repositoryId"):
        RepositoryIssues.model_validate(given)
    id_ = "01a20e32-06a6-714c-8260-d76d789e027b"
    assert RepositoryIssues.model_validate({"repositoryId": id_, "timeRange": 5}).days == 5


@pytest.mark.parametrize("days", [0, 3651, "x"])
def test_days_are_bounded(days: object) -> None:
    with pytest.raises(ValidationError):
        RepositorySync.model_validate({"owner": "o", "repo": "r", "days": days})
