"""Payloads against the schemas that administrators wrote, wrong ones among them."""

from typing import Any

import pytest

from hybridjobs.errors import BrokenPayloadSchema, InvalidInput
from hybridjobs.payload_schemas import PayloadSchemas
from tests.builders import job_type


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "no such type"}, "no such type"),
        ({"pattern": "("}, "regex"),
        ({"$ref": "#/$defs/none"}, "/$defs/none"),
        ({"$ref": "https://example.invalid/schema.json"}, "https://example.invalid/schema.json"),
        ({"$ref": "file:///etc/hostname"}, "file:///etc/hostname"),
    ],
)
def test_one_that_is_broken_says_why(schema: dict[str, Any], why: str) -> None:
    with pytest.raises(BrokenPayloadSchema, match="the payloadSchema of test/long") as raised:
        PayloadSchemas().compile(job_type(payloadSchema=schema))
    assert why in str(raised.value)


def test_a_reference_within_it_is_followed() -> None:
    schema = {"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}
    schemas, type_ = PayloadSchemas(), job_type(payloadSchema=schema)
    schemas.check(type_, "1" * 4000)
    with pytest.raises(InvalidInput, match="does not fit"):
        schemas.check(type_, '"1"')


@pytest.mark.parametrize("payload", ["{", '{"a": NaN}', '{"a": 1e999}', "1" * 5000])
def test_what_is_not_json_is_the_callers_fault(payload: str) -> None:
    with pytest.raises(InvalidInput, match="the payload is not JSON") as raised:
        PayloadSchemas().check(job_type(payloadSchema={}), payload)
    assert raised.value.status == 400
