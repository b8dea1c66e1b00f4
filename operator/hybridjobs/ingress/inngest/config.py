"""What the settings say of Inngest, checked."""

import os
from dataclasses import dataclass
from typing import Self

from pydantic import SecretStr

from hybridjobs.errors import ConfigurationError
from hybridjobs.ingress.inngest.signature import secret_of
from hybridjobs.settings import IngressSettings
from hybridjobs.store.inngest import SOURCE

_OFF = frozenset(("", "0", "false"))


@dataclass(frozen=True, slots=True, repr=False)
class InngestConfig:
    """How to speak with Inngest. Without a `signing_key` it is in development mode.

    `secrets` are what may have signed a request; `fallback_key` is the other one while rotating.
    `others` are the sources whose events are not Inngest's to bring.
    """

    app_id: str
    signing_key: str | None
    fallback_key: str | None
    secrets: tuple[bytes, ...]
    event_key: str | None
    api_url: str | None
    event_url: str | None
    serve_origin: str | None
    others: frozenset[str]
    requests_per_second: float

    @property
    def dev(self) -> bool:
        """Whether nothing is verified."""
        return self.signing_key is None

    @property
    def can_send(self) -> bool:
        """Whether events can be sent to Inngest."""
        return self.dev or self.event_key is not None

    @classmethod
    def of(cls, settings: IngressSettings) -> Self | None:
        """From the settings; None: it is not configured. ConfigurationError says what to do."""
        dev = settings.inngest_dev
        if not dev and os.environ.get("INNGEST_DEV", "").strip().lower() not in _OFF:
            raise ConfigurationError(
                "INNGEST_DEV is set, with which Inngest's SDK verifies no signature: unset it, or"
                " set HYBRIDJOBS_INNGEST_DEV=true where strangers cannot reach this process"
            )
        key = None if dev else _text(settings.inngest_signing_key)
        if key is None and not dev:
            return None
        fallback = None if dev else _text(settings.inngest_signing_key_fallback)
        named = (
            ("HYBRIDJOBS_INNGEST_SIGNING_KEY", key),
            ("HYBRIDJOBS_INNGEST_SIGNING_KEY_FALLBACK", fallback),
        )
        return cls(
            app_id=settings.inngest_app_id,
            signing_key=key,
            fallback_key=fallback,
            secrets=tuple(secret_of(each, variable=name) for name, each in named if each),
            event_key=_text(settings.inngest_event_key),
            api_url=settings.inngest_api_url,
            event_url=settings.inngest_event_url,
            serve_origin=settings.inngest_serve_origin,
            others=settings.sources_beside(SOURCE),
            requests_per_second=settings.webhook_requests_per_second,
        )


def _text(secret: SecretStr | None) -> str | None:
    text = secret.get_secret_value().strip() if secret else ""
    return text or None
