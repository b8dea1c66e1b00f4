"""The answers that several operations give, as JSON Schemas."""

from hybridjobs.ingress.api.operations import Answer
from hybridjobs.ingress.api.schemas import exactly
from hybridjobs.ingress.members import Schema, nullable
from hybridjobs.model import Status
from hybridjobs.store.tree import TreeJob

ID: Schema = {"type": "string", "format": "uuid"}
TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
STATUS: Schema = {"type": "string", "enum": [status.value for status in Status]}
MOMENT: Schema = {"type": "string", "format": "date-time"}
LOCATION: dict[str, Schema] = {"Location": {"type": "string", "format": "uri-reference"}}

ACCEPTED = exactly(
    {"id": ID, "type": TEXT, "status": STATUS, "url": TEXT},
    optional={"result": {}, "error": TEXT},
)
BATCH = exactly(
    {
        "id": ID,
        "key": nullable(TEXT),
        "total": COUNT,
        "createdAt": MOMENT,
        "counts": exactly({status.value: COUNT for status in Status}),
        "finished": bool,
    }
)
_COUNTS: Schema = {
    "type": "object",
    "properties": {status.value: COUNT for status in Status},
    "additionalProperties": False,
}
TREE = exactly(
    {
        "id": ID,
        "total": COUNT,
        "complete": bool,
        "counts": _COUNTS,
        "jobs": list[TreeJob],
        "next": nullable(ID),
    }
)
LINKS = ("get-jobs-id", "post-jobs-id-cancel", "post-jobs-id-retry", "get-jobs-id-logs")

MOVED = Answer("What the job is now.", exactly({"id": ID, "status": STATUS}), links=LINKS)
PAUSED: dict[str, Schema] = {
    "paused": {"type": "boolean"},
    "pausedAt": nullable(MOMENT),
    "pausedBy": nullable(TEXT),
}
