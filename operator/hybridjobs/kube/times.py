"""Times as Kubernetes writes them: RFC 3339, UTC."""

from datetime import UTC, datetime


def time_text(moment: datetime) -> str:
    """metav1.Time, of whole seconds."""
    return _text(moment, "seconds")


def micro_time_text(moment: datetime) -> str:
    """metav1.MicroTime, which Leases and Events have."""
    return _text(moment, "microseconds")


def _text(moment: datetime, precision: str) -> str:
    return moment.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")
