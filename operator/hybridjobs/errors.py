"""Every error that HybridJobs raises on purpose.

HybridJobsError
 ├─ ConfigurationError      a setting is missing or wrong; the message says which and what to do
 ├─ InvalidInput            the caller's fault: status 4xx, RFC 9457 fields
 │   ├─ UnknownType         no HybridJobType of that name
 │   └─ PayloadTooLarge     over the type's or the listener's limit
 ├─ Unavailable             a dependency is away; try again after `retry_after` seconds
 │   ├─ DatabaseUnavailable
 │   │   └─ RowLocked       another transaction keeps what this one needs
 │   └─ ClusterUnavailable
 ├─ BrokenPayloadSchema     a job type's payloadSchema is no JSON Schema
 ├─ SchemaError             the database's schema is older than this program needs, or altered
 └─ AttemptClosed           the attempt named is not the open one: the caller is fenced

Errors of the Kubernetes API stand in `kube/client.py`, those of handlers in `sdk/errors.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class HybridJobsError(Exception):
    """The root of this tree."""


class ConfigurationError(HybridJobsError):
    """A setting is missing or wrong."""


class BrokenPayloadSchema(HybridJobsError):  # noqa: N818 - named for what is broken
    """A job type's payloadSchema is no JSON Schema, or not whole."""

    def __init__(self, type_: str, why: str) -> None:
        super().__init__(f"the payloadSchema of {type_} is no JSON Schema: {why}")


class SchemaError(HybridJobsError):
    """The database's schema does not fit this program."""


@dataclass(frozen=True)
class FieldError:
    """One fault in the input: `path` as a JSON pointer (RFC 6901), `message` for people."""

    path: str
    message: str


class InvalidInput(HybridJobsError):  # noqa: N818 - named for what the caller did
    """The request cannot be accepted as it is; `status` is the HTTP answer."""

    status = 422
    title = "Invalid input"

    def __init__(
        self, detail: str, *, status: int | None = None, errors: Sequence[FieldError] = ()
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        if status is not None:
            self.status = status

    def in_full(self) -> str:
        """The detail and every fault with its path, as one line."""
        faults = "; ".join(f"{each.path}: {each.message}" for each in self.errors)
        return f"{self.detail}: {faults}" if faults else self.detail


class UnknownType(InvalidInput):
    """The job type has no HybridJobType."""

    title = "Unknown job type"

    def __init__(self, type_: str, known: Sequence[str]) -> None:
        names = ", ".join(sorted(known)) or "none yet; apply a HybridJobType"
        super().__init__(
            f"there is no job type {type_!r}; known types: {names}",
            errors=[FieldError("/type", "unknown job type")],
        )


class PayloadTooLarge(InvalidInput):
    """The body or payload is over its limit (bytes)."""

    status = 413
    title = "Too large"


class Unavailable(HybridJobsError):  # noqa: N818 - the field's word
    """Something this needs is away for now."""

    def __init__(self, detail: str, *, retry_after: float = 5.0) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after


class DatabaseUnavailable(Unavailable):
    """Postgres does not answer."""


class RowLocked(DatabaseUnavailable):
    """Another transaction, such as an open one in psql, keeps the row or key; others are free."""

    def __init__(self) -> None:
        super().__init__("another transaction keeps the same row or key locked", retry_after=1)


class ClusterUnavailable(Unavailable):
    """The Kubernetes API does not answer."""


class AttemptClosed(HybridJobsError):  # noqa: N818 - a state, named as one
    """The attempt is not the job's open one; nothing was changed."""

    def __init__(self, job_id: object, attempt: int) -> None:
        super().__init__(f"attempt {attempt} of job {job_id} is closed")
