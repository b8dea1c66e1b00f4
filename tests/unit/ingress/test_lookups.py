"""What is remembered of an authority's answers, and for how long."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from hybridjobs.errors import DatabaseUnavailable, Unavailable
from hybridjobs.ingress.lookups import Lookups


class Authority:
    """Answers, counts how often it was asked, and may be away."""

    def __init__(self) -> None:
        self.answers: dict[str, int] = {}
        self.asked = 0
        self.most_at_once = self._at_once = 0
        self.is_away = False

    def __call__(self, key: str) -> Callable[[], Awaitable[int | None]]:
        async def look_up() -> int | None:
            self.asked += 1
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            await asyncio.sleep(0)
            self._at_once -= 1
            if self.is_away:
                raise DatabaseUnavailable("gone")
            return self.answers.get(key)

        return look_up


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_an_answer_holds_for_its_time_known_or_not() -> None:
    authority, clock = Authority(), Clock()
    lookups: Lookups[int] = Lookups("it", keep_seconds=5, outage_seconds=60, clock=clock)
    authority.answers["a"] = 1
    for _ in range(3):
        assert await lookups.get("a", authority("a")) == 1
        assert await lookups.get("b", authority("b")) is None
    assert authority.asked == 2
    authority.answers = {"b": 2}
    clock.now += 5
    assert await lookups.get("a", authority("a")) is None
    assert await lookups.get("b", authority("b")) == 2


async def test_while_it_is_away_only_what_was_known_stays_so_for_a_while() -> None:
    authority, clock = Authority(), Clock()
    lookups: Lookups[int] = Lookups("it", keep_seconds=5, outage_seconds=60, clock=clock)
    authority.answers["a"] = 1
    assert await lookups.get("a", authority("a")) == 1
    assert await lookups.get("b", authority("b")) is None
    authority.is_away = True
    clock.now += 59
    assert await lookups.get("a", authority("a")) == 1
    for unknown in ("b", "c"):
        with pytest.raises(Unavailable, match="it does not answer"):
            await lookups.get(unknown, authority(unknown))
    clock.now += 1
    with pytest.raises(Unavailable):
        await lookups.get("a", authority("a"))


async def test_one_that_is_away_is_not_asked_by_every_request() -> None:
    authority, clock = Authority(), Clock()
    lookups: Lookups[int] = Lookups("it", keep_seconds=5, outage_seconds=60, clock=clock)
    authority.is_away = True
    for key in "abc":
        with pytest.raises(Unavailable):
            await lookups.get(key, authority(key))
    assert authority.asked == 1
    authority.is_away = False
    authority.answers["a"] = 1
    clock.now += 1
    assert await lookups.get("a", authority("a")) == 1


async def test_many_askers_for_one_key_are_one_lookup() -> None:
    authority = Authority()
    lookups: Lookups[int] = Lookups("it")
    authority.answers["a"] = 1
    assert await asyncio.gather(*(lookups.get("a", authority("a")) for _ in range(50))) == [1] * 50
    assert authority.asked == 1


async def test_few_lookups_run_at_once_and_not_many_wait() -> None:
    authority = Authority()
    lookups: Lookups[int] = Lookups("it")
    found = await asyncio.gather(
        *(lookups.get(number, authority("x")) for number in range(100)), return_exceptions=True
    )
    assert found.count(None) == 32
    assert sum(isinstance(each, Unavailable) for each in found) == 68
    assert authority.most_at_once == 2


async def test_a_flood_of_unknown_keys_makes_no_known_one_forgotten() -> None:
    authority = Authority()
    lookups: Lookups[int] = Lookups("it")
    authority.answers["a"] = 1
    assert await lookups.get("a", authority("a")) == 1
    for number in range(3000):
        assert await lookups.get(number, authority("x")) is None
    asked = authority.asked
    assert await lookups.get("a", authority("a")) == 1
    assert authority.asked == asked
    # What is unknown is forgotten, the oldest first.
    await lookups.get(0, authority("x"))
    await lookups.get(2999, authority("x"))
    assert authority.asked == asked + 1


async def test_an_authority_that_never_answers_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybridjobs.ingress.lookups._LOOKUP_SECONDS", 0.05)
    lookups: Lookups[int] = Lookups("it")

    async def hang() -> int:
        await asyncio.Event().wait()
        return 1

    with pytest.raises(Unavailable, match="it does not answer"):
        await lookups.get("a", hang)


async def test_an_asker_who_goes_away_takes_no_other_one_with_it() -> None:
    lookups: Lookups[int] = Lookups("it")
    go = asyncio.Event()

    async def slow() -> int:
        await go.wait()
        return 1

    first, second = [asyncio.create_task(lookups.get("a", slow)) for _ in range(2)]
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    go.set()
    assert await second == 1
