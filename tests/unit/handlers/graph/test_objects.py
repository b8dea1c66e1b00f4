from typing import Any

import pytest

from hybridjobs.handlers.github.graph import objects
from hybridjobs.handlers.github.graph.discussions import LongThread, Rest, take, take_thread
from hybridjobs.handlers.github.payloads import GraphSync, Numbers
from hybridjobs.handlers.github.rows import MalformedAnswerError

LAST = {"hasNextPage": False, "endCursor": "z"}
MORE = {"hasNextPage": True, "endCursor": "c"}
REST = {"number": 7, "updated_at": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize("login", ["renovate", "renovate[bot]"])
def test_a_bot_is_named_as_by_rest(login: str) -> None:
    actor = {"__typename": "Bot", "login": login, "databaseId": 5}
    assert objects.person(actor) == {
        "id": 5,
        "login": "renovate[bot]",
        "avatar_url": None,
        "html_url": None,
        "type": "Bot",
    }


def test_a_ghost_is_nobody() -> None:
    assert objects.person(None) is None


def test_ids_beyond_32_bits_and_empty_bodies() -> None:
    found = objects.review({"fullDatabaseId": "90000000001", "body": "", "commit": None})
    assert (found["id"], found["body"], found["commit_id"]) == (90000000001, None, None)


@pytest.mark.parametrize("id_", ["x", [1]])
def test_an_id_that_is_none_is_malformed(id_: Any) -> None:
    with pytest.raises(MalformedAnswerError):
        objects.review({"fullDatabaseId": id_})


@pytest.mark.parametrize("connection", [None, [], {"nodes": []}, {"nodes": [3], "pageInfo": LAST}])
def test_a_list_of_no_form_is_malformed(connection: Any) -> None:
    with pytest.raises(MalformedAnswerError):
        objects.listed(connection)


def test_hidden_nodes_are_left_out() -> None:
    assert objects.listed({"nodes": [None, {"a": 1}], "pageInfo": MORE}) == ([{"a": 1}], "c")


@pytest.mark.parametrize(
    ("state", "merged", "expected"),
    [("OPEN", False, "OPEN"), ("CLOSED", False, "CLOSED"), ("MERGED", True, "closed")],
)
def test_merged_is_no_state_of_rest(state: str, merged: bool, expected: str) -> None:
    assert objects.pull_request({"state": state, "merged": merged})["state"] == expected


def test_a_long_thread_is_read_to_its_end() -> None:
    def comments(id_: int, info: Any) -> Any:
        return {"nodes": [{"fullDatabaseId": str(id_)}], "pageInfo": info}

    edges = [
        {"cursor": "t1", "node": {"comments": comments(1, LAST)}},
        {"cursor": "t2", "node": {"comments": comments(2, MORE)}},
    ]
    rest = Rest.model_validate(REST)
    said = take({"reviewThreads": {"edges": edges, "pageInfo": LAST}}, rest)
    assert [each["id"] for each in said.review_comments] == [1, 2]
    assert rest.long_threads == [LongThread(thread="t1", comments="c")]
    node = {"reviewThreads": {"nodes": [{"comments": comments(3, LAST)}]}}
    assert [each["id"] for each in take_thread(node, rest).review_comments] == [3]
    assert rest.is_done


ID = "00000000-0000-7000-8000-000000000001"


@pytest.mark.parametrize(
    ("payload", "numbers"),
    [
        ({"repositoryId": ID, "prNumber": 7, "prId": ID, "priority": "low"}, [7]),
        ({"repositoryId": ID, "numbers": [3, 1, 3]}, [3, 1]),
        ({"owner": "o", "repo": "r", "prNumbers": [2]}, [2]),
    ],
)
def test_what_producers_sent_is_taken(payload: Any, numbers: list[int]) -> None:
    assert Numbers.model_validate(payload).numbers == numbers


@pytest.mark.parametrize(
    "payload", [{"numbers": [1]}, {"owner": "o", "repo": "r", "numbers": []}, {"owner": "o"}]
)
def test_what_names_nothing_is_refused(payload: Any) -> None:
    with pytest.raises(ValueError, match=r"repo|numbers"):
        Numbers.model_validate(payload)


def test_a_sync_by_our_id() -> None:
    sync = GraphSync.model_validate({"repositoryId": ID, "reason": "manual", "priority": "high"})
    assert (str(sync.repository_id), sync.days, sync.priority) == (ID, 30, "high")
