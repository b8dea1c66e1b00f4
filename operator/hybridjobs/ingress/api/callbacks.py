"""Deliveries of callbacks: read them, send one again."""

from starlette.types import Send

from hybridjobs.ingress import members as checks
from hybridjobs.ingress import views
from hybridjobs.ingress.api.answers import ID
from hybridjobs.ingress.api.operations import Answer, Asked, operation
from hybridjobs.ingress.api.requests import (
    PAGE_CHECKS,
    Backend,
    Page,
    id_in_path,
    not_found,
)
from hybridjobs.ingress.api.schemas import Listing, exactly
from hybridjobs.ingress.asgi import respond
from hybridjobs.ingress.members import Check
from hybridjobs.ingress.problems import Refused
from hybridjobs.model import ApiScope
from hybridjobs.store.callbacks import (
    Delivery,
    DeliveryFilter,
    DeliveryStatus,
    DeliverySummary,
    get_delivery,
    list_deliveries,
    redeliver,
)

_FILTERS: dict[str, Check] = {
    **PAGE_CHECKS,
    "job": checks.identifier,
    "type": checks.text,
    "status": checks.one_of(tuple(DeliveryStatus)),
}
_LINKS = ("get-callbacks-id", "post-callbacks-id-redeliver")


class Callbacks:
    """The operations."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @operation(
        "GET",
        "/api/callbacks",
        scope=ApiScope.READ,
        query=_FILTERS,
        answers={
            200: Answer(
                "A page of deliveries, the newest first.",
                Listing("callbacks", DeliverySummary),
                links=_LINKS,
                links_by="callbacks/0/id",
            )
        },
    )
    async def list(self, asked: Asked, send: Send) -> None:
        """What jobs that ended tell, and how far that has come."""
        query = asked.query
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

    @operation(
        "GET",
        "/api/callbacks/{id}",
        scope=ApiScope.READ,
        answers={200: Answer("The delivery.", Delivery, links=_LINKS)},
    )
    async def get(self, asked: Asked, send: Send) -> None:
        """A delivery with its body and its last tries."""
        await respond(send, 200, views.delivery(await self._find(asked)))

    @operation(
        "POST",
        "/api/callbacks/{id}/redeliver",
        scope=ApiScope.OPERATE,
        answers={
            202: Answer(
                "It is tried for another three days.",
                exactly({"id": ID, "status": {"const": DeliveryStatus.PENDING.value}}),
                links=_LINKS,
            )
        },
        problems={409: "A try is under way."},
    )
    async def redeliver(self, asked: Asked, send: Send) -> None:
        """Send one once more, under the same id."""
        found = await self._find(asked)
        async with self._backend.database.connection() as connection:
            again = await redeliver(connection, found.id)
        if not again:
            raise Refused(409, "Being delivered", "a try is under way; ask again when it has ended")
        await respond(send, 202, f'{{"id":"{found.id}","status":"pending"}}'.encode())

    async def _find(self, asked: Asked) -> Delivery:
        async with self._backend.database.connection() as connection:
            found = await get_delivery(connection, id_in_path(asked.request, "callback"))
        if found is None:
            raise not_found("callback", asked.request)
        return found
