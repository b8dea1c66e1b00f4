"""The REST endpoints: each answers from a repository's contents."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from .apps import Installation
from .contents import STATES, Contents, Object
from .draw import time_seconds, time_text
from .errors import GitHubError, not_found
from .github import GitHub
from .searching import search

Endpoint = Callable[[Request], Awaitable[Response]]
T = TypeVar("T")

_SORTS = ("created", "updated", "comments", "popularity", "long-running")
_REPOSITORIES = ("/repos/{owner}/{name}", "/repositories/{id:int}")


def caller(request: Request) -> str:
    """The token, or '' for none."""
    return request.headers.get("authorization", "").partition(" ")[2].strip()


def account(request: Request) -> str:
    """Whose quota a request takes from: the token's; all JWTs are the one App's."""
    token = caller(request)
    return "app" if token.count(".") == 2 else token


def page(request: Request, items: Sequence[T]) -> tuple[Sequence[T], dict[str, str]]:
    """The items of the page asked for, and its Link header.

    Source: https://docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api
    """
    query = dict(request.query_params)
    size = min(max(int(query.get("per_page", 30)), 1), 100)
    number = max(int(query.get("page", 1)), 1)
    last = max(-(-len(items) // size), 1)
    targets: dict[str, int] = {}
    if number > 1:
        targets |= {"prev": number - 1, "first": 1}
    if number < last:
        targets |= {"next": number + 1, "last": last}
    links = ", ".join(
        f'<{request.url.replace(query=urlencode(query | {"page": target}))}>; rel="{relation}"'
        for relation, target in targets.items()
    )
    return items[(number - 1) * size : number * size], {"link": links} if links else {}


def answer(
    request: Request, value: object, headers: dict[str, str] | None = None, status: int = 200
) -> Response:
    """As JSON with an ETag, or 304 for what the caller has."""
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    etag = f'W/"{hashlib.sha256(body).hexdigest()}"'
    headers = {"etag": etag, "x-github-media-type": "github.v3; format=json", **(headers or {})}
    if status == 200 and request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(body, status, headers=headers, media_type="application/json; charset=utf-8")


def endpoints(github: GitHub) -> dict[tuple[str, str], Endpoint]:
    """By method and path."""
    rest = _Rest(github)
    of_repository = {
        "": rest.repository,
        "/pulls": rest.pulls,
        "/pulls/{number:int}": rest.pull,
        "/pulls/{number:int}/reviews": rest.reviews,
        "/pulls/{number:int}/comments": rest.review_comments,
        "/issues": rest.issues,
        "/issues/{number:int}": rest.issue,
        "/issues/{number:int}/comments": rest.issue_comments,
        "/contributors": rest.contributors,
        "/stats/commit_activity": rest.commit_activity,
        "/stats/contributors": rest.contributor_activity,
    }
    return {
        **{
            ("GET", f"{r}{path}"): each
            for r in _REPOSITORIES
            for path, each in of_repository.items()
        },
        ("GET", "/repos/{owner}/{name}/installation"): rest.installation,
        ("GET", "/search/issues"): rest.search,
        ("GET", "/users/{login}"): rest.user,
        ("GET", "/rate_limit"): rest.rate_limit,
        ("GET", "/app/installations"): rest.installations,
        ("POST", "/app/installations/{id:int}/access_tokens"): rest.access_token,
    }


class _Rest:
    def __init__(self, github: GitHub) -> None:
        self._github = github

    def _contents(self, request: Request) -> Contents:
        """What the path names. By an old name the error is a redirect to the repository's id."""
        path, token = request.path_params, caller(request)
        if "id" in path:
            return self._github.by_id(path["id"], token)
        found, is_present = self._github.find(path["owner"], path["name"], token)
        if not is_present:
            rest = request.url.path.removeprefix(f"/repos/{path['owner']}/{path['name']}")
            target = request.url.replace(path=f"/repositories/{found.repository['id']}{rest}")
            location = {"location": str(target)}
            raise GitHubError(301, "Moved Permanently", location, url=str(target))
        return found

    async def repository(self, request: Request) -> Response:
        return answer(request, self._contents(request).repository)

    def _numbers(self, request: Request, contents: Contents, kinds: Iterable[str]) -> list[int]:
        """As `state`, `sort`, `direction` and `since` say."""
        query = request.query_params
        state, sort = query.get("state", "open"), query.get("sort", "created")
        if state not in ("open", "closed", "all") or sort not in _SORTS:
            raise GitHubError(422, "Validation Failed")
        if sort not in ("created", "updated"):
            raise GitHubError(501, f"sort={sort} is not answered here")
        states = {"open": frozenset({"OPEN"}), "closed": STATES - {"OPEN"}, "all": STATES}[state]
        keys = contents.keys(kinds, sort, states)
        if "since" in query:
            since = time_seconds(query["since"])
            keys = [each for each in keys if contents.updated(each[1]) >= since]
        usual = "desc" if sort == "created" or "issue" in kinds else "asc"
        descending = query.get("direction", usual) == "desc"
        return [number for _, number in (reversed(keys) if descending else keys)]

    async def pulls(self, request: Request) -> Response:
        contents = self._contents(request)
        numbers, headers = page(request, self._numbers(request, contents, ("pull",)))
        hidden = self._github.detail_only
        listed = [
            {
                name: value
                for name, value in (contents.pull(each) or {}).items()
                if name not in hidden
            }
            for each in numbers
        ]
        return answer(request, listed, headers)

    async def pull(self, request: Request) -> Response:
        return answer(request, self._pull(request)[1])

    def _pull(self, request: Request) -> tuple[Contents, Object]:
        contents = self._contents(request)
        found = contents.pull(request.path_params["number"])
        if found is None:
            raise not_found()
        return contents, found

    async def reviews(self, request: Request) -> Response:
        contents, pull = self._pull(request)
        listed, headers = page(request, contents.reviews(pull["number"]))
        return answer(request, listed, headers)

    async def review_comments(self, request: Request) -> Response:
        contents, pull = self._pull(request)
        found = _since(request, contents.review_comments(pull["number"]))
        listed, headers = page(request, found)
        return answer(request, listed, headers)

    def _issues(self, request: Request) -> Contents:
        contents = self._contents(request)
        if self._github.is_in(contents, "issues-disabled"):
            raise GitHubError(410, "Issues are disabled for this repo")
        return contents

    async def issues(self, request: Request) -> Response:
        contents = self._issues(request)
        numbers, headers = page(request, self._numbers(request, contents, ("issue", "pull")))
        return answer(request, [contents.issue(each) for each in numbers], headers)

    def _issue(self, request: Request) -> tuple[Contents, Object]:
        contents = self._contents(request)
        number = request.path_params["number"]
        found = contents.issue(number)
        if found is None:
            raise not_found()
        if "pull_request" not in found:
            self._issues(request)
            if number in self._github.conditions.get(contents.repository["id"], {}).get("gone", ()):
                raise GitHubError(410, "This issue was deleted")
        return contents, found

    async def issue(self, request: Request) -> Response:
        return answer(request, self._issue(request)[1])

    async def issue_comments(self, request: Request) -> Response:
        contents, issue = self._issue(request)
        found = _since(request, contents.issue_comments(issue["number"]))
        listed, headers = page(request, found)
        return answer(request, listed, headers)

    async def contributors(self, request: Request) -> Response:
        contents = self._contents(request)
        if self._github.is_in(contents, "empty"):
            return Response(status_code=204)
        with_anonymous = request.query_params.get("anon") in ("1", "true")
        found = [each for each in contents.contributors() if with_anonymous or "login" in each]
        listed, headers = page(request, found)
        return answer(request, listed, headers)

    async def commit_activity(self, request: Request) -> Response:
        return self._statistics(request, Contents.commit_activity)

    async def contributor_activity(self, request: Request) -> Response:
        return self._statistics(request, Contents.contributor_activity)

    def _statistics(
        self, request: Request, compute: Callable[[Contents], list[Object]]
    ) -> Response:
        """First 202, while GitHub computes them; then the data."""
        contents = self._contents(request)
        if self._github.is_in(contents, "empty"):
            return Response(status_code=204)
        key = f"{contents.repository['id']} {compute.__name__}"
        left = self._github.waits.setdefault(key, self._github.stats_waits)
        if left > 0:
            self._github.waits[key] = left - 1
            return answer(request, {}, status=202)
        return answer(request, getattr(contents, compute.__name__)())

    async def search(self, request: Request) -> Response:
        contents, keys = search(self._github, request.query_params.get("q", ""), caller(request))
        numbers, headers = page(request, [number for _, number in reversed(keys)])
        items = [{**(contents.issue(number) or {}), "score": 1.0} for number in numbers]
        for each in items:
            if each["body"] is None:  # GitHub's description knows no null there
                del each["body"]
        found = {
            "total_count": len(keys),
            "incomplete_results": False,
            "search_type": "lexical",
            "items": items,
        }
        return answer(request, found, headers)

    async def user(self, request: Request) -> Response:
        found = self._github.user(request.path_params["login"])
        if found is None:
            raise not_found()
        example = self._github.templates.example("public_user")
        return answer(request, example | {"name": None, "email": None} | found)

    async def rate_limit(self, request: Request) -> Response:
        limits, token = self._github.limits, account(request)
        resources = {kind: limits.bucket(token, kind).overview() for kind in limits.sizes}
        return answer(request, {"resources": resources, "rate": resources["core"]})

    def _installation(self, found: Installation) -> Object:
        example = self._github.templates.example("installation")
        base = f"https://api.github.com/app/installations/{found.id}"
        return example | {
            "id": found.id,
            "app_id": self._github.apps.app_id,
            "account": self._github.templates.user() | {"login": found.account},
            "access_tokens_url": f"{base}/access_tokens",
            "repository_selection": "all" if found.repositories is None else "selected",
            "suspended_at": time_text(0) if found.suspended else None,
            "suspended_by": None,
        }

    async def installations(self, request: Request) -> Response:
        self._github.apps.require(caller(request))
        found, headers = page(request, list(self._github.apps.installations.values()))
        return answer(request, [self._installation(each) for each in found], headers)

    async def installation(self, request: Request) -> Response:
        self._github.apps.require(caller(request))
        path = request.path_params
        found = self._github.apps.installation_of(f"{path['owner']}/{path['name']}")
        return answer(request, self._installation(found))

    async def access_token(self, request: Request) -> Response:
        self._github.apps.require(caller(request))
        return answer(request, self._github.apps.grant(request.path_params["id"]), status=201)


def _since(request: Request, items: list[Any]) -> list[Any]:
    since = request.query_params.get("since")
    if since is None:
        return items
    return [each for each in items if time_seconds(each["updated_at"]) >= time_seconds(since)]
