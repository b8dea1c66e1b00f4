"""What the queue has done, and how well it is."""

from starlette.requests import Request
from starlette.types import Send

from hybridjobs.ingress import views
from hybridjobs.ingress.api.access import ApiRoute
from hybridjobs.ingress.api.requests import Backend
from hybridjobs.ingress.asgi import respond
from hybridjobs.model import ApiScope
from hybridjobs.store import statistics


def routes(backend: Backend) -> list[ApiRoute]:
    """The endpoints."""

    async def read(_: Request, send: Send) -> None:
        async with backend.database.connection() as connection:
            answer = views.statistics(
                summary=await statistics.summary(connection),
                types=await statistics.type_statistics(connection),
                misplaced=await statistics.misplaced_types(connection),
                queue=await statistics.queue_status(connection),
                health=await statistics.queue_health(connection),
                stuck=await statistics.stuck_jobs(connection),
            )
        await respond(send, 200, answer)

    return [ApiRoute(ApiScope.READ, "GET", "/api/statistics", read)]
