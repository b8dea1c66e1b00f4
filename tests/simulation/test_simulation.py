"""The controller's real code through thousands of orderings of events, losses, kills and writes."""

from contextlib import closing
from random import Random
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from hybridjobs.store.types import upsert_type
from tests.conftest import DatabaseUrls
from tests.simulation.definitions import TYPES
from tests.simulation.stores import InPostgres
from tests.simulation.world import World


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(0, 60, 10))
def test_whatever_happens_every_job_ends_once(first: int) -> None:
    for seed in range(first, first + 10):
        world = World(Random(seed))
        try:
            world.run(600)
        except AssertionError:
            print(f"again: python -m tests.simulation --seed {seed}")
            raise


@pytest.mark.timeout(300)
@settings(
    max_examples=60,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(random=st.randoms(use_true_random=False))
def test_in_every_short_order_of_events_every_job_ends_once(random: Random) -> None:
    World(random).run(60)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(3))
async def test_with_postgres_every_job_ends_once(database_urls: DatabaseUrls, seed: int) -> None:
    options: Any = {"autocommit": True, "row_factory": dict_row}
    async with await psycopg.AsyncConnection.connect(database_urls.owner, **options) as owner:
        for each in TYPES:
            await upsert_type(owner, each)
    stores: list[InPostgres] = []

    def in_postgres(now: Any) -> InPostgres:
        stores.append(InPostgres(database_urls.owner, now))
        return stores[0]

    world = World(Random(seed), in_postgres)
    with closing(stores[0]):
        world.run(300)
