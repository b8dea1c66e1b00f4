"""The application: each request is counted, held against the limits, and answered."""

import asyncio
import gzip
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .contents import Object
from .errors import GitHubError, Planned, not_found
from .github import GitHub
from .graph import graphql_endpoint
from .limits import Bucket
from .rest import Endpoint, account, caller, endpoints
from .simulated import Simulated
from .switches import switches


def application(data: Object, more: Mapping[tuple[str, str], Endpoint] | None = None) -> Starlette:
    """The API; its `state.github` is the GitHub behind it.

    `more` are endpoints by method and path, beside its own or in their place.
    """
    github = GitHub(data)

    def route(method: str, path: str, endpoint: Endpoint) -> Route:
        async def guarded(request: Request) -> Response:
            try:
                await request.body()
            except ClientDisconnect:  # whoever asks was killed before it had asked
                return Response()
            answer = await _guarded(github, request, endpoint, path)
            await asyncio.sleep(0)
            if await request.is_disconnected():
                github.usage.troubles["abandoned"] += 1
            url, status = request.url, answer.status_code
            seen = {"method": request.method, "path": url.path, "query": url.query}
            github.requests.append(seen | {"status": status})
            github.usage.endpoints[f"{method} {path}"] += 1
            github.usage.tokens[account(request)] += 1
            github.usage.statuses[status] += 1
            for contents in github.contents.values():
                if isinstance(contents, Simulated):
                    contents.tick(len(github.requests))
            return answer

        return Route(path, guarded, methods=[method])

    app = Starlette(
        routes=[
            *(route(*place, endpoint) for place, endpoint in (more or {}).items()),
            *(route(*place, endpoint) for place, endpoint in endpoints(github).items()),
            route("POST", "/graphql", graphql_endpoint(github)),
            *switches(github),
            route("GET", "/{path:path}", _nothing),
        ]
    )
    app.state.github = github
    return app


async def _nothing(_request: Request) -> Response:
    raise not_found()


async def _guarded(github: GitHub, request: Request, endpoint: Endpoint, path: str) -> Response:
    token, owner, resource = caller(request), account(request), _resource(path)
    bucket = github.limits.bucket(owner, resource)
    try:
        await _faults(github, request)
        if not github.apps.knows(token) or token in github.revoked:
            raise GitHubError(401, "Bad credentials")
        with _admitted(github, owner, 1 if request.method == "GET" or path == "/graphql" else 5):
            bucket = github.limits.bucket(owner, resource)
            answer = await _charged(github, request, endpoint, path, bucket)
    except Planned as planned:
        fault = planned.fault
        body = fault.body if fault.body is not None else {"message": "planned by a test"}
        headers = bucket.headers(resource) | fault.headers
        return JSONResponse(body, fault.status or 500, headers)
    except GitHubError as error:
        return JSONResponse(error.body, error.status, bucket.headers(resource) | error.headers)
    answer.headers.update(bucket.headers(resource))
    return answer


def _resource(path: str) -> str:
    if path == "/graphql":
        return "graphql"
    return "search" if path.startswith("/search") else "core"


async def _faults(github: GitHub, request: Request) -> None:
    for fault in list(github.faults):
        if fault.takes(request.url.path):
            await asyncio.sleep(fault.delay_seconds)
            if fault.status is not None:
                raise Planned(fault)


@contextmanager
def _admitted(github: GitHub, owner: str, points: int) -> Iterator[None]:
    """While a request runs that no secondary limit refuses."""
    limits = github.limits
    try:
        limits.check_secondary(owner, points)
        if github.happens("secondary"):
            raise limits.secondary(limits.retry_after_seconds)
    except GitHubError:
        github.usage.secondary += 1
        raise
    limits.running[owner] += 1
    try:
        yield
    finally:
        limits.running[owner] -= 1


async def _charged(
    github: GitHub, request: Request, endpoint: Endpoint, path: str, bucket: Bucket
) -> Response:
    """Answer, and count it against the quota: GraphQL by its cost, a 304 not at all."""
    free = path in ("/rate_limit", "/graphql")
    if not free:
        if bucket.remaining <= 0:
            github.usage.exceeded[account(request)] += 1
            raise GitHubError(403, "API rate limit exceeded for the token.")
        bucket.remaining -= 1
    if github.happens("slow"):
        github.usage.troubles["slow"] += 1
        await asyncio.sleep(github.trouble.get("slowSeconds", 1.0))
    if github.happens("badGateway"):
        github.usage.troubles["badGateway"] += 1
        return Response("<html>502 Bad Gateway</html>", 502, media_type="text/html")
    answer = await endpoint(request)
    if answer.status_code == 304:
        bucket.remaining += 1
    if not free and answer.status_code != 304:
        github.usage.points[_resource(path)] += 1
    if github.happens("malformed") and answer.status_code == 200:
        github.usage.troubles["malformed"] += 1
        half = bytes(answer.body)[: len(answer.body) // 2]
        return Response(half, 200, media_type="application/json; charset=utf-8")
    return answer


def load(path: Path) -> Object:
    """The data file."""
    data: Object = json.loads(gzip.decompress(path.read_bytes()))
    return data


def serve(data: Path, *, host: str, port: int) -> None:
    """Serve until told to end."""
    uvicorn.run(application(load(data)), host=host, port=port, log_level="warning")
