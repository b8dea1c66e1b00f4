"""The client against an HTTP server that answers as the API server does."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import Configuration

from hybridjobs.kube.client import JOBS, PODS, AlreadyExists, Conflict, Kubernetes, NotFound

LINE = b"x" * 1000 + b"\n"
LINES = 3000
PODS_THERE = [f"pod-{n}" for n in range(1200)]


async def _log(request: web.Request) -> web.StreamResponse:
    if request.match_info["pod"] != "long":
        return web.json_response({"reason": "NotFound", "message": "no such pod"}, status=404)
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(LINES):
        await response.write(LINE)
    await response.write(b"the end \xff")
    return response


async def _jobs(request: web.Request) -> web.Response:
    assert "as=PartialObjectMetadataList" in request.headers["Accept"]
    return web.json_response({"metadata": {}, "items": None})


async def _create_job(request: web.Request) -> web.Response:
    reason = (await request.json())["reason"]
    return web.json_response({"reason": reason, "message": "no"}, status=409)


async def _pods(request: web.Request) -> web.Response:
    start, size = int(request.query.get("continue", "0")), int(request.query["limit"])
    names = PODS_THERE[start : start + size]
    more = {"continue": str(start + size)} if start + size < len(PODS_THERE) else {}
    return web.json_response(
        {"metadata": more, "items": [{"metadata": {"name": name}} for name in names]}
    )


@pytest.fixture
async def kubernetes() -> AsyncIterator[Kubernetes]:
    application = web.Application()
    application.router.add_get("/api/v1/namespaces/n/pods/{pod}/log", _log)
    application.router.add_get("/apis/batch/v1/namespaces/n/jobs", _jobs)
    application.router.add_post("/apis/batch/v1/namespaces/n/jobs", _create_job)
    application.router.add_get("/api/v1/namespaces/n/pods", _pods)
    async with TestServer(application) as server:
        configuration = Configuration(host=str(server.make_url("")).rstrip("/"))
        configuration.client_session_kwargs = {"trust_env": False}
        async with Kubernetes(configuration, field_manager="test") as kubernetes:
            yield kubernetes


async def test_the_tail_of_a_log_longer_than_fits(kubernetes: Kubernetes) -> None:
    tail = await kubernetes.pod_log("n", "long", container="main", max_bytes=4096)
    assert len(tail) == 4096
    assert tail.endswith("x\nthe end \N{REPLACEMENT CHARACTER}")


async def test_a_log_that_is_gone(kubernetes: Kubernetes) -> None:
    with pytest.raises(NotFound):
        await kubernetes.pod_log("n", "short", container="main", max_bytes=4096)


async def test_a_quota_that_is_contended_for_is_no_name_that_is_taken(
    kubernetes: Kubernetes,
) -> None:
    with pytest.raises(AlreadyExists):
        await kubernetes.create(JOBS, "n", {"reason": "AlreadyExists"})
    with pytest.raises(Conflict) as refused:
        await kubernetes.create(JOBS, "n", {"reason": "Conflict"})
    assert not isinstance(refused.value, AlreadyExists)


async def test_an_empty_list_of_metadata(kubernetes: Kubernetes) -> None:
    assert await kubernetes.list(JOBS, "n", metadata_only=True) == []


async def test_a_list_is_read_page_by_page(kubernetes: Kubernetes) -> None:
    pages = [
        [body["metadata"]["name"] for body in page] async for page in kubernetes.pages(PODS, "n")
    ]
    assert [len(page) for page in pages] == [500, 500, 200]
    assert [name for page in pages for name in page] == PODS_THERE
    assert len(await kubernetes.list(PODS, "n")) == len(PODS_THERE)
