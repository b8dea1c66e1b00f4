"""Recorded objects as patterns for others."""

import json
from collections.abc import Callable, Iterable
from typing import Any

Object = dict[str, Any]


def filled(template: Object, marks: dict[str, str]) -> Callable[..., Object]:
    """A function that copies a template: `marks` says which texts in it stand for which value."""
    text = json.dumps(template)
    for old, mark in marks.items():
        text = text.replace(old, mark)

    def make(**values: str) -> Object:
        made = text
        for mark, value in values.items():
            made = made.replace(f"@{mark}@", value)
        result: Object = json.loads(made)
        return result

    return make


class Templates:
    """The recorded object of each kind, to be filled with others' names and numbers."""

    def __init__(self, data: Object) -> None:
        self._data = data

    def example(self, kind: str) -> Object:
        """An object that was not recorded, as GitHub's description shows it."""
        found: Object = json.loads(json.dumps(self._data["examples"][kind]))
        return found

    def user(self) -> Object:
        """The fullest recorded one."""
        users: list[Object] = self._data["users"]
        return max((each for each in users if each["type"] == "User"), key=len)

    def issue(self, repository: Object) -> Object:
        """An issue of a repository."""
        made = self.of("issues", repository)(NUMBER="1", ID="1")
        return made | {"number": 1}

    def of(self, kind: str, repository: Object) -> Callable[..., Object]:
        """Makes objects of a repository: NUMBER is the pull request's or issue's, ID their own."""
        if kind == "pulls":
            value = dict(self._data["pull_requests"][0])
            number, own_name = value["number"], value["base"]["repo"]["full_name"]
        else:
            recorded = self._data[kind][-1]
            number, own_name = recorded["number"], recorded["full_name"]
            value = dict(recorded["value"])
        for member in ("user", "assignees", "requested_reviewers", "requested_teams", "base"):
            value.pop(member, None)
        head = value.pop("head", None)
        make = filled(
            value,
            {own_name: repository["full_name"], str(value["id"]): "@ID@"}
            | {f"/{kind}/{number}": f"/{kind}/@NUMBER@" for kind in ("pull", "pulls", "issues")},
        )
        if head is None:
            return make
        return lambda **values: make(**values) | {"head": head | {"repo": repository}}

    def activity_of(self, contributors: Iterable[Object]) -> list[Object]:
        """GET …/stats/contributors, of those who have an account."""
        weeks = self.example("contributor_activity")["weeks"]
        return [
            {
                "author": {name: each[name] for name in each if name != "contributions"},
                "total": each["contributions"],
                "weeks": weeks,
            }
            for each in contributors
            if "login" in each
        ]

    def pull_samples(self) -> list[Object]:
        """The recorded pull requests."""
        samples: list[Object] = self._data["pull_requests"]
        return samples
