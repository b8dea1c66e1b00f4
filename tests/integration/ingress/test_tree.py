"""`GET /api/jobs/{id}/tree`: what came of a job."""

from typing import Any
from uuid import uuid4

import pytest

from hybridjobs.ids import new_id
from hybridjobs.store.enqueue import insert_jobs
from tests.builders import job_type, new_job
from tests.integration.ingress.conftest import Running
from tests.integration.ingress.outcomes import FAILED, end_all


async def family(ingress: Running, *parents: int) -> list[str]:
    """A job, and one for each of `parents`, which are places in the list that is returned."""
    ids = sorted(new_id() for _ in range(len(parents) + 1))
    jobs = [
        new_job(id=id_, parent_id=None if parent is None else ids[parent])
        for id_, parent in zip(ids, (None, *parents), strict=True)
    ]
    async with ingress.database.connection() as connection:
        await insert_jobs(connection, jobs)
    return [str(each) for each in ids]


@pytest.fixture
async def ids(ingress: Running) -> list[str]:
    await ingress.register(job_type())
    return await family(ingress, 0, 0, 1)


async def _tree(ingress: Running, job_id: str, **query: Any) -> Any:
    answer = await ingress.api.get(f"/api/jobs/{job_id}/tree", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_job_is_shown_with_all_that_came_of_it(ingress: Running, ids: list[str]) -> None:
    await end_all(ingress, FAILED)
    found = await _tree(ingress, ids[0])
    assert found.keys() == {"id", "total", "complete", "counts", "jobs", "next"}
    assert (found["id"], found["total"], found["complete"]) == (ids[0], 3, True)
    assert (found["counts"], found["next"]) == ({"failed": 3}, None)
    assert [(job["id"], job["parentId"], job["depth"]) for job in found["jobs"]] == [
        (ids[0], None, 0), (ids[1], ids[0], 1), (ids[2], ids[0], 1), (ids[3], ids[1], 2)
    ]  # fmt: skip
    assert [(job["children"], job["counts"]) for job in found["jobs"]] == [
        (2, {"failed": 3}), (1, {"failed": 1}), (0, {}), (0, {})
    ]  # fmt: skip
    assert {job["error"] for job in found["jobs"]} == {"no such customer"}


async def test_it_comes_in_pages_and_within_bounds(ingress: Running, ids: list[str]) -> None:
    first = await _tree(ingress, ids[0], limit=3)
    assert first["next"] == ids[2]
    second = await _tree(ingress, ids[0], limit=3, after=first["next"])
    assert [job["id"] for job in second["jobs"]] == [ids[3]]
    assert (second["next"], second["total"]) == (None, 3)
    shallow = await _tree(ingress, ids[0], depth=0)
    assert [job["id"] for job in shallow["jobs"]] == [ids[0]]
    assert shallow["counts"] == {"queued": 3}
    narrow = await _tree(ingress, ids[0], width=1)
    assert [job["id"] for job in narrow["jobs"]] == [ids[0], ids[1], ids[3]]


async def test_what_is_not_there_and_what_is_wrong(ingress: Running, ids: list[str]) -> None:
    for path in (f"/api/jobs/{uuid4()}/tree", "/api/jobs/7/tree"):
        assert (await ingress.api.get(path)).status_code == 404
    for query in ({"depth": 33}, {"width": 0}, {"limit": 1001}, {"after": "x"}, {"before": ids[0]}):
        answer = await ingress.api.get(f"/api/jobs/{ids[0]}/tree", params=query)
        assert answer.status_code == 422
    answer = await ingress.api.get(f"/api/jobs/{ids[0]}/tree", headers={"Authorization": ""})
    assert answer.status_code == 401
