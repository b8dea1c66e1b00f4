"""Job types without a cluster: those of a folder, and one for each handler that has none."""

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ValidationError

from hybridjobs.errors import BrokenPayloadSchema, ConfigurationError
from hybridjobs.model import JobType, type_slug
from hybridjobs.payload_schemas import PayloadSchemas
from hybridjobs.store.database import Database
from hybridjobs.store.types import delete_other_types, list_types, upsert_type


async def mirror(
    database: Database, bodies: Sequence[dict[str, Any]], handlers: Iterable[str]
) -> list[JobType]:
    """Make `job_types` what the HybridJobTypes and the handlers say; the types.

    ConfigurationError names what is wrong with one, and nothing is changed.
    """
    specs = [_spec(body) for body in bodies]
    run = {spec.get("handler") or spec["type"] for spec in specs}
    specs += [{"type": name} for name in sorted(handlers) if name not in run]
    async with database.transaction() as connection:
        known = {each.spec.type: each for each in await list_types(connection)}
        types = [_parsed(spec, known.get(spec["type"])) for spec in specs]
        for each in types:
            await upsert_type(connection, each)
        await delete_other_types(connection, [each.spec.type for each in types])
    return types


def _spec(body: dict[str, Any]) -> dict[str, Any]:
    spec = body.get("spec")
    if not isinstance(spec, dict) or not isinstance(spec.get("type"), str):
        name = (body.get("metadata") or {}).get("name", "without a name")
        raise ConfigurationError(f"HybridJobType {name}: spec.type is missing")
    return spec


def _parsed(spec: dict[str, Any], known: JobType | None) -> JobType:
    name = type_slug(spec["type"])
    generation = 1
    if known is not None:
        generation = known.generation + (known.raw_spec != spec)
    try:
        job_type = JobType.parse(name=name, uid=f"dev-{name}", generation=generation, spec=spec)
        PayloadSchemas().compile(job_type)
    except (ValidationError, BrokenPayloadSchema) as error:
        raise ConfigurationError(f"HybridJobType {name}: {error}") from None
    return job_type
