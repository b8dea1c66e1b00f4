"""An API server with faults: requests go on to the real one, but for what a test breaks."""

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import Configuration

from hybridjobs.kube.client import Object, Resource
from tests.waiting import eventually

_NOT_PASSED = {"host", "connection", "transfer-encoding", "content-length", "accept-encoding"}


class Proxy:
    """Plain HTTP for whoever comes, with an administrator's credentials behind."""

    def __init__(self, behind: Configuration, session: aiohttp.ClientSession) -> None:
        self._behind = behind
        self._session = session
        self.silent: set[Resource] = set()  # whose watches stay open and tell bookmarks alone
        self.status: int | None = None  # what everything is answered
        self.refused: dict[str, int] = {}  # what requests of a method, or a path, are answered
        self._open: dict[str, web.StreamResponse] = {}
        self.watches: list[str] = []  # the paths that were watched
        self.url = ""

    def configuration(self) -> Configuration:
        """Credentials for a client of the proxy."""
        configuration = Configuration(host=self.url)
        configuration.client_session_kwargs = {"trust_env": False}
        return configuration

    async def handle(self, request: web.Request) -> web.StreamResponse:
        status = self.refused.get(request.method) or self.refused.get(request.path, self.status)
        if status is not None:
            return web.json_response({"reason": "ByTest", "code": status}, status=status)
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in _NOT_PASSED
        }
        watch = "watch" in request.query
        async with self._session.request(
            request.method,
            f"{self._behind.host}{request.rel_url}",
            headers=headers,
            data=await request.read() or None,
        ) as answer:
            response = web.StreamResponse(
                status=answer.status, headers={"Content-Type": answer.content_type}
            )
            await response.prepare(request)
            if watch:
                self.watches.append(request.path)
                self._open[_plural(request.path)] = response
            async for line in answer.content:
                if watch and self._is_silent(request.path) and not _is_bookmark(line):
                    continue
                await response.write(line)
            return response

    async def tell(self, resource: Resource, event: Object) -> None:
        """Say something in the newest watch of the resource, as soon as there is one."""
        await eventually(lambda: resource.plural in self._open)
        await self._open[resource.plural].write(json.dumps(event).encode() + b"\n")

    def _is_silent(self, path: str) -> bool:
        return _plural(path) in {resource.plural for resource in self.silent}


def _plural(path: str) -> str:
    return path.rpartition("/")[2]


def _is_bookmark(line: bytes) -> bool:
    return bool(json.loads(line)["type"] == "BOOKMARK")


@asynccontextmanager
async def proxied(behind: Configuration) -> AsyncIterator[Proxy]:
    """A proxy before the cluster of these credentials."""
    trust = ssl.create_default_context(cafile=behind.ssl_ca_cert)
    if behind.cert_file:
        trust.load_cert_chain(behind.cert_file, behind.key_file)
    token = await behind.get_api_key_with_prefix("BearerToken")
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=trust, limit=0),
        headers={"Authorization": token} if token else {},
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:
        proxy = Proxy(behind, session)
        application = web.Application(client_max_size=16 << 20)
        application.router.add_route("*", "/{path:.*}", proxy.handle)
        async with TestServer(application) as server:
            proxy.url = str(server.make_url("")).rstrip("/")
            yield proxy
