"""What the environment tells a pod's worker: which attempt of which job, and where to report."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import UUID


class BadEnvironment(Exception):  # noqa: N818 - named for what is wrong
    """A variable of the worker contract is missing or wrong."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The HYBRIDJOB_* variables. Either `payload` (JSON text) or `payload_url` is set."""

    job_id: UUID
    type: str
    handler: str
    attempt: int
    deadline_seconds: float
    payload: str | None
    payload_url: str | None
    api: str
    token_file: Path
    traceparent: str | None

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """From environment variables; BadEnvironment names the one that is missing or wrong."""

        def required(name: str) -> str:
            if value := environment.get(name):
                return value
            raise BadEnvironment(f"{name} is not set: `hybridjobs worker` runs in a job's pod")

        payload = environment.get("HYBRIDJOB_PAYLOAD")
        try:
            return cls(
                job_id=UUID(required("HYBRIDJOB_ID")),
                type=required("HYBRIDJOB_TYPE"),
                handler=environment.get("HYBRIDJOB_HANDLER") or required("HYBRIDJOB_TYPE"),
                attempt=int(required("HYBRIDJOB_ATTEMPT")),
                deadline_seconds=float(required("HYBRIDJOB_DEADLINE_SECONDS")),
                payload=payload,
                payload_url=required("HYBRIDJOB_PAYLOAD_URL") if payload is None else None,
                api=required("HYBRIDJOB_API"),
                token_file=Path(required("HYBRIDJOB_TOKEN_FILE")),
                traceparent=environment.get("TRACEPARENT") or None,
            )
        except ValueError as error:
            raise BadEnvironment(f"a HYBRIDJOB_ variable is wrong: {error}") from None
