"""Values for tests: whole, valid, and changed by keyword."""

from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.ids import new_id
from hybridjobs.model import JobType, NewJob
from hybridjobs.store.types import upsert_type


def job_type(type_: str = "test/long", *, generation: int = 1, **spec: Any) -> JobType:
    name = type_.replace("/", "-")
    return JobType.parse(
        name=name, uid=f"uid-{name}", generation=generation, spec={"type": type_, **spec}
    )


def new_job(type_: str = "test/long", **fields: Any) -> NewJob:
    return NewJob(**{"id": new_id(), "type": type_, "payload": "{}", "source": "api", **fields})


async def register(connection: AsyncConnection[DictRow], *types: JobType) -> None:
    for each in types:
        await upsert_type(connection, each)
