"""What failed while the ingress was down arrives, each once: GitHub's hooks over real sockets."""

import asyncio
import dataclasses
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr

from hybridjobs.errors import ConfigurationError
from hybridjobs.ingress.github_hooks import Hook, HookDelivery
from hybridjobs.ingress.redelivery import Redelivery, configured_hooks, undelivered
from hybridjobs.settings import RedeliverySettings
from hybridjobs.store.database import Database
from tests.builders import job_type, register
from tests.conftest import DatabaseUrls, free_port
from tests.integration.ingress.conftest import SECRET, Running, running
from tests.recorded import deliveries
from tests.recorded.hooks import HookDouble
from tests.recorded.running import RecordedApi, recorded_api
from tests.recorded.server import Fault
from tests.recorded.server.apps import signed_by

APP, TOKEN = "123456", "a-token-for-hooks"
REPOSITORY, ORGANISATION = "octo-org/shop/11", "octo-org/22"
OPENED = next(d for d in deliveries() if d.event == "pull_request" and d.action == "opened")
UNWANTED = next(d for d in deliveries() if d.event == "star")
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.TraditionalOpenSSL,
    serialization.NoEncryption(),
).decode()


@dataclass
class World:
    """GitHub with an App's, a repository's and an organisation's hook, and where they deliver."""

    api: RecordedApi
    app: HookDouble
    repository: HookDouble
    organisation: HookDouble
    port: int
    database_url: str

    @property
    def hooks(self) -> tuple[HookDouble, ...]:
        return self.app, self.repository, self.organisation

    def settings(self, **changes: Any) -> dict[str, Any]:
        return {
            "github_api_url": self.api.url,
            "github_app_id": APP,
            "github_app_private_key": SecretStr(PEM),
            "github_hooks": f"{REPOSITORY}, {ORGANISATION}",
            "github_hooks_token": SecretStr(TOKEN),
            **changes,
        }

    async def up(self, stack: AsyncExitStack, **changes: Any) -> Running:
        """The ingress, where the hooks deliver to."""
        return await stack.enter_async_context(
            running(self.database_url, webhook_port=self.port, inline_children=0, **changes)
        )

    async def settled(self) -> None:
        for hook in self.hooks:
            await hook.settled()

    async def requests(self, method: str) -> int:
        return sum(each["method"] == method for each in self.api.github.requests)

    async def asked(self, method: str, count: int) -> None:
        """Until GitHub has had so many requests."""
        while await self.requests(method) < count:  # noqa: ASYNC110 - on a socket
            await asyncio.sleep(0.02)


@pytest.fixture
async def world(database_urls: DatabaseUrls) -> AsyncIterator[World]:
    port = free_port()
    url = f"http://127.0.0.1:{port}/webhooks/github"
    by_token = TOKEN.__eq__
    hooks = (
        HookDouble("/app/hook", url, SECRET, "integration", signed_by(APP, KEY.public_key())),
        HookDouble("/repos/octo-org/shop/hooks/11", url, SECRET, "repository", by_token),
        HookDouble("/orgs/octo-org/hooks/22", url, SECRET, "organization", by_token),
    )
    async with (
        Database(database_urls.service, size=1) as database,
        database.connection() as connection,
    ):
        await register(connection, job_type(events=["github/pull_request.opened"]))
    routes = {key: endpoint for hook in hooks for key, endpoint in hook.routes().items()}
    async with recorded_api(routes) as api:
        yield World(api, *hooks, port, database_urls.service)


@pytest.fixture
async def redelivery(world: World) -> AsyncIterator[Redelivery]:
    settings = RedeliverySettings(database_url=SecretStr(world.database_url), **world.settings())
    async with Database(world.database_url, size=2) as database:
        made = Redelivery(settings, database, configured_hooks(settings), pause_seconds=0)
        yield made
        await made.close()


@asynccontextmanager
async def replicas(world: World, **changes: Any) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Two that look by themselves, as in two ingresses, begun half a period apart."""
    about = world.settings(**changes)
    settings = RedeliverySettings(database_url=SecretStr(world.database_url), **about)
    async with AsyncExitStack() as stack:
        tasks = []
        for _ in range(2):
            database = await stack.enter_async_context(Database(world.database_url, size=1))
            replica = Redelivery(settings, database, configured_hooks(settings))
            tasks.append(asyncio.create_task(replica.run()))
            await asyncio.sleep(settings.github_redeliver_seconds / 2)
        yield tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def keys(ingress: Running) -> list[str]:
    async with ingress.database.connection() as connection:
        cursor = await connection.execute("SELECT key FROM hybridjobs.background_jobs ORDER BY key")
        return [row["key"] for row in await cursor.fetchall()]


async def test_what_failed_while_it_was_down_arrives_each_once(
    world: World, redelivery: Redelivery
) -> None:
    sent = []
    for name, hook in zip("abc", world.hooks, strict=True):
        for number in range(3):
            made = await hook.send(OPENED, f"{name}{number}")
            assert made.status_code == 0
            sent.append(made.guid)
    async with AsyncExitStack() as stack:
        ingress = await world.up(stack)
        first = await redelivery.look()
        assert first is not None
        assert sorted(guid for look in first for guid in look.asked) == sent
        await world.settled()
        assert await keys(ingress) == sent
        again = await redelivery.look(now=True)
        assert again is not None
        assert [(look.failed, look.asked, look.error) for look in again] == [([], [], None)] * 3
        await world.settled()
        assert await keys(ingress) == sent
    for hook in world.hooks:
        assert [each.status_code for each in hook.tries] == [202] * 3 + [0] * 3


async def test_the_ingress_does_so_by_itself(world: World) -> None:
    await world.app.send(OPENED, "a")
    await world.repository.send(OPENED, "b")
    async with AsyncExitStack() as stack:
        ingress = await world.up(stack, **world.settings(github_redeliver_seconds=0.2))
        for _ in range(400):
            if len(await keys(ingress)) == 2:
                break
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        assert await keys(ingress) == ["a", "b"]
    assert await world.requests("POST") == 2


async def test_of_two_replicas_one_looks_each_period_and_the_other_when_it_is_gone(
    world: World,
) -> None:
    period = 1.5
    began = time.monotonic()
    async with replicas(world, github_redeliver_seconds=period, github_hooks="") as tasks:
        for task, looks in zip(tasks, (6, 8), strict=True):
            await world.asked("GET", looks)
            # The first one, by the first replica, comes a period after its start.
            assert await world.requests("GET") <= (time.monotonic() - began) / period
            task.cancel()


async def test_a_rate_limit_counts_for_every_replica_and_that_hook_alone(world: World) -> None:
    world.api.github.faults.append(Fault(403, 1, "^/app/hook", {"retry-after": "600"}))
    async with replicas(world, github_redeliver_seconds=0.2, github_hooks=REPOSITORY):
        await world.asked("GET", 6)
    asked = [each["path"] for each in world.api.github.requests]
    assert asked.count("/app/hook/deliveries") == 1


async def test_what_github_delivers_no_more_holds_up_nothing_else(
    world: World, redelivery: Redelivery
) -> None:
    for number in range(3):
        await world.app.send(OPENED, f"{number}")
    old = world.app.tries[-1]
    world.api.github.faults.append(Fault(422, 1, f"/{old.id}/attempts"))
    async with AsyncExitStack() as stack:
        ingress = await world.up(stack)
        looks = await redelivery.look()
        await world.settled()
        assert looks is not None
        assert (looks[0].refused, looks[0].asked, looks[0].error) == (["0"], ["1", "2"], None)
        assert await keys(ingress) == ["1", "2"]


async def test_a_hook_of_which_nothing_is_delivered_again_is_given_up(
    world: World, redelivery: Redelivery
) -> None:
    for number in range(12):
        await world.app.send(OPENED, f"{number:02}")
    world.api.github.faults.append(Fault(404, 99, "/attempts$"))
    looks = await redelivery.look()
    assert looks is not None
    assert len(looks[0].refused) == await world.requests("POST") == 10
    assert "HYBRIDJOBS_GITHUB_APP_ID" in (looks[0].error or "")


async def test_what_fails_for_three_days_is_asked_for_no_more(
    world: World, redelivery: Redelivery
) -> None:
    """Each try is a new delivery to GitHub: the newest one is never too old."""
    await world.app.send(OPENED, "a")
    async with (
        Database(world.database_url, size=1) as database,
        database.connection() as connection,
    ):
        for days, expected in ((0, ["a"]), (2.9, ["a"]), (0.2, [])):
            await connection.execute(
                "UPDATE hybridjobs.github_redeliveries SET asked_at = asked_at - %(past)s, "
                "first_asked_at = first_asked_at - %(past)s",
                {"past": timedelta(days=days)},
            )
            looks = await redelivery.look()
            assert looks is not None
            assert (days, looks[0].asked) == (days, expected)
            await world.settled()
        looks = await redelivery.look(now=True)
        assert looks is not None
        assert looks[0].asked == ["a"]


async def test_many_at_once_ask_for_each_once(world: World, redelivery: Redelivery) -> None:
    for number in range(5):
        await world.app.send(OPENED, f"{number}")
    settings = RedeliverySettings(database_url=SecretStr(world.database_url), **world.settings())
    async with AsyncExitStack() as stack:
        ingress = await world.up(stack)
        databases = [
            await stack.enter_async_context(Database(world.database_url, size=1)) for _ in range(4)
        ]
        others = [
            Redelivery(settings, each, configured_hooks(settings), pause_seconds=0)
            for each in databases
        ]
        looks = await asyncio.gather(*(each.look() for each in others for _ in range(3)))
        await world.settled()
        asked = [guid for done in looks for look in done or () for guid in look.asked]
        assert sorted(asked) == ["0", "1", "2", "3", "4"]
        assert await keys(ingress) == sorted(asked)
        for each in others:
            await each.close()
    assert await world.requests("POST") == 5


async def test_what_goes_on_failing_is_left_alone_for_a_while(
    world: World, redelivery: Redelivery
) -> None:
    await world.app.send(OPENED, "a")
    for expected in (["a"], [], []):
        looks = await redelivery.look()
        assert looks is not None
        assert looks[0].asked == expected
        assert [each.guid for each in looks[0].failed] == ["a"]
        await world.settled()
    async with (
        Database(world.database_url, size=1) as database,
        database.connection() as connection,
    ):
        for minutes, expected in ((8, []), (2, ["a"]), (10, []), (9, ["a"]), (35, []), (2, ["a"])):
            await connection.execute(
                "UPDATE hybridjobs.github_redeliveries SET asked_at = asked_at - %s",
                [timedelta(minutes=minutes)],
            )
            looks = await redelivery.look()
            assert looks is not None
            assert (minutes, looks[0].asked) == (minutes, expected)
            await world.settled()


async def test_a_delivery_that_has_its_job_is_not_asked_for(
    world: World, redelivery: Redelivery
) -> None:
    async with AsyncExitStack() as stack:
        ingress = await world.up(stack)
        await world.app.send(OPENED, "slow")
        # GitHub had given up before the answer came.
        world.app.tries = [dataclasses.replace(each, status_code=0) for each in world.app.tries]
        looks = await redelivery.look()
        assert await keys(ingress) == ["slow"]
    assert looks is not None
    assert looks[0].failed == []


async def test_neither_what_succeeded_later_nor_what_is_too_old(
    world: World, redelivery: Redelivery
) -> None:
    await world.app.send(OPENED, "old")
    world.app.age(timedelta(days=3, minutes=1))
    await world.app.send(UNWANTED, "later")
    await world.app.send(UNWANTED, "never")
    async with AsyncExitStack() as stack:
        await world.up(stack)
        await world.app.send(UNWANTED, "later", redelivery=True)
        looks = await redelivery.look()
        await world.settled()
    assert looks is not None
    assert looks[0].asked == ["never"]
    assert world.app.tries[0].status_code == 204


async def test_all_pages_are_read(world: World, redelivery: Redelivery) -> None:
    for number in range(150):
        await world.app.send(OPENED, f"{number:03}")
    looks = await redelivery.look(dry=True)
    assert looks is not None
    assert [each.guid for each in looks[0].failed] == [f"{number:03}" for number in range(150)]
    assert looks[0].asked == []
    assert await world.requests("POST") == 0


async def test_a_rate_limit_ends_the_look_and_the_next_one_goes_on(
    world: World, redelivery: Redelivery
) -> None:
    for number in range(4):
        await world.app.send(OPENED, f"{number}")
    async with AsyncExitStack() as stack:
        ingress = await world.up(stack)
        world.api.github.remaining = 3
        world.api.github.reset_at = datetime.now(UTC).timestamp() + 1000
        looks = await redelivery.look()
        assert looks is not None
        assert (looks[0].asked, looks[0].unavailable) == (["0", "1"], True)
        assert "rate limit" in (looks[0].error or "")
        world.api.github.remaining = 100
        # The one that was refused is left alone for some minutes, as if it had been taken.
        looks = await redelivery.look()
        await world.settled()
        assert looks is not None
        assert looks[0].asked == ["3"]
        assert await keys(ingress) == ["0", "1", "3"]


async def test_a_hook_that_is_not_ours_stops_no_other(world: World) -> None:
    await world.repository.send(OPENED, "b")
    changed = world.settings(github_app_id="999", github_hooks=f"{REPOSITORY},no-body/33")
    settings = RedeliverySettings(database_url=SecretStr(world.database_url), **changed)
    async with AsyncExitStack() as stack:
        ingress = await world.up(stack)
        database = await stack.enter_async_context(Database(world.database_url, size=1))
        redelivery = Redelivery(settings, database, configured_hooks(settings), pause_seconds=0)
        looks = await redelivery.look()
        await redelivery.close()
        await world.settled()
        assert await keys(ingress) == ["b"]
    assert looks is not None
    assert [look.error and look.error[:18] for look in looks] == [
        "GitHub answers 401",
        None,
        "GitHub answers 404",
    ]


async def command(world: World, *arguments: str, **environment: str) -> tuple[int, str, str]:
    settings = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in {"database_url": world.database_url, **world.settings()}.items()
    }
    variables = {f"HYBRIDJOBS_{name.upper()}": value for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from hybridjobs.cli import main; main()",
        "github-redeliver",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **variables, **environment},
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_command_shows_and_asks(world: World) -> None:
    await world.organisation.send(OPENED, "guid-of-c")
    code, out, err = await command(world, "--dry-run")
    assert (code, err) == (0, "")
    assert f"{ORGANISATION}: 1 failed, 0 asked for again" in out
    code, out, err = await command(world)
    assert code == 0, err
    assert f"app {APP}: 0 failed, 0 asked for again" in out
    assert "guid-of-c  pull_request" in out
    assert out.rstrip().endswith("asked for")
    await world.settled()
    assert len(world.organisation.tries) == 2
    code, _, err = await command(world, HYBRIDJOBS_GITHUB_HOOKS_TOKEN="wrong")
    assert code == 2
    assert "GitHub answers 401 for octo-org/shop/11" in err
    assert "BEGIN" not in err


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"github_app_id": None}, "HYBRIDJOBS_GITHUB_APP_ID"),
        ({"github_app_private_key": None}, "HYBRIDJOBS_GITHUB_APP_PRIVATE_KEY"),
        ({"github_app_private_key": SecretStr("no key")}, "no RSA key in PEM form"),
        ({"github_hooks_token": None}, "HYBRIDJOBS_GITHUB_HOOKS_TOKEN"),
        ({"github_hooks": "octo-org"}, "'octo-org' must be OWNER/REPOSITORY/ID"),
        ({"github_hooks": "../../1"}, "must be OWNER/REPOSITORY/ID"),
        ({"github_hooks": "a/b/c/1"}, "must be OWNER/REPOSITORY/ID"),
    ],
)
async def test_half_a_configuration_is_refused(changes: dict[str, Any], named: str) -> None:
    values: dict[str, Any] = {
        "github_app_id": APP,
        "github_app_private_key": SecretStr(PEM),
        "github_hooks": REPOSITORY,
        "github_hooks_token": SecretStr(TOKEN),
        **changes,
    }
    settings = RedeliverySettings(database_url=SecretStr("postgresql://nobody@127.0.0.1"), **values)
    database = Database("postgresql://nobody@127.0.0.1", size=1)
    with pytest.raises(ConfigurationError, match=named):
        Redelivery.configured(settings, database)


def test_hooks_by_their_names() -> None:
    assert Hook.parse("octo-org/shop/11").path == "/repos/octo-org/shop/hooks/11"
    assert Hook.parse("octo-org/22").path == "/orgs/octo-org/hooks/22"


def test_of_each_event_the_newest_try_unless_one_has_succeeded() -> None:
    now = datetime.now(UTC)

    def made(number: int, guid: str, succeeded: bool) -> HookDelivery:
        return HookDelivery(number, guid, "push", now + timedelta(seconds=number), succeeded)

    tries = [
        made(6, "c", False),
        made(5, "b", False),
        made(4, "b", True),
        made(3, "b", False),
        made(2, "a", False),
        made(1, "a", False),
    ]
    assert [each.id for each in undelivered(tries, now)] == [2, 6]
    assert [each.id for each in undelivered(tries, now + timedelta(seconds=5))] == [6]
