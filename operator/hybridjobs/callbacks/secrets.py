"""The secrets that sign callbacks: a file for each name, as a mounted Secret has them.

A file is read for each delivery, so that a new secret counts as soon as the kubelet has brought it.
"""

import re
from base64 import b64decode
from pathlib import Path

from hybridjobs.errors import ConfigurationError

_PREFIX = "whsec_"
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_MAX_FILE_BYTES = 16 * 1024
_KEY_BYTES = range(24, 65)  # as the specification has it


class Secrets:
    """The secrets by their names; `folder` None: there are none."""

    def __init__(self, folder: str | None) -> None:
        self._folder = None if folder is None else Path(folder)

    def keys(self, name: str) -> list[bytes]:
        """The keys to sign with, several while they are rotated; ConfigurationError for none.

        A file holds secrets as `whsec_` and base64, with commas or white space between.
        """
        if self._folder is None:
            raise ConfigurationError("HYBRIDJOBS_CALLBACK_SECRETS_DIR is not set")
        if not _NAME.fullmatch(name):
            raise ConfigurationError(f"{name[:80]!r} is no name of a callback secret")
        try:
            with (self._folder / name).open("rb") as file:
                text = file.read(_MAX_FILE_BYTES).decode()
        except (OSError, ValueError):
            raise ConfigurationError(f"there is no callback secret {name!r}") from None
        written = text.replace(",", " ").split()
        if not written:
            raise ConfigurationError(f"the callback secret {name!r} is empty")
        return [_key(each, name) for each in written]


def _key(written: str, name: str) -> bytes:
    try:
        key = b64decode(written.removeprefix(_PREFIX), validate=True)
    except ValueError:
        key = b""
    if len(key) not in _KEY_BYTES:
        raise ConfigurationError(
            f"the callback secret {name!r} must be whsec_ and the base64 of 24 to 64 bytes"
        )
    return key
