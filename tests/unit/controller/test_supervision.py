"""When the operator's process ends by itself, and says why."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice

import httpx
import pytest

from hybridjobs.controller.app import until_one_ends
from hybridjobs.controller.watchdog import Contact, CutOff, Told, Watchdog, WatchStale
from hybridjobs.errors import ClusterUnavailable
from hybridjobs.health import health_app
from hybridjobs.kube.client import JOBS, Forbidden, Kubernetes, Resource, Unauthorized

REFUSED = Unauthorized(401, "Unauthorized", "by test")
AWAY = ClusterUnavailable("by test")


async def _fails() -> None:
    raise ValueError("by test")


async def _ends() -> None:
    return


async def _is_cancelled() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("ending", "error"),
    [
        (_fails, "by test"),
        (_ends, "kopf ended by itself"),
        (_is_cancelled, "kopf ended by itself"),
    ],
)
async def test_a_part_that_ends_however_ends_the_operator(ending: object, error: str) -> None:
    assert callable(ending)
    others = [asyncio.create_task(asyncio.Event().wait(), name=name) for name in ("stop", "b")]
    with pytest.raises((ValueError, RuntimeError), match=error):
        await until_one_ends([asyncio.create_task(ending(), name="kopf"), *others])
    assert all(other.cancelled() for other in others)


async def test_an_operator_that_is_told_to_stop_ends_without_an_error() -> None:
    other = asyncio.create_task(asyncio.Event().wait(), name="kopf")
    await until_one_ends([asyncio.create_task(_ends(), name="stop"), other])
    assert other.cancelled()


async def test_credentials_that_stay_refused_are_the_end() -> None:
    contact = Contact(refused_seconds=0.05, silent_seconds=60)
    contact.failed(REFUSED)
    contact.failed(AWAY)
    await asyncio.sleep(0.06)
    contact.failed(AWAY)
    with pytest.raises(CutOff, match="401 Unauthorized"):
        contact.failed(REFUSED)


async def test_an_api_server_that_answers_never_again_is_the_end() -> None:
    contact = Contact(refused_seconds=60, silent_seconds=0.05)
    contact.failed(AWAY)
    await asyncio.sleep(0.06)
    with pytest.raises(CutOff, match="by test"):
        contact.failed(AWAY)


@pytest.mark.parametrize("known", ["an answer", "another refusal"])
async def test_who_is_answered_between_is_not_cut_off(known: str) -> None:
    contact = Contact(refused_seconds=0.05, silent_seconds=0.05)
    contact.failed(REFUSED)
    contact.failed(AWAY)
    await asyncio.sleep(0.06)
    if known == "an answer":
        contact.made()
    else:
        contact.failed(Forbidden(403, "Forbidden", "a right is missing"))
    contact.failed(REFUSED)
    contact.failed(AWAY)


class _Lists(Kubernetes):
    """One that lists as it is told to."""

    def __init__(self, *lists: dict[str, int] | Exception) -> None:
        self._lists = list(lists)
        self.asked = asyncio.Event()

    async def versions(
        self, resource: Resource, namespace: str | None, *, labels: str = ""
    ) -> tuple[int, dict[str, int]]:
        found = self._lists.pop(0) if len(self._lists) > 1 else self._lists[0]
        if len(self._lists) == 1:
            self.asked.set()
        if isinstance(found, Exception):
            raise found
        return 100, found


def _watchdog(kubernetes: Kubernetes, told: Told) -> Watchdog:
    return Watchdog(
        kubernetes,
        told,
        [JOBS],
        {},
        namespace="n",
        check_seconds=0.02,
        stale_seconds=0.1,
        hang_seconds=0.2,
    )


async def test_time_without_an_answer_is_no_time_that_a_watch_was_silent() -> None:
    lists = _Lists({"a": 7}, *[AWAY] * 10, {"a": 7}, {})
    watchdog = _watchdog(lists, Told())
    running = asyncio.create_task(watchdog.run())
    asked = asyncio.create_task(lists.asked.wait())
    done, _ = await asyncio.wait([asked, running], timeout=10, return_when=asyncio.FIRST_COMPLETED)
    assert done == {asked}
    running.cancel()


async def test_a_watch_that_gets_on_with_its_first_list_has_its_time() -> None:
    there = {f"uid-{n}": 7 for n in range(30)}
    told, to_tell, all_told = Told(), iter(there.items()), asyncio.Event()

    class Telling(_Lists):
        async def versions(
            self, resource: Resource, namespace: str | None, *, labels: str = ""
        ) -> tuple[int, dict[str, int]]:
            """One more is told before each check, however long it is until the next."""
            for uid, version in islice(to_tell, 1):
                told.event(JOBS, None, {"metadata": {"uid": uid, "resourceVersion": version}})
                return await super().versions(resource, namespace, labels=labels)
            all_told.set()
            return await super().versions(resource, namespace, labels=labels)

    running = asyncio.create_task(_watchdog(Telling(there), told).run())
    asked = asyncio.create_task(all_told.wait())
    done, _ = await asyncio.wait([asked, running], timeout=30, return_when=asyncio.FIRST_COMPLETED)
    assert done == {asked}
    running.cancel()


async def test_a_watch_that_stops_within_its_first_list_is_stale() -> None:
    told = Told()
    told.event(JOBS, None, {"metadata": {"uid": "a", "resourceVersion": "7"}})
    with pytest.raises(WatchStale, match="2 objects"):
        await _watchdog(_Lists({"a": 7, "b": 7, "c": 7}), told).run()


@asynccontextmanager
async def _probed(watchdog: Watchdog) -> AsyncIterator[httpx.AsyncClient]:
    app = health_app(ready=lambda: watchdog.sees, hangs=lambda: watchdog.hangs)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://operator") as client:
        yield client


async def test_who_sees_a_watch_behind_is_not_ready_and_ends() -> None:
    watchdog = _watchdog(_Lists({"a": 7}), Told())
    async with _probed(watchdog) as client:
        assert (await client.get("/readyz")).status_code == 200
        with pytest.raises(WatchStale, match="jobs: the watch has not told"):
            await watchdog.run()
        assert (await client.get("/readyz")).status_code == 503


async def test_who_hangs_is_not_alive() -> None:
    class Hanging(_Lists):
        async def versions(
            self, resource: Resource, namespace: str | None, *, labels: str = ""
        ) -> tuple[int, dict[str, int]]:
            await asyncio.Event().wait()
            raise AssertionError

    watchdog = _watchdog(Hanging({}), Told())
    running = asyncio.create_task(watchdog.run())
    async with _probed(watchdog) as client:
        assert (await client.get("/healthz")).status_code == 200
        async with asyncio.timeout(10):
            while (await client.get("/healthz")).status_code != 503:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.02)
    running.cancel()
