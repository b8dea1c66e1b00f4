"""What a batch asks for, and in which order its rows come."""

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridjobs import codec
from hybridjobs.callbacks.targets import Targets
from hybridjobs.errors import InvalidInput
from hybridjobs.ids import new_id
from hybridjobs.ingress.batch_requests import (
    MAX_BATCH_DEPENDENCIES,
    MAX_JOBS,
    BatchRequest,
    BatchRows,
    rows_of_batch,
)
from hybridjobs.payload_schemas import PayloadSchemas
from tests.builders import job_type

TYPES = {
    "t": job_type("t"),
    "strict": job_type("strict", payloadSchema={"type": "integer"}),
}


def _job(type_: str = "t", **members: Any) -> dict[str, Any]:
    return {"type": type_, "payload": {}, **members}


def _rows(*jobs: dict[str, Any]) -> BatchRows:
    members = codec.members(json.dumps({"jobs": jobs}))
    asked = BatchRequest.parse(members, max_payload_bytes=100, targets=Targets())
    return rows_of_batch(
        asked, TYPES, PayloadSchemas(), source="api", submitted_by="ana", traceparent=None
    )


def _faults(*jobs: dict[str, Any]) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        _rows(*jobs)
    assert caught.value.status == 422
    return [error.path for error in caught.value.errors]


def test_a_ref_stands_for_the_job_that_has_it() -> None:
    outside = new_id()
    batch = _rows(_job(dependsOn=["first", str(outside)]), _job(ref="first"))
    first, second = batch.rows
    assert (batch.places[first.id], batch.places[second.id]) == (1, 0)
    assert second.depends_on == (first.id, outside)
    assert batch.strangers == {outside}


def test_unknown_dependencies_are_named_by_the_job_that_has_them() -> None:
    outside, known = new_id(), new_id()
    batch = _rows(_job(), _job(dependsOn=[str(known), str(outside)]))
    batch.refuse_unknown(frozenset())
    with pytest.raises(InvalidInput) as caught:
        batch.refuse_unknown(frozenset((outside,)))
    assert [error.path for error in caught.value.errors] == ["/jobs/1/dependsOn/1"]


@pytest.mark.parametrize(
    ("jobs", "paths"),
    [
        ([_job(), _job("none"), _job(priority=101)], ["/jobs/2/priority"]),
        ([_job(), _job("none"), _job("strict")], ["/jobs/1/type", "/jobs/2/payload"]),
        ([_job(payload="x" * 100)], ["/jobs/0/payload"]),
        ([_job(payload={"s": "\0"})], ["/jobs/0/payload/s"]),
        ([_job(runAt="1999-01-01T00:00:00Z")], ["/jobs/0/runAt"]),
        ([_job(image="evil"), {"type": "t"}], ["/jobs/0/image", "/jobs/1/payload"]),
        ([_job(ref="a"), _job(ref="b"), _job(ref="a")], ["/jobs/2/ref"]),
        ([_job(dependsOn=["a"])], ["/jobs/0/dependsOn/0"]),
        ([_job(), _job(ref="a", dependsOn=["a"])], ["/jobs/1/dependsOn"]),
        (
            [_job(ref="a", dependsOn=["b"]), _job(), _job(ref="b", dependsOn=["a"])],
            ["/jobs/0/dependsOn", "/jobs/2/dependsOn"],
        ),
    ],
)
def test_every_fault_is_named_by_its_path(jobs: list[dict[str, Any]], paths: list[str]) -> None:
    assert _faults(*jobs) == paths


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("{}", "/jobs"),
        ('{"jobs":{}}', "/jobs"),
        ('{"jobs":null}', "/jobs"),
        ('{"jobs":[]}', "/jobs"),
        (f'{{"jobs":[{"0," * MAX_JOBS}0]}}', "/jobs"),
        ('{"jobs":[1]}', "/jobs/0"),
        ('{"jobs":[{"type":"t","payload":0}],"key":""}', "/key"),
        ('{"jobs":[{"type":"t","payload":0}],"priority":1}', "/priority"),
    ],
)
def test_the_shape_of_a_batch(text: str, path: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        BatchRequest.parse(codec.members(text), max_payload_bytes=100, targets=Targets())
    assert [error.path for error in caught.value.errors] == [path]


def test_faults_are_bounded_in_number() -> None:
    assert len(_faults(*[_job("none")] * 200)) == 100


def test_dependencies_are_bounded_in_number() -> None:
    many = [_job(dependsOn=["a"] * 10_000) for _ in range(MAX_BATCH_DEPENDENCIES // 10_000)]
    assert _faults(*many, _job(dependsOn=["a"])) == ["/jobs"]


@given(st.data())
def test_the_order_keeps_every_dependency(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 8))
    order = data.draw(st.permutations(range(size)))
    jobs = [_job(ref=str(place)) for place in range(size)]
    for position, place in enumerate(order):
        before = order[:position]
        if before:
            awaited = data.draw(st.lists(st.sampled_from(before), unique=True))
            jobs[place]["dependsOn"] = [str(each) for each in awaited]
    seen: set[UUID] = set()
    for row in _rows(*jobs).rows:
        assert seen.issuperset(row.depends_on)
        seen.add(row.id)
    assert len(seen) == size


@given(st.permutations(range(6)))
def test_every_cycle_is_refused(order: list[int]) -> None:
    jobs = [_job(ref=str(place)) for place in range(6)]
    for one, other in zip(order, [*order[1:], order[0]], strict=True):
        jobs[one]["dependsOn"] = [str(other)]
    assert _faults(*jobs) == [f"/jobs/{place}/dependsOn" for place in range(6)]
