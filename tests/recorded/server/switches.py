"""What tests may ask for, under /_test."""

import asyncio
import itertools
import json
import math
import time
from collections.abc import AsyncIterator, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from .contents import Contents, Object
from .draw import time_seconds
from .errors import Fault
from .github import GitHub
from .minimum import minimum
from .plan import Plan
from .truth import TABLES, rows

_Switch = Callable[[Object], Object | None]


def switches(github: GitHub) -> list[Route]:
    """The routes; those with POST take and give JSON."""
    make = _Switches(github)
    posts: dict[str, _Switch] = {
        "faults": make.faults,
        "rate-limit": make.rate_limit,
        "limits": make.limits,
        "trouble": make.trouble,
        "simulate": make.simulate,
        "large": make.large,
        "rename": make.rename,
        "change": make.change,
        "condition": make.condition,
        "gone": make.gone,
        "statistics": make.statistics,
        "tokens": make.tokens,
        "app": make.app,
        "reset": make.reset,
    }
    gets = {
        "requests": make.requests,
        "usage": make.usage,
        "minimum": make.minimum,
        "truth": make.truth,
        "health": make.health,
    }
    return [
        *(
            Route(f"/_test/{name}", _post(switch), methods=["POST"])
            for name, switch in posts.items()
        ),
        *(Route(f"/_test/{name}", endpoint) for name, endpoint in gets.items()),
    ]


def _post(switch: _Switch) -> Callable[[Request], object]:
    async def endpoint(request: Request) -> Response:
        body = await request.body()
        try:
            made = switch(json.loads(body) if body else {})
        except (KeyError, TypeError, ValueError) as error:
            return JSONResponse({"message": f"{type(error).__name__}: {error}"}, 400)
        return Response(status_code=204) if made is None else JSONResponse(made, 201)

    return endpoint


class _Switches:
    def __init__(self, github: GitHub) -> None:
        self._github = github

    def faults(self, plan: Object) -> None:
        delay = plan.pop("delaySeconds", 0.0)
        self._github.faults.append(Fault(**plan, delay_seconds=delay))

    def rate_limit(self, plan: Object) -> None:
        reset_at = time.time() + plan["resetSeconds"]
        self._github.limits.put(plan["remaining"], reset_at, plan.get("token"))

    def limits(self, plan: Object) -> None:
        self._github.timeout_nodes = plan.get("timeoutNodes", math.inf)
        self._github.limits.configure(plan)

    def trouble(self, plan: Object) -> None:
        self._github.trouble = plan

    def simulate(self, plan: Object) -> Object:
        return self._github.simulate(Plan.of(plan))

    def large(self, plan: Object) -> Object:
        step = plan.get("stepSeconds", 600)
        return self._github.large(plan["fullName"], plan["pullRequests"], step)

    def rename(self, plan: Object) -> None:
        self._github.rename(plan["fullName"], plan["to"])

    def change(self, plan: Object) -> None:
        self._github.change(plan["fullName"], plan.get("number"), plan["changes"])

    def condition(self, plan: Object) -> None:
        self._github.condition(plan["fullName"], plan["condition"], plan.get("tokens", []))

    def gone(self, plan: Object) -> None:
        id_ = self._github.names[plan["fullName"].lower()]
        self._github.conditions.setdefault(id_, {}).setdefault("gone", []).append(plan["number"])

    def statistics(self, plan: Object) -> None:
        self._github.stats_waits = plan["waits"]
        self._github.waits.clear()

    def tokens(self, plan: Object) -> None:
        self._github.revoked = set(plan["revoked"])

    def app(self, plan: Object) -> None:
        self._github.apps.register(plan)

    def reset(self, _plan: Object) -> None:
        self._github.reset()

    async def requests(self, _request: Request) -> Response:
        return JSONResponse(self._github.requests)

    async def usage(self, _request: Request) -> Response:
        return JSONResponse(self._github.usage.document())

    async def health(self, _request: Request) -> Response:
        return Response(status_code=204)

    def _contents(self, request: Request) -> Contents:
        return self._github.contents[self._github.names[request.query_params["fullName"].lower()]]

    async def minimum(self, request: Request) -> Response:
        contents = self._contents(request)
        return JSONResponse(minimum(contents, self._github.stats_waits))

    async def truth(self, request: Request) -> Response:
        query = request.query_params
        since = time_seconds(query["since"]) if "since" in query else 0
        found = rows(self._contents(request), since)
        wanted = {query["table"]} if "table" in query else set(TABLES)
        # In pieces, so that others are answered meanwhile.
        if query.get("counts") == "true":
            counts = dict.fromkeys(sorted(wanted), 0)
            while chunk := [table for table, _ in itertools.islice(found, 500)]:
                for table in wanted.intersection(chunk):
                    counts[table] += chunk.count(table)
                await asyncio.sleep(0)
            return JSONResponse(counts)

        async def lines() -> AsyncIterator[str]:
            while chunk := list(itertools.islice(found, 500)):
                yield "".join(
                    json.dumps({"table": table, **row}, ensure_ascii=False) + "\n"
                    for table, row in chunk
                    if table in wanted
                )
                await asyncio.sleep(0)

        return StreamingResponse(lines(), media_type="application/x-ndjson")
