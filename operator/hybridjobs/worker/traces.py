"""A worker's way into tracing: what it cannot do costs the trace, never the job."""

import logging

from hybridjobs.errors import ConfigurationError
from hybridjobs.tracing import configure_tracing

log = logging.getLogger(__name__)


def begin_tracing() -> None:
    """Send spans, if the environment says where; an image without OpenTelemetry sends none."""
    try:
        configure_tracing("worker")
    except ConfigurationError as error:
        log.warning("no traces: %s", error)
