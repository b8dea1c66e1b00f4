"""The headers Prefer and Idempotency-Key, as values."""

import pytest

from hybridjobs.ingress.api.headers import IdempotencyKey, Preference


@pytest.mark.parametrize(
    ("values", "seconds", "applied"),
    [
        ([], None, None),
        ([""], None, None),
        (["respond-async"], 0, "respond-async"),
        (["RESPOND-ASYNC"], 0, "respond-async"),
        (["respond-async;x=1"], 0, "respond-async"),
        (["wait=5"], 5, "wait=5"),
        (['wait="5"'], 5, "wait=5"),
        (["wait = 5"], 5, "wait=5"),
        (["Wait=0"], 0, "wait=0"),
        (["wait=61"], 60, "wait=60"),
        (["wait=1, wait=2"], 1, "wait=1"),
        (["respond-async, wait=7"], 7, "wait=7"),
        (["handling=lenient", "wait=7"], 7, "wait=7"),
        (['foo="a, wait=3"; bar="\\"", wait=7'], 7, "wait=7"),
        ([",, ,wait=7,"], 7, "wait=7"),
        (["wait=-1"], None, None),
        (["wait=1.5"], None, None),
        (["wait=9999999999"], None, None),
        (["wait"], None, None),
        (["wait=soon, respond-async"], 0, "respond-async"),
        (["a b, wait=7"], None, None),
    ],
)
def test_preferences(values: list[str], seconds: float | None, applied: str | None) -> None:
    found = Preference.read(values, at_most=60)
    assert (found.wait_seconds, found.applied) == (seconds, applied)


def test_a_long_header_costs_no_more_than_its_length() -> None:
    for hostile in (
        "a" * 60_000,
        "a;" * 30_000 + "!(",
        "a" + "; " * 30_000 + "(",
        'a="' + "\\" * 60_000,
        ";=" * 30_000,
    ):
        assert Preference.read([hostile], at_most=60).wait_seconds is None


def test_the_digest_is_of_the_members() -> None:
    def digest(**members: str) -> bytes:
        found = IdempotencyKey.read(["k"], members, None)
        assert found is not None
        return found.digest

    assert digest(a="1", b="2") == digest(b="2", a="1")
    assert len({digest(a="1", b="2"), digest(a="1"), digest(a="12"), digest(a1="2")}) == 4
    assert IdempotencyKey.read([], {"a": "1"}, None) is None
