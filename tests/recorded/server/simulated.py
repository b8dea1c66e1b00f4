"""A repository of any size: each object is a function of the seed and its number.

Kept in memory are two numbers for each pull request and issue, and what updates changed.
"""

import time
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

from .contents import STATES, Contents, Key, Object, issue_of
from .draw import draw, sha, time_text
from .people import People
from .plan import Plan
from .templates import Templates

_DAY_SECONDS = 86_400
_PULL, _REVIEW, _REVIEW_COMMENT, _COMMENT, _PERSON, _STATE, _UPDATE = range(1, 8)
_REVIEW_STATES = ("APPROVED", "COMMENTED", "CHANGES_REQUESTED", "DISMISSED")
_GHOST_EVERY = 17
_THREAD = 3  # comments: the original and two replies
_PER_NUMBER = 1000  # ids


@dataclass
class _Change:
    """What updates did to one pull request."""

    edits: int = 0
    ended_at: int | None = None
    reviews: list[int] = field(default_factory=list)  # when
    comments: list[int] = field(default_factory=list)


class Simulated(Contents):
    """A repository by a plan; `place` tells its ids from other simulated ones."""

    def __init__(
        self, plan: Plan, place: int, repository: Object, templates: Templates, people: People
    ) -> None:
        self.plan = plan
        self.repository = repository
        self._people = people
        self._templates = templates
        self._first_id = (place + 1) * 10_000_000_000
        self._made = {
            kind: templates.of(kind, repository)
            for kind in ("pulls", "issues", "reviews", "review_comments", "issue_comments")
        }
        self._planned = plan.pull_requests + plan.issues
        self._start = int(time.time() - plan.span_days * _DAY_SECONDS)
        self._step = plan.span_days * _DAY_SECONDS / max(self._planned, 1)
        self._created = array("q", [0])
        self._updated = array("q", [0])
        end = int(time.time()) - 1
        for number in range(1, self._planned + 1):
            created = int(self._start + (number - 1) * self._step)
            span = max(end - created, 1)
            later = draw(plan.seed, _UPDATE, number) % (span if number % 2 else min(span, 3600))
            self._created.append(min(created, end))
            self._updated.append(min(created + later, end))
        self._changes: dict[int, _Change] = {}
        self._keys: dict[object, list[Key]] = {}
        self.applied = 0

    # Which numbers there are.

    def is_pull(self, number: int) -> bool:
        """Issues are spread evenly among the pull requests."""
        total, issues = self._planned, self.plan.issues
        return number > total or number * issues // total == (number - 1) * issues // total

    def exists(self, number: int) -> bool:
        return 0 < number < len(self._created)

    def numbers(self, kind: str) -> Iterable[int]:
        wanted = kind == "pull"
        return (each for each in range(1, len(self._created)) if self.is_pull(each) == wanted)

    def state(self, number: int) -> str:
        if self._change(number).ended_at is not None:
            return "MERGED" if self.is_pull(number) else "CLOSED"
        state = draw(self.plan.seed, _STATE, number) % 3
        return ("OPEN", "CLOSED", "MERGED" if self.is_pull(number) else "CLOSED")[state]

    def created(self, number: int) -> int:
        return self._created[number]

    def updated(self, number: int) -> int:
        return self._updated[number]

    def keys(self, kinds: Iterable[str], sort: str, states: frozenset[str] = STATES) -> list[Key]:
        place = (tuple(kinds), sort, states)
        if place not in self._keys:
            self._keys[place] = super().keys(place[0], sort, states)
        return self._keys[place]

    # The objects.

    def _change(self, number: int) -> _Change:
        return self._changes.get(number, _Change())

    def _id(self, kind: int, number: int, index: int = 0) -> int:
        return self._first_id + kind * 1_000_000_000 + number * _PER_NUMBER + index

    def _person(self, *place: int) -> Object | None:
        """Somebody, or nobody: an account that is gone."""
        value = draw(self.plan.seed, _PERSON, *place)
        if value % _GHOST_EVERY == 0:
            return None
        return self._people.user(value // _GHOST_EVERY % self.plan.contributors)

    def _count(self, number: int, kind: int, average: int) -> int:
        if number % self.plan.heavy_every == 7 and self.is_pull(number) and average:
            return self.plan.heavy
        return draw(self.plan.seed, kind, number) % (2 * average + 1)

    def pull(self, number: int) -> Object | None:
        if not self.exists(number) or not self.is_pull(number):
            return None
        seed, change = self.plan.seed, self._change(number)
        state = self.state(number)
        ended = None if state == "OPEN" else time_text(self._ended(number))
        merged = state == "MERGED"
        base = {"ref": "main", "sha": sha(seed, _PULL, number, 1)}
        owner = self.repository["owner"]
        login = self.repository["full_name"].partition("/")[0]
        made = self._made["pulls"](NUMBER=str(number), ID=str(self._id(_PULL, number)))
        return made | {
            "number": number,
            "node_id": f"PR_{self.repository['id']}_{number}",
            "title": f"Change {number}" + (f" ({change.edits})" if change.edits else ""),
            "body": self._edited(self._body(_PULL, number), change.edits),
            "state": "open" if state == "OPEN" else "closed",
            "user": self._person(_PULL, number) or self._people.ghost(),
            "assignee": None,
            "assignees": [],
            "requested_reviewers": [],
            "requested_teams": [],
            "draft": draw(seed, _PULL, number, 2) % 9 == 0 and not merged,
            "merged": merged,
            "merged_at": ended if merged else None,
            "merged_by": self._people.user(number % self.plan.contributors) if merged else None,
            "closed_at": ended,
            "created_at": time_text(self._created[number]),
            "updated_at": time_text(self._updated[number]),
            "additions": draw(seed, _PULL, number, 3) % 900,
            "deletions": draw(seed, _PULL, number, 4) % 900,
            "changed_files": 1 + draw(seed, _PULL, number, 5) % 30,
            "commits": 1 + draw(seed, _PULL, number, 6) % 12,
            "comments": self._comment_count(number),
            "review_comments": len(self._review_comment_places(number)),
            "mergeable": None if state != "OPEN" else number % 5 > 0,
            "mergeable_state": "unknown" if state != "OPEN" else ("dirty", "clean")[number % 5 > 0],
            "rebaseable": None,
            "merge_commit_sha": sha(seed, _PULL, number, 8) if merged else None,
            "base": {**base, "label": f"{login}:main", "repo": self.repository, "user": owner},
            "head": {
                "ref": f"topic-{number}",
                "sha": sha(seed, _PULL, number, 7),
                "label": f"{login}:topic-{number}",
                "repo": self.repository,
                "user": owner,
            },
        }

    def _ended(self, number: int) -> int:
        change = self._change(number)
        return change.ended_at or max(self._created[number], self._first_updated(number))

    def _first_updated(self, number: int) -> int:
        """As planned, before any update."""
        span = 3600
        later = draw(self.plan.seed, _UPDATE, number, 1) % span
        return min(self._created[number] + later, self._updated[number])

    def _body(self, *place: int) -> str | None:
        value = draw(self.plan.seed, *place, 99)
        if value % 7 == 0:
            return None
        return f"Words {value % 1000}, for {place[1]}.\n" * (value % 4 + 1)

    def _edited(self, body: str | None, edits: int) -> str | None:
        return f"{body}Edited {edits} times.\n" if body and edits else body

    def issue(self, number: int) -> Object | None:
        if not self.exists(number):
            return None
        made = self._made["issues"](NUMBER=str(number), ID=str(self._id(_STATE, number)))
        made["number"] = number
        pull = self.pull(number)
        if pull is not None:
            return issue_of(pull, made, self._id(_STATE, number))
        closed = self.state(number) == "CLOSED"
        assignees = [
            self._people.user(draw(self.plan.seed, _STATE, number, each) % self.plan.contributors)
            for each in range(number % 3)
        ]
        return made | {
            "node_id": f"I_{self.repository['id']}_{number}",
            "title": f"Question {number}",
            "body": self._body(_STATE, number),
            "state": "closed" if closed else "open",
            "state_reason": "completed" if closed else None,
            "user": self._person(_PULL, number) or self._people.ghost(),
            "assignees": assignees,
            "assignee": assignees[0] if assignees else None,
            "closed_by": self._people.user(number % self.plan.contributors) if closed else None,
            "comments": self._comment_count(number),
            "created_at": time_text(self._created[number]),
            "updated_at": time_text(self._updated[number]),
            "closed_at": time_text(self._ended(number)) if closed else None,
        }

    def _review_count(self, number: int) -> int:
        return self._count(number, _REVIEW, self.plan.reviews_per_pull_request)

    def reviews(self, number: int) -> list[Object]:
        extra = self._change(number).reviews
        planned = self._review_count(number)
        times = [self._created[number] + 60 * each for each in range(planned)] + extra
        return [self._review(number, index, when) for index, when in enumerate(times)]

    def _review(self, number: int, index: int, when: int) -> Object:
        place = (_REVIEW, number, index)
        made = self._made["reviews"](NUMBER=str(number), ID=str(self._id(*place)))
        return made | {
            "node_id": f"PRR_{self.repository['id']}_{number}_{index}",
            "user": self._person(*place),
            "body": self._body(*place) or "",
            "state": _REVIEW_STATES[draw(self.plan.seed, *place) % len(_REVIEW_STATES)],
            "submitted_at": time_text(when),
            "commit_id": sha(self.plan.seed, _PULL, number, 7),
        }

    def counts(self, number: int) -> tuple[int, int, int]:
        if not self.is_pull(number):
            return 0, 0, self._comment_count(number)
        reviews = self._review_count(number) + len(self._change(number).reviews)
        return reviews, len(self._review_comment_places(number)), self._comment_count(number)

    def _review_comment_places(self, number: int) -> list[tuple[int, int]]:
        """Each one's slot, which gives its id, and its index within the thread.

        In some threads the replies have lower ids than the original; from some it was deleted.
        """
        if not self._review_count(number):
            return []
        count = self._count(number, _REVIEW_COMMENT, self.plan.comments_per_pull_request // 2)
        places = []
        for index in range(count):
            thread, within = divmod(index, _THREAD)
            whole = (thread + 1) * _THREAD <= count
            if within == 0 and whole and self._is_beheaded(number, thread):
                continue
            turned = whole and draw(self.plan.seed, _REVIEW_COMMENT, number, thread) % 4 == 0
            places.append((thread * _THREAD + (within + 2 * turned) % _THREAD, within))
        return sorted(places)

    def _is_beheaded(self, number: int, thread: int) -> bool:
        return draw(self.plan.seed, _REVIEW_COMMENT, number, thread, 1) % 11 == 0

    def review_comments(self, number: int) -> list[Object]:
        places = self._review_comment_places(number)
        return [self._review_comment(number, slot, within) for slot, within in places]

    def _review_comment(self, number: int, slot: int, within: int) -> Object:
        place = (_REVIEW_COMMENT, number, slot)
        seed, id_ = self.plan.seed, self._id(*place)
        thread = slot // _THREAD
        made = self._made["review_comments"](NUMBER=str(number), ID=str(id_))
        made.pop("in_reply_to_id", None)
        made.pop("position", None)
        turned = (slot - within) % _THREAD
        if within:
            first = thread * _THREAD + turned
            made["in_reply_to_id"] = self._id(_REVIEW_COMMENT, number, first)
        when = self._created[number] + 90 * (thread * _THREAD + within)
        review = thread % self._review_count(number)
        return made | {
            "node_id": f"PRRC_{self.repository['id']}_{number}_{slot}",
            "pull_request_review_id": self._id(_REVIEW, number, review),
            "user": self._person(*place),
            "body": f"On line {slot}: {draw(seed, *place) % 1000}",
            "path": f"src/file_{thread}.py",
            "diff_hunk": f"@@ -1 +{thread} @@\n-a\n+b{thread}",
            **self._position(thread),
            "original_position": thread + 1,
            "commit_id": sha(seed, _PULL, number, 7),
            "original_commit_id": sha(seed, _PULL, number, 9),
            "created_at": time_text(when),
            "updated_at": time_text(when + draw(seed, *place, 1) % 2 * 60),
        }

    def _position(self, thread: int) -> Object:
        """None where the diff is outdated: GitHub's description knows no null there."""
        return {} if thread % 5 == 0 else {"position": thread + 1}

    def _comment_average(self, number: int) -> int:
        if self.is_pull(number):
            return self.plan.comments_per_pull_request - self.plan.comments_per_pull_request // 2
        return self.plan.comments_per_issue

    def _comment_count(self, number: int) -> int:
        planned = self._count(number, _COMMENT, self._comment_average(number))
        return planned + len(self._change(number).comments)

    def issue_comments(self, number: int) -> list[Object]:
        extra = self._change(number).comments
        planned = self._comment_count(number) - len(extra)
        times = [self._created[number] + 30 * each for each in range(planned)] + extra
        return [self._issue_comment(number, index, when) for index, when in enumerate(times)]

    def _issue_comment(self, number: int, index: int, when: int) -> Object:
        place = (_COMMENT, number, index)
        made = self._made["issue_comments"](NUMBER=str(number), ID=str(self._id(*place)))
        return made | {
            "node_id": f"IC_{self.repository['id']}_{number}_{index}",
            "user": self._person(*place) or self._people.ghost(),
            "body": f"Said {draw(self.plan.seed, *place) % 1000}",
            "created_at": time_text(when),
            "updated_at": time_text(when),
        }

    # Who contributed, and when.

    def contributors(self) -> list[Object]:
        named = [
            {**self._people.user(each), "contributions": 2 * (self.plan.contributors - each)}
            for each in range(self.plan.contributors)
        ]
        anonymous = {
            "type": "Anonymous",
            "name": "Nobody",
            "email": "nobody@example.com",
            "contributions": 1,
        }
        return [*named, anonymous]

    def commit_activity(self) -> list[Object]:
        week = int(time.time()) // (7 * _DAY_SECONDS) * 7 * _DAY_SECONDS
        weeks = []
        for back in reversed(range(52)):
            days = [draw(self.plan.seed, back, day) % 20 for day in range(7)]
            start = week - back * 7 * _DAY_SECONDS
            weeks.append({"days": days, "total": sum(days), "week": start})
        return weeks

    def contributor_activity(self) -> list[Object]:
        """Of the last ten weeks; everybody rested in some, and some in the last ones."""
        found = self._templates.activity_of(self.contributors())
        starts = [each["week"] for each in self.commit_activity()[-10:]]
        for place, each in enumerate(found):
            each["weeks"] = [
                {"w": start, "a": commits, "d": 0, "c": commits}
                for index, start in enumerate(starts)
                for commits in [
                    draw(self.plan.seed, place, index) % (3 if index < place % 12 else 1)
                ]
            ]
        return found

    # What changes while it is read.

    def tick(self, requests: int) -> None:
        """Let an update arrive, if one is due after so many requests."""
        if self.applied < self.plan.updates and requests % self.plan.every_requests == 0:
            self._update(self.applied)
            self.applied += 1
            self._keys.clear()

    def changed(self) -> int:
        return len(self._changes.keys() | range(self._planned + 1, len(self._created)))

    def _update(self, index: int) -> None:
        seed, now = self.plan.seed, int(time.time())
        kind = index % 6
        if kind == 0:
            self._created.append(now)
            self._updated.append(now)
            return
        number = 1 + draw(seed, _UPDATE, 0, index) % (len(self._created) - 1)
        while not self.is_pull(number):
            number -= 1
        change = self._changes.setdefault(number, _Change())
        self._updated[number] = now
        if kind == 1:
            change.comments.append(now)
        elif kind == 2:
            change.reviews.append(now)
        elif kind == 3 and self.state(number) == "OPEN":
            change.ended_at = now
        elif kind == 4 and self.plan.renames:
            author = self._people.index(self._person(_PULL, number))
            if author is not None:
                self._people.rename(author)
        else:
            change.edits += 1
