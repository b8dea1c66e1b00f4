"""The settings of each process, read from environment variables that begin with HYBRIDJOBS_.

A missing or wrong one ends the start with a ConfigurationError that names the variable.
"""

import os
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from hybridjobs import codec
from hybridjobs.errors import ConfigurationError
from hybridjobs.payload import pointer

_PREFIX = "HYBRIDJOBS_"
_CHILD_PREFIX = "HYBRIDJOBS_CHILD_ENV_"

Port = Annotated[int, Field(ge=0, le=65535)]
HttpOrigin = Annotated[str, Field(pattern=r"^https?://[^/?#@\s]+$")]

# The first part of an event's name. What others' events begin with is not to be had.
RESERVED_SOURCES = frozenset(("github", "inngest"))


def _not_reserved(source: str) -> str:
    if source in RESERVED_SOURCES:
        raise ValueError(f"the name {source} is taken by a source of its own")
    return source


SourceName = Annotated[
    str,
    Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"),
    AfterValidator(_not_reserved),
]


def _json_object(text: object) -> object:
    """The value of a setting that is a JSON object; an error does not quote it."""
    if not isinstance(text, str):
        return text
    try:
        value = codec.loads(text or "{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError("must be a JSON object")
    return value


def comma_separated(text: str) -> list[str]:
    """The parts of a setting that holds several, without the space around them."""
    return [part for each in text.split(",") if (part := each.strip())]


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="ignore")

    @classmethod
    def load(cls, **values: object) -> Self:
        """From the environment, where it is not given here.

        ConfigurationError says which variables are wrong and how.
        """
        try:
            return cls(**values)  # type: ignore[arg-type]
        except ValidationError as error:
            faults = "; ".join(
                f"{_PREFIX}{str(name).upper()}{pointer(*path)}: {fault['msg']}"
                for fault in error.errors(include_input=False)
                for name, *path in [fault["loc"]]
            )
            raise ConfigurationError(f"settings: {faults}") from None


class LogSettings(_Settings):
    """How every process logs."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"


class DatabaseSettings(_Settings):
    """Where the database is, by each of its users."""

    database_url: SecretStr
    migrate_url: SecretStr | None = None  # the owner's; default: database_url
    handlers_database_url: SecretStr | None = None
    database_pool_size: Annotated[int, Field(ge=1)] = 4


class RedeliverySettings(DatabaseSettings):
    """Which GitHub hooks' failed deliveries are asked for again; none by default."""

    github_api_url: Annotated[str, Field(pattern="^https?://")] = "https://api.github.com"
    github_app_id: str | None = None  # or its client id
    github_app_private_key: SecretStr | None = None  # PEM
    github_hooks: str = ""  # OWNER/REPOSITORY/ID or ORGANISATION/ID, comma-separated
    github_hooks_token: SecretStr | None = None  # may read and redeliver those hooks' deliveries
    github_redeliver_seconds: Annotated[float, Field(gt=0)] = 600.0


class IngressSettings(RedeliverySettings):
    """The ingress: its listeners, its inline pool and its dispatcher."""

    bind: str = "0.0.0.0"  # noqa: S104 - a container serves its pod's address
    webhook_port: Port = 8080
    api_port: Port = 8081
    worker_port: Port = 8082
    health_port: Port = 9090

    namespace: str = "default"  # of the jobs
    dispatch: bool = True  # False: rows only, no cluster
    window: Annotated[int, Field(ge=1)] = 200  # live jobs in the cluster

    # Several secrets or tokens, comma-separated, while rotating.
    github_webhook_secret: SecretStr | None = None
    standard_webhook_secrets: Annotated[
        dict[SourceName, SecretStr], NoDecode, BeforeValidator(_json_object)
    ] = {}  # by source
    cloudevents_token: SecretStr | None = None
    cloudevents_allowed_origins: str = ""  # DNS names, comma-separated, or *

    inngest_signing_key: SecretStr | None = None  # None: /api/inngest is closed
    inngest_signing_key_fallback: SecretStr | None = None  # the other one, while rotating
    inngest_event_key: SecretStr | None = None  # to tell runs how their jobs ended
    inngest_app_id: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] = (
        "hybridjobs"
    )
    inngest_api_url: HttpOrigin | None = None  # default: Inngest's cloud
    inngest_event_url: HttpOrigin | None = None
    inngest_serve_origin: HttpOrigin | None = None  # where Inngest reaches the webhook listener
    inngest_dev: bool = False  # True: nothing is verified, for Inngest's development server

    api_token: SecretStr | None = None  # the bootstrap token: every scope
    api_cluster_tokens: bool = True  # the cluster's service accounts and users, if it runs in one
    api_audiences: str = "hybridjobs"  # of their tokens, comma-separated
    worker_service_account: str = "hybridjobs-worker"
    worker_audience: str = "hybridjobs"

    max_body_bytes: Annotated[int, Field(ge=1024)] = 25 * 1024 * 1024  # GitHub sends up to 25 MiB
    max_payload_bytes: Annotated[int, Field(ge=1024)] = 256 * 1024
    body_timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    keep_alive_seconds: Annotated[float, Field(gt=0)] = 75.0  # an idle connection, after a request
    max_connections: Annotated[int, Field(ge=1, le=50_000)] = 2000  # of each listener
    max_requests_in_flight: Annotated[int, Field(ge=1)] = 512  # of each listener
    max_result_bytes: Annotated[int, Field(ge=1024)] = 1024 * 1024

    max_wait_seconds: Annotated[float, Field(gt=0, le=300)] = 60  # of a request for an outcome

    webhook_requests_per_second: Annotated[float, Field(ge=0)] = 0  # of each source; 0: no limit
    api_requests_per_second: Annotated[float, Field(ge=0)] = 200  # of each caller; 0: no limit

    inline_children: Annotated[int, Field(ge=0)] = 2
    inline_child_memory_bytes: Annotated[int, Field(ge=32 * 1024 * 1024)] = 256 * 1024 * 1024

    # A folder with a file for each name of signing secrets; `default` where a type names none.
    callback_secrets_dir: str | None = None
    callback_allow: str = ""  # beside public addresses: names, *.domains, CIDRs; comma-separated
    callback_private: str = ""  # public addresses that are our own network's: CIDRs

    # Not under a week, within which a replayed webhook must find its job.
    retention_completed_days: Annotated[int, Field(ge=7, le=3650)] = 7  # and cancelled
    retention_failed_days: Annotated[int, Field(ge=7, le=3650)] = 30
    retention_unresolved_dead_letters: bool = False  # True: their jobs go too

    def sources_beside(self, source: str) -> frozenset[str]:
        """The first parts of events' names that other sources have, and `source` may not use."""
        return (RESERVED_SOURCES | self.standard_webhook_secrets.keys()) - {source}

    @property
    def child_environment(self) -> dict[str, str]:
        """What inline children get of the environment: their own variables, no secret of ours."""
        environment = {
            name.removeprefix(_CHILD_PREFIX): value
            for name, value in os.environ.items()
            if name.startswith(_CHILD_PREFIX)
        }
        if self.handlers_database_url is not None:
            environment["DATABASE_URL"] = self.handlers_database_url.get_secret_value()
        return environment


class OperatorSettings(DatabaseSettings):
    """The operator: where jobs run and what their pods are told."""

    bind: str = "0.0.0.0"  # noqa: S104 - a container serves its pod's address
    health_port: Port = 9090

    namespace: str = "default"
    lease_name: str = "hybridjobs-operator"  # of its replicas the one that holds it acts
    types_dir: str | None = None  # types and schedules of this release, a YAML file each
    types_selector: str = "app.kubernetes.io/managed-by=hybridjobs"  # the labels they carry

    worker_image: str
    worker_image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    worker_service_account: str = "hybridjobs-worker"
    worker_audience: str = "hybridjobs"
    worker_api_url: str
    handlers_database_secret: str | None = None  # Secret with key handlersUrl

    reconcile_workers: Annotated[int, Field(ge=1)] = 16
    sweep_seconds: Annotated[float, Field(gt=0)] = 30.0
    watch_check_seconds: Annotated[float, Field(gt=0)] = 30.0
    # kopf needs up to 91 s to notice a connection that is gone, and to try again.
    watch_stale_seconds: Annotated[float, Field(gt=0)] = 120.0
    keep_succeeded_seconds: Annotated[float, Field(ge=0)] = 3600
    keep_failed_seconds: Annotated[float, Field(ge=0)] = 86_400
    keep_finished: Annotated[int, Field(ge=0)] = 500
