"""Connections to Postgres themselves."""

import socket

from hybridjobs.store.database import Database


async def test_a_peer_that_is_gone_without_a_word_is_noticed(database_url: str) -> None:
    async with Database(database_url, size=1) as database, database.connection() as connection:
        with socket.socket(fileno=connection.fileno()) as shared:
            kept = shared.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle = shared.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            unanswered = shared.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            shared.detach()
    assert (kept, idle, unanswered) == (1, 10, 15_000)
