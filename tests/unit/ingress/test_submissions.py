"""What a job request says, and what a type's schema makes of its payload."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridjobs import codec
from hybridjobs.callbacks.targets import Targets
from hybridjobs.errors import InvalidInput, PayloadTooLarge
from hybridjobs.ids import new_id
from hybridjobs.ingress.submissions import JobOptions, JobRequest, Submission, new_row
from hybridjobs.payload_schemas import PayloadSchemas
from tests.builders import job_type

LIMIT = 1024
OPTIONS = {
    "priority": -5,
    "deadlineSeconds": 60,
    "maxRetries": 0,
    "runAt": "2026-11-24T09:30:00+02:00",
    "uniqueKey": "u",
    "uniqueWhile": "queued",
    "dependsOn": [],
    "onDependencyFailure": "run",
}
SUBMISSION = Submission(
    payload="{}", source="api", key=None, submitted_by=None, arrived=0.0, budget_seconds=None
)


def _parse(text: str) -> JobRequest:
    return JobRequest.parse(codec.members(text), max_payload_bytes=LIMIT, targets=Targets())


@pytest.mark.parametrize(
    "payload", ["1.0", "12345678901234567890", '{ "b" : 1, "a" : [ ] }', '"\\u0041"', "null"]
)
def test_the_payload_is_the_text_as_written(payload: str) -> None:
    assert _parse(f'{{"type":"t","payload": {payload} }}').payload == payload


def test_null_leaves_the_choice_to_the_type() -> None:
    members: dict[str, Any] = {"type": "t", "payload": {}, **dict.fromkeys(("key", *OPTIONS))}
    asked = _parse(json.dumps(members))
    assert (asked.key, asked.depends_on, asked.options) == (None, (), JobOptions())


def test_what_a_job_may_ask_for_becomes_its_row() -> None:
    awaited = new_id()
    asked = _parse(json.dumps({"type": "t", "payload": {}, **OPTIONS, "dependsOn": [str(awaited)]}))
    submission = SUBMISSION._replace(options=asked.resolved())
    row = new_row(job_type(concurrency={"limit": 1, "key": "a.b"}), submission, None)
    assert (row.priority, row.deadline_seconds, row.max_retries) == (-5, 60, 0)
    assert row.run_at == datetime(2026, 11, 24, 7, 30, tzinfo=UTC)
    assert (row.unique_key, row.unique_while) == ("u", "queued")
    assert (row.depends_on, row.on_dependency_failure) == ((awaited,), "run")
    assert row.key_path == "a.b"


def test_a_dependency_is_an_id() -> None:
    with pytest.raises(InvalidInput) as caught:
        _parse(f'{{"type":"t","payload":{{}},"dependsOn":["{new_id()}","a"]}}').resolved()
    assert [error.path for error in caught.value.errors] == ["/dependsOn/1"]


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        _parse('{"type":null,"priority":"high","deadlineSeconds":86401,"key":3,"x/~":0}')
    assert {error.path for error in caught.value.errors} == {
        "/x~1~0",
        "/payload",
        "/type",
        "/priority",
        "/deadlineSeconds",
        "/key",
    }


def test_the_limit_counts_bytes() -> None:
    assert _parse(json.dumps({"type": "t", "payload": "x" * (LIMIT - 2)}))
    with pytest.raises(PayloadTooLarge):
        _parse(json.dumps({"type": "t", "payload": "é" * (LIMIT // 2)}, ensure_ascii=False))


@given(st.integers())
def test_priorities_are_bounded(priority: int) -> None:
    text = f'{{"type":"t","payload":0,"priority":{priority}}}'
    if -100 <= priority <= 100:
        assert _parse(text).options.priority == priority
    else:
        with pytest.raises(InvalidInput):
            _parse(text)


def test_the_type_decides_what_the_request_leaves_open() -> None:
    spec: dict[str, Any] = {"priority": 7, "deadlineSeconds": 60, "retry": {"limit": 1}}
    known = job_type(generation=4, **spec)
    row = new_row(known, SUBMISSION, None)
    assert (row.priority, row.deadline_seconds, row.max_retries) == (7, 60, 1)
    assert (row.type_generation, row.lease_seconds) == (4, None)
    assert (new_row(known, SUBMISSION, 8.0).lease_seconds or 0) > 8


def test_schemas_follow_the_generation() -> None:
    schemas = PayloadSchemas()
    strict = job_type(generation=1, payloadSchema={"type": "integer"})
    with pytest.raises(InvalidInput) as caught:
        schemas.check(strict, '"text"')
    assert [error.path for error in caught.value.errors] == ["/payload"]
    schemas.check(job_type(generation=2, payloadSchema={"type": "string"}), '"text"')
    schemas.check(job_type(generation=3), '"text"')


def test_faults_are_named_by_their_path_and_bounded_in_number() -> None:
    schema = {"type": "array", "items": {"type": "object", "required": ["a/b"]}}
    with pytest.raises(InvalidInput) as caught:
        PayloadSchemas().check(job_type(payloadSchema=schema), "[" + "{}," * 99 + "{}]")
    paths = [error.path for error in caught.value.errors]
    assert paths[:2] == ["/payload/0", "/payload/1"]
    assert len(paths) == 20
