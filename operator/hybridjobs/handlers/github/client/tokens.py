"""The tokens that requests are made with, and which of them may see what."""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hybridjobs.sdk import PermanentError

_SEPARATORS = re.compile(r"[\s,]+")
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Repository:
    """What a request is about: it decides which tokens serve."""

    owner: str
    name: str

    @property
    def key(self) -> tuple[str, str]:
        """GitHub's names do not tell case apart."""
        return self.owner.lower(), self.name.lower()


@dataclass(frozen=True, slots=True)
class Token:
    """A secret, told by `digest`: the SHA-256 of it, or of the installation that it stands for."""

    digest: bytes
    secret: str = field(repr=False)  # "": a request without a token

    @property
    def headers(self) -> dict[str, str]:
        """What authorizes a request."""
        return {"authorization": f"Bearer {self.secret}"} if self.secret else {}


def personal_tokens(text: str) -> list[Token]:
    """The tokens of GITHUB_TOKEN, separated by commas or white space; each once."""
    secrets = dict.fromkeys(each for each in _SEPARATORS.split(text) if each)
    if not all(_TOKEN.fullmatch(each) for each in secrets):
        raise PermanentError("GITHUB_TOKEN has characters that no token has")
    return [Token(digest_of(each), each) for each in secrets]


def digest_of(text: str) -> bytes:
    """How the database knows a token or an installation."""
    return hashlib.sha256(text.encode()).digest()


@dataclass(frozen=True, slots=True)
class AppKey:
    """A GitHub App, as its private key (PEM) lets one act for it."""

    app_id: str
    private_key: str = field(repr=False)


def app_key(environment: Mapping[str, str] = os.environ) -> AppKey | None:
    """As GITHUB_APP_ID and GITHUB_APP_PRIVATE_KEY say; None where both are missing."""
    app_id = environment.get("GITHUB_APP_ID", "").strip()
    # Some keep a key on one line.
    private_key = environment.get("GITHUB_APP_PRIVATE_KEY", "").replace("\\n", "\n").strip()
    if not app_id and not private_key:
        return None
    if not app_id or not private_key:
        missing = "GITHUB_APP_PRIVATE_KEY" if app_id else "GITHUB_APP_ID"
        raise PermanentError(f"{missing} is not set: an App needs its id and its key")
    return AppKey(app_id, private_key)


class Access:
    """Which tokens were refused what, as this process has seen."""

    def __init__(self) -> None:
        self._bad: set[bytes] = set()
        self._blind: set[tuple[bytes, tuple[str, str]]] = set()

    def serves(self, token: Token, repository: Repository | None) -> bool:
        """Whether nothing speaks against the token."""
        blind = repository is not None and (token.digest, repository.key) in self._blind
        return token.digest not in self._bad and not blind

    def is_bad(self, token: Token) -> None:
        """401: it is none, whatever is asked for."""
        self._bad.add(token.digest)

    def is_blind(self, tokens: Iterable[bytes], repository: Repository | None) -> None:
        """They were refused what another token was shown."""
        if repository is not None:
            self._blind |= {(token, repository.key) for token in tokens}
