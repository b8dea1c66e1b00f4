"""The fields of Query: where a query begins."""

from typing import Any

from ..contents import Object
from ..draw import time_text
from ..errors import GitHubError
from ..github import GitHub
from ..searching import search
from .connections import QueryError
from .nodes import Asked, Node, Resolver


def _top_repository(_root: Any, info: Any, owner: str, name: str, **_arguments: Any) -> Node:
    asked: Asked = info.context
    try:
        contents, _ = asked.github.find(owner, name, asked.token)
    except GitHubError as error:
        if error.status != 404:
            raise QueryError("FORBIDDEN", error.message) from None
        message = f"Could not resolve to a Repository with the name '{owner}/{name}'."
        raise QueryError("NOT_FOUND", message) from None
    return Node("Repository", contents.repository, contents)


def _node(_root: Any, info: Any, id: str) -> Node:  # noqa: A002 - the schema's name
    """By the ids of simulated pull requests and issues, and of recorded ones."""
    asked: Asked = info.context
    kind, _, rest = id.partition("_")
    try:
        repository_id, number = map(int, rest.split("_"))
        contents = asked.github.by_id(repository_id, asked.token)
        value = contents.pull(number) if kind == "PR" else contents.issue(number)
    except ValueError:
        value, contents = _recorded(asked.github, id)
    if value is None:
        raise QueryError("NOT_FOUND", f"Could not resolve to a node with the global id of '{id}'")
    return Node("PullRequest" if "base" in value else "Issue", value, contents)


def _recorded(github: GitHub, node_id: str) -> tuple[Object | None, Any]:
    for id_, pulls in github.pull_requests.items():
        for each in pulls.values():
            if each["node_id"] == node_id:
                return each, github.contents[id_]
    return None, None


def _nodes(_root: Any, info: Any, ids: list[str]) -> list[Node]:
    return [_node(_root, info, each) for each in ids]


def _rate_limit(_root: Any, info: Any, **_arguments: Any) -> Object:
    asked: Asked = info.context
    overview = asked.bucket.overview()
    return {
        "cost": asked.cost,
        "nodeCount": asked.nodes,
        "limit": overview["limit"],
        "remaining": overview["remaining"],
        "used": overview["used"],
        "resetAt": time_text(overview["reset"]),
    }


def _search(_root: Any, info: Any, query: str, type: str, **_window: Any) -> Object:  # noqa: A002
    asked: Asked = info.context
    if not type.startswith("ISSUE"):
        raise QueryError("NOT_ANSWERED", f"a search for {type} is not answered here")
    return {"issueCount": len(search(asked.github, query, asked.token)[1])}


def _user(_root: Any, info: Any, login: str) -> Node:
    asked: Asked = info.context
    found = asked.github.user(login)
    if found is None:
        raise QueryError("NOT_FOUND", f"Could not resolve to a User with the login of '{login}'.")
    return Node(found["type"], found, next(iter(asked.github.contents.values())))


QUERY: dict[str, Resolver] = {
    "repository": _top_repository,
    "node": _node,
    "nodes": _nodes,
    "rateLimit": _rate_limit,
    "search": _search,
    "user": _user,
}
