"""What follows a try: pure decisions."""

import math
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from hybridjobs.callbacks.sender import Answer
from hybridjobs.store.callbacks import DeliveryStatus, Tried

GONE = 410

_FIRST_WAIT_SECONDS = 10.0
_FACTOR = 3.0
_LONGEST_WAIT_SECONDS = 8 * 3600.0
_JITTER = 0.2
_LONGEST_RETRY_AFTER_SECONDS = 24 * 3600.0


def what_follows(
    answer: Answer, *, failures: int, give_up_at: datetime, now: datetime, jitter: float
) -> Tried:
    """The try with its consequence. `failures` were before it; `jitter` is from 0 to 1.

    2xx is delivered, 410 disables; everything else, redirects included, is tried again until
    `give_up_at`, unless no try can ever succeed.
    """
    status, error, wait = DeliveryStatus.PENDING, answer.error, None
    if answer.code is not None and 200 <= answer.code < 300:
        status = DeliveryStatus.DELIVERED
    elif answer.code == GONE:
        status, error = DeliveryStatus.DISABLED, "the receiver wants no more of these (410)"
    else:
        error = error or f"the receiver answered {answer.code}"
        wait = wait_before_next(answer.retry_after, failures=failures, now=now, jitter=jitter)
        if answer.permanent or now + wait > give_up_at:
            status, wait = DeliveryStatus.FAILED, None
    return Tried(status, answer.at, answer.duration_ms, answer.code, error, answer.excerpt, wait)


def wait_before_next(
    retry_after: str | None, *, failures: int, now: datetime, jitter: float
) -> timedelta:
    """10 s, 30 s, 90 s … 8 h, each ±20 %; longer where the receiver asks for it, up to a day."""
    seconds = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * _FACTOR ** min(failures, 20))
    seconds *= 1 - _JITTER + 2 * _JITTER * jitter
    asked = min(retry_after_seconds(retry_after, now), _LONGEST_RETRY_AFTER_SECONDS)
    return timedelta(seconds=max(seconds, asked))


def retry_after_seconds(header: str | None, now: datetime) -> float:
    """What Retry-After says (RFC 9110: seconds, or a date); 0 where it says nothing."""
    if header is None:
        return 0.0
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = (moment - now).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
