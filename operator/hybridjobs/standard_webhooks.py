"""Signatures of Standard Webhooks 1.0 (https://www.standardwebhooks.com), HMAC-SHA256."""

import hmac
from base64 import b64encode
from collections.abc import Sequence


def signature_of(message_id: str, timestamp: str, body: bytes, key: bytes) -> bytes:
    """A signature of the message, with its scheme; `timestamp` as the header writes it."""
    content = f"{message_id}.{timestamp}.".encode() + body
    return b"v1," + b64encode(hmac.digest(key, content, "sha256"))


def signed_headers(
    message_id: str, timestamp: int, body: bytes, keys: Sequence[bytes]
) -> dict[str, str]:
    """The headers of a message: its id, seconds since 1970, and a signature by each key."""
    written = str(timestamp)
    signatures = (signature_of(message_id, written, body, key).decode() for key in keys)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": written,
        "webhook-signature": " ".join(signatures),
    }
