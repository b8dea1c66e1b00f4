from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hybridjobs.handlers.github.classification import (
    THRESHOLDS,
    Metrics,
    Object,
    active_since,
    commits_since,
    size_of,
    vote,
)
from hybridjobs.handlers.github.payloads import RepositoryChoice
from hybridjobs.handlers.github.rows import MalformedAnswerError
from hybridjobs.ids import new_id
from tests.recorded import deliveries

SIZES = ("small", "medium", "large", "xl")
SUNDAY = datetime(2026, 11, 1, tzinfo=UTC)
# By size, the counts with which each figure votes for it: stars, forks, PRs, commits, people.
LEAST = {
    "small": (0, 0, 0, 0, 0),
    "medium": (1_000, 100, 100, 500, 10),
    "large": (10_000, 1_000, 500, 2_000, 50),
    "xl": (50_000, 5_000, 2_000, 10_000, 200),
}


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("size", SIZES)
def test_a_figure_votes_from_its_threshold_on(size: str, place: int) -> None:
    name = list(THRESHOLDS)[place]
    assert vote(name, LEAST[size][place]) == size
    if size != "small":
        assert vote(name, LEAST[size][place] - 1) == SIZES[SIZES.index(size) - 1]


def _metrics(*sizes: str | None) -> Metrics:
    return Metrics(*(None if size is None else LEAST[size][i] for i, size in enumerate(sizes)))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        *[((size,) * 5, size) for size in SIZES],
        (("xl", "small", "small", "small", "small"), "small"),
        (("xl", "xl", "small", "small", "small"), "small"),
        (("xl", "xl", "small", "small", "medium"), "xl"),  # two and two: the larger
        (("small", "small", "medium", "medium", "large"), "medium"),
        (("medium", "medium", "large", "large", "small"), "large"),
        (("small", "medium", "large", "xl", "small"), "small"),
        (("small", "medium", "large", "xl", "large"), "large"),
        (("xl", "xl", None, None, None), "xl"),
        (("xl", "large", "medium", None, None), "small"),  # no size has two
        (("xl", None, None, None, None), "small"),
        ((None,) * 5, "small"),
    ],
)
def test_the_most_votes_decide(sizes: tuple[str | None, ...], expected: str) -> None:
    assert size_of(_metrics(*sizes)) == expected


@given(st.lists(st.sampled_from((*SIZES, None)), min_size=5, max_size=5))
def test_what_is_chosen_has_the_most_votes(sizes: list[str | None]) -> None:
    chosen = size_of(_metrics(*sizes))
    most = max(sizes.count(size) for size in SIZES)
    if most < 2:
        assert chosen == "small"
    else:
        assert chosen == [size for size in SIZES if sizes.count(size) == most][-1]


def test_commits_are_counted_by_days() -> None:
    weeks = [
        {"week": int((SUNDAY + timedelta(weeks=back)).timestamp()), "total": 28, "days": [4] * 7}
        for back in range(-6, 1)
    ]
    since = SUNDAY - timedelta(days=3)  # a Thursday: three days of that week, and the next one
    assert commits_since(weeks, since) == 4 * (3 + 7)
    assert commits_since(weeks, since + timedelta(seconds=1)) == 4 * (2 + 7)
    assert commits_since([], since) == 0


def test_people_are_active_who_committed_in_a_week_that_began_since() -> None:
    def person(*commits: int) -> Object:
        starts = [int((SUNDAY + timedelta(weeks=place)).timestamp()) for place in (-5, -4, 0)]
        return {"weeks": [{"w": w, "c": c} for w, c in zip(starts, commits, strict=True)]}

    people = [person(5, 0, 0), person(0, 1, 0), person(0, 0, 9), person(0, 0, 0), Object(weeks=[])]
    assert active_since(people, SUNDAY - timedelta(weeks=4)) == 2
    assert active_since([], SUNDAY) == 0


@pytest.mark.parametrize("answer", [{}, {"week": 1}, {"week": "x", "days": [1]}, {"weeks": [{}]}])
def test_statistics_of_another_form_are_refused(answer: dict[str, object]) -> None:
    with pytest.raises(MalformedAnswerError):
        commits_since([answer], SUNDAY)
    with pytest.raises(MalformedAnswerError):
        active_since([answer], SUNDAY)


def test_a_repository_is_named_by_its_id_or_by_owner_and_name() -> None:
    id_ = new_id()
    assert RepositoryChoice.model_validate({"repositoryId": str(id_)}).repository_id == id_
    named = RepositoryChoice.model_validate({"owner": "o", "repo": "r"})
    assert (named.owner, named.repo) == ("o", "r")
    delivered = next(each.document for each in deliveries() if "repository" in each.document)
    assert RepositoryChoice.model_validate(delivered).owner
    for wrong in ({}, {"owner": "o"}, {"repo": "r"}, {"repositoryId": "7"}, {"owner": "a/b"}):
        with pytest.raises(ValidationError):
            RepositoryChoice.model_validate(wrong)
