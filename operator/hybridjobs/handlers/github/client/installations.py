"""Tokens of a GitHub App's installations, shared by all pods of the App's key.

An installation is found by the repository, and its token is good for an hour. A job is a process,
so the token is kept in `github.installation_tokens` for the next one: encrypted by AES-256-GCM with
a key made of the App's private key, which whoever reads the table has not.
https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app
"""

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from hybridjobs.handlers.github.client.errors import (
    Answer,
    NotFoundError,
    TransientError,
    check,
)
from hybridjobs.handlers.github.client.tokens import AppKey, Repository, Token, digest_of
from hybridjobs.handlers.github.client.turns import Turns
from hybridjobs.sdk import PermanentError

# A token is replaced when it is good for less: a request may take its time.
_SPARE_SECONDS = 300
_JWT_SECONDS = 540  # GitHub takes 600 at most
_SKEW_SECONDS = 60
_NONCE_BYTES = 12

_FIND = """
SELECT sealed FROM github.installation_tokens
WHERE app_id = %(app)s AND owner = %(owner)s AND expires_at > to_timestamp(%(good_until)s)
"""
_KEEP = """
INSERT INTO github.installation_tokens (app_id, owner, sealed, expires_at)
VALUES (%(app)s, %(owner)s, %(sealed)s, to_timestamp(%(expires_at)s))
ON CONFLICT (app_id, owner) DO UPDATE SET
    sealed = excluded.sealed, expires_at = excluded.expires_at
WHERE installation_tokens.expires_at < excluded.expires_at
"""
_FORGET = "DELETE FROM github.installation_tokens WHERE app_id = %(app)s AND owner = %(owner)s"

Send = Callable[[str, str, dict[str, str]], Awaitable[Answer]]


class Installations:
    """The App's tokens, by the owner of repositories. `send` makes one request, authorized so."""

    def __init__(self, app: AppKey, turns: Turns, send: Send) -> None:
        self._app = app
        self._turns = turns
        self._send = send
        self._tokens: dict[str, tuple[Token, float]] = {}
        self._absent: set[tuple[str, str]] = set()
        self._asking = asyncio.Lock()

    async def token(self, repository: Repository) -> Token | None:
        """A token of the installation at the repository's owner; None: the App is not there.

        PermanentError when GitHub does not know the App or its key, TransientError when it is in
        trouble, Limited.
        """
        async with self._asking:
            owner = repository.key[0]
            good_until = time.time() + _SPARE_SECONDS
            if owner not in self._tokens or self._tokens[owner][1] <= good_until:
                if repository.key in self._absent:
                    return None
                found = await self._kept(owner, good_until) or await self._new(repository)
                if found is None:
                    self._absent.add(repository.key)
                    return None
                self._tokens[owner] = found
            return self._tokens[owner][0]

    async def forget(self, repository: Repository) -> None:
        """Its token was refused, as after the App was taken away: the next job asks for another."""
        owner = repository.key[0]
        self._tokens.pop(owner, None)
        self._absent.add(repository.key)
        await self._turns.execute(_FORGET, {"app": self._app.app_id, "owner": owner})

    async def _kept(self, owner: str, good_until: float) -> tuple[Token, float] | None:
        values = {"app": self._app.app_id, "owner": owner, "good_until": good_until}
        for (sealed,) in await self._turns.execute(_FIND, values) or []:
            opened = unseal(self._app, owner, bytes(sealed))
            if opened is not None:
                return self._token(*opened)
        return None

    async def _new(self, repository: Repository) -> tuple[Token, float] | None:
        bearer = await asyncio.to_thread(_jwt, self._app)
        headers = {"authorization": f"Bearer {bearer}"}
        path = f"/repos/{repository.owner}/{repository.name}/installation"
        try:
            number = int((await self._ask("GET", path, headers))["id"])
        except NotFoundError:
            return None
        path = f"/app/installations/{number}/access_tokens"
        answer = await self._ask("POST", path, headers)
        try:
            secret, expires_at = str(answer["token"]), _seconds(answer["expires_at"])
        except (KeyError, TypeError, ValueError):
            raise TransientError(f"GitHub's answer for {path} is no token") from None
        owner = repository.key[0]
        await self._turns.execute(
            _KEEP,
            {
                "app": self._app.app_id,
                "owner": owner,
                "sealed": seal(self._app, owner, number, secret, expires_at),
                "expires_at": expires_at,
            },
        )
        return self._token(number, secret, expires_at)

    def _token(self, number: int, secret: str, expires_at: float) -> tuple[Token, float]:
        # Limits are the installation's, whichever of its tokens is used.
        digest = digest_of(f"app {self._app.app_id} installation {number}")
        return Token(digest, secret), expires_at

    async def _ask(self, method: str, path: str, headers: dict[str, str]) -> dict[str, Any]:
        answer = await self._send(method, path, headers)
        check(answer, path, time.time())
        try:
            found = json.loads(answer.content)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise TransientError(f"GitHub's answer for {path} is no JSON object")
        return found


def seal(app: AppKey, owner: str, number: int, secret: str, expires_at: float) -> bytes:
    """An installation's token for the table."""
    nonce = os.urandom(_NONCE_BYTES)
    plain = json.dumps([number, secret, expires_at]).encode()
    sealed: bytes = _cipher(app).encrypt(nonce, plain, _bound(app, owner))
    return nonce + sealed


def unseal(app: AppKey, owner: str, sealed: bytes) -> tuple[int, str, float] | None:
    """What `seal` was given; None: it was for another key, App or owner."""
    from cryptography.exceptions import InvalidTag

    try:
        plain = _cipher(app).decrypt(
            sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _bound(app, owner)
        )
    except (InvalidTag, ValueError):
        return None
    number, secret, expires_at = json.loads(plain)
    return number, secret, expires_at


def _cipher(app: AppKey) -> Any:  # noqa: ANN401 - imported where an App is used
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    label = b"hybridjobs installation tokens\n"
    return AESGCM(hashlib.sha256(label + app.private_key.encode()).digest())


def _bound(app: AppKey, owner: str) -> bytes:
    return f"{app.app_id}\n{owner}".encode()


def _jwt(app: AppKey) -> str:
    import jwt

    now = int(time.time())
    claims = {"iat": now - _SKEW_SECONDS, "exp": now + _JWT_SECONDS - _SKEW_SECONDS}
    try:
        return jwt.encode({**claims, "iss": app.app_id}, app.private_key, algorithm="RS256")
    except (ValueError, TypeError, jwt.PyJWTError):
        raise PermanentError("GITHUB_APP_PRIVATE_KEY is no RSA key in PEM form") from None


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
