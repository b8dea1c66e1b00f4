"""The one id type: UUIDv7 (RFC 9562), so that ids sort by creation and indexes grow at one end."""

import hashlib
import os
import time
from datetime import datetime
from uuid import UUID

_RANDOM = (1 << 74) - 1  # the bits that are not time, version or variant


def new_id() -> UUID:
    """A fresh UUIDv7."""
    return _uuid7(time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10)) & _RANDOM)


def derived_id(name: str, created: datetime) -> UUID:
    """The id that belongs to a Kubernetes object, or to a tick: the same for the same name."""
    digest = hashlib.sha256(name.encode()).digest()
    return _uuid7(int(created.timestamp() * 1000), int.from_bytes(digest[:10]) & _RANDOM)


def first_id_of(moment: datetime) -> UUID:
    """A bound: the ids made before that millisecond are less than it, later ones are not."""
    return _uuid7(int(moment.timestamp() * 1000), 0)


def _uuid7(milliseconds: int, random: int) -> UUID:
    value = (
        milliseconds << 80 | 0x7 << 76 | (random >> 62) << 64 | 0b10 << 62 | random & (1 << 62) - 1
    )
    return UUID(int=value)
