from typing import Any

import pytest
from pydantic import ValidationError

from hybridjobs.handlers.github.payloads import PullRequestRef, RepositoryRef, RepositorySync
from tests.recorded import deliveries


def test_a_plain_payload_is_taken() -> None:
    ref = PullRequestRef.model_validate({"owner": "octo-org", "repo": "a.b-c_d", "number": 7})
    assert (ref.owner, ref.repo, ref.number) == ("octo-org", "a.b-c_d", 7)
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
            ref = PullRequestRef.model_validate(delivery.document)
            assert ref.number == pull_request["number"]
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
        ({"number": 0}, ("number",)),
        ({"number": "two"}, ("number",)),
        ({"number": None}, ("number",)),
    ],
)
def test_what_is_no_name_or_number_is_refused(changes: object, path: tuple[str, ...]) -> None:
    payload = {"owner": "o", "repo": "r", "number": 1} | changes  # type: ignore[operator]
    with pytest.raises(ValidationError) as raised:
        PullRequestRef.model_validate(payload)
    assert [error["loc"] for error in raised.value.errors()] == [path]


@pytest.mark.parametrize("days", [0, 3651, "x"])
def test_days_are_bounded(days: object) -> None:
    with pytest.raises(ValidationError):
        RepositorySync.model_validate({"owner": "o", "repo": "r", "days": days})
