"""The state of this GitHub: its repositories, callers, limits, and planned faults."""

import copy
import json
import math
import time
from typing import Any

from .apps import Apps
from .contents import Contents, Object, Recorded
from .draw import chance, draw, time_text
from .errors import Fault, GitHubError, not_found
from .limits import Limits
from .people import People
from .plan import Plan
from .simulated import Simulated
from .templates import Templates
from .usage import Usage

_FIRST_LARGE, _FIRST_SIMULATED = 9_000_000_000, 900_000_000
_BLOCKED = "Repository access blocked"


class GitHub:
    """The recorded objects, and what tests changed about them."""

    def __init__(self, data: Object) -> None:
        self.data = data
        self.reset()

    def reset(self) -> None:
        """As recorded, with full rate limits."""
        data = copy.deepcopy({name: self.data[name] for name in self.data if name != "schema"})
        self.faults: list[Fault] = []
        self.requests: list[Object] = []
        self.limits, self.usage = Limits(), Usage()
        self.apps = Apps()
        self.revoked: set[str] = set()
        self.trouble: dict[str, Any] = {}
        self.timeout_nodes = math.inf
        self.templates = Templates(data)
        self.people = People(self.templates.user())
        self.repositories: dict[int, Object] = {each["id"]: each for each in data["repositories"]}
        self.names: dict[str, int] = {name.lower(): id_ for name, id_ in data["names"].items()}
        self.detail_only = frozenset(data["detail_only"])
        self.users: list[Object] = data["users"]
        self.samples: list[Object] = data["pull_requests"]
        self.contents: dict[int, Contents] = {}
        self.conditions: dict[int, Object] = {}
        self.waits: dict[str, int] = {}  # for statistics: answers of 202 still to come
        self.stats_waits = 1
        recorded = {id_: Recorded(each, self.templates) for id_, each in self.repositories.items()}
        self.pull_requests = {id_: each.pulls for id_, each in recorded.items()}
        for each in sorted(self.samples, key=lambda each: str(each["updated_at"])):
            recorded[each["base"]["repo"]["id"]].pulls[each["number"]] = each
        for each in data["issues"]:
            recorded[each["repository"]].issues[each["number"]] = each["value"]
        for kind in ("reviews", "review_comments", "issue_comments"):
            for each in data[kind]:
                recorded[each["repository"]].add(kind, each["number"], each["value"])
        self.contents.update(recorded)

    # What every token has left, as tests set it.

    @property
    def remaining(self) -> int:
        """Requests of any kind."""
        return self.limits.start[0] if self.limits.start else self.limits.sizes["core"]

    @remaining.setter
    def remaining(self, remaining: int) -> None:
        self.limits.put(remaining, self.reset_at)

    @property
    def reset_at(self) -> float:
        """When there are more: seconds since the epoch."""
        start = self.limits.start
        return start[1] if start else time.time() + self.limits.window_seconds

    @reset_at.setter
    def reset_at(self, reset_at: float) -> None:
        self.limits.put(self.remaining, reset_at)

    # Repositories by name.

    def find(self, owner: str, name: str, token: str) -> tuple[Contents, bool]:
        """By a name, present or earlier, and whether it is the present one."""
        full_name = f"{owner}/{name}"
        id_ = self.names.get(full_name.lower())
        if id_ is None:
            raise not_found()
        found = self.by_id(id_, token)
        return found, str(found.repository["full_name"]).lower() == full_name.lower()

    def by_id(self, id_: int, token: str) -> Contents:
        """By GitHub's id."""
        if id_ not in self.repositories:
            raise not_found()
        found = self.contents[id_]
        condition = self.conditions.get(id_, {})
        match condition.get("condition"):
            case "deleted":
                raise not_found()
            case "private" if token not in condition.get("tokens", ()):
                if not self.apps.may_read(token, str(found.repository["full_name"])):
                    raise not_found()
            case "disabled":
                raise self._blocked(403, "tos")
            case "dmca":
                raise self._blocked(451, "dmca")
        return found

    def _blocked(self, status: int, reason: str) -> GitHubError:
        block = {
            "reason": reason,
            "created_at": "2026-01-01T00:00:00Z",
            "html_url": "https://github.com/github/dmca",
        }
        return GitHubError(status, _BLOCKED, block=block)

    def user(self, login: str) -> Object | None:
        """By login."""
        for each in self.users:
            if each["login"].lower() == login.lower():
                return each
        plans = [each.plan for each in self.contents.values() if isinstance(each, Simulated)]
        return self.people.find(login, max((plan.contributors for plan in plans), default=0))

    # What tests change.

    def simulate(self, plan: Plan) -> Object:
        """A repository by a plan."""
        place = sum(isinstance(each, Simulated) for each in self.contents.values())
        id_ = _FIRST_SIMULATED + place
        repository = self._copy_repository(plan.full_name, id_) | {
            "node_id": f"R_{id_}",
            "has_issues": True,
            "open_issues_count": plan.issues,
        }
        made = Simulated(plan, place, repository, self.templates, self.people)
        self.repositories[id_], self.contents[id_] = repository, made
        self.names[plan.full_name.lower()] = id_
        return repository

    def large(self, full_name: str, count: int, step_seconds: float) -> Object:
        """A repository of `count` pull requests; each was changed `step_seconds` before the next.

        Authors go round the recorded users, with a ghost now and then; states go round too.
        """
        id_ = _FIRST_LARGE + len(self.repositories)
        repository = self._copy_repository(full_name, id_)
        made = Recorded(repository, self.templates)
        self.repositories[id_], self.contents[id_] = repository, made
        self.pull_requests[id_] = made.pulls
        self.names[full_name.lower()] = id_
        now = time.time()
        for number in range(1, count + 1):
            updated = now - (count - number) * step_seconds
            made.pulls[number] = self._copy_pull(repository, number, updated)
        return repository

    def _copy_repository(self, full_name: str, id_: int) -> Object:
        template = self.repositories[self.samples[0]["base"]["repo"]["id"]]
        return _renamed(template, full_name) | {"id": id_}

    def _copy_pull(self, repository: Object, number: int, updated: float) -> Object:
        sample = self.samples[number % len(self.samples)]
        state = ("open", "closed", "merged")[number % 3]
        ended = None if state == "open" else time_text(updated)
        author = None if number % 17 == 0 else self.users[number % len(self.users)]
        path = f"{repository['full_name']}/pull/{number}"
        return sample | {
            "id": repository["id"] + number,
            "number": number,
            "title": f"{sample['title']} ({number})",
            "state": "open" if state == "open" else "closed",
            "html_url": f"https://github.com/{path}",
            "diff_url": f"https://github.com/{path}.diff",
            "patch_url": f"https://github.com/{path}.patch",
            "user": author,
            "base": sample["base"] | {"repo": repository},
            "created_at": time_text(updated - 86_400),
            "updated_at": time_text(updated),
            "closed_at": ended,
            "merged_at": ended if state == "merged" else None,
            "merged": state == "merged",
            "merged_by": self.users[0] if state == "merged" else None,
            "comments": 0,
            "review_comments": 0,
        }

    def rename(self, full_name: str, to: str) -> None:
        """Give a repository another name; the old one leads to it."""
        id_ = self.names[full_name.lower()]
        self.repositories[id_] |= _renamed(self.repositories[id_], to)
        self.names[to.lower()] = id_
        for each in self.pull_requests.get(id_, {}).values():
            each["base"] = each["base"] | {"repo": self.repositories[id_]}

    def change(self, full_name: str, number: int | None, changes: Object) -> None:
        """Replace members of a repository or of one of its recorded pull requests."""
        id_ = self.names[full_name.lower()]
        target = self.repositories[id_] if number is None else self.pull_requests[id_][number]
        target |= changes

    def condition(self, full_name: str, condition: str | None, tokens: list[str]) -> None:
        """Put a repository into one of GitHub's states; None is the usual one."""
        id_ = self.names[full_name.lower()]
        self.conditions[id_] = {"condition": condition, "tokens": tokens}
        self.repositories[id_] |= {
            "private": condition == "private",
            "visibility": "private" if condition == "private" else "public",
            "archived": condition == "archived",
            "has_issues": condition != "issues-disabled",
        }
        if condition == "empty":
            self.repositories[id_]["size"] = 0

    def is_in(self, contents: Contents, condition: str) -> bool:
        """Whether a repository is in that state."""
        return bool(
            self.conditions.get(contents.repository["id"], {}).get("condition") == condition
        )

    def happens(self, kind: str) -> bool:
        """Whether a trouble of this kind comes to the present request."""
        seen = len(self.requests)
        place = (self.trouble.get("seed", 1), seen, *kind.encode())
        return chance(self.trouble.get(kind, 0.0), draw(*place))


def _renamed(repository: Object, full_name: str) -> Object:
    renamed: Object = json.loads(json.dumps(repository).replace(repository["full_name"], full_name))
    owner, _, name = full_name.partition("/")
    return renamed | {"name": name, "owner": renamed["owner"] | {"login": owner}}
