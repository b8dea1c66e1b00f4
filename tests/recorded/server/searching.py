"""Search for issues and pull requests of one repository.

Source: https://docs.github.com/en/search-github/searching-on-github
"""

import re
from collections.abc import Callable

from .contents import STATES, Contents, Key
from .draw import time_seconds
from .errors import GitHubError
from .github import GitHub

_QUALIFIER = re.compile(r"(\w+):(\S+)")
_COMPARED = re.compile(r"(>=|<=|>|<)?(\d{4}-\d{2}-\d{2}(?:T[\d:]+(?:Z|\+00:00))?)")
_IS = {
    "pr": ({"pull"}, STATES),
    "issue": ({"issue"}, STATES),
    "open": ({"pull", "issue"}, frozenset({"OPEN"})),
    "closed": ({"pull", "issue"}, STATES - {"OPEN"}),
    "merged": ({"pull"}, frozenset({"MERGED"})),
}


def search(github: GitHub, query: str, token: str) -> tuple[Contents, list[Key]]:
    """What `repo:`, `is:`, `type:`, `created:` and `updated:` leave, by creation."""
    contents: Contents | None = None
    kinds, states = {"pull", "issue"}, STATES
    tests: list[Callable[[int], bool]] = []
    for name, value in _QUALIFIER.findall(query):
        match name:
            case "repo":
                owner, _, repo = value.partition("/")
                contents, _ = github.find(owner, repo, token)
            case "is" | "type" if value in _IS:
                kinds, states = kinds & _IS[value][0], states & _IS[value][1]
            case "created" | "updated" if contents and (found := _COMPARED.fullmatch(value)):
                when = contents.created if name == "created" else contents.updated
                tests.append(_comparison(when, found[1] or "", found[2]))
            case _:
                raise GitHubError(422, f"{name}:{value} is not answered here")
    if contents is None:
        raise GitHubError(422, "a search without a first repo: is not answered here")
    keys = contents.keys(sorted(kinds), "created", states)
    return contents, [key for key in keys if all(test(key[1]) for test in tests)]


def _comparison(when: Callable[[int], int], relation: str, text: str) -> Callable[[int], bool]:
    day = "T" not in text
    low = time_seconds(f"{text}T00:00:00Z" if day else text)
    high = low + (86_399 if day else 0)
    return {
        ">=": lambda number: when(number) >= low,
        ">": lambda number: when(number) > high,
        "<=": lambda number: when(number) <= high,
        "<": lambda number: when(number) < low,
        "": lambda number: low <= when(number) <= high,
    }[relation]
