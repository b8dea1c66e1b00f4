"""A GitHub App: its installations, and the tokens it is given for them.

Source: https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from .draw import time_text
from .errors import GitHubError, not_found

Object = dict[str, Any]


def signed_by(app_id: str, key: RSAPublicKey) -> Callable[[str], bool]:
    """Whether a token is the App's JWT, of ten minutes at most."""

    def authorized(token: str) -> bool:
        try:
            claims = jwt.decode(
                token, key, algorithms=["RS256"], options={"require": ["iat", "exp", "iss"]}
            )
        except jwt.PyJWTError:
            return False
        return bool(claims["iss"] == app_id and claims["exp"] - time.time() <= 600)

    return authorized


@dataclass
class Installation:
    """Where the App is installed; `repositories` are full names, None is all of the account's."""

    id: int
    account: str
    repositories: frozenset[str] | None = None
    suspended: bool = False

    def covers(self, full_name: str) -> bool:
        """Whether it may read that repository."""
        if self.repositories is not None:
            return full_name.lower() in self.repositories
        return full_name.partition("/")[0].lower() == self.account.lower()


@dataclass
class _Token:
    installation: Installation
    expires_at: float


@dataclass
class Apps:
    """The one App of this GitHub, once a test has registered it."""

    authorized: Callable[[str], bool] = lambda _: False
    app_id: int = 0
    seconds: float = 3600
    installations: dict[int, Installation] = field(default_factory=dict)
    tokens: dict[str, _Token] = field(default_factory=dict)
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def register(self, plan: Object) -> None:
        """Take an App's id, public key (PEM) and installations."""
        key = load_pem_public_key(plan["publicKey"].encode())
        assert isinstance(key, RSAPublicKey)
        self.app_id = int(plan["appId"])
        self.authorized = signed_by(str(plan["appId"]), key)
        self.seconds = plan.get("tokenSeconds", self.seconds)
        self.installations = {
            each["id"]: Installation(
                each["id"],
                each["account"],
                None
                if each.get("repositories") is None
                else frozenset(name.lower() for name in each["repositories"]),
                each.get("suspended", False),
            )
            for each in plan["installations"]
        }

    def require(self, token: str) -> None:
        """Refuse what is not the App's own JWT."""
        if not self.authorized(token):
            raise GitHubError(401, "A JSON web token could not be decoded")

    def knows(self, token: str) -> bool:
        """Whether an installation's token is still good; any other kind is not our business."""
        if not token.startswith("ghs_"):
            return True
        found = self.tokens.get(token)
        return found is not None and time.time() < found.expires_at

    def may_read(self, token: str, full_name: str) -> bool:
        """Whether it is the token of an installation with this private repository."""
        found = self.tokens.get(token)
        return found is not None and found.installation.covers(full_name)

    def installation_of(self, full_name: str) -> Installation:
        """The one that covers a repository."""
        for each in self.installations.values():
            if each.covers(full_name):
                return each
        raise not_found()

    def grant(self, installation_id: int) -> Object:
        """A new token: POST /app/installations/ID/access_tokens."""
        found = self.installations.get(installation_id)
        if found is None:
            raise not_found()
        if found.suspended:
            raise GitHubError(403, "This installation has been suspended")
        token = f"ghs_{installation_id}x{next(self.numbers)}"
        expires_at = time.time() + self.seconds
        self.tokens[token] = _Token(found, expires_at)
        return {
            "token": token,
            "expires_at": time_text(expires_at),
            "permissions": {"metadata": "read", "pull_requests": "read", "issues": "read"},
            "repository_selection": "all" if found.repositories is None else "selected",
        }
