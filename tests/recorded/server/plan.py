"""What a simulated repository is to be."""

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Plan:
    """What a repository is to hold; counts by pull request and issue are averages."""

    full_name: str
    pull_requests: int = 100
    issues: int = 0
    reviews_per_pull_request: int = 2
    comments_per_pull_request: int = 4  # as many in the conversation as on the diff
    comments_per_issue: int = 2
    contributors: int = 100
    seed: int = 1
    span_days: float = 25  # from the first pull request to the last
    heavy_every: int = 1000  # of so many, one has so many reviews and comments of each kind:
    heavy: int = 250
    updates: int = 0  # to arrive, each after so many requests:
    every_requests: int = 10
    renames: bool = True  # some updates are of a person's login

    @classmethod
    def of(cls, document: dict[str, Any]) -> "Plan":
        """By JSON's names; a name unknown is a KeyError."""
        names = {_camel(each.name): each.name for each in fields(cls)}
        return cls(**{names[name]: value for name, value in document.items()})


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
