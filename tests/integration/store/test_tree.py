"""A job with its descendants: shown within bounds, counted whole."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from hybridjobs.ids import new_id
from hybridjobs.model import Outcome, Progress, Status
from hybridjobs.store import attempts, tree
from hybridjobs.store.database import Database
from hybridjobs.store.heartbeats import Beat, record_beats
from hybridjobs.store.tree import MAX_JOBS, Tree, get_tree
from tests.builders import job_type, new_job
from tests.integration.store.scene import Queue

_CHILDREN = """
INSERT INTO hybridjobs.background_jobs
    (id, type, payload, source, run_at, order_key, parent_id, stage)
SELECT hybridjobs.uuidv7_at(clock_timestamp()), 'test/long', '{}', 'sql', now(), now(), %s, 'ready'
FROM generate_series(1, %s)
"""


@pytest.fixture
async def queue(database: Database) -> Queue:
    queue = Queue(database)
    await queue.register(job_type())
    return queue


async def _family(queue: Queue) -> dict[str, UUID]:
    """A job, its three children, and a child of the first one, which has one again."""
    parents = {"root": None, "a": "root", "b": "root", "c": "root", "aa": "a", "aaa": "aa"}
    names = dict(zip(parents, sorted(new_id() for _ in parents), strict=True))
    jobs = [
        new_job(id=names[name], parent_id=names[parent] if parent else None)
        for name, parent in parents.items()
    ]
    await queue.enqueue(*jobs)
    await queue.enqueue(new_job())  # a stranger
    return names


async def _tree(queue: Queue, job_id: UUID, **bounds: Any) -> Tree:
    async with queue.database.connection() as connection:
        found = await get_tree(connection, job_id, **bounds)
    assert found is not None
    return found


async def test_it_has_all_descendants_level_by_level(queue: Queue) -> None:
    ids = await _family(queue)
    await queue.claim()
    await queue.end(ids["b"])
    await queue.end(ids["aaa"], Outcome.PERMANENT)
    async with queue.database.connection() as connection:
        now = datetime.now(UTC)
        await attempts.start(connection, ids["a"], 1, pod_name="p", pod_uid="p", started_at=now)
        await record_beats(connection, [Beat(ids["a"], 1, Progress(3, 7, "pages"))])
    found = await _tree(queue, ids["root"])
    assert [(job.id, job.depth) for job in found.jobs] == [
        (ids["root"], 0), (ids["a"], 1), (ids["b"], 1), (ids["c"], 1), (ids["aa"], 2),
        (ids["aaa"], 3),
    ]  # fmt: skip
    assert (found.total, found.complete) == (5, True)
    assert found.counts == {"queued": 2, "processing": 1, "completed": 1, "failed": 1}
    by_id = {job.id: job for job in found.jobs}
    assert by_id[ids["root"]].counts == found.counts
    assert by_id[ids["a"]].counts == {"queued": 1, "failed": 1}
    assert by_id[ids["aaa"]].counts == {}
    assert [by_id[ids[name]].children for name in ("root", "a", "b", "aa")] == [3, 1, 0, 1]
    assert by_id[ids["aa"]].parent_id == ids["a"]
    assert (by_id[ids["b"]].status, by_id[ids["b"]].progress) == (Status.COMPLETED, None)
    progress = by_id[ids["a"]].progress
    assert progress is not None
    assert (progress["done"], progress["total"], progress["message"]) == (3, 7, "pages")


async def test_it_begins_with_the_job_that_is_asked_for(queue: Queue) -> None:
    ids = await _family(queue)
    found = await _tree(queue, ids["a"])
    assert [job.id for job in found.jobs] == [ids["a"], ids["aa"], ids["aaa"]]
    assert found.jobs[0].depth == 0
    alone = await _tree(queue, ids["c"])
    assert ([job.id for job in alone.jobs], alone.total, alone.counts) == ([ids["c"]], 0, {})
    async with queue.database.connection() as connection:
        assert await get_tree(connection, new_id()) is None


async def test_bounds_hide_and_still_count(queue: Queue) -> None:
    ids = await _family(queue)
    found = await _tree(queue, ids["root"], depth=1)
    assert [job.id for job in found.jobs] == [ids[name] for name in ("root", "a", "b", "c")]
    found = await _tree(queue, ids["root"], width=1)
    assert [job.id for job in found.jobs] == [ids[name] for name in ("root", "a", "aa", "aaa")]
    assert (found.total, found.jobs[0].children) == (5, 3)
    # What descends from a hidden job is hidden too.
    await queue.enqueue(new_job(parent_id=ids["c"]))
    found = await _tree(queue, ids["root"], width=2)
    assert ids["c"] not in {job.id for job in found.jobs}
    assert len(found.jobs) == 5
    assert found.total == 6


async def test_pages_together_are_the_whole(queue: Queue) -> None:
    ids = await _family(queue)
    seen: list[UUID] = []
    after = None
    while page := (await _tree(queue, ids["root"], after=after, limit=2)).jobs:
        assert len(page) <= 2
        seen += [job.id for job in page]
        after = page[-1].id
    assert seen == list(ids.values())
    beyond = await _tree(queue, ids["root"], after=after)
    assert (beyond.total, beyond.counts) == (5, {"queued": 5})


async def test_what_is_counted_is_bounded(queue: Queue) -> None:
    (root,) = await queue.enqueue(new_job())
    await queue.execute(_CHILDREN, root, MAX_JOBS)
    found = await _tree(queue, root, limit=1)
    assert (found.total, found.complete) == (MAX_JOBS, True)
    await queue.execute(_CHILDREN, root, 500)
    found = await _tree(queue, root, limit=1)
    assert (found.total, found.complete) == (MAX_JOBS + 1, False)
    assert found.counts == {"queued": MAX_JOBS + 1}
    # A chain without end is cut too.
    parent = root
    for _ in range(tree.MAX_DEPTH):
        (parent,) = await queue.enqueue(new_job(parent_id=parent))
    (lone,) = await queue.enqueue(new_job())
    parent = lone
    for _ in range(tree.MAX_DEPTH + 2):
        (parent,) = await queue.enqueue(new_job(parent_id=parent))
    found = await _tree(queue, lone)
    assert (found.total, found.complete) == (tree.MAX_DEPTH, False)
