"""GitHub as recorded, with endpoints beside whose answers a test plans."""

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import psycopg
import pytest
from starlette.requests import Request
from starlette.responses import Response

from hybridjobs.handlers.github.client import GitHubClient, github_client
from tests.conftest import DatabaseUrls
from tests.recorded.running import RecordedApi, recorded_api
from tests.recorded.server import Endpoint, GitHub

Open = Callable[..., AbstractAsyncContextManager[GitHubClient]]
HOUR_SECONDS = 3600


class Stage:
    """What the endpoints beside answer, and the tokens that they were asked with."""

    tokens: list[str]
    answer: Callable[[Request, Any], Response]

    def reset(self) -> None:
        self.tokens = []
        self.answer = lambda request, body: Response()

    async def endpoint(self, request: Request) -> Response:
        self.tokens.append(request.headers.get("authorization", "").removeprefix("Bearer "))
        content = await request.body()
        return self.answer(request, json.loads(content) if content else None)


_STAGE = Stage()
_PATHS: dict[tuple[str, str], Endpoint] = dict.fromkeys(
    [
        ("GET", "/users/{login}"),
        ("GET", "/repos/{owner}/{name}/issues"),
        ("GET", "/repos/{owner}/{name}/contributors"),
        ("GET", "/repos/{owner}/{name}/stats/commit_activity"),
        ("GET", "/repos/{owner}/{name}/installation"),
        ("POST", "/app/installations/{id:int}/access_tokens"),
        ("POST", "/graphql"),
    ],
    _STAGE.endpoint,
)


@pytest.fixture(scope="module")
async def recorded() -> AsyncIterator[RecordedApi]:
    async with recorded_api(_PATHS) as api:
        yield api


@pytest.fixture
def stage(github: GitHub) -> Stage:
    _STAGE.reset()
    return _STAGE


@pytest.fixture
async def connection(database_urls: DatabaseUrls) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A job's."""
    async with await psycopg.AsyncConnection.connect(
        database_urls.handlers, autocommit=True
    ) as connection:
        yield connection


@pytest.fixture
def client(github: GitHub, database_urls: DatabaseUrls) -> Open:
    """A client as another job would have it."""

    @asynccontextmanager
    async def client(**options: Any) -> AsyncIterator[GitHubClient]:
        async with (
            await psycopg.AsyncConnection.connect(
                database_urls.handlers, autocommit=True
            ) as connection,
            github_client(connection, **options) as found,
        ):
            yield found

    return client


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
