"""Connections to Postgres themselves."""

import asyncio
import socket
from contextlib import suppress
from typing import Literal

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from hybridjobs.errors import DatabaseUnavailable
from hybridjobs.store.database import Database
from hybridjobs.store.enqueue import Enqueuer, insert_jobs
from tests.builders import new_job
from tests.conftest import DatabaseUrls


async def test_a_peer_that_is_gone_without_a_word_is_noticed(database_url: str) -> None:
    async with Database(database_url, size=1) as database, database.connection() as connection:
        with socket.socket(fileno=connection.fileno()) as shared:
            kept = shared.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle = shared.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            unanswered = shared.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            shared.detach()
    assert (kept, idle, unanswered) == (1, 10, 15_000)


@pytest.mark.parametrize("turns", range(12))
async def test_a_cancel_that_comes_with_a_connection_is_heeded(
    database_url: str, turns: int
) -> None:
    async with Database(database_url, size=1) as database:

        async def use() -> None:
            async with database.connection():
                pass

        async with database.connection():
            waiting = asyncio.create_task(use())
            await asyncio.sleep(0.05)  # it has begun to wait
        for _ in range(turns):
            await asyncio.sleep(0)
        if not waiting.done():
            waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled()


async def _become(urls: DatabaseUrls, role: Literal["standby", "primary"]) -> None:
    """Who connects from now on has come to a server that takes no writes, or that does."""
    url = make_conninfo(urls.owner, options="-c default_transaction_read_only=off")
    value = "on" if role == "standby" else "off"
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as owner:
        setting = f"ALTER DATABASE {owner.info.dbname} SET default_transaction_read_only = {value}"
        await owner.execute(setting.encode())


async def test_a_connection_that_led_to_a_standby_is_not_used_again(
    database_urls: DatabaseUrls,
) -> None:
    await _become(database_urls, "standby")
    async with Database(database_urls.service, size=1) as database:

        async def write() -> bool:
            async with database.transaction() as connection:
                [row] = await insert_jobs(connection, [new_job()])
            return row.created

        with pytest.raises(DatabaseUnavailable):
            await write()
        await _become(database_urls, "primary")
        with suppress(DatabaseUnavailable):  # by one that the pool made before
            await write()
        assert await write()


async def test_a_lane_that_led_to_a_standby_finds_the_primary(database_urls: DatabaseUrls) -> None:
    enqueuer = Enqueuer(database_urls.service)
    task = asyncio.create_task(enqueuer.run())
    await _become(database_urls, "standby")
    # Each of the lanes has its turn.
    for _ in range(10):
        with pytest.raises(DatabaseUnavailable):
            await enqueuer.enqueue([new_job()])
    await _become(database_urls, "primary")
    for _ in range(10):
        [row] = await enqueuer.enqueue([new_job()])
        assert row.created
    task.cancel()
