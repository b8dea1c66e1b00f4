"""The words of this program as values: job, attempt, outcome, job type. No I/O."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from hybridjobs import codec

GROUP = "hybridjobs.dev"
VERSION = "v1alpha1"

MAX_DEADLINE_SECONDS = 86_400
MAX_RETRIES = 100
MAX_LOG_TAIL_BYTES = 64 * 1024
MAX_CALLBACK_URL_LENGTH = 2048


class Status(StrEnum):
    """Where a job stands: `background_jobs.status`, and `status.state` of its HybridJob."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing follows but a retry by hand."""
        return self in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


class Outcome(StrEnum):
    """How an attempt ended: `job_attempts.outcome`."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # transient: the next try may succeed
    PERMANENT = "permanent"
    RETRY_LATER = "retry_later"  # the handler named the time, as after a rate limit
    DEADLINE = "deadline"
    OOM = "oom"
    NEVER_STARTED = "never_started"  # no container within the start deadline
    DISRUPTED = "disrupted"  # drained, preempted, evicted, interrupted
    LOST = "lost"  # its Job, HybridJob or child process vanished without an outcome
    NODE_LOST = "node_lost"  # the node went silent; its pod may still run, fenced
    OVER_BUDGET = "over_budget"  # a quick job that goes on as a pod
    CANCELLED = "cancelled"


class ApiScope(StrEnum):
    """What a token of the API allows: each includes those before it."""

    READ = "read"
    SUBMIT = "submit"
    OPERATE = "operate"  # cancel, retry, pause, resume, redrive, resolve

    def includes(self, needed: "ApiScope") -> bool:
        """Whether a token of this scope may do what needs the other."""
        return _SCOPES.index(self) >= _SCOPES.index(needed)


_SCOPES = tuple(ApiScope)  # each includes those before it


class Decision(StrEnum):
    """What became of a schedule's tick: `schedule_ticks.decision`."""

    SUBMITTED = "submitted"
    REPLACED = "replaced"  # submitted, and the schedule's open jobs were asked to end
    SKIPPED = "skipped"  # a job was open and concurrencyPolicy is Forbid, or suspend is set
    MISSED = "missed"  # nobody was there to decide in time

    @property
    def starts_job(self) -> bool:
        """Whether the tick has a job."""
        return self in (Decision.SUBMITTED, Decision.REPLACED)

    @property
    def replaces(self) -> bool:
        """Whether the schedule's open jobs are asked to end."""
        return self is Decision.REPLACED


class ErrorCategory(StrEnum):
    """What kind of trouble: for people and for dead letters."""

    TIMEOUT = "timeout"
    OOM = "oom"
    RATE_LIMIT = "rate_limit"
    VALIDATION = "validation"
    EXTERNAL_API = "external_api"
    INFRASTRUCTURE = "infrastructure"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """All that is known of how an attempt ended.

    `reason` is one CamelCase word, as Kubernetes writes them; `result` JSON text; `log_tail` at
    most MAX_LOG_TAIL_BYTES.
    """

    outcome: Outcome
    reason: str
    message: str | None = None
    result: str | None = None
    retry_after_seconds: float | None = None
    exit_code: int | None = None
    log_tail: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    pod_name: str | None = None


CallbackEvent = Literal["completed", "failed", "cancelled"]
CALLBACK_EVENTS: tuple[CallbackEvent, ...] = ("completed", "failed", "cancelled")
DEFAULT_SECRET = "default"  # noqa: S105 - its name


class _Spec(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore"
    )


class Callback(_Spec):
    """Whom a job tells that it ended, and of which ends: `spec.callback` of a HybridJobType.

    `secret` is the name of the secrets that sign it.
    """

    url: str
    events: tuple[CallbackEvent, ...] = CALLBACK_EVENTS
    secret: str = DEFAULT_SECRET


UniqueWhile = Literal["queued", "open"]
OnDependencyFailure = Literal["cancel", "run"]


class NewJob(NamedTuple):
    """A job to enqueue. `payload` is JSON text, stored as it is.

    A tuple, since every webhook makes one: a frozen dataclass of so many fields costs it 5 us more.

    While a job with the same type and `unique_key` is queued, or open (queued or processing), a
    second one is that job. `depends_on` must be completed before it runs; when one of them is not,
    it is cancelled or runs all the same.
    """

    id: UUID
    type: str
    payload: str
    source: str
    key: str | None = None
    priority: int = 0
    max_retries: int = 3
    deadline_seconds: int = 900
    type_generation: int = 0
    lease_seconds: float | None = None  # set: attempt 1 begins with the row, in this process
    parent_id: UUID | None = None
    submitted_by: str | None = None
    traceparent: str | None = None
    inngest_event_id: str | None = None
    inngest_run_id: str | None = None  # of the run that waits for the job's end
    # What few jobs ask for:
    run_at: datetime | None = None  # None: now
    key_path: str | None = None  # where the payload has the key that its type's limits count by
    unique_key: str | None = None
    unique_while: UniqueWhile = "open"
    depends_on: tuple[UUID, ...] = ()
    on_dependency_failure: OnDependencyFailure = "cancel"
    batch_id: UUID | None = None
    request_digest: bytes | None = None  # of the request that made it, under its key
    callbacks: tuple[Callback, ...] = ()

    @property
    def callback(self) -> str | None:
        """`background_jobs.callback`: JSON text."""
        if not self.callbacks:
            return None
        return codec.dumps(
            [{"url": each.url, "on": each.events, "secret": each.secret} for each in self.callbacks]
        )


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The row that stands for a NewJob: a new one, or the one an earlier delivery made."""

    id: UUID
    type: str
    status: Status
    created: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """An open attempt whose HybridJob has to say so. `resource_uid` None: there is none yet."""

    job_id: UUID
    type: str
    attempt: int
    deadline_seconds: int
    priority: int
    payload_digest: str
    namespace: str | None
    resource_name: str | None
    resource_uid: str | None
    traceparent: str | None
    waited_seconds: float  # from when it was due to the claim


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a handler has come."""

    done: int
    total: int | None = None
    message: str | None = None


class Retry(_Spec):
    """`spec.retry` of a HybridJobType; times in seconds."""

    limit: Annotated[int, Field(ge=0, le=MAX_RETRIES)] = 3
    base_seconds: Annotated[float, Field(gt=0)] = 30
    factor: Annotated[float, Field(ge=1)] = 2
    max_seconds: Annotated[float, Field(gt=0)] = 600
    permanent_exit_codes: tuple[int, ...] = (65,)
    on_deadline: Literal["Fail", "Retry"] = "Fail"
    on_oom: Annotated[Literal["Fail", "Retry"], Field(alias="onOOM")] = "Fail"
    overlap: Literal["Allow", "Forbid"] = "Allow"


class Concurrency(_Spec):
    """`spec.concurrency`: at most `limit` jobs of the type at once, per value at `key` if set.

    A key is a path, or several ways to say it: `repository.full_name | owner/repo`.
    """

    limit: Annotated[int, Field(ge=1)]
    key: str | None = None


class Throttle(_Spec):
    """`spec.throttle`: at most `limit` starts in each period, per value at `key` if set."""

    limit: Annotated[int, Field(ge=1)]
    period_seconds: Annotated[int, Field(ge=1)]
    key: str | None = None


class PodTemplate(_Spec):
    """`spec.podTemplate`: what an administrator may set on a type's pods, and nothing else."""

    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()
    affinity: dict[str, Any] | None = None
    priority_class_name: str | None = None
    runtime_class_name: str | None = None
    service_account_name: str | None = None
    image_pull_secrets: tuple[dict[str, str], ...] = ()


class JobTypeSpec(_Spec):
    """`spec` of a HybridJobType, with the defaults that the CRD has too."""

    type: str
    mode: Literal["quick", "long"] = "long"
    handler: str | None = None
    image: str | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[dict[str, Any], ...] = ()
    database: bool = False
    resources: dict[str, Any] = {}
    deadline_seconds: int = 900
    start_deadline_seconds: int = 300
    heartbeat_timeout_seconds: int | None = None
    grace_period_seconds: int = 30
    budget_seconds: float = 8
    retry: Retry = Retry()
    concurrency: Concurrency | None = None
    throttle: Throttle | None = None
    priority: int = 0
    queue_name: str | None = None
    events: tuple[str, ...] = ()
    mapping: dict[str, str] | None = None
    payload_schema: dict[str, Any] | None = None
    payload: Literal["env", "fetch"] = "env"
    callback: Callback | None = None
    pod_template: PodTemplate = PodTemplate()

    @property
    def is_limited(self) -> bool:
        """Whether only the claim may start its jobs, which counts them."""
        return self.concurrency is not None or self.throttle is not None

    @property
    def key_path(self) -> str | None:
        """Where payloads have the key that the limits count by; both have the same, if any."""
        keys = (limit.key for limit in (self.concurrency, self.throttle) if limit is not None)
        return next((key for key in keys if key is not None), None)

    def callbacks(self, own: Callback | None = None) -> tuple[Callback, ...]:
        """The callbacks of a new job: the type's, and the job's own."""
        return tuple(each for each in (self.callback, own) if each is not None)


@dataclass(frozen=True, slots=True)
class JobType:
    """A HybridJobType as `job_types` mirrors it."""

    name: str
    uid: str
    generation: int
    spec: JobTypeSpec
    raw_spec: dict[str, Any] = field(repr=False, compare=False)
    paused: bool = False

    @classmethod
    def parse(
        cls, *, name: str, uid: str, generation: int, spec: dict[str, Any], paused: bool = False
    ) -> Self:
        """From the object's parts; pydantic.ValidationError where the spec is wrong."""
        return cls(name, uid, generation, JobTypeSpec.model_validate(spec), spec, paused)


class ScheduleSpec(_Spec):
    """`spec` of a HybridJobSchedule, with the defaults that the CRD has too."""

    schedule: str
    time_zone: str = "UTC"
    type: str
    payload: dict[str, Any] = {}
    suspend: bool = False
    concurrency_policy: Literal["Allow", "Forbid", "Replace"] = "Allow"
    starting_deadline_seconds: int | None = None
    history_limit: int = 10
    priority: int | None = None
    deadline_seconds: int | None = None


def type_slug(type_: str) -> str:
    """A type as an object name or label value: `capture/pr.details` → `capture-pr.details`."""
    return type_.replace("/", "-")
