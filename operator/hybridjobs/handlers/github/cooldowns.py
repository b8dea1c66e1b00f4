"""When a repository may be synced again. No I/O.

People who ask wait least; what runs by itself, most. Where data are missing, nobody waits long.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

SHORTEST = timedelta(minutes=5)
OTHERWISE = timedelta(hours=12)
COOLDOWNS: Mapping[str, timedelta] = MappingProxyType(
    {
        "manual": SHORTEST,
        "auto-fix": timedelta(hours=1),
        "automatic": timedelta(hours=4),
        "scheduled": timedelta(hours=24),
    }
)


@dataclass(frozen=True, slots=True)
class SyncState:
    """How the last sync ended, when one last completed, and whether nothing was left out."""

    sync_status: str
    last_synced_at: datetime | None
    is_complete: bool


def cooldown(reason: str | None, *, is_complete: bool) -> timedelta:
    """How long after a sync the next one for that reason may begin."""
    return COOLDOWNS.get(reason or "", OTHERWISE) if is_complete else SHORTEST


def cools_until(state: SyncState | None, reason: str | None, now: datetime) -> datetime | None:
    """Until when a sync for that reason is too soon; None: it may begin now.

    A sync that did not complete cools nothing: its data are missing.
    """
    if state is None or state.last_synced_at is None or state.sync_status in ("failed", "partial"):
        return None
    until = state.last_synced_at + cooldown(reason, is_complete=state.is_complete)
    return until if until > now else None
