from datetime import UTC, datetime, timedelta

import pytest

from hybridjobs.handlers.github.cooldowns import SyncState, cooldown, cools_until

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("reason", "minutes"),
    [
        ("manual", 5),
        ("auto-fix", 60),
        ("automatic", 240),
        ("scheduled", 1440),
        (None, 720),
        ("whim", 720),
    ],
)
def test_a_reason_has_its_cooldown(reason: str | None, minutes: int) -> None:
    wait = timedelta(minutes=minutes)
    assert cooldown(reason, is_complete=True) == wait
    state = SyncState("completed", NOW, is_complete=True)
    just_before = NOW + wait - timedelta(seconds=1)
    assert cools_until(state, reason, just_before) == NOW + wait
    assert cools_until(state, reason, NOW + wait) is None


@pytest.mark.parametrize("reason", ["manual", "scheduled", None])
def test_missing_data_wait_five_minutes(reason: str | None) -> None:
    state = SyncState("completed", NOW, is_complete=False)
    assert cools_until(state, reason, NOW) == NOW + timedelta(minutes=5)


@pytest.mark.parametrize(
    "state",
    [
        None,
        SyncState("idle", None, is_complete=True),
        SyncState("failed", NOW, is_complete=True),
        SyncState("partial", NOW, is_complete=True),
    ],
)
def test_what_never_completed_cools_nothing(state: SyncState | None) -> None:
    assert cools_until(state, "scheduled", NOW) is None
