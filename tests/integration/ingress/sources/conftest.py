from collections.abc import AsyncIterator

import pytest

from tests.conftest import DatabaseUrls
from tests.integration.ingress.conftest import Running, running

STANDARD_SECRETS = {
    "acme": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3, rotated-secret",
    "clerk-2": "whsec_Y2xlcmtjbGVya2NsZXJrY2xlcms=",
}
CLOUDEVENTS_TOKEN = "the-token-of-cloudevents"


@pytest.fixture
async def sources(database_urls: DatabaseUrls) -> AsyncIterator[Running]:
    """An ingress with every source open: every job waits for a dispatcher."""
    async with running(
        database_urls.service,
        inline_children=0,
        standard_webhook_secrets=STANDARD_SECRETS,
        cloudevents_token=f"{CLOUDEVENTS_TOKEN}, rotated",
        cloudevents_allowed_origins="events.example.com, Other.example.org",
    ) as ingress:
        yield ingress
