"""What each GraphQL field is, in the words of the REST API's objects."""

from collections.abc import Callable
from typing import Any

from ..contents import STATES, Contents, Object
from ..draw import time_seconds
from .connections import Connection, QueryError, connection, of_list
from .nodes import Asked, Node, Resolver, actor
from .roots import QUERY

_INT = 1 << 31


def _of(member: str) -> Resolver:
    return lambda node, _info: node.value[member]


def _text(member: str) -> Resolver:
    return lambda node, _info: node.value.get(member) or ""


def _actor(member: str) -> Resolver:
    return lambda node, _info: actor(node.value.get(member), node.contents)


def _commit(member: str) -> Resolver:
    def commit(node: Node, _info: Any) -> Object | None:
        oid = node.value.get(member)
        return None if oid is None else {"oid": oid}

    return commit


def _upper(member: str) -> Resolver:
    return lambda node, _info: str(node.value[member]).upper()


def _int_id(node: Node, _info: Any) -> int | None:
    id_: int = node.value["id"]
    return id_ if id_ < _INT else None


def _login(node: Node, _info: Any) -> str:
    return str(node.value["login"]).removesuffix("[bot]")


def _repository(node: Node, _info: Any) -> Node:
    return Node("Repository", node.contents.repository, node.contents)


def _state(node: Node, _info: Any) -> str:
    return node.contents.state(node.value["number"])


def _users(member: str) -> Resolver:
    def users(node: Node, _info: Any, **window: Any) -> Connection:
        return of_list([actor(each, node.contents) for each in node.value[member]], **window)

    return users


def _labels(node: Node, _info: Any, **window: Any) -> Connection:
    return of_list([each for each in node.value["labels"] if "name" in each], **window)


def _within(type_: str, items: Callable[[Contents, int], list[Object]]) -> Resolver:
    """A connection of a pull request's or issue's own things."""

    def found(node: Node, _info: Any, states: Any = None, **window: Any) -> Connection:
        values = items(node.contents, node.value["number"])
        chosen = [each for each in values if not states or each["state"] in states]
        return of_list([Node(type_, each, node.contents) for each in chosen], **window)

    return found


def _listed(kind: str, type_: str) -> Resolver:
    """A repository's pull requests or issues."""

    def found(
        node: Node,
        _info: Any,
        states: Any = None,
        **rest: Any,
    ) -> Connection:
        contents = node.contents
        order = rest.pop("orderBy", None)
        since = (rest.pop("filterBy", None) or {}).get("since")
        field = order["field"] if order else "CREATED_AT"
        if field not in ("CREATED_AT", "UPDATED_AT"):
            raise QueryError("NOT_ANSWERED", f"the order {field} is not answered here")
        chosen = STATES if not states else frozenset(states)
        sort = "updated" if field == "UPDATED_AT" else "created"
        keys = contents.keys((kind,), sort, chosen)
        if since:
            keys = [key for key in keys if contents.updated(key[1]) >= time_seconds(since)]

        def make(number: int) -> Node:
            value = contents.pull(number) if kind == "pull" else contents.issue(number)
            return Node(type_, value or {}, contents)

        descending = bool(order) and order["direction"] == "DESC"
        return connection(keys, make, descending=descending, **rest)

    return found


def _one(kind: str, type_: str) -> Resolver:
    def found(node: Node, _info: Any, number: int) -> Node:
        contents = node.contents
        pull = contents.pull(number)
        value = pull if kind != "issue" else None if pull else contents.issue(number)
        if value is None and kind == "either":
            value = contents.issue(number)
        if value is None:
            raise QueryError(
                "NOT_FOUND", f"Could not resolve to {type_} with the number of {number}."
            )
        return Node("PullRequest" if pull else "Issue", value, contents)

    return found


def _reviews_comments(node: Node, _info: Any, **window: Any) -> Connection:
    number = int(str(node.value["pull_request_url"]).rpartition("/")[2])
    found = node.contents.review_comments(number)
    own = [each for each in found if each["pull_request_review_id"] == node.value["id"]]
    return of_list(
        [Node("PullRequestReviewComment", each, node.contents) for each in own], **window
    )


def _threads(node: Node, _info: Any, **window: Any) -> Connection:
    threads: dict[int, list[Object]] = {}
    for each in node.contents.review_comments(node.value["number"]):
        threads.setdefault(each.get("in_reply_to_id") or each["id"], []).append(each)
    values = [
        Node("PullRequestReviewThread", {"id": root, "comments": comments}, node.contents)
        for root, comments in sorted(threads.items())
    ]
    return of_list(values, **window)


def _thread_comments(node: Node, _info: Any, **window: Any) -> Connection:
    thread = node.value["comments"]
    values = [
        Node("PullRequestReviewComment", each | {"thread": thread}, node.contents)
        for each in thread
    ]
    return of_list(values, **window)


def _reply_to(node: Node, info: Any) -> Node | None:
    asked: Asked = info.context
    original = node.value.get("in_reply_to_id")
    if original is None:
        return None
    # Its thread, where that is known: to make all comments for each reply takes very long.
    number = int(str(node.value["pull_request_url"]).rpartition("/")[2])
    found = asked.by_id("review_comments", node.contents, number).get(original)
    return None if found is None else Node("PullRequestReviewComment", found, node.contents)


def _review_of(node: Node, info: Any) -> Node | None:
    asked: Asked = info.context
    number = int(str(node.value["pull_request_url"]).rpartition("/")[2])
    found = asked.by_id("reviews", node.contents, number).get(node.value["pull_request_review_id"])
    return None if found is None else Node("PullRequestReview", found, node.contents)


def _counted(member: str) -> Resolver:
    return lambda node, _info, **_window: Connection(node.value.get(member) or 0)


def _named(member: str, key: str, name: str) -> Resolver:
    """An object of one member, from a REST object's text or object."""

    def found(node: Node, _info: Any) -> Object | None:
        value = node.value.get(member)
        value = value.get(key) if isinstance(value, dict) else value
        return None if value is None else {name: value}

    return found


def _topics(node: Node, _info: Any, **window: Any) -> Connection:
    return of_list([{"topic": {"name": each}} for each in node.value.get("topics", [])], **window)


_MERGEABLE = {True: "MERGEABLE", False: "CONFLICTING", None: "UNKNOWN"}

_COMMON: dict[str, Resolver] = {
    "id": _of("node_id"),
    "databaseId": _int_id,
    "fullDatabaseId": lambda node, _info: str(node.value["id"]),
    "author": _actor("user"),
    "authorAssociation": _of("author_association"),
    "body": _text("body"),
    "bodyText": _text("body"),
    "createdAt": _of("created_at"),
    "updatedAt": _of("updated_at"),
    "url": _of("html_url"),
    "repository": _repository,
}
_NUMBERED: dict[str, Resolver] = {
    **_COMMON,
    "number": _of("number"),
    "title": _of("title"),
    "state": _state,
    "closed": lambda node, _info: node.value["state"] == "closed",
    "closedAt": _of("closed_at"),
    "locked": _of("locked"),
    "assignees": _users("assignees"),
    "labels": _labels,
    "milestone": _of("milestone"),
    "comments": _within("IssueComment", lambda contents, n: contents.issue_comments(n)),
}
_ACTOR: dict[str, Resolver] = {
    "id": _of("node_id"),
    "databaseId": _of("id"),
    "login": _login,
    "avatarUrl": _of("avatar_url"),
    "url": _of("html_url"),
    "name": lambda node, _info: node.value.get("name"),
    "email": _text("email"),
}


FIELDS: dict[str, dict[str, Resolver]] = {
    "Query": QUERY,
    "Repository": {
        "id": _of("node_id"),
        "databaseId": _int_id,
        "name": _of("name"),
        "nameWithOwner": _of("full_name"),
        "owner": _actor("owner"),
        "description": _of("description"),
        "homepageUrl": _of("homepage"),
        "url": _of("html_url"),
        "primaryLanguage": _named("language", "name", "name"),
        "licenseInfo": _named("license", "spdx_id", "spdxId"),
        "defaultBranchRef": _named("default_branch", "name", "name"),
        "repositoryTopics": _topics,
        "stargazerCount": _of("stargazers_count"),
        "forkCount": _of("forks_count"),
        "watchers": _counted("subscribers_count"),
        "diskUsage": _of("size"),
        "visibility": _upper("visibility"),
        "isFork": _of("fork"),
        "isArchived": _of("archived"),
        "isDisabled": _of("disabled"),
        "isPrivate": _of("private"),
        "isTemplate": _of("is_template"),
        "isEmpty": lambda node, _info: node.value["size"] == 0,
        "hasIssuesEnabled": _of("has_issues"),
        "hasProjectsEnabled": _of("has_projects"),
        "hasWikiEnabled": _of("has_wiki"),
        "hasDiscussionsEnabled": _of("has_discussions"),
        "createdAt": _of("created_at"),
        "updatedAt": _of("updated_at"),
        "pushedAt": _of("pushed_at"),
        "pullRequests": _listed("pull", "PullRequest"),
        "issues": _listed("issue", "Issue"),
        "pullRequest": _one("pull", "a PullRequest"),
        "issue": _one("issue", "an Issue"),
        "issueOrPullRequest": _one("either", "an issue or pull request"),
    },
    "PullRequest": {
        **_NUMBERED,
        "isDraft": _of("draft"),
        "merged": _of("merged"),
        "mergedAt": _of("merged_at"),
        "mergedBy": _actor("merged_by"),
        "mergeable": lambda node, _info: _MERGEABLE[node.value["mergeable"]],
        "mergeStateStatus": _upper("mergeable_state"),
        "mergeCommit": _commit("merge_commit_sha"),
        "additions": _of("additions"),
        "deletions": _of("deletions"),
        "changedFiles": _of("changed_files"),
        "commits": _counted("commits"),
        "baseRefName": lambda node, _info: node.value["base"]["ref"],
        "baseRefOid": lambda node, _info: node.value["base"]["sha"],
        "headRefName": lambda node, _info: node.value["head"]["ref"],
        "headRefOid": lambda node, _info: node.value["head"]["sha"],
        "totalCommentsCount": lambda node, _info: (
            node.value["comments"] + node.value["review_comments"]
        ),
        "reviews": _within("PullRequestReview", lambda contents, n: contents.reviews(n)),
        "reviewThreads": _threads,
    },
    "Issue": {
        **_NUMBERED,
        "stateReason": lambda node, _info: (
            str(reason).upper() if (reason := node.value.get("state_reason")) else None
        ),
    },
    "PullRequestReview": {
        **{name: each for name, each in _COMMON.items() if name not in ("createdAt", "updatedAt")},
        "createdAt": _of("submitted_at"),
        "updatedAt": _of("submitted_at"),
        "submittedAt": _of("submitted_at"),
        "state": _upper("state"),
        "commit": _commit("commit_id"),
        "comments": _reviews_comments,
    },
    "PullRequestReviewThread": {
        "id": lambda node, _info: f"PRRT_{node.value['id']}",
        "path": lambda node, _info: node.value["comments"][0]["path"],
        "comments": _thread_comments,
        "isResolved": lambda _node, _info: False,
        "isOutdated": lambda node, _info: node.value["comments"][0].get("position") is None,
    },
    "PullRequestReviewComment": {
        **_COMMON,
        "path": _of("path"),
        "diffHunk": _of("diff_hunk"),
        "position": lambda node, _info: node.value.get("position"),
        "originalPosition": _of("original_position"),
        "commit": _commit("commit_id"),
        "originalCommit": _commit("original_commit_id"),
        "outdated": lambda node, _info: node.value.get("position") is None,
        "replyTo": _reply_to,
        "pullRequestReview": _review_of,
    },
    "IssueComment": _COMMON,
    "User": _ACTOR,
    "Organization": _ACTOR,
    "Bot": _ACTOR,
    "Actor": _ACTOR,
    "RepositoryOwner": _ACTOR,
    "Node": {"id": _of("node_id")},
}
_PLAIN = {
    "Ref": {"name"},
    "Language": {"name"},
    "License": {"spdxId"},
    "Topic": {"name"},
    "RepositoryTopic": {"topic"},
    "Label": {"name", "color", "description"},
    "Milestone": {"title", "number"},
    "Commit": {"oid"},
    "RateLimit": {"cost", "nodeCount", "limit", "remaining", "used", "resetAt"},
    "PageInfo": {"hasNextPage", "hasPreviousPage", "startCursor", "endCursor"},
    "SearchResultItemConnection": {"issueCount"},
}


def is_answered(type_: str, name: str) -> bool:
    """Whether this GitHub knows the field's value."""
    if type_ in FIELDS:
        return name in FIELDS[type_]
    if type_ in _PLAIN:
        return name in _PLAIN[type_]
    if type_.endswith("Connection"):
        return name in ("nodes", "edges", "pageInfo", "totalCount")
    return type_.endswith("Edge") and name in ("cursor", "node")


def resolve(source: Any, info: Any, **arguments: Any) -> Any:
    """A field's value."""
    if isinstance(source, Connection):
        return source.field(info.field_name)
    if isinstance(source, dict):
        return source.get(info.field_name)
    return FIELDS[info.parent_type.name][info.field_name](source, info, **arguments)


def resolve_type(value: Any, _info: Any, _abstract: Any) -> str:
    """An interface's or union's type."""
    return str(value.type)
