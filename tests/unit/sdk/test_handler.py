from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, Field

from hybridjobs.sdk import Context, PermanentError, RetryLater, handler


@handler("probe/later")
async def later(payload: Later, context: Context) -> None: ...


class Later(BaseModel):
    number: int = Field(gt=0)
    names: list[str] = []


def test_a_handler_is_its_function_with_a_type() -> None:
    assert later.type == "probe/later"
    assert "probe/later" in repr(later)


def test_a_payload_is_validated_by_a_model_defined_after_the_handler() -> None:
    assert later.parse({"number": 3}) == Later(number=3)


def test_an_invalid_payload_is_permanent_and_names_every_path() -> None:
    with pytest.raises(PermanentError) as raised:
        later.parse({"number": 0, "names": ["a", 5]})
    assert "/number: Input should be greater than 0" in str(raised.value)
    assert "/names/1: Input should be a valid string" in str(raised.value)


def test_an_error_message_quotes_nothing_of_the_payload() -> None:
    with pytest.raises(PermanentError) as raised:
        later.parse({"number": "s3cr3t"})
    assert "s3cr3t" not in str(raised.value)


def test_a_payload_of_another_shape_is_refused_as_a_whole() -> None:
    with pytest.raises(PermanentError, match=r"^invalid payload: /: "):
        later.parse([1, 2])


def test_many_faults_are_summed_up() -> None:
    with pytest.raises(PermanentError, match="and 40 more"):
        later.parse({"number": 1, "names": list(range(50))})


def test_a_payload_without_annotation_is_the_json_value() -> None:
    @handler("probe/raw")
    async def raw(payload, context: Context) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001

    value: Any = {"n": 12345678901234567890123, "one": 1.0, "deep": [{"x": None}]}
    assert raw.parse(value) == value
    assert isinstance(raw.parse(value)["one"], float)


@pytest.mark.parametrize(
    "type_", ["", "Upper", "a/", "/a", "a//b", "a b", "-a", "a" * 64, "ä", "a\n"]
)
def test_a_name_that_is_no_type_is_refused(type_: str) -> None:
    async def f(payload: object, context: Context) -> None: ...

    with pytest.raises(ValueError, match="is no job type"):
        handler(type_)(f)


def test_a_plain_function_is_refused() -> None:
    def f(payload: object, context: Context) -> None: ...

    with pytest.raises(TypeError, match="async"):
        handler("probe/plain")(f)  # type: ignore[arg-type]


def test_a_function_of_one_parameter_is_refused() -> None:
    async def f(payload: object) -> None: ...

    with pytest.raises(TypeError, match="payload and a context"):
        handler("probe/one")(f)  # type: ignore[arg-type]


def test_retry_later_takes_seconds_or_a_moment() -> None:
    assert RetryLater(90).after_seconds == 90
    assert RetryLater(-5).after_seconds == 0
    assert RetryLater(float("inf")).after_seconds == 7 * 86_400
    soon = datetime.now(UTC) + timedelta(minutes=2)
    assert 110 < RetryLater(soon).after_seconds <= 120
    with pytest.raises(ValueError, match="time zone"):
        RetryLater(datetime(2026, 1, 1))
