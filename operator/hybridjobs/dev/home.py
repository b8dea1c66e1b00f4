"""The data folder of `hybridjobs dev`: its lock, its secrets, its Postgres."""

import fcntl
import hashlib
import json
import os
import secrets
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from psycopg.conninfo import make_conninfo

from hybridjobs.errors import ConfigurationError
from hybridjobs.store.embedded import EmbeddedPostgres

_FOR_ROOT = Path("/var/tmp/hybridjobs-dev")  # noqa: S108 - each project has a folder of its own


@dataclass(frozen=True)
class Secrets:
    """Made once, so that addresses and tokens stay the same from run to run."""

    password: str
    api_token: str
    webhook_secret: str

    @classmethod
    def kept_or_new(cls, path: Path) -> Self:
        """Those of the file, which is made where it is missing."""
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            made = cls(secrets.token_hex(16), secrets.token_hex(16), secrets.token_hex(16))
            path.touch(mode=0o600)
            path.write_text(json.dumps(asdict(made)))
            return made
        except (ValueError, TypeError):
            raise ConfigurationError(f"{path} is damaged: remove it with --reset") from None


class Home:
    """An open data folder; no other process has it open."""

    def __init__(self, folder: Path, *, reset: bool) -> None:
        self.folder = folder
        self.handlers = folder / "handlers"
        self.run = folder / "run"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n")
        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(
                f"another `hybridjobs dev` has {folder}: end it, or name another folder by --data"
            ) from None
        self._reset = reset
        if reset:
            (folder / "secrets.json").unlink(missing_ok=True)
        self.secrets = Secrets.kept_or_new(folder / "secrets.json")
        shutil.rmtree(self.run, ignore_errors=True)

    def postgres(self, port: int) -> EmbeddedPostgres:
        """The server of this folder, not started; one that a killed run has left is ended."""
        data = self.folder / "postgres"
        if os.geteuid() == 0:
            _require_reachable(self.folder)
        server = EmbeddedPostgres(data, password=self.secrets.password, port=port)
        server.end_previous()
        if self._reset:
            shutil.rmtree(data, ignore_errors=True)
        return server

    def close(self) -> None:
        """Let another process have it."""
        self._lock.close()

    def url(self, port: int, user: str) -> str:
        """The database by one of its users."""
        return make_conninfo(
            host="127.0.0.1",
            port=port,
            user=user,
            password=self.secrets.password,
            dbname="postgres",
        )


def default_folder() -> Path:
    """`.hybridjobs` here; for root, whose Postgres runs as nobody, one that nobody can reach."""
    here = Path.cwd()
    if os.geteuid() != 0:
        return here / ".hybridjobs"
    return _FOR_ROOT / f"{here.name}-{hashlib.sha256(str(here).encode()).hexdigest()[:8]}"


def _require_reachable(folder: Path) -> None:
    for each in (folder, *folder.parents):
        if not each.stat().st_mode & 0o001:
            raise ConfigurationError(
                f"Postgres does not run as root, and its user nobody cannot enter {each}: "
                "name another folder by --data, such as one below /var/tmp"
            )
