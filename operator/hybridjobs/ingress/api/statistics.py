"""What the queue has done, and how well it is."""

from starlette.types import Send

from hybridjobs.ingress import views
from hybridjobs.ingress.api.operations import Answer, Asked, operation
from hybridjobs.ingress.api.requests import Backend
from hybridjobs.ingress.api.schemas import exactly
from hybridjobs.ingress.asgi import respond
from hybridjobs.model import ApiScope
from hybridjobs.store import statistics

_STATISTICS = exactly(
    {
        "summary": list[statistics.Metric],
        "types": list[statistics.TypeStatistics],
        "misplaced": list[statistics.MisplacedType],
        "queue": list[statistics.QueueLine],
        "health": statistics.QueueHealth,
        "stuck": list[statistics.StuckJob],
    }
)


class Statistics:
    """The operation."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @operation(
        "GET",
        "/api/statistics",
        scope=ApiScope.READ,
        answers={200: Answer("The figures of now.", _STATISTICS)},
    )
    async def read(self, _: Asked, send: Send) -> None:
        """What the queue has done, and how well it is."""
        async with self._backend.database.connection() as connection:
            answer = views.statistics(
                summary=await statistics.summary(connection),
                types=await statistics.type_statistics(connection),
                misplaced=await statistics.misplaced_types(connection),
                queue=await statistics.queue_status(connection),
                health=await statistics.queue_health(connection),
                stuck=await statistics.stuck_jobs(connection),
            )
        await respond(send, 200, answer)
