"""The reporter against an HTTP server that answers as the API server does."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import Configuration

from hybridjobs.kube.client import Kubernetes
from hybridjobs.schedules.known import KnownSchedules, States
from hybridjobs.schedules.reporter import Reporter
from hybridjobs.store.schedules import ScheduleState
from tests.unit.schedules.objects import hybridjobschedule

PATH = "/apis/hybridjobs.dev/v1alpha1/namespaces/n/hybridjobschedules"


@dataclass
class Server:
    """The schedules of a namespace, and every patch of a status."""

    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)
    patches: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)
    away: bool = False

    def put(self, body: dict[str, Any]) -> None:
        self.bodies[body["metadata"]["name"]] = body

    async def list(self, request: web.Request) -> web.Response:
        if self.away:
            return web.json_response({"reason": "Unavailable"}, status=503)
        return web.json_response({"metadata": {}, "items": list(self.bodies.values())})

    async def patch(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name in self.refuses:
            return web.json_response({"reason": "Invalid", "message": "no"}, status=422)
        if name not in self.bodies:
            return web.json_response({"reason": "NotFound"}, status=404)
        status = (await request.json())["status"]
        self.patches.append((name, status))
        shown = {**self.bodies[name].get("status", {}), **status}
        shown = {key: value for key, value in shown.items() if value is not None}
        self.put({**self.bodies[name], "status": shown})
        return web.json_response(self.bodies[name])


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def known() -> KnownSchedules:
    known = KnownSchedules()
    known.tell(States({"hjs-1": ScheduleState(0, ())}, ["test/long"]))
    return known


@pytest.fixture
async def reporter(server: Server, known: KnownSchedules) -> AsyncIterator[Reporter]:
    application = web.Application()
    application.router.add_get(PATH, server.list)
    application.router.add_patch(PATH + "/{name}/status", server.patch)
    async with TestServer(application) as http:
        configuration = Configuration(host=str(http.make_url("")).rstrip("/"))
        configuration.client_session_kwargs = {"trust_env": False}
        async with Kubernetes(configuration, field_manager="test") as kubernetes:
            yield Reporter(kubernetes, known, namespace="n")


async def test_a_status_is_written_once(
    server: Server, known: KnownSchedules, reporter: Reporter
) -> None:
    server.put(hybridjobschedule("0 0 1 1 *"))
    await reporter.once()
    await reporter.once()
    [(name, status)] = server.patches
    assert (name, status["active"]) == ("nightly", 0)
    assert status["conditions"][0]["status"] == "True"
    assert known.complete


async def test_one_that_is_refused_or_gone_does_not_hold_up_the_others(
    server: Server, known: KnownSchedules, reporter: Reporter
) -> None:
    server.put(hybridjobschedule("@reboot", name="refused", uid="hjs-3"))
    server.put(hybridjobschedule())
    server.refuses.add("refused")
    await reporter.once()
    assert [name for name, _ in server.patches] == ["nightly"]


async def test_an_api_server_that_is_away_is_waited_for(
    server: Server, known: KnownSchedules, reporter: Reporter
) -> None:
    server.away = True
    server.put(hybridjobschedule())
    running = asyncio.create_task(reporter.run())
    await asyncio.sleep(0.1)
    server.away = False
    known.told.set()
    while not server.patches:
        assert not running.done()
        await asyncio.sleep(0.02)
    running.cancel()
