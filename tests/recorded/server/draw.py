"""Numbers drawn by a seed: the same for the same place, in any order, without state."""

from datetime import UTC, datetime

_MASK = (1 << 64) - 1


def draw(*place: int) -> int:
    """64 bits for a place (splitmix64, folded over its numbers)."""
    value = 0
    for number in place:
        value = (value ^ number) + 0x9E3779B97F4A7C15 & _MASK
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
        value ^= value >> 31
    return value


def chance(probability: float, *place: int) -> bool:
    """Whether it happens at this place."""
    return draw(*place) < probability * (1 << 64)


def sha(*place: int) -> str:
    """A commit's name."""
    return "".join(f"{draw(*place, part):016x}" for part in range(3))[:40]


def time_text(seconds: float) -> str:
    """As GitHub writes times: in UTC, whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def time_seconds(text: str) -> int:
    """Seconds since the epoch."""
    return int(datetime.fromisoformat(text).timestamp())
