"""Answers as GitHub's API from recorded objects. Needs starlette, uvicorn and its data alone.

    python server.py --data github.json.gz [--host HOST] [--port PORT]

    GET /repos/{owner}/{repo}
    GET /repos/{owner}/{repo}/pulls            state, sort, direction, per_page, page; Link
    GET /repos/{owner}/{repo}/pulls/{number}
or /repositories/{id} for /repos/{owner}/{repo}; with ETags, rate limit headers, and errors in
GitHub's form. What tests may ask for:

    POST /_test/faults      {"status"?, "times"? (1), "path"? (regular expression), "headers"?,
                             "body"?, "delaySeconds"?, "after"? (requests to let pass)}
    POST /_test/rate-limit  {"remaining", "resetSeconds"}
    POST /_test/large       {"fullName", "pullRequests", "stepSeconds"? (600)}: a repository of so
                             many, made of the recorded ones; the newest changed now
    POST /_test/rename      {"fullName", "to"}: the old name redirects, as on GitHub
    POST /_test/change      {"fullName", "number"?, "changes": {…}}: members to replace
    POST /_test/reset       forgets all of these
    GET  /_test/requests    [{"method", "path", "query", "status"}]
    GET  /_test/health
"""

import argparse
import asyncio
import copy
import gzip
import hashlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Object = dict[str, Any]
DOCUMENTATION = "https://docs.github.com/rest"
LIMIT, HOUR_SECONDS = 5000, 3600
_SORTS = {"created": "created_at", "updated": "updated_at"}


class GitHubError(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


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


class GitHub:
    """The recorded objects, and what tests changed about them."""

    def __init__(self, data: Object) -> None:
        self.data = data
        self.reset()

    def reset(self) -> None:
        """As recorded, with a full rate limit."""
        data = copy.deepcopy(self.data)
        self.faults: list[Fault] = []
        self.requests: list[Object] = []
        self.remaining = LIMIT
        self.reset_at = time.time() + HOUR_SECONDS
        self.repositories: dict[int, Object] = {each["id"]: each for each in data["repositories"]}
        self.names: dict[str, int] = {name.lower(): id_ for name, id_ in data["names"].items()}
        self.detail_only = frozenset(data["detail_only"])
        self.users: list[Object] = data["users"]
        self.samples: list[Object] = data["pull_requests"]
        self.pull_requests: dict[int, dict[int, Object]] = {id_: {} for id_ in self.repositories}
        for each in sorted(self.samples, key=lambda each: each["updated_at"]):
            self.pull_requests[each["base"]["repo"]["id"]][each["number"]] = each

    def repository(self, request: Request) -> Object:
        """The one that the path names. By an old name the error is a redirect to its id."""
        path = request.path_params
        if "id" in path:
            if path["id"] not in self.repositories:
                raise GitHubError(404, "Not Found")
            return self.repositories[path["id"]]
        full_name = f"{path['owner']}/{path['name']}"
        id_ = self.names.get(full_name.lower())
        if id_ is None:
            raise GitHubError(404, "Not Found")
        found = self.repositories[id_]
        if found["full_name"].lower() != full_name.lower():
            rest = request.url.path.removeprefix(f"/repos/{full_name}")
            target = request.url.replace(path=f"/repositories/{id_}{rest}")
            raise GitHubError(301, "Moved Permanently", {"location": str(target)})
        return found

    def large(self, full_name: str, count: int, step_seconds: float) -> Object:
        """A repository of `count` pull requests; each was changed `step_seconds` before the next.

        Authors go round the recorded users, with a ghost now and then; states go round too.
        """
        id_ = 9_000_000_000 + len(self.repositories)
        template = self.repositories[self.samples[0]["base"]["repo"]["id"]]
        repository = _renamed(template, full_name) | {"id": id_}
        self.repositories[id_] = repository
        self.names[full_name.lower()] = id_
        now = time.time()
        self.pull_requests[id_] = {
            number: self._copy(repository, number, now - (count - number) * step_seconds)
            for number in range(1, count + 1)
        }
        return repository

    def _copy(self, repository: Object, number: int, updated: float) -> Object:
        sample = self.samples[number % len(self.samples)]
        state = ("open", "closed", "merged")[number % 3]
        ended = None if state == "open" else _time(updated)
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
            "created_at": _time(updated - 86_400),
            "updated_at": _time(updated),
            "closed_at": ended,
            "merged_at": ended if state == "merged" else None,
            "merged": state == "merged",
            "merged_by": self.users[0] if state == "merged" else None,
        }

    def rename(self, full_name: str, to: str) -> None:
        """Give a repository another name; the old one leads to it."""
        id_ = self.names[full_name.lower()]
        self.repositories[id_] |= _renamed(self.repositories[id_], to)
        self.names[to.lower()] = id_
        for each in self.pull_requests[id_].values():
            each["base"] = each["base"] | {"repo": self.repositories[id_]}

    def change(self, full_name: str, number: int | None, changes: Object) -> None:
        """Replace members of a repository or of one of its pull requests."""
        id_ = self.names[full_name.lower()]
        target = self.repositories[id_] if number is None else self.pull_requests[id_][number]
        target |= changes

    async def guard(self, request: Request) -> dict[str, str]:
        """Faults and the rate limit; the headers of an answer."""
        for fault in list(self.faults):
            if fault.takes(request.url.path):
                await asyncio.sleep(fault.delay_seconds)
                if fault.status is not None:
                    raise _Planned(fault)
        if time.time() >= self.reset_at:
            self.remaining, self.reset_at = LIMIT, time.time() + HOUR_SECONDS
        if self.remaining <= 0:
            raise GitHubError(403, "API rate limit exceeded for 127.0.0.1.", self.limit_headers())
        self.remaining -= 1
        return self.limit_headers()

    def limit_headers(self) -> dict[str, str]:
        """Of every answer."""
        return {
            "x-ratelimit-limit": str(LIMIT),
            "x-ratelimit-remaining": str(self.remaining),
            "x-ratelimit-used": str(LIMIT - self.remaining),
            "x-ratelimit-reset": str(int(self.reset_at)),
            "x-ratelimit-resource": "core",
        }


class _Planned(Exception):  # noqa: N818 - planned by a test
    def __init__(self, fault: Fault) -> None:
        super().__init__()
        self.fault = fault


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


def _renamed(repository: Object, full_name: str) -> Object:
    renamed: Object = json.loads(json.dumps(repository).replace(repository["full_name"], full_name))
    return renamed | {"name": full_name.partition("/")[2]}


def _page(request: Request, items: Sequence[Object]) -> tuple[Sequence[Object], dict[str, str]]:
    """The items of the page asked for, and its Link header.

    Source: https://docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api
    """
    query = dict(request.query_params)
    size = min(max(int(query.get("per_page", 30)), 1), 100)
    page = max(int(query.get("page", 1)), 1)
    last = max(-(-len(items) // size), 1)
    targets: dict[str, int] = {}
    if page > 1:
        targets |= {"prev": page - 1, "first": 1}
    if page < last:
        targets |= {"next": page + 1, "last": last}
    links = ", ".join(
        f'<{request.url.replace(query=urlencode(query | {"page": number}))}>; rel="{relation}"'
        for relation, number in targets.items()
    )
    return items[(page - 1) * size : page * size], {"link": links} if links else {}


Endpoint = Callable[[Request], Awaitable[Response]]


def application(data: Object, more: Mapping[tuple[str, str], Endpoint] | None = None) -> Starlette:
    """The API; its `state.github` is the GitHub behind it. `more` endpoints by method and path."""
    github = GitHub(data)

    async def repository(request: Request) -> Response:
        return _answer(request, github.repository(request))

    async def pull_requests(request: Request) -> Response:
        query = request.query_params
        id_ = github.repository(request)["id"]
        state, sort = query.get("state", "open"), query.get("sort", "created")
        if state not in ("open", "closed", "all") or sort not in _SORTS:
            raise GitHubError(422, "Validation Failed")
        found = [
            {name: value for name, value in each.items() if name not in github.detail_only}
            for each in github.pull_requests[id_].values()
            if state in ("all", each["state"])
        ]
        descending = query.get("direction", "desc" if sort == "created" else "asc") == "desc"
        found.sort(key=lambda each: (each[_SORTS[sort]], each["id"]), reverse=descending)
        items, headers = _page(request, found)
        return _answer(request, items, headers)

    async def pull_request(request: Request) -> Response:
        number = request.path_params["number"]
        id_ = github.repository(request)["id"]
        if number not in github.pull_requests[id_]:
            raise GitHubError(404, "Not Found")
        return _answer(request, github.pull_requests[id_][number])

    def route(path: str, endpoint: Endpoint, method: str = "GET") -> Route:
        async def guarded(request: Request) -> Response:
            answer = await _guarded(github, request, endpoint)
            url, status = request.url, answer.status_code
            seen = {"method": request.method, "path": url.path, "query": url.query}
            github.requests.append(seen | {"status": status})
            return answer

        return Route(path, guarded, methods=[method])

    app = Starlette(
        routes=[
            *(
                route(f"{repositories}{path}", endpoint)
                for repositories in ("/repos/{owner}/{name}", "/repositories/{id:int}")
                for path, endpoint in {
                    "": repository,
                    "/pulls": pull_requests,
                    "/pulls/{number:int}": pull_request,
                }.items()
            ),
            *_switches(github),
            *(route(path, endpoint, method) for (method, path), endpoint in (more or {}).items()),
            route("/{path:path}", _not_found),
        ]
    )
    app.state.github = github
    return app


async def _not_found(request: Request) -> Response:
    raise GitHubError(404, "Not Found")


async def _guarded(github: GitHub, request: Request, endpoint: Endpoint) -> Response:
    try:
        headers = await github.guard(request)
        answer = await endpoint(request)
    except _Planned as planned:
        fault = planned.fault
        body = fault.body if fault.body is not None else {"message": "planned by a test"}
        return JSONResponse(body, fault.status or 500, github.limit_headers() | fault.headers)
    except GitHubError as error:
        body = {"message": error.message, "documentation_url": DOCUMENTATION}
        body["status"] = str(error.status)
        return JSONResponse(body, error.status, github.limit_headers() | error.headers)
    answer.headers.update(headers)
    return answer


def _answer(request: Request, value: object, headers: dict[str, str] | None = None) -> Response:
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    etag = f'W/"{hashlib.sha256(body).hexdigest()}"'
    headers = {"etag": etag, "x-github-media-type": "github.v3; format=json", **(headers or {})}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json; charset=utf-8")


def _switches(github: GitHub) -> list[Route]:
    async def faults(request: Request) -> Response:
        plan = await request.json()
        delay = plan.pop("delaySeconds", 0.0)
        github.faults.append(Fault(**plan, delay_seconds=delay))
        return Response(status_code=204)

    async def rate_limit(request: Request) -> Response:
        plan = await request.json()
        github.remaining = plan["remaining"]
        github.reset_at = time.time() + plan["resetSeconds"]
        return Response(status_code=204)

    async def large(request: Request) -> Response:
        plan = await request.json()
        step = plan.get("stepSeconds", 600)
        return JSONResponse(github.large(plan["fullName"], plan["pullRequests"], step), 201)

    async def rename(request: Request) -> Response:
        plan = await request.json()
        github.rename(plan["fullName"], plan["to"])
        return Response(status_code=204)

    async def change(request: Request) -> Response:
        plan = await request.json()
        github.change(plan["fullName"], plan.get("number"), plan["changes"])
        return Response(status_code=204)

    async def reset(request: Request) -> Response:
        github.reset()
        return Response(status_code=204)

    async def requests(request: Request) -> Response:
        return JSONResponse(github.requests)

    async def health(request: Request) -> Response:
        return Response(status_code=204)

    posts = {
        "faults": faults,
        "rate-limit": rate_limit,
        "large": large,
        "rename": rename,
        "change": change,
        "reset": reset,
    }
    return [
        *(Route(f"/_test/{name}", endpoint, methods=["POST"]) for name, endpoint in posts.items()),
        Route("/_test/requests", requests),
        Route("/_test/health", health),
    ]


def load(path: Path) -> Object:
    """The data file."""
    data: Object = json.loads(gzip.decompress(path.read_bytes()))
    return data


def serve(data: Path, *, host: str, port: int) -> None:
    """Serve until told to end."""
    uvicorn.run(application(load(data)), host=host, port=port, log_level="warning")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Answers as GitHub's API from recorded objects.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    serve(options.data, host=options.host, port=options.port)
