"""Opens the client for one job, as its environment says."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
from psycopg import AsyncConnection

from hybridjobs.handlers.github.client.cached import Responses
from hybridjobs.handlers.github.client.installations import Installations
from hybridjobs.handlers.github.client.ledger import Ledger
from hybridjobs.handlers.github.client.rest import GitHubClient
from hybridjobs.handlers.github.client.tokens import app_key, personal_tokens
from hybridjobs.handlers.github.client.transport import Kit, Transport
from hybridjobs.handlers.github.client.turns import Turns
from hybridjobs.sdk import PermanentError

API_URL = "https://api.github.com"
# GitHub itself gives up on a GraphQL query after ten seconds.
_TIMEOUT = httpx.Timeout(15, connect=5)


@asynccontextmanager
async def github_client(
    connection: AsyncConnection[Any], *, retries: int = 0
) -> AsyncIterator[GitHubClient]:
    """A client as GITHUB_API_URL, GITHUB_TOKEN, GITHUB_APP_ID and GITHUB_APP_PRIVATE_KEY say.

    `connection` is the job's, in autocommit mode: limits and answers are kept through it, between
    the handler's transactions and never within one. So ask GitHub outside of them: inside, the
    client knows no more than this process, and tells the others when the transaction has ended.

    With `retries`, requests that met trouble are repeated so often, after 1, 4, 9 … seconds: worth
    it in a long job, not in one of a few seconds. Rate limits are never waited for.
    """
    url = os.environ.get("GITHUB_API_URL") or API_URL
    if urlsplit(url).scheme not in ("http", "https"):
        raise PermanentError(f"GITHUB_API_URL is no address: {url!r}")
    turns = Turns(connection)
    ledger = Ledger(turns)
    kit = Kit(
        base_url=url, user_agent="HybridJobs", timeout=_TIMEOUT, http_cache=False, auto_retry=False
    )
    tokens = personal_tokens(os.environ.get("GITHUB_TOKEN", ""))
    transport = Transport(kit, tokens, ledger, Responses(turns), retries)
    if (app := app_key()) is not None:
        transport.installations = Installations(app, turns, transport.send)
    async with kit:
        try:
            yield GitHubClient(transport)
        finally:
            # What the others are not told costs them a request at most.
            with suppress(psycopg.OperationalError):
                await ledger.flush()
