"""Answers other than success: GitHub's own, and those that a test planned."""

import re
from dataclasses import dataclass, field
from typing import Any

DOCUMENTATION = "https://docs.github.com/rest"


class GitHubError(Exception):
    """An answer other than success; `more` are members of its body."""

    def __init__(
        self,
        status: int,
        message: str,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}
        self.body = {
            "message": message,
            "documentation_url": DOCUMENTATION,
            "status": str(status),
            **more,
        }


def not_found() -> GitHubError:
    """What GitHub says of all that is not there, or not for the caller to see."""
    return GitHubError(404, "Not Found")


@dataclass
class Fault:
    """What to do to the next requests instead of, or before, answering them."""

    status: int | None = None
    times: int = 1
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    delay_seconds: float = 0.0
    after: int = 0

    def takes(self, path: str) -> bool:
        """Whether this request is one of them; counts it."""
        if self.times <= 0 or not re.search(self.path, path):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        self.times -= 1
        return True


class Planned(Exception):  # noqa: N818 - planned by a test
    """A fault's turn."""

    def __init__(self, fault: Fault) -> None:
        super().__init__()
        self.fault = fault
