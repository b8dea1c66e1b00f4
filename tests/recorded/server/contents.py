"""What a repository holds, as the REST API has it: recorded objects, or any other source of them.

Pull requests and issues share their numbers. States are GraphQL's: OPEN, CLOSED, MERGED.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from .draw import time_seconds
from .templates import Templates

Object = dict[str, Any]
Key = tuple[int, int]  # what it is sorted by, and the number

STATES = frozenset({"OPEN", "CLOSED", "MERGED"})
# Members that a pull request and its issue have in common.
_SHARED = (
    "title",
    "body",
    "state",
    "user",
    "labels",
    "assignee",
    "assignees",
    "milestone",
    "locked",
    "comments",
    "created_at",
    "updated_at",
    "closed_at",
    "author_association",
    "active_lock_reason",
    "draft",
    "number",
)


class Contents(ABC):
    """A repository and all that is in it."""

    repository: Object

    @abstractmethod
    def numbers(self, kind: str) -> Iterable[int]:
        """Of a kind: pull, issue."""

    @abstractmethod
    def state(self, number: int) -> str: ...

    @abstractmethod
    def created(self, number: int) -> int: ...

    @abstractmethod
    def updated(self, number: int) -> int: ...

    @abstractmethod
    def pull(self, number: int) -> Object | None: ...

    @abstractmethod
    def issue(self, number: int) -> Object | None:
        """An issue, or a pull request's issue."""

    @abstractmethod
    def reviews(self, number: int) -> list[Object]: ...

    @abstractmethod
    def review_comments(self, number: int) -> list[Object]:
        """In the order of their ids."""

    @abstractmethod
    def issue_comments(self, number: int) -> list[Object]: ...

    def counts(self, number: int) -> tuple[int, int, int]:
        """Reviews, review comments, comments in the conversation."""
        return (
            len(self.reviews(number)),
            len(self.review_comments(number)),
            len(self.issue_comments(number)),
        )

    def changed(self) -> int:
        """How many pull requests were changed by updates, or came with one."""
        return 0

    @abstractmethod
    def contributors(self) -> list[Object]: ...

    @abstractmethod
    def commit_activity(self) -> list[Object]: ...

    @abstractmethod
    def contributor_activity(self) -> list[Object]: ...

    def keys(self, kinds: Iterable[str], sort: str, states: frozenset[str] = STATES) -> list[Key]:
        """Of the numbers of these kinds in these states, ascending by created or updated."""
        when = self.created if sort == "created" else self.updated
        return sorted(
            (when(number), number)
            for kind in kinds
            for number in self.numbers(kind)
            if self.state(number) in states
        )


def issue_of(pull: Object, template: Object, id_: int) -> Object:
    """The issue that a pull request also is; `template` is any issue of the repository."""
    addresses = {
        name: value.replace(f"/{template['number']}", f"/{pull['number']}")
        for name, value in template.items()
        if name.endswith("url") and isinstance(value, str)
    }
    reactions = template["reactions"] | {
        "url": template["reactions"]["url"].replace(
            f"/{template['number']}/", f"/{pull['number']}/"
        )
    }
    return (
        template
        | addresses
        | {name: pull[name] for name in _SHARED if name in pull}
        | {
            "id": id_,
            "html_url": pull["html_url"],
            "reactions": reactions,
            "closed_by": pull.get("merged_by"),
            "state_reason": None,
            "pull_request": {
                "url": pull["url"],
                "html_url": pull["html_url"],
                "diff_url": pull["diff_url"],
                "patch_url": pull["patch_url"],
                "merged_at": pull["merged_at"],
            },
        }
    )


class Recorded(Contents):
    """Objects in memory, by number."""

    def __init__(self, repository: Object, templates: Templates) -> None:
        self.repository = repository
        self._templates = templates
        self.pulls: dict[int, Object] = {}
        self.issues: dict[int, Object] = {}
        self._reviews: dict[int, list[Object]] = {}
        self._review_comments: dict[int, list[Object]] = {}
        self._issue_comments: dict[int, list[Object]] = {}

    def add(self, kind: str, number: int, value: Object) -> None:
        """A review, review comment or issue comment of a number; counts it there."""
        lists = {
            "reviews": self._reviews,
            "review_comments": self._review_comments,
            "issue_comments": self._issue_comments,
        }
        found = lists[kind].setdefault(number, [])
        found.append(value)
        found.sort(key=lambda each: int(each["id"]))
        if kind != "reviews":
            for holder in (self.pulls, self.issues):
                if number in holder:
                    member = "comments" if kind == "issue_comments" else kind
                    if member in holder[number]:
                        holder[number][member] = len(found)

    def numbers(self, kind: str) -> Iterable[int]:
        return self.pulls if kind == "pull" else self.issues.keys() - self.pulls.keys()

    def _either(self, number: int) -> Object:
        return self.pulls.get(number) or self.issues[number]

    def state(self, number: int) -> str:
        found = self._either(number)
        return "MERGED" if found.get("merged_at") else str(found["state"]).upper()

    def created(self, number: int) -> int:
        return time_seconds(self._either(number)["created_at"])

    def updated(self, number: int) -> int:
        return time_seconds(self._either(number)["updated_at"])

    def pull(self, number: int) -> Object | None:
        return self.pulls.get(number)

    def issue(self, number: int) -> Object | None:
        if number not in self.pulls:
            return self.issues.get(number)
        pull = self.pulls[number]
        return issue_of(pull, self._templates.issue(self.repository), pull["id"] + 1)

    def reviews(self, number: int) -> list[Object]:
        return self._reviews.get(number, [])

    def review_comments(self, number: int) -> list[Object]:
        return self._review_comments.get(number, [])

    def issue_comments(self, number: int) -> list[Object]:
        return self._issue_comments.get(number, [])

    def contributors(self) -> list[Object]:
        counts: dict[int, Object] = {}
        for each in self.pulls.values():
            if each["user"]:
                person = counts.setdefault(each["user"]["id"], {**each["user"], "contributions": 0})
                person["contributions"] += 1
        return sorted(counts.values(), key=lambda each: -each["contributions"])

    def commit_activity(self) -> list[Object]:
        return [self._templates.example("commit_activity")] * 52

    def contributor_activity(self) -> list[Object]:
        return self._templates.activity_of(self.contributors())
