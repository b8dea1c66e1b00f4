"""Deliveries of callbacks: read them, send one again."""

from starlette.requests import Request
from starlette.types import Send

from hybridjobs.ingress import members as checks
from hybridjobs.ingress import views
from hybridjobs.ingress.api.access import ApiRoute
from hybridjobs.ingress.api.requests import (
    PAGE_CHECKS,
    Backend,
    Page,
    id_in_path,
    not_found,
)
from hybridjobs.ingress.asgi import respond
from hybridjobs.ingress.members import Check, read_query
from hybridjobs.ingress.problems import Refused
from hybridjobs.model import ApiScope
from hybridjobs.store.callbacks import (
    Delivery,
    DeliveryFilter,
    DeliveryStatus,
    get_delivery,
    list_deliveries,
    redeliver,
)

_LIST: dict[str, Check] = {
    **PAGE_CHECKS,
    "job": checks.identifier,
    "type": checks.text,
    "status": checks.one_of(tuple(DeliveryStatus)),
}


def routes(backend: Backend) -> list[ApiRoute]:
    """The endpoints."""
    endpoints = _Callbacks(backend)
    return [
        ApiRoute(ApiScope.READ, "GET", "/api/callbacks", endpoints.list),
        ApiRoute(ApiScope.READ, "GET", "/api/callbacks/{id}", endpoints.get),
        ApiRoute(ApiScope.OPERATE, "POST", "/api/callbacks/{id}/redeliver", endpoints.redeliver),
    ]


class _Callbacks:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def list(self, request: Request, send: Send) -> None:
        query = read_query(request.query_params, _LIST)
        page = Page.taken_from(query)
        which = DeliveryFilter(
            job_id=query.get("job"),
            type=query.get("type"),
            status=query.get("status"),
            before=page.before,
        )
        async with self._backend.database.connection() as connection:
            found = await list_deliveries(connection, which, limit=page.limit)
        await respond(send, 200, views.listing("callbacks", found, limit=page.limit))

    async def get(self, request: Request, send: Send) -> None:
        await respond(send, 200, views.delivery(await self._find(request)))

    async def redeliver(self, request: Request, send: Send) -> None:
        found = await self._find(request)
        async with self._backend.database.connection() as connection:
            again = await redeliver(connection, found.id)
        if not again:
            raise Refused(409, "Being delivered", "a try is under way; ask again when it has ended")
        await respond(send, 202, f'{{"id":"{found.id}","status":"pending"}}'.encode())

    async def _find(self, request: Request) -> Delivery:
        async with self._backend.database.connection() as connection:
            found = await get_delivery(connection, id_in_path(request, "callback"))
        if found is None:
            raise not_found("callback", request)
        return found
